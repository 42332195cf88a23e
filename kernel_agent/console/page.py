"""Prints on a console: with colours in a terminal, as plain text anywhere else."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text

from kernel_agent.region import Region
from kernel_agent.rendering import INDENT, PROSE_WIDTH, counted, output_line, safe_text

INDENTED_LINES = 6


class Page:
    """Prints each thing in one of two forms; below it, in a terminal, lines that are redrawn.

    These are there with `live` only, and between `open` and `close`.
    """

    def __init__(self, console: Console, *, live: bool) -> None:
        self.console = console
        self._styled = console.is_terminal or console.record
        # A recording would hold every state of the region that is redrawn.
        self._animated = live and console.is_interactive and not console.record
        self._region: Region | None = None

    @property
    def is_open(self) -> bool:
        """Whether there are lines that are redrawn."""
        return self._region is not None

    def open(self, draw: Callable[[], RenderableType]) -> None:
        """Show what `draw` gives below all that is printed, if that can be done and is not yet."""
        if self._animated and not self._region:
            self._region = Region(self.console, draw)
            self._region.start()

    def close(self) -> None:
        """Take these lines away and show the cursor. Can be called again."""
        region, self._region = self._region, None
        if region:
            region.stop()

    def print(self, styled: RenderableType, plain: str, *, wide: bool = False) -> None:
        """Print one of the two forms; in a terminal at most `PROSE_WIDTH` columns, or `wide`."""
        if not self._styled:
            self.console.out(plain.rstrip(), highlight=False)
            return
        width = self.console.width if wide else min(self.console.width, PROSE_WIDTH)
        show = self._region.print if self._region else self.console.print
        show(styled, width=width, markup=False, highlight=False, emoji=False)

    def blank(self) -> None:
        self.print("", "")

    def note(self, text: str, style: str, *, blank: bool = True) -> None:
        """Print a remark, after a blank line or not."""
        if blank:
            self.blank()
        text = safe_text(text)
        self.print(Text(text, style=style), text)

    def rule(self, title: str) -> None:
        """Print a line across with a title, after a blank one."""
        self.blank()
        self.print(Rule(Text(title), align="left", style="bright_black"), f"── {title} ──")

    def indented(self, head: str, text: str, style: str) -> None:
        """Print the first lines of a text, indented, after its head."""
        lines = safe_text(text).strip().splitlines()
        if (more := len(lines) - INDENTED_LINES) > 0:
            lines = [*lines[:INDENTED_LINES], f"… {counted(more, 'more line')}"]
        if head:
            lines = [f"{safe_text(head)}: {lines[0] if lines else ''}", *lines[1:]]
        for line in lines:
            self.print(output_line(f"{INDENT}{line}", style), f"{INDENT}{INDENT}{line}", wide=True)
