"""Reading what litellm gives back, whole or in chunks: text, reasoning, calls and signatures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kernel_agent.events import Listener, ReplyText
from kernel_agent.model.call_text import CallText, whole_characters
from kernel_agent.model.peers import Peer
from kernel_agent.model.prefixes import stamp_of
from kernel_agent.model.protocol import JsonTool
from kernel_agent.steps import RequestedCall

PROVIDER = "provider"
"""The key, in a signed item of OpenAI's reasoning, of who gave it."""

_DRAFT = re.compile(r"<(?:think|thinking)>(.*?)</(?:think|thinking)>(.*)", re.DOTALL)
# litellm hides a signature of Gemini's in the id, for clients that keep nothing else.
_SIGNATURE_IN_ID = "__thought__"


@dataclass
class _Call:
    """A native call as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    code: CallText = field(default_factory=CallText)


class ReplyReader:
    """Gathers one reply; `add` each chunk of a stream, or give the `whole` response.

    `name` is the model's and `tools` are those that were offered to it, the code's first. With
    the `request`, as `build` made it, Claude's thinking is bound to what it was made behind. The
    `listener` is told each piece as `ReplyText`: text, reasoning, and calls as code. A call of
    the code's tool is shown as a fence while it streams in, another as `name(arguments)` when it
    is complete.
    """

    def __init__(
        self,
        listener: Listener | None = None,
        *,
        name: str = "",
        tools: Sequence[JsonTool] = (),
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.finish_reason: str | None = None
        self.usage_told: Any = None
        self._listener = listener
        self._peer = Peer.of(name)
        self._stamp = stamp_of(request) if request and self._peer.is_claude else None
        self._code_tool = tools[0]["function"]["name"] if tools else ""
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._signed: list[dict[str, Any]] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._open: _Call | None = None

    @property
    def has_begun(self) -> bool:
        """Whether anything has come that has to be paid."""
        return bool(self._texts or self._reasonings or self._calls)

    @property
    def text(self) -> str:
        return self._split()[1]

    @property
    def reasoning(self) -> str:
        return self._split()[0]

    @property
    def calls(self) -> tuple[RequestedCall, ...]:
        """The calls in order; one that came without an id has `call_1`, … by its place."""
        return tuple(
            RequestedCall(
                call.id or f"call_{number}",
                call.name,
                whole_characters(call.arguments),
                call.extra,
            )
            for number, call in enumerate(self._calls, 1)
        )

    @property
    def signed(self) -> tuple[Mapping[str, Any], ...]:
        """What the provider wants back as it is; `requests` knows by its type to whom it goes."""
        kept = tuple(block for block in self._signed if _is_worth_keeping(block))
        return (*kept, self._stamp) if kept and self._stamp else kept

    def add(self, chunk: Any) -> None:
        """Take the next chunk of a stream."""
        self.usage_told = getattr(chunk, "usage", None) or self.usage_told
        for choice in chunk.choices:
            self._take(choice.delta)
            if choice.finish_reason:
                self.finish_reason = choice.finish_reason
                self._close_call()

    def whole(self, response: Any) -> None:
        """Take a response that came at once, which has at least one choice."""
        self.usage_told = getattr(response, "usage", None)
        choice = response.choices[0]
        self._take(choice.message)
        self.finish_reason = choice.finish_reason
        self._close_call()

    def _take(self, message: Any) -> None:
        # litellm leaves attributes out where there is nothing to say.
        if reasoning := getattr(message, "reasoning_content", None):
            self._reasonings.append(reasoning)
            self._tell(reasoning, reasoning=True)
        if text := getattr(message, "content", None):
            self._texts.append(text)
            self._tell(text)
        self._take_signed(message)
        for number, part in enumerate(getattr(message, "tool_calls", None) or ()):
            index = getattr(part, "index", None)
            self._take_call(part, number if index is None else index)

    def _take_signed(self, message: Any) -> None:
        fields = getattr(message, "provider_specific_fields", None) or {}
        if self._peer.is_claude:
            for block in getattr(message, "thinking_blocks", None) or ():
                _add_thinking(self._signed, dict(block))
        if self._peer.is_gemini:
            for signature in fields.get("thought_signatures") or ():
                self._signed.append({"type": "thought_signature", "signature": signature})
        details = getattr(message, "reasoning_details", None) or fields.get("reasoning_details")
        for block in details or ():
            _add_detail(self._signed, dict(block))
        for item in getattr(message, "reasoning_items", None) or ():
            self._signed.append(dict(item) | {PROVIDER: self._peer.provider})

    def _take_call(self, part: Any, index: int) -> None:
        call = self._by_index.get(index)
        identity, _, signature = str(part.id or "").partition(_SIGNATURE_IN_ID)
        # Some servers give every call the same index: then a new id and name begin a new call.
        # Others give every piece of a call an id of its own, but only the first one the name.
        is_new = part.function.name and identity and call and call.id and identity != call.id
        if call is None or is_new:
            call = _Call()
            self._calls.append(call)
            self._by_index[index] = call
        call.id = call.id or identity
        call.name = call.name or part.function.name or ""
        fields = getattr(part, "provider_specific_fields", None) or {}
        if signature := fields.get("thought_signature") or signature:
            call.extra["provider_specific_fields"] = {"thought_signature": signature}
        if call is not self._open:
            self._close_call()
            self._open = call
            if self._is_code(call):
                self._tell(f"```{call.name}\n")
        # Where it makes up a stream itself (gpt-5-pro), litellm tells the arguments twice.
        if (piece := part.function.arguments) and not _is_object(call.arguments):
            call.arguments += piece
            if self._is_code(call):
                self._tell_code(call, piece)

    def _tell_code(self, call: _Call, piece: str) -> None:
        if not call.code.is_complete:
            self._tell(call.code.add(piece))

    def _close_call(self) -> None:
        call, self._open = self._open, None
        if call is None:
            return
        self._tell("\n```\n" if self._is_code(call) else f"{call.name}({call.arguments})\n")

    def _is_code(self, call: _Call) -> bool:
        return bool(self._code_tool) and call.name == self._code_tool

    def _tell(self, text: str, *, reasoning: bool = False) -> None:
        if self._listener and text:
            self._listener(ReplyText(whole_characters(text), reasoning=reasoning))

    def _split(self) -> tuple[str, str]:
        """Reasoning and text, apart even where a server leaves both in the text."""
        # Joined first: some servers cut a character in two.
        reasoning = whole_characters("".join(self._reasonings))
        text = whole_characters("".join(self._texts))
        # litellm does the same to a reply that comes whole.
        if not reasoning and (draft := _DRAFT.match(text)):
            reasoning, text = draft.groups()
        return reasoning, text


def _is_object(arguments: str) -> bool:
    """Whether they are complete."""
    if not arguments.rstrip().endswith("}"):
        return False
    with suppress(ValueError):
        return isinstance(json.loads(arguments), dict)
    return False


def _add_thinking(blocks: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Add a piece of a thinking block: it goes on until its signature is there."""
    last = blocks[-1] if blocks else {}
    if piece.get("type") == "redacted_thinking":
        if piece not in blocks:  # litellm may tell its start and its end
            blocks.append({"type": "redacted_thinking", "data": piece.get("data")})
        return
    if last.get("type") != "thinking" or last["signature"]:
        last = {"type": "thinking", "thinking": "", "signature": ""}
        blocks.append(last)
    last["thinking"] += piece.get("thinking") or ""
    last["signature"] = piece.get("signature") or ""


def _add_detail(blocks: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Add a piece of OpenRouter's: pieces of one index and type are one block."""
    same = ("type", "index", "format")
    last = blocks[-1] if blocks else {}
    if "index" not in piece or any(last.get(key) != piece.get(key) for key in same):
        blocks.append(piece)
        return
    for key, value in piece.items():
        if key in ("text", "summary", "data") and value is not None:
            last[key] = (last.get(key) or "") + value
        elif value is not None:
            last[key] = value


def _is_worth_keeping(block: Mapping[str, Any]) -> bool:
    """Whether it would be taken back: without its signature, Claude's thinking is refused."""
    is_claudes = str(block.get("format")).startswith("anthropic")
    if block.get("type") == "thinking" or (block.get("type") == "reasoning.text" and is_claudes):
        return bool(block.get("signature"))
    return True
