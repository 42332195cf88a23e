"""The outputs of one cell in bounded memory: the first ones, the last ones, and what is between."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kernel_agent.kernel.fitting import gap_line, marked, value_size
from kernel_agent.steps import Output

MAX_CHARS = 10_000_000
"""How many characters of a cell's outputs are kept: half from the beginning, half from the end."""

MAX_OUTPUTS = 1_000
"""How many outputs of a cell are kept, halved in the same way."""

_PIECE = 4096  # characters; shorter pieces of a stream are joined as they come


@dataclass(eq=False)
class Text:
    """A stream's text in pieces. `late` is the line that it begins with if it came late."""

    name: str
    late: str = ""
    pieces: deque[str] = field(default_factory=deque)
    size: int = 0

    def write(self, text: str) -> None:
        if self.pieces and len(self.pieces[-1]) + len(text) <= _PIECE:
            self.pieces[-1] += text
        else:
            self.pieces.append(text)
        self.size += len(text)

    def continues(self, other: Text) -> bool:
        return (self.name, self.late) == (other.name, other.late)

    def output(self, skip: int = 0, before: str = "") -> Output:
        """As nbformat has it, without its first `skip` characters, and with `before` before it."""
        return {"output_type": "stream", "name": self.name, "text": before + self.text()[skip:]}

    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(eq=False)
class Shown:
    """An output that is no stream: a display, a result, an error."""

    output: Output
    size: int
    display_id: str = ""

    @classmethod
    def of(cls, output: Output, display_id: str = "") -> Shown:
        return cls(output, output_size(output), display_id)


class BoundedOutputs:
    """Takes outputs in order, keeps the first and the last ones, counts those between them."""

    def __init__(self) -> None:
        self._head: list[Text | Shown] = []
        self._tail: deque[Text | Shown] = deque()
        self._head_room = MAX_CHARS // 2
        self._tail_size = 0
        self._gone_chars = 0
        self._gone_outputs = 0
        self._displays: dict[str, list[Shown]] = {}

    @property
    def is_flooded(self) -> bool:
        """Whether something had to be left out."""
        return bool(self._gone_chars or self._gone_outputs)

    @property
    def has_error(self) -> bool:
        return any(
            isinstance(entry, Shown) and entry.output["output_type"] == "error"
            for entry in (*self._head, *self._tail)
        )

    def write(self, name: str, text: str, late: str = "") -> None:
        """Add text to the stream `name`: to the last output if it is that stream's."""
        if not self._tail:
            taken = text[: self._head_room]
            if taken and self._write_to(self._head, name, taken, late):
                self._head_room -= len(taken)
                text = text[len(taken) :]
        if not text:
            return
        room = MAX_CHARS // 2
        self._gone_chars += max(0, len(text) - room)
        text = text[-room:]
        self._write_to(self._tail, name, text, late)
        self._tail_size += len(text)
        self._trim()

    def miss(self, characters: int) -> None:
        """Count characters that were left out before they came here."""
        self._gone_chars += characters

    def append(self, output: Output, display_id: str = "") -> None:
        """Add an output that is no stream, and no longer than half of the bound."""
        entry = Shown.of(output, display_id)
        if display_id:
            self._displays.setdefault(display_id, []).append(entry)
        if self._tail or entry.size > self._head_room or len(self._head) >= MAX_OUTPUTS // 2:
            self._tail.append(entry)
            self._tail_size += entry.size
            self._trim()
        else:
            self._head.append(entry)
            self._head_room -= entry.size

    def displays(self, display_id: str) -> tuple[Shown, ...]:
        """The outputs that show a display, as far as they are kept."""
        return tuple(self._displays.get(display_id, ()))

    def room(self, entry: Shown) -> int:
        """How many characters may stand in the place of one of `displays`."""
        return entry.size + max(0, self._head_room) if entry in self._head else MAX_CHARS // 2

    def replace(self, entry: Shown, output: Output) -> None:
        """Put another output in the place of one of `displays`."""
        if entry not in self.displays(entry.display_id):
            return  # left out since
        new = Shown.of(output).size
        if entry in self._head:
            self._head_room -= new - entry.size
        else:
            self._tail_size += new - entry.size
        entry.output, entry.size = output, new
        self._trim()

    def all(self) -> tuple[Output, ...]:
        """The outputs as nbformat stores them, with a note where some are left out."""
        return tuple(self._rendered())

    def _rendered(self) -> Iterator[Output]:
        head, tail = list(self._head), list(self._tail)
        first = tail[0] if tail else None
        excess = max(0, self._tail_size - MAX_CHARS // 2) if isinstance(first, Text) else 0
        chars = self._gone_chars + excess
        is_cut = bool(chars or self._gone_outputs)
        last = head.pop() if head else None
        yield from map(_output, head)
        match last, first:
            case Text(), Text() if first.continues(last):
                gap = f"\n{gap_line(chars, self._gone_outputs)}\n" if is_cut else ""
                yield first.output(excess, last.late + last.text() + gap)
            case _:
                if last is not None:
                    yield _output(last)
                if is_cut:
                    yield _gap(chars, self._gone_outputs)
                if isinstance(first, Text):
                    yield first.output(excess, first.late)
                elif first is not None:
                    yield _output(first)
        yield from map(_output, tail[1:])

    def _write_to(
        self, entries: list[Text | Shown] | deque[Text | Shown], name: str, text: str, late: str
    ) -> bool:
        """Write to the last entry, or to a new one; False if there is no room for a new one."""
        new = Text(name, late)
        last = entries[-1] if entries else None
        if not (isinstance(last, Text) and last.continues(new)):
            if entries is self._head and len(entries) >= MAX_OUTPUTS // 2:
                return False
            entries.append(new)
            last = new
        last.write(text)
        return True

    def _trim(self) -> None:
        """Leave out the first ones of the tail, until it is as small as it must be.

        A stream's text goes piece by piece: what is then still too much is cut when it is shown.
        """
        room = MAX_CHARS // 2
        while self._tail_size > room or len(self._tail) > MAX_OUTPUTS // 2:
            first = self._tail[0]
            too_many = len(self._tail) > MAX_OUTPUTS // 2
            if isinstance(first, Text) and not too_many:
                if self._tail_size - len(first.pieces[0]) < room:
                    return
                gone = len(first.pieces.popleft())
                first.size -= gone
                if not first.pieces:
                    self._tail.popleft()
            else:
                if len(self._tail) == 1:
                    return
                gone = first.size
                self._forget(self._tail.popleft())
            self._tail_size -= gone
            self._gone_chars += gone

    def _forget(self, entry: Text | Shown) -> None:
        self._gone_outputs += 1
        if isinstance(entry, Shown) and entry.display_id:
            shown = self._displays[entry.display_id]
            shown.remove(entry)
            if not shown:
                del self._displays[entry.display_id]


def output_size(output: Output) -> int:
    """How many characters an output that is no stream has."""
    if output["output_type"] == "error":
        lines = sum(map(len, output["traceback"]))
        return lines + len(output["ename"]) + len(output["evalue"])
    return sum(map(value_size, output["data"].values()))


def _output(entry: Text | Shown) -> Output:
    return entry.output(before=entry.late) if isinstance(entry, Text) else dict(entry.output)


def _gap(characters: int, outputs: int) -> Output:
    gone: dict[str, Any] = {"characters": characters, "outputs": outputs}
    return {
        "output_type": "display_data",
        "data": {"text/plain": gap_line(characters, outputs)},
        "metadata": marked({}, not_kept=gone),
    }
