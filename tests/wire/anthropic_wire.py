"""Anthropic's messages: https://docs.claude.com/en/api/messages and the types of its SDK."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.wire.answers import Said, pieces
from tests.wire.server import Body, constant, event, exact, list_of, violations

STRING = {"type": "string", "minLength": 1}
CACHE = {"cache_control": exact({"type": constant("ephemeral")}, {"ttl": {"enum": ["5m", "1h"]}})}
TEXT = exact({"type": constant("text"), "text": {"type": "string", "pattern": r"\S"}}, CACHE)
SOURCE = exact(
    {
        "type": constant("base64"),
        "media_type": {"enum": ["image/jpeg", "image/png", "image/gif", "image/webp"]},
        "data": STRING,
    }
)
IMAGE = exact({"type": constant("image"), "source": SOURCE}, CACHE)
IDENTITY = {"type": "string", "pattern": "^[a-zA-Z0-9_-]+$"}
RESULT = exact(
    {"type": constant("tool_result"), "tool_use_id": IDENTITY},
    {
        "content": {"anyOf": [{"type": "string"}, list_of(TEXT, IMAGE)]},
        "is_error": {"type": "boolean"},
        **CACHE,
    },
)
USE = exact(
    {
        "type": constant("tool_use"),
        "id": IDENTITY,
        "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,128}$"},
        "input": {"type": "object"},
    },
    CACHE,
)
THINKING = exact(
    {"type": constant("thinking"), "thinking": {"type": "string"}, "signature": STRING}
)
REDACTED = exact({"type": constant("redacted_thinking"), "data": STRING})
TOOL = exact(
    {
        "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,128}$"},
        "input_schema": {"type": "object", "required": ["type"]},
    },
    {"description": {"type": "string"}, "type": constant("custom"), **CACHE},
)
CHOICE = {
    "anyOf": [
        exact({"type": {"enum": ["auto", "any"]}}, {"disable_parallel_tool_use": {}}),
        exact({"type": constant("tool"), "name": STRING}, {"disable_parallel_tool_use": {}}),
        exact({"type": constant("none")}),
    ]
}
EFFORT = {"enum": ["low", "medium", "high", "xhigh", "max"]}
FORMAT = exact({"type": constant("json_schema"), "schema": {"type": "object"}})
BUDGET = {"type": "integer", "minimum": 1024}
SHOWN = {"display": {"enum": ["summarized", "omitted"]}}
REQUEST = exact(
    {
        "model": STRING,
        "max_tokens": {"type": "integer", "minimum": 1},
        "messages": list_of(
            exact(
                {
                    "role": constant("user"),
                    "content": {"anyOf": [STRING, list_of(TEXT, IMAGE, RESULT)]},
                }
            ),
            exact(
                {
                    "role": constant("assistant"),
                    "content": {"anyOf": [STRING, list_of(TEXT, THINKING, REDACTED, USE)]},
                }
            ),
        ),
    },
    {
        "system": {"anyOf": [STRING, list_of(TEXT)]},
        "stream": {"type": "boolean"},
        "temperature": {"type": "number", "maximum": 1},
        "tools": list_of(TOOL),
        "tool_choice": CHOICE,
        "thinking": {
            "anyOf": [
                exact({"type": constant("enabled"), "budget_tokens": BUDGET}, SHOWN),
                exact({"type": constant("adaptive")}, SHOWN),
                exact({"type": constant("disabled")}),
            ]
        },
        "output_config": exact({}, {"effort": EFFORT, "format": FORMAT}),
        "output_format": FORMAT,
    },
)


class AnthropicWire:
    """Checks what the schema says and what the documents say of order, thinking and caching."""

    path = ""

    def __init__(self) -> None:
        self._prefixes: dict[str, str] = {}

    def problems(
        self, path: str, headers: Mapping[str, str], body: Body, sent: list[Said]
    ) -> Iterator[str]:
        if path != "/v1/messages":
            yield f"nothing is at {path}"
            return
        yield from violations(body, REQUEST)
        beta = headers.get("anthropic-beta", "")
        if "output_format" in body and "structured-outputs-2025-11-13" not in beta:
            yield "output_format: extra inputs are not permitted without the beta's header"
        messages = [_as_blocks(message) for message in body.get("messages", [])]
        yield from _order(messages)
        yield from _thinking(messages, body, sent)
        yield from self._bound(messages, body)
        if "tools" not in body and any(_blocks(message, "tool_use") for message in messages):
            yield "tool_use without tools"
        if (marks := json.dumps(body).count('"cache_control"')) > 4:
            yield f"a maximum of 4 blocks with cache_control may be provided, found {marks}"

    def _bound(self, messages: list[Body], body: Body) -> Iterator[str]:
        for number, message in enumerate(messages):
            for block in _blocks(message, "thinking"):
                prefix = _prefix(body, messages[:number])
                if self._prefixes.get(block["signature"], prefix) != prefix:
                    yield f"messages/{number}: the block is bound to a different conversation"

    def _remember(self, said: Said, body: Body) -> None:
        if said.signature:
            messages = [_as_blocks(message) for message in body["messages"]]
            self._prefixes[said.signature] = _prefix(body, messages)

    def is_streamed(self, path: str, body: Body) -> bool:
        return bool(body.get("stream"))

    def whole(self, said: Said, body: Body) -> Body:
        self._remember(said, body)
        return _message(said, body) | {"content": _content(said), "stop_reason": _stop(said)}

    def events(self, said: Said, body: Body) -> Iterator[bytes]:
        self._remember(said, body)
        head = _message(said, body) | {"content": [], "stop_reason": None}
        yield _event({"type": "message_start", "message": head})
        for index, block in enumerate(_content(said)):
            start, deltas = _deltas(block)
            place = {"index": index}
            yield _event({"type": "content_block_start", "content_block": start} | place)
            for delta in deltas:
                yield _event({"type": "content_block_delta", "delta": delta} | place)
            yield _event({"type": "content_block_stop"} | place)
        ending = {"stop_reason": _stop(said), "stop_sequence": None}
        usage = {"output_tokens": said.counts.completion}
        yield _event({"type": "message_delta", "delta": ending, "usage": usage})
        yield _event({"type": "message_stop"})

    def refusal(self, message: str) -> Body:
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


def _prefix(body: Body, messages: list[Body]) -> str:
    """What a thinking block is bound to: markers are left out of the comparison."""
    whole = json.dumps([body.get("system"), body.get("tools"), messages], sort_keys=True)
    return re.sub(r'"cache_control": \{[^}]*\}(, )?', "", whole).replace(", }", "}")


def _order(messages: list[Body]) -> Iterator[str]:
    if messages and messages[0]["role"] != "user":
        yield "the first message is not the user's"
    if messages and messages[-1]["role"] != "user":
        yield "the last message is not the user's"
    ids: set[str] = set()
    for number, (message, after) in enumerate(itertools.pairwise([*messages, {"role": "end"}])):
        if message["role"] == after["role"]:
            yield f"messages/{number + 1}: two messages of the same role"
        uses = [block["id"] for block in _blocks(message, "tool_use")]
        if ids & set(uses) or len(set(uses)) < len(uses):
            yield f"messages/{number}: tool_use ids must be unique: {uses}"
        ids.update(uses)
        results = [block["tool_use_id"] for block in _blocks(after, "tool_result")]
        if sorted(uses) != sorted(results):
            yield f"messages/{number}: calls {uses} are answered by {results}"
        kinds = [block["type"] for block in after.get("content", ())]
        if results and kinds[: len(results)] != ["tool_result"] * len(results):
            yield f"messages/{number + 1}: tool_result blocks do not come first: {kinds}"


def _thinking(messages: list[Body], body: Body, sent: list[Said]) -> Iterator[str]:
    kind = (body.get("thinking") or {}).get("type", "disabled")
    if kind == "enabled" and body["thinking"]["budget_tokens"] >= body.get("max_tokens", 0):
        yield "max_tokens must be greater than thinking.budget_tokens"
    if kind != "disabled" and body.get("tool_choice", {}).get("type") in ("any", "tool"):
        yield "thinking may not be enabled when tool_choice forces tool use"
    begins = True
    for number, message in enumerate(messages):
        if message["role"] == "user":
            begins = begins or any(b["type"] != "tool_result" for b in message["content"])
            continue
        first = message["content"][0]["type"]
        is_last_turn = not any(
            block["type"] != "tool_result"
            for later in messages[number + 1 :]
            if later["role"] == "user"
            for block in later["content"]
        )
        if kind == "enabled" and begins and is_last_turn and "thinking" not in first:
            yield f"messages/{number}: expected `thinking`, but found `{first}`"
        if kind == "disabled" and "thinking" in first:
            yield f"messages/{number}: thinking while it is disabled"
        begins = False
        for block in _blocks(message, "thinking"):
            if (block["thinking"], block["signature"]) not in {
                (said.reasoning, said.signature) for said in sent
            }:
                yield f"messages/{number}: invalid `signature` in `thinking` block"
        for block in _blocks(message, "redacted_thinking"):
            if block["data"] not in {said.redacted for said in sent}:
                yield f"messages/{number}: invalid `data` in `redacted_thinking` block"


def _as_blocks(message: Body) -> Body:
    content = message["content"]
    if isinstance(content, str):
        return message | {"content": [{"type": "text", "text": content}]}
    return message


def _blocks(message: Body, kind: str) -> list[Body]:
    return [block for block in message.get("content", ()) if block["type"] == kind]


def _content(said: Said) -> list[Body]:
    blocks: list[Body] = []
    if said.reasoning:
        blocks.append({"type": "thinking", "thinking": said.reasoning, "signature": said.signature})
    if said.redacted:
        blocks.append({"type": "redacted_thinking", "data": said.redacted})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    for call in said.calls:
        use = {"id": call.id, "name": call.name, "input": dict(call.arguments)}
        blocks.append({"type": "tool_use", **use})
    return blocks


def _deltas(block: Body) -> tuple[Body, list[Body]]:
    """How a block begins and what is streamed of it."""
    match block:
        case {"type": "text", "text": text}:
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(text)]
            return block | {"text": ""}, deltas
        case {"type": "thinking", "thinking": text, "signature": signature}:
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(text)]
            signed = {"type": "signature_delta", "signature": signature}
            return block | {"thinking": "", "signature": ""}, [*deltas, signed]
        case {"type": "tool_use", "input": arguments}:
            parts = ["", *pieces(json.dumps(arguments))]
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
            return block | {"input": {}}, deltas
        case _:
            return block, []


def _stop(said: Said) -> str:
    return "tool_use" if said.calls else "end_turn"


def _message(said: Said, body: Body) -> Body:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}
    return head | {"stop_sequence": None, "usage": _usage(said)}


def _usage(said: Said) -> dict[str, Any]:
    counts = said.counts
    return {
        "input_tokens": counts.prompt - counts.cached - counts.written,
        "cache_creation_input_tokens": counts.written,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.completion,
    }


def _event(value: Body) -> bytes:
    return event(value, name=value["type"])
