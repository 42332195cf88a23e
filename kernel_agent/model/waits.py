"""Which threads wait for a model's reply, so that each wait can be ended by its thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kernel_agent.model.waiting import Waiting


class Waits:
    """The waits for one model, several of a thread where its listener asks while it is told."""

    def __init__(self) -> None:
        self._by_thread: dict[int, tuple[Waiting, ...]] = {}

    @property
    def current(self) -> Waiting | None:
        """The wait that this thread has begun last; None if it waits for nothing."""
        return next(iter(self._by_thread.get(threading.get_ident(), ())[::-1]), None)

    @contextmanager
    def begun(self, waiting: Waiting) -> Iterator[Waiting]:
        """Let `waiting` be one of this thread until the end of the block."""
        thread = threading.get_ident()
        outer = self._by_thread.get(thread, ())
        self._by_thread[thread] = (*outer, waiting)
        try:
            yield waiting
        finally:
            if outer:
                self._by_thread[thread] = outer
            else:
                del self._by_thread[thread]

    def cancel(self, thread: int) -> None:
        """End all waits of `thread`; see `Waiting.cancel`."""
        for waiting in self._by_thread.get(thread, ()):
            waiting.cancel()
