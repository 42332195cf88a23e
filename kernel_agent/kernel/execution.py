"""One execute request from sending to its end: waits for messages, deadlines and deaths."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kernel_agent.kernel.connection import Connection, KernelMessage
from kernel_agent.kernel.interrupting import Ladder
from kernel_agent.kernel.outputs import OUTPUT_TYPES, CellOutputs
from kernel_agent.kernel.process import KernelProcess
from kernel_agent.steps import CellStatus, Output

POLL_SECONDS = 0.1  # how soon a death is noticed when no message comes
LAST_MESSAGE_SECONDS = 5.0  # how long idle may come after the reply, or the reply after idle
PROGRESS_SECONDS = 0.5
EXIT_SECONDS = 2.0  # how long a kernel that was told to exit may take

KEPT = "The kernel and its variables are kept."
LOST = "All its variables are lost."


@dataclass
class Watcher:
    """Who follows a cell while it runs.

    `interrupted` tells whether someone wants it stopped; `listen` gets each new output, `progress`
    all outputs so far, every half second while they grow.
    """

    interrupted: Callable[[], bool] = lambda: False
    listen: Callable[[Output], None] | None = None
    progress: Callable[[tuple[Output, ...]], None] | None = None


class Execution:
    """One cell on its way through the kernel.

    `run` drives it to its end; after that `status`, `reply` (content of the execute_reply, empty
    if none came), `outputs`, `reason` and `seconds` say what happened.
    """

    def __init__(self, connection: Connection, process: KernelProcess, watcher: Watcher) -> None:
        self.outputs = CellOutputs()
        self.reply: dict[str, Any] = {}
        self.status: CellStatus = "ok"
        self.reason = ""
        self.seconds = 0.0
        self._connection = connection
        self._process = process
        self._watcher = watcher
        self._shown_at: float | None = None
        self._has_news = False
        self._msg_id = ""
        self._idle = False
        self._last_message = 0.0
        self._ladder: Ladder | None = None

    def run(self, request: dict[str, Any], timeout: float | None) -> None:
        """Send `request`, the content of an execute_request, and see it through to its end.

        `timeout` is the total in seconds.
        """
        started = self._last_message = time.monotonic()
        self._msg_id = self._connection.send("shell", "execute_request", request)
        while not self._is_over():
            message = self._connection.receive(self._patience(started, timeout))
            if message is not None:
                self._take(message)
            elif not self._process.is_alive():
                self._take_the_rest()
                self._died(f"The kernel died, {self._process.exit_reason()}.")
                break
            timed_out = timeout is not None and time.monotonic() - started >= timeout
            wanted = timed_out or self._ladder is not None or self._watcher.interrupted()
            if wanted and not self._is_over():
                self._stop(timeout if timed_out else None)
            self._show_progress()
        self._conclude()
        self.seconds = time.monotonic() - started

    def _is_over(self) -> bool:
        """Over at the reply *and* the idle status: outputs may still come between the two."""
        if self.status == "died":
            return True
        if bool(self.reply) and self._idle:
            return True
        one_is_missing = bool(self.reply) or self._idle
        return one_is_missing and time.monotonic() - self._last_message > LAST_MESSAGE_SECONDS

    def _patience(self, started: float, timeout: float | None) -> float:
        if timeout is None or self._ladder is not None:
            return POLL_SECONDS
        return min(POLL_SECONDS, max(0.001, started + timeout - time.monotonic()))

    def _take(self, message: KernelMessage) -> None:
        self._last_message = time.monotonic()
        kind = message["header"]["msg_type"]
        is_ours = message["parent_header"].get("msg_id") == self._msg_id
        if message["channel"] == "iopub":
            if kind == "status":
                if is_ours and message["content"].get("execution_state") == "idle":
                    self._idle = True
            elif kind in OUTPUT_TYPES and (is_ours or self._is_late(message)):
                self._tell(self.outputs.add(message))
        elif message["channel"] == "shell" and kind == "execute_reply" and is_ours:
            self.reply = message["content"]

    def _is_late(self, message: KernelMessage) -> bool:
        """Whether an output belongs to an earlier cell of ours: shown late, but not lost."""
        return bool(message["parent_header"].get("session") == self._connection.session_id)

    def _take_the_rest(self) -> None:
        while (message := self._connection.receive(0)) is not None:
            self._take(message)

    def _stop(self, timeout: float | None) -> None:
        if self._ladder is None:
            self._ladder = Ladder(self._process, self._connection)
            after = f"after {timeout:g} s, its time limit" if timeout else "by the user"
            self.reason = f"The cell was interrupted {after}."
        if not self._ladder.climb():
            self._process.end()
            self._take_the_rest()
            self.status = "died"
            self.reason += f" It could not be stopped, so the kernel was killed. {LOST}"

    def _conclude(self) -> None:
        if self.status == "died":
            return
        if any(item.get("source") == "ask_exit" for item in self.reply.get("payload") or ()):
            self._wait_for_exit()
            self._died("The cell ended the kernel by exit().")
        elif self._ladder is not None:
            self.status = "interrupted"
            self.reason += f" {KEPT}"
        elif self.reply.get("status") != "ok":
            self.status = "error"
        if self.reply.get("status") == "error" and not self.outputs.has_error:
            self._tell(self.outputs.add_error(self.reply))

    def _died(self, what: str) -> None:
        self.status = "died"
        self.reason = " ".join(filter(None, (self.reason, what, LOST)))
        if last_words := self._process.last_words():
            header = {"msg_type": "stream"}
            content = {"name": "stderr", "text": last_words + "\n"}
            self._tell(self.outputs.add({"header": header, "content": content}))

    def _wait_for_exit(self) -> None:
        deadline = time.monotonic() + EXIT_SECONDS
        while self._process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._process.end()

    def _tell(self, output: Output | None) -> None:
        self._has_news = True
        if output is not None and self._watcher.listen is not None:
            self._watcher.listen(output)

    def _show_progress(self) -> None:
        if self._watcher.progress is None or not self._has_news or self._is_over():
            return
        now = time.monotonic()
        if self._shown_at is None:
            self._shown_at = now  # most cells are over before the first half second is
        elif now - self._shown_at >= PROGRESS_SECONDS:
            self._watcher.progress(self.outputs.all())
            self._shown_at, self._has_news = time.monotonic(), False
