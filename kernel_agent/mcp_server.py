"""An MCP server that gives any client a managed kernel: over stdio, or HTTP on this machine."""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import wraps
from importlib import import_module
from typing import Any

from kernel_agent.errors import KernelAgentError, SettingsError
from kernel_agent.managed_kernel import RESTARTED, ManagedKernel, Turn

HOST = "127.0.0.1"
INTERRUPTED = 130  # as shells have it
INSTRUCTIONS = """\
A Jupyter kernel with one namespace for the whole conversation: variables, imports and functions \
stay from cell to cell, so work in small cells and look at what each of them gives. Long outputs \
are shown with their beginning and end; read_output reads the rest. Every cell is kept in a \
notebook; transcript says where."""

_Answer = Callable[..., Awaitable[Any]]


def check_installed() -> None:
    """Raises SettingsError if the package `mcp` is missing."""
    try:
        import_module("mcp")
    except ImportError as error:
        raise SettingsError(
            "The MCP server needs the package `mcp`, which is not installed. "
            "It comes with an extra: pip install 'kernel-agent[mcp]'."
        ) from error


def serve_stdio(kernel: ManagedKernel) -> None:
    """Serve one client over standard input and output until it hangs up.

    If a signal ends the process before, the kernel has ended by then.
    """
    failures: list[Exception] = []

    def serve() -> None:
        try:
            make_server(kernel).run("stdio")
        except Exception as error:
            failures.append(error)

    # A thread of its own waits for input: nothing else can end that wait.
    serving = threading.Thread(target=serve, name="mcp", daemon=True)
    try:
        serving.start()
        serving.join()
    except (SystemExit, KeyboardInterrupt) as end:
        kernel.close()
        code = end.code if isinstance(end, SystemExit) else INTERRUPTED
        # An ordinary exit wants the lock of the standard input, which that thread holds.
        os._exit(code if isinstance(code, int) else 1)
    finally:
        kernel.close()
    if failures:
        raise failures[0]


def serve_http(kernel: ManagedKernel, listening: socket.socket, token: str) -> None:
    """Serve clients on a socket (see `listen`) until the process is told to end.

    They share one kernel. Each must send `Authorization: Bearer <token>`: whoever may call
    `execute` may do all that the user may.
    """
    uvicorn = import_module("uvicorn")
    app = _guarded(make_server(kernel).streamable_http_app(), token)
    # Graceful is not for ever: a client's stream for notifications never ends by itself.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        kernel.close()


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address; port 0 takes any that is free.

    Raises SettingsError if the port cannot be had.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # a client that comes early waits
    except (OSError, OverflowError) as error:
        listening.close()
        raise SettingsError(
            f"--http: port {port} cannot be had: {error}. Choose another; 0 takes a free one."
        ) from error
    return listening


def make_server(kernel: ManagedKernel) -> Any:
    """The server of the package `mcp`, with the tools that drive `kernel`."""
    server, image, failure = _package()
    for answer in _answers(kernel, image):
        # Texts and pictures as they are: what is structured would be sent twice.
        server.tool(structured_output=False)(_told(answer, failure))
    return server


def _told(answer: _Answer, failure: type[Exception]) -> _Answer:
    """`answer` whose errors are told to the client; those of another kind are kept from it."""

    @wraps(answer)
    async def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return await answer(*args, **kwargs)
        except (KernelAgentError, ValueError) as error:
            raise failure(str(error)) from error

    return told


def _answers(kernel: ManagedKernel, image: Any) -> Iterator[_Answer]:
    async def execute(source: str, timeout: float | None = None) -> list[Any]:
        """Execute a cell and return what it put out, figures as images, and what it changed.

        After `timeout` seconds it is interrupted; its variables stay.
        """
        turn = Turn()
        working = asyncio.to_thread(kernel.execute, source, timeout=_checked(timeout), turn=turn)
        try:
            cell, seen = await working
        except asyncio.CancelledError:
            kernel.stop(turn)
            raise
        shown = [_image(url, image) for url in seen.images]
        return [f"[cell {cell}]\n{seen.text}", *shown]

    async def interrupt() -> str:
        """Interrupt the cell that runs; what it has computed stays."""
        return "Interrupted." if kernel.interrupt() else "No cell was running."

    async def restart() -> str:
        """Start the kernel anew: for a state that cannot be mended. All variables are lost."""
        await asyncio.to_thread(kernel.restart)
        return RESTARTED

    async def variables() -> str:
        """List the variables with what they are."""
        found = await asyncio.to_thread(kernel.variables)
        if found is None:
            return "This kernel cannot tell its variables."
        lines = [f"{name}: {what}" if what else name for name, what in found.items()]
        return "\n".join(lines) or "There are no variables."

    async def read_output(cell: int, start: int = 0, end: int | None = None) -> str:
        """Read all that a cell has put out, from character `start` to `end`, 20,000 at a time."""
        return kernel.read_output(cell, start, end)

    async def transcript() -> str:
        """Say where the notebook is, and list its cells."""
        if kernel.path is None:
            return "There is no notebook yet: it is made with the first cell."
        return "\n".join([f"Notebook: {kernel.path.absolute()}", *kernel.cells()])

    yield from (execute, interrupt, restart, variables, read_output, transcript)


def _package() -> tuple[Any, Any, type[Exception]]:
    """A server, its images, its errors: version 2 of the package has other names."""
    try:
        module, name = import_module("mcp.server.mcpserver"), "MCPServer"
    except ImportError:
        module, name = import_module("mcp.server.fastmcp"), "FastMCP"
    failure: type[Exception] = import_module(f"{module.__name__}.exceptions").ToolError
    server = getattr(module, name)("kernel-agent", instructions=INSTRUCTIONS, log_level="WARNING")
    return server, module.Image, failure


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is {timeout:g}. It must be above 0 seconds.")
    return timeout


def _image(url: str, image: Any) -> Any:
    kind, _, data = url.partition(";base64,")
    return image(data=base64.b64decode(data), format=kind.rpartition("/")[2])


def _guarded(app: Any, token: str) -> Any:
    """`app` for those who know the token."""
    expected = f"Bearer {token}".encode()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] != "http" or hmac.compare_digest(given, expected):
            await app(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": 401}
        await send({**start, "headers": [(b"www-authenticate", b"Bearer")]})
        await send({"type": "http.response.body", "body": b"Send Authorization: Bearer <token>."})

    return guarded
