"""Tests of replies with parts that nobody documents, and of what else is read of a reply."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from kernel_agent.errors import ModelAuthenticationError, ModelUnavailableError
from kernel_agent.events import Event, Listener, ReplyText
from kernel_agent.model.counting import paid_until
from kernel_agent.model.refusals import tell_refusals
from kernel_agent.model.replies import ReplyReader
from kernel_agent.model.waiting import GivenUpError, Waiting
from kernel_agent.model_loading import litellm_module
from tests.local_model import KEY, MESSAGES, complete, ignore, local_model
from tests.openai_server import CutConnection, OpenAIServer, Raw, Stall, Status
from tests.test_model_hostile import USAGE, call, stream, whole

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    # pydantic's word to litellm about what does not fit.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]

ONE = {"name": "python", "arguments": '{"code": "1"}'}
TWO = {"name": "python", "arguments": '{"code": "2"}'}
OTHER = {"name": "search", "arguments": '{"code": "1"}'}
CUSTOM = {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]}
WRONG = {"tool_calls": {"index": 0, "id": "a", "function": ONE}}
SERVERS = pytest.mark.parametrize("name", ["openai/local", "hosted_vllm/local"])


# Odd parts

ODD: list[Mapping[str, Any]] = [
    WRONG,
    CUSTOM,
    {"tool_calls": "abc"},
    {"reasoning_content": {"a": 1}},
    {"reasoning_content": ["a"]},
    {"reasoning_details": ["x"]},
    {"reasoning_details": {"a": 1}},
    {"reasoning_details": 7},
    {"thinking_blocks": ["x", {"type": "thinking", "thinking": 7, "signature": "s"}]},
    {"refusal": {"a": 1}},
    call(id="a", function=ONE, provider_specific_fields="x"),
]


@pytest.mark.parametrize("name", ["hosted_vllm/local", "openrouter/anthropic/claude-sonnet-4.5"])
@pytest.mark.parametrize("odd", ODD)
def test_of_a_reply_with_an_odd_part_the_text_is_kept(odd: Mapping[str, Any], name: str) -> None:
    with OpenAIServer([stream({"content": "So "}, odd, {"content": "far."})]) as server:
        assert local_model(server, name, retries=0).complete(MESSAGES, ignore).text == "So far."


@pytest.mark.parametrize("odd", [CUSTOM, {"reasoning_details": "x"}, {"refusal": [1]}])
def test_of_a_whole_reply_with_an_odd_part_the_text_is_kept(odd: Mapping[str, Any]) -> None:
    assert complete(whole({"content": "Hello.", **odd})).text == "Hello."


@pytest.mark.parametrize(
    ("odd", "what"), [(WRONG, "`tool_calls` is of type dict"), (CUSTOM, "a call of type custom")]
)
@SERVERS
def test_a_reply_of_odd_parts_alone_is_an_error_that_names_them_and_its_price(
    odd: Mapping[str, Any], what: str, name: str
) -> None:
    with OpenAIServer([stream(odd)]) as server:
        model = local_model(server, name, retries=0)
        with pytest.raises(ModelUnavailableError, match=what) as caught:
            model.complete(MESSAGES, ignore)
    assert paid_until(caught.value).prompt_tokens == USAGE["prompt_tokens"]


# Calls without ids


def arguments_of(*functions: Mapping[str, Any], name: str = "hosted_vllm/local") -> list[str]:
    pieces = [call(index=0, function=function) for function in functions]
    with OpenAIServer([stream(*pieces)]) as server:
        calls = local_model(server, name, retries=0).complete(MESSAGES, ignore).calls
    assert len({each.id for each in calls}) == len(calls)
    return [f"{each.name}{each.arguments}" for each in calls]


@pytest.mark.parametrize("second", [TWO, OTHER])
@SERVERS
def test_a_name_behind_complete_arguments_begins_a_new_call(
    second: Mapping[str, str], name: str
) -> None:
    expected = [f"{each['name']}{each['arguments']}" for each in (ONE, second)]
    assert arguments_of(ONE, second, name=name) == expected


def test_a_new_call_may_be_named_before_its_arguments_come() -> None:
    pieces = [{"name": "python", "arguments": ""}, {"arguments": TWO["arguments"]}]
    assert arguments_of(ONE, *pieces) == ['python{"code": "1"}', 'python{"code": "2"}']


@pytest.mark.parametrize("again", [ONE, {"name": "python", "arguments": ""}])
def test_a_call_that_is_told_again_is_one_call(again: Mapping[str, str]) -> None:
    assert arguments_of(ONE, again) == ['python{"code": "1"}']


def test_a_name_with_each_piece_of_the_arguments_is_one_call() -> None:
    pieces = [{"name": "python", "arguments": piece} for piece in ('{"code"', ': "1"}')]
    assert arguments_of(*pieces) == ['python{"code": "1"}']


# Refusals

REFUSED: list[list[Mapping[str, Any]]] = [
    [{"role": "assistant", "content": None}, {"refusal": "I can"}, {"refusal": "not."}],
    [{"role": "assistant", "content": "", "refusal": "I can"}, {"refusal": "not."}],
]


def test_a_refusal_is_the_text_of_a_whole_reply() -> None:
    with OpenAIServer([whole({"content": None, "refusal": "I cannot."})]) as server:
        assert local_model(server).complete(MESSAGES).text == "I cannot."
        assert len(server.requests) == 1


@pytest.mark.parametrize("deltas", REFUSED)
@SERVERS
def test_a_refusal_is_the_text_of_a_streamed_reply(
    deltas: list[Mapping[str, Any]], name: str
) -> None:
    events: list[Event] = []
    with OpenAIServer([stream(*deltas)]) as server:
        reply = local_model(server, name).complete(MESSAGES, events.append)
        assert len(server.requests) == 1
    assert reply.text == "I cannot."
    assert [event.text for event in events if isinstance(event, ReplyText)] == ["I can", "not."]


REFUSAL = {"type": "refusal", "refusal": "I cannot."}
SAID = {"id": "m", "type": "message", "role": "assistant", "status": "completed"}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [SAID | {"content": [REFUSAL]}],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
}


def refused_response(*, streamed: bool) -> Raw:
    if not streamed:
        return Raw(json.dumps(RESPONSE).encode(), "application/json")
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    events: list[Mapping[str, Any]] = [
        {"type": "response.created", "response": RESPONSE | {"output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": SAID | {"content": []}},
        {"type": "response.refusal.delta", **place, "delta": "I can"},
        {"type": "response.refusal.delta", **place, "delta": "not."},
        {"type": "response.refusal.done", **place, "refusal": "I cannot."},
        {"type": "response.completed", "response": RESPONSE},
    ]
    lines = (
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n"
        for number, event in enumerate(events)
    )
    return Raw("".join(lines).encode())


@pytest.mark.parametrize("listener", [ignore, None], ids=["streamed", "whole"])
def test_a_refusal_is_the_text_of_a_reply_of_the_responses_api(listener: Listener | None) -> None:
    with OpenAIServer([refused_response(streamed=listener is not None)]) as server:
        model = local_model(server, "openai/responses/gpt-5")
        assert model.complete(MESSAGES, listener).text == "I cannot."
        assert [request.path for request in server.requests] == ["/v1/responses"]


@pytest.mark.parametrize("name", ["openai/local", "hosted_vllm/local", "openai/responses/gpt-5"])
def test_refusals_are_told_as_text_by_litellms_stream(name: str) -> None:
    answer = refused_response(streamed=True) if "responses" in name else stream(*REFUSED[0])
    reader = ReplyReader()
    with OpenAIServer([answer]) as server:
        chunks = litellm_module().completion(
            name,
            [{"role": "user", "content": "Go."}],
            api_base=server.url,
            api_key=KEY,
            stream=True,
        )
        tell_refusals(chunks)
        assert "".join(map(reader.add, chunks)) == reader.text == "I cannot."


# What was paid


@pytest.mark.parametrize("told", [None, 0])
@pytest.mark.parametrize("listener", [None, ignore])
def test_where_no_tokens_are_told_of_a_text_they_are_counted(
    told: int | None, listener: Listener | None
) -> None:
    made = stream if listener else whole
    usage = {"prompt_tokens": 7, "completion_tokens": told, "total_tokens": 7}
    found = complete(made({"content": "Hello there."}, usage=usage), listener).usage
    assert found.completion_tokens > 0


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries."""
    monkeypatch.setattr(Waiting, "pause", lambda waiting, seconds: None)


