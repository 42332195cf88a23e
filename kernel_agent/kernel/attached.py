"""A kernel that somebody else started and uses: joined as one more client, and left as it was."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import zmq
from jupyter_client.connect import find_connection_file
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session
from jupyter_core.paths import jupyter_runtime_dir

from kernel_agent.errors import KernelBusyError, KernelError, KernelStartError
from kernel_agent.kernel.connection import Connection, new_context

FREE_SECONDS = 2.0  # how long a kernel may take to say that it is free
STATUS = b"kernel."  # how ipykernel's topics of status messages begin, unlike those of outputs

NOT_OURS = "it was started by somebody else. Whoever started it can"


@dataclass(frozen=True)
class _Running:
    """The cell that the kernel executes: which request of whose session, and since when."""

    msg_id: str
    session: str
    since: datetime

    @property
    def seconds(self) -> float:
        return max(0.0, (_now() - self.since).total_seconds())


class AttachedProcess:
    """The process of a kernel that is not ours, as far as a client can tell.

    `connection_file` is a path, or a file's name in Jupyter's runtime folder.

    Raises KernelStartError if there is no such file or it does not tell of a kernel.
    """

    is_ours = False
    shared_folder = None

    def __init__(self, connection_file: str | Path) -> None:
        self.name, self._file = _read(connection_file)
        self._watch: _Watch | None = None
        self._session = ""

    def start(self) -> Connection:
        """Connect to it.

        Raises KernelStartError if it has ended, KernelBusyError if it executes somebody's code.
        """
        manager = KernelManager(kernel_name=self.name, context=new_context())
        manager.load_connection_file(str(self._file))
        self._watch = _Watch(manager)
        try:
            self.check_free()
            if not self.is_alive():
                raise KernelStartError(self.name, self.why_it_ended())
        except BaseException:
            self.close()
            raise
        connection = Connection(manager)
        self._session = connection.session_id
        return connection

    def check_free(self) -> None:
        """Make sure that nobody's code is being executed.

        Raises KernelBusyError that says for how long it has been, if it does not end at once.
        """
        if not self._connected.answers(FREE_SECONDS) and self.is_alive():
            raise self._busy()

    @property
    def display_name(self) -> str:
        try:
            return str(KernelSpecManager().get_kernel_spec(self.name).display_name)
        except NoSuchKernel:
            return self.name

    def is_alive(self) -> bool:
        """Whether it is still the kernel that was joined: the connection was never cut."""
        return self._watch is not None and not self._watch.is_cut

    def exit_reason(self) -> str:
        return "or its owner has restarted it"

    def why_it_ended(self) -> str:
        return f"nobody answers at the address in {str(self._file)!r}: that kernel has ended."

    def last_words(self) -> str:
        return ""

    def interrupt(self) -> None:
        """Interrupt our cell, by a message: signals are for the kernel's owner.

        Raises KernelBusyError if somebody else's cell is running, and ours still waits behind it.
        """
        running = self._connected.running()
        if running is not None and running.session != self._session:
            raise self._busy()
        self._connected.send("control", "interrupt_request")

    def check_restart(self) -> NoReturn:
        raise KernelError(f"Kernel {self.name!r} is not restarted: {NOT_OURS} restart it.")

    def restart(self) -> Connection:
        """Raises KernelError."""
        self.check_restart()

    def end(self) -> None:
        """Never kills it.

        Raises KernelBusyError if it is alive: a cell of ours runs there that cannot be stopped.
        """
        if self.is_alive():
            reason = f"the cell cannot be interrupted, and {NOT_OURS} end it."
            raise KernelBusyError(self.name, self._connected.busy_seconds(), reason)

    def close(self) -> None:
        """Disconnect; the kernel is not told. Safe to call twice."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @property
    def _connected(self) -> _Watch:
        if self._watch is None:
            raise RuntimeError("the kernel was not connected to")
        return self._watch

    def _busy(self) -> KernelBusyError:
        seconds = self._connected.busy_seconds()
        return KernelBusyError(self.name, seconds, "other code runs in it.")


