"""Shows a replay in a terminal: a row for each cell as it comes, then what differs."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from types import TracebackType
from typing import get_args

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.spinner import Spinner
from rich.text import Text

from kernel_agent.comparing.comparison import Difference, Verdict
from kernel_agent.region import Region
from kernel_agent.rendering import INDENT, PROSE_WIDTH, counted, safe_text, seconds_text
from kernel_agent.replay import CellReplayed, Replay, ReplayedCell, ReplayStarted, holds
from kernel_agent.steps import CellResult

STYLES: dict[Verdict, str] = {
    "same": "green",
    "same after normalising": "green",
    "nondeterministic": "yellow",
    "not recorded": "yellow",
    "not run": "yellow",
}
DRIFTS = "red"
MARKS = {"- ": "red", "+ ": "green"}
VERDICT_WIDTH = len("same after normalising")
NAME_WIDTH = (7, 24)  # columns, at least and at most
SECONDS_WIDTH = 12
SHOWN_SOURCE = 3  # lines of a cell that drifts


class ReplayView:
    """A listener that prints the cells of a replay to `console` as they come.

    In a terminal a status line below says what is being executed. Use it as a context manager, or
    call `close()`, which gives the cursor back; `finish` prints what differs, and the last line.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._styled = console.is_terminal
        self._region: Region | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._names: tuple[str, ...] = ()
        self._round = ""
        self._done = 0
        self._began = 0.0
        self._name_width = NAME_WIDTH[0]

    def __enter__(self) -> ReplayView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Takes the status line away and shows the cursor. Can be called again."""
        region, self._region = self._region, None
        if region:
            region.stop()

    def ask(self, prompt: str, password: bool) -> str:
        """What the user types when a cell wants a password, which no notebook holds."""
        was_open = self._region is not None
        self.close()
        try:
            text = Text(f"{INDENT}{safe_text(prompt).rstrip()} ", style="cyan")
            return self._console.input(text, password=password)
        except EOFError:
            return ""
        finally:
            if was_open:
                self._open_region()

    def __call__(self, event: ReplayStarted | CellReplayed) -> None:
        match event:
            case ReplayStarted():
                self._start(event)
            case CellReplayed(cell=cell):
                self._row(cell)
                self._done, self._began = event.number, monotonic()

    def finish(self, replay: Replay) -> None:
        """Print what differs in each cell that drifts or never does the same twice."""
        self.close()
        differing = [cell for cell in replay.cells if cell.differences]
        if differing:
            self._print("", "")
            self._line("What differs: - then, + now", "bold")
        for cell in differing:
            self._show_differences(cell)
        self._print("", "")
        for problem in replay.problems:
            self._line(problem, "yellow")
        self._line(summary(replay), "green" if replay.holds else DRIFTS)

    def _start(self, event: ReplayStarted) -> None:
        self._names, self._done, self._began = event.cells, 0, monotonic()
        self._round = f"repeat {event.round}/{event.rounds}" if event.rounds > 1 else ""
        if event.round == 1:
            name = event.path.name if event.path else "notebook"
            cells = counted(len(event.cells), "cell")
            self._line(f"{name} · {event.kernel} · {cells}", "bold")
            longest = max(map(len, event.cells), default=0)
            self._name_width = min(max(longest, NAME_WIDTH[0]), NAME_WIDTH[1])
        if event.round == event.rounds:
            head = self._columns("cell", "verdict", "then", "now", "")
            self._line(head, "dim")
        if self._console.is_interactive and self._styled and not self._region:
            self._open_region()

    def _open_region(self) -> None:
        self._region = Region(self._console, self._bottom)
        self._region.start()

    def _row(self, cell: ReplayedCell) -> None:
        then, now = _time(cell.was), _time(cell.now)
        source = next((line.strip() for line in cell.was.source.splitlines() if line.strip()), "")
        name, verdict = _clipped(cell.name, self._name_width), cell.verdict
        plain = self._columns(name, verdict, then, now, safe_text(source))
        start = self._name_width + 2
        text = Text(plain)
        text.stylize(STYLES.get(verdict, DRIFTS), start, start + len(verdict))
        text.stylize("dim", start + VERDICT_WIDTH)
        text.truncate(self._console.width, overflow="ellipsis")
        self._print(text, plain)

    def _columns(self, name: str, verdict: str, then: str, now: str, source: str) -> str:
        return (
            f"{safe_text(name):<{self._name_width}}  {verdict:<{VERDICT_WIDTH}}"
            f"{then:>{SECONDS_WIDTH}}{now:>{SECONDS_WIDTH}}  {source}"
        ).rstrip()

    def _show_differences(self, cell: ReplayedCell) -> None:
        self._print("", "")
        between = " (between two repeats)" if cell.verdict == "nondeterministic" else ""
        title = safe_text(f"{cell.name}: {cell.verdict}{between}")
        style = STYLES.get(cell.verdict, DRIFTS)
        rule = Rule(Text(title, style=style), align="left", style="bright_black")
        self._print(rule, f"── {title} ──", width=PROSE_WIDTH)
        lines = safe_text(cell.was.source).strip().splitlines()
        for line in [*lines[:SHOWN_SOURCE], *["…"] * (len(lines) > SHOWN_SOURCE)]:
            self._line(f"│ {line}", "dim")
        for difference in cell.differences:
            self._show(difference)

    def _show(self, difference: Difference) -> None:
        lines = safe_text(difference.text).split("\n")
        if len(lines) == 1 and lines[0][:2] not in MARKS:
            self._line(f"{INDENT}{safe_text(difference.part)}: {lines[0]}", "")
            return
        self._line(f"{INDENT}{safe_text(difference.part)}", "bold")
        for line in lines:
            self._line(f"{INDENT}{line}", MARKS.get(line[:2], ""))

    def _line(self, line: str, style: str) -> None:
        line = safe_text(line)
        self._print(Text(line, style=style), line)

    def _print(self, styled: RenderableType, plain: str, *, width: int | None = None) -> None:
        if not self._styled:
            self._console.out(plain.rstrip(), highlight=False)
            return
        width = min(self._console.width, width or self._console.width)
        show = self._region.print if self._region else self._console.print
        show(styled, width=width, markup=False, highlight=False, emoji=False)

    def _bottom(self) -> RenderableType:
        """The status line: which cell is being executed, and for how long."""
        name = self._names[self._done] if self._done < len(self._names) else "ending"
        status = (
            self._round,
            f"{min(self._done + 1, len(self._names))}/{len(self._names)}",
            safe_text(name),
            seconds_text(monotonic() - self._began),
        )
        text = " · ".join(filter(None, status))
        self._spinner.update(text=Text(text, style="dim", no_wrap=True, overflow="ellipsis"))
        return self._spinner


def summary(replay: Replay) -> str:
    """What came of it, in a line."""
    verdicts = Counter(cell.verdict for cell in replay.cells)
    listed = ", ".join(
        f"{verdicts[verdict]} {verdict}" for verdict in get_args(Verdict) if verdicts[verdict]
    )
    drifting = sum(count for verdict, count in verdicts.items() if not holds(verdict))
    found = (
        "It holds"
        if replay.holds
        else f"It drifts in {drifting} of {counted(len(replay.cells), 'cell')}"
    )
    if replay.interrupted:
        found = "Stopped"
    return f"{found}: {listed or 'no cells'} · {seconds_text(replay.seconds)}"


def _time(result: CellResult | None) -> str:
    """How long it took, if that is known."""
    if result is None or not result.seconds:
        return "–"
    seconds = result.seconds
    return seconds_text(seconds) if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
