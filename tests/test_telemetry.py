"""A run as OpenTelemetry spans, seen through the SDK's exporter in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sdk = pytest.importorskip("opentelemetry.sdk.trace")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from kernel_agent.agent import Agent  # noqa: E402
from kernel_agent.errors import ModelError  # noqa: E402
from kernel_agent.events import (  # noqa: E402
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
from kernel_agent.model import LiteLLM  # noqa: E402
from kernel_agent.steps import (  # noqa: E402
    CellResult,
    Cut,
    Message,
    Observation,
    Outcome,
    Plan,
    Reply,
    RequestedCall,
    Step,
    Task,
    ToolCall,
    Usage,
)
from kernel_agent.telemetry import telemetry_listener  # noqa: E402
from kernel_agent.telemetry.conventions import provider  # noqa: E402
from kernel_agent.testing import ScriptedModel  # noqa: E402
from tests.openai_server import Answer, OpenAIServer, Status  # noqa: E402

SECRET = "mother's maiden name"
STARTED = RunStarted(Task(SECRET, SECRET), "openai/gpt-5", "python3", Path(f"{SECRET}.ipynb"))
FINISHED = RunFinished(Outcome("answered"), SECRET, Usage(), None)
USAGE = Usage(100, 20, cached_tokens=60, reasoning_tokens=5, cost=0.25)


class Recorder:
    """A listener under test and the spans that it has made."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        tracers = sdk.TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = tracers.get_tracer("test")
        self.listener = telemetry_listener(self.tracer, **options)

    def hear(self, *events: Event) -> Recorder:
        for event in events:
            self.listener(event)
        return self

    @property
    def spans(self) -> list[Any]:
        """The spans that have ended, by their start."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def one(self, name: str) -> Any:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def tree(self) -> list[str]:
        """The names, each with those that it lies in."""
        by_id = {span.context.span_id: span for span in self.spans}

        def path(span: Any) -> str:
            above = by_id[span.parent.span_id] if span.parent else None
            return f"{path(above)} > {span.name}" if above else str(span.name)

        return [path(span) for span in self.spans]


def cell_step(result: CellResult, reply: Reply | None = None) -> Sequence[Event]:
    """The events of a step whose code did this."""
    reply = reply or Reply(SECRET, usage=USAGE)
    step = Step(reply, SECRET, SECRET, result, Observation(SECRET))
    return (
        ReplyStarted(1, 20, Usage()),
        ReplyReceived(reply),
        CellStarted(1, SECRET, SECRET),
        StepFinished(1, step, step.usage),
    )


def ran(**facts: Any) -> CellResult:
    return CellResult(SECRET, **facts)


def error(ename: str = "ValueError") -> dict[str, Any]:
    return {"output_type": "error", "ename": ename, "evalue": SECRET, "traceback": [SECRET]}


def seconds(span: Any) -> float:
    return float(span.end_time - span.start_time) / 1e9


# What there is


def test_a_run_holds_steps_and_a_step_its_reply_its_cell_and_the_cell_its_tool_calls() -> None:
    result = ran(tool_calls=(ToolCall("search", {}), ToolCall("search", {})))
    recorder = Recorder().hear(STARTED, *cell_step(result), FINISHED)
    run, step = "invoke_agent kernel-agent", "invoke_agent kernel-agent > step"
    cell = f"{step} > execute_tool python"
    tool = f"{cell} > execute_tool search"
    assert sorted(recorder.tree()) == sorted(
        [run, step, f"{step} > chat openai/gpt-5", cell, tool, tool]
    )


def test_a_reply_tells_its_model_usage_and_finish_reason() -> None:
    recorder = Recorder().hear(STARTED, *cell_step(ran()), FINISHED)
    chat = recorder.one("chat openai/gpt-5")
    assert chat.kind is SpanKind.CLIENT
    assert dict(chat.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "openai/gpt-5",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "kernel_agent.cost_usd": 0.25,
    }


def test_a_run_tells_its_agent_its_outcome_and_what_it_used_itself() -> None:
    recorder = Recorder()
    for _ in range(2):  # the second task of an agent: events tell the usage of both
        recorder.hear(STARTED, *cell_step(ran()), *cell_step(ran()), FINISHED)
    for run in [span for span in recorder.spans if span.name.startswith("invoke_agent")]:
        assert run.attributes["gen_ai.operation.name"] == "invoke_agent"
        assert run.attributes["gen_ai.agent.name"] == "kernel-agent"
        assert run.attributes["kernel_agent.kernel"] == "python3"
        assert run.attributes["kernel_agent.outcome"] == "answered"
        assert run.attributes["gen_ai.usage.input_tokens"] == 200
        assert run.attributes["kernel_agent.cost_usd"] == 0.5
        assert run.status.status_code is StatusCode.UNSET


def test_a_streamed_reply_tells_when_its_first_piece_came() -> None:
    recorder = Recorder()
    started, received, *rest = cell_step(ran())
    recorder.hear(STARTED, started, ReplyText("a"), ReplyText("b"), received, *rest, FINISHED)
    chat = recorder.one("chat openai/gpt-5")
    assert chat.attributes["gen_ai.request.stream"] is True
    first = chat.attributes["gen_ai.response.time_to_first_chunk"]
    assert 0 < first < seconds(chat) + 1e-3  # by another clock


def test_a_failed_try_is_an_event_of_the_one_span_of_the_reply() -> None:
    recorder = Recorder()
    started, *rest = cell_step(ran())
    recorder.hear(STARTED, started, ReplyRetried(SECRET, 1.5, 1), *rest, FINISHED)
    (event,) = recorder.one("chat openai/gpt-5").events
    assert event.name == "retry"
    assert dict(event.attributes) == {"kernel_agent.attempt": 1, "kernel_agent.wait_seconds": 1.5}


def test_a_plan_is_a_span_with_the_reply_that_it_came_in() -> None:
    plan = Plan(Reply(SECRET, usage=USAGE), SECRET, SECRET, SECRET)
    planned = (PlanStarted(1, 20, Usage()), ReplyText(SECRET), PlanFinished(plan, USAGE))
    recorder = Recorder().hear(STARTED, *planned, *cell_step(ran()), FINISHED)
    top = "invoke_agent kernel-agent"
    assert recorder.tree()[:4] == [
        *[top, f"{top} > plan kernel-agent", f"{top} > plan kernel-agent > chat openai/gpt-5"],
        f"{top} > step",
    ]
    assert recorder.one("plan kernel-agent").attributes["gen_ai.operation.name"] == "plan"
    assert recorder.spans[2].attributes["gen_ai.usage.input_tokens"] == 100
    assert recorder.spans[0].attributes["gen_ai.usage.input_tokens"] == 200


def test_a_request_that_was_held_is_an_event() -> None:
    started, *rest = cell_step(ran())
    recorder = Recorder().hear(STARTED, started, RequestHeld(SECRET, 2.5), *rest, FINISHED)
    (event,) = recorder.one("chat openai/gpt-5").events
    assert event.name == "hold"
    assert dict(event.attributes) == {"kernel_agent.wait_seconds": 2.5}


def test_a_fallback_is_named_by_the_reply_that_it_gave_and_by_those_that_follow() -> None:
    reply = Reply(SECRET, usage=USAGE, model="ollama/qwen3")
    started, *rest = cell_step(ran(), reply)
    changed = ModelChanged("ollama/qwen3", SECRET)
    recorder = Recorder().hear(STARTED, started, changed, *rest, *cell_step(ran(), reply), FINISHED)
    chat = recorder.one("chat openai/gpt-5")
    (event,) = chat.events
    assert event.name == "model_change"
    assert dict(event.attributes) == {"gen_ai.request.model": "ollama/qwen3"}
    assert chat.attributes["gen_ai.response.model"] == "ollama/qwen3"
    assert chat.attributes["gen_ai.provider.name"] == "ollama"
    assert recorder.one("chat ollama/qwen3").attributes["gen_ai.provider.name"] == "ollama"


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_summary_is_a_reply_beside_the_one_that_there_was_no_room_for(is_refused: bool) -> None:
    summary = Reply(SECRET, usage=Usage(5000, 300, model_seconds=2.0))
    made = RoomMade(Cut(4, 2, SECRET, SECRET, summary), Usage())
    started, *rest = cell_step(ran())
    begin = (started, made) if is_refused else (made, started)
    recorder = Recorder().hear(STARTED, *begin, *rest, FINISHED)
    run = recorder.one("invoke_agent kernel-agent")
    paths = [path for path in recorder.tree() if path.endswith("chat openai/gpt-5")]
    assert sorted(path.count(" > ") for path in paths) == ([2, 2] if is_refused else [1, 2])
    (told,) = [span for span in recorder.spans if seconds(span) > 1]
    assert told.attributes["gen_ai.usage.input_tokens"] == 5000
    assert run.attributes["gen_ai.usage.input_tokens"] == 5100
    (event,) = [event for span in recorder.spans for event in span.events]
    assert event.name == "room_made"
    assert dict(event.attributes) == {"kernel_agent.shortened": 4, "kernel_agent.summarised": 2}


def test_a_native_call_is_the_one_whose_cell_is_executed() -> None:
    call = RequestedCall("call_1", "python", json.dumps({"code": SECRET}))
    reply = Reply("", usage=USAGE, calls=(call,))
    recorder = Recorder(content=True).hear(STARTED, *cell_step(ran(), reply), FINISHED)
    assert recorder.one("execute_tool python").attributes["gen_ai.tool.call.id"] == "call_1"
    (said,) = json.loads(recorder.one("chat openai/gpt-5").attributes["gen_ai.output.messages"])
    arguments = {"code": SECRET}
    expected = {"type": "tool_call", "id": "call_1", "name": "python", "arguments": arguments}
    assert said["parts"] == [expected]


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (ran(status="error", outputs=(error(),)), "ValueError"),
        (ran(status="error", outputs=(error(""),)), "_OTHER"),
        (ran(status="error"), "_OTHER"),
        (ran(status="interrupted", reason=SECRET), "interrupted"),
        (ran(status="died", reason=SECRET), "died"),
    ],
)
def test_a_cell_that_did_not_end_well_is_an_error_with_its_type(
    result: CellResult, kind: str
) -> None:
    recorder = Recorder().hear(STARTED, *cell_step(result), FINISHED)
    cell = recorder.one("execute_tool python")
    assert cell.status.status_code is StatusCode.ERROR
    assert cell.attributes["error.type"] == kind
    assert cell.attributes["kernel_agent.cell.status"] == result.status
    assert recorder.one("step").status.status_code is StatusCode.UNSET


def test_a_cell_that_ended_well_is_no_error() -> None:
    recorder = Recorder().hear(STARTED, *cell_step(ran(execution_count=3)), FINISHED)
    cell = recorder.one("execute_tool python")
    assert cell.status.status_code is StatusCode.UNSET
    assert cell.attributes["kernel_agent.cell.execution_count"] == 3


def test_a_cell_ends_when_its_code_did_and_not_when_it_was_saved() -> None:
    short = Recorder().hear(STARTED, *cell_step(ran(seconds=1e-9)), FINISHED)
    assert seconds(short.one("execute_tool python")) == pytest.approx(1e-9)
    long = Recorder().hear(STARTED, *cell_step(ran(seconds=60)), FINISHED)
    assert seconds(long.one("execute_tool python")) < 60  # not in the future


def test_tool_calls_last_as_long_as_they_did_one_after_another() -> None:
    calls = (ToolCall("a", {}, seconds=0.25), ToolCall("b", {}, error="KeyError: 'x'", seconds=0.5))
    recorder = Recorder().hear(STARTED, *cell_step(ran(tool_calls=calls)), FINISHED)
    first, second = recorder.one("execute_tool a"), recorder.one("execute_tool b")
    assert (seconds(first), seconds(second)) == (0.25, 0.5)
    assert second.start_time == first.end_time
    assert first.status.status_code is StatusCode.UNSET
    assert second.attributes["error.type"] == "KeyError"
    assert second.attributes["gen_ai.tool.type"] == "function"


def test_a_run_lies_in_the_span_that_is_current_when_it_starts() -> None:
    recorder = Recorder()
    with recorder.tracer.start_as_current_span("request"):
        recorder.hear(STARTED, FINISHED)
    assert recorder.tree() == ["request", "request > invoke_agent kernel-agent"]


# What was said


ALL_KINDS: Sequence[Event] = (
    STARTED,
    *cell_step(
        ran(
            status="error",
            outputs=(error(),),
            tool_calls=(ToolCall("t", {"args": [SECRET]}, SECRET, f"KeyError: {SECRET}"),),
        )
    ),
    ReplyStarted(2, 20, Usage()),
    ReplyText(SECRET),
    ReplyRetried(SECRET, 1.0, 1),
    RequestHeld(SECRET, 1.0),
    ModelChanged("x/y", SECRET),
    RoomMade(Cut(1, 1, SECRET, SECRET), Usage()),
    RunFinished(Outcome("failed", reason=SECRET), SECRET, Usage(), Path(f"{SECRET}.ipynb")),
)


def test_nothing_that_was_said_executed_or_put_out_is_in_the_spans() -> None:
    recorder = Recorder().hear(*ALL_KINDS)
    assert len(recorder.spans) == 7
    for span in recorder.spans:
        assert "maiden" not in span.to_json()


def test_with_content_it_is() -> None:
    recorder = Recorder(content=True).hear(*ALL_KINDS)
    run, cell = recorder.one("invoke_agent kernel-agent"), recorder.one("execute_tool python")
    (asked,) = json.loads(run.attributes["gen_ai.input.messages"])
    assert asked == {"role": "user", "parts": [{"type": "text", "content": SECRET}]}
    assert json.loads(run.attributes["gen_ai.output.messages"])[0]["parts"][0]["content"] == SECRET
    assert run.status.description == SECRET
    assert json.loads(cell.attributes["gen_ai.tool.call.arguments"]) == {"source": SECRET}
    assert cell.attributes["gen_ai.tool.call.result"] == SECRET
    (event,) = cell.events
    assert dict(event.attributes) == {
        "exception.type": "ValueError",
        "exception.message": SECRET,
    }
    tool = recorder.one("execute_tool t")
    assert json.loads(tool.attributes["gen_ai.tool.call.arguments"]) == {"args": [SECRET]}
    chat = recorder.spans[2]
    (said,) = json.loads(chat.attributes["gen_ai.output.messages"])
    assert said["parts"] == [{"type": "text", "content": SECRET}]


# How it ends


def names_and_errors(recorder: Recorder) -> dict[str, str | None]:
    return {span.name: span.attributes.get("error.type") for span in recorder.spans}


def test_a_run_that_ends_early_ends_its_open_spans() -> None:
    recorder = Recorder().hear(
        STARTED,
        *cell_step(ran())[:3],
        RunFinished(Outcome("interrupted"), None, Usage(), None),
    )
    assert names_and_errors(recorder) == {
        "invoke_agent kernel-agent": None,
        "step": "interrupted",
        "chat openai/gpt-5": None,
        "execute_tool python": "interrupted",
    }


def test_a_run_whose_end_is_never_told_is_closed() -> None:
    recorder = Recorder().hear(STARTED, ReplyStarted(1, 20, Usage()))
    assert recorder.spans == []
    recorder.listener.close()
    recorder.listener.close()
    assert set(names_and_errors(recorder).values()) == {"unfinished"}
    assert len(recorder.spans) == 3


def test_an_exception_that_leaves_it_names_the_type_on_what_is_open() -> None:
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError), recorder.listener:
        recorder.hear(STARTED)
        raise ZeroDivisionError
    assert names_and_errors(recorder) == {"invoke_agent kernel-agent": "ZeroDivisionError"}


def test_steps_without_a_run_are_spans_too() -> None:
    recorder = Recorder().hear(*cell_step(ran()))
    assert recorder.tree()[0] == "step"
    recorder.listener.close()
    assert len(recorder.spans) == 3


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("anthropic/claude-sonnet-4-5", "anthropic"),
        ("gemini/gemini-3", "gcp.gemini"),
        ("bedrock/converse/x", "aws.bedrock"),
        ("transformers/Qwen/Qwen3-0.6B", "transformers"),
        ("scripted", "_OTHER"),
    ],
)
def test_a_provider_has_the_conventions_name(model: str, name: str) -> None:
    assert provider(model) == name


# A real run


def test_a_real_run_ends_every_span_that_it_starts(tmp_path: Path) -> None:
    class Failing(ScriptedModel):
        def complete(self, messages: Sequence[Message], listener: Any = None) -> Reply:
            if len(self.requests) == 2:
                raise ModelError(self.name, "it is out of words.")
            return super().complete(messages, listener)

    recorder = Recorder()
    replies = ["```python\n1/0\n```", "```python\nprint(1)\n```"]
    model = Failing(replies, "test/scripted")
    options: dict[str, Any] = {"folder": tmp_path, "cwd": tmp_path}
    with (
        Agent(model, listener=recorder.listener, **options) as agent,
        pytest.raises(ModelError),
    ):
        agent.run("Divide.")
    run = recorder.spans[0]
    assert run.attributes["kernel_agent.outcome"] == "failed"
    assert [span.name for span in recorder.spans] == [
        "invoke_agent kernel-agent",
        *["step", "chat test/scripted", "execute_tool python"] * 2,
        "step",
        "chat test/scripted",
    ]
    cells = [span for span in recorder.spans if span.name == "execute_tool python"]
    assert [cell.attributes.get("error.type") for cell in cells] == ["ZeroDivisionError", None]
    assert recorder.spans[-1].attributes["error.type"] == "failed"
    for span in recorder.spans[1:]:
        assert run.start_time <= span.start_time <= span.end_time <= run.end_time


@pytest.mark.usefixtures("no_waits")
def test_a_run_over_http_tells_what_the_provider_told(tmp_path: Path) -> None:
    look = Answer("```python\n6 * 7\n```", prompt_tokens=900, cached_tokens=800)
    answer = Answer("```python\nfinal_answer(42)\n```", prompt_tokens=1000, reasoning_tokens=7)
    busy = Status(503, SECRET, retry_after=0)
    recorder = Recorder()
    with OpenAIServer([busy, look, answer]) as server:
        model = LiteLLM("openai/gpt-4o", api_base=server.url, api_key="sk-test")
        options: dict[str, Any] = {"folder": tmp_path, "cwd": tmp_path}
        with Agent(model, listener=recorder.listener, **options) as agent:
            cost = agent.run("What is six times seven?").usage.cost
    first, second = [span for span in recorder.spans if span.name == "chat openai/gpt-4o"]
    assert [event.name for event in first.events] == ["retry"]
    assert first.attributes["gen_ai.request.stream"] is True
    assert first.attributes["gen_ai.usage.cache_read.input_tokens"] == 800
    assert second.attributes["gen_ai.usage.reasoning.output_tokens"] == 7
    run = recorder.one("invoke_agent kernel-agent")
    assert run.attributes["gen_ai.usage.input_tokens"] == 1900
    assert run.attributes["kernel_agent.cost_usd"] == pytest.approx(cost)
    assert cost
    assert all("maiden" not in span.to_json() for span in recorder.spans)


def test_without_the_package_the_lack_is_explained() -> None:
    source = """
import sys
from kernel_agent.errors import SettingsError
from kernel_agent.telemetry import telemetry_listener

assert "opentelemetry" not in sys.modules
sys.modules["opentelemetry"] = None
try:
    telemetry_listener()
except SettingsError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=60
    )
    assert "pip install 'kernel-agent[otel]'" in run.stdout, run.stderr


def test_without_an_sdk_nothing_is_sent_and_nothing_fails() -> None:
    source = """
from kernel_agent.events import RunFinished, RunStarted
from kernel_agent.steps import Outcome, Task, Usage
from kernel_agent.telemetry import telemetry_listener

listener = telemetry_listener()
listener(RunStarted(Task("a", "a"), "x/y", "python3", None))
listener(RunFinished(Outcome("answered"), 1, Usage(), None))
"""
    run = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
