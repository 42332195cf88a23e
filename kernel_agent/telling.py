"""Tells listeners what happens; one that fails is reported and does not end the run."""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from kernel_agent.events import Event, Listener


class Telling:
    """A listener that passes each event to all `listeners`, in order.

    What a listener raises is reported by a RuntimeWarning, once for each listener and type of
    exception, and goes no further: the next listener and the run do not notice. KeyboardInterrupt
    and SystemExit pass.
    """

    def __init__(self, listeners: Listener | Sequence[Listener] | None = None) -> None:
        one = callable(listeners)
        self._listeners: tuple[Listener, ...] = (listeners,) if one else tuple(listeners or ())  # type: ignore[assignment,arg-type]
        self._reported: set[tuple[int, type[Exception]]] = set()
        self._turn = threading.RLock()  # sub-agents tell from threads of their own

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def __call__(self, event: Event) -> None:
        with self._turn:
            for number, listener in enumerate(self._listeners):
                try:
                    listener(event)
                except Exception as error:  # whatever it is, the run is worth more
                    self._report(number, event, error)

    def _report(self, number: int, event: Event, error: Exception) -> None:
        key = (number, type(error))
        if key in self._reported:
            return
        self._reported.add(key)
        warn_of(
            f"Listener {name_of(self._listeners[number])} failed at {type(event).__name__}", error
        )


def warn_of(what: str, error: Exception) -> None:
    """Report a failure of the user's code that the run survives, as a RuntimeWarning.

    `what` says in a sentence without its full stop what failed.
    """
    warnings.warn(f"{what}: {described(error)}", RuntimeWarning, stacklevel=2)


def described(error: Exception) -> str:
    """The last line of the error's traceback, and where it was raised."""
    last = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return last
    return f"{last} ({Path(frames[-1].filename).name} line {frames[-1].lineno})"


def name_of(function: object) -> str:
    """What a callable is called in a message."""
    return getattr(function, "__qualname__", type(function).__qualname__)
