"""Reading what litellm gives back, whole or in chunks: text, reasoning, calls and signatures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from kernel_agent.events import Listener, ReplyText
from kernel_agent.model.call_text import GrowingCall, whole_characters
from kernel_agent.model.peers import Peer
from kernel_agent.model.prefixes import stamp_of
from kernel_agent.model.protocol import JsonTool
from kernel_agent.steps import RequestedCall

PROVIDER = "provider"
"""The key, in a signed item of OpenAI's reasoning, of who gave it."""

_Part = TypeVar("_Part")
_DRAFT = re.compile(r"<(?:think|thinking)>(.*?)</(?:think|thinking)>(.*)", re.DOTALL)
# litellm hides a signature of Gemini's in the id, for clients that keep nothing else.
_SIGNATURE_IN_ID = "__thought__"


class ReplyReader:
    """Gathers one reply; `add` each chunk of a stream, or give the `whole` response.

    `name` is the model's and `tools` are those that were offered to it, the code's first. With
    the `request`, as `build` made it, Claude's thinking is bound to what it was made behind. The
    `listener` is told each piece as `ReplyText`: text, reasoning, and calls as code. A call of
    the code's tool is shown as a fence while it streams in, another as `name(arguments)` when it
    is complete. A refusal is text. A part of a form that nobody documents is passed over, and named
    in `odd`.
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
        self.odd: list[str] = []
        self._listener = listener
        self._peer = Peer.of(name)
        self._stamp = stamp_of(request) if request and self._peer.is_claude else None
        self._code_tool = tools[0]["function"]["name"] if tools else ""
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._signed: list[dict[str, Any]] = []
        self._calls: list[GrowingCall] = []
        self._by_index: dict[int, GrowingCall] = {}
        self._open: GrowingCall | None = None

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

    def add(self, chunk: Any) -> str:
        """Take the next chunk of a stream; returns its text."""
        self.usage_told = getattr(chunk, "usage", None) or self.usage_told
        texts = []
        for choice in chunk.choices:
            texts.append(self._take(choice.delta))
            if choice.finish_reason:
                self.finish_reason = choice.finish_reason
                self._close_call()
        return "".join(texts)

    def whole(self, response: Any) -> None:
        """Take a response that came at once, which has at least one choice."""
        self.usage_told = getattr(response, "usage", None)
        choice = response.choices[0]
        self._take(choice.message)
        self.finish_reason = choice.finish_reason
        self._close_call()

    def _take(self, message: Any) -> str:
        """Take what a message holds; returns its text."""
        if reasoning := self._part(message, "reasoning_content", str):
            self._reasonings.append(reasoning)
            self._tell(reasoning, reasoning=True)
        fields = self._part(message, "provider_specific_fields", dict) or {}
        # litellm tells the refusal of a reply that comes whole among the provider's own fields.
        refusal = self._part(message, "refusal", str) or self._part(fields, "refusal", str) or ""
        if text := f"{self._part(message, 'content', str) or ''}{refusal}":
            self._texts.append(text)
            self._tell(text)
        self._take_signed(message, fields)
        for number, part in enumerate(self._part(message, "tool_calls", list) or ()):
            index = _found(part, "index")
            self._take_call(part, index if isinstance(index, int) else number)
        return text

    def _part(self, whole: Any, name: str, kind: type[_Part]) -> _Part | None:
        """The part of `whole` with this `name`; None if it is not there, or of another kind."""
        part = _found(whole, name)
        if isinstance(part, kind):
            return part
        if part:
            self._pass_over(f"`{name}` is of type {type(part).__name__}")
        return None

    def _pass_over(self, what: str) -> None:
        if what not in self.odd:
            self.odd.append(what)

    def _take_signed(self, message: Any, fields: Mapping[str, Any]) -> None:
        if self._peer.is_claude:
            for block in self._blocks(message, "thinking_blocks"):
                _add_thinking(self._signed, block)
        if self._peer.is_gemini:
            for signature in self._part(fields, "thought_signatures", list) or ():
                self._signed.append({"type": "thought_signature", "signature": signature})
        details = "reasoning_details"
        for block in self._blocks(message if _found(message, details) else fields, details):
            _add_detail(self._signed, block)
        for item in self._blocks(message, "reasoning_items"):
            self._signed.append(item | {PROVIDER: self._peer.provider})

    def _blocks(self, whole: Any, name: str) -> Iterator[dict[str, Any]]:
        """The objects in the list with this `name`."""
        for block in self._part(whole, name, list) or ():
            if isinstance(block, Mapping):
                yield dict(block)
            elif block:
                self._pass_over(f"`{name}` holds a part of type {type(block).__name__}")

    def _take_call(self, part: Any, index: int) -> None:
        if (function := _found(part, "function")) is None:
            kind = _found(part, "type") or type(part).__name__
            self._pass_over(f"it holds a call of type {kind}")
            return
        call = self._by_index.get(index)
        identity, _, signature = str(_found(part, "id") or "").partition(_SIGNATURE_IN_ID)
        name = self._part(function, "name", str) or ""
        piece = self._part(function, "arguments", str) or ""
        if call is None or call.is_followed_by(identity, name, piece):
            call = GrowingCall(name=name or (call.name if call else ""))
            self._calls.append(call)
            self._by_index[index] = call
        call.id = call.id or identity
        call.name = call.name or name
        fields = self._part(part, "provider_specific_fields", dict)
        if signature := self._part(fields, "thought_signature", str) or signature:
            call.extra["provider_specific_fields"] = {"thought_signature": signature}
        if call is not self._open:
            self._close_call()
            self._open = call
            if self._is_code(call):
                self._tell(f"```{call.name}\n")
        # Where it makes up a stream itself (gpt-5-pro), litellm tells the arguments twice.
        if piece and not call.is_complete:
            call.arguments += piece
            if self._is_code(call):
                self._tell_code(call, piece)

    def _tell_code(self, call: GrowingCall, piece: str) -> None:
        if not call.code.is_complete:
            self._tell(call.code.add(piece))

    def _close_call(self) -> None:
        call, self._open = self._open, None
        if call is None:
            return
        self._tell("\n```\n" if self._is_code(call) else f"{call.name}({call.arguments})\n")

    def _is_code(self, call: GrowingCall) -> bool:
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


def _found(whole: Any, name: str) -> Any:
    """The value with this `name`: litellm leaves out where there is nothing to say."""
    return whole.get(name) if isinstance(whole, Mapping) else getattr(whole, name, None)


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
    last["thinking"] += str(piece.get("thinking") or "")
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
            last[key] = f"{last.get(key) or ''}{value}"
        elif value is not None:
            last[key] = value


def _is_worth_keeping(block: Mapping[str, Any]) -> bool:
    """Whether it would be taken back: without its signature, Claude's thinking is refused."""
    is_claudes = str(block.get("format")).startswith("anthropic")
    if block.get("type") == "thinking" or (block.get("type") == "reasoning.text" and is_claudes):
        return bool(block.get("signature"))
    return True
