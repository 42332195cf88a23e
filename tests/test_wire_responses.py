"""Conversations with OpenAI's Responses API through real litellm, strictly checked."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from kernel_agent.errors import (
    ContextWindowExceededError,
    ModelAuthenticationError,
    ModelError,
    ModelUnavailableError,
)
from kernel_agent.model import LiteLLM
from kernel_agent.model.requests import build
from kernel_agent.model_loading import litellm_module
from kernel_agent.steps import Format, Reply
from tests.openai_server import OpenAIServer, Raw, Status
from tests.test_wire import CLAUDE, CODE, TOOLS, Talk, hold, python, script, talk
from tests.wire.answers import Call, Counts, Said
from tests.wire.anthropic_wire import AnthropicWire
from tests.wire.responses_wire import ResponsesWire
from tests.wire.server import Body, WireServer

# pydantic's words to litellm.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]

# litellm makes up the stream of the first; it asks the last only for calls, and at a server of
# one's own only with an effort.
PRO, STREAMS, SOL = "openai/gpt-5-pro", "openai/gpt-5.5-pro", "openai/gpt-6.1-sol"
NAMES = [PRO, STREAMS, SOL]
CASES = [
    (name, reply_format)
    for name in NAMES
    for reply_format in ("tools", "fence", "json")
    if name != SOL or reply_format == "tools"
]
BOTH_WAYS = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


def answers_of(reply_format: Format) -> list[Said]:
    """`script`, with ids of OpenAI's form: litellm takes `call_1` for no id."""
    return [
        replace(said, calls=tuple(replace(call, id=f"{call.id}_x") for call in said.calls))
        for said in _signed(script(reply_format, thinks=True, signs=False))
    ]


def _signed(script: list[Said]) -> list[Said]:
    return [replace(said, signature=f"c2ln{number}") for number, said in enumerate(script)]


def ask(server: WireServer, name: str, reply_format: Format, streamed: bool) -> Talk:
    return talk(server, name, reply_format, streamed, reasoning_effort="high")


def items(body: Body, kind: str) -> list[Body]:
    return [item for item in body["input"] if item["type"] == kind]


@BOTH_WAYS
@pytest.mark.parametrize(("name", "reply_format"), CASES)
def test_a_conversation_is_as_openai_documents_it(
    name: str, reply_format: Format, streamed: bool
) -> None:
    answers = answers_of(reply_format)
    with WireServer(ResponsesWire(), answers) as server:
        talked = ask(server, name, reply_format, streamed)
        replies = hold(talked)
    for reply, said in zip(replies, answers, strict=True):
        _check(reply, said)
    for body in server.bodies:
        assert body["reasoning"] == {"effort": "high"}
        assert body["instructions"] == "You write code."
    for before, after in pairwise(server.bodies):
        assert after["input"][: len(before["input"])] == before["input"]
    figures = [i for i in server.bodies[2]["input"][-1]["content"] if i["type"] == "input_image"]
    assert len(figures) == 1
    if reply_format != "tools":
        return
    for shown in (f"```python\n{CODE}\n```\n", 'search({"query": "a b"})\n') if streamed else ():
        assert talked.told.count(shown) == 1
    calls = items(server.bodies[-1], "function_call")
    assert [call["call_id"] for call in calls] == [
        call.id for said in answers for call in said.calls
    ]
    assert [json.loads(call["arguments"]) for call in calls] == [
        call.arguments for said in answers for call in said.calls
    ]


def _check(reply: Reply, said: Said) -> None:
    assert (reply.text, reply.reasoning) == (said.text, said.reasoning)
    assert reply.finish_reason == ("tool_calls" if said.calls else "stop")
    assert [(call.id, call.name) for call in reply.calls] == [
        (call.id, call.name) for call in said.calls
    ]
    assert [json.loads(call.arguments) for call in reply.calls] == [
        call.arguments for call in said.calls
    ]


