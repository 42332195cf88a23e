"""The source of a function that is to run in the kernel, with the imports that it needs."""

from __future__ import annotations

import ast
import builtins
import inspect
import symtable
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from kernel_agent.errors import ToolError


def shippable_source(name: str, function: Any, decorator: Any) -> str:
    """The source of `function` as it can run in another process: imports, then its `def`.

    What `decorator` (our own) stands there for is left out.

    Raises ToolError, which names tool `name`, for anything but a function by itself: a closure,
    one with other decorators, one that refers to the globals of its module.
    """
    if not isinstance(function, types.FunctionType) or function.__name__ == "<lambda>":
        raise ToolError(name, "only a function made with `def` can run in the kernel.")
    if function.__name__ != name:
        reason = f"in the kernel it keeps the name of its `def`, {function.__name__!r}."
        raise ToolError(name, reason)
    if free := function.__code__.co_freevars:
        raise ToolError(
            name, f"it cannot run in the kernel: it refers to {_listed(free)} around it."
        )
    definition, text = _definition(name, function)
    _check_decorators(name, definition, function.__globals__, decorator)
    lines = _imports(name, function, definition, text)
    return "\n".join([*lines, *([""] * 2 if lines else []), text])


def joined_sources(sources: list[str]) -> str:
    """The sources of several functions as one, each import once, at the top."""
    imports: dict[str, None] = {}
    bodies: list[str] = []
    for source in sources:
        nodes = ast.parse(source).body
        start = next(node for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom))
        lines = source.splitlines()
        imports.update(dict.fromkeys(filter(None, lines[: start.lineno - 1])))
        bodies.append("\n".join(lines[start.lineno - 1 :]))
    return "\n\n\n".join(["\n".join(sorted(imports)), *bodies] if imports else bodies)


def _definition(
    name: str, function: types.FunctionType
) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]:
    """The `def` of a function and its text without decorators."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
        definition = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError) as error:
        reason = f"its source cannot be read ({error}): it cannot run in the kernel."
        raise ToolError(name, reason) from error
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        raise ToolError(name, "its source is no `def`: it cannot run in the kernel.")
    lines = source.splitlines()[definition.lineno - 1 : definition.end_lineno]
    return definition, "\n".join(lines)


def _check_decorators(
    name: str, definition: ast.FunctionDef | ast.AsyncFunctionDef, names: dict[str, Any], ours: Any
) -> None:
    for one in definition.decorator_list:
        function = one.func if isinstance(one, ast.Call) else one
        if _value(function, names) is not ours:
            shown = ast.unparse(one)
            raise ToolError(name, f"its decorator @{shown} does not come along into the kernel.")


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """The value of a dotted name."""
    match node:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=inside, attr=attribute):
            return getattr(_value(inside, names), attribute, None)
    return None


def _imports(
    name: str,
    function: types.FunctionType,
    definition: ast.FunctionDef | ast.AsyncFunctionDef,
    text: str,
) -> list[str]:
    """The import lines for the global names that a function refers to."""
    names = {**vars(builtins), **function.__globals__}
    lines: set[str] = set()
    refused: list[str] = []
    for used in sorted(_globals_of(text) - {name}):
        if used not in function.__globals__ and hasattr(builtins, used):
            continue
        line = _import_line(used, names.get(used), function)
        lines.update([line] if line else [])
        refused += [] if line else [used]
    if refused:
        raise ToolError(
            name,
            f"it cannot run in the kernel: it refers to {_listed(refused)} of its module. "
            "Make them parameters, or put them into the function.",
        )
    return sorted(lines | set(_submodules(definition, names)))


def _globals_of(text: str) -> set[str]:
    """The names that a function's source takes from outside it, builtins among them."""
    return set(_outside(symtable.symtable(text, "<tool>", "exec")))


def _outside(table: symtable.SymbolTable) -> Iterator[str]:
    is_top = table.get_type() == "module"
    for symbol in table.get_symbols():
        is_taken = symbol.is_referenced() and (is_top or symbol.is_global())
        if is_taken or symbol.is_declared_global():
            yield symbol.get_name()
    for inside in table.get_children():
        yield from _outside(inside)


def _import_line(alias: str, value: Any, function: types.FunctionType) -> str:
    """The line that makes `alias` in another process; empty if no import does."""
    if isinstance(value, types.ModuleType):
        module = value.__name__
        if _is_own(module, function):
            return ""
        return f"import {module}" if module == alias else f"import {module} as {alias}"
    parts = str(getattr(value, "__module__", None) or "").split(".")
    for original in (alias, getattr(value, "__name__", None)):
        for end in range(1, len(parts) + 1):
            module = ".".join(parts[:end])
            known = sys.modules.get(module)
            if _is_own(module, function) or not isinstance(original, str) or known is None:
                continue
            if value is not None and getattr(known, original, None) is value:
                named = original if original == alias else f"{original} as {alias}"
                return f"from {module} import {named}"
    return ""


def _is_own(module: str, function: types.FunctionType) -> bool:
    """Whether a module is the function's own program or package, which the kernel lacks."""
    own = (function.__module__ or "").partition(".")[0]
    return module.partition(".")[0] in (own, "__main__")


def _submodules(
    definition: ast.FunctionDef | ast.AsyncFunctionDef, names: dict[str, Any]
) -> Iterator[str]:
    """Imports of the submodules that are reached through a module: `import scipy.stats`."""
    for node in ast.walk(definition):
        if isinstance(node, ast.Attribute):
            value, parent = _value(node, names), _value(node.value, names)
            if isinstance(value, types.ModuleType) and isinstance(parent, types.ModuleType):
                name = f"{parent.__name__}.{node.attr}"
                if sys.modules.get(name) is value:
                    yield f"import {name}"


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
