"""The Python function that stands for a JSON schema: its source, and its arguments as JSON."""

from __future__ import annotations

import ast
import inspect
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernel_agent.terminal import plain_text

MAX_SUMMARY = 2_000  # characters of a description: some servers send a manual
MAX_LINE = 400  # characters that are said of one parameter
MAX_CHOICES = 300  # characters of a Literal; longer ones are named in the docstring
MAX_DEPTH = 6  # of schemas in schemas; deeper, and a schema that holds itself, is Any
_SIMPLE = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "object": "dict",
    "array": "list",
}
_REST = "more"
_MISSING = object()


@dataclass(frozen=True)
class Stub:
    """A function as source, and what leads from its calls to a JSON object.

    `names` maps its parameters to the schema's properties, `nullable` are those that take None as
    a value; None for another optional one means that it is left out. `problem` says why the schema
    could not be used, so that anything may be given; it is empty otherwise.
    """

    source: str
    signature: inspect.Signature
    names: Mapping[str, str]
    nullable: frozenset[str] = frozenset()
    problem: str = ""

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """What a call gives, by the schema's names. Raises TypeError as Python's own calls do."""
        given = dict(self.signature.bind(*args, **kwargs).arguments)
        found = dict(given.pop(_REST, {}))
        for name, value in given.items():
            optional = self.signature.parameters[name].default is not inspect.Parameter.empty
            if value is None and optional and name not in self.nullable:
                continue
            found[self.names[name]] = value
        return found


def stub_of(name: str, description: str, schema: Any, returns: Any = None) -> Stub:
    """The function `name` that takes the properties of an object's JSON `schema`.

    `returns` is the schema of what it gives, None if it is not known. A schema that cannot be
    used leads to a function that takes any keyword arguments.
    """
    try:
        parameters = _parameters(schema)
        rest = schema.get("additionalProperties") if isinstance(schema, Mapping) else None
        result = _type(returns, returns) if isinstance(returns, Mapping) else ""
        lines = [one.line for one in parameters if one.line]
        if isinstance(returns, Mapping) and (line := _line(returns, returns)):
            lines.append(f"Returns: {line}")
        return _stub(name, description, parameters, lines, result, rest=bool(rest))
    except (_BadSchemaError, RecursionError, SyntaxError, ValueError) as error:
        problem = str(error) or type(error).__name__
        return _stub(name, description, [], [], "", rest=True, problem=problem)


def identifier(name: str) -> str:
    """`name` as a Python identifier: letters, digits and `_`, no keyword."""
    found = re.sub(r"\W+", "_", name).strip("_") or "tool"
    # What is normalised by Python's parser would be another name in the namespace.
    found = found if found.isascii() else re.sub(r"[^a-zA-Z0-9_]+", "_", found).strip("_") or "tool"
    if found[0].isdigit():
        found = f"_{found}"
    return f"{found}_" if keyword.iskeyword(found) else found


class _BadSchemaError(Exception):
    """A schema that says nothing of use."""


@dataclass(frozen=True)
class _Parameter:
    name: str
    key: str
    type: str
    line: str
    required: bool
    nullable: bool
    default: Any = _MISSING


def _parameters(schema: Any) -> list[_Parameter]:
    if not isinstance(schema, Mapping):
        raise _BadSchemaError(f"it is a {type(schema).__name__} and no object")
    if schema.get("type", "object") != "object":
        raise _BadSchemaError(f"its type is {schema['type']!r} and not 'object'")
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    if not isinstance(properties, Mapping) or not isinstance(required, Sequence):
        raise _BadSchemaError("its properties are no object, or `required` is no list")
    found: list[_Parameter] = []
    for key, value in properties.items():
        if not isinstance(value, Mapping | bool):
            raise _BadSchemaError(f"property {key!r} is a {type(value).__name__}")
        taken = {_REST, *(parameter.name for parameter in found)}
        found.append(_parameter(key, value, schema, key in required, taken))
    # Python wants those without a default first.
    return sorted(found, key=lambda parameter: not parameter.required)


def _parameter(
    key: str, value: Any, schema: Mapping[str, Any], required: bool, taken: set[str]
) -> _Parameter:
    name = identifier(key)
    while name in taken:
        name += "_"
    shown = _type(value, schema)
    nullable = shown in ("Any", "None") or shown.endswith("| None")
    default = value.get("default", _MISSING) if isinstance(value, Mapping) else _MISSING
    if not required and default is _MISSING and not nullable:
        shown = f"{shown} | None"
    line = f"{name}: {line}" if (line := _line(value, schema)) else ""
    return _Parameter(name, key, shown, line, required, nullable, default)


def _stub(
    name: str,
    description: str,
    parameters: Sequence[_Parameter],
    lines: Sequence[str],
    result: str,
    *,
    rest: bool,
    problem: str = "",
) -> Stub:
    shown, bound = [], []
    for one in parameters:
        default: Any = inspect.Parameter.empty
        shown.append(f"{one.name}: {one.type}")
        if not one.required:
            default = None if one.default is _MISSING else one.default
            shown[-1] += f" = {default!r}"
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        bound.append(inspect.Parameter(one.name, kind, default=default))
    if rest:
        shown.append(f"**{_REST}: Any")
        bound.append(inspect.Parameter(_REST, inspect.Parameter.VAR_KEYWORD))
    head = f"def {name}({', '.join(shown)}){f' -> {result}' if result else ''}:"
    source = f"{head}\n{_docstring(description, lines)}"
    _check(source)
    names = {one.name: one.key for one in parameters}
    nullable = frozenset(one.name for one in parameters if one.nullable)
    return Stub(source, inspect.Signature(bound), names, nullable, problem)


