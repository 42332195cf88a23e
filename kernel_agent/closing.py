"""When a reply may be closed while it streams in: its code is complete, its output made up."""

from __future__ import annotations

from kernel_agent.blocks import find_blocks
from kernel_agent.drafts import MADE_UP, made_up_start, without_drafts
from kernel_agent.reply import RunCode, read_reply
from kernel_agent.steps import Reply


class BlockWatch:
    """Watches one reply: `feed` its pieces, and close the stream as soon as that says so.

    Nothing of use is lost: `read_reply` finds the same code in `text` as it would in the whole
    reply. Only complete lines are judged, so the start of an output is noticed at its line's end.

    `language` is the kernel's. `drafts` says that the model may think aloud in its text without
    opening the draft, so that only a `</think>` ends it: until a draft has ended nothing counts.
    """

    def __init__(self, language: str = "python", *, drafts: bool = False) -> None:
        self._language = language
        self._drafts = drafts
        self._lines: list[str] = []
        self._rest: list[str] = []
        self._length = 0
        self._read = 0
        self._suspects = False
        self._closed = ""

    @property
    def text(self) -> str:
        """The reply up to where its made-up output begins, or all of it if it has none."""
        return self._closed or "".join((*self._lines, *self._rest))

    def feed(self, text: str) -> bool:
        """Take the next piece of the reply; whether what is still to come can be done without."""
        if self._closed:
            return True
        if "\n" not in text:
            self._rest.append(text)
            return False
        lines, end, rest = "".join((*self._rest, text)).rpartition("\n")
        lines += end
        self._lines.append(lines)
        self._rest = [rest]
        self._length += len(lines)
        self._suspects = self._suspects or bool(MADE_UP.search(lines.replace("\r\n", "\n")))
        # Reading costs as much as the reply is long; all readings together, a few times that.
        if self._suspects and self._read + self._length <= 20_000 + 4 * self._length:
            self._read += self._length
            self._suspects = False
            self._closed = self._up_to_its_end()
        return bool(self._closed)

    def _up_to_its_end(self) -> str:
        """The reply up to its made-up output, if no text that may follow can change its code."""
        raw = "".join(self._lines)
        # JSON may hold anything, and only its end tells what it is.
        if raw.lstrip()[:1] in {"{", "[", '"'}:
            return ""
        whole = raw.replace("\r\n", "\n")
        text = without_drafts(whole, self._language)
        if self._drafts and text == whole:
            return ""
        blocks = find_blocks(text, self._language)
        marker = made_up_start(text, blocks)
        if marker is None:
            return ""
        before = [block for block in blocks if block.start < marker]
        if not all(block.settled for block in before):
            return ""
        if not any(block.kind in {"own", "call"} for block in before):
            return ""
        kept = whole.removesuffix(text[marker:]).rstrip()
        source = self._source(whole)
        # The output can have begun inside what its absence would leave open.
        return kept if source and source == self._source(kept) else whole if source else ""

    def _source(self, text: str) -> str:
        action = read_reply(Reply(text), language=self._language)
        return action.source if isinstance(action, RunCode) else ""
