"""Shows a run in a terminal, as a listener."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.spinner import Spinner
from rich.text import Text

from kernel_agent.events import (
    ApprovalAsked,
    CellRepeated,
    CellStarted,
    Event,
    OutputReceived,
    PlanFinished,
    PlanStarted,
    ReplyReceived,
    ReplyRetried,
    ReplyStarted,
    ReplyText,
    RunFinished,
    RunStarted,
    SnapshotTaken,
    StateRebuilt,
    StepFinished,
    SubagentTold,
    TranscriptMoved,
)
from kernel_agent.observation import output_text
from kernel_agent.region import Region
from kernel_agent.rendering import (
    BAR,
    INDENT,
    LINE_CHARS,
    PROSE_WIDTH,
    Code,
    Prose,
    answer_text,
    calls_text,
    counted,
    last_state,
    output_line,
    safe_text,
    seconds_text,
    tail,
    usage_text,
)
from kernel_agent.steps import ANSWER_MIME, Output, Plan, Rebuilt, Step, Usage
from kernel_agent.tracebacks import error_text

REASONING_LINES = 8
TASK_LINES = 12
MAX_NAMES = 12
SUBAGENT_LINES = 6
STREAM_STYLES = {"stdout": "", "stderr": "dim yellow"}


class LiveView:
    """A listener that prints a run to `console` as it goes.

    In a terminal, the reply streams in above a status line, and gives way to its final form when
    it is complete. Anywhere else (and with `live=False`) only final forms are printed: as plain
    text in a pipe. Of each cell's outputs `max_lines` lines are shown. Use it as a context
    manager, or call `close()`: it gives the cursor back, whatever has happened.
    """

    def __init__(self, console: Console, *, live: bool = True, max_lines: int = 40) -> None:
        self._console = console
        self._max_lines = max_lines
        self._styled = console.is_terminal or console.record
        # A recording would hold every state of the region that is redrawn.
        self._animated = live and console.is_interactive and not console.record
        self._region: Region | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._started = 0.0
        self._usage = Usage()
        self._step = ""
        self._heading = ""
        self._phase = ""
        self._steps = 0
        self._path: Path | None = None
        self._reasoning = ""
        self._reply = ""
        self._stream = "stdout"
        self._rest = ""
        self._shown = self._hidden = 0
        self._skipped: set[str] = set()
        self._asked = ""

    def __enter__(self) -> LiveView:
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
        """What the user types when a cell calls `input()` or, for a `password`, `getpass()`.

        Ctrl-C at the prompt interrupts the run as it does anywhere else; nothing was typed then.
        """
        was_animated = self._region is not None
        self.close()
        self._end_stream()
        at_prompt = signal.signal(signal.SIGINT, signal.default_int_handler)
        typed = None
        try:
            text = Text(f"{INDENT}{safe_text(prompt).rstrip()} ", style="cyan")
            typed = self._console.input(text, password=password)
        except (EOFError, KeyboardInterrupt):
            self._blank()
        finally:
            signal.signal(signal.SIGINT, at_prompt)
            if was_animated:
                self._open_region()
        if typed is None:
            signal.raise_signal(signal.SIGINT)
        return typed or ""

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._start_run(event)
            case ReplyStarted(number, max_steps, usage):
                self._step, self._usage = f"step {number}/{max_steps}", usage
                self._phase, self._reply, self._reasoning = "thinking", "", ""
                self._heading, self._asked = str(number), ""
            case ReplyText(text, True):
                self._reasoning += text
            case ReplyText(text):
                self._reply += text
            case ReplyRetried(reason, wait, attempt):
                self._reply = self._reasoning = ""
                self._open_step()
                self._note(f"try {attempt} failed: {reason} · next in {seconds_text(wait)}", "dim")
            case ReplyReceived(reply):
                self._usage += reply.usage
                self._reply = self._reasoning = ""
                self._show_reasoning(reply.reasoning)
            case CellStarted(_, thought, source):
                self._start_cell(thought, source)
            case OutputReceived(output):
                self._show_output(output)
            case StepFinished(number, step, usage):
                self._steps, self._usage, self._phase = number, usage, "saving"
                self._finish_step(step)
            case RunFinished():
                self._finish_run(event)
            case _:
                self._take_notice(event)

    def _take_notice(self, event: Event) -> None:
        """What is seldom told: plans, questions, a resumed run's state, what went wrong on disk."""
        match event:
            case PlanStarted(number, max_steps, usage):
                self._step, self._usage = f"step {number}/{max_steps}", usage
                self._phase, self._reply, self._reasoning = "planning", "", ""
                self._heading = ""
            case PlanFinished(plan, usage):
                self._usage, self._reply, self._reasoning = usage, "", ""
                self._show_plan(plan)
            case ApprovalAsked(_, thought, source):
                self._start_cell(thought, source)
                self._phase, self._asked = "waiting for you", source
            case CellRepeated(name, number, of):
                self._phase = f"bringing the state back: {name}, {number} of {of}"
                if not self._region:
                    self._started = monotonic()
                    self._open_region()
            case StateRebuilt(rebuilt):
                self._show_rebuilt(rebuilt)
            case SnapshotTaken(skipped=skipped):
                self._show_skipped(skipped)
            case SubagentTold(name, event):
                self._show_subagent(name, event)
            case TranscriptMoved(path, reason):
                self._path = path
                self._note(f"The notebook is now {path}: where it was it {reason}", "yellow")

    def _start_run(self, event: RunStarted) -> None:
        self._started, self._path, self._steps = monotonic(), event.path, 0
        self._usage, self._step, self._phase = Usage(), "", "starting"
        lines = safe_text(event.task.text).splitlines()
        task = "\n".join(lines[:TASK_LINES] + ["…"] * (len(lines) > TASK_LINES))
        self._print(Text(task, style="bold"), task)
        about = safe_text(f"{event.model} · {event.kernel}")
        self._print(Text(about, style="dim"), about)
        if not self._region:
            self._open_region()

    def _open_region(self) -> None:
        if not self._animated:
            return
        self._region = Region(self._console, self._bottom)
        self._region.start()

    def _show_rebuilt(self, rebuilt: Rebuilt) -> None:
        parts = [
            rebuilt.reason,
            _named("Restored from the snapshot", rebuilt.restored),
            _named("Run again", rebuilt.back),
            _named("Lost", rebuilt.lost),
            _named("Another output than before", rebuilt.differing),
        ]
        text = "\n".join(filter(None, parts)) or "There were no variables to bring back."
        self._note(text, "yellow" if rebuilt.lost or rebuilt.differing else "dim")

    def _show_subagent(self, name: str, event: Event) -> None:
        """The steps of a sub-agent, in short, under its name."""
        match event:
            case SubagentTold(inner, event):
                self._show_subagent(f"{name} › {inner}", event)
            case RunStarted(task):
                self._indented(name, task.text, "cyan")
            case StepFinished(number, step) if step.result and step.observation:
                self._indented(f"{name} {number}", step.thought, "")
                self._indented("", step.result.source, "dim")
                self._indented("", step.observation.text, "dim")
            case RunFinished(outcome, answer):
                ending = answer_text(answer) if answer is not None else str(outcome)
                self._indented(f"{name} answers", ending, "green")

    def _indented(self, head: str, text: str, style: str) -> None:
        lines = safe_text(text).strip().splitlines()
        if len(lines) > SUBAGENT_LINES:
            lines = [
                *lines[:SUBAGENT_LINES],
                f"… {counted(len(lines) - SUBAGENT_LINES, 'more line')}",
            ]
        if head:
            lines = [f"{safe_text(head)}: {lines[0] if lines else ''}", *lines[1:]]
        for line in lines:
            self._print(output_line(f"{INDENT}{line}", style), f"{INDENT}{INDENT}{line}", wide=True)

    def _show_skipped(self, skipped: Mapping[str, str]) -> None:
        """Says once of each variable that no snapshot holds it."""
        new = {name: reason for name, reason in skipped.items() if name not in self._skipped}
        self._skipped |= new.keys()
        if new:
            named = "; ".join(f"{name} ({reason})" for name, reason in new.items())
            self._note(f"{INDENT}[Not in the snapshot: {named}]", "dim", blank=False)

    def _show_reasoning(self, reasoning: str) -> None:
        lines = safe_text(reasoning).strip().splitlines()
        if not lines:
            return
        if (more := len(lines) - REASONING_LINES) > 1:
            lines = [*lines[:REASONING_LINES], f"… {counted(more, 'more line')} of reasoning"]
        self._open_step()
        self._blank()
        self._print(Text("\n".join(lines), style="dim italic"), "\n".join(lines))

    def _open_step(self) -> None:
        """Prints the number of the step, once, when there is something to show of it."""
        number, self._heading = self._heading, ""
        if number:
            self._blank()
            rule = Rule(Text(number), align="left", style="bright_black")
            self._print(rule, f"── {number} ──")

    def _show_thought(self, thought: str) -> None:
        if text := safe_text(thought).strip():
            self._blank()
            self._print(Prose(text), text)

    def _show_plan(self, plan: Plan) -> None:
        self._blank()
        self._print(Rule(Text("Plan"), align="left", style="bright_black"), "── Plan ──")
        self._show_reasoning(plan.reply.reasoning)
        self._show_thought(plan.said)

    def _start_cell(self, thought: str, source: str) -> None:
        """Prints what is going to run, unless that is what the user has just said yes to."""
        self._phase, self._shown, self._hidden = "running", 0, 0
        if source == self._asked:
            return
        self._open_step()
        if not self._asked:
            self._show_thought(thought)
        self._blank()
        code = safe_text(source)
        self._print(Code(code), "\n".join(BAR + line for line in code.splitlines()), wide=True)

    def _show_output(self, output: Output) -> None:
        if output["output_type"] == "stream":
            self._show_stream(output["name"], "".join(output["text"]))
            return
        self._end_stream()
        if output["output_type"] == "error":
            self._tell_hidden()
            for line in safe_text(error_text(output)).splitlines():
                self._line(line, "red", always=True)
        elif ANSWER_MIME not in output["data"]:  # the answer has a place of its own at the end
            for line in safe_text(output_text(output)).splitlines():
                self._line(line, "")

    def _show_stream(self, name: str, text: str) -> None:
        """Prints the complete lines; the last one may go on, or be overwritten after a `\\r`."""
        if name != self._stream:
            self._end_stream()
            self._stream = name
        complete, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            room = max(self._max_lines - self._shown, 0)
            lines = complete.split("\n", room)
            for line in lines[:room]:
                self._line(safe_text(last_state(line)), STREAM_STYLES.get(name, ""))
            if lines[room:]:
                self._hidden += lines[room].count("\n") + 1
        self._rest = last_state(self._rest)

    def _end_stream(self) -> None:
        rest, self._rest = self._rest, ""
        if line := safe_text(rest):
            self._line(line, STREAM_STYLES.get(self._stream, ""))

    def _line(self, line: str, style: str, *, always: bool = False) -> None:
        if self._shown >= self._max_lines and not always:
            self._hidden += 1
            return
        if not self._shown:
            self._blank()
        self._shown += 1
        if len(line) > LINE_CHARS:
            line = line[:LINE_CHARS] + "…"
        self._print(output_line(line, style), f"{INDENT}{line}", wide=True)

    def _tell_hidden(self) -> None:
        hidden, self._hidden = self._hidden, 0
        if hidden:
            where = "in the notebook" if self._path else "not shown"
            self._note(f"{INDENT}… {counted(hidden, 'more line')} ({where})", "dim", blank=False)

    def _finish_step(self, step: Step) -> None:
        if step.result is None:
            if step.observation:
                self._open_step()
                if not self._asked:
                    self._show_thought(step.thought)
                self._note(step.observation.text, "yellow")
            return
        self._end_stream()
        self._tell_hidden()
        if step.result.tool_calls:
            told = calls_text(step.result.tool_calls)
            self._note(f"{INDENT}[{told}]", "dim", blank=not self._shown)
        if step.result.reason:
            self._note(f"{INDENT}[{step.result.reason}]", "yellow", blank=not self._shown)

    def _finish_run(self, event: RunFinished) -> None:
        self.close()
        self._end_stream()
        if event.outcome.status == "answered":
            text = answer_text(event.answer)
            self._blank()
            body = Prose(text) if isinstance(event.answer, str) else Text(text)
            frame = Panel(body, title="Answer", title_align="left", border_style="green")
            self._print(frame, f"Answer\n\n{text}")
        if (ending := str(event.outcome)) != "answered":
            self._note(ending[0].upper() + ending[1:], "yellow")
        usage = event.usage
        self._note(
            f"{counted(self._steps, 'step')} · model {seconds_text(usage.model_seconds)} · "
            f"kernel {seconds_text(usage.kernel_seconds)} · {usage_text(usage)}",
            "dim",
        )
        if event.path:
            self._note(str(event.path), "dim", blank=False)

    def _note(self, text: str, style: str, *, blank: bool = True) -> None:
        if blank:
            self._blank()
        text = safe_text(text)
        self._print(Text(text, style=style), text)

    def _blank(self) -> None:
        self._print("", "")

    def _print(self, styled: RenderableType, plain: str, *, wide: bool = False) -> None:
        """Prints one of the two forms; in a terminal at most `PROSE_WIDTH` columns, or `wide`."""
        if not self._styled:
            self._console.out(plain.rstrip(), highlight=False)
            return
        width = self._console.width if wide else min(self._console.width, PROSE_WIDTH)
        show = self._region.print if self._region else self._console.print
        show(styled, width=width, markup=False, highlight=False, emoji=False)

    def _bottom(self) -> RenderableType:
        """What is redrawn at the bottom: the end of what streams in, and the status line."""
        height, width = self._console.height - 4, min(self._console.width, PROSE_WIDTH)
        parts: list[RenderableType] = [""]
        if lines := self._streaming(max(height, 1), width):
            parts += [*lines, ""]
        status = [self._step, self._phase, seconds_text(monotonic() - self._started)]
        status.append(usage_text(self._usage))
        text = " · ".join(filter(None, status))
        self._spinner.update(text=Text(text, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts, self._spinner)

    def _streaming(self, height: int, width: int) -> list[RenderableType]:
        """The last `height` lines of the unfinished reply or line of output."""
        shown: RenderableType
        if self._rest:
            shown = output_line(safe_text(self._rest), "dim")
        elif self._reply:
            shown = Prose(tail(safe_text(self._reply)))
        elif self._reasoning:
            shown = Text(tail(safe_text(self._reasoning)), style="dim italic")
        else:
            return []
        options = self._console.options.update(width=width, height=None)
        lines = self._console.render_lines(shown, options, pad=False)
        return [Segments([*line, Segment.line()]) for line in lines[-height:]]


def _named(what: str, names: Sequence[str]) -> str:
    """The names after what they are, the first ones of many; empty without any."""
    more = [f"… and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return f"{what}: {', '.join([*names[:MAX_NAMES], *more])}" if names else ""
