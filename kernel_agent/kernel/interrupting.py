"""How a running cell is stopped: step by step, the gentlest way first, each with its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kernel_agent.kernel.connection import Connection, KernelMessage
from kernel_agent.kernel.process import Process

GENTLE_SECONDS = 0.4
WAKE_SECONDS = 0.4
INSIST_SECONDS = 4.2
"""The three together are the grace: how long a cell may resist before the kernel is killed."""

SETTLE_SECONDS = 1.0  # how long a kernel may take to show that it is usable after a stop
KILL = "kill"


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
    3. Exceptions that no `except KeyboardInterrupt` catches, raised in the cell by a subshell
       (JEP 91), stop code that swallows interrupts or blocks the event loop. For a kernel that
       is not Python or has no subshells (not `can_raise`), the second rung once more.

    `take` must be given the messages that come meanwhile. Once the cell is over, `settle` asks
    the kernel for a sign that it is usable; `settled` tells that it came and that no request of
    the ladder is on its way any more: nothing that was meant for this cell can hit the next.
    """

    def __init__(self, process: Process, connection: Connection, *, can_raise: bool) -> None:
        self._process = process
        self._connection = connection
        insist = (
            Rung("asynchronous exception", self._open_subshell, INSIST_SECONDS)
            if can_raise
            else Rung("second interrupt", self._interrupt_and_wake, INSIST_SECONDS)
        )
        self._rungs: Iterator[Rung] = iter(
            (
                Rung("interrupt", process.interrupt, GENTLE_SECONDS),
                Rung("interrupt and wake-up", self._interrupt_and_wake, WAKE_SECONDS),
                insist,
            )
        )
        self.name = ""
        self._deadline = time.monotonic()
        self._unanswered: set[str] = set()
        self._subshell = ""
        self._settling = False

    @property
    def settled(self) -> bool:
        return self._settling and not self._unanswered

    def climb(self) -> bool:
        """Take the next rung if its time has come; False when all were in vain."""
        if time.monotonic() < self._deadline:
            return True
        rung = next(self._rungs, None)
        if rung is None:
            return False
        self.name = rung.name
        rung.act()
        self._deadline = time.monotonic() + rung.seconds
        return True

    def settle(self) -> None:
        """Ask the kernel for a sign of life; only the first call does something."""
        if not self._settling:
            self._settling = True
            self._ask("shell", "kernel_info_request")
            self._deadline = max(self._deadline, time.monotonic() + SETTLE_SECONDS)

    def take(self, message: KernelMessage) -> None:
        """Take note of an answer to one of the ladder's own requests; others are passed over."""
        asked = message["parent_header"].get("msg_id")
        if message["channel"] == "iopub" or asked not in self._unanswered:
            return
        self._unanswered.discard(asked)
        match message["header"]["msg_type"]:
            case "create_subshell_reply" if subshell := message["content"].get("subshell_id"):
                self._subshell = str(subshell)
                self._raise()
            case "execute_reply":
                content = {"subshell_id": self._subshell}
                self._connection.send("control", "delete_subshell_request", content)

    def _interrupt_and_wake(self) -> None:
        self._process.interrupt()
        self._ask("shell", "kernel_info_request")

    def _open_subshell(self) -> None:
        self._ask("control", "create_subshell_request")

    def _raise(self) -> None:
        source = Path(__file__).with_name("raising.py").read_text(encoding="utf-8")
        request = {
            "code": f"exec(compile({source!r}, 'kernel_agent_raising', 'exec'), {{}})",
            "silent": True,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        self._ask("shell", "execute_request", request, subshell=self._subshell)

    def _ask(
        self,
        channel: Literal["shell", "control"],
        msg_type: str,
        content: dict[str, Any] | None = None,
        *,
        subshell: str = "",
    ) -> None:
        sent = self._connection.send(channel, msg_type, content, subshell=subshell)
        self._unanswered.add(sent)
