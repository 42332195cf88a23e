"""How a running cell is stopped: step by step, the gentlest way first, each with its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kernel_agent.kernel.connection import Connection
from kernel_agent.kernel.process import KernelProcess

GENTLE_SECONDS = 0.5
WAKE_SECONDS = 1.0
INSIST_SECONDS = 1.5


@dataclass(frozen=True)
class Rung:
    """One way to stop a cell: what to do, and how many seconds it has to take effect."""

    name: str
    act: Callable[[], None]
    seconds: float


class Ladder:
    """Stops a cell rung by rung; killing the kernel, the last resort, is left to the caller.

    1. An interrupt stops ordinary code.
    2. An interrupt and any shell message stop a top-level `await`, which the interrupt alone does
       not wake (ipykernel #881).
    3. The same once more, for code that catches the first KeyboardInterrupt.
    """

    def __init__(self, process: KernelProcess, connection: Connection) -> None:
        def interrupt_and_wake() -> None:
            process.interrupt()
            connection.send("shell", "kernel_info_request")

        self._rungs: Iterator[Rung] = iter(
            (
                Rung("interrupt", process.interrupt, GENTLE_SECONDS),
                Rung("interrupt and wake-up", interrupt_and_wake, WAKE_SECONDS),
                Rung("second interrupt", interrupt_and_wake, INSIST_SECONDS),
            )
        )
        self._deadline = time.monotonic()

    def climb(self) -> bool:
        """Take the next rung if its time has come; False when all were in vain."""
        if time.monotonic() < self._deadline:
            return True
        rung = next(self._rungs, None)
        if rung is None:
            return False
        rung.act()
        self._deadline = time.monotonic() + rung.seconds
        return True
