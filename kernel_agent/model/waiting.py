"""All waits of one request for a reply, each of which can be ended from another thread."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from typing import Any

from kernel_agent.errors import ModelError


class GivenUpError(ModelError):
    """Nobody waits for the reply any more."""


class Waiting:
    """The inbox of a thread that waits for the reply of `model`, for `seconds` in all.

    What it waits for comes from other threads, each putting in its items under its own name, so
    that nothing of a try that was given up is taken for the next one's. `deadline` is when the
    time is over (`time.monotonic`).
    """

    def __init__(self, model: str, *, seconds: float) -> None:
        self.model = model
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        # A SimpleQueue, because its put may be called from a signal handler.
        self._inbox: SimpleQueue[tuple[object, Any]] = SimpleQueue()

    def cancel(self) -> None:
        """End the wait, now and from now on: it raises GivenUpError."""
        self._inbox.put((self, None))

    def put(self, source: object, item: Any) -> None:
        """Hand `item` of `source` to the thread that waits."""
        self._inbox.put((source, item))

    def get(self, source: object, *, until: float) -> Any:
        """The next item of `source`; None if there is none `until` then (`time.monotonic`)."""
        while True:
            try:
                sender, item = self._inbox.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return None
            if sender is self:
                self.cancel()  # whoever waits next is to know it too
                raise GivenUpError(self.model, "the request was given up.")
            if sender is source:
                return item

    def check(self) -> None:
        """Raises GivenUpError if nobody waits any more: then nothing need be sent."""
        self.get(None, until=time.monotonic())

    def pause(self, seconds: float) -> None:
        """Wait for `seconds`."""
        self.get(None, until=time.monotonic() + seconds)
