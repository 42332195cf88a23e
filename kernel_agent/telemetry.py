"""A run as OpenTelemetry spans, by the semantic conventions for generative AI."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from kernel_agent import __version__
from kernel_agent.errors import SettingsError
from kernel_agent.events import (
    CellStarted,
    Event,
    ReplyReceived,
    ReplyRetried,
    ReplyStarted,
    ReplyText,
    RunFinished,
    RunStarted,
    StepFinished,
)
from kernel_agent.steps import CellResult, Reply, ToolCall, Usage

AGENT = "kernel-agent"

PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""The conventions' names of providers where litellm has others."""


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
    `execute_tool` (the cell), below that an `execute_tool` for each call of a tool. Names and
    attributes are those of the conventions (`gen_ai.*`, `error.type`), or begin with
    `kernel_agent.`. A run is a child of the span that is current when it starts.

    It is used by one thread. `close`, or leaving it as a context manager, ends what is open.
    """

    def __init__(self, trace: Any, tracer: Any, *, content: bool) -> None:
        self._trace = trace
        self._tracer = tracer
        self._content = content
        self._model = self._kernel = "unknown"
        self._usage = Usage()
        self._open: dict[str, Any] = {}  # the outermost first: run, step, chat or cell
        self._asked = self._cell_started = 0
        self._is_streamed = False

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._run_started(event)
            case ReplyStarted(number):
                self._start("step", "step", {"kernel_agent.step": number})
                self._chat_started()
            case ReplyText() if not self._is_streamed:
                self._first_text()
            case ReplyRetried(_, wait, attempt):
                self._is_streamed = False
                facts = {"kernel_agent.attempt": attempt, "kernel_agent.wait_seconds": wait}
                self._add_event("chat", "retry", facts)
            case ReplyReceived(reply):
                self._chat_finished(reply)
            case CellStarted():
                self._cell_begun(event)
            case StepFinished(_, step):
                self._usage += step.usage
                if step.result:
                    said = step.observation.text if step.observation else ""
                    self._cell_finished(step.result, said)
                self._end("step")
            case RunFinished():
                self._run_finished(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._abandon(type(error).__qualname__)
        self.close()

    def close(self) -> None:
        """End the spans that are open, of a run whose end was never told, as errors."""
        self._abandon("unfinished")

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
        self._start("run", f"invoke_agent {AGENT}", facts)
        if self._content:
            # A notebook's name is made of the task's words.
            self._set("run", {"kernel_agent.notebook": str(event.path or "")})
            message = {"role": "user", "parts": [{"type": "text", "content": event.task.prompt}]}
            self._set("run", {"gen_ai.input.messages": _json([message])})

    def _chat_started(self) -> None:
        facts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider(self._model),
            "gen_ai.request.model": self._model,
        }
        self._start("chat", f"chat {self._model}", facts, kind="CLIENT")
        self._asked = time.monotonic_ns()
        self._is_streamed = False

    def _first_text(self) -> None:
        self._is_streamed = True
        seconds = (time.monotonic_ns() - self._asked) / 1e9
        name = "gen_ai.response.time_to_first_chunk"
        self._set("chat", {"gen_ai.request.stream": True, name: seconds})

    def _chat_finished(self, reply: Reply) -> None:
        self._set("chat", usage_facts(reply.usage))
        if reply.finish_reason:
            self._set("chat", {"gen_ai.response.finish_reasons": [reply.finish_reason]})
        if self._content:
            self._set("chat", {"gen_ai.output.messages": _json([_message(reply)])})
        self._end("chat")

    def _cell_begun(self, event: CellStarted) -> None:
        self._cell_started = time.time_ns()
        tool = "python" if self._kernel.startswith("python") else self._kernel
        facts = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.type": "extension",
            "kernel_agent.step": event.number,
        }
        self._start("cell", f"execute_tool {tool}", facts, at=self._cell_started)
        if self._content:
            self._set("cell", {"gen_ai.tool.call.arguments": _json({"source": event.source})})

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
        self._set("cell", facts)
        if result.status == "error":
            name, value = _raised(result)
            exception = {"exception.type": name}
            if self._content:
                exception["exception.message"] = value
            self._add_event("cell", "exception", exception)
            self._fail("cell", name, value)
        elif result.status != "ok":
            self._fail("cell", result.status, result.reason)
        # It was told late, after the notebook was saved: the cell itself had ended before.
        ended = self._cell_started + int(result.seconds * 1e9)
        self._end("cell", at=min(ended, time.time_ns()))

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
            facts["gen_ai.tool.call.arguments"] = _json(call.arguments)
            facts["gen_ai.tool.call.result"] = _json(call.result)
        self._start("tool", f"execute_tool {call.name}", facts, at=start)
        if call.error:
            kind, _, message = call.error.partition(": ")
            self._fail("tool", kind, message)
        end = start + int(call.seconds * 1e9)
        self._end("tool", at=end)
        return end

    def _run_finished(self, event: RunFinished) -> None:
        outcome = event.outcome
        for name in [name for name in reversed(self._open) if name != "run"]:
            self._fail(name, outcome.status, outcome.reason)
            self._end(name)
        facts = {"kernel_agent.outcome": outcome.status, **usage_facts(self._usage)}
        if outcome.limit:
            facts["kernel_agent.limit"] = outcome.limit
        if self._content:
            message = {"role": "assistant", "parts": [{"type": "text", "content": event.answer}]}
            facts["gen_ai.output.messages"] = _json([message])
        self._set("run", facts)
        if outcome.status == "failed":
            self._fail("run", outcome.status, outcome.reason)
        self._end("run")

    def _abandon(self, kind: str) -> None:
        for name in list(reversed(self._open)):
            self._fail(name, kind, "")
            self._end(name)

    def _start(
        self,
        name: str,
        title: str,
        facts: Mapping[str, Any],
        *,
        kind: str = "INTERNAL",
        at: int | None = None,
    ) -> None:
        """Start the span that is called `name` here, below the innermost that is open."""
        parent = next(reversed(self._open.values()), None)
        self._open[name] = self._tracer.start_span(
            title,
            context=None if parent is None else self._trace.set_span_in_context(parent),
            kind=getattr(self._trace.SpanKind, kind),
            attributes=facts,
            start_time=at,
        )

    def _set(self, name: str, facts: Mapping[str, Any]) -> None:
        if name in self._open:
            self._open[name].set_attributes(facts)

    def _add_event(self, name: str, title: str, facts: Mapping[str, Any]) -> None:
        if name in self._open:
            self._open[name].add_event(title, facts)

    def _fail(self, name: str, kind: str, message: str) -> None:
        if name in self._open:
            self._set(name, {"error.type": kind})
            description = message if self._content else None
            status = self._trace.Status(self._trace.StatusCode.ERROR, description)
            self._open[name].set_status(status)

    def _end(self, name: str, *, at: int | None = None) -> None:
        if name in self._open:
            self._open.pop(name).end(end_time=at)


def provider(model: str) -> str:
    """The conventions' name of the provider of a model that is called `provider/model`."""
    prefix, slash, _ = model.partition("/")
    return PROVIDERS.get(prefix, prefix) if slash else "_OTHER"


def usage_facts(usage: Usage) -> dict[str, Any]:
    """The conventions' attributes for `usage`, and the cost in USD where it is known."""
    facts: dict[str, Any] = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    if usage.cached_tokens:
        facts["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens:
        facts["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    if usage.cost is not None:
        facts["kernel_agent.cost_usd"] = usage.cost
    return facts


def _message(reply: Reply) -> dict[str, Any]:
    texts = {"reasoning": reply.reasoning, "text": reply.text}
    parts = [{"type": kind, "content": text} for kind, text in texts.items() if text]
    return {"role": "assistant", "parts": parts, "finish_reason": reply.finish_reason}


def _raised(result: CellResult) -> tuple[str, str]:
    """The type and the message of what the cell raised."""
    for output in reversed(result.outputs):
        if output["output_type"] == "error":
            return output["ename"] or "_OTHER", output["evalue"]
    return "_OTHER", ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
