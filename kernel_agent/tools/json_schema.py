"""Tools as the chat completions API takes them: JSON schemas made from their stubs."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kernel_agent.tools.docstrings import compact
from kernel_agent.tools.tool import Tool

LONGEST_DESCRIPTION = 1024  # characters; some providers refuse more
LONGEST_DEFAULT = 40  # characters; a longer one is left to the stub
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LINE = re.compile(r"(?P<name>\w+)(?: \([^)]*\))?: (?P<said>\S.*)")
_SIMPLE = {
    **{"str": "string", "int": "integer", "float": "number", "bool": "boolean"},
    **{"dict": "object", "Dict": "object", "Mapping": "object", "None": "null"},
    **{"Path": "string", "date": "string", "datetime": "string"},
}
_LISTS = ("list", "List", "tuple", "Tuple", "set", "Set", "frozenset", "Sequence", "Iterable")
_SCALARS = [{"type": kind} for kind in ("string", "number", "boolean", "object")]


def json_tools(tools: Iterable[Tool], language: str) -> list[Mapping[str, Any]]:
    """The tool for code in the kernel's `language`, and those of `tools` that JSON can call.

    The same tools give the same bytes. Only keywords that all providers know are used: no
    `default`, no `additionalProperties`, and everything has a type.
    """
    code = {"code": {"type": "string", "description": "The source of one cell."}}
    about = "Run code in the kernel and see what comes out of it. Its variables stay."
    own = _tool(language, about, code, ["code"])
    return [own, *(_json_tool(one) for one in tools if takes_json(one, language))]


def takes_json(tool: Tool, language: str) -> bool:
    """Whether a call with JSON can be made of `tool`: its arguments have names, and nobody waits.

    The others can be called by code alone, as all of them can be in Python.
    """
    function = _function(tool)
    given = function.args
    names = [tool.name, *(one.arg for one in _parameters(function))]
    return (
        language == "python"
        and tool.name != language
        and isinstance(function, ast.FunctionDef)
        and not given.posonlyargs
        and not given.vararg
        and all(_NAME.fullmatch(name) for name in names)
    )


def _json_tool(tool: Tool) -> dict[str, Any]:
    function = _function(tool)
    given = function.args
    defaults: list[ast.expr | None] = [None] * (len(given.args) - len(given.defaults))
    defaults += [*given.defaults, *given.kw_defaults]
    parameters = dict(zip(_parameters(function), defaults, strict=True))
    about, lines = _described(function)
    properties = {
        one.arg: _property(one.annotation, default, lines.get(one.arg, ""))
        for one, default in parameters.items()
    }
    required = [one.arg for one, default in parameters.items() if default is None]
    about = _with_return_type(about, function.returns)
    return _tool(tool.name, about or tool.name, properties, required)


def _with_return_type(about: str, returns: ast.expr | None) -> str:
    """`about` with the type of the result: code needs it, and a JSON schema has no place for it."""
    if returns is None:
        return about
    kind = ast.unparse(returns)
    told, count = re.subn("^Returns: ", lambda _: f"Returns {kind}: ", about, count=1, flags=re.M)
    return told if count else f"{about}\n\nReturns {kind}.".strip()


def _tool(
    name: str, about: str, properties: Mapping[str, Any], required: Sequence[str]
) -> dict[str, Any]:
    parameters = {"type": "object", "properties": dict(properties), "required": list(required)}
    function = {"name": name, "description": about, "parameters": parameters}
    return {"type": "function", "function": function}


def _function(tool: Tool) -> ast.FunctionDef | ast.AsyncFunctionDef:
    function = ast.parse(tool.stub).body[0]
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    return function


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """Those that a call gives by name, in their order."""
    return [*function.args.args, *function.args.kwonlyargs]


def _described(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, dict[str, str]]:
    """What the docstring says of the function, and of each parameter."""
    docstring = ast.get_docstring(function)
    if not docstring:
        return "", {}
    names = [one.arg for one in _parameters(function)]
    about: list[str] = []
    lines: dict[str, str] = {}
    for line in compact(docstring, parameters=names, typed=names).splitlines():
        found = _LINE.fullmatch(line)
        if found and found["name"] in names:
            lines[found["name"]] = found["said"]
        else:
            about.append(line)
    text = inspect.cleandoc("\n".join(about)).strip()
    if len(text) > LONGEST_DESCRIPTION:
        text = f"{text[: LONGEST_DESCRIPTION - 1]}…"
    return text, lines


def _property(annotation: ast.expr | None, default: ast.expr | None, said: str) -> dict[str, Any]:
    options = _options(annotation)
    has_none_default = isinstance(default, ast.Constant) and default.value is None
    if has_none_default and len(options) > 1:
        # Who wants none leaves it out.
        options = [one for one in options if one != {"type": "null"}]
    elif default is not None and not has_none_default:
        shown = ast.unparse(default)
        if shown != "..." and len(shown) <= LONGEST_DEFAULT:
            said = f"{said.rstrip('.')}. Default: {shown}.".removeprefix(". ")
    schema = options[0] if len(options) == 1 else {"anyOf": options}
    return {**schema, "description": said} if said else schema


def _options(annotation: ast.expr | None) -> list[dict[str, Any]]:
    """The schemas of which a value fits one; those of any value for a type that JSON has not."""
    match annotation:
        case ast.Constant(value=None):
            return [{"type": "null"}]
        case ast.Constant(value=str() as text):
            return _options(_expression(text))
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _SIMPLE:
            return [{"type": _SIMPLE[name]}]
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _LISTS:
            return [_list_of(None)]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union([left, right])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inside):
            return _subscripted(name, inside)
    return [*_SCALARS, _list_of(None)]


def _subscripted(name: str, inside: ast.expr) -> list[dict[str, Any]]:
    arguments = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    match name:
        case "Optional":
            return [*_options(inside), {"type": "null"}]
        case "Union":
            return _union(arguments)
        case "Annotated":
            return _options(arguments[0])
        case "Literal":
            return _literals(arguments)
        case _ if name in _SIMPLE:
            return [{"type": _SIMPLE[name]}]
        case _ if name in _LISTS:
            kinds = [one for one in arguments if ast.unparse(one) != "..."]
            is_one = len({ast.unparse(one) for one in kinds}) == 1
            return [_list_of(kinds[0] if is_one else None)]
    return _options(None)


def _union(members: Iterable[ast.expr]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for member in members:
        found += [option for option in _options(member) if option not in found]
    return found


def _literals(values: Sequence[ast.expr]) -> list[dict[str, Any]]:
    """The values of a Literal, together by their type."""
    kinds: dict[str, list[Any]] = {}
    for one in values:
        try:
            value = ast.literal_eval(one)
        except ValueError:
            return _options(None)
        kinds.setdefault(_SIMPLE.get(type(value).__name__, "null"), []).append(value)
    return [
        {"type": kind} | ({"enum": found} if kind in ("string", "integer") else {})
        for kind, found in kinds.items()
    ]


def _list_of(kind: ast.expr | None) -> dict[str, Any]:
    options = _options(kind) if kind is not None else _SCALARS
    return {"type": "array", "items": options[0] if len(options) == 1 else {"anyOf": options}}


def _expression(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
