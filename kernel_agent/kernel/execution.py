"""One execute request from sending to its end: waits for messages, deadlines and deaths."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kernel_agent.kernel.connection import Connection, KernelMessage
from kernel_agent.kernel.interrupting import KILL, Ladder
from kernel_agent.kernel.outputs import OUTPUT_TYPES, CellOutputs
from kernel_agent.kernel.process import Process
from kernel_agent.kernel.serving import MAGIC, Serving
from kernel_agent.steps import CellStatus, Output

POLL_SECONDS = 0.1  # how soon a death is noticed when no message comes
LAST_MESSAGE_SECONDS = 5.0  # how long idle may come after the reply, or the reply after idle
LAST_AFTER_STOP_SECONDS = 0.5  # how long idle may come after the stopped kernel's sign of life
PROGRESS_SECONDS = 0.5
EXIT_SECONDS = 2.0  # how long a kernel that was told to exit may take

FLOOD = "\n[Too much output to be shown as it comes: its beginning and its end are kept.]\n"
KEPT = "The kernel and its variables are kept."
LOST = "All its variables are lost."


@dataclass
class Watcher:
    """Who follows a cell while it runs.

    `interrupted` tells whether someone wants it stopped; `listen` gets each new output, `progress`
    all outputs so far, every half second while they grow; `ask` answers the cell's `input()` and
    `getpass()`: it gets the prompt and whether what is typed is a password; `serving` has the
    calls of functions of the host carried out.
    """

    interrupted: Callable[[], bool] = lambda: False
    listen: Callable[[Output], None] | None = None
    progress: Callable[[tuple[Output, ...]], None] | None = None
    ask: Callable[[str, bool], str] | None = None
    serving: Serving | None = None


class Execution:
    """One cell on its way through the kernel.

    `run` drives it to its end; after that `status`, `reply` (content of the execute_reply, empty
    if none came), `outputs`, `reason`, `stopped_by` (the rung of the ladder that ended the cell, if
    one did), `inputs` and `seconds` say what happened. `can_raise`: see Ladder.
    """

    def __init__(
        self,
        connection: Connection,
        process: Process,
        watcher: Watcher,
        *,
        can_raise: bool = False,
    ) -> None:
        self.outputs = CellOutputs()
        self.reply: dict[str, Any] = {}
        self.status: CellStatus = "ok"
        self.reason = ""
        self.stopped_by = ""
        self.seconds = 0.0
        self.inputs: list[str | None] = []
        self._connection = connection
        self._process = process
        self._watcher = watcher
        self._can_raise = can_raise
        self._shown_at: float | None = None
        self._showing_seconds = 0.0  # a flood takes long to save: seldom then
        self._is_told_of_flood = False
        self._has_news = False
        self._msg_id = ""
        self._is_silent = False
        self._idle = False
        self._last_message = 0.0
        self._ladder: Ladder | None = None
        self._asked_seconds = 0.0

    def run(self, request: dict[str, Any], timeout: float | None) -> None:
        """Send `request`, the content of an execute_request, and see it through to its end.

        `timeout` is the total in seconds.
        """
        started = self._last_message = time.monotonic()
        if not self._process.is_alive():
            reason = self._process.exit_reason()
            self._died(f"The kernel died before the cell could begin, {reason}.")
            return
        self._msg_id = self._connection.send("shell", "execute_request", request)
        self._is_silent = bool(request.get("silent"))
        self._take_what_was_put_aside()
        while not self._is_over():
            message = self._connection.receive(self._patience(started, timeout))
            if message is not None:
                self._take(message)
            has_answered = self._answer_calls()
            if message is None and not has_answered and not self._process.is_alive():
                self._take_the_rest()
                self._died(f"The kernel died, {self._process.exit_reason()}.")
                break
            running = time.monotonic() - started - self._asked_seconds
            timed_out = timeout is not None and running >= timeout
            wanted = timed_out or self._ladder is not None or self._watcher.interrupted()
            if wanted and not self._is_over():
                self._stop(timeout if timed_out else None)
            self._show_progress()
        if self._watcher.serving is not None:
            self._watcher.serving.close("the cell is over.")
        self._conclude()
        self.seconds = time.monotonic() - started

    def _is_over(self) -> bool:
        """Over at the reply *and* the idle status: outputs may still come between the two."""
        if self.status == "died":
            return True
        if self._ladder is not None:
            return self._is_over_after_stop(self._ladder)
        if bool(self.reply) and self._idle:
            return True
        return self._is_ending() and self._silence() > LAST_MESSAGE_SECONDS

    def _is_over_after_stop(self, ladder: Ladder) -> bool:
        """Over when the kernel has also shown that it is usable.

        An interrupt that hits the kernel's own work after the cell's can cost the reply.
        """
        if not ladder.settled:
            return False
        return self._idle or self._silence() > LAST_AFTER_STOP_SECONDS

    def _is_ending(self) -> bool:
        return bool(self.reply) or self._idle

    def _silence(self) -> float:
        return time.monotonic() - self._last_message

    def _patience(self, started: float, timeout: float | None) -> float:
        if timeout is None or self._ladder is not None:
            return POLL_SECONDS
        return min(POLL_SECONDS, max(0.001, started + timeout - time.monotonic()))

    def _take(self, message: KernelMessage) -> None:
        self._last_message = time.monotonic()
        if self._ladder is not None:
            self._ladder.take(message)
        kind = message["header"]["msg_type"]
        is_ours = message["parent_header"].get("msg_id") == self._msg_id
        if message["channel"] == "iopub":
            if kind == "status":
                if is_ours and message["content"].get("execution_state") == "idle":
                    self._idle = True
            elif kind in OUTPUT_TYPES and (is_ours or self._is_late(message)):
                self._take_output(message, is_ours=is_ours)
        elif message["channel"] == "shell" and kind == "execute_reply" and is_ours:
            self.reply = message["content"]
            self._connection.executed[self._msg_id] = self.reply.get("execution_count", 0)
        elif kind == "input_request" and _is_call(message):
            if self._watcher.serving is not None:
                self._watcher.serving.take(message["content"]["prompt"])
        elif kind == "input_request" and is_ours:
            self._ask(message)

    def _answer_calls(self) -> bool:
        """Send what there is to say to calls of the host's functions, and tell whether."""
        if self._watcher.serving is None or not (text := self._watcher.serving.answer()):
            return False
        self._connection.send("stdin", "input_reply", {"value": text})
        return True

    def _ask(self, message: KernelMessage) -> None:
        """Let the user answer `input()`; the time that takes is not the cell's."""
        if self._watcher.ask is None:
            return
        asked = time.monotonic()
        content = message["content"]
        is_password = bool(content.get("password"))
        text = self._watcher.ask(str(content.get("prompt", "")), is_password)
        self.inputs.append(None if is_password else text)
        self._connection.send("stdin", "input_reply", {"value": text}, parent=message)
        self._asked_seconds += time.monotonic() - asked

    def _is_late(self, message: KernelMessage) -> bool:
        """Whether an output belongs to an earlier cell of ours: shown late, but not lost."""
        return bool(message["parent_header"].get("session") == self._connection.session_id)

    def _take_output(self, message: KernelMessage, *, is_ours: bool) -> None:
        if self._is_silent:
            self._connection.put_aside.append(message)  # a thread's: the next cell shows it
        elif is_ours:
            self._tell(self.outputs.add(message))
        else:
            count = self._connection.executed.get(message["parent_header"].get("msg_id"))
            late = f"cell {count}" if count else "an earlier cell"
            self._tell(self.outputs.add(message, late=late))

    def _take_what_was_put_aside(self) -> None:
        aside = self._connection.put_aside
        while aside and not self._is_silent:
            self._take_output(aside.popleft(), is_ours=False)

    def _take_the_rest(self) -> None:
        while (message := self._connection.receive(0)) is not None:
            self._take(message)

    def _stop(self, timeout: float | None) -> None:
        if self._ladder is None:
            if self._is_ending():
                return
            self._ladder = Ladder(self._process, self._connection, can_raise=self._can_raise)
            after = f"after {timeout:g} s, its time limit" if timeout else "by the user"
            self.reason = f"The cell was interrupted {after}."
        if self._is_ending():
            self._ladder.settle()
        is_stoppable = self._ladder.climb()
        if self._watcher.serving is not None:
            self._watcher.serving.close(self.reason)  # else the cell waits for its threads' calls
        if not is_stoppable:
            self._process.end()
            self._take_the_rest()
            self.status = "died"
            self.stopped_by = KILL
            self.reason += f" It could not be stopped, so the kernel was killed. {LOST}"

    def _conclude(self) -> None:
        if self.status == "died":
            return
        if any(item.get("source") == "ask_exit" for item in self.reply.get("payload") or ()):
            self._wait_for_exit()
            self._died("The cell ended the kernel by exit().")
        elif self._ladder is not None:
            self.status = "interrupted"
            self.stopped_by = self._ladder.name
            ended = " and the code then ended without an error" if self._is_ok() else ""
            self.reason += f" Stopped by: {self.stopped_by}{ended}. {KEPT}"
        elif not self._is_ok():
            self.status = "error"
        if self.reply.get("status") == "error" and not self.outputs.has_error:
            self._tell(self.outputs.add_error(self.reply))

    def _is_ok(self) -> bool:
        return self.reply.get("status") == "ok"

    def _died(self, what: str) -> None:
        self.status = "died"
        self.stopped_by = self._ladder.name if self._ladder is not None else ""
        self._process.end()  # what the kernel has left of its process group
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
        if output is None or self._watcher.listen is None:
            return
        if not self.outputs.is_flooded or output["output_type"] == "error":
            self._watcher.listen(output)
        elif not self._is_told_of_flood:
            self._is_told_of_flood = True
            self._watcher.listen({"output_type": "stream", "name": "stderr", "text": FLOOD})

    def _show_progress(self) -> None:
        if self._watcher.progress is None or not self._has_news or self._is_over():
            return
        now = time.monotonic()
        if self._shown_at is None:
            self._shown_at = now  # most cells are over before the first half second is
        elif now - self._shown_at >= max(PROGRESS_SECONDS, 5 * self._showing_seconds):
            self._watcher.progress(self.outputs.all())
            self._shown_at, self._has_news = time.monotonic(), False
            self._showing_seconds = self._shown_at - now


def _is_call(message: KernelMessage) -> bool:
    """Whether it is a letter about calls, and no `input()`."""
    return str(message["content"].get("prompt", "")).startswith(MAGIC)
