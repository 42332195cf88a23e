"""Runs inside the kernel: carries calls to the host and their results back, on the stdin channel.

Shipped as text, into a module of its own. On that channel a cell can ask the host something and be
answered while it runs. One thread has it for itself: calls of any thread and of async code go on
together, and an interrupt hits whoever waits, never a message that is under way.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import uuid
from collections import deque
from concurrent.futures import Future
from typing import Any

import zmq

MAGIC = "kernel_agent calls: "  # how prompts and answers begin that are no `input()`'s
RESUME_SECONDS = 2.0  # how long the host may be silent before it is reminded of what is waited for
MAX_RESUME_SECONDS = 60.0
INTERRUPTED = "Interrupted by user"  # as ipykernel says it


class Call(Future):  # type: ignore[type-arg]
    """A call on its way to the host and back; the result is JSON of the border."""

    def __init__(self, courier: Courier, cell: str, request: dict[str, Any]) -> None:
        super().__init__()
        self.cell = cell
        self.request = request
        self._courier = courier

    def cancel(self) -> bool:
        is_cancelled = super().cancel()
        if is_cancelled:
            self._courier.forget(self.request["id"])
        return is_cancelled


class _Question(Future):  # type: ignore[type-arg]
    """An `input()` that waits for the user's answer."""

    def __init__(self, content: dict[str, Any], parent: Any, ident: Any) -> None:
        super().__init__()
        self.content = content
        self.parent = parent
        self.ident = ident
        self.msg_id = ""