@BOTH_WAYS
@pytest.mark.parametrize("name", NAMES)
def test_reasoning_goes_back_before_what_it_led_to_and_nothing_is_kept(
    name: str, streamed: bool
) -> None:
    answers = answers_of("tools")
    with WireServer(ResponsesWire(), answers) as server:
        hold(ask(server, name, "tools", streamed))
    assert [item["encrypted_content"] for item in items(server.bodies[-1], "reasoning")] == [
        said.signature for said in answers[:-1]
    ]
    assert all(body["store"] is False for body in server.bodies)


@BOTH_WAYS
@pytest.mark.parametrize("name", NAMES)
def test_of_several_items_of_reasoning_the_last_goes_back(name: str, streamed: bool) -> None:
    # litellm would put all before the first call.
    with WireServer(ResponsesWire(reasons_often=True), answers_of("tools")) as server:
        hold(ask(server, name, "tools", streamed))
    kept = [item["id"] for item in items(server.bodies[-1], "reasoning")]
    assert kept == ["rs_c2ln0", "rs_c2ln1_1", "rs_c2ln2", "rs_c2ln3"]


def test_who_wants_the_responses_kept_has_them_kept() -> None:
    with WireServer(ResponsesWire(), answers_of("tools")) as server:
        hold(talk(server, STREAMS, "tools", True, store=True))
    assert all(body["store"] and "include" not in body for body in server.bodies)
    assert [item["id"] for item in items(server.bodies[-1], "reasoning")] == [
        f"rs_c2ln{number}" for number in range(4)
    ]


def test_reasoning_that_only_openai_keeps_is_not_asked_for_by_who_keeps_nothing() -> None:
    with WireServer(ResponsesWire(), answers_of("tools")[:1]) as server:
        talked = talk(server, STREAMS, "tools", True, store=True)
        talked.task("Go.")
        talked.step("1")
    with WireServer(ResponsesWire(), [Said("Done.")]) as server:
        later = talk(server, STREAMS, "tools", True)
        later.entries = talked.entries
        later.step()
    assert not items(server.bodies[0], "reasoning")


@pytest.mark.parametrize("first", [True, False], ids=["to-claude", "from-claude"])
def test_a_run_goes_on_with_claude_and_comes_from_it(first: bool) -> None:
    ours, claudes = (SOL, ResponsesWire()), (CLAUDE, AnthropicWire())
    order = (ours, claudes) if first else (claudes, ours)
    entries: list[Any] = []
    for (name, wire), said in zip(order, answers_of("tools")[:2], strict=True):
        with WireServer(wire, [said]) as server:
            talked = ask(server, name, "tools", True)
            talked.entries = entries
            if not entries:
                talked.task("Go.")
            talked.step("seen")
    assert "1/0" in json.dumps(server.bodies[0])


def test_reasoning_does_not_go_to_another_provider() -> None:
    with WireServer(ResponsesWire(), answers_of("tools")[:1]) as server:
        talked = ask(server, STREAMS, "tools", True)
        talked.task("Go.")
        reply = talked.step("1")
    said = {"role": "assistant", "content": "Well.", "thinking_blocks": [*reply.signed]}
    messages = [{"role": "user", "content": "Go."}, said, {"role": "user", "content": "On."}]
    for name, is_sent in ((STREAMS, True), ("azure/gpt-5.5-pro", False), ("openai/x", False)):
        built = build(name, messages, tools=TOOLS, reply_format="tools", params={})
        assert ("reasoning_items" in built["messages"][1]) is is_sent


def test_only_what_goes_to_the_responses_api_is_made_for_it() -> None:
    messages = [{"role": "user", "content": "Go."}]
    own: dict[str, Any] = {"tools": TOOLS, "reply_format": "tools"}
    built = build(SOL, messages, **own, params={})
    assert built["include"] == ["reasoning.encrypted_content"]
    assert [tool["function"]["strict"] for tool in built["tools"]] == [False, False]
    for key in ("api_base", "base_url"):
        built = build(SOL, messages, **own, params={key: "http://127.0.0.1:1/v1"})
        assert not {"include", "store"} & set(built)
        assert built["tools"] == list(TOOLS)


