"""Tests of the model through the real litellm, against a local server."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from kernel_agent.errors import ModelUnavailableError
from kernel_agent.events import Event, Listener, ReplyRetried, ReplyText
from kernel_agent.model import LiteLLM, as_model
from kernel_agent.model.lite_llm import MAX_WAIT, retry_wait
from kernel_agent.steps import Message, Reply, Usage
from kernel_agent.testing import ScriptedModel
from tests.local_model import MESSAGES, complete, ignore, local_model
from tests.openai_server import (
    Answer,
    CutConnection,
    EmptyChoices,
    MalformedChunk,
    OpenAIServer,
    Script,
    Stall,
    Status,
    StreamError,
)

# pydantic's word to litellm, which silences it except where pytest listens.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the")


def run_python(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# What comes back

ANSWERS = [
    Answer("Hello."),
    Answer("Grüße, 世界 🎉", reasoning="Hm, überlegen …"),
    Answer("```python\nx = 6*7\nx\n```\n", cached_tokens=64, reasoning_tokens=7),
    Answer("", reasoning="Only thoughts."),
    Answer("This was too lo", finish_reason="length"),
    Answer("No counts.", reasoning="None at all.", usage=False),
    Answer("| 0 | 0 |\n" * 200, pieces=200),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_streamed_reply_equals_a_whole_one(answer: Answer) -> None:
    whole, streamed = complete(answer), complete(answer, ignore)
    assert whole.usage.model_seconds > 0 < streamed.usage.model_seconds
    timeless = replace(whole, usage=replace(whole.usage, model_seconds=0))
    assert replace(streamed, usage=replace(streamed.usage, model_seconds=0)) == timeless
    assert timeless.text == answer.text
    assert timeless.reasoning == answer.reasoning
    assert timeless.finish_reason == answer.finish_reason


def test_a_draft_before_the_text_is_reasoning_streamed_or_not() -> None:
    answer = Answer("<think>Hm.\n</think>\n\nYes. <think>No.</think>")
    for listener in (None, ignore):
        reply = complete(answer, listener)
        assert (reply.reasoning, reply.text) == ("Hm.\n", "\n\nYes. <think>No.</think>")


def test_usage_is_what_the_provider_tells() -> None:
    usage = complete(Answer("x", cached_tokens=64, reasoning_tokens=7)).usage
    told = Usage(100, 20, cached_tokens=64, reasoning_tokens=7, cost=None)
    assert replace(usage, model_seconds=0) == told


def test_tokens_are_counted_where_the_provider_tells_none() -> None:
    usage = complete(Answer("One two three.", reasoning="Four five.", usage=False)).usage
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > usage.reasoning_tokens > 0


def test_the_cost_is_known_for_a_model_with_a_price_and_less_for_cached_tokens() -> None:
    fresh = complete(Answer("x"), name="openai/gpt-4o").usage.cost
    cached = complete(Answer("x", cached_tokens=90), name="openai/gpt-4o").usage.cost
    assert fresh is not None and cached is not None
    assert 0 < cached < fresh


def test_the_listener_gets_the_reply_in_pieces() -> None:
    events: list[Event] = []
    reply = complete(Answer("Grüße, 世界 🎉", reasoning="Überlegen"), events.append)
    pieces = [event for event in events if isinstance(event, ReplyText)]
    assert pieces == events
    assert len(pieces) > 4
    assert "".join(piece.text for piece in pieces if piece.reasoning) == reply.reasoning
    assert "".join(piece.text for piece in pieces if not piece.reasoning) == reply.text


# What is sent


def test_a_request_holds_the_messages_and_nothing_of_ours() -> None:
    before = json.dumps(MESSAGES)
    with OpenAIServer(["one", "two", "three"]) as server:
        local_model(server).complete(MESSAGES)
        local_model(server).complete(MESSAGES, ignore)
        local_model(server, temperature=0.5).complete(MESSAGES)
    assert json.dumps(MESSAGES) == before
    body = {"model": "local", "messages": MESSAGES}
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    bodies = [request.body for request in server.requests]
    assert bodies == [body, body | streaming, body | {"temperature": 0.5}]


# Trying again

PASSING = [
    Status(408),
    Status(409),
    Status(429),
    Status(500),
    Status(502, "<html><title>502 Bad Gateway</title></html>"),
    Status(503),
    Status(529, "Overloaded"),
    CutConnection(),
    CutConnection(politely=True),
    MalformedChunk(),
    EmptyChoices(),
    StreamError(),
]


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again_and_announced(fault: Script) -> None:
    waits: list[float] = []
    events: list[Event] = []
    with OpenAIServer([fault, "Whole.", fault, "Streamed."]) as server:
        model = local_model(server)
        model._sleep = waits.append
        assert model.complete(MESSAGES).text == "Whole."
        assert model.complete(MESSAGES, events.append).text == "Streamed."
    retried = [event for event in events if isinstance(event, ReplyRetried)]
    assert [(event.wait, event.attempt) for event in retried] == [(waits[1], 1)]
    assert retried[0].reason
    assert "<" not in retried[0].reason
    assert len(waits) == 2


@pytest.mark.parametrize("listener", [None, ignore])
def test_a_provider_that_falls_silent_is_unavailable(listener: Listener | None) -> None:
    with pytest.raises(ModelUnavailableError, match="timed out"):
        complete(Stall(), listener, timeout=0.05)


def test_a_provider_that_stays_away_is_unavailable_in_the_end() -> None:
    waits: list[float] = []
    with OpenAIServer([Status(503, "Come back later.")] * 3) as server:
        model = local_model(server, retries=2)
        model._sleep = waits.append
        with pytest.raises(ModelUnavailableError, match=r"Come back later\. That was try 3 of 3"):
            model.complete(MESSAGES)
    assert len(server.requests) == 3
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("0.05", 0.05, 0.05),
        ("7", 7, 7),
        ("3600", MAX_WAIT, MAX_WAIT),
        ("-1", 0, 0),
        ("in a while", 0.5, 1),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0, 0),
        (formatdate(time.time() + 86400, usegmt=True), MAX_WAIT, MAX_WAIT),
    ],
)
def test_the_wait_is_what_the_provider_asks_for(header: str, least: float, most: float) -> None:
    waits: list[float] = []
    with OpenAIServer([Status(429, retry_after=header), "x"]) as server:
        model = local_model(server)
        model._sleep = waits.append
        model.complete(MESSAGES)
    assert least <= waits[0] <= most


def test_waits_grow_up_to_a_limit_and_differ_by_chance() -> None:
    for attempt, full in enumerate([1, 2, 4, 8, 16, 32, 64, MAX_WAIT, MAX_WAIT], start=1):
        waits = {retry_wait(attempt, None) for _ in range(20)}
        assert full / 2 <= min(waits) < max(waits) <= full


# Who listens may stop it


class StopListeningError(Exception):
    pass


def test_a_listener_that_raises_closes_the_connection_and_is_not_tried_again() -> None:
    def stop(event: Event) -> None:
        raise StopListeningError

    with OpenAIServer([Stall(), "Not asked for."]) as server:
        with pytest.raises(StopListeningError):
            local_model(server).complete(MESSAGES, stop)
        assert server.hung_up.wait(5)
        assert len(server.requests) == 1


def test_a_listener_may_stop_the_tries() -> None:
    def stop(event: Event) -> None:
        raise StopListeningError

    with OpenAIServer([Status(503), "Not asked for."]) as server:
        with pytest.raises(StopListeningError):
            local_model(server).complete(MESSAGES, stop)
        assert len(server.requests) == 1


# Loading litellm


def test_the_modules_do_not_load_litellm() -> None:
    source = (
        "import sys, kernel_agent.model, kernel_agent.testing; assert 'litellm' not in sys.modules"
    )
    assert run_python(source).stderr == ""


def test_litellm_loads_and_replies_without_a_word_and_without_network() -> None:
    source = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo") and "127.0.0.1" not in str(args):
        raise SystemExit(f"network: {event} {args}")
sys.addaudithook(watch)
from kernel_agent.model import LiteLLM
from tests.openai_server import OpenAIServer, Answer, Status
model = LiteLLM("ollama/llama3")
model.prepare()
model.prepare()
assert not model.takes_images
with OpenAIServer([Status(500), Answer("x", usage=False), Answer("x", usage=False)]) as server:
    model = LiteLLM("openai/llama-3-local", api_base=server.url, api_key="sk-test")
    model._sleep = lambda seconds: None
    model.complete([{"role": "user", "content": "x"}])
    model.complete([{"role": "user", "content": "x"}], lambda event: None)
"""
    done = run_python(source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_program_may_end_while_litellm_loads() -> None:
    source = "from kernel_agent.model import LiteLLM; LiteLLM('openai/x').prepare()"
    done = run_python(source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Models of other kinds


def test_images_are_taken_by_models_that_are_known_to() -> None:
    assert LiteLLM("openai/gpt-4o").takes_images
    assert not LiteLLM("openai/unknown").takes_images
    assert not LiteLLM("nosuch").takes_images


def test_a_model_can_be_sent_to_another_process() -> None:
    model = LiteLLM("openai/x", api_base="http://127.0.0.1:9/v1", temperature=0.5)
    assert pickle.loads(pickle.dumps(model)).about() == model.about()


def test_a_name_becomes_a_litellm_and_a_model_stays_what_it_is() -> None:
    named = as_model("openai/gpt-4o")
    assert isinstance(named, LiteLLM)
    assert named.name == "openai/gpt-4o"
    scripted = ScriptedModel([])
    assert as_model(scripted) is scripted


def test_a_function_becomes_a_model() -> None:
    def echo(messages: list[Message]) -> str:
        return str(messages[-1]["content"])

    events: list[Event] = []
    model = as_model(echo)
    reply = model.complete([{"role": "user", "content": "Hello"}], events.append)
    assert replace(reply, usage=Usage()) == Reply("Hello")
    assert reply.usage.cost is None
    assert reply.usage.model_seconds > 0
    assert events == [ReplyText("Hello")]
    assert model.about() == {"name": "echo", "parameters": {}}
    assert not model.takes_images


def test_a_function_may_give_a_whole_reply() -> None:
    reply = Reply("x", reasoning="y", usage=Usage(prompt_tokens=3, cost=0.5))
    assert as_model(lambda messages: reply).complete([]) is reply


def test_anything_else_is_no_model() -> None:
    with pytest.raises(TypeError, match="42 is no model"):
        as_model(42)  # type: ignore[arg-type]
