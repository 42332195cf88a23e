"""Runs inside an ipykernel: sees to it that every output leaves the kernel, whole and in order.

Shipped as text after `fitting`, into a module of its own. It mends what ipykernel 7.4 does:

- IPython keeps everything that is printed in memory, for the history that is switched off.
- Output of subprocesses is read in pieces of 1,000 bytes that are decoded one by one.
- `print` to stdout and to stderr, and what a subprocess writes, overtake each other.
- A message is as large as what was printed in a fifth of a second, or as one object's repr.
- Messages are dropped when the client is slower than the kernel.
- Text that is no Unicode (a lone surrogate) raises where it is sent, and is lost.
- A thread that outlives its cell prints into the cells after it.
"""

import codecs
import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import zmq
from ipykernel.iostream import OutStream
from IPython import get_ipython

PIECE = 1_000_000  # characters of a stream in one message
SETTLE_SECONDS = 1.0
ALIVE_SECONDS = 0.02  # how often it is asked whether the thread that sends is still there
QUIET_SECONDS = 0.2  # after which half of a character is shown as broken
SENDING = threading.RLock()  # whoever holds it has sent, or put in line, all that was taken
POOLS = ("concurrent.futures.thread", "multiprocessing.pool")


class Gap(str):
    """Stands for `characters` of a stream that no client would keep."""

    characters: int

    def __new__(cls, characters: int) -> Self:
        gap = super().__new__(cls, f"\n… {characters:,} characters were not sent …\n")
        gap.characters = characters
        return gap


class WholeStream(OutStream):
    """stdout or stderr of the kernel; an existing stream is given this class."""

    _fid: Any
    room: int
    reads: int
    is_reading: bool

    def write(self, string: str) -> Any:
        if os.getpid() == self._master_pid:
            is_line_end = string == "\n" and self._buffers  # of a `print` that has just settled
            if not is_line_end and threading.get_ident() != self.watch_fd_thread.ident:
                self.settle()
            other = sys.stderr if self.name == "stdout" else sys.stdout
            if isinstance(other, WholeStream):
                other.push()
        if isinstance(string, str) and not string.isascii():
            string = string.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return super().write(string)

    def flush(self) -> None:
        thread = self.pub_thread.thread
        if os.getpid() != self._master_pid or thread is threading.current_thread():
            super().flush()  # type: ignore[no-untyped-call]
            return
        self.settle()
        sent, deadline = threading.Event(), time.monotonic() + self.flush_timeout
        self.pub_thread.schedule(self._flush)
        self.pub_thread.schedule(sent.set)
        # When the kernel ends meanwhile, nobody sets it: ipykernel 7.4 would wait for 10 s.
        while not sent.wait(ALIVE_SECONDS) and thread.is_alive() and time.monotonic() < deadline:
            pass

    def push(self) -> None:
        """Send off what was written, before anything that is sent after this."""
        if self._buffers:
            with SENDING:
                buffers = self._rotate_buffers()  # type: ignore[no-untyped-call]
                self.pub_thread.schedule(lambda: self._send(buffers))

    def _flush(self) -> None:
        """Send what was written; called in the thread of IOPub, or when that is gone."""
        if os.getpid() != self._master_pid:
            super()._flush()  # type: ignore[no-untyped-call]
            return
        with SENDING:
            self._flush_pending = False
            self._send(self._rotate_buffers())  # type: ignore[no-untyped-call]

    def _send(self, buffers: dict[Any, Any]) -> None:
        for parent, buffer in buffers.items():
            for text in self._parts(buffer.getvalue()):
                if not self.pub_thread.closed:
                    content = {"name": self.name, "text": text}
                    if isinstance(text, Gap):
                        content["not_kept"] = text.characters
                    message = self.session.msg("stream", content, parent=dict(parent))
                    # At once: what is scheduled here would come after what is scheduled already.
                    self.session.send(self.pub_thread.socket, message, ident=self.topic)

    def _parts(self, text: str) -> Iterator[str]:
        """`text` in pieces, without its middle if it is too long."""
        middle = len(text) - 2 * self.room
        for part in (
            (text,) if middle <= 0 else (text[: self.room], Gap(middle), text[-self.room :])
        ):
            if isinstance(part, Gap):
                yield part
            else:
                yield from (part[n : n + PIECE] for n in range(0, len(part), PIECE))

    def settle(self) -> None:
        """Wait until what subprocesses have written by now has been taken in."""
        reads, deadline = self.reads, 0.0
        # A pipe holds no more than one read takes.
        while self._should_watch and (
            self.is_reading or (self.reads == reads and select.select([self._fid], [], [], 0)[0])
        ):
            deadline = deadline or time.monotonic() + SETTLE_SECONDS
            if time.monotonic() > deadline:
                return
            time.sleep(0.0005)

    def _watch_pipe_fd(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while self._should_watch:
            patience = QUIET_SECONDS if decoder.getstate()[0] else None
            if not select.select([self._fid], [], [], patience)[0]:
                self.write(decoder.decode(b"", final=True))
                continue
            self.is_reading = True
            content = os.read(self._fid, 65536)
            self.reads += 1
            if not content or not self._should_watch:
                return
            self.write(decoder.decode(content))
            self.is_reading = False
            os.write(self._original_stdstream_copy, content)


def make_whole(stream: Any, room: int) -> None:
    """Give a stream our class and its file descriptor a watcher of ours.

    Of what is printed at once, `room` characters are sent from its beginning and from its end.
    """
    stream._should_watch = False
    os.write(stream._original_stdstream_fd, b"\0")  # wakes the watcher
    stream.watch_fd_thread.join()
    stream.room, stream.reads, stream.is_reading = room, 0, False
    stream.__class__ = WholeStream
    stream._should_watch = True
    stream.watch_fd_thread = threading.Thread(target=stream._watch_pipe_fd, daemon=True)
    stream.watch_fd_thread.start()


def bound_displays(session: Any, room: int) -> None:
    """Cut a display or a result to `room` characters before it is sent."""
    send, fitted = session.send, sys.modules["kernel_agent_fitting"].fitted

    def send_fitted(stream: Any, msg_or_type: Any, *args: Any, **options: Any) -> Any:
        content = msg_or_type.get("content") if isinstance(msg_or_type, dict) else None
        if content and "data" in content and "metadata" in content:
            data, metadata = content["data"], content["metadata"]
            content["data"], content["metadata"] = fitted(data, metadata, room)
        return send(stream, msg_or_type, *args, **options)

    session.send = send_fitted


def hasten_displays(display_pub: Any) -> None:
    """Let a display not wait until what was printed before it has left: the order is kept."""

    def flush_streams() -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, WholeStream) and os.getpid() == stream._master_pid:
                stream.settle()
                stream.push()
            else:
                stream.flush()

    display_pub._flush_streams = flush_streams


