"""Tests of servers that send what no documentation allows: a reply or an error, never more."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpcore
import pytest

from kernel_agent.agent import Agent
from kernel_agent.errors import ModelError, ModelUnavailableError
from kernel_agent.events import Event, ReplyText
from kernel_agent.model import lite_llm, paid_until
from kernel_agent.model.waiting import GivenUpError
from kernel_agent.transcript import Transcript
from tests.local_model import KEY, MESSAGES, complete, ignore, local_model
from tests.openai_server import CutConnection, OpenAIServer, Raw, Stall

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    # pydantic's word to litellm about what does not fit.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def whole(message: Mapping[str, Any], **more: Any) -> Raw:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return Raw(json.dumps(head | {"choices": [choice], "usage": USAGE} | more).encode())


def stream(*deltas: Mapping[str, Any], **more: Any) -> Raw:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    events: list[Any] = [head | {"choices": choice} for choice in choices]
    events.append(head | {"choices": [], "usage": USAGE} | more)
    return Raw("".join(f"data: {json.dumps(event)}\n\n" for event in events).encode())


def call(**more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"type": "function", **more}]}


# Characters


def test_a_character_that_comes_in_two_halves_is_put_together() -> None:
    reply = complete(stream({"content": "a\ud83d"}, {"content": "\ude00b"}), ignore)
    assert reply.text == "a😀b"


@pytest.mark.parametrize("listener", [None, ignore])
def test_half_a_character_is_replaced_since_nothing_could_hold_it(listener: Any) -> None:
    made = stream if listener else whole
    half = {"content": "a\ud83d", "reasoning_content": "b\ud83d"}
    reply = complete(
        made(half | call(id="c", function={"name": "f", "arguments": '"\ud83d"'})), listener
    )
    assert (reply.text, reply.reasoning) == ("a\ufffd", "b\ufffd")
    assert reply.calls[0].arguments == '"\ufffd"'


def test_the_listener_hears_only_what_can_be_written() -> None:
    events: list[Event] = []
    complete(stream({"content": "a\ud83d"}, {"content": "\ude00b"}), events.append)
    heard = "".join(event.text for event in events if isinstance(event, ReplyText))
    assert heard.encode()


# Calls


def test_an_id_may_be_a_number() -> None:
    function = {"name": "python", "arguments": "{}"}
    assert complete(whole(call(id=5, function=function))).calls[0].id == "5"


def test_pieces_with_ids_of_their_own_are_one_call_if_only_the_first_has_a_name() -> None:
    pieces = [
        call(index=0, id="a", function={"name": "python", "arguments": '{"code":'}),
        call(index=0, id="b", function={"arguments": '"1"}'}),
    ]
    [found] = complete(stream(*pieces), ignore).calls
    assert (found.id, found.arguments) == ("a", '{"code":"1"}')


# Token counts


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": 3, "total_tokens": 10},
        {"prompt_tokens": 5, "completion_tokens": -3, "total_tokens": 10},
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 10},
        {"total_tokens": 10},
    ],
)
def test_counts_that_cannot_be_are_not_taken_for_counts(usage: dict[str, Any]) -> None:
    found = complete(whole({"content": "Hello."}, usage=usage)).usage
    assert found.prompt_tokens > 5
    assert found.completion_tokens > 0


def test_a_price_of_nothing_is_a_price() -> None:
    assert complete(whole({"content": "x"}, usage=USAGE | {"cost": 0})).usage.cost == 0.0


# Bodies

BODIES = [
    b"",
    b"null",
    b"[]",
    b"7",
    b"{}",
    b"<html>Welcome to nginx</html>",
    b'{"choices": null}',
    b'{"choices": [null]}',
    b'{"choices": [{"index": 0}]}',
    b"\xff\xfe",
    b"[" * 100_000,
    b"data: null\n\ndata: [DONE]\n\n",
    b"data: [7]\n\n",
    b'data: {"choices": [{"index": 0, "delta": {"content": "\xff"}}]}\n\n',
    b"event: error\ndata: {}\n\n",
    b": keep-alive\n\n",
]


@pytest.mark.parametrize("listener", [None, ignore])
@pytest.mark.parametrize("body", BODIES)
def test_what_is_no_answer_is_an_error_of_ours_without_the_key(body: bytes, listener: Any) -> None:
    with pytest.raises(ModelError) as caught:
        complete(Raw(body + KEY.encode() if body else b""), listener)
    assert KEY not in str(caught.value)


def test_a_server_that_does_not_stream_is_told_apart() -> None:
    with pytest.raises(ModelUnavailableError, match="its answer is no stream"):
        complete(whole({"content": "Hello."}), ignore)


# Replies that broke off


def test_what_came_of_a_reply_that_broke_off_is_paid_with_the_next() -> None:
    with OpenAIServer([CutConnection("word " * 200), "Done."]) as server:
        model = local_model(server, "openai/gpt-4o", retries=1)
        usage = model.complete(MESSAGES, ignore).usage
    assert usage.completion_tokens > 20 + 150
    assert usage.prompt_tokens > 100
    assert usage.cost is not None


def test_what_was_paid_for_no_reply_at_all_is_told_with_the_error_and_in_the_notebook(
    tmp_path: Path,
) -> None:
    with OpenAIServer([CutConnection("word " * 200)]) as server:
        model = local_model(server, "openai/gpt-4o", retries=0)
        with (
            Agent(model, folder=tmp_path, listener=ignore) as agent,
            pytest.raises(ModelError) as caught,
        ):
            agent.run("What?")
    paid = paid_until(caught.value)
    assert paid.completion_tokens > 150
    (path,) = tmp_path.glob("*.ipynb")
    told = Transcript.load(path).outcome
    assert told is not None
    assert told.reason.endswith(f"Paid in vain: {paid.tokens:,} tokens.")


# Giving up


def test_who_gives_up_while_litellm_loads_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(["Not asked for."]) as server:
        model = local_model(server)
        loaded = lite_llm.litellm_module
        given_up: list[None] = []

        def load() -> Any:
            given_up.append(model.cancel(threading.get_ident()))
            return loaded()

        monkeypatch.setattr(lite_llm, "litellm_module", load)
        with pytest.raises(GivenUpError):
            model.complete(MESSAGES)
        assert server.requests == []
    assert given_up


def test_no_thread_outlives_its_request() -> None:
    with OpenAIServer(["One.", "Two.", Stall("```python\n1\n```\nObservation:\n1\n")]) as server:
        model = local_model(server)
        for listener in (None, ignore, ignore):
            model.complete(MESSAGES, listener)
        ours = [each for each in threading.enumerate() if each.name.startswith("kernel-agent-")]
        for thread in ours:
            thread.join(5)
        assert server.hung_up.wait(5)
    assert not any(thread.is_alive() for thread in ours)


def test_the_deadline_holds_even_where_the_socket_cannot_be_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(httpcore, "NetworkStream")
    with OpenAIServer([Stall()]) as server:
        model = local_model(server, deadline=0.1, timeout=0.5, retries=0)
        with pytest.raises(ModelUnavailableError, match=r"complete in 0\.1 s"):
            model.complete(MESSAGES)
        assert server.hung_up.wait(5), "after the timeout"
