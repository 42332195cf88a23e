"""Answers of a wanted type: what the model is told of it, and whether a value fits."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kernel_agent.errors import SettingsError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

MAX_SCHEMA = 3_000  # characters
MAX_ERRORS = 8
MAX_INPUT = 60  # characters of a value in a message
_FENCED = re.compile(r"\s*```\w*\n(.*)\n\s*```\s*", re.DOTALL)
_DROPPED = ("title", "additionalProperties", "discriminator")


class UnfitAnswerError(ValueError):
    """An answer that is not of the wanted type: the message tells the model what does not fit."""


def typed(value: Any, answer_type: Any) -> Any:
    """`value` as a value of `answer_type`, which may be any that pydantic knows, or any class.

    A text is also tried as JSON. Raises UnfitAnswerError, field by field, and SettingsError for a
    type that nothing can be checked against.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - slow; only a wanted type needs it

    adapter = _adapter(answer_type)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        failed = error
    if isinstance(value, str):
        fenced = _FENCED.fullmatch(value)
        text = (fenced[1] if fenced else value).strip()
        try:
            return adapter.validate_json(text)
        except ValidationError as error:
            failed = error if _is_json(text) else failed
        try:
            return adapter.validate_python(text)
        except ValidationError:
            pass
    raise UnfitAnswerError(_message(failed, value, answer_type))


def wanted(answer_type: Any) -> str:
    """A line for the model that says of what type the value of `final_answer` must be.

    Raises SettingsError for a type that nothing can be checked against.
    """
    from pydantic.errors import PydanticInvalidForJsonSchema  # noqa: PLC0415

    adapter = _adapter(answer_type)
    try:
        schema = adapter.json_schema()
    except PydanticInvalidForJsonSchema:
        return f"The value given to `final_answer` must be of the type {_name(answer_type)}."
    short = _short(schema, schema.get("$defs", {}), ())
    text = json.dumps(short, ensure_ascii=False)
    if len(text) > MAX_SCHEMA:
        text = f"{text[:MAX_SCHEMA]}…"
    return f"The value given to `final_answer` must be JSON (dict, list, …) of this schema: {text}"


def _adapter(answer_type: Any) -> TypeAdapter[Any]:
    from pydantic.errors import PydanticUserError  # noqa: PLC0415
    from pydantic.warnings import ArbitraryTypeWarning  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            # Said of what is no type at all, and would fit any value.
            warnings.simplefilter("error", ArbitraryTypeWarning)
            return _made_adapter(answer_type)
    except (PydanticUserError, ArbitraryTypeWarning, NameError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"answer_type {_name(answer_type)} cannot be used: {reason}") from error


def _made_adapter(answer_type: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter  # noqa: PLC0415
    from pydantic.errors import PydanticSchemaGenerationError  # noqa: PLC0415

    try:
        adapter = TypeAdapter(answer_type)
    except PydanticSchemaGenerationError:
        # A class that pydantic does not know: only whether a value is an instance is checked.
        adapter = TypeAdapter(answer_type, config=ConfigDict(arbitrary_types_allowed=True))
    adapter.rebuild(raise_errors=True)
    return adapter


def _message(failed: ValidationError, value: Any, answer_type: Any) -> str:
    errors = failed.errors(include_url=False)
    lines = [f"- {_line(error, value)}" for error in errors[:MAX_ERRORS]]
    if (more := len(errors) - MAX_ERRORS) > 0:
        lines.append(f"- and {more} more")
    hint = ""
    if type(value).__name__ == "DataFrame":
        hint = "\nThe answer is a DataFrame: .to_dict('records') makes a list of dicts of it."
    return "\n".join(["The answer does not fit:", *lines]) + f"{hint}\n{wanted(answer_type)}"


def _line(error: Any, value: Any) -> str:
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]
    ).removeprefix(".")
    said = error["msg"][:1].lower() + error["msg"][1:]
    given = "" if error["type"] == "missing" else f", but is {_shown(error['input'])}"
    return f"{place or 'it'}: {said}{given}"


def _shown(value: Any) -> str:
    kind = type(value)
    if kind.__module__ != "builtins":
        return f"a {kind.__name__}"
    text = repr(value)
    short = text if len(text) <= MAX_INPUT else f"{text[:MAX_INPUT]}…"
    return f"{short} ({kind.__name__})"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _short(schema: Any, definitions: dict[str, Any], inside: tuple[str, ...]) -> Any:
    """`schema` without what says nothing, and with definitions in their places."""
    if isinstance(schema, list):
        return [_short(item, definitions, inside) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.rpartition("/")[2]
        if name in inside:
            return {"type": name}  # it contains itself
        schema = {**definitions.get(name, {}), **{k: v for k, v in schema.items() if k != "$ref"}}
        inside = (*inside, name)
        if inside.count(name) == 1 and _is_recursive(name, definitions):
            schema = {"name": name, **schema}
    return dict(_items(schema, definitions, inside))


def _items(
    schema: dict[str, Any], definitions: dict[str, Any], inside: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    for key, item in schema.items():
        match key, item:
            case "$defs", _:
                continue
            case "properties", dict():
                yield key, {name: _short(one, definitions, inside) for name, one in item.items()}
            case (("default" | "enum" | "const" | "examples"), _):
                yield key, item
            case _ if key not in _DROPPED or isinstance(item, dict):
                yield key, _short(item, definitions, inside)


def _is_recursive(name: str, definitions: dict[str, Any]) -> bool:
    return f'"#/$defs/{name}"' in json.dumps(definitions.get(name, {}), default=str)


def _name(answer_type: Any) -> str:
    if isinstance(answer_type, type):
        module = answer_type.__module__.partition(".")[0]
        prefix = "" if module in ("builtins", "__main__") else f"{module}."
        return f"{prefix}{answer_type.__qualname__}"
    return str(answer_type)
