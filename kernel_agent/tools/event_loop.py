"""One event loop in a thread, for the coroutines of all tools."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable
from typing import Any

_STOP_SECONDS = 5.0  # that coroutines have to end when they are cancelled


class EventLoop:
    """Runs coroutines from any thread on a loop that starts with the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def run(self, awaitable: Awaitable[Any], *, name: str, timeout: float | None) -> Any:
        """Wait for the awaitable of tool `name` in the calling thread.

        Raises TimeoutError after `timeout` seconds (then it is cancelled), and what it raises.
        """
        coroutine = _within(awaitable, name, timeout)
        with self._lock:  # so that nothing is given to a loop that `close` has stopped
            if self._is_closed:
                coroutine.close()
                if inspect.iscoroutine(awaitable):
                    awaitable.close()
                raise RuntimeError("The tools are closed: the run is over.")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._started())
        return future.result()

    def close(self) -> None:
        """Cancel what still runs and end the thread."""
        with self._lock:
            self._is_closed = True
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STOP_SECONDS)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_run, args=(self._loop,), name="kernel-agent-tools", daemon=True
            )
            self._thread.start()
        return self._loop


async def _within(awaitable: Awaitable[Any], name: str, seconds: float | None) -> Any:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await awaitable
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(f"{name}() has not ended within {seconds:g} s.") from error
        raise


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=_STOP_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
