"""Prints the outputs of a cell as they come, so many lines of them."""

from __future__ import annotations

from kernel_agent.console.page import Page
from kernel_agent.observation import output_text
from kernel_agent.rendering import INDENT, LINE_CHARS, counted, last_state, output_line, safe_text
from kernel_agent.steps import ANSWER_MIME, Output
from kernel_agent.tracebacks import error_text

STREAM_STYLES = {"stdout": "", "stderr": "dim yellow"}


class Outputs:
    """Prints outputs on `page`, of each cell at most `max_lines` lines, and all of its error."""

    def __init__(self, page: Page, *, max_lines: int) -> None:
        self._page = page
        self._max_lines = max_lines
        self._stream = "stdout"
        self._shown = self._hidden = 0
        self._whole = ""
        self.rest = ""
        """The last line so far, if it may go on or be overwritten after a `\\r`."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the cell was printed."""
        return not self._shown

    def start(self, *, whole: str) -> None:
        """Begin with a new cell; `whole` says where all of its outputs are."""
        self._shown = self._hidden = 0
        self._whole = whole

    def show(self, output: Output) -> None:
        """Print an output, for a stream the new piece of its text."""
        if output["output_type"] == "stream":
            self._show_stream(output["name"], "".join(output["text"]))
            return
        self.end_line()
        if output["output_type"] == "error":
            self.tell_hidden()
            for line in safe_text(error_text(output)).splitlines():
                self._line(line, "red", always=True)
        elif ANSWER_MIME not in output["data"]:  # the answer has a place of its own at the end
            for line in safe_text(output_text(output)).splitlines():
                self._line(line, "")

    def end_line(self) -> None:
        """Print the last line, which will not go on."""
        rest, self.rest = self.rest, ""
        if line := safe_text(rest):
            self._line(line, STREAM_STYLES.get(self._stream, ""))

    def tell_hidden(self) -> None:
        """Say how many lines were not printed, if any, and where they are."""
        hidden, self._hidden = self._hidden, 0
        if hidden:
            more = f"{INDENT}… {counted(hidden, 'more line')} ({self._whole})"
            self._page.note(more, "dim", blank=False)

    def _show_stream(self, name: str, text: str) -> None:
        """Print the complete lines; the last one may go on."""
        if name != self._stream:
            self.end_line()
            self._stream = name
        complete, newline, self.rest = (self.rest + text).rpartition("\n")
        if newline:
            room = max(self._max_lines - self._shown, 0)
            lines = complete.split("\n", room)
            for line in lines[:room]:
                self._line(safe_text(last_state(line)), STREAM_STYLES.get(name, ""))
            if lines[room:]:
                self._hidden += lines[room].count("\n") + 1
        self.rest = last_state(self.rest)

    def _line(self, line: str, style: str, *, always: bool = False) -> None:
        if self._shown >= self._max_lines and not always:
            self._hidden += 1
            return
        if not self._shown:
            self._page.blank()
        self._shown += 1
        if len(line) > LINE_CHARS:
            line = line[:LINE_CHARS] + "…"
        self._page.print(output_line(line, style), f"{INDENT}{line}", wide=True)
