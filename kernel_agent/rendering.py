"""The pieces of the view: prose, code, lines of output, figures of usage, as rich renders them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.padding import Padding
from rich.style import Style
from rich.syntax import ANSI_DARK, ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme

from kernel_agent.steps import ToolCall, Usage
from kernel_agent.terminal import plain_text

PROSE_WIDTH = 100  # columns: longer lines are hard to read
LINE_CHARS = 2000  # of one line of output; the rest is in the notebook
STREAMING_CHARS = 4000  # of a reply that streams in: more than a screen, and quick to render
INDENT = "  "
BAR = "│ "

# The terminal's own palette, so that it can be read on a light ground and on a dark one.
_COLOURS = ANSISyntaxTheme(
    {token: Style(color=style.color, bold=style.bold) for token, style in ANSI_DARK.items()}
)
_THEME = Theme({"markdown.code": "cyan", "markdown.code_block": "none"})


def safe_text(text: str) -> str:
    """`text` without anything that a terminal would obey, and without trailing blanks."""
    lines = plain_text(text).split("\n")
    return "\n".join("".join(map(_visible, line)).rstrip() for line in lines)


def _visible(character: str) -> str:
    if character == "\t" or unicodedata.category(character) not in ("Cc", "Cs"):
        return character
    return ""


def answer_text(answer: Any) -> str:
    """An answer as text: a string as it is, JSON as such, a table or the like as it prints."""
    if isinstance(answer, str):
        return safe_text(answer)
    try:
        return safe_text(json.dumps(answer, indent=2, ensure_ascii=False))
    except (TypeError, ValueError):
        return safe_text(str(answer))


@dataclass(frozen=True)
class Code:
    """Source with its colours and a bar on its left."""

    source: str
    language: str = "python"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        syntax = Syntax("", self.language, theme=_COLOURS, background_color="default")
        text = syntax.highlight(self.source)
        text.rstrip()
        width = max(options.max_width - len(BAR), 1)
        for line in text.wrap(console, width, overflow="fold", no_wrap=False):
            yield Text.assemble((BAR, "bright_black"), line)


class _Fence(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Code(str(self.text), self.lexer_name)


class _Heading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.text.plain, style="bold")


class Prose(Markdown):
    """Markdown as the view shows it: headings on the left, code with a bar, addresses written out.

    Hyperlinks would hide where they lead to, and are control codes.
    """

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Fence,
        "code_block": _Fence,
        "heading_open": _Heading,
    }

    def __init__(self, text: str) -> None:
        super().__init__(text, hyperlinks=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with console.use_theme(_THEME):
            yield from super().__rich_console__(console, options)


def output_line(line: str, style: str) -> Padding:
    """A line of output: prose is wrapped, a row of a table cropped at the edge of the terminal."""
    row = bool(re.search(r"\S(?:\s{2,}|\t|\s*[|│┃║]\s*)\S", line.strip()))
    overflow = "ellipsis" if row else "fold"
    text = Text(line or " ", style=style, no_wrap=row, overflow=overflow)  # type: ignore[arg-type]
    return Padding(text, (0, 0, 0, len(INDENT)), expand=False)


def seconds_text(seconds: float) -> str:
    """`4.2 s`, `42 s`, `3 min 05 s`, `2 h 03 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def cost_text(cost: float | None) -> str:
    """`$0.0042`, `$1.20`, `cost unknown`."""
    if cost is None:
        return "cost unknown"
    return f"${cost:.4f}" if 0 < cost < 0.1 else f"${cost:.2f}"


def usage_text(usage: Usage) -> str:
    """`1,234 tokens · $0.0042`."""
    return f"{counted(usage.tokens, 'token')} · {cost_text(usage.cost)}"


def counted(number: int, thing: str) -> str:
    """`1 step`, `1,234 steps`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def last_state(line: str) -> str:
    """An endless line, cut: of a progress bar (`\r`) only the last state matters."""
    if len(line) <= LINE_CHARS:
        return line
    return line[line.rfind("\r", 0, -1) + 1 :][:LINE_CHARS] + "…"


def tail(text: str) -> str:
    """The end of an unfinished reply; inside a block of code if the cut is inside one."""
    head, end = text[:-STREAMING_CHARS], text[-STREAMING_CHARS:]
    return f"```python\n{end}" if head.count("```") % 2 else end


def calls_text(calls: Sequence[ToolCall]) -> str:
    """Which tools were called, how often and for how long: `called price ×3 (1 failed) · 0.2 s`."""
    parts = []
    for name in dict.fromkeys(call.name for call in calls):
        own = [call for call in calls if call.name == name]
        failed = sum(bool(call.error) for call in own)
        times = f" ×{len(own)}" if len(own) > 1 else ""
        parts.append(f"{name}{times}" + (f" ({failed} failed)" if failed else ""))
    return f"called {', '.join(parts)} · {seconds_text(sum(call.seconds for call in calls))}"
