"""The servers that check requests do find what is wrong with them, and streams are read right."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.model.call_text import CallText, whole_characters
from kernel_agent.model.replies import ReplyReader
from kernel_agent.model.requests import build
from kernel_agent.model_loading import litellm_module
from tests.wire.answers import Said
from tests.wire.anthropic_wire import AnthropicWire
from tests.wire.gemini_wire import GeminiWire
from tests.wire.openai_wire import OpenAIWire
from tests.wire.server import Wire

TOOL: dict[str, Any] = {"name": "python", "description": "Runs code."}
OBJECT = {"type": "object", "properties": {"code": {"type": "string"}}}


def openai_call(id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "python", "arguments": "{}"}}


OPENAI: dict[str, Any] = {
    "model": "gpt",
    "messages": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": None, "tool_calls": [openai_call("a"), openai_call("b")]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ],
    "tools": [{"type": "function", "function": {**TOOL, "parameters": OBJECT}}],
}
ANTHROPIC: dict[str, Any] = {
    "model": "claude",
    "max_tokens": 4096,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "messages": [
        {"role": "user", "content": "Go."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "tool_use", "id": "a", "name": "python", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "1"}]},
    ],
    "tools": [{**TOOL, "input_schema": OBJECT}],
}
GEMINI: dict[str, Any] = {
    "contents": [
        {"role": "user", "parts": [{"text": "Go."}]},
        {
            "role": "model",
            "parts": [
                {
                    "functionCall": {"name": "python", "args": {}},
                    "thoughtSignature": "c2ln",
                }
            ],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "python", "response": {"output": "1"}}}],
        },
    ],
    "tools": [{"functionDeclarations": [{**TOOL, "parameters": OBJECT}]}],
}
SENT = [Said(reasoning="Hm.", signature="c2ln")]

Spoil = Callable[[dict[str, Any]], Any]
SPOILED: list[tuple[str, Wire, str, dict[str, Any], Spoil]] = []


def case(wire: Wire, path: str, body: dict[str, Any], **spoils: Spoil) -> None:
    SPOILED.extend((name, wire, path, body, spoil) for name, spoil in spoils.items())


case(
    OpenAIWire(),
    "/v1/chat/completions",
    OPENAI,
    openai_unknown_key=lambda b: b.update(thinking={}),
    openai_unknown_message_key=lambda b: b["messages"][2].update(reasoning_content="Hm."),
    openai_call_without_answer=lambda b: b["messages"].pop(),
    openai_answer_without_call=lambda b: b["messages"].pop(2),
    openai_answer_too_late=lambda b: b["messages"].insert(4, {"role": "user", "content": "?"}),
    openai_id_too_long=lambda b: b["messages"][2]["tool_calls"][0].update(id="a" * 41),
    openai_image_of_a_tool=lambda b: b["messages"][3].update(
        content=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    ),
    openai_marker=lambda b: b["messages"][3].update(cache_control={"type": "ephemeral"}),
)
case(
    AnthropicWire(),
    "/v1/messages",
    ANTHROPIC,
    anthropic_no_max_tokens=lambda b: b.pop("max_tokens"),
    anthropic_unknown_key=lambda b: b.update(reasoning_effort="low"),
    anthropic_no_tools=lambda b: b.pop("tools"),
    anthropic_other_signature=lambda b: b["messages"][1]["content"][0].update(signature="YQ=="),
    anthropic_other_thinking=lambda b: b["messages"][1]["content"][0].update(thinking="Ha."),
    anthropic_no_thinking=lambda b: b["messages"][1]["content"].pop(0),
    anthropic_no_result=lambda b: b["messages"][2].update(content="1"),
    anthropic_text_first=lambda b: b["messages"][2]["content"].insert(
        0, {"type": "text", "text": "1"}
    ),
    anthropic_same_role=lambda b: b["messages"].insert(0, {"role": "user", "content": "Hi."}),
    anthropic_empty_text=lambda b: b["messages"][2]["content"].append({"type": "text", "text": ""}),
    anthropic_five_markers=lambda b: b["messages"][2]["content"].extend(
        [{"type": "text", "text": "1", "cache_control": {"type": "ephemeral"}}] * 5
    ),
)
case(
    GeminiWire(is_strict=True),
    ":generateContent",
    GEMINI,
    gemini_unknown_key=lambda b: b.update(messages=[]),
    gemini_no_response=lambda b: b["contents"].pop(),
    gemini_two_responses=lambda b: b["contents"][2]["parts"].append(b["contents"][2]["parts"][0]),
    gemini_other_name=lambda b: b["contents"][2]["parts"][0]["functionResponse"].update(name="r"),
    gemini_other_signature=lambda b: b["contents"][1]["parts"][0].update(thoughtSignature="YQ=="),
    gemini_no_signature=lambda b: b["contents"][1]["parts"][0].pop("thoughtSignature"),
    gemini_other_role=lambda b: b["contents"][1].update(role="assistant"),
    gemini_no_tools=lambda b: b.pop("tools"),
)


@pytest.mark.parametrize(
    ("wire", "path", "body", "spoil"), [each[1:] for each in SPOILED], ids=[e[0] for e in SPOILED]
)
def test_a_request_that_the_documents_do_not_allow_is_found(
    wire: Wire, path: str, body: dict[str, Any], spoil: Spoil
) -> None:
    assert not list(wire.problems(path, {}, body, SENT))
    spoiled = copy.deepcopy(body)
    spoil(spoiled)
    assert list(wire.problems(path, {}, spoiled, SENT))


@given(st.text(), st.booleans(), st.lists(st.integers(1, 5)))
def test_code_is_decoded_wherever_its_json_is_split(
    code: str, is_ascii: bool, sizes: list[int]
) -> None:
    arguments = json.dumps({"code": code}, ensure_ascii=is_ascii)
    text, told = CallText(), []
    for size in sizes:
        told.append(text.add(arguments[:size]))
        arguments = arguments[size:]
    told.append(text.add(arguments))
    assert "".join(told) == code
    assert text.is_complete


def test_half_a_character_is_told_as_one_that_can_be_shown() -> None:
    text = CallText()
    assert text.add('{"code": "a\\ud83d') + text.add('b"}') == "a\ufffdb"
    assert whole_characters("\ud83d") == "\ufffd"


def test_arguments_of_another_form_are_not_taken_for_code() -> None:
    text = CallText()
    assert text.add('{"query": "code"}') == ""
    assert not text.is_complete


def chunk(*calls: dict[str, Any], finish: str | None = None) -> Any:
    choice = {"index": 0, "delta": {"tool_calls": list(calls)}, "finish_reason": finish}
    return litellm_module().ModelResponseStream(choices=[choice])


def test_calls_that_come_with_one_index_are_told_apart_by_their_ids() -> None:
    reader = ReplyReader()
    for id in "ab":
        function = {"name": "f", "arguments": "{}"}
        reader.add(chunk({"index": 0, "id": id, "type": "function", "function": function}))
    assert [(call.id, call.name) for call in reader.calls] == [("a", "f"), ("b", "f")]


def test_a_call_without_an_id_is_given_one() -> None:
    reader = ReplyReader()
    reader.add(chunk({"index": 0, "function": {"name": "f", "arguments": '{"x": '}}))
    reader.add(chunk({"index": 0, "function": {"arguments": "1}"}}, finish="tool_calls"))
    (call,) = reader.calls
    assert (call.id, call.arguments) == ("call_1", '{"x": 1}')


@pytest.mark.parametrize("arguments", ["", "{", "[1]", '"x"'])
def test_arguments_that_are_no_object_are_sent_back_as_one(arguments: str) -> None:
    function = {"name": "python", "arguments": arguments}
    messages = [
        {"role": "user", "content": "Go."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "That was no code."},
    ]
    tools = [{"type": "function", "function": {**TOOL, "parameters": OBJECT}}]
    built = build("openai/x", messages, tools=tools, reply_format="tools", params={})
    sent = json.loads(built["messages"][1]["tool_calls"][0]["function"]["arguments"])
    assert sent == ({"unreadable": arguments} if arguments else {})
    assert function["arguments"] == arguments
