"""One session with an MCP server, from its start to its end, and the process if there is one."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

from kernel_agent.mcp_client.mending import MendedStream
from kernel_agent.mcp_client.servers import Server
from kernel_agent.terminal import plain_text

CLOSE_SECONDS = 8.0  # the protocol's own ways of ending a server take 6 at most
EXIT_SECONDS = 0.5  # how long the exit code of a server that has hung up is waited for
TAIL_BYTES = 2_000  # of a server's standard error
MAX_TOOLS = 1_000

_processes: ContextVar[list[asyncio.SubprocessTransport]] = ContextVar("_processes")


class ServerLoop(asyncio.SelectorEventLoop):
    """An event loop that knows the processes it starts: the package does not tell them."""

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        transport, protocol = await super().subprocess_exec(*args, **kwargs)
        if (processes := _processes.get(None)) is not None:
            processes.append(transport)
        return transport, protocol


class Session:
    """A session that begins at once; `begun` has the server's tools, or what went wrong."""

    def __init__(self, server: Server) -> None:
        self.own_name = ""
        self.begun: asyncio.Future[list[dict[str, Any]]] = asyncio.Future()
        self._server = server
        self._session: Any = None
        self._processes: list[asyncio.SubprocessTransport] = []
        self._tail = _Tail()
        self._closing = asyncio.Event()
        self._hung_up = False
        # The package wants a session opened and closed in one and the same task.
        self._task = asyncio.create_task(self._keep())

    @property
    def has_ended(self) -> bool:
        return self._hung_up or self._task.done() or self._exit_code is not None

    def give_up(self) -> None:
        """From now on it counts as ended: nothing more will come of it."""
        self._hung_up = True

    @property
    def exit_text(self) -> str:
        """How the process ended, empty while it runs: `with exit code 3`."""
        code = self._exit_code
        if code is None or code >= 0:
            return "" if code is None else f"with exit code {code}"
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"

    def last_words(self) -> str:
        """The end of the server's standard error, as sentences for an error."""
        text = self._tail.text()
        return f" It said:\n{text}\n" if text else ""

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        calling = asyncio.ensure_future(self._session.call_tool(tool, arguments))
        try:
            # A transport that breaks may leave its calls without an answer.
            await asyncio.wait({calling, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise ConnectionError("the session is over")
            return calling.result()
        finally:
            calling.cancel()

    async def wait_for_exit(self) -> None:
        """Wait a moment for the exit code of a process that seems to have ended."""
        deadline = asyncio.get_running_loop().time() + EXIT_SECONDS
        while self._processes and self._exit_code is None:
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Close the session; no process that belongs to it is left."""
        self._closing.set()
        is_open = self._session is not None
        done, _ = await asyncio.wait({self._task}, timeout=CLOSE_SECONDS if is_open else 0)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
        for process in self._processes:
            # Its group: what the server has started goes with it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.get_pid(), signal.SIGKILL)
        self._tail.close()

    @property
    def _exit_code(self) -> int | None:
        return self._processes[-1].get_returncode() if self._processes else None

    async def _keep(self) -> None:
        _processes.set(self._processes)
        try:
            async with self._opened() as session:
                self._session = session
                found = await _listed(session)
                self._tail.close_writing()
                if not self.begun.done():
                    self.begun.set_result(found)
                await self._closing.wait()
        except BaseException as error:
            if not self.begun.done():
                self.begun.set_exception(_first(error))
            if isinstance(error, asyncio.CancelledError):
                raise

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Any]:
        mcp = importlib.import_module("mcp")
        # Its logs quote what a server sends; who wants them configures logging.
        logging.getLogger("mcp").addHandler(logging.NullHandler())
        async with self._transport() as transport:
            streams = (MendedStream(transport[0]), transport[1])
            if hasattr(mcp, "Client"):  # from version 2 on
                async with mcp.Client(_entered(streams)) as client:
                    self._call_itself(getattr(client, "server_info", None))
                    yield client
                return
            async with mcp.ClientSession(*streams) as session:
                self._call_itself((await session.initialize()).serverInfo)
                yield session

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        server = self._server
        if not server.url:
            stdio = importlib.import_module("mcp.client.stdio")
            parameters = stdio.StdioServerParameters(
                command=server.command, args=list(server.args), env=dict(server.env), cwd=server.cwd
            )
            async with stdio.stdio_client(parameters, errlog=self._tail.writing) as streams:
                yield streams
            return
        http = importlib.import_module("mcp.client.streamable_http")
        async with (
            http.create_mcp_http_client(headers=dict(server.headers)) as client,
            http.streamable_http_client(server.url, http_client=client) as streams,
        ):
            yield streams

    def _call_itself(self, info: Any) -> None:
        self.own_name = plain_text(str(getattr(info, "name", "") or ""))[:60]


class _Tail:
    """The end of what a process writes to its standard error."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self.writing = os.fdopen(writing, "w")
        self._bytes = b""
        self._is_open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reading, self._read)

    def text(self) -> str:
        if self._is_open:
            self._read()
        return plain_text(self._bytes.decode("utf-8", "replace")).strip()

    def close_writing(self) -> None:
        """The process has its own end now."""
        self.writing.close()

    def close(self) -> None:
        self.writing.close()
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._reading)
            os.close(self._reading)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while piece := os.read(self._reading, 65_536):
                self._bytes = (self._bytes + piece)[-TAIL_BYTES:]
            self._loop.remove_reader(self._reading)  # it is over


@asynccontextmanager
async def _entered(streams: Any) -> AsyncIterator[Any]:
    """Streams that are open already, for who wants to open them."""
    yield streams


async def _listed(session: Any) -> list[dict[str, Any]]:
    """All pages of the server's tools."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(found) < MAX_TOOLS:
        page = await (session.list_tools(cursor=cursor) if cursor else session.list_tools())
        told: Mapping[str, Any] = page.model_dump(by_alias=True, mode="json", exclude_none=True)
        found += told["tools"]
        if not (cursor := told.get("nextCursor")):
            break
    return found[:MAX_TOOLS]


def _first(error: BaseException) -> Exception:
    """The reason in an error or a group of them, as the package's tasks raise them."""
    for leaf in _leaves(error):
        if isinstance(leaf, Exception):
            return leaf
    return ConnectionError("the session was cancelled")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
