"""Makes the stub of a callable: its `def` line and docstring, as the model is shown them."""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import types
import warnings
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

from kernel_agent.errors import ToolError
from kernel_agent.tools.annotations import (
    cannot_be_given,
    evaluated,
    fields,
    parts,
    quoted,
    written,
)
from kernel_agent.tools.docstrings import compact

_LONGEST_DEFAULT = 80  # characters of the literal; a longer default is shown as `...`
_INDENT = " " * 4


def signature_of(name: str, call: Callable[..., Any]) -> Signature:
    """The signature of `call`, its annotations evaluated; those that cannot be are texts.

    Raises ToolError, which names tool `name` and the parameter, if no tool can have it.
    """
    try:
        signature = inspect.signature(call)
    except (ValueError, TypeError) as error:
        reason = f"Python does not know its signature ({error}). Wrap it in a function."
        raise ToolError(name, reason) from error
    namespace = _namespace(function_of(call))
    parameters = [
        one.replace(annotation=evaluated(one.annotation, namespace))
        for one in signature.parameters.values()
    ]
    for one in parameters:
        required = one.default is Parameter.empty and one.kind not in _ANY_NUMBER
        if required and (why := cannot_be_given(one.annotation)):
            reason = f"its parameter {one.name!r} takes what no call can give: {why}."
            raise ToolError(name, f"{reason} Give it a default or bind it with functools.partial.")
    returned = evaluated(signature.return_annotation, namespace)
    return signature.replace(parameters=parameters, return_annotation=returned)


def make_stub(
    name: str, call: Callable[..., Any], *, docstring: str | None, is_async: bool = False
) -> str:
    """The stub of `call` as tool `name`: Python source of a `def` with its docstring in short.

    Raises ToolError for a signature that no tool can have; a missing docstring is a warning.
    """
    function = function_of(call)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ToolError(name, "it yields its results one by one. Return a list of them instead.")
    signature = signature_of(name, call)
    lines = ""
    if docstring and docstring.strip():
        lines = compact(docstring, parameters=_names(signature), typed=_typed(signature))
    else:
        message = f"Tool {name!r} has no docstring: the model is shown its signature only."
        warnings.warn(message, stacklevel=2)
    if described := "\n".join(_described(signature)):
        lines = f"{lines}\n\n{described}" if lines else described
    keyword = "async def" if is_async else "def"
    body = docstring_source(lines) if lines else f"{_INDENT}..."
    stub = f"{keyword} {name}{_shown(signature)}:\n{body}"
    check_stub(name, stub)
    return stub


def check_stub(name: str, stub: str) -> None:
    """Raises ToolError unless `stub` is Python source of one function called `name`."""
    try:
        body = ast.parse(stub).body
    except (SyntaxError, ValueError) as error:
        first = stub.partition("\n")[0]
        raise ToolError(name, f"its stub is no Python ({error}): {first!r}") from error
    match body:
        case [ast.FunctionDef(name=named) | ast.AsyncFunctionDef(name=named)] if named == name:
            return
    raise ToolError(name, f"its stub must be one `def {name}(…):` with a docstring.")


def stub_signature(stub: str) -> Signature:
    """The signature in a stub, without annotations; a default stands as its source."""
    function = ast.parse(stub).body[0]
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    kinds: list[Any] = [Parameter.POSITIONAL_ONLY] * len(a.posonlyargs)
    kinds += [Parameter.POSITIONAL_OR_KEYWORD] * len(a.args)
    found = [_parameter(*one) for one in zip(positional, kinds, defaults, strict=True)]
    if a.vararg:
        found.append(Parameter(a.vararg.arg, Parameter.VAR_POSITIONAL))
    for one, default in zip(a.kwonlyargs, a.kw_defaults, strict=True):
        found.append(_parameter(one, Parameter.KEYWORD_ONLY, default))
    if a.kwarg:
        found.append(Parameter(a.kwarg.arg, Parameter.VAR_KEYWORD))
    return Signature(found)


def function_of(call: Any) -> Any:
    """The function under a partial, a method, a wrapper or an instance that can be called."""
    while True:
        if isinstance(call, functools.partial):
            call = call.func
        elif inspect.ismethod(call):
            call = call.__func__
        elif hasattr(call, "__wrapped__"):
            call = call.__wrapped__
        elif inspect.isroutine(call) or isinstance(call, type | types.MethodWrapperType):
            return call
        else:
            call = type(call).__call__


def docstring_source(docstring: str) -> str:
    """The docstring as source, indented, so that Python reads the very same text."""
    printable = (char if char.isprintable() or char == "\n" else " " for char in docstring)
    text = "".join(printable).strip()
    text = text.replace("\\", "\\\\")
    end = '\\"' if text.endswith('"') else ""  # before the closing quotes it must not stand bare
    text = text.removesuffix('"' if end else "").replace('"""', '\\"\\"\\"') + end
    if "\n" not in text:
        return f'{_INDENT}"""{text}"""'
    first, *rest = text.split("\n")
    lines = [f"{_INDENT}{line}" if line.strip() else "" for line in rest]
    return "\n".join([f'{_INDENT}"""{first}', *lines, f'{_INDENT}"""'])


_ANY_NUMBER = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class _Text:
    """Stands for an annotation or a default in a signature that is made text of."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _shown(signature: Signature) -> str:
    parameters = [
        one.replace(annotation=_annotation(one.annotation), default=_default(one.default))
        for one in signature.parameters.values()
    ]
    returned = _annotation(signature.return_annotation)
    return str(signature.replace(parameters=parameters, return_annotation=returned))


def _annotation(annotation: Any) -> Any:
    if annotation is Parameter.empty:
        return annotation
    return _Text(text) if (text := written(annotation)) else Parameter.empty


def _default(default: Any) -> Any:
    if default is Parameter.empty:
        return default
    value = default.value if isinstance(default, enum.Enum) else default
    text = quoted(value) if isinstance(value, str) else repr(value)
    try:
        plain = len(text) <= _LONGEST_DEFAULT and ast.literal_eval(text) == value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        plain = False
    return _Text(text if plain is True else "...")


def _names(signature: Signature) -> set[str]:
    any_keyword = any(p.kind is Parameter.VAR_KEYWORD for p in signature.parameters.values())
    return {*signature.parameters, *(["**"] if any_keyword else [])}


def _typed(signature: Signature) -> set[str]:
    typed = {p.name for p in signature.parameters.values() if p.annotation is not p.empty}
    return typed | ({"return"} if signature.return_annotation is not Signature.empty else set())


def _described(signature: Signature) -> list[str]:
    """A line for each class whose values are given as dicts: the kernel does not have it."""
    found: dict[str, str] = {}
    for parameter in signature.parameters.values():
        for kind in parts(parameter.annotation):
            if (named := fields(kind)) is not None:
                items = ", ".join(f"{name}: {text}" for name, text in named.items())
                found[kind.__name__] = f"{kind.__name__}: a dict {{{items}}}"
    return list(found.values())


def _namespace(function: Any) -> dict[str, Any]:
    """The names that a function's annotations may use."""
    if not inspect.isfunction(function):
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    enclosed = {}
    for name, cell in cells:
        try:
            enclosed[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    own = {one.__name__: one for one in getattr(function, "__type_params__", ())}
    return {**function.__globals__, **enclosed, **own}


def _parameter(one: ast.arg, kind: Any, default: ast.expr | None) -> Parameter:
    given = Parameter.empty if default is None else ast.unparse(default)
    return Parameter(one.arg, kind, default=given)