@BOTH_WAYS
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_counted_and_priced(name: str, streamed: bool) -> None:
    counts = Counts(prompt=10_000, completion=500, cached=8_000, reasoning=300)
    with WireServer(ResponsesWire(), [Said("Done.", counts=counts)]) as server:
        talked = ask(server, name, "tools", streamed)
        talked.task("Go.")
        usage = talked.step().usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (10_000, 500)
    assert (usage.cached_tokens, usage.reasoning_tokens) == (8_000, 300)
    price = litellm_module().get_model_info(name)
    cached = price["cache_read_input_token_cost"] or price["input_cost_per_token"]
    wanted = 2_000 * price["input_cost_per_token"] + 8_000 * cached
    assert usage.cost == pytest.approx(wanted + 500 * price["output_cost_per_token"])


@pytest.mark.parametrize("said", [Said("I count."), Said(calls=(python(CODE, "call_x"),))])
@pytest.mark.parametrize("name", [STREAMS, SOL])
def test_a_stream_that_ends_too_early_is_no_reply(name: str, said: Said) -> None:
    with WireServer(ResponsesWire(), [replace(said, is_cut=True)]) as server:
        talked = ask(server, name, "tools", True)
        talked.task("Count.")
        with pytest.raises(ModelUnavailableError, match="before"):
            talked.step()


@BOTH_WAYS
def test_the_same_call_twice_is_answered_twice(streamed: bool) -> None:
    calls = (python("f()", "call_x"), python("f()", "call_y"))
    with WireServer(
        ResponsesWire(), [Said(calls=calls, signature="c2ln"), Said("Done.")]
    ) as server:
        talked = ask(server, PRO, "tools", streamed)
        talked.task("Go.")
        assert len(talked.step("seen").calls) == 2
        talked.step()


ERRORS: list[tuple[Status, type[ModelError], float | None]] = [
    (Status(401, "Bad key."), ModelAuthenticationError, None),
    (Status(429, "Slow down.", retry_after=7), ModelUnavailableError, 7),
    (Status(500, "Sorry."), ModelUnavailableError, None),
    (Status(429, "Pay first.", "insufficient_quota"), ModelError, None),
    (Status(400, "Too long.", "context_length_exceeded"), ContextWindowExceededError, None),
    (Status(400, "No."), ModelError, None),
]


@BOTH_WAYS
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("status", "kind", "wait"), ERRORS)
def test_errors_are_those_of_other_models(
    status: Status, kind: type[ModelError], wait: float | None, name: str, streamed: bool
) -> None:
    with OpenAIServer([status]) as server:
        with pytest.raises(ModelError) as caught:
            _complete(server, name, streamed)
        assert [request.path for request in server.requests] == ["/v1/responses"]
    is_lost = isinstance(caught.value, ModelUnavailableError)
    assert (ModelUnavailableError if is_lost else type(caught.value)) is kind
    assert caught.value.reason.startswith(status.message)
    assert getattr(caught.value, "retry_after", None) == wait


def _complete(server: OpenAIServer, name: str, streamed: bool) -> Reply:
    given: dict[str, Any] = {"api_base": server.url, "api_key": "sk-test", "retries": 0}
    model = LiteLLM(name, reply_format="tools", reasoning_effort="high", **given)
    listener = (lambda event: None) if streamed else None
    return model.complete([{"role": "user", "content": "Go."}], listener, tools=TOOLS)


def _stream(said: Said, change: Callable[[Body], Body]) -> Raw:
    """The stream of `said`, its last event made another."""
    *begin, last = ResponsesWire().events(said, {"model": "gpt", "tools": []})
    event = change(json.loads(last.partition(b"data: ")[2]))
    end = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    return Raw(b"".join(begin) + end)