class Courier:
    """Carries calls to the host and their results back, in a thread of its own.

    It alone touches the kernel's stdin channel, so `input()` goes through it too.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._pid = os.getpid()
        self._ids = map(f"{uuid.uuid4().hex[:8]}-{{}}".format, itertools.count(1))
        self._cell = ""  # the cell that runs now, if its calls are answered
        self._new: deque[Call | _Question] = deque()
        self._cancelled: deque[str] = deque()
        self._waiting: dict[str, Call] = {}
        self._asking = threading.Lock()  # one `input()` at a time
        self._question: _Question | None = None
        self._patience = RESUME_SECONDS
        self._is_closed = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="kernel_agent calls", daemon=True)
        self._thread.start()

    def begin_cell(self, cell: str) -> None:
        self._cell = cell
        self._wake()

    def call(self, name: str, arguments: list[dict[str, Any]]) -> list[Call]:
        """Calls of the function `name`, begun together; each with its own arguments."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"{name}() works only in the kernel's own process, not in a child of it: "
                "call it before or after, or use threads or .map() instead of processes."
            )
        if not (cell := self._cell):
            raise RuntimeError(
                f"{name}() can be called only while a cell runs whose calls are answered: "
                "let the cell wait for its threads and tasks."
            )
        calls = [
            Call(self, cell, {"id": next(self._ids), "name": name, "arguments": each})
            for each in arguments
        ]
        self._new.extend(calls)
        self._wake()
        return calls

    def forget(self, call_id: str) -> None:
        self._cancelled.append(call_id)
        self._wake()

    def ask(self, prompt: str, ident: Any, parent: Any, password: bool = False) -> str:
        """In place of the kernel's `_input_request`: what the user answers."""
        if os.getpid() != self._pid:
            raise RuntimeError("input() works only in the kernel's own process.")
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        with self._asking:
            question = _Question({"prompt": prompt, "password": password}, parent, ident)
            self._new.append(question)
            self._wake()
            text = str(outcome_of(question))
        if text == "\x04":
            raise EOFError
        return text

    def close(self) -> None:
        """Let go of the channel; who still waits gets an error."""
        self._cell = ""
        self._is_closed = True
        self._wake()
        if os.getpid() == self._pid:
            self._thread.join(5)

    def _wake(self) -> None:
        try:
            self._waker.send(b"!")
        except OSError:
            return  # full: it is about to wake anyway; closed: nobody is there

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._kernel.stdin_socket, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        while not self._is_closed:
            is_open = self._waiting or self._new or self._cancelled
            try:
                ready = poller.poll(round(1000 * self._patience) if is_open else None)
                self._carry(has_news=bool(ready))
            except zmq.ZMQError:
                break  # the kernel ends
            except Exception:
                self._kernel.log.warning("A call was not carried on.", exc_info=True)
        self._carry_off()
        self._woken.close()
        self._waker.close()

    def _carry(self, *, has_news: bool) -> None:
        self._drain_wakes()
        stdin = self._kernel.stdin_socket
        while stdin.poll(0):
            try:
                self._take(self._kernel.session.recv(stdin)[1])
            except (KeyError, TypeError, ValueError):
                self._kernel.log.warning("An answer could not be read.", exc_info=True)
        self._drop_past_cells()
        self._patience = RESUME_SECONDS if has_news else min(MAX_RESUME_SECONDS, self._patience * 2)
        self._send(remind=not has_news)

    def _drain_wakes(self) -> None:
        try:
            while self._woken.recv(1024):
                pass
        except BlockingIOError:
            return

    def _take(self, message: dict[str, Any]) -> None:
        value = message["content"].get("value", "")
        if not value.startswith(MAGIC):
            question, asked = self._question, message["parent_header"].get("msg_id")
            if question is not None and asked in (None, question.msg_id):
                self._question = None
                _settle(question, value)
            return
        answer = json.loads(value[len(MAGIC) :])
        for call_id, outcome in answer["done"]:
            if (call := self._waiting.pop(call_id, None)) is not None:
                _settle(call, outcome)
        self._new.extendleft(
            self._waiting[call_id] for call_id in answer["unknown"] if call_id in self._waiting
        )

    def _drop_past_cells(self) -> None:
        """A call belongs to its cell: the host has dropped what was still open at its end."""
        if any(call.cell != self._cell for call in list(self._waiting.values())):
            for call_id, call in list(self._waiting.items()):
                if call.cell != self._cell:
                    del self._waiting[call_id]
                    _settle(call, _over(call))

    def _send(self, *, remind: bool) -> None:
        calls = []
        while self._new:
            waiting = self._new.popleft()
            if isinstance(waiting, _Question):
                self._send_question(waiting)
            elif waiting.cell != self._cell:
                _settle(waiting, _over(waiting))
            elif not waiting.cancelled():
                self._waiting[waiting.request["id"]] = waiting
                calls.append(waiting.request)
        cancelled = []
        while self._cancelled:
            cancelled.append(self._cancelled.popleft())
            self._waiting.pop(cancelled[-1], None)
        if calls or cancelled or (remind and self._waiting):
            letter = {"cell": self._cell, "calls": calls, "cancelled": cancelled}
            text = MAGIC + json.dumps({**letter, "waiting": list(self._waiting)})
            content = {"prompt": text, "password": False}
            parent = self._kernel.get_parent("shell")
            ident = self._kernel._get_shell_context_var(self._kernel._shell_parent_ident)
            session, stdin = self._kernel.session, self._kernel.stdin_socket
            session.send(stdin, "input_request", content, parent, ident=ident)

    def _send_question(self, question: _Question) -> None:
        if question.cancelled():
            return
        session, stdin = self._kernel.session, self._kernel.stdin_socket
        message = session.msg("input_request", question.content, question.parent)
        question.msg_id = message["header"]["msg_id"]
        self._question = question
        session.send(stdin, message, ident=question.ident)

    def _carry_off(self) -> None:
        for waiting in [*self._waiting.values(), *self._new]:
            if isinstance(waiting, Call):
                _settle(waiting, _over(waiting))


def _settle(future: Future[Any], outcome: Any) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(outcome)


def _over(call: Call) -> dict[str, Any]:
    message = f"the cell is over in which {call.request['name']}() was called."
    return {"error": ["Cancelled", message]}


def outcome_of(future: Future[Any]) -> Any:
    """What has come; whoever is interrupted while it waits does not wait any more."""
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise KeyboardInterrupt(INTERRUPTED) from None
    except BaseException:
        future.cancel()
        raise
