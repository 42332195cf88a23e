"""Tests of the model through the real litellm, against a local server."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel_agent.errors import ModelError, SettingsError
from kernel_agent.events import Event, ReplyText
from kernel_agent.model import LiteLLM, as_model, price, reply_format, window
from kernel_agent.steps import Message, Reply, Usage
from kernel_agent.testing import ScriptedModel
from tests.local_model import MESSAGES, complete, ignore, local_model
from tests.openai_server import Answer, OpenAIServer, Stall

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
    Answer("", reasoning="Cut thoughts.", finish_reason="length"),
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


# Where a reply ends

CODE = "I look.\n\n```python\nx = 1\nx\n```\n"
MADE_UP = f"{CODE}\nObservation:\n1\n"


def test_a_stream_is_closed_where_the_model_makes_up_an_output() -> None:
    with OpenAIServer(["Hello.", Stall(MADE_UP)]) as server:
        model = local_model(server)
        model.complete(MESSAGES, ignore)
        reply = model.complete(MESSAGES, ignore)
        assert server.hung_up.wait(5)
    assert reply.text.startswith(CODE)
    assert MADE_UP.startswith(reply.text)
    assert reply.finish_reason == "stop"
    assert reply.usage.prompt_tokens > 0 < reply.usage.completion_tokens


@pytest.mark.parametrize("options", [{"exact_usage": True}, {"reply_format": "json"}])
def test_a_stream_comes_whole_where_it_has_to(options: dict[str, Any]) -> None:
    with OpenAIServer(["Hello.", Answer(MADE_UP)]) as server:
        model = local_model(server, **options)
        model.complete(MESSAGES, ignore)
        reply = model.complete(MESSAGES, ignore)
    assert reply.text == MADE_UP
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (100, 20)


def test_a_model_that_may_think_aloud_is_read_to_the_end_until_it_is_known_not_to() -> None:
    aloud = f"Maybe:\n{MADE_UP}\nNo.</think>\n{CODE}"
    with OpenAIServer([aloud, aloud, CODE, Stall(MADE_UP)]) as server:
        model = local_model(server)
        replies = [model.complete(MESSAGES, ignore) for _ in range(4)]
    assert [reply.text for reply in replies[:3]] == [aloud, aloud, CODE]
    assert replies[3].text.startswith(CODE)


# What is known of a model and what it may be told


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/gpt-5", "tools"),
        ("anthropic/claude-sonnet-4-5", "tools"),
        ("openai/gpt-4o", "fence"),
        ("deepseek/deepseek-reasoner", "json"),
        ("ollama_chat/qwen3", "fence"),
        ("openai/unknown", "fence"),
    ],
)
def test_the_reply_format_is_chosen_by_what_is_known_of_the_model(name: str, expected: str) -> None:
    assert reply_format(LiteLLM(name)) == expected
    assert reply_format(LiteLLM(name, reply_format="json")) == "json"


def test_the_window_is_the_option_or_what_litellm_knows() -> None:
    assert window(LiteLLM("openai/gpt-4o")) == 128_000
    assert window(LiteLLM("openai/gpt-4o", window=9000)) == 9000
    assert window(LiteLLM("openai/unknown")) is None


@pytest.mark.parametrize("name", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5"])
def test_the_price_of_tokens_is_known_beforehand_and_less_for_cached_ones(name: str) -> None:
    fresh = price(LiteLLM(name), Usage(1000, 100))
    cached = price(LiteLLM(name), Usage(1000, 100, cached_tokens=900))
    assert fresh is not None and cached is not None
    assert 0 < cached < fresh
    assert price(LiteLLM("openai/unknown"), Usage(1000, 100)) is None


def test_the_price_beforehand_is_the_cost_afterwards() -> None:
    with OpenAIServer([Answer("x", cached_tokens=90)]) as server:
        model = local_model(server, "openai/gpt-4o")
        usage = model.complete(MESSAGES).usage
    assert usage.cost == price(model, usage)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": 1.5},
        {"timeout": 0},
        {"deadline": -1.0},
        {"stall": "long"},
        {"stall": float("inf")},
        {"requests_per_minute": 0},
        {"requests_per_minute": 0.5},
        {"window": 0},
        {"window": True},
        {"reply_format": "xml"},
    ],
)
def test_an_option_with_a_bad_value_is_told_at_once(
    options: dict[str, Any],
) -> None:
    [(option, value)] = options.items()
    with pytest.raises(SettingsError, match=f"`{option}` is {value!r}"):
        LiteLLM("openai/x", api_key="sk-x", **options)


@pytest.mark.parametrize("name", ["openai/gpt-4o", "mistral/mistral-large-latest"])
def test_an_effort_is_refused_for_a_model_that_is_known_not_to_take_it(name: str) -> None:
    with pytest.raises(ModelError, match="takes no `reasoning_effort`, but 'high' was given"):
        LiteLLM(name, api_key="sk-x", reasoning_effort="high").check()


@pytest.mark.parametrize("name", ["openai/gpt-5", "openai/unknown", "azure/us/o1"])
def test_an_effort_is_taken_for_a_model_that_may_take_it(name: str) -> None:
    LiteLLM(name, api_key="sk-x", reasoning_effort="high").check()


def test_what_a_model_tells_about_itself_makes_it_again() -> None:
    options = {
        "requests_per_minute": 30,
        "window": 9000,
        "exact_usage": True,
        "timeout": 5.0,
        "deadline": 9.0,
        "stall": 4.0,
        "reply_format": "json",
    }
    model = LiteLLM("openai/x", temperature=0.5, retries=6, client=object(), **options)
    about = model.about()
    assert about["parameters"] == {"temperature": 0.5, **options}
    again = LiteLLM(about["name"], **about["parameters"])
    assert (again.about(), again.window) == (about, 9000)


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
answers = [Status(500, retry_after=0), Answer("x", usage=False), Answer("x", usage=False)]
with OpenAIServer(answers) as server:
    model = LiteLLM("openai/llama-3-local", api_base=server.url, api_key="sk-test")
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
