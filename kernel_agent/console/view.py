"""The view of a run: what it prints of each event, and the status line."""

from __future__ import annotations

import signal
from pathlib import Path
from time import monotonic
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.segment import Segment, Segments
from rich.spinner import Spinner
from rich.text import Text

from kernel_agent.console.notices import Notices
from kernel_agent.console.outputs import Outputs
from kernel_agent.console.page import Page
from kernel_agent.events import (
    ApprovalAsked,
    CellRepeated,
    CellStarted,
    Event,
    ModelChanged,
    OutputReceived,
    PlanFinished,
    PlanStarted,
    ReplyReceived,
    ReplyRetried,
    ReplyStarted,
    ReplyText,
    RequestHeld,
    RoomMade,
    RunFinished,
    RunStarted,
    SnapshotTaken,
    StepFinished,
    TranscriptMoved,
)
from kernel_agent.rendering import (
    BAR,
    INDENT,
    PROSE_WIDTH,
    Code,
    Prose,
    answer_text,
    calls_text,
    counted,
    output_line,
    safe_text,
    seconds_text,
    tail,
    usage_text,
)
from kernel_agent.steps import Plan, Step, Usage

REASONING_LINES = 8
TASK_LINES = 12
LONG_WAIT = 5.0
"""Seconds: shorter waits are told in the status line alone."""


