"""What a run needs of a language model, and what more it may be told by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kernel_agent.errors import ModelError
from kernel_agent.events import Listener
from kernel_agent.steps import Format, Message, Reply, Usage

JsonTool = Mapping[str, Any]
"""A tool as the chat completions API takes it: `{"type": "function", "function": {…}}`."""


class Model(Protocol):
    """What a run needs of a language model."""

    name: str

    @property
    def takes_images(self) -> bool:
        """Whether messages may hold images."""

    def complete(
        self,
        messages: Sequence[Message],
        listener: Listener | None = None,
        *,
        tools: Sequence[JsonTool] = (),
    ) -> Reply:
        """The model's reply to `messages`, which are sent as they are.

        `tools` are those that it may call natively: only a model whose `reply_format` is
        `"tools"` is given any, and only then messages hold `tool_calls` and such.

        With a `listener` the reply is streamed: the listener gets its pieces as `ReplyText` and
        failed tries as `ReplyRetried`. What a listener raises stops the reply and passes through.

        Raises ModelError when there is no reply.
        """

    def about(self) -> dict[str, Any]:
        """Facts for the transcript as JSON values: `name`, `parameters`. Never a secret."""


def reply_format(model: Model) -> Format:
    """How `model` is to write its replies: its own `reply_format`, `"fence"` if it has none."""
    return getattr(model, "reply_format", "fence")


def window(model: Model) -> int | None:
    """How many tokens messages and reply may have together; None where that is not known."""
    return getattr(model, "window", None)


def price(model: Model, usage: Usage) -> float | None:
    """What the tokens of `usage` would cost in USD; None where that is not known."""
    known = getattr(model, "price", None)
    return known(usage) if callable(known) else None


def check_media(model: Model, mimes: Sequence[str]) -> None:
    """Raises ModelError if `model` does not take files of one of these MIME types."""
    check = getattr(model, "check_media", None)
    if callable(check):
        check(mimes)
        return
    for mime in mimes:
        if not (model.takes_images and mime.startswith("image/")):
            raise ModelError(model.name, f"it takes no {mime.partition('/')[0]} ({mime!r}).")
