"""Receives what a provider sends in a thread of its own, which can be given up at any moment.

The limits of an HTTP library do not suffice: each keep-alive of a server that has nothing to say
starts them anew.
"""

from __future__ import annotations

import importlib
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from kernel_agent.errors import ModelUnavailableError
from kernel_agent.model.waiting import Waiting

AFTER_END = 10.0
"""Longest wait for the token counts once the reply itself is complete, in seconds.

A reply that is complete is one, whatever breaks then.
"""


def received(
    send: Callable[[], Generator[Any, None, None]],
    waiting: Waiting,
    *,
    stall: float,
) -> Generator[Any, None, None]:
    """What `send` yields, which sends the request and runs in a thread of its own.

    These are chunks as litellm makes them, or one whole response. When the generator is closed
    before its end, or anything is raised, the connection is closed at once.

    Raises what `send` raises, GivenUpError, and ModelUnavailableError when it is not complete at
    the deadline of `waiting`, or when after the first words nothing is said for `stall` seconds.
    """
    waiting.check()
    source = _Source(send, waiting)
    model, end, silence, is_complete = waiting.model, waiting.deadline, math.inf, False
    try:
        while True:
            item = waiting.get(source, until=min(end, silence))
            match item:
                case None if is_complete:
                    return
                case None if silence < end:
                    raise ModelUnavailableError(model, f"it fell silent for {stall:,g} s.")
                case None:
                    reason = f"no reply was complete in {waiting.seconds:,g} s."
                    raise ModelUnavailableError(model, reason)
                case _Ended(None):
                    return
                case _Ended(ModelUnavailableError()) if is_complete:
                    return
                case _Ended(BaseException() as error):
                    raise error
            if is_complete or _is_last(item):
                is_complete, silence = True, time.monotonic() + AFTER_END
            elif _says_something(item):
                silence = time.monotonic() + stall
            yield item
    finally:
        source.give_up()


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None


class _Source:
    """The thread that sends a request and reads what comes."""

    def __init__(self, send: Callable[[], Generator[Any, None, None]], waiting: Waiting) -> None:
        self._send = send
        self._waiting = waiting
        self._is_done = self._is_given_up = False
        self._thread = threading.Thread(target=self._read, name="kernel-agent-wire", daemon=True)
        self._thread.start()

    def give_up(self) -> None:
        """Stop reading and close the connection; returns at once."""
        self._is_given_up = True
        if not self._is_done:
            threading.Thread(target=self._hang_up, name="kernel-agent-hang-up", daemon=True).start()

    def _read(self) -> None:
        error = None
        try:
            with closing(self._send()) as items:
                for item in items:
                    if self._is_given_up:
                        break
                    self._waiting.put(self, item)
        except BaseException as raised:  # whatever it is, it belongs to the thread that waits
            error = raised
        self._is_done = True
        self._waiting.put(self, _Ended(error))

    def _hang_up(self) -> None:
        """Wake the thread from its wait for the provider, as often as it begins one.

        A thread whose socket cannot be found wakes by itself at the provider's next piece, or when
        the timeout of the HTTP library is over. Nobody waits for it.
        """
        pause = 0.001
        while not self._is_done:
            if self._thread.ident and (wire := _wire_of(self._thread.ident)):
                with suppress(OSError):  # it is closed already
                    # Without TLS's own goodbye: the other thread is just using its state.
                    socket.socket.shutdown(wire, socket.SHUT_RDWR)
            self._thread.join(pause)
            pause = min(2 * pause, 0.25)


def _wire_of(thread: int) -> socket.socket | None:
    """The socket that `thread` reads from or writes to at this moment.

    litellm hands out no response before its end, and each provider's stream hides it elsewhere;
    what all have in common is the object in whose method the thread waits: a network stream of
    httpcore's, or a socket.
    """
    streams = getattr(importlib.import_module("httpcore"), "NetworkStream", ())
    frame = sys._current_frames().get(thread)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, streams):
            owner = owner.get_extra_info("socket")
        if isinstance(owner, socket.socket):
            return owner
        frame = frame.f_back
    return None


def _is_last(item: Any) -> bool:
    return any(choice.finish_reason for choice in item.choices)


def _says_something(item: Any) -> bool:
    parts = ("content", "reasoning_content", "thinking_blocks", "tool_calls", "function_call")
    deltas = (getattr(choice, "delta", None) for choice in item.choices)
    return any(getattr(delta, part, None) for delta in deltas for part in parts)
