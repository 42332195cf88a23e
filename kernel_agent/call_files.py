"""The files of recorded calls: values too large for the notebook, kept in a folder beside it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kernel_agent.border import files
from kernel_agent.border.codec import INLINE_BYTES, TAG
from kernel_agent.steps import ToolCall

LEFT_OUT = "left out"
"""Stands at the tag of a value that the record does not hold; `was` is what stood there."""


class LeftOutError(ValueError):
    """A value of the record cannot be given again: `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Kept:
    """A call as it is recorded, how many bytes its files have added, and what was left out.

    `left_out` are sentences, one for each value.
    """

    call: ToolCall
    bytes: int = 0
    left_out: tuple[str, ...] = ()


def keep_files(call: ToolCall, *, source: Path | None, sidecar: Path, max_bytes: int) -> Kept:
    """`call` with its large values in the folder `sidecar`, at most `max_bytes` more of them.

    `source` is the folder in which its files lie now, None if it has none. The sidecar is made
    if needed. What does not fit, or cannot be read, is marked as left out in its place.
    """
    keeping = _Keeping(call.name, source, sidecar, max_bytes)
    given = call.arguments
    arguments = {
        "args": [keeping.kept(one) for one in given.get("args", ())],
        "kwargs": {name: keeping.kept(one) for name, one in given.get("kwargs", {}).items()},
    }
    kept = replace(call, arguments=arguments, result=keeping.kept(call.result))
    return Kept(kept, keeping.bytes, tuple(keeping.left_out))


class _Keeping:
    """Copies what the values of one call refer to."""

    def __init__(self, name: str, source: Path | None, sidecar: Path, max_bytes: int) -> None:
        self.bytes = 0
        self.left_out: list[str] = []
        self._name = name
        self._source = source
        self._sidecar = sidecar
        self._room = max_bytes

    def kept(self, value: Any) -> Any:
        """`value` with its files in the sidecar; itself there if it is long."""
        try:
            value = _with_files(value, self._copied)
            text = json.dumps(value, allow_nan=False).encode()
        except (RecursionError, ValueError) as error:
            return self._mark({TAG: LEFT_OUT}, f"a value that is no JSON ({error})")
        if len(text) <= INLINE_BYTES:
            return value
        return self._written("json", text, {TAG: "json", "bytes": len(text)})

    def _copied(self, tagged: dict[str, Any]) -> dict[str, Any]:
        name = tagged["file"]
        marked = {TAG: LEFT_OUT, "was": tagged}
        try:
            suffix = str(name).rpartition(".")[2]
            path = files.path_of(self._source, name, suffix)
            if (self._sidecar / path.name).is_file():
                return tagged
            if (size := path.lstat().st_size) > self._room - self.bytes:
                return self._mark(marked, f"{_described(tagged)} of {size:,} bytes")
            content: bytes | bytearray = files.read(self._source, name, suffix)
        except (files.UnreadableValue, OSError) as error:
            return self._mark(marked, f"{_described(tagged)} ({error})")
        if tagged.get(TAG) == "json":  # it may name files in turn
            content = json.dumps(_with_files(json.loads(content), self._copied)).encode()
        return self._written(suffix, content, tagged)

    def _written(
        self, suffix: str, content: bytes | bytearray, tagged: dict[str, Any]
    ) -> dict[str, Any]:
        if len(content) > self._room - self.bytes:
            return self._mark({TAG: LEFT_OUT}, f"a value of {len(content):,} bytes")
        try:
            self._sidecar.mkdir(parents=True, exist_ok=True)
            name = files.write(self._sidecar, suffix, lambda file: file.write(content))
        except OSError as error:
            return self._mark({TAG: LEFT_OUT}, f"a value that cannot be written ({error})")
        self.bytes += len(content)
        return {**tagged, "file": name}

    def _mark(self, marked: dict[str, Any], what: str) -> dict[str, Any]:
        reason = f"{what} of a call of {self._name!r} is not in the record."
        self.left_out.append(reason)
        return {**marked, "reason": reason}


def provide(value: Any, *, sidecar: Path | None, folder: Path | None) -> Any:
    """A recorded value as it can be given to a kernel that reads files from `folder`, or none.

    Raises LeftOutError if the record does not hold all of it.
    """

    def provided(tagged: dict[str, Any]) -> Any:
        suffix = str(tagged["file"]).rpartition(".")[2]
        content = _content(tagged, sidecar)
        if folder is None:
            return _inlined(tagged, content, provided)
        if tagged.get(TAG) == "json":
            provide(json.loads(content), sidecar=sidecar, folder=folder)
        if not (folder / tagged["file"]).exists():
            files.write(folder, suffix, lambda file: file.write(content))
        return tagged

    def refused(marked: dict[str, Any]) -> Any:
        raise LeftOutError(str(marked.get("reason", "a value is not in the record.")))

    return _with_files(value, provided, refused)


def as_it_was(value: Any) -> Any:
    """A recorded value with what stood in the places of those that were left out."""
    return _with_files(value, lambda tagged: tagged, lambda marked: marked.get("was", marked))


def comparable(value: Any, folder: Path | None) -> Any:
    """A value in a form that is the same wherever its long parts lie: in a file, or in the JSON.

    Texts and JSON are put in their places, of other contents their hash.
    """

    def compared(tagged: dict[str, Any]) -> Any:
        if tagged.get(TAG) in ("json", "str"):
            try:
                return comparable(_inlined(tagged, _content(tagged, folder), compared), folder)
            except LeftOutError:
                return tagged
        others = {key: one for key, one in tagged.items() if key not in ("file", "bytes")}
        return {**others, "content": str(tagged["file"]).partition(".")[0]}

    return _hashed(_with_files(as_it_was(value), compared))


def _hashed(value: Any) -> Any:
    """`value` with hashes in the places of base64 data."""
    if isinstance(value, list):
        return [_hashed(one) for one in value]
    if not isinstance(value, dict):
        return value
    if TAG in value and isinstance(data := value.get("data"), str):
        others = {key: one for key, one in value.items() if key != "data"}
        return {**others, "content": _digest(base64.b64decode(data))}
    return {key: _hashed(one) for key, one in value.items()}


def _inlined(
    tagged: dict[str, Any], content: bytes | bytearray, inner: Callable[[dict[str, Any]], Any]
) -> Any:
    match tagged.get(TAG):
        case "json":
            return _with_files(json.loads(content), inner)
        case "str":
            return content.decode("utf-8", "surrogatepass")
    others = {key: one for key, one in tagged.items() if key not in ("file", "bytes")}
    return {**others, "data": base64.b64encode(content).decode()}


def _content(tagged: Mapping[str, Any], folder: Path | None) -> bytes | bytearray:
    name = tagged["file"]
    try:
        return files.read(folder, name, str(name).rpartition(".")[2])
    except files.UnreadableValue as error:
        raise LeftOutError(f"{_described(tagged)} is not in the record: {error.reason}") from error


def _with_files(
    value: Any,
    change: Callable[[dict[str, Any]], Any],
    change_left_out: Callable[[dict[str, Any]], Any] | None = None,
) -> Any:
    """`value` with each part that lies in a file changed, and each that was left out."""
    if isinstance(value, list):
        return [_with_files(one, change, change_left_out) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get(TAG) == LEFT_OUT:
        return change_left_out(value) if change_left_out else value
    if TAG in value and "file" in value:
        return change(value)
    return {key: _with_files(one, change, change_left_out) for key, one in value.items()}


def _digest(content: bytes) -> str:
    """What a file with this content is named by, see `border_files`."""
    return hashlib.blake2b(content, digest_size=20, usedforsecurity=False).hexdigest()


def _described(tagged: Mapping[str, Any]) -> str:
    return f"a value of type {tagged.get(TAG)!r}"