class LiveView:
    """A listener that prints a run to `console` as it goes.

    In a terminal, the reply streams in above a status line, and gives way to its final form when
    it is complete. Anywhere else (and with `live=False`) only final forms are printed: as plain
    text in a pipe. Of each cell's outputs `max_lines` lines are shown. Use it as a context
    manager, or call `close()`: it gives the cursor back, whatever has happened.
    """

    def __init__(self, console: Console, *, live: bool = True, max_lines: int = 40) -> None:
        self._page = Page(console, live=live)
        self._outputs = Outputs(self._page, max_lines=max_lines)
        self._notices = Notices(self._page)
        self._spinner = Spinner("dots", style="cyan")
        self._started = 0.0
        self._usage = Usage()
        self._step = ""
        self._heading = ""
        self._phase = ""
        self._waits_until = 0.0
        self._waits_for = ""
        self._steps = 0
        self._path: Path | None = None
        self._reasoning = ""
        self._reply = ""
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
        self._page.close()

    def ask(self, prompt: str, password: bool) -> str:
        """What the user types when a cell calls `input()` or, for a `password`, `getpass()`.

        Ctrl-C at the prompt interrupts the run as it does anywhere else; nothing was typed then.
        """
        was_open = self._page.is_open
        self.close()
        self._outputs.end_line()
        at_prompt = signal.signal(signal.SIGINT, signal.default_int_handler)
        typed = None
        try:
            text = Text(f"{INDENT}{safe_text(prompt).rstrip()} ", style="cyan")
            typed = self._page.console.input(text, password=password)
        except (EOFError, KeyboardInterrupt):
            self._page.blank()
        finally:
            signal.signal(signal.SIGINT, at_prompt)
            if was_open:
                self._page.open(self._bottom)
        if typed is None:
            signal.raise_signal(signal.SIGINT)
        return typed or ""

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._start_run(event)
            case ReplyStarted(number, max_steps, usage):
                self._start_reply("thinking", f"step {number}/{max_steps}", usage)
                self._heading, self._asked = str(number), ""
            case ReplyText(text, True):
                self._reasoning += text
            case ReplyText(text):
                self._reply += text
            case ReplyReceived(reply):
                self._end_reply(self._usage + reply.usage)
                self._show_reasoning(reply.reasoning)
            case CellStarted(_, thought, source):
                self._start_cell(thought, source)
            case OutputReceived(output):
                self._outputs.show(output)
            case StepFinished(number, step, usage):
                self._steps, self._usage, self._phase = number, usage, "saving"
                self._finish_step(step)
            case RunFinished():
                self._finish_run(event)
            case _:
                self._take_notice(event)

    def _take_notice(self, event: Event) -> None:
        """What is seldom told: plans, questions, waits, what goes wrong and how it goes on."""
        match event:
            case PlanStarted(number, max_steps, usage):
                self._start_reply("planning", f"step {number}/{max_steps}", usage)
                self._heading = ""
            case PlanFinished(plan, usage):
                self._end_reply(usage)
                self._show_plan(plan)
            case ApprovalAsked(_, thought, source):
                self._start_cell(thought, source)
                self._phase, self._asked = "waiting for you", source
            case ReplyRetried() | RequestHeld() | ModelChanged() | RoomMade():
                self._take_delay(event)
            case CellRepeated(name, number, of):
                self._phase = f"bringing the state back: {name}, {number} of {of}"
                if not self._page.is_open:
                    self._started = monotonic()
                    self._page.open(self._bottom)
            case SnapshotTaken(skipped=skipped):
                self._notices.show_skipped(skipped)
            case _:
                if isinstance(event, TranscriptMoved):
                    self._path = event.path
                self._notices.show(event)

    def _take_delay(self, event: Event) -> None:
        """What comes between a request and its reply; what has streamed in so far is void."""
        self._end_reply(self._usage)
        match event:
            case ReplyRetried(reason, wait, attempt):
                self._wait(wait, f"try {attempt + 1}")
                self._open_step()
                when = f"in {seconds_text(wait)}" if wait else "at once"
                text = f"try {attempt} failed: {reason.rstrip('.')} · next {when}"
                self._page.note(text, "dim", blank=attempt == 1)
            case RequestHeld(reason, wait):
                self._wait(wait, reason)
                if wait >= LONG_WAIT:
                    self._open_step()
                    text = f"waiting {seconds_text(wait)}: {reason.rstrip('.')}"
                    self._page.note(text, "dim")
            case ModelChanged():
                self._open_step()
                self._notices.show(event)
            case RoomMade(usage=usage):
                self._usage = usage
                self._notices.show(event)

    def _wait(self, seconds: float, reason: str) -> None:
        self._waits_until, self._waits_for = monotonic() + seconds, reason.rstrip(".")

    def _start_run(self, event: RunStarted) -> None:
        self._started, self._path, self._steps = monotonic(), event.path, 0
        self._start_reply("starting", "", Usage())
        lines = safe_text(event.task.text).splitlines()
        task = "\n".join(lines[:TASK_LINES] + ["…"] * (len(lines) > TASK_LINES))
        self._page.print(Text(task, style="bold"), task)
        about = safe_text(f"{event.model} · {event.kernel}")
        self._page.print(Text(about, style="dim"), about)
        self._page.open(self._bottom)

    def _start_reply(self, phase: str, step: str, usage: Usage) -> None:
        self._phase, self._step = phase, step
        self._end_reply(usage)

    def _end_reply(self, usage: Usage) -> None:
        """What has streamed in is complete, or void."""
        self._usage, self._reply, self._reasoning = usage, "", ""
        self._waits_until = 0.0

    def _show_reasoning(self, reasoning: str) -> None:
        lines = safe_text(reasoning).strip().splitlines()
        if not lines:
            return
        if (more := len(lines) - REASONING_LINES) > 1:
            lines = [*lines[:REASONING_LINES], f"… {counted(more, 'more line')} of reasoning"]
        self._open_step()
        self._page.note("\n".join(lines), "dim italic")

    def _open_step(self) -> None:
        """Prints the number of the step, once, when there is something to show of it."""
        number, self._heading = self._heading, ""
        if number:
            self._page.rule(number)

    def _show_thought(self, thought: str) -> None:
        if text := safe_text(thought).strip():
            self._page.blank()
            self._page.print(Prose(text), text)

    def _show_plan(self, plan: Plan) -> None:
        self._page.rule("Plan")
        self._show_reasoning(plan.reply.reasoning)
        self._show_thought(plan.said)

    def _start_cell(self, thought: str, source: str) -> None:
        """Prints what is going to run, unless that is what the user has just said yes to."""
        self._phase = "running"
        self._outputs.start(whole="in the notebook" if self._path else "not shown")
        if source == self._asked:
            return
        self._open_step()
        if not self._asked:
            self._show_thought(thought)
        self._page.blank()
        code = safe_text(source)
        plain = "\n".join(BAR + line for line in code.splitlines())
        self._page.print(Code(code), plain, wide=True)

    def _finish_step(self, step: Step) -> None:
        if step.result is None:
            if step.observation:
                self._open_step()
                if not self._asked:
                    self._show_thought(step.thought)
                self._page.note(step.observation.text, "yellow")
            return
        self._outputs.end_line()
        self._outputs.tell_hidden()
        if step.result.tool_calls:
            told = calls_text(step.result.tool_calls)
            self._page.note(f"{INDENT}[{told}]", "dim", blank=self._outputs.is_empty)
        if step.result.reason:
            text = f"{INDENT}[{step.result.reason}]"
            self._page.note(text, "yellow", blank=self._outputs.is_empty)

    def _finish_run(self, event: RunFinished) -> None:
        self.close()
        self._outputs.end_line()
        if event.outcome.status == "answered":
            text = answer_text(event.answer)
            self._page.blank()
            body = Prose(text) if isinstance(event.answer, str) else Text(text)
            frame = Panel(body, title="Answer", title_align="left", border_style="green")
            self._page.print(frame, f"Answer\n\n{text}")
        if (ending := str(event.outcome)) != "answered":
            style = "red" if event.outcome.status == "failed" else "yellow"
            self._page.note(ending[0].upper() + ending[1:], style)
        usage = event.usage
        figures = (
            f"{counted(self._steps, 'step')} · model {seconds_text(usage.model_seconds)} · "
            f"kernel {seconds_text(usage.kernel_seconds)} · {usage_text(usage)}"
        )
        # A run that has failed at its first request has none.
        about = [figures] * bool(self._steps or usage.tokens) + [str(event.path or "")]
        if text := "\n".join(filter(None, about)):
            self._page.note(text, "dim")

    def _bottom(self) -> RenderableType:
        """What is redrawn at the bottom: the end of what streams in, and the status line."""
        console = self._page.console
        height, width = console.height - 4, min(console.width, PROSE_WIDTH)
        parts: list[RenderableType] = [""]
        if lines := self._streaming(console, max(height, 1), width):
            parts += [*lines, ""]
        status = [self._step, self._doing(), seconds_text(monotonic() - self._started)]
        status.append(usage_text(self._usage))
        text = " · ".join(filter(None, status))
        self._spinner.update(text=Text(text, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts, self._spinner)

    def _doing(self) -> str:
        """What is going on, for the status line; a wait ends by itself."""
        if (left := self._waits_until - monotonic()) > 0:
            return safe_text(f"waiting {seconds_text(left)}: {self._waits_for}")
        return self._phase

    def _streaming(self, console: Console, height: int, width: int) -> list[RenderableType]:
        """The last `height` lines of the unfinished reply or line of output."""
        shown: RenderableType
        if self._outputs.rest:
            shown = output_line(safe_text(self._outputs.rest), "dim")
        elif self._reply:
            shown = Prose(tail(safe_text(self._reply)))
        elif self._reasoning:
            shown = Text(tail(safe_text(self._reasoning)), style="dim italic")
        else:
            return []
        options = console.options.update(width=width, height=None)
        lines = console.render_lines(shown, options, pad=False)
        return [Segments([*line, Segment.line()]) for line in lines[-height:]]
