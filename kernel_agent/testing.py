"""A model that replies from a script: for tests, demonstrations and replays."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kernel_agent.errors import ModelError
from kernel_agent.events import Listener, ReplyText
from kernel_agent.steps import Message, Reply

_WORD = re.compile(r"\s*\S+|\s+$")


class ScriptedModel:
    """Gives `replies` in order, whatever it is asked. A text stands for a `Reply` of that text.

    `pace` is the speed of streaming in characters per second, None for at once. `requests` are
    the messages it was sent, a list for each call.
    """

    takes_images = True

    def __init__(
        self,
        replies: Iterable[str | Reply],
        name: str = "scripted",
        *,
        pace: float | None = None,
    ) -> None:
        self.name = name
        self.requests: list[list[Message]] = []
        self._replies = [Reply(reply) if isinstance(reply, str) else reply for reply in replies]
        self._pace = pace

    def complete(
        self,
        messages: Sequence[Message],
        listener: Listener | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Reply:
        """The next reply, streamed word by word to `listener` if there is one.

        Raises ModelError when there is no reply left.
        """
        self.requests.append(list(messages))
        number, known = len(self.requests), len(self._replies)
        if number > known:
            reason = f"the script has ended: reply {number} was asked for and there are {known}."
            raise ModelError(self.name, reason)
        reply = self._replies[number - 1]
        if listener:
            self._tell(reply.reasoning, listener, reasoning=True)
            self._tell(reply.text, listener, reasoning=False)
        return reply

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "parameters": {}}

    def _tell(self, text: str, listener: Listener, *, reasoning: bool) -> None:
        for word in _WORD.findall(text):
            if self._pace:
                time.sleep(len(word) / self._pace)
            listener(ReplyText(word, reasoning=reasoning))
