"""The listener that makes spans of a run's events, while they come."""

from __future__ import annotations

import importlib
import time
from types import TracebackType
from typing import Any, Self

from kernel_agent import __version__
from kernel_agent.errors import SettingsError
from kernel_agent.events import (
    CellStarted,
    Event,
    ModelChanged,
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
    StepFinished,
)
from kernel_agent.steps import CellResult, Cut, Reply, ToolCall, Usage
from kernel_agent.telemetry.conventions import (
    json_text,
    provider,
    raised,
    reply_message,
    usage_facts,
)
from kernel_agent.telemetry.open_spans import OpenSpans

AGENT = "kernel-agent"
PLAN = {"gen_ai.operation.name": "plan", "gen_ai.agent.name": AGENT}


def telemetry_listener(tracer: Any = None, *, content: bool = False) -> Telemetry:
    """A listener that makes spans of a run's events with `tracer`, an OpenTelemetry `Tracer`.

    Without one it is the global tracer provider's, which sends nothing until the program has set
    up an SDK. With `content` the spans hold what was said, executed and put out too; without it
    none of that: names, numbers and the types of errors only.

    Raises SettingsError if opentelemetry-api is not installed.
    """
    try:
        trace = importlib.import_module("opentelemetry.trace")
    except ImportError as error:
        raise SettingsError(
            f"Telemetry: {error}. Install what it needs: pip install 'kernel-agent[otel]'."
        ) from error
    return Telemetry(trace, tracer or trace.get_tracer(AGENT, __version__), content=content)


