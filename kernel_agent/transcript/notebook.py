"""The notebook file: its cells as the JSON text that they have on disk, each serialised once."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from kernel_agent.errors import TranscriptError
from kernel_agent.transcript.cells import Cell, split_lines
from kernel_agent.transcript.storable import MAX_DEPTH, storable_json
from kernel_agent.transcript.whole_file import write_whole

MAX_SLUG = 40


class Notebook:
    """Cells in order, valid as nbformat 4.5 and in exactly its style.

    The last cells may be running: the next ones that are added take their place. An id that is
    taken gets a number behind it; once written it stays.
    """

    def __init__(self) -> None:
        self._cells: list[bytes] = []
        self._ids: set[str] = {"setup"}
        self._running = slice(0, 0)
        self._running_ids: set[str] = set()
        self._own: Path | None = None  # the file that was begun here, and may be replaced

    @classmethod
    def loaded(cls, path: Path, cells: Iterable[Cell], running: slice | None) -> Notebook:
        """A notebook with `cells` as they lie on disk at `path`, which saving will replace.

        `running` says which of them are running.
        """
        notebook = cls()
        notebook._own = path
        cells = list(cells)
        for index, cell in enumerate(cells):
            if not isinstance(cell.get("id"), str) or cell["id"] in notebook._ids - {"setup"}:
                cell["id"] = notebook._unused(f"cell-{index}")
            notebook._ids.add(cell["id"])
            notebook._cells.append(_json_text(cell, depth=2))
        if running:
            notebook._running = running
            notebook._running_ids = {cell["id"] for cell in cells[running]}
        return notebook

    def add(self, cells: Iterable[Cell]) -> None:
        """Add `cells` (texts in one piece) at the end."""
        self._cells += self._texts(cells)[0]

    def put(self, cells: Iterable[Cell], *, running: bool = False) -> None:
        """Put `cells` in the place of the running ones, at the end if there are none.

        With `running` they are running themselves.
        """
        end = len(self._cells)
        place = self._running if self._running_ids else slice(end, end)
        self._ids -= self._running_ids
        texts, ids = self._texts(cells)
        self._cells[place] = texts
        self._running = slice(place.start, place.start + len(texts))
        self._running_ids = ids if running else set()

    def leave_running(self) -> None:
        """The running cells stay for good as they are."""
        self._running_ids = set()

    def save(self, path: Path, metadata: dict[str, Any], setup: Cell | None) -> None:
        """Write the notebook to `path`, with `setup` after its first cell.

        Raises TranscriptError, what was at `path` being intact, if it cannot be written or if
        `path` exists and is not ours.
        """
        cells = self._cells
        if setup and cells:
            cells = [cells[0], _json_text(split_lines(setup), depth=2), *cells[1:]]
        pieces = (
            b'{\n "cells": [\n  ' if cells else b'{\n "cells": [',
            b",\n  ".join(cells),
            b'\n ],\n "metadata": ' if cells else b'],\n "metadata": ',
            _json_text(metadata, depth=1),
            b',\n "nbformat": 4,\n "nbformat_minor": 5\n}\n',
        )
        try:
            write_whole(path, pieces, new=path != self._own)
        except FileExistsError as error:
            reason = (
                "the file exists and was not begun by this transcript, so it is left as it is. "
                "Set `path` to a new place and save again, or `Transcript.load` it to go on with it"
            )
            raise TranscriptError(path, reason) from error
        except OSError as error:
            reason = f"cannot be saved: {_why(error)}. Mend that or change `path`, and save again"
            raise TranscriptError(path, reason) from error
        self._own = path

    def _texts(self, cells: Iterable[Cell]) -> tuple[list[bytes], set[str]]:
        """What `cells` are on disk, and the ids that they got."""
        texts: list[bytes] = []
        ids: set[str] = set()
        for cell in cells:
            name = self._unused(cell["id"])
            ids.add(name)
            self._ids.add(name)
            texts.append(_json_text(split_lines(cell | {"id": name}), depth=2))
        return texts, ids

    def _unused(self, name: str) -> str:
        if name not in self._ids:
            return name
        number = 2
        while f"{name}-{number}" in self._ids:
            number += 1
        return f"{name}-{number}"


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook at `path` as it lies on disk.

    Raises TranscriptError if there is none, or it is no notebook of nbformat 4.
    """
    try:
        # An output lies some levels deep in the notebook: all that was stored is within this.
        found = storable_json(json.loads(path.read_bytes()), depth=2 * MAX_DEPTH)
    except OSError as error:
        raise TranscriptError(path, f"cannot be read: {_why(error)}") from error
    except (ValueError, RecursionError) as error:
        raise TranscriptError(path, f"is not a notebook, it holds no JSON: {error}") from error
    match found:
        case {"nbformat": 4, "metadata": dict(), "cells": list() as cells} if all(
            isinstance(cell, dict) for cell in cells
        ):
            return dict(found)
        case {"nbformat": version, "cells": _} if version != 4:
            raise TranscriptError(path, f"is a notebook of nbformat {version!r}, not 4")
    raise TranscriptError(path, "is not a notebook: it needs `nbformat`, `metadata` and `cells`")


def new_path(folder: Path, task: str, today: date) -> Path:
    """A path in `folder` for the transcript of `task` that is not taken yet.

    It reads like `2026-01-31-which-month-is-the-wettest.ipynb`, with -2, -3, … if taken.
    """
    ascii_text = unicodedata.normalize("NFKD", task).encode("ascii", "ignore").decode()
    words = re.findall("[a-z0-9]+", ascii_text[: 10 * MAX_SLUG].lower())
    slug = words[0][:MAX_SLUG] if words else "task"
    for word in words[1:]:
        if len(slug) + 1 + len(word) > MAX_SLUG:
            break
        slug += f"-{word}"
    stem, number = f"{today.isoformat()}-{slug}", 1
    path = folder / f"{stem}.ipynb"
    while os.path.lexists(path):
        number += 1
        path = folder / f"{stem}-{number}.ipynb"
    return path


def _json_text(value: Any, depth: int) -> bytes:
    """JSON in exactly nbformat's style, for a place `depth` levels deep in the notebook."""
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": "))
    return text.replace("\n", "\n" + " " * depth).encode()


def _why(error: OSError) -> str:
    return error.strerror or str(error)