def _failed(code: str) -> Callable[[Body], Body]:
    def change(event: Body) -> Body:
        error = {"code": code, "message": "It failed."}
        response = event["response"] | {"status": "failed", "error": error}
        return event | {"type": "response.failed", "response": response}

    return change


FAILED = [
    ("server_error", ModelUnavailableError),
    ("rate_limit_exceeded", ModelUnavailableError),
    ("context_length_exceeded", ContextWindowExceededError),
]


@pytest.mark.parametrize(("code", "kind"), FAILED)
def test_a_stream_that_fails_is_an_error(code: str, kind: type[ModelError]) -> None:
    with (
        OpenAIServer([_stream(Said("I count."), _failed(code))]) as server,
        pytest.raises(ModelError, match=r"It failed\.") as caught,
    ):
        _complete(server, SOL, True)
    assert isinstance(caught.value, kind)


def test_a_stream_that_is_out_of_tokens_is_a_reply_of_that_length() -> None:
    def change(event: Body) -> Body:
        details = {"reason": "max_output_tokens"}
        response = event["response"] | {"status": "incomplete", "incomplete_details": details}
        return event | {"type": "response.incomplete", "response": response}

    with OpenAIServer([_stream(Said("I count."), change)]) as server:
        reply = _complete(server, SOL, True)
    assert (reply.text, reply.finish_reason) == ("I count.", "length")


# The server finds what is wrong

CALL = {"type": "function_call", "call_id": "a", "name": "python", "arguments": "{}"}
THOUGHT = {"type": "reasoning", "id": "rs_c2ln", "summary": [], "encrypted_content": "c2ln"}
GOOD: Body = {
    "model": "gpt",
    "store": False,
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go."}]},
        THOUGHT,
        CALL,
        CALL | {"call_id": "b"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": "2"},
    ],
    "tools": [{"type": "function", "name": "python", "parameters": {}, "strict": False}],
}
SPOILED: dict[str, Callable[[Body], Any]] = {
    "unknown_key": lambda b: b.update(messages=[]),
    "chat_effort": lambda b: b.update(reasoning_effort="low"),
    "chat_tool": lambda b: b.update(tools=list(TOOLS)),
    "chat_image": lambda b: b["input"][0].update(content=[{"type": "image_url"}]),
    "call_without_output": lambda b: b["input"].pop(),
    "output_without_call": lambda b: b["input"].pop(3),
    "id_twice": lambda b: b["input"].insert(3, CALL),
    "words_between": lambda b: b["input"].insert(4, b["input"][0]),
    "other_reasoning": lambda b: b["input"][1].update(encrypted_content="YQ=="),
    "other_summary": lambda b: b["input"][1].update(
        summary=[{"type": "summary_text", "text": "Ha."}]
    ),
    "reasoning_not_kept": lambda b: b["input"][1].pop("encrypted_content"),
    "reasoning_behind": lambda b: b["input"].insert(3, b["input"].pop(1)) or b["input"].pop(2),
    "reasoning_at_the_end": lambda b: b["input"].append(b["input"].pop(1)),
    "reasoning_twice": lambda b: b["input"].insert(3, THOUGHT),
    "no_id_of_reasoning": lambda b: b["input"][1].pop("id"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_request_that_the_documents_do_not_allow_is_found(name: str) -> None:
    wire, headers = ResponsesWire(), {"Authorization": "Bearer sk-test"}
    said = [Said(signature="c2ln", calls=(Call("python", {}, "a"),))]
    assert not list(wire.problems("/v1/responses", headers, GOOD, said))
    spoiled = copy.deepcopy(GOOD)
    SPOILED[name](spoiled)
    assert list(wire.problems("/v1/responses", headers, spoiled, said))
