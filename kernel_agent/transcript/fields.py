"""Values out of JSON that anybody may have edited: of the right type, or named as damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from kernel_agent.transcript.cells import KEY
from kernel_agent.transcript.storable import (
    MAX_DEPTH,
    storable_json,
    storable_output,
    storable_text,
)

Kind = TypeVar("Kind")


class Damaged(ValueError):
    """What cannot be read as what it claims to be, and why."""


class Fields:
    """The values of `data` by name; `problems` tells in sentences which could not be used."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.problems: list[str] = []

    def get(self, name: str, kind: type[Kind], default: Kind, *, is_needed: bool = False) -> Kind:
        """The value if it is a `kind`, else `default`; one that `is_needed` must be there."""
        if name not in self.data:
            if is_needed:
                self.problems.append(f"it has no {name!r}.")
            return default
        value = self.data[name]
        if kind is float and type(value) is int:
            value = _as_float(value)
        if isinstance(value, kind):
            return value
        found = type(value).__name__
        self.problems.append(f"its {name!r} is of type {found}, not {kind.__name__}.")
        return default

    def one_of(self, name: str, allowed: Sequence[str], default: Any) -> Any:
        """The value if it is `allowed`, else `default`."""
        value = self.data.get(name)
        if value in allowed:
            return value
        self.problems.append(f"its {name!r} is {value!r}, not one of {', '.join(allowed)}.")
        return default

    def texts(self, name: str) -> list[str]:
        """A list of texts; what is no text in it is left out."""
        found = self.get(name, list, [])
        texts = [text for text in found if isinstance(text, str)]
        if len(texts) < len(found):
            self.problems.append(f"its {name!r} are not all text.")
        return texts

    def inner(self, name: str) -> Fields:
        """The fields of a value that is an object, empty if it is none."""
        return Fields(self.get(name, dict, {}, is_needed=True))


def joined(cell: Any) -> Any:
    """A `cell` as it lies on disk with its texts in one piece and its outputs valid.

    Lists of lines take many times the memory of the text, so no more than one cell is in that form.
    """
    if not isinstance(cell, dict):
        return cell
    outputs = cell.pop("outputs", None)
    source = cell.get("source")
    cell = storable_json(cell, depth=2 * MAX_DEPTH)
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        cell["source"] = storable_text("".join(source))
    if isinstance(outputs, list):
        cell["outputs"] = [
            storable_output(_joined_output(output)) if isinstance(output, dict) else None
            for output in outputs
        ]
    elif outputs is not None:
        cell["outputs"] = str(type(outputs).__name__)
    return cell


def known_of(cell: Any) -> dict[str, Any]:
    """What we know of a cell; nothing of a person's."""
    metadata = cell.get("metadata") if isinstance(cell, dict) else None
    known = metadata.get(KEY) if isinstance(metadata, dict) else None
    return known if isinstance(known, dict) else {}


def source_of(cell: Mapping[str, Any]) -> str | None:
    """The source of a cell that was `joined`; None if it is no text."""
    source = cell.get("source")
    return source if isinstance(source, str) else None


def _joined_output(output: dict[str, Any]) -> dict[str, Any]:
    match output:
        case {"output_type": "stream", "text": list() as lines} if _are_texts(lines):
            return output | {"text": "".join(lines)}
        case {"data": dict() as data}:
            one = {
                mime: "".join(value) if _is_lines(mime, value) else value
                for mime, value in data.items()
            }
            return output | {"data": one}
    return output


def _is_lines(mime: str, value: Any) -> bool:
    return isinstance(value, list) and not mime.endswith("json") and _are_texts(value)


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _as_float(value: int) -> float | int:
    try:
        return float(value)
    except OverflowError:
        return value
