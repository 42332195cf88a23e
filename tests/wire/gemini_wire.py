"""Gemini's generateContent: https://ai.google.dev/api/generate-content and its SDK's types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.wire.answers import Said, pieces
from tests.wire.server import Body, constant, event, exact, list_of, violations

STRING = {"type": "string", "minLength": 1}
SIGNED = {"thoughtSignature": STRING}
TEXT = exact({"text": STRING}, {"thought": {"type": "boolean"}, **SIGNED})
BLOB = exact({"inlineData": exact({"mimeType": STRING, "data": STRING})})
CALL = exact(
    {"functionCall": exact({"name": STRING}, {"args": {"type": "object"}, "id": STRING})}, SIGNED
)
RESULT = exact(
    {"functionResponse": exact({"name": STRING, "response": {"type": "object"}}, {"id": STRING})}
)
DECLARATION = exact(
    {"name": {"type": "string", "pattern": r"^[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}$"}},
    {"description": STRING, "parameters": {}, "parametersJsonSchema": {}},
)
GENERATION = exact(
    {},
    {
        "temperature": {"type": "number"},
        "maxOutputTokens": {"type": "integer"},
        "responseMimeType": constant("application/json"),
        "responseSchema": {"type": "object"},
        "responseJsonSchema": {"type": "object"},
        "thinkingConfig": exact(
            {},
            {
                "includeThoughts": {"type": "boolean"},
                "thinkingBudget": {"type": "integer"},
                "thinkingLevel": {"enum": ["minimal", "low", "medium", "high"]},
            },
        ),
    },
)
REQUEST = exact(
    {
        "contents": list_of(
            exact({"role": constant("user"), "parts": list_of(TEXT, BLOB, RESULT)}),
            exact({"role": constant("model"), "parts": list_of(TEXT, CALL)}),
        )
    },
    {
        "systemInstruction": exact({"parts": list_of(TEXT)}, {"role": STRING}),
        "tools": list_of(exact({"functionDeclarations": list_of(DECLARATION)})),
        "toolConfig": exact(
            {"functionCallingConfig": exact({"mode": {"enum": ["AUTO", "ANY", "NONE"]}})}
        ),
        "generationConfig": GENERATION,
    },
)
# What is the user's own and not named by the API.
_FREE = {
    "args",
    "response",
    "responseSchema",
    "responseJsonSchema",
    "parameters",
    "parametersJsonSchema",
}
_PLACEHOLDER = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="  # as Google's documents allow it


@dataclass
class GeminiWire:
    """`is_strict` where the first call of a step has to carry a signature, as from Gemini 3 on."""

    is_strict: bool = False
    path: str = ""

    def problems(
        self, path: str, headers: Mapping[str, str], body: Body, sent: list[Said]
    ) -> Iterator[str]:
        if not re.search(r":(streamGenerateContent|generateContent)(\?|$)", path):
            yield f"nothing is at {path}"
            return
        named = _in_camel_case(body)
        yield from violations(named, REQUEST)
        contents = named.get("contents", [])
        yield from _order(contents)
        yield from self._signatures(contents, sent)
        if "tools" not in named and any(_parts(content, "functionCall") for content in contents):
            yield "a functionCall without tools"

    def _signatures(self, contents: list[Body], sent: list[Said]) -> Iterator[str]:
        known = {said.signature for said in sent}
        known |= {call.signature for said in sent for call in said.calls}
        for number, content in enumerate(contents):
            for part in content["parts"]:
                signature = part.get("thoughtSignature", "")
                if signature not in known | {"", _PLACEHOLDER}:
                    yield f"contents/{number}: thought signature is not valid"
            first = next(iter(_parts(content, "functionCall")), None)
            if self.is_strict and first and "thoughtSignature" not in first:
                yield f"contents/{number}: function call is missing a thought_signature"

    def is_streamed(self, path: str, body: Body) -> bool:
        return ":streamGenerateContent" in path

    def whole(self, said: Said, body: Body) -> Body:
        return _response(_said_parts(said), said, "STOP")

    def events(self, said: Said, body: Body) -> Iterator[bytes]:
        for piece in pieces(said.reasoning):
            yield event(_response([{"text": piece, "thought": True}], said))
        for piece in pieces(said.text):
            yield event(_response([{"text": piece}], said))
        rest = [part for part in _said_parts(said) if "functionCall" in part]
        if said.signature and said.text:
            rest = [{"text": "", "thoughtSignature": said.signature}, *rest]
        yield event(_response(rest or [{"text": ""}], said, "STOP"))

    def refusal(self, message: str) -> Body:
        return {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}


def _in_camel_case(value: Any) -> Any:
    """`value` with the API's names as documented: its servers take `snake_case` for each, too."""
    match value:
        case dict():
            named = {re.sub(r"_([a-z])", lambda m: m[1].upper(), key): key for key in value}
            return {
                name: value[key] if name in _FREE else _in_camel_case(value[key])
                for name, key in named.items()
            }
        case list():
            return [_in_camel_case(item) for item in value]
        case _:
            return value


def _order(contents: list[Body]) -> Iterator[str]:
    if contents and (contents[0]["role"], contents[-1]["role"]) != ("user", "user"):
        yield "contents do not begin and end with the user's"
    waiting: list[str] = []
    for number, content in enumerate(contents):
        answers = [part["functionResponse"]["name"] for part in _parts(content, "functionResponse")]
        if answers != waiting:
            yield f"contents/{number}: the function calls {waiting} are answered by {answers}"
        waiting = [part["functionCall"]["name"] for part in _parts(content, "functionCall")]
        if waiting and (number == 0 or contents[number - 1]["role"] != "user"):
            yield f"contents/{number}: a function call turn does not come after a user's turn"
    if waiting:
        yield f"the function calls {waiting} have no answer"


def _parts(content: Body, kind: str) -> list[Body]:
    return [part for part in content["parts"] if kind in part]


def _said_parts(said: Said) -> list[Body]:
    parts: list[Body] = []
    if said.reasoning:
        parts.append({"text": said.reasoning, "thought": True})
    if said.text:
        parts.append({"text": said.text})
        if said.signature:
            parts[-1]["thoughtSignature"] = said.signature
    for call in said.calls:
        part: Body = {"functionCall": {"name": call.name, "args": dict(call.arguments)}}
        if call.signature:
            part["thoughtSignature"] = call.signature
        parts.append(part)
    return parts


def _response(parts: list[Body], said: Said, finish: str | None = None) -> Body:
    counts = said.counts
    candidate: Body = {"index": 0, "content": {"role": "model", "parts": parts}}
    if finish:
        candidate["finishReason"] = finish
    usage = {
        "promptTokenCount": counts.prompt,
        "cachedContentTokenCount": counts.cached,
        "candidatesTokenCount": counts.completion - counts.reasoning,
        "thoughtsTokenCount": counts.reasoning,
        "totalTokenCount": counts.prompt + counts.completion,
    }
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini"}
