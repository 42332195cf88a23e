"""OpenAI's Responses API, which litellm asks for newer models in place of chat completions.

After https://platform.openai.com/docs/api-reference/responses/create and the types of its SDK.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.wire.answers import Said, pieces
from tests.wire.server import Body, constant, event, exact, list_of, violations

STRING = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
INPUT_TEXT = exact({"type": constant("input_text"), "text": {"type": "string"}})
INPUT_IMAGE = exact(
    {
        "type": constant("input_image"),
        "image_url": STRING,
        "detail": {"enum": ["low", "high", "auto", "original"]},
    }
)
OUTPUT_TEXT = exact({"type": constant("output_text"), "text": STRING})
REASONING = exact(
    {
        "type": constant("reasoning"),
        "id": STRING,
        "summary": {
            "type": "array",
            "items": exact({"type": constant("summary_text"), "text": {"type": "string"}}),
        },
    },
    {"encrypted_content": STRING},
)
ITEMS = (
    exact(
        {"role": {"enum": ["user", "system", "developer"]}},
        {
            "type": constant("message"),
            "content": {"anyOf": [STRING, list_of(INPUT_TEXT, INPUT_IMAGE)]},
        },
    ),
    exact(
        {"role": constant("assistant")},
        {
            "type": constant("message"),
            "content": {"anyOf": [STRING, list_of(OUTPUT_TEXT)]},
            "phase": {"enum": ["commentary", "final_answer", None]},
        },
    ),
    REASONING,
    exact(
        {
            "type": constant("function_call"),
            "call_id": {"type": "string", "minLength": 1, "maxLength": 64},
            "name": NAME,
            "arguments": {"type": "string"},
        },
        {"id": {"type": "string", "pattern": "^fc_"}, "status": STRING},
    ),
    exact(
        {
            "type": constant("function_call_output"),
            "call_id": {"type": "string", "minLength": 1, "maxLength": 64},
            "output": {"anyOf": [{"type": "string"}, list_of(INPUT_TEXT, INPUT_IMAGE)]},
        },
        {"id": STRING, "status": STRING},
    ),
)
# `strict` and `parameters` have to be there, and may be null.
TOOL = exact(
    {
        "type": constant("function"),
        "name": NAME,
        "parameters": {"type": ["object", "null"]},
        "strict": {"type": ["boolean", "null"]},
    },
    {"description": {"type": ["string", "null"]}},
)
FORMAT = exact(
    {"type": constant("json_schema"), "name": NAME, "schema": {"type": "object"}},
    {"strict": {"type": ["boolean", "null"]}, "description": STRING},
)
EFFORTS = ["none", "minimal", "low", "medium", "high", "xhigh", "max"]
SUMMARIES = ["auto", "concise", "detailed", None]
SCHEMA = exact(
    {"model": STRING, "input": list_of(*ITEMS)},
    {
        "instructions": STRING,
        "stream": {"type": "boolean"},
        "stream_options": exact({}, {"include_obfuscation": {"type": "boolean"}}),
        "tools": list_of(TOOL),
        "tool_choice": {"enum": ["auto", "none", "required"]},
        "parallel_tool_calls": {"type": "boolean"},
        "reasoning": exact({}, {"effort": {"enum": EFFORTS}, "summary": {"enum": SUMMARIES}}),
        "text": exact({"format": FORMAT}),
        "include": list_of(constant("reasoning.encrypted_content")),
        "store": {"type": "boolean"},
        "max_output_tokens": {"type": "integer", "minimum": 16},
    },
)


@dataclass
class ResponsesWire:
    """Keeps nothing if it is told so, and then wants the encrypted reasoning back.

    Of an answer's `signature` it makes what is encrypted, of its place the item's id. With
    `reasons_often` there is an item of reasoning before each call, not only before the first.
    """

    path: str = "/v1"
    reasons_often: bool = False

    def problems(
        self, path: str, headers: Mapping[str, str], body: Body, sent: list[Said]
    ) -> Iterator[str]:
        if path != f"{self.path}/responses":
            yield f"nothing is at {path}"
            return
        if headers.get("Authorization") != "Bearer sk-test":
            yield "there is no key"
        yield from violations(body, SCHEMA)
        items = [item for item in body.get("input", []) if isinstance(item, dict)]
        yield from _calls_in_order(items)
        known = [item for said in sent for item in self._output(said) if _is(item, "reasoning")]
        yield from _reasoning_in_place(items, known, is_kept=body.get("store", True))

    def is_streamed(self, path: str, body: Body) -> bool:
        return bool(body.get("stream"))

    def whole(self, said: Said, body: Body) -> Body:
        return self._response(said, body, "completed")

    def events(self, said: Said, body: Body) -> Iterator[bytes]:
        for number, value in enumerate(self._events(said, body)):
            yield event(value | {"sequence_number": number}, name=value["type"])

    def refusal(self, message: str) -> Body:
        kind = "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def _events(self, said: Said, body: Body) -> Iterator[Body]:
        begun = self._response(said, body, "in_progress") | {"output": [], "usage": None}
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        for index, item in enumerate(self._shown(said, body)):
            place = {"output_index": index}
            empty = {key: [] for key in ("content", "summary") if key in item}
            empty |= {"arguments": ""} if "arguments" in item else {}
            yield {"type": "response.output_item.added", **place, "item": item | empty}
            place["item_id"] = item["id"]
            match item["type"]:
                case "reasoning":
                    yield from _summary_events(item, place)
                case "message":
                    yield from _text_events(item, place)
                case "function_call":
                    yield from _call_events(item, place)
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        yield {"type": "response.completed", "response": self._response(said, body, "completed")}

    def _response(self, said: Said, body: Body, status: str) -> Body:
        counts = said.counts
        usage = {
            "input_tokens": counts.prompt,
            "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
            "output_tokens": counts.completion,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.prompt + counts.completion,
        }
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1700000000,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": None,
            "metadata": {},
            "model": f"{body['model']}-2025-10-06",
            "output": self._shown(said, body),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": "high", "summary": None},
            "service_tier": "default",
            "store": body.get("store", True),
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": body.get("tools", []),
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
        }

    def _shown(self, said: Said, body: Body) -> list[Body]:
        """The output, with the encrypted reasoning only for who asks for it."""
        items = self._output(said)
        if "reasoning.encrypted_content" not in body.get("include", []):
            for item in items:
                item.pop("encrypted_content", None)
        return items

    def _output(self, said: Said) -> list[Body]:
        items = [_reasoning(said, "")] if said.signature else []
        if said.text:
            content = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
            message = {"type": "message", "id": "msg_1", "role": "assistant", "content": [content]}
            items.append(message | {"status": "completed"})
        for number, call in enumerate(said.calls):
            if number and self.reasons_often:
                items.append(_reasoning(said, f"_{number}"))
            items.append(
                {
                    "type": "function_call",
                    "id": f"fc_{call.id}",
                    "call_id": call.id,
                    "name": call.name,
                    "arguments": json.dumps(call.arguments),
                    "status": "completed",
                }
            )
        return items


def _reasoning(said: Said, more: str) -> Body:
    summary = [{"type": "summary_text", "text": said.reasoning}] if said.reasoning else []
    return {
        "type": "reasoning",
        "id": f"rs_{said.signature}{more}",
        "summary": summary,
        "encrypted_content": f"{said.signature}{more}",
    }


def _summary_events(item: Body, place: Body) -> Iterator[Body]:
    for number, part in enumerate(item["summary"]):
        here = place | {"summary_index": number}
        head = "response.reasoning_summary"
        yield {"type": f"{head}_part.added", **here, "part": part | {"text": ""}}
        for piece in pieces(part["text"]):
            yield {"type": f"{head}_text.delta", **here, "delta": piece}
        yield {"type": f"{head}_text.done", **here, "text": part["text"]}
        yield {"type": f"{head}_part.done", **here, "part": part}


def _text_events(item: Body, place: Body) -> Iterator[Body]:
    (part,) = item["content"]
    here = place | {"content_index": 0}
    yield {"type": "response.content_part.added", **here, "part": part | {"text": ""}}
    for piece in pieces(part["text"]):
        yield {"type": "response.output_text.delta", **here, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **here, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **here, "part": part}


def _call_events(item: Body, place: Body) -> Iterator[Body]:
    head = "response.function_call_arguments"
    for piece in pieces(item["arguments"]):
        yield {"type": f"{head}.delta", **place, "delta": piece}
    yield {"type": f"{head}.done", **place, "name": item["name"], "arguments": item["arguments"]}


def _is(item: Body, kind: str) -> bool:
    return bool(item.get("type") == kind)


def _calls_in_order(items: list[Body]) -> Iterator[str]:
    """Each call is answered once, before anybody says anything else; ids are not used twice."""
    waiting: list[str] = []
    used: set[str] = set()
    for number, item in enumerate(items):
        identity = str(item.get("call_id"))
        if _is(item, "function_call"):
            if identity in used:
                yield f"input/{number}: the id {identity!r} twice"
            used.add(identity)
            waiting.append(identity)
        elif _is(item, "function_call_output"):
            if identity not in waiting:
                yield f"input/{number}: no tool call found for call_id {identity!r}"
                continue
            waiting.remove(identity)
        elif waiting and not _is(item, "reasoning"):
            yield f"input/{number}: no tool output found for {waiting}"
    if waiting:
        yield f"no tool output found for {waiting}"
    if items and (_is(items[-1], "reasoning") or items[-1].get("role") == "assistant"):
        yield "nothing is asked: the last item is the assistant's"


def _reasoning_in_place(items: list[Body], known: list[Body], *, is_kept: bool) -> Iterator[str]:
    """Reasoning is what was said, once, with something of the assistant's right behind it."""
    used: list[str] = []
    for number, item in enumerate(items):
        if not _is(item, "reasoning"):
            continue
        where = f"input/{number}"
        secret = item.get("encrypted_content")
        found = [
            each
            for each in known
            if (secret is None or each["encrypted_content"] == secret)
            and item.get("id") == each["id"]
        ]
        if secret is None and not is_kept:
            yield f"{where}: item {item.get('id')!r} not found; items are not kept"
        elif not found:
            yield f"{where}: item {item.get('id')!r} is unknown, or its content was changed"
        elif item["summary"] != found[0]["summary"]:
            yield f"{where}: another summary than was said"
        behind: dict[str, Any] = items[number + 1] if number + 1 < len(items) else {}
        if not (_is(behind, "function_call") or behind.get("role") == "assistant"):
            yield f"{where}: reasoning was provided without its required following item"
        identity = str(item.get("id"))
        if identity in used:
            yield f"{where}: the item {identity!r} twice"
        used.append(identity)
