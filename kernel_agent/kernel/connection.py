"""Messages to and from a running kernel: send one, receive the next from any channel."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from hmac import compare_digest
from typing import Any, Literal

import zmq
from jupyter_client.manager import KernelManager
from jupyter_client.session import DELIM, Session

Channel = Literal["shell", "control", "iopub", "stdin"]
CHANNELS: tuple[Channel, ...] = ("iopub", "shell", "control", "stdin")

QUEUE = 32
"""How many messages of IOPub wait in our own memory once the kernel can hold them in its own."""

MAX_BYTES = 64_000_000
"""An IOPub message whose content is larger is not read: its text would take three times that."""

KernelMessage = dict[str, Any]
"""A Jupyter message: `header`, `parent_header`, `metadata`, `content`, and our `channel`.

The content of a message that is too large is empty; `unread` is its size in bytes.
"""


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
        self.executed: dict[str, int] = {}  # execution counts by the ids of the requests
        self.put_aside: deque[KernelMessage] = deque()  # outputs that came while no cell ran
        self._outputs_read = 0
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
        subshell: str = "",
    ) -> str:
        """Send a message, to the `subshell` of that id or the main shell, and return its id.

        Never blocks.
        """
        message = self._session.msg(msg_type, content, parent=parent)
        if subshell:
            message["header"]["subshell_id"] = subshell
        self._session.send(self._sockets[channel], message)
        return str(message["header"]["msg_id"])

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
            frames = channel_socket.recv_multipart(zmq.NOBLOCK)
            self._outputs_read += channel == "iopub"
            start = frames.index(DELIM) + 1
            signature, *signed = frames[start : start + 5]
            if not compare_digest(signature, self._session.sign(signed)):
                return None
            unread = len(signed[3]) if channel == "iopub" and len(signed[3]) > MAX_BYTES else 0
            header, parent, metadata = map(_json, signed[:3])
            content = {} if unread else _json(signed[3])
        except (zmq.Again, ValueError):  # not a signed message of this kernel
            return None
        return {
            "header": header,
            "parent_header": parent,
            "metadata": metadata,
            "content": content,
            "channel": channel,
            "unread": unread,
        }

    def limit_queue(self) -> None:
        """Let outputs wait in the kernel's memory rather than in ours.

        To be called when no message is under way, and the kernel drops nothing when we are slow:
        see `publishing`. zmq counts a pipe's messages from its beginning and tells the sender at
        every half of the mark how many were read: a mark below their number would stop it for ever.
        """
        self._sockets["iopub"].setsockopt(zmq.RCVHWM, max(QUEUE, 2 * self._outputs_read))

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


def _json(frame: bytes) -> Any:
    # Kernels send what is no UTF-8, such as the name of a file, byte for byte.
    return json.loads(frame.decode(errors="replace"))
