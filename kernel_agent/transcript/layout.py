"""A notebook file as it lies on disk: where its cells and its metadata are among its bytes."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

WINDOW = 1 << 16  # bytes that are tried first for one value
LARGE = 1 << 24  # bytes from which on a file is kept outside of the memory of the process

_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"[ \t\r\n]*")
_DECODER = json.JSONDecoder(strict=False)


class DamageError(ValueError):
    """The JSON ends or is broken at byte `at`."""

    def __init__(self, at: int) -> None:
        super().__init__(f"its JSON breaks off or is damaged at byte {at}")
        self.at = at


@dataclass
class Layout:
    """The bytes of a notebook and what was found in them.

    `start` is the place after the `[` before the cells, None if they were not found, and `end`
    that of the `]` after them. `spans` are the places of the cells, `cells` what they say, and
    `garbled` those (from 0) that are no UTF-8. `facts` are the other values of the notebook,
    `metadata` is the place of one of them. `damage` says where the JSON ends before its time.
    """

    data: memoryview
    start: int | None = None
    end: int = 0
    spans: list[slice] = field(default_factory=list)
    cells: list[Any] = field(default_factory=list)
    garbled: list[int] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    metadata: slice | None = None
    damage: str = ""


def read_layout(data: memoryview, keep: Callable[[Any], Any]) -> Layout:
    """Walk through `data`; of each cell `Layout.cells` gets what `keep` makes of it.

    What is damaged ends the walk: what lies before is found.
    """
    layout, at = Layout(data), _Place(data)
    try:
        _walk(layout, at, keep)
    except DamageError as error:
        layout.damage = str(error)
    return layout


def bytes_of(file: BinaryIO, folder: Path) -> memoryview:
    """The bytes of an open `file`: in memory, or for a large one in a nameless copy in `folder`.

    The file itself is not mapped: who truncates it would end this process. Raises OSError.
    """
    if os.name == "posix" and os.fstat(file.fileno()).st_size >= LARGE:
        try:
            with tempfile.TemporaryFile(dir=folder) as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                copy.flush()
                return memoryview(mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError:  # no room, or no right to write there
            file.seek(0)
    return memoryview(file.read())


class _Place:
    """Where a walk through bytes has come to."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = len(_BOM) if data[:3] == _BOM else 0
        self.is_garbled = False

    def next(self) -> bytes:
        """The next byte that is no space; the walk stands before it."""
        space = _SPACE.match(self.data, self.at)
        assert space is not None
        self.at = space.end()
        return bytes(self.data[self.at : self.at + 1])

    def expect(self, *allowed: bytes) -> bytes:
        """Pass one of these bytes. Raises DamageError."""
        found = self.next()
        if found not in allowed:
            raise DamageError(self.at)
        self.at += 1
        return found

    def value(self) -> Any:
        """Pass a JSON value. Raises DamageError."""
        self.next()
        size = WINDOW
        while True:
            # As Latin-1 a character is a byte, so that the decoder counts bytes.
            text = str(self.data[self.at : self.at + size], "latin-1")
            is_all = self.at + size >= len(self.data)
            try:
                value, end = _DECODER.raw_decode(text)
            except RecursionError as error:
                raise DamageError(self.at) from error
            except ValueError as error:
                if is_all:
                    raise DamageError(self.at + getattr(error, "pos", 0)) from error
                end = len(text)
            if end < len(text) or is_all:
                break
            size *= 8  # the value may go on behind the window
        if not text[:end].isascii():
            value = self._decoded(end)
        self.at += end
        return value

    def _decoded(self, size: int) -> Any:
        raw = bytes(self.data[self.at : self.at + size])
        try:
            return _DECODER.decode(raw.decode())
        except UnicodeDecodeError:
            self.is_garbled = True
            return _DECODER.decode(raw.decode(errors="replace"))


def _walk(layout: Layout, at: _Place, keep: Callable[[Any], Any]) -> None:
    at.expect(b"{")
    if at.next() == b"}":
        return
    while True:
        key = at.value()
        if not isinstance(key, str):
            raise DamageError(at.at)
        at.expect(b":")
        if key == "cells" and at.next() == b"[":
            _walk_cells(layout, at, keep)
        else:
            at.next()
            start = at.at
            layout.facts[key] = at.value()
            if key == "metadata":
                layout.metadata = slice(start, at.at)
        if at.expect(b",", b"}") == b"}":
            break
    if at.next():
        raise DamageError(at.at)


def _walk_cells(layout: Layout, at: _Place, keep: Callable[[Any], Any]) -> None:
    at.expect(b"[")
    layout.start = layout.end = at.at
    layout.spans, layout.cells, layout.garbled = [], [], []
    if at.next() != b"]":
        while True:
            at.next()
            start, at.is_garbled = at.at, False
            layout.cells.append(keep(at.value()))
            layout.spans.append(slice(start, at.at))
            if at.is_garbled:
                layout.garbled.append(len(layout.spans) - 1)
            layout.end = at.at
            if at.next() != b",":
                break
            at.at += 1
    at.expect(b"]")
    layout.end = at.at - 1
