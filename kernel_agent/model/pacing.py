"""Spaces the requests of a model whose provider takes only so many a minute."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress

from kernel_agent.events import Listener, RequestHeld
from kernel_agent.model.waiting import Waiting

MINUTE = 60.0


class Pace:
    """At most `per_minute` requests begin within any minute, whichever threads they come from."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._begins: deque[float] = deque(maxlen=per_minute)
        self._lock = threading.Lock()

    def hold(self, waiting: Waiting, listener: Listener | None) -> None:
        """Wait until a request may begin; the `listener` hears of it before, if there is a wait.

        What ends the wait early passes through, and the place is free again.
        """
        begin = self.reserve()
        wait = begin - time.monotonic()
        if wait <= 0:
            return
        try:
            if listener:
                reason = f"`requests_per_minute` is {self._per_minute}."
                listener(RequestHeld(reason, wait))
            waiting.pause(wait)
            waiting.deadline += wait  # which is for the provider, not for those before us
        except BaseException:
            self.release(begin)
            raise

    def reserve(self) -> float:
        """Take the next free place for a request; returns when it begins (`time.monotonic`)."""
        with self._lock:
            begin = time.monotonic()
            if len(self._begins) == self._begins.maxlen:
                begin = max(begin, self._begins[0] + MINUTE)
            self._begins.append(begin)
            return begin

    def release(self, begin: float) -> None:
        """Give the place of a request back that is not sent after all."""
        with self._lock, suppress(ValueError):  # later ones have taken its place already
            self._begins.remove(begin)
