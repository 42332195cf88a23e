"""What came before a reply, as a short digest: Claude's thinking is worth nothing elsewhere.

Newer models refuse a thinking block if the system prompt, the tools or any message before it are
not what they were when it was made: after a cut, in a fork, or with other tools.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kernel_agent.steps import Message

STAMP = "prefix"
"""The `type` of the signed block that holds the digest of what was before a reply's thinking."""


def stamp_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The stamp for the thinking in the reply to `request`, as `build` made it."""
    *_, digest = _digests(request["messages"], request.get("tools", ()))
    return {"type": STAMP, "digest": digest}


def drop_strangers(
    messages: Sequence[Message], tools: Sequence[Any], stamps: Mapping[int, str]
) -> None:
    """Take the thinking out of messages that were not made behind what is before them now.

    `stamps` are the digests of those that have one, by their place among `messages`.
    """
    # Lazily: what is taken out here is not before the messages that follow.
    for number, digest in enumerate(_digests(messages, tools)):
        if stamps.get(number, digest) != digest:
            messages[number].pop("thinking_blocks", None)


def _digests(messages: Iterable[Message], tools: Sequence[Any]) -> Iterable[str]:
    """The digest of what is before each message, and at last of all of them."""
    state = hashlib.sha256(_bytes(list(tools)))
    for message in messages:
        yield state.hexdigest()[:16]
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        state.update(_bytes(message | {"content": content}))
    yield state.hexdigest()[:16]


def _bytes(value: Any) -> bytes:
    return json.dumps(_without_marks(value), sort_keys=True).encode()


def _without_marks(value: Any) -> Any:
    match value:
        case dict():
            return {k: _without_marks(v) for k, v in value.items() if k != "cache_control"}
        case list():
            return [_without_marks(item) for item in value]
        case _:
            return value
