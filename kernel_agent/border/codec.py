"""Values on their way between host and kernel: as JSON, large ones as files beside it.

Imported by the host and shipped into the kernel as text. Nothing is ever unpickled: what comes
over the border can be wrong, but it cannot run.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import functools
import importlib
import io
import json
import math
import pathlib
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING or __name__.startswith("kernel_agent."):
    from kernel_agent.border import files, libraries
    from kernel_agent.border.files import UnreadableValue
else:
    import kernel_agent_border_files as files
    import kernel_agent_border_libraries as libraries
    from kernel_agent_border_files import UnreadableValue

TAG = "$kernel_agent"
INLINE_BYTES = 64_000
MAX_DEPTH = 100
NUMBERS = {bool, int, float}
PLAIN_NUMBER = 1e300  # smaller ones are neither infinite nor too long; `nan` is in no range
PLAIN = (bool, int, float, complex, str, bytes)
BASES: tuple[Any, ...] = (str, int, float, complex)
LONG_INT = 10**1000  # Python refuses to write or read longer ones as digits

HINTS = {
    "generator": "list(...) makes a list of it",
    "function": "call it and pass what it returns",
    "builtin_function_or_method": "call it and pass what it returns",
    "method": "call it and pass what it returns",
    "coroutine": "await it and pass what it returns",
    "module": "pass values of it",
    "type": "pass its name",
    "TextIOWrapper": "pass what .read() gives",
    "BufferedReader": "pass what .read() gives",
    "map": "list(...) makes a list of it",
    "filter": "list(...) makes a list of it",
    "zip": "list(...) makes a list of it",
    "range": "list(...) makes a list of it",
    "DataFrameGroupBy": "pass the table that an aggregation gives",
}
HINT = "make it a dict, a list, a text or a table"


class NotTransferable(TypeError):
    """A value that cannot cross the border and stays where it is.

    `where` says which (`data['x'][3]`), `kind` is its type's name.
    """

    def __init__(self, where: str, kind: str, reason: str) -> None:
        super().__init__(f"{where} ({kind}) cannot be passed between kernel and host: {reason}.")
        self.where = where
        self.kind = kind


def encode(
    value: object, *, folder: Path | None, inline_bytes: int = INLINE_BYTES, name: str = "value"
) -> Any:
    """`value` as JSON. Bytes, texts, tables, … above `inline_bytes` become files in `folder`.

    Without a folder everything is in the JSON. `name` is what messages call the value.

    Raises NotTransferable, which says what in it cannot be encoded, where, and what to do.
    """
    encoder = _Encoder(folder, inline_bytes)
    encoded = encoder.encode(value, name)
    if folder is None or encoder.size <= inline_bytes:
        return encoded
    text = json.dumps(encoded, allow_nan=False).encode()
    return {TAG: "json", **encoder.stored("json", len(text), lambda file: file.write(text))}


class _Encoder:
    """Encodes one value; `size` is about how many bytes of JSON it has become so far."""

    def __init__(self, folder: Path | None, inline_bytes: int) -> None:
        self.size = 0
        self._folder = folder
        self._inline_bytes = inline_bytes
        self._inside: set[int] = set()

    def encode(self, value: Any, where: str) -> Any:
        self.size += 8
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._text(value)
        if kind is int:
            if -LONG_INT < value < LONG_INT:
                return value
            return {TAG: "int", "text": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {TAG: "float", "text": repr(value)}
        if simple := _simple(value):
            return simple
        if isinstance(value, (bytes, bytearray)):
            content = bytes(value)
            tagged = self.stored("bin", len(content), lambda file: file.write(content))
            return {TAG: "bytearray" if isinstance(value, bytearray) else "bytes", **tagged}
        return self._compound(value, where)

    def _text(self, text: str) -> Any:
        self.size += len(text)
        if self._folder is None or len(text) <= self._inline_bytes:
            return text
        self.size -= len(text)
        content = text.encode("utf-8", "surrogatepass")
        return {TAG: "str", **self.stored("txt", len(content), lambda file: file.write(content))}

    def stored(self, suffix: str, size: int, put: Callable[[BinaryIO], object]) -> dict[str, Any]:
        """Where a content lies: in a `file`, or here as base64 `data`."""
        if self._folder is not None and size > self._inline_bytes:
            return {"file": files.write(self._folder, suffix, put), "bytes": size}
        data = io.BytesIO()
        put(data)
        text = base64.b64encode(data.getbuffer()).decode()
        self.size += len(text) if self._folder is not None else 0
        return {"data": text}

    def _compound(self, value: Any, where: str) -> Any:
        """What holds other values: only a few levels of them, and never itself."""
        if len(self._inside) >= MAX_DEPTH:
            raise NotTransferable(where, _name(value), f"it lies {MAX_DEPTH} levels deep")
        if id(value) in self._inside:
            raise NotTransferable(where, _name(value), "it contains itself")
        self._inside.add(id(value))
        try:
            return self._contents(value, where)
        finally:
            self._inside.discard(id(value))

    def _contents(self, value: Any, where: str) -> Any:
        if isinstance(value, enum.Enum):
            return self.encode(value.value, f"{where}.value")
        if _is_numpy(value) and type(plain := _item(value)) in PLAIN:
            return self.encode(plain, where)
        if isinstance(value, dict):
            return self._dict(value, where)
        if isinstance(value, list):
            return self._items(value, where)
        if isinstance(value, tuple):
            return {TAG: "tuple", "items": self._items(value, where)}
        if isinstance(value, (set, frozenset)):
            items = self._items(list(value), f"list({where})")
            kind = "set" if isinstance(value, set) else "frozenset"
            # In one order whatever the hashes are: a record is to be the same each time.
            return {TAG: kind, "items": sorted(items, key=_order)}
        for base in BASES:
            if isinstance(value, base):
                return self.encode(base(value), where)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return self._dict({key: getattr(value, key) for key in names}, where, attributes=True)
        if _is_pydantic(value):
            return self._dict(value.model_dump(), where, attributes=True)
        return self._packed(value, where)

    def _dict(self, value: dict[Any, Any], where: str, *, attributes: bool = False) -> Any:
        def place(key: object) -> str:
            return f"{where}.{key}" if attributes else f"{where}[{key!r}]"

        if all(type(key) is str for key in value) and TAG not in value:
            self.size += sum(map(len, value))
            return {key: self.encode(item, place(key)) for key, item in value.items()}
        pairs = [
            [self.encode(key, f"the key {key!r} of {where}"), self.encode(item, place(key))]
            for key, item in value.items()
        ]
        return {TAG: "dict", "items": pairs}

    def _items(self, values: Any, where: str) -> list[Any]:
        kinds = set(map(type, values))
        if kinds <= NUMBERS and all(-PLAIN_NUMBER < item < PLAIN_NUMBER for item in values):
            self.size += 8 * len(values)
            return list(values)
        return [self.encode(item, f"{where}[{n}]") for n, item in enumerate(values)]

    def _packed(self, value: Any, where: str) -> Any:
        try:
            packed = libraries.packed(value)
        except libraries.Refused as error:
            raise NotTransferable(where, _name(value), str(error)) from error
        if packed is None:
            hint = HINTS.get(type(value).__name__, HINT)
            raise NotTransferable(where, _name(value), hint)
        named = {}
        if packed.kind == "pandas.Series":
            named["name"] = self.encode(value.name, f"{where}.name")
        return {TAG: packed.kind, **named, **self.stored(packed.suffix, packed.size, packed.put)}


def decode(encoded: object, *, folder: Path | None, mapped: bool = False) -> Any:
    """The value that `encode` made `encoded` of, whose files lie in `folder`.

    `mapped` leaves large arrays and tables in their files, where others could still change them:
    only for files that come from where one trusts. A picture is a PIL image, or PNG bytes.

    Raises UnreadableValue for anything that `encode` cannot have made.
    """
    try:
        return _Decoder(folder, mapped).decode(encoded, 0)
    except UnreadableValue:
        raise
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableValue(f"{type(error).__name__}: {error}.") from error
    except (OSError, RecursionError) as error:
        raise UnreadableValue(f"{error}.") from error


class _Decoder:
    """Decodes one value."""

    def __init__(self, folder: Path | None, mapped: bool) -> None:
        self._folder = folder
        self._mapped = mapped

    def decode(self, encoded: Any, depth: int) -> Any:
        if depth > 2 * MAX_DEPTH:
            raise UnreadableValue(f"it has more than {2 * MAX_DEPTH} levels.")
        if isinstance(encoded, list):
            if set(map(type, encoded)) <= NUMBERS:
                return list(encoded)
            return [self.decode(item, depth + 1) for item in encoded]
        if not isinstance(encoded, dict):
            return encoded
        if TAG not in encoded:
            return {key: self.decode(item, depth + 1) for key, item in encoded.items()}
        return self._tagged(encoded[TAG], encoded, depth)

    def _tagged(self, kind: object, tagged: dict[str, Any], depth: int) -> Any:
        if not isinstance(kind, str):
            raise UnreadableValue("its kind is no text.")
        if kind in FROM_TEXT:
            return FROM_TEXT[kind](tagged["text"])
        if kind in FROM_ITEMS:
            return FROM_ITEMS[kind](self.decode(item, depth + 1) for item in tagged["items"])
        if kind in FROM_BYTES:
            return FROM_BYTES[kind](self._bytes(tagged, "txt" if kind == "str" else "bin"))
        if kind == "json":
            return self.decode(json.loads(self._bytes(tagged, "json")), depth + 1)
        if kind in ("datetime", "time"):
            return _moment(kind, tagged)
        if kind in libraries.PACKED:
            value = libraries.unpacked(kind, self._content(tagged, libraries.PACKED[kind]))
            if kind == "pandas.Series":
                value.name = self.decode(tagged["name"], depth + 1)
            return value
        raise UnreadableValue(f"{kind[:80]!r} is no kind of value.")

    def _content(self, tagged: dict[str, Any], suffix: str) -> bytes | bytearray | Path:
        if self._mapped and "file" in tagged:
            return files.path_of(self._folder, tagged["file"], suffix)
        return self._bytes(tagged, suffix)

    def _bytes(self, tagged: dict[str, Any], suffix: str) -> bytes | bytearray:
        if "file" in tagged:
            return files.read(self._folder, tagged["file"], suffix)
        return base64.b64decode(tagged["data"], validate=True)


def _moment(kind: str, tagged: dict[str, Any]) -> Any:
    parse = datetime.datetime if kind == "datetime" else datetime.time
    moment = parse.fromisoformat(tagged["text"])
    if "zone" in tagged:
        moment = moment.replace(tzinfo=zoneinfo.ZoneInfo(tagged["zone"]))
    return moment.replace(fold=int(tagged.get("fold", 0)))


def _pandas(name: str, text: str) -> Any:
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise UnreadableValue("it is a value of pandas, which is not installed here.") from error
    value = getattr(pandas, name)
    return value(text) if name in ("Timestamp", "Timedelta") else value


FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "complex": complex,
    "date": datetime.date.fromisoformat,
    "timedelta": lambda text: datetime.timedelta(microseconds=int(text)),
    "decimal": decimal.Decimal,
    "path": Path,
    "timestamp": functools.partial(_pandas, "Timestamp"),
    "pandas.Timedelta": functools.partial(_pandas, "Timedelta"),
    "missing": lambda text: _pandas("NaT" if text == "NaT" else "NA", ""),
}
FROM_ITEMS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
}
FROM_BYTES: dict[str, Callable[[bytes | bytearray], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "str": lambda content: str(content, "utf-8", "surrogatepass"),
}


def _simple(value: Any) -> dict[str, Any] | None:
    """A value that is no more than a text with a kind, tagged; None for others."""
    kind = type(value).__name__
    if type(value).__module__.partition(".")[0] == "pandas":
        return _simple_of_pandas(value, kind)
    if isinstance(value, (datetime.datetime, datetime.time)):
        return _tagged_moment(value)
    if isinstance(value, datetime.date):
        return {TAG: "date", "text": value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return {TAG: "timedelta", "text": str(value // datetime.timedelta(microseconds=1))}
    if isinstance(value, decimal.Decimal):
        return {TAG: "decimal", "text": str(value)}
    if isinstance(value, pathlib.PurePath):
        return {TAG: "path", "text": str(value)}
    if type(value) is complex:
        return {TAG: "complex", "text": repr(value)}
    return None


def _simple_of_pandas(value: Any, kind: str) -> dict[str, Any] | None:
    if kind in ("NaTType", "NAType"):
        return {TAG: "missing", "text": kind.removesuffix("Type")}
    if kind == "Timestamp":
        return {TAG: "timestamp", "text": value.isoformat()}
    if kind == "Timedelta":
        return {TAG: "pandas.Timedelta", "text": value.isoformat()}
    return None


def _tagged_moment(value: Any) -> dict[str, Any]:
    kind = "datetime" if isinstance(value, datetime.datetime) else "time"
    tagged = {TAG: kind, "text": value.isoformat()}
    if zone := getattr(value.tzinfo, "key", None):
        tagged = {TAG: kind, "text": value.replace(tzinfo=None).isoformat(), "zone": zone}
    return {**tagged, "fold": value.fold} if value.fold else tagged


def _is_numpy(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "numpy"


def _item(value: Any) -> Any:
    """A numpy scalar as the Python value that it equals; dates, which are finer, as they are."""
    is_scalar = not hasattr(value, "__len__") or isinstance(value, (str, bytes))
    return value.item() if is_scalar and value.dtype.kind not in "mM" else value


def _is_pydantic(value: object) -> bool:
    modules = (kind.__module__.partition(".")[0] for kind in type(value).__mro__)
    return "pydantic" in modules and hasattr(value, "model_dump")


def _name(value: object) -> str:
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    return kind.__name__ if module in ("builtins", "__main__") else f"{module}.{kind.__name__}"


def _order(encoded: Any) -> str:
    return json.dumps(encoded, sort_keys=True)
