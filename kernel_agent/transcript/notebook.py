"""The notebook file: its cells as the JSON text that they have on disk, each serialised once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_agent.errors import TranscriptError
from kernel_agent.transcript import body as on_disk
from kernel_agent.transcript.body import LEAD, Body
from kernel_agent.transcript.cells import Cell, split_lines
from kernel_agent.transcript.fields import joined
from kernel_agent.transcript.layout import Layout, bytes_of, read_layout
from kernel_agent.transcript.sealing import digest
from kernel_agent.transcript.setup import Setup
from kernel_agent.transcript.storable import storable_json
from kernel_agent.transcript.whole_file import (
    FileChangedError,
    Identity,
    Raw,
    ReadOnlyError,
    remove_leftovers,
    write_whole,
)

FIRST_MINOR_WITH_IDS = 5


@dataclass(frozen=True)
class Frame:
    """What a notebook file holds around its cells and its metadata, as on disk.

    `before` the first of the two, `between` them, and `after` the last. `metadata` are those that
    were loaded and `raw_metadata` what they are on disk. With `has_ids` cells have an `id`.
    """

    before: Raw = b'{\n "cells": ['
    between: Raw = b'],\n "metadata": '
    after: Raw = b',\n "nbformat": 4,\n "nbformat_minor": 5\n}\n'
    are_cells_first: bool = True
    tail: Raw | None = None  # between the last cell and the `]`
    has_ids: bool = True
    metadata: Any = None
    raw_metadata: Raw = b""

    def __getstate__(self) -> dict[str, Any]:
        """For pickle, which takes no views of other bytes."""
        return {n: bytes(v) if isinstance(v, memoryview) else v for n, v in vars(self).items()}


class Notebook:
    """Cells in order, written in exactly nbformat's style; loaded ones stay as they are on disk.

    The last cells may be running: the next ones that are added take their place. An id that is
    taken gets a number behind it; once written it stays.

    `setup` is written behind the first `setup_at` cells. `own` is the file that was begun or
    loaded here, and may be replaced; `sealed_off` says why a loaded one must not be.
    """

    def __init__(
        self,
        body: Body | None = None,
        frame: Frame | None = None,
        *,
        setup: Setup | None = None,
        setup_at: int = 0,
    ) -> None:
        self.setup = setup or Setup()
        self.setup_at = setup_at
        self.sealed_off = ""
        self.frame = frame or Frame()
        self._body = body or Body()
        self._ids = {"setup", *self._body.names}
        self._running = slice(0, 0)
        self._is_running = False
        self._own: tuple[str, Identity] | None = None
        self._is_tidy = False

    def __len__(self) -> int:
        """The number of cells, without the setup."""
        return len(self._body)

    def own(self, path: Path, identity: Identity) -> None:
        """The file at `path` is this notebook, and may be replaced."""
        self._own = (os.path.realpath(path), identity)

    def run_on(self, running: slice) -> None:
        """These of the loaded cells are running."""
        self._running, self._is_running = running, True

    def add(self, cells: Iterable[Cell]) -> None:
        """Add `cells` (texts in one piece) at the end."""
        end = len(self)
        self._body.replace(slice(end, end), self._on_disk(cells, end))
        if not self._is_running:
            self._body.merge()

    def put(self, cells: Iterable[Cell], *, running: bool = False) -> tuple[int, int]:
        """Put `cells` in the place of the running ones, at the end if there are none.

        With `running` they are running themselves. Returns where they end, and how far the cells
        behind them have moved.
        """
        end = len(self)
        place = self._running if self._is_running else slice(end, end)
        self._ids -= set(self._body.names[place])
        self._body.replace(place, self._on_disk(cells, place.start))
        moved = len(self) - end
        self._running, self._is_running = slice(place.start, place.stop + moved), running
        if not running:
            self._body.merge()
        return self._running.stop, moved

    def leave_running(self) -> None:
        """The running cells stay for good as they are."""
        self._is_running = False

    def first(self, count: int, setup: Setup) -> Notebook:
        """A new notebook with the first `count` cells of this one, and `setup`."""
        return Notebook(
            self._body.first(count), self.frame, setup=setup, setup_at=min(self.setup_at, count)
        )

    def digests(self, folder: Path) -> Iterator[bytes]:
        """What a seal takes of the code cells, in order, of the notebook in `folder`."""
        cell = self._setup_cell(folder)
        yield from self._body.digests[: self.setup_at]
        if cell:
            yield digest(cell["source"])
        yield from self._body.digests[self.setup_at :]

    def save(self, path: Path, metadata: dict[str, Any]) -> None:
        """Write the notebook to `path`.

        Raises TranscriptError, what was at `path` being intact, if it cannot be written or if
        `path` exists and is not ours.
        """
        is_own = self._own is not None and self._own[0] == os.path.realpath(path)
        if is_own and self.sealed_off:
            reason = (
                f"{self.sealed_off}, so it is left as it is. Set `path` to a new place and save"
            )
            raise TranscriptError(path, reason)
        known = self._own[1] if self._own and is_own else None
        try:
            identity = write_whole(path, self._pieces(path.parent, metadata), known=known)
        except FileExistsError as error:
            reason = (
                "the file exists and was not begun by this transcript, so it is left as it is. "
                "Set `path` to a new place and save again, or `Transcript.load` it to go on with it"
            )
            raise TranscriptError(path, reason) from error
        except FileChangedError as error:
            reason = (
                "was changed by another program since it was last saved or loaded here; it is left "
                "as it is. Set `path` to a new place and save again"
            )
            raise TranscriptError(path, reason) from error
        except ReadOnlyError as error:
            reason = (
                "is read-only. Give its owner the right to write, or set `path` to a new place, "
                "and save again"
            )
            raise TranscriptError(path, reason) from error
        except OSError as error:
            reason = f"cannot be saved: {_why(error)}. Mend that or change `path`, and save again"
            raise TranscriptError(path, reason) from error
        if not (is_own and self._is_tidy):
            remove_leftovers(path)
            self._is_tidy = True
        self.own(path, identity)

    def _pieces(self, folder: Path, metadata: dict[str, Any]) -> list[Raw]:
        """The whole file."""
        frame, cells = self.frame, list(self._cell_pieces(folder))
        is_same = frame.raw_metadata and metadata == frame.metadata
        about = frame.raw_metadata if is_same else json_text(metadata, depth=1)
        tail = frame.tail if frame.tail is not None else b"\n " if cells else b""
        if frame.are_cells_first:
            return [frame.before, *cells, tail, frame.between, about, frame.after]
        return [frame.before, about, frame.between, *cells, tail, frame.after]

    def _cell_pieces(self, folder: Path) -> Iterator[Raw]:
        """The cells, with the setup among them, and what separates them."""
        body, setup = self._body, self._setup_text(folder)
        if setup and self.setup_at == 0:
            yield _led(self.setup.lead, is_first=True)
            yield setup
        if not len(body):
            return
        yield _led(body.first_lead, is_first=not setup or self.setup_at > 0)
        yield from body.pieces(0, self.setup_at)
        if setup and self.setup_at:
            yield _led(self.setup.lead, is_first=False)
            yield setup
        yield from body.pieces(self.setup_at)

    def _setup_text(self, folder: Path) -> bytes:
        """The setup cell on disk, empty if there is none."""
        if self.setup.is_as_loaded(folder):
            return self.setup.raw
        cell = self.setup.cell(folder)
        return (
            json_text(split_lines(self._named(cell, cell.get("id") or "setup")), depth=2)
            if cell
            else b""
        )

    def _setup_cell(self, folder: Path) -> Cell | None:
        if self.setup.is_as_loaded(folder):
            return self.setup.loaded
        return self.setup.cell(folder)

    def _on_disk(self, cells: Iterable[Cell], index: int) -> Iterator[on_disk.Cell]:
        """What `cells`, of which the first is number `index` (from 0), are on disk."""
        for number, cell in enumerate(cells, index):
            name = self._unused(cell["id"])
            self._ids.add(name)
            text = json_text(split_lines(self._named(cell, name)), depth=2)
            is_code = cell["cell_type"] == "code"
            yield on_disk.Cell(
                LEAD + text if number else text, name, digest(cell["source"]) if is_code else b""
            )

    def _named(self, cell: Cell, name: str) -> Cell:
        if self.frame.has_ids:
            return cell | {"id": name}
        return {key: value for key, value in cell.items() if key != "id"}

    def _unused(self, name: str) -> str:
        if name not in self._ids:
            return name
        number = 2
        while f"{name}-{number}" in self._ids:
            number += 1
        return f"{name}-{number}"


def read_layout_of(path: Path) -> tuple[Layout, Identity]:
    """What lies in the notebook at `path`, its cells `joined`, and which file it is.

    Raises TranscriptError if there is none, or it is no notebook of nbformat 4.
    """
    try:
        with path.open("rb") as file:
            identity = Identity.of(os.fstat(file.fileno()))
            data = bytes_of(file, path.resolve().parent)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = _why(error) if isinstance(error, OSError) else str(error)
        raise TranscriptError(path, f"cannot be read: {reason}") from error
    layout = read_layout(data, joined)
    version = layout.facts.get("nbformat")
    if layout.damage and layout.start is None:
        raise TranscriptError(path, f"is not a notebook, it holds no JSON: {layout.damage}")
    if version != 4 and "nbformat" in layout.facts:
        raise TranscriptError(path, f"is a notebook of nbformat {version!r}, not 4")
    if layout.start is None or (version is None and not layout.damage):
        raise TranscriptError(
            path, "is not a notebook: it needs `nbformat`, `metadata` and `cells`"
        )
    return layout, identity


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook at `path`, texts in one piece.

    Raises TranscriptError if there is none, or it is no notebook of nbformat 4.
    """
    layout, _ = read_layout_of(path)
    cells = [cell for cell in layout.cells if isinstance(cell, dict)]
    return {**storable_json(layout.facts), "cells": cells}


def _led(lead: Raw, *, is_first: bool) -> bytes:
    """What stands before a cell, with a comma unless the cell is the first one."""
    lead = bytes(lead)
    if is_first:
        return lead.replace(b",", b"")
    return lead if b"," in lead else b"," + lead


def json_text(value: Any, depth: int) -> bytes:
    """JSON in exactly nbformat's style, for a place `depth` levels deep in the notebook."""
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": "))
    return text.replace("\n", "\n" + " " * depth).encode()


def _why(error: OSError) -> str:
    return error.strerror or str(error)