class Telemetry:
    """Makes spans of the events of one run after another; see `telemetry_listener`.

    `invoke_agent` is the run, below it a `step` for each step with `chat` (the model's reply) and
    `execute_tool` (the cell), below that an `execute_tool` for each call of a tool. A plan is a
    `plan` with its `chat`, a summary of earlier steps a `chat`. Failed tries, waits, a change of
    the model and room that is made are events of the span they happen in. Names and attributes
    are those of the conventions (`gen_ai.*`, `error.type`), or begin with `kernel_agent.`. A run
    is a child of the span that is current when it starts.

    It is used by one thread. `close`, or leaving it as a context manager, ends what is open.
    """

    def __init__(self, trace: Any, tracer: Any, *, content: bool) -> None:
        self._content = content
        self._open = OpenSpans(trace, tracer, content=content)  # of run, step, chat or cell
        self._model = self._kernel = "unknown"
        self._usage = Usage()
        self._asked = self._cell_started = 0
        self._is_streamed = False
        self._calls: list[str] = []  # the ids of the reply's native calls

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._run_started(event)
            case ReplyStarted(number):
                self._open.start("step", "step", {"kernel_agent.step": number})
                self._chat_started()
            case ReplyText() if not self._is_streamed:
                self._first_text()
            case ReplyReceived(reply):
                self._chat_finished(reply)
            case CellStarted():
                self._cell_begun(event)
            case StepFinished(_, step):
                self._usage += step.usage
                if step.result:
                    said = step.observation.text if step.observation else ""
                    self._cell_finished(step.result, said)
                self._open.end("step")
            case RunFinished():
                self._run_finished(event)
            case _:
                self._take_notice(event)

    def _take_notice(self, event: Event) -> None:
        """What is seldom told: plans, and what happens on the way to a reply."""
        match event:
            case PlanStarted(number):
                self._open.start("plan", f"plan {AGENT}", PLAN | {"kernel_agent.step": number})
                self._chat_started()
            case PlanFinished(plan):
                self._usage += plan.usage
                self._chat_finished(plan.reply)
                self._open.end("plan")
            case ReplyRetried(reason, wait, attempt):
                self._is_streamed = False
                facts = {"kernel_agent.attempt": attempt, "kernel_agent.wait_seconds": wait}
                self._open.happened("retry", facts, reason)
            case RequestHeld(reason, wait):
                self._open.happened("hold", {"kernel_agent.wait_seconds": wait}, reason)
            case ModelChanged(model, reason):
                self._model, self._is_streamed = model, False
                self._open.happened("model_change", {"gen_ai.request.model": model}, reason)
            case RoomMade(cut):
                self._usage += cut.usage
                self._room_made(cut)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._open.abandon(type(error).__qualname__)
        self.close()

    def close(self) -> None:
        """End the spans that are open, of a run whose end was never told, as errors."""
        self._open.abandon("unfinished")

    def _run_started(self, event: RunStarted) -> None:
        self.close()
        self._model, self._kernel, self._usage = event.model, event.kernel, Usage()
        facts: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": provider(self._model),
            "gen_ai.agent.name": AGENT,
            "gen_ai.agent.version": __version__,
            "gen_ai.request.model": self._model,
            "kernel_agent.kernel": self._kernel,
        }
        self._open.start("run", f"invoke_agent {AGENT}", facts)
        if self._content:
            # A notebook's name is made of the task's words.
            self._open.set("run", {"kernel_agent.notebook": str(event.path or "")})
            message = {"role": "user", "parts": [{"type": "text", "content": event.task.prompt}]}
            self._open.set("run", {"gen_ai.input.messages": json_text([message])})

    def _chat_started(self, *, at: int | None = None) -> None:
        facts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider(self._model),
            "gen_ai.request.model": self._model,
        }
        self._open.start("chat", f"chat {self._model}", facts, kind="CLIENT", at=at)
        self._asked = time.monotonic_ns()
        self._is_streamed = False

    def _first_text(self) -> None:
        self._is_streamed = True
        seconds = (time.monotonic_ns() - self._asked) / 1e9
        name = "gen_ai.response.time_to_first_chunk"
        self._open.set("chat", {"gen_ai.request.stream": True, name: seconds})

    def _chat_finished(self, reply: Reply) -> None:
        self._calls = [call.id for call in reply.calls]
        self._open.set("chat", usage_facts(reply.usage))
        if reply.model:  # another than was asked first
            answered = {"gen_ai.response.model": reply.model}
            self._open.set("chat", {**answered, "gen_ai.provider.name": provider(reply.model)})
        if reply.finish_reason:
            self._open.set("chat", {"gen_ai.response.finish_reasons": [reply.finish_reason]})
        if self._content:
            self._open.set("chat", {"gen_ai.output.messages": json_text([reply_message(reply)])})
        self._open.end("chat")

    def _room_made(self, cut: Cut) -> None:
        """Make the span of the summary that the model was asked for, if it was."""
        facts = {"shortened": cut.shortened, "summarised": cut.summarised}
        self._open.happened(
            "room_made", {f"kernel_agent.{name}": n for name, n in facts.items()}, ""
        )
        if cut.reply is None:
            return
        with self._open.beside("chat"):  # the request that there was no room for goes on
            # It is told when it is over.
            self._chat_started(at=time.time_ns() - int(cut.usage.model_seconds * 1e9))
            self._chat_finished(cut.reply)

    def _cell_begun(self, event: CellStarted) -> None:
        self._cell_started = time.time_ns()
        tool = "python" if self._kernel.startswith("python") else self._kernel
        facts = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.type": "extension",
            "kernel_agent.step": event.number,
        }
        if len(self._calls) == 1:
            facts["gen_ai.tool.call.id"] = self._calls[0]
        self._open.start("cell", f"execute_tool {tool}", facts, at=self._cell_started)
        if self._content:
            self._open.set(
                "cell", {"gen_ai.tool.call.arguments": json_text({"source": event.source})}
            )

    def _cell_finished(self, result: CellResult, said: str) -> None:
        if "cell" not in self._open:
            return
        start = self._cell_started
        for call in result.tool_calls:
            start = self._tool_called(call, start)
        facts: dict[str, Any] = {"kernel_agent.cell.status": result.status}
        if result.execution_count is not None:
            facts["kernel_agent.cell.execution_count"] = result.execution_count
        if self._content:
            facts["gen_ai.tool.call.result"] = said
        self._open.set("cell", facts)
        if result.status == "error":
            name, value = raised(result)
            exception = {"exception.type": name}
            if self._content:
                exception["exception.message"] = value
            self._open.add_event("cell", "exception", exception)
            self._open.fail("cell", name, value)
        elif result.status != "ok":
            self._open.fail("cell", result.status, result.reason)
        # It was told late, after the notebook was saved: the cell itself had ended before.
        ended = self._cell_started + int(result.seconds * 1e9)
        self._open.end("cell", at=min(ended, time.time_ns()))

    def _tool_called(self, call: ToolCall, start: int) -> int:
        """Make the span of a tool's call; returns when it ends, in nanoseconds.

        When a call began is not recorded: they are laid one after another from `start`.
        """
        facts: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.name,
            "gen_ai.tool.type": "function",
        }
        if self._content:
            facts["gen_ai.tool.call.arguments"] = json_text(call.arguments)
            facts["gen_ai.tool.call.result"] = json_text(call.result)
        self._open.start("tool", f"execute_tool {call.name}", facts, at=start)
        if call.error:
            kind, _, message = call.error.partition(": ")
            self._open.fail("tool", kind, message)
        end = start + int(call.seconds * 1e9)
        self._open.end("tool", at=end)
        return end

    def _run_finished(self, event: RunFinished) -> None:
        outcome = event.outcome
        self._open.abandon(outcome.status, outcome.reason, but="run")
        facts = {"kernel_agent.outcome": outcome.status, **usage_facts(self._usage)}
        if outcome.limit:
            facts["kernel_agent.limit"] = outcome.limit
        if self._content:
            message = {"role": "assistant", "parts": [{"type": "text", "content": event.answer}]}
            facts["gen_ai.output.messages"] = json_text([message])
        self._open.set("run", facts)
        if outcome.status == "failed":
            self._open.fail("run", outcome.status, outcome.reason)
        self._open.end("run")
