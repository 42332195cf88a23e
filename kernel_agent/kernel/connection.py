"""Messages to and from a running kernel: send one, receive the next from any channel."""

from __future__ import annotations

import socket
import time
from typing import Any, Literal

import zmq
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session

Channel = Literal["shell", "control", "iopub", "stdin"]
CHANNELS: tuple[Channel, ...] = ("iopub", "shell", "control", "stdin")

KernelMessage = dict[str, Any]
"""A Jupyter message: `header`, `parent_header`, `metadata`, `content`, and our `channel`."""


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A zmq context whose sockets lose nothing and connect quickly.

    IOPub drops messages silently at zmq's default mark of 1,000 when the host is slow to read,
    and a connection to a kernel that is still starting is tried again every 100 ms by default.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.setsockopt(zmq.RCVHWM, 0)
    context.setsockopt(zmq.RECONNECT_IVL, 10)
    return context


class Connection:
    """The four channels of one client of a kernel.

    Plain blocking sockets in one poller: asyncio sockets can swallow the wake-up that a pending
    receive waits for. The client has a session of its own, because a second client with the same
    session would take the first one's replies.
    """

    def __init__(self, manager: KernelManager) -> None:
        self._session = Session(key=manager.session.key)
        self._sockets: dict[Channel, zmq.Socket[bytes]] = {
            channel: getattr(manager, f"connect_{channel}")(identity=self._session.bsession)
            for channel in CHANNELS
        }
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._poller = zmq.Poller()
        for channel_socket in self._sockets.values():
            self._poller.register(channel_socket, zmq.POLLIN)
        self._poller.register(self._woken, zmq.POLLIN)

    @property
    def session_id(self) -> str:
        return str(self._session.session)

    def send(
        self,
        channel: Channel,
        msg_type: str,
        content: dict[str, Any] | None = None,
        parent: KernelMessage | None = None,
    ) -> str:
        """Send a message and return its id; never blocks."""
        message = self._session.send(
            self._sockets[channel], msg_type, content if content is not None else {}, parent=parent
        )
        return str(message["header"]["msg_id"]) if message else ""

    def receive(self, timeout: float) -> KernelMessage | None:
        """The next message of any channel; `None` after `timeout` seconds or when woken.

        Messages of IOPub come first, so that a reply never overtakes the outputs before it
        that have already arrived. A frame that is not a signed message is skipped.
        """
        deadline = time.monotonic() + timeout
        while True:
            remaining = max(0.0, deadline - time.monotonic())
            ready = dict(self._poller.poll(round(remaining * 1000)))
            if not ready:
                return None
            for channel, channel_socket in self._sockets.items():
                if channel_socket in ready:
                    message = self._read(channel, channel_socket)
                    if message is not None:
                        return message
            if self._woken.fileno() in ready:
                self._drain_wakes()
                return None

    def _read(self, channel: Channel, channel_socket: zmq.Socket[bytes]) -> KernelMessage | None:
        try:
            _, message = self._session.recv(channel_socket, mode=zmq.NOBLOCK)
        except (
            TypeError,
            ValueError,
        ):  # a bad signature or a torn frame: not a message of this kernel
            return None
        return None if message is None else {**message, "channel": channel}

    def wake(self) -> None:
        """Make `receive` return at once; safe from any thread and from a signal handler."""
        try:
            self._waker.send(b"!")
        except (BlockingIOError, OSError):
            return  # full: it is about to wake anyway; closed: nobody waits any more

    def _drain_wakes(self) -> None:
        try:
            while self._woken.recv(1024):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the sockets; the kernel is not told."""
        for channel_socket in self._sockets.values():
            channel_socket.close(linger=0)
        self._woken.close()
        self._waker.close()
