"""What `litellm.completion` is asked for: our messages as the provider takes them."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kernel_agent.model.call_messages import as_text, calls_of, without_twins
from kernel_agent.model.media_parts import fit_part, may_take, without_media
from kernel_agent.model.peers import Peer
from kernel_agent.model.prefixes import STAMP, drop_strangers
from kernel_agent.model.protocol import JsonTool
from kernel_agent.model.replies import PROVIDER
from kernel_agent.steps import Format, Message

JSON_REPLY = {
    "type": "json_schema",
    "json_schema": {
        "name": "step",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"thought": {"type": "string"}, "code": {"type": "string"}},
            "required": ["thought", "code"],
            "additionalProperties": False,
        },
    },
}
"""The `response_format` of the format "json"."""

_CACHE = {"type": "ephemeral"}
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,40}")
_MISTRAL_ID = re.compile(r"[A-Za-z0-9]{9}")
_THINKING = ("thinking", "redacted_thinking")


def build(
    name: str,
    messages: Sequence[Message],
    *,
    tools: Sequence[JsonTool] = (),
    reply_format: Format = "fence",
    params: Mapping[str, Any],
) -> dict[str, Any]:
    """The arguments of `litellm.completion` for the model `name`.

    `messages` are ours, which are the same for every provider; they are copied and adapted: what
    the provider does not take is left out (reasoning, signatures of other makers), what it wants
    is put in (cache markers, reasoning). Calls are sent as such with the format "tools", else as
    text. The same messages give the same bytes, and further messages do not change those before
    them, apart from cache markers, of which there are at most three. `params` go on as they are.
    """
    peer = Peer.of(name, params)
    offered = [dict(copy.deepcopy(tool)) for tool in tools] if reply_format == "tools" else []
    request: dict[str, Any] = {"model": name}
    is_bridged = peer.asks_responses(offered, params)
    if is_bridged:
        request |= _for_responses(peer, params)
        for tool in offered:
            # As chat completions have it; there, each parameter would be made a required one.
            tool["function"] = {"strict": False, **tool["function"]}
    if offered:
        request["tools"] = offered
    if reply_format == "json":
        request["response_format"] = copy.deepcopy(JSON_REPLY)
    if peer.thinks_by_budget(params) and not {"max_tokens", "max_completion_tokens"} & set(params):
        # litellm would leave 4,096 tokens for the reply, where it leaves all without thinking.
        request |= {"max_tokens": most} if (most := peer.info("max_output_tokens")) else {}
    # A run may go on with a model that takes less than the one before it.
    adapted = copy.deepcopy(
        list(without_media(messages, lambda kind: not peer.is_known or may_take(peer, kind)))
    )
    adapted = _with_own_calls(adapted, peer, params) if offered else as_text(adapted)
    _fit_ids(adapted, peer)
    stamps = _stamps(adapted)
    for message in adapted:
        _fit(message, peer, request | dict(params), is_bridged=is_bridged)
    if peer.is_gemini:
        adapted = without_twins(adapted)
    if peer.is_claude and not peer.thinks_by_budget(params):
        drop_strangers(adapted, offered, stamps)
    if peer.takes_cache_markers:
        _mark(adapted)
    return request | {"messages": adapted} | dict(params)


def _for_responses(peer: Peer, params: Mapping[str, Any]) -> dict[str, Any]:
    """What makes OpenAI's Responses API keep nothing, as chat completions do not.

    Then all of the reasoning comes and goes in the messages, so that a run can go on at any time:
    items that are kept there are gone after a month, and are never there for some customers.
    """
    if not peer.info("supports_reasoning") or {"store", "include", "extra_body"} & set(params):
        return {}
    return {"store": False, "include": ["reasoning.encrypted_content"]}


def _with_own_calls(
    messages: list[Message], peer: Peer, params: Mapping[str, Any]
) -> list[Message]:
    """The messages, with those calls as text that a thinking Claude would not take as such.

    Its turn, up to the user's next words, has to begin with its own thinking: with calls of
    another model's, or from before it was told to think, the request would be refused.
    """
    if not peer.thinks_by_budget(params):
        return messages
    foreign: list[int] = []
    begins = True
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            if begins and calls_of(message) and not _signed(message, _THINKING):
                foreign.append(number)
                continue
            begins = False
        begins = begins or message["role"] == "user"
    return as_text(messages, foreign)


def _fit(message: Message, peer: Peer, params: Mapping[str, Any], *, is_bridged: bool) -> None:
    """Give `message` the keys that the provider wants and take away those it does not take."""
    content = message["content"]
    if isinstance(content, list):
        message["content"] = [fit_part(part, peer) for part in content]
    if message["role"] == "tool" and peer.is_gemini and isinstance(content, str):
        # litellm reads a result that looks like JSON as one, and some is none in the end (NaN).
        message["content"] = json.dumps({"output": content}, ensure_ascii=False)
    if message["role"] != "assistant":
        return
    for call in calls_of(message):
        _fit_call(call, peer)
    if not content and calls_of(message):
        message["content"] = None  # an empty text is refused by some
    _fit_reasoning(message, peer, params, is_bridged=is_bridged)


def _fit_call(call: dict[str, Any], peer: Peer) -> None:
    if not peer.is_gemini:
        call.pop("provider_specific_fields", None)
    function = call["function"]
    try:
        is_object = isinstance(json.loads(function["arguments"] or "{}"), dict)
    except ValueError:
        is_object = False
    if not is_object:
        # Anthropic, Gemini and many chat templates want an object, whatever the model wrote.
        function["arguments"] = json.dumps({"unreadable": function["arguments"]})
    elif not function["arguments"].strip():
        function["arguments"] = "{}"


def _fit_reasoning(
    message: Message, peer: Peer, params: Mapping[str, Any], *, is_bridged: bool
) -> None:
    reasoning = message.pop("reasoning_content", "")
    thinking = _signed(message, _THINKING)
    signatures = [block["signature"] for block in _signed(message, ("thought_signature",))]
    own = [call.get("provider_specific_fields") for call in calls_of(message)]
    of_text = [each for each in signatures if {"thought_signature": each} not in own]
    items = [
        {key: value for key, value in item.items() if key != PROVIDER}
        for item in _signed(message, ("reasoning",))
        if item.get(PROVIDER) == peer.provider  # another cannot read what is encrypted in it
        and (item.get("encrypted_content") or params.get("store") is not False)
    ]
    details = [
        block
        for block in _signed(message, ("reasoning.",))
        if peer.takes_detail(block.get("format"))
    ]
    message.pop("thinking_blocks", None)
    if thinking and peer.thinks(params):
        message["thinking_blocks"] = thinking
    if peer.is_gemini and of_text:
        message["provider_specific_fields"] = {"thought_signatures": of_text[:1]}
    if is_bridged and items:
        # litellm puts all before the reply's text and calls, where each has to be directly before
        # what it led to: of several the last one, which is all that litellm tells of a whole reply.
        message["reasoning_items"] = items[-1:]
    if details:
        message["reasoning_details"] = details
    if peer.takes_reasoning and reasoning:
        message["reasoning_content"] = reasoning
    elif peer.needs_reasoning and calls_of(message):
        message["reasoning_content"] = " "  # calls of another model's are refused without any
    elif peer.takes_plain_reasoning and reasoning and not details:
        message["reasoning"] = reasoning


def _signed(message: Message, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """The signed blocks whose type is one of `kinds`, or begins with it where it ends in a dot."""
    return [
        block
        for block in message.get("thinking_blocks") or ()
        if any(
            block["type"].startswith(kind) if kind.endswith(".") else block["type"] == kind
            for kind in kinds
        )
    ]


def _stamps(messages: Iterable[Message]) -> dict[int, str]:
    return {
        number: block["digest"]
        for number, message in enumerate(messages)
        for block in _signed(message, (STAMP,))
    }


def _fit_ids(messages: Iterable[Message], peer: Peer) -> None:
    """Give calls ids that are unique in the conversation and that the provider takes."""
    used: set[str] = set()
    now: dict[str, str] = {}
    for message in messages:
        for call in calls_of(message):
            fit = _fit_id(call["id"], peer)
            number = 1
            while fit in used:
                number += 1
                fit = _fit_id(f"{call['id']}_{number}", peer)
            used.add(fit)
            now[call["id"]] = call["id"] = fit
        if message["role"] == "tool":
            message["tool_call_id"] = now.get(message["tool_call_id"], message["tool_call_id"])


def _fit_id(identity: str, peer: Peer) -> str:
    form = _MISTRAL_ID if peer.provider == "mistral" else _ID
    if form.fullmatch(identity):
        return identity
    return hashlib.sha256(identity.encode()).hexdigest()[:9]


def _mark(messages: list[Message]) -> None:
    """Set cache markers: where this request ends and where the one before it ended.

    The one before ended with the message before the last reply. The system prompt's own marker
    outlives a cut, which changes all that follows.
    """
    last_reply = max(
        (number for number, message in enumerate(messages) if message["role"] == "assistant"),
        default=0,
    )
    ends = {0, max(0, last_reply - 1), len(messages) - 1}
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if number in ends:
                message["cache_control"] = dict(_CACHE)
            continue
        # As parts in every request, so that a marker that moves on changes nothing else.
        if message["role"] != "assistant" and isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
        if number in ends and message["content"]:
            if isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
            message["content"][-1]["cache_control"] = dict(_CACHE)