def keep_parents(shell: Any) -> None:
    """Let a thread's outputs belong to the cell that has started it.

    The threads of a pool work for many cells: theirs belong to the cell that runs.
    """
    start = threading.Thread.start

    def start_with_parent(thread: threading.Thread) -> None:
        parent, run = shell.get_parent(), thread.run
        target = getattr(thread, "_target", None)

        def run_with_parent() -> None:
            del thread.__dict__["run"]
            shell.set_thread_parent(parent)
            run()

        if parent and getattr(target, "__module__", None) not in POOLS:
            thread.run = run_with_parent  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = start_with_parent  # type: ignore[method-assign, assignment]


def stop_keeping(shell: Any) -> None:
    """Let IPython no longer keep what is printed, by a `write` of its own during each cell."""
    shell._tee = lambda channel: contextlib.nullcontext()

    def unhook() -> None:
        for stream in (sys.stdout, sys.stderr):
            vars(stream).pop("write", None)
        shell.events.unregister("pre_execute", unhook)

    # This very cell puts the write of old back at its end.
    shell.events.register("pre_execute", unhook)


def end_in_order(kernel: Any) -> None:
    """Let the thread of IOPub end after the one of control.

    ipykernel 7.4 stops it first: a flush after the shutdown request then waits for it in vain.
    """
    control, iopub = kernel.control_thread, kernel.iopub_thread
    stop = iopub.stop

    def stop_after_control() -> None:
        if control is not None and control.is_alive():
            control.stop()
            control.join(SETTLE_SECONDS)
        stop()

    iopub.stop = stop_after_control


def install(room: int) -> None:
    """Make the streams whole and the displays no longer than `room` characters."""
    shell = get_ipython()
    stop_keeping(shell)
    for stream in (sys.stdout, sys.stderr):
        make_whole(stream, room)
    bound_displays(shell.kernel.session, room)
    hasten_displays(shell.display_pub)
    keep_parents(shell)
    end_in_order(shell.kernel)
    iopub = shell.kernel.iopub_thread
    iopub.schedule(lambda: iopub.socket.setsockopt(zmq.SNDHWM, 0))
