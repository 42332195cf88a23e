"""Types as a person would write them."""

from __future__ import annotations

import ast
import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

_MOST_MEMBERS = 12  # of an enumeration that is shown by its values


def evaluated(annotation: Any, namespace: dict[str, Any]) -> Any:
    """The type that an annotation stands for; the text itself if its names are not known."""
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(namespace))
    except Exception:  # any: it is code of the user's that need not run (`if TYPE_CHECKING`)
        return annotation


def written(annotation: Any) -> str:
    """The annotation as text: `list[dict]`, `int | None`, `Literal["a", "b"]`, `DataFrame`.

    Empty for a text that is no expression.
    """
    match annotation:
        case str():
            return annotation.strip() if is_expression(annotation) else ""
        case None | types.NoneType:
            return "None"
        case types.EllipsisType():
            return "..."
        case typing.ForwardRef():
            return written(annotation.__forward_arg__)
        case list():  # the parameters of a Callable
            return f"[{', '.join(map(_inside, annotation))}]"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return written(arguments[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(_literal, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_inside, arguments))
    if origin is not None:
        inside = ", ".join(map(_inside, arguments))
        return f"{_name(origin)}[{inside}]" if inside else _name(origin)
    if isinstance(annotation, enum.EnumMeta) and (values := _values(annotation)):
        return f"Literal[{', '.join(map(_literal, values))}]"
    return _name(annotation)


def quoted(text: str) -> str:
    """A text as a literal, in double quotes where that needs no escapes."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)


def parts(annotation: Any) -> Iterator[Any]:
    """The annotation and the types inside it."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for inside in get_args(annotation):
            yield from parts(inside)


def fields(kind: Any) -> dict[str, str] | None:
    """The fields of a class whose values are given as dicts (`{"year": "int"}`), else None.

    They are dataclasses, TypedDicts and pydantic models. A field that may be left out has `?`
    after its name.
    """
    if not isinstance(kind, type):
        return None
    if dataclasses.is_dataclass(kind):
        optional = {
            one.name
            for one in dataclasses.fields(kind)
            if one.default is not dataclasses.MISSING
            or one.default_factory is not dataclasses.MISSING
        }
        types_of = {one.name: one.type for one in dataclasses.fields(kind) if one.init}
    elif typing.is_typeddict(kind):
        types_of = dict(kind.__annotations__)
        optional = set(getattr(kind, "__optional_keys__", ()))
    elif isinstance(model := getattr(kind, "model_fields", None), dict):
        types_of = {name: one.annotation for name, one in model.items()}
        optional = {name for name, one in model.items() if not one.is_required()}
    else:
        return None
    return {
        f"{name}?" if name in optional else name: written(one) for name, one in types_of.items()
    }


def cannot_be_given(annotation: Any) -> str:
    """Why code in the kernel can give no value of this type; empty if it can, or may."""
    kinds = get_args(annotation) if _is_union(annotation) else (annotation,)
    if any(_live(kind) is None for kind in kinds):
        return ""
    return f"a {_live(kinds[0])} cannot leave the kernel"


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (typing.Union, types.UnionType)


def _live(kind: Any) -> str | None:
    """What a live thing of this type is called, None for data."""
    kind = get_origin(kind) or kind
    if kind in (Callable, typing.Callable, types.FunctionType):
        return "function"
    return "module" if kind is types.ModuleType else None


def _name(kind: Any) -> str:
    if kind is Any:
        return "Any"
    for attribute in ("__name__", "_name"):
        if isinstance(name := getattr(kind, attribute, None), str) and name.isidentifier():
            return name
    text = str(kind).replace("typing.", "")
    return text if is_expression(text) else ""


def _values(kind: enum.EnumMeta) -> list[Any]:
    values = [member.value for member in kind]  # type: ignore[var-annotated]
    plain = all(isinstance(value, str | int) for value in values)
    return values if plain and len(values) <= _MOST_MEMBERS else []


def _inside(kind: Any) -> str:
    return written(kind) or "Any"


def _literal(value: Any) -> str:
    value = value.value if isinstance(value, enum.Enum) else value
    return quoted(value) if isinstance(value, str) else repr(value)


def is_expression(text: str) -> bool:
    """Whether a text can stand as an annotation."""
    try:
        ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return False
    return "\n" not in text.strip()