def _check(source: str) -> None:
    """What a stranger has described must be one function with nothing but a docstring."""
    body = ast.parse(source).body
    match body:
        case [ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str()))])]:
            return
    raise _BadSchemaError("it makes no function")


def _docstring(description: str, lines: Sequence[str]) -> str:
    summary = _cut(inspect.cleandoc(plain_text(description)).strip(), MAX_SUMMARY)
    text = "\n\n".join(filter(None, (summary, "\n".join(lines)))) or "No description."
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if "\n" not in text and not text.endswith('"'):
        return f'    """{text}"""'
    indented = "\n".join(f"    {line}".rstrip() for line in text.split("\n"))
    return f'    """{indented.lstrip()}\n    """'


def _line(value: Any, root: Mapping[str, Any]) -> str:
    """What is said of a property: its description, and what its type cannot show."""
    if not isinstance(value, Mapping):
        return ""
    said = " ".join(plain_text(str(value.get("description") or "")).split())
    told = [said, *_choices(value), *_bounds(value), *_fields(value, root)]
    return _cut(" ".join(filter(None, told)), MAX_LINE)


def _choices(value: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(choices := value.get("enum"), list) and not _literal(choices):
        yield f"One of: {', '.join(map(repr, choices))}."


def _bounds(value: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": "at least", "maximum": "at most", "maxItems": "items at most", "format": ""}
    told = [f"{word} {value[key]}".strip() for key, word in words.items() if key in value]
    if told:
        yield f"({', '.join(told)})"


def _fields(value: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a nested object, or of the objects in a list."""
    value = _resolved(value, root)
    of = "Keys"
    for option in (*_list(value.get("anyOf")), *_list(value.get("oneOf"))):
        resolved = _resolved(option, root)
        if resolved.get("properties"):
            value = resolved
            break
    if isinstance(value.get("items"), Mapping):
        value, of = _resolved(value["items"], root), "Keys of each"
    properties = value.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return
    required = _list(value.get("required"))
    keys = [
        f"{key}{'' if key in required else '?'}: {_type(one, root)}"
        for key, one in properties.items()
    ]
    yield f"{of}: {', '.join(keys)}."


def _type(value: Any, root: Any, depth: int = 0) -> str:
    """A schema as an annotation, such as a person would write."""
    if not isinstance(value, Mapping) or depth > MAX_DEPTH:
        return "Any"
    value = _resolved(value, root)
    if isinstance(choices := value.get("enum", _constant(value)), list):
        if literal := _literal(choices):
            return literal
        kinds = {type(choice).__name__ for choice in choices}
        return kinds.pop() if len(kinds) == 1 and kinds <= {"str", "int", "float"} else "Any"
    for word in ("anyOf", "oneOf"):
        if options := _list(value.get(word)):
            return _union([_type(one, root, depth + 1) for one in options], value)
    if len(options := _list(value.get("allOf"))) == 1:
        return _type(options[0], root, depth + 1)
    kind = value.get("type")
    if isinstance(kind, list):
        return _union([_type({**value, "type": one}, root, depth + 1) for one in kind], value)
    if kind == "array" and isinstance(value.get("items"), Mapping):
        return _union([f"list[{_type(value['items'], root, depth + 1)}]"], value)
    if kind == "object" and isinstance(value.get("additionalProperties"), Mapping):
        return f"dict[str, {_type(value['additionalProperties'], root, depth + 1)}]"
    return _union([_SIMPLE.get(str(kind), "dict" if "properties" in value else "Any")], value)


def _union(types: Sequence[str], value: Mapping[str, Any]) -> str:
    found = list(dict.fromkeys([*types, *(["None"] if value.get("nullable") is True else [])]))
    if "Any" in found:
        return "Any"
    # None last, as people write it.
    return " | ".join(sorted(found, key=lambda one: one == "None")) or "Any"


def _literal(choices: Sequence[Any]) -> str:
    """`Literal["a", "b"]`, or nothing if it cannot be one or is too long."""
    if not choices or not all(isinstance(one, str | int | bool | None) for one in choices):
        return ""
    text = f"Literal[{', '.join(map(repr, choices))}]"
    return text if len(text) <= MAX_CHOICES else ""


def _constant(value: Mapping[str, Any]) -> list[Any] | None:
    return [value["const"]] if "const" in value else None


def _resolved(value: Any, root: Any) -> Mapping[str, Any]:
    """`value`, or what its `$ref` leads to inside the same schema; nothing is fetched."""
    for _ in range(MAX_DEPTH):
        if not isinstance(value, Mapping):
            return {}
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return value
        place: Any = root if reference.startswith("#") else None
        for word in reference.removeprefix("#").strip("/").split("/"):
            key = word.replace("~1", "/").replace("~0", "~")
            place = place.get(key) if isinstance(place, Mapping) else None
        value = place
    return {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