class _Watch:
    """Asks a kernel whether it is free and hears whose cells it executes.

    It is a client of its own, beside the one that executes: it takes no message from that one,
    and hears no outputs, which would pile up here.
    """

    def __init__(self, manager: KernelManager) -> None:
        self._context = manager.context
        self._session = Session(key=manager.session.key)
        identity = self._session.bsession
        self._sockets = {
            "shell": manager.connect_shell(identity=identity),
            "control": manager.connect_control(identity=identity),
        }
        self._iopub = manager.connect_iopub()
        self._iopub.setsockopt(zmq.UNSUBSCRIBE, b"")
        self._iopub.setsockopt(zmq.SUBSCRIBE, STATUS)
        cuts = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
        self._cuts = self._sockets["shell"].get_monitor_socket(cuts)
        self._running: _Running | None = None
        self._unanswered_since: float | None = None

    @property
    def is_cut(self) -> bool:
        return bool(self._cuts.poll(0))

    def send(self, channel: str, msg_type: str) -> str:
        message = self._session.send(self._sockets[channel], msg_type, {})
        return str(message["header"]["msg_id"]) if message else ""

    def answers(self, seconds: float) -> bool:
        """Whether the kernel's main shell answers within so many seconds, which it does if idle."""
        started = time.monotonic()
        msg_id = self.send("shell", "kernel_info_request")
        shell = self._sockets["shell"]
        while time.monotonic() - started < seconds and not self.is_cut:
            if shell.poll(100):
                parent = self._receive(shell).get("parent_header", {})
                if parent.get("msg_id") == msg_id:
                    self._unanswered_since = None
                    return True
        if self._unanswered_since is None:
            self._unanswered_since = started
        return False

    def running(self) -> _Running | None:
        """The cell that is running, if the kernel has told."""
        while self._iopub.poll(0):
            self._note(self._receive(self._iopub))
        return self._running

    def busy_seconds(self) -> float:
        """For how long it has been busy, as far as is known."""
        if running := self.running():
            return running.seconds
        return time.monotonic() - (self._unanswered_since or time.monotonic())

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _receive(self, channel: zmq.Socket[bytes]) -> dict[str, Any]:
        try:
            return self._session.recv(channel, mode=zmq.NOBLOCK)[1] or {}
        except (TypeError, ValueError):  # no message of this kernel
            return {}

    def _note(self, message: dict[str, Any]) -> None:
        parent = message.get("parent_header", {})
        if message.get("msg_type") != "status" or parent.get("msg_type") != "execute_request":
            return
        msg_id = str(parent.get("msg_id"))
        if message["content"].get("execution_state") == "busy":
            date = message["header"].get("date")
            since = date if isinstance(date, datetime) else _now()
            self._running = _Running(msg_id, str(parent.get("session")), since)
        elif self._running is not None and self._running.msg_id == msg_id:
            self._running = None


def _read(connection_file: str | Path) -> tuple[str, Path]:
    """The kernel's name and the path of its connection file."""
    runtime = jupyter_runtime_dir()
    try:
        path = Path(find_connection_file(str(connection_file), path=[".", runtime])).absolute()
        about = json.loads(path.read_text(encoding="utf-8"))
        missing = {"transport", "ip", "shell_port", "key"} - set(about)
    except OSError as error:
        reason = f"there is no connection file of that name here or in {runtime!r}."
        raise KernelStartError(str(connection_file), reason) from error
    except (ValueError, TypeError) as error:
        raise KernelStartError(
            str(connection_file), f"it is no connection file: {error}."
        ) from error
    if missing:
        reason = f"it is no connection file: it lacks {', '.join(sorted(missing))}."
        raise KernelStartError(str(connection_file), reason)
    return str(about.get("kernel_name") or path.stem), path


def _now() -> datetime:
    return datetime.now(UTC)
