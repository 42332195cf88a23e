"""The cells of a notebook as the bytes that they are on disk, in few pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kernel_agent.transcript.whole_file import Raw

CHUNK = 1 << 20  # bytes; finished cells are merged into pieces of about this size
LEAD = b",\n  "
"""What stands before a cell of ours."""


@dataclass(frozen=True)
class Cell:
    """A cell as it lies on disk: `text` with what separates it from the cell before.

    `digest` is that of a code cell's source, empty for other cells.
    """

    text: Raw
    name: str
    digest: bytes


@dataclass
class Body:
    """Cells in order. Those before the first one that may still change are merged.

    `first_lead` stands before the first cell, which has none of its own.
    """

    first_lead: Raw = b"\n  "
    names: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)
    _merged: list[Raw] = field(default_factory=list)
    _loose: list[Raw] = field(default_factory=list)
    _loose_bytes: int = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def replace(self, place: slice, cells: Iterable[Cell]) -> None:
        """Put `cells` in the place of those at `place`, none of which has been merged."""
        cells = list(cells)
        begin = len(self) - len(self._loose)
        assert place.start >= begin
        loose = slice(place.start - begin, place.stop - begin)
        self._loose_bytes -= sum(map(len, self._loose[loose]))
        self._loose[loose] = [cell.text for cell in cells]
        self._loose_bytes += sum(len(cell.text) for cell in cells)
        self._sizes[place] = [len(cell.text) for cell in cells]
        self.names[place] = [cell.name for cell in cells]
        self.digests[place] = [cell.digest for cell in cells]

    def merge(self) -> None:
        """All cells are finished: few large pieces are quicker to write than many small ones."""
        if self._loose_bytes >= CHUNK:
            self._merged.append(b"".join(self._loose))
            self._loose, self._loose_bytes = [], 0

    def add_finished(self, piece: Raw, cells: Iterable[Cell]) -> None:
        """Add `cells`, which lie in `piece` one behind the other, to a body without others."""
        assert not self._loose
        self._merged.append(piece)
        for cell in cells:
            self._sizes.append(len(cell.text))
            self.names.append(cell.name)
            self.digests.append(cell.digest)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[Raw]:
        """The bytes of the cells from `start` to `stop`."""
        skip = sum(self._sizes[:start])
        room = sum(self._sizes[start:stop])
        for piece in (*self._merged, b"".join(self._loose)):
            if skip >= len(piece):
                skip -= len(piece)
                continue
            part = memoryview(piece)[skip : skip + room]
            skip, room = 0, room - len(part)
            yield part
            if not room:
                return

    def first(self, count: int) -> Body:
        """A body with the first `count` cells of this one."""
        body = Body(self.first_lead, self.names[:count], self.digests[:count], self._sizes[:count])
        body._merged = list(self.pieces(0, count))
        return body

    def __getstate__(self) -> dict[str, Any]:
        """For pickle, which takes no views of other bytes."""
        pieces = {"_merged": [bytes(piece) for piece in self._merged]}
        loose = {"_loose": [bytes(piece) for piece in self._loose]}
        return vars(self) | pieces | loose | {"first_lead": bytes(self.first_lead)}