@pytest.mark.usefixtures("no_waits")
def test_what_was_paid_before_a_final_error_is_told_by_it() -> None:
    with OpenAIServer([CutConnection("word " * 200), Status(401, "Revoked.")]) as server:
        with pytest.raises(ModelAuthenticationError, match="Revoked") as caught:
            local_model(server).complete(MESSAGES, ignore)
        assert len(server.requests) == 2
    assert paid_until(caught.value).completion_tokens > 150


@pytest.mark.usefixtures("no_waits")
def test_an_empty_reply_outlives_an_error_and_what_all_were_paid_counts() -> None:
    empty = stream({"content": ""})
    with OpenAIServer([empty, CutConnection("word " * 200), Status(401)]) as server:
        reply = local_model(server).complete(MESSAGES, ignore)
    assert reply.usage.completion_tokens > 150


def test_nothing_is_paid_for_an_error_that_comes_first() -> None:
    with pytest.raises(ModelAuthenticationError) as caught:
        complete(Status(401), ignore)
    assert paid_until(caught.value).tokens == 0


# A listener that asks


def test_a_listener_may_ask_the_same_model() -> None:
    texts: list[str] = []
    with OpenAIServer(["Outer.", "Inner.", "After."]) as server:
        model = local_model(server)

        def listen(event: Event) -> None:
            if isinstance(event, ReplyText) and not texts:
                texts.append("")
                texts.append(model.complete(MESSAGES, ignore).text)

        assert model.complete(MESSAGES, listen).text == "Outer."
        assert model.complete(MESSAGES).text == "After."
    assert texts[1] == "Inner."


def test_who_gives_up_while_a_listener_asks_gives_up_both() -> None:
    given_up: list[GivenUpError] = []
    with OpenAIServer([Stall("Outer."), Stall("Inner.")]) as server:
        model = local_model(server)

        def cancel(event: Event) -> None:
            model.cancel(this_thread)

        def listen(event: Event) -> None:
            if isinstance(event, ReplyText) and not given_up:
                with pytest.raises(GivenUpError) as caught:
                    model.complete(MESSAGES, cancel)
                given_up.append(caught.value)

        this_thread = threading.get_ident()
        with pytest.raises(GivenUpError):
            model.complete(MESSAGES, listen)
    assert given_up
