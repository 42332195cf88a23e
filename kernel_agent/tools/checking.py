"""Checks the arguments of a call against the tool's signature, in words that a model can use."""

from __future__ import annotations

import collections.abc
import reprlib
import typing
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from kernel_agent.errors import ToolError
from kernel_agent.tools.annotations import parts
from kernel_agent.tools.stubs import signature_of, stub_signature
from kernel_agent.tools.tool import Tool

if TYPE_CHECKING:
    import pydantic

_MOST_ERRORS = 5
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 80


class Checker:
    """Makes of what a cell has given what the function of `tool` gets.

    Values are checked and converted as pydantic does by the annotations of the function: `"5"` is
    fine for an `int`. Arguments go by place or name as they came; by name if the function takes
    no others.
    What has no annotation, or one that pydantic knows nothing of, is not checked.
    """

    def __init__(self, tool: Tool) -> None:
        self._name = tool.name
        self._line = tool.stub.partition("\n")[0].removeprefix("def ").rstrip(":")
        self._signature = stub_signature(tool.stub)
        parameters = _parameters(tool)
        # A function made by hand may take names only, while code gives values by place.
        self._has_places = not parameters or any(one.kind in _PLACES for one in parameters)
        self._checks = {
            one.name: model
            for one in parameters
            if one.name in self._signature.parameters
            and (model := _model(one.annotation)) is not None
        }

    def check(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments for the call.

        Raises TypeError, which says which argument, what was given and what is allowed.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}. It is {self._line}") from None
        problems: list[str] = []
        positional: list[Any] = []
        named: dict[str, Any] = {}
        by_place = set(list(self._signature.parameters)[: len(args)]) if self._has_places else ()
        for name, value in bound.arguments.items():
            match self._signature.parameters[name].kind:
                case Parameter.VAR_POSITIONAL:
                    positional += [self._checked(name, one, problems) for one in value]
                case Parameter.VAR_KEYWORD:
                    for key, one in value.items():
                        named[key] = self._checked(name, one, problems, shown=key)
                case Parameter.POSITIONAL_ONLY:
                    positional.append(self._checked(name, value, problems))
                case Parameter.POSITIONAL_OR_KEYWORD if name in by_place:
                    positional.append(self._checked(name, value, problems))
                case _:
                    named[name] = self._checked(name, value, problems)
        if problems:
            more = [f"and {len(problems) - _MOST_ERRORS} more"] * (len(problems) > _MOST_ERRORS)
            lines = "\n".join([*problems[:_MOST_ERRORS], *more])
            raise TypeError(f"{self._name}(): {lines}\nIt is {self._line}")
        return positional, named

    def _checked(self, name: str, value: Any, problems: list[str], *, shown: str = "") -> Any:
        model = self._checks.get(name)
        if model is None:
            return value
        import pydantic  # noqa: PLC0415 - see `_model`

        try:
            return model(value=value).value  # type: ignore[attr-defined]
        except pydantic.ValidationError as error:
            for one in error.errors(include_url=False):
                place = "".join(f"[{part!r}]" for part in one["loc"][1:])
                given = _SHOWN.repr(one["input"])
                kind = type(one["input"]).__name__
                problems.append(f"{shown or name}{place} is {given} ({kind}). {one['msg']}.")
            return value


_PLACES = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
_LAZY = (collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator)


def _parameters(tool: Tool) -> list[Parameter]:
    """The parameters of the function itself: their annotations say more than the stub's text."""
    try:
        return list(signature_of(tool.name, tool.call).parameters.values())
    except ToolError:  # made by hand, with a stub of its own
        return []


def _model(annotation: Any) -> type[pydantic.BaseModel] | None:
    """What checks a value, None if pydantic cannot for this annotation."""
    if annotation is Parameter.empty or isinstance(annotation, str):
        return None
    # pydantic takes a tenth of a second to import: only a run whose code calls a tool waits.
    import pydantic  # noqa: PLC0415

    if typing.get_origin(annotation) is collections.abc.Iterable:
        annotation = list[typing.get_args(annotation) or (Any,)]  # type: ignore[misc]
    if any((typing.get_origin(part) or part) in _LAZY for part in parts(annotation)):
        return None  # what pydantic makes of these can be gone through once only
    config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    fields: dict[str, Any] = {"value": (annotation, ...)}
    try:
        return pydantic.create_model("Argument", __config__=config, **fields)
    except Exception:  # many kinds, from pydantic and from the classes that it asks
        return None
