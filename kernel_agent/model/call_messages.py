"""Messages with native calls, and the same as text for those who do not take them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from kernel_agent.steps import Message


def calls_of(message: Message) -> list[dict[str, Any]]:
    """The calls of an assistant's message, empty for any other."""
    calls: list[dict[str, Any]] = message.get("tool_calls") or []
    return calls


def as_text(messages: Sequence[Message], which: Collection[int] | None = None) -> list[Message]:
    """`messages` with calls and their results as text.

    `which` are the places of the assistant's messages to rewrite, None for all of them. Results
    become one message of the user's, together with the user's message that follows.
    """
    rewritten: list[Message] = []
    is_text = False
    for number, native in enumerate(messages):
        message = native
        if native["role"] == "assistant":
            is_text = bool(calls_of(native)) and (which is None or number in which)
            message = _told(native) if is_text else native
        elif native["role"] == "tool" and is_text:
            message = {"role": "user", "content": native["content"]}
        last = rewritten[-1] if rewritten else None
        if is_text and last and message["role"] == "user" == last["role"]:
            last["content"] = _joined(last["content"], message["content"])
        else:
            rewritten.append(message)
    return rewritten


def without_twins(messages: Sequence[Message]) -> list[Message]:
    """`messages` where two calls of one reply are never the same, and results neither.

    litellm sends equal calls to Gemini as one, but each of their results: that is refused. The
    result of the second goes to the first.
    """
    kept: list[Message] = []
    twins: dict[str, str] = {}
    results: dict[str, Message] = {}
    for message in messages:
        if message.get("tool_calls"):
            twins, results = {}, {}
            first: dict[tuple[str, str], str] = {}
            for call in message["tool_calls"]:
                key = (call["function"]["name"], call["function"]["arguments"])
                twins[call["id"]] = first.setdefault(key, call["id"])
            calls = [call for call in message["tool_calls"] if twins[call["id"]] == call["id"]]
            message["tool_calls"] = calls
        if message["role"] == "tool":
            identity = message["tool_call_id"]
            same = results.get(twins.get(identity, ""))
            if same is not None:
                same["content"] = _both(same["content"], message["content"])
                continue
            results[identity] = message
        kept.append(message)
    return kept


def _both(first: str, second: str) -> str:
    outputs = [json.loads(content)["output"] for content in (first, second)]
    return json.dumps({"output": "\n\n".join(outputs)}, ensure_ascii=False)


def _told(message: Message) -> Message:
    """An assistant's message whose calls are told in its text, each as a fenced block."""
    texts = [message["content"]] if message["content"] else []
    texts += [_fence(call["function"]) for call in message["tool_calls"]]
    told = {key: value for key, value in message.items() if key != "tool_calls"}
    return told | {"content": "\n\n".join(texts)}


def _fence(function: dict[str, Any]) -> str:
    name, arguments = function["name"], function["arguments"]
    try:
        values = json.loads(arguments or "{}")
    except ValueError:
        values = None
    match values:
        case {"code": str() as code, **more} if not more:
            return f"```{name}\n{code}\n```"
        case _:
            return f"```\n{name}({arguments})\n```"


def _joined(first: Any, second: Any) -> Any:
    """Two contents as one: texts with a blank line between, parts after them."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
