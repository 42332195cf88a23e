"""OpenAI's chat completions, and the dialects of those who say that they speak it.

After https://platform.openai.com/docs/api-reference/chat/create and the types of its SDK.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.wire.answers import Said, pieces
from tests.wire.server import Body, constant, event, exact, list_of, violations

STRING = {"type": "string", "minLength": 1}
TEXT = exact({"type": constant("text"), "text": STRING})
CACHE = {"cache_control": exact({"type": constant("ephemeral")})}
MARKED = exact({"type": constant("text"), "text": STRING}, CACHE)
IMAGE = exact(
    {"type": constant("image_url"), "image_url": exact({"url": STRING}, {"detail": STRING})}
)
MARKED_IMAGE = exact(
    {"type": constant("image_url"), "image_url": exact({"url": STRING}, {"detail": STRING})}, CACHE
)
AUDIO = exact(
    {
        "type": constant("input_audio"),
        "input_audio": exact({"data": STRING, "format": {"enum": ["wav", "mp3"]}}),
    }
)
VIDEO = exact({"type": constant("video_url"), "video_url": exact({"url": STRING})})
CALL = exact(
    {
        "id": {"type": "string", "minLength": 1, "maxLength": 40},
        "type": constant("function"),
        "function": exact({"name": STRING, "arguments": {"type": "string"}}),
    }
)
TOOL = exact(
    {
        "type": constant("function"),
        "function": exact(
            {"name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}},
            {
                "description": {"type": "string"},
                "parameters": {"type": "object"},
                "strict": {"type": ["boolean", "null"]},
            },
        ),
    }
)
JSON_SCHEMA = exact(
    {
        "type": constant("json_schema"),
        "json_schema": exact(
            {"name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}},
            {"strict": constant(True), "schema": {"type": "object"}, "description": STRING},
        ),
    }
)


@dataclass
class OpenAIWire:
    """`message_keys` are what an assistant's message may have beside OpenAI's own keys.

    `reasoning` is the key in which reasoning comes, and `wants_reasoning` says that calls are
    refused without it (DeepSeek, Moonshot). `more` are further keys of the body, `media` the parts
    of a user's message beside `text`.
    """

    path: str = "/v1"
    message_keys: tuple[str, ...] = ()
    reasoning: str = "reasoning_content"
    wants_reasoning: bool = False
    more: tuple[str, ...] = ()
    media: tuple[Body, ...] = (IMAGE,)
    text: Body = field(default_factory=lambda: TEXT)

    def problems(
        self, path: str, headers: Mapping[str, str], body: Body, sent: list[Said]
    ) -> Iterator[str]:
        if not path.endswith("/chat/completions"):
            yield f"nothing is at {path}"
            return
        yield from violations(body, self._schema())
        yield from _order(body.get("messages", []))
        if self.wants_reasoning:
            for message in body.get("messages", []):
                if message.get("tool_calls") and not message.get(self.reasoning):
                    yield f"the {self.reasoning} in the thinking mode must be passed back"

    def _schema(self) -> Body:
        text = {"anyOf": [STRING, list_of(self.text)]}
        content = {"anyOf": [text, {"type": "null"}]}
        own: Body = {key: {} for key in self.message_keys}
        assistant = exact(
            {"role": constant("assistant")},
            {"content": content, "tool_calls": list_of(CALL), **own},
        )
        assistant["anyOf"] = [
            {"required": ["tool_calls"]},
            {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
        ]
        messages = list_of(
            exact({"role": {"enum": ["system", "developer"]}, "content": text}),
            exact(
                {
                    "role": constant("user"),
                    "content": {"anyOf": [STRING, list_of(self.text, *self.media)]},
                }
            ),
            assistant,
            exact({"role": constant("tool"), "content": text, "tool_call_id": STRING}),
        )
        options = {
            "stream": {"type": "boolean"},
            "stream_options": exact({"include_usage": {"type": "boolean"}}),
            "tools": list_of(TOOL),
            "tool_choice": {"enum": ["auto", "none", "required"]},
            "response_format": JSON_SCHEMA,
            "reasoning_effort": {"enum": ["none", "minimal", "low", "medium", "high", "xhigh"]},
            "max_tokens": {"type": "integer"},
            "temperature": {"type": "number"},
        }
        return exact(
            {"model": STRING, "messages": messages}, options | {key: {} for key in self.more}
        )

    def is_streamed(self, path: str, body: Body) -> bool:
        return bool(body.get("stream"))

    def whole(self, said: Said, body: Body) -> Body:
        message: Body = {"role": "assistant", "content": said.text or None}
        if said.reasoning:
            message[self.reasoning] = said.reasoning
        if said.calls:
            message["tool_calls"] = _calls(said)
        if said.details:
            message["reasoning_details"] = list(said.details)
        choice = {"index": 0, "message": message, "finish_reason": _finish(said)}
        head = _head(body) | {"object": "chat.completion"}
        return head | {"choices": [choice], "usage": _usage(said)}

    def events(self, said: Said, body: Body) -> Iterator[bytes]:
        yield _delta(body, {"role": "assistant", "content": ""})
        for detail in said.details:
            text = {"content": "", self.reasoning: detail.get("text")}
            yield _delta(body, text | {"reasoning_details": [detail]})
        for piece in pieces("" if said.details else said.reasoning):
            yield _delta(body, {self.reasoning: piece})
        for piece in pieces(said.text):
            yield _delta(body, {"content": piece})
        for number, call in enumerate(_calls(said)):
            arguments = call["function"]["arguments"]
            head = call | {"index": number, "function": call["function"] | {"arguments": ""}}
            yield _delta(body, {"tool_calls": [head]})
            for piece in pieces(arguments):
                yield _delta(
                    body, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
                )
        yield _delta(body, {}, finish=_finish(said))
        if (body.get("stream_options") or {}).get("include_usage"):
            yield event(_chunk(body) | {"choices": [], "usage": _usage(said)})
        yield b"data: [DONE]\n\n"

    def refusal(self, message: str) -> Body:
        kind = "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _order(messages: list[Body]) -> Iterator[str]:
    """Each call is answered, once, right behind the message it is in; ids are not used twice."""
    open_ids: list[str] = []
    for number, message in enumerate(messages):
        identity = message.get("tool_call_id")
        if message.get("role") == "tool":
            if identity not in open_ids:
                yield f"messages/{number}: it answers {identity!r}, which is not asked right before"
            else:
                open_ids.remove(identity)
            continue
        if open_ids:
            yield f"messages/{number}: {open_ids} of the calls before it have no answer"
        open_ids = [call["id"] for call in message.get("tool_calls") or ()]
        if len(set(open_ids)) < len(open_ids):
            yield f"messages/{number}: an id twice: {open_ids}"
        if message.get("role") == "system" and number:
            yield f"messages/{number}: a system message after the first"
    if open_ids:
        yield f"the calls {open_ids} have no answer"
    if messages and messages[-1]["role"] == "assistant":
        yield "nothing is asked: the last message is the assistant's"


def _calls(said: Said) -> list[Body]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for call in said.calls
    ]


def _finish(said: Said) -> str:
    return "tool_calls" if said.calls else "stop"


def _head(body: Body) -> Body:
    return {"id": "chatcmpl-1", "created": 1700000000, "model": body["model"]}


def _chunk(body: Body) -> Body:
    return _head(body) | {"object": "chat.completion.chunk"}


def _delta(body: Body, delta: Body, *, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event(_chunk(body) | {"choices": [choice]})


def _usage(said: Said) -> dict[str, Any]:
    counts = said.counts
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }
