"""Plain values as Python source: numbers, texts, dates, paths, and containers of them."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import zoneinfo
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 100
LONGEST_INT = 10**4000  # Python writes no longer ones as digits
EXACT = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)
PANDAS = ("Timestamp", "Timedelta", "NaTType", "NAType")

ELSEWHERE = "Give it to `data` under a name of its own."
HINTS = {
    "generator": "list(...) makes a list of it.",
    "map": "list(...) makes a list of it.",
    "filter": "list(...) makes a list of it.",
    "zip": "list(...) makes a list of it.",
    "range": "list(...) makes a list of it.",
    "DataFrame": ELSEWHERE,
    "Series": ELSEWHERE,
    "ndarray": ELSEWHERE,
    "Table": ELSEWHERE,
    "Figure": ELSEWHERE,
    "Image": ELSEWHERE,
}
ALLOWED = (
    "None, bool, int, float, complex, Decimal, str, bytes, dates and times, Path, Enum, "
    "list, tuple, dict, set and frozenset of these, dataclasses and pydantic models"
)


class NoSourceError(ValueError):
    """A value that has no source: `where` it sits (`['x'][3]`), `what` it is, and a `hint`."""

    def __init__(self, what: str, hint: str = "", *, where: str = "") -> None:
        super().__init__(f"{where or 'it'} is {what}. {hint}".rstrip())
        self.what = what
        self.hint = hint
        self.where = where


@dataclasses.dataclass(frozen=True)
class Plain:
    """A value made of plain ones alone, and what can be done with it.

    Models and dataclasses have become dicts, enums their values, subclasses the builtin types.
    `imports` are the lines that its source needs; JSON or a Python literal can stand for it if
    `is_json` or `is_literal`.
    """

    value: Any
    imports: tuple[str, ...]
    is_json: bool
    is_literal: bool


def plain(value: object) -> Plain:
    """`value` as a plain one. Raises NoSourceError, which says what in it is none."""
    simplifying = _Simplifying()
    simple = simplifying.simple(value, 0)
    imports = tuple(sorted(simplifying.imports))
    return Plain(simple, imports, simplifying.is_json, simplifying.is_literal)


def source(value: Any) -> str:
    """The expression that makes the value of a Plain."""
    match value:
        case list():
            return f"[{_joined(map(source, value))}]"
        case tuple():
            return f"({_joined(map(source, value))}{',' if len(value) == 1 else ''})"
        case dict():
            items = value.items()
            return "{" + _joined(f"{source(key)}: {source(item)}" for key, item in items) + "}"
        case frozenset():
            return f"frozenset({source(set(value)) if value else ''})"
        case set():
            # In one order whatever the hashes are: the same value has the same source each time.
            return "{" + _joined(sorted(map(source, value))) + "}" if value else "set()"
        case float() if not math.isfinite(value):
            return f"float({str(value)!r})"
        case complex():
            return f"complex({source(value.real)}, {source(value.imag)})"
        case decimal.Decimal():
            return f"decimal.Decimal({str(value)!r})"
        case pathlib.PurePath():
            return f"pathlib.Path({str(value)!r})"
    return _pandas_source(value) if _is_of(value, "pandas") else repr(value)


class _Simplifying:
    """Simplifies one value, and learns about it on the way."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.is_json = True
        self.is_literal = True

    def simple(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            if abs(value) >= LONGEST_INT:
                raise NoSourceError("an int of over 4,000 digits", "hex(...) makes a text of it.")
            return value
        if kind is float:
            self.is_literal = self.is_literal and math.isfinite(value)
            return value
        if depth > MAX_DEPTH:
            raise NoSourceError(f"over {MAX_DEPTH} levels deep, or contains itself")
        if isinstance(value, enum.Enum):
            return self.simple(value.value, depth + 1)
        if _is_of(value, "numpy") and hasattr(value, "item") and not hasattr(value, "__len__"):
            return self._number(value, depth)
        simple = self._of_standard_library(value)
        if simple is None:
            return self._compound(value, depth)
        return simple if type(simple) not in (int, float) else self.simple(simple, depth + 1)

    def _number(self, value: Any, depth: int) -> Any:
        if value.dtype.kind in "biufc":
            return self.simple(value.item(), depth + 1)
        raise NoSourceError(f"a {_name(value)}", ".item() makes a Python value of it.")

    def _of_standard_library(self, value: Any) -> Any:
        """A date, a path or the like as it is, other texts and numbers as the builtin types."""
        if isinstance(value, (bytes, bytearray)):
            self.is_json = False
            return bytes(value)
        if _is_of(value, "pandas") and type(value).__name__ in PANDAS:
            return self._needing("import pandas as pd", value)
        if type(value) in EXACT:
            zone = getattr(value, "tzinfo", None)
            if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
                self.imports.add("import zoneinfo")
            elif zone is not None and not isinstance(zone, datetime.timezone):
                raise NoSourceError(f"a time in the zone {zone!r}", "Take one of `zoneinfo`.")
            return self._needing("import datetime", value)
        if isinstance(value, decimal.Decimal):
            return self._needing("import decimal", decimal.Decimal(value))
        if isinstance(value, pathlib.PurePath):
            return self._needing("import pathlib", value)
        if isinstance(value, complex):
            self.is_json = self.is_literal = False
            return complex(value)
        if isinstance(value, str):
            return str.__str__(value)  # and not what its class makes of it
        if isinstance(value, int):
            return int(value)
        return float(value) if isinstance(value, float) else None

    def _needing(self, line: str, value: Any) -> Any:
        self.imports.add(line)
        self.is_json = self.is_literal = False
        return value

    def _compound(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return self._dict(value, depth)
        if isinstance(value, list):
            return self._items(value, depth)
        if isinstance(value, (tuple, set, frozenset)):
            base = next(kind for kind in (tuple, set, frozenset) if isinstance(value, kind))
            self.is_json = False
            self.is_literal = self.is_literal and base is not frozenset
            return base(self._items(value, depth))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return self._dict({name: getattr(value, name) for name in names}, depth)
        if hasattr(type(value), "model_dump") and hasattr(type(value), "model_fields"):
            return self._dict(value.model_dump(), depth)
        raise NoSourceError(f"a {_name(value)}", HINTS.get(type(value).__name__, ""))

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        made = {}
        key = None
        try:
            for key, item in value.items():
                self.is_json = self.is_json and type(key) is str
                made[self.simple(key, depth + 1)] = self.simple(item, depth + 1)
        except NoSourceError as error:
            where = f"[{key!r:.40}]{error.where}"
            raise NoSourceError(error.what, error.hint, where=where) from None
        return made

    def _items(self, values: Iterable[Any], depth: int) -> list[Any]:
        made: list[Any] = []
        try:
            for item in values:
                made.append(self.simple(item, depth + 1))
        except NoSourceError as error:
            where = f"[{len(made)}]{error.where}"
            raise NoSourceError(error.what, error.hint, where=where) from None
        return made


def _pandas_source(value: Any) -> str:
    match type(value).__name__:
        case "NaTType":
            return "pd.NaT"
        case "NAType":
            return "pd.NA"
        case "Timedelta":
            return f"pd.Timedelta({value.isoformat()!r})"
    zone = f", tz={str(value.tz)!r}" if value.tz is not None else ""
    return f"pd.Timestamp({value.tz_localize(None).isoformat()!r}{zone})"


def _is_of(value: object, library: str) -> bool:
    return type(value).__module__.partition(".")[0] == library


def _name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)
