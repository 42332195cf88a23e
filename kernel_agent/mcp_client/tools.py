"""The tools of MCP servers, as tools that code in the kernel can call."""

from __future__ import annotations

import asyncio
import atexit
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, wait
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self, TypeVar

from kernel_agent.errors import McpServerError, SettingsError, ToolError
from kernel_agent.mcp_client.connection import Connection
from kernel_agent.mcp_client.mending import given_schema
from kernel_agent.mcp_client.results import McpToolFailure, is_wrapped, value_of
from kernel_agent.mcp_client.schema_stubs import Stub, identifier, stub_of
from kernel_agent.mcp_client.servers import Server, as_servers
from kernel_agent.mcp_client.session import CLOSE_SECONDS, ServerLoop
from kernel_agent.tools.tool import Tool, check_name

LOOK_SECONDS = 1.0  # how often a thread that waits looks whether there is still a loop

_Result = TypeVar("_Result")
_Offered = tuple[Connection, Mapping[str, Any]]


def mcp_tools(
    servers: Sequence[Mapping[str, Any] | str],
    *,
    timeout: float = 120.0,
    start_timeout: float = 60.0,
) -> McpTools:
    """The tools of MCP servers, which are started or reached at once, side by side.

    A server is `{"command": …, "args": […], "env": {…}}` (started here, with the few variables
    that the `mcp` package holds to be safe, and `env`), a URL or `{"url": …, "headers": {…}}`, or
    the path of a file with `mcpServers`. With a `name` of its own, that stands before the names of
    its tools where two servers have the same. `timeout` is for a call and `start_timeout` for the
    start, in seconds.

    Raises SettingsError for a bad server or if the package `mcp` is missing, McpServerError if a
    server does not start; then none is left running.
    """
    known = as_servers(servers)
    if find_spec("mcp") is None:
        raise SettingsError(
            "MCP servers need the package `mcp`, which is not installed. "
            "It comes with an extra: pip install 'kernel-agent[mcp]'."
        )
    return McpTools(known, timeout=timeout, start_timeout=start_timeout)


class McpTools:
    """The `tools` of some MCP servers; closed, the servers that were started here have ended.

    Their calls may come from any thread. `close` is called at the end of the process at the latest.
    """

    tools: tuple[Tool, ...]

    def __init__(self, servers: Sequence[Server], *, timeout: float, start_timeout: float) -> None:
        self._timeout = timeout
        self._loop = ServerLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True)
        self._thread.start()
        self._closing = threading.Lock()
        self._connections: list[Connection] = []
        atexit.register(self.close)
        try:
            offered = self._run(self._connect(servers, start_timeout))
            self.tools = tuple(self._tools(offered))
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<McpTools of {[connection.name for connection in self._connections]}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every session and every server that was started here; safe to call twice."""
        with self._closing:
            if self._loop.is_closed():
                return
            self._run(self._disconnect())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_SECONDS)
            self._loop.close()
        atexit.unregister(self.close)

    async def _connect(self, servers: Sequence[Server], start_timeout: float) -> list[_Offered]:
        self._connections = [Connection(one, start_timeout=start_timeout) for one in servers]
        connecting = [connection.connect() for connection in self._connections]
        found = await asyncio.gather(*connecting, return_exceptions=True)
        offered: list[_Offered] = []
        for connection, tools in zip(self._connections, found, strict=True):
            if isinstance(tools, BaseException):
                raise tools
            offered += [(connection, tool) for tool in tools]
        return offered

    async def _disconnect(self) -> None:
        await asyncio.gather(*(one.close() for one in self._connections), return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()

    def _tools(self, offered: Sequence[_Offered]) -> list[Tool]:
        names = _names([(connection.name, str(tool["name"])) for connection, tool in offered])
        return [
            self._tool(name, connection, told)
            for name, (connection, told) in zip(names, offered, strict=True)
        ]

    def _tool(self, name: str, connection: Connection, told: Mapping[str, Any]) -> Tool:
        returns = told.get("outputSchema") or {}
        wrapped = is_wrapped(returns)
        shown = (
            {**returns["properties"]["result"], **_definitions(returns)}
            if wrapped
            else returns or None
        )
        schema = given_schema(told.get("inputSchema"))
        stub = stub_of(name, told.get("description") or "", schema, shown)
        if stub.problem:
            warnings.warn(
                f"MCP server {connection.name!r}: the schema of {told['name']!r} cannot be used: "
                f"{stub.problem}. It takes any keyword arguments.",
                stacklevel=2,
            )
        call = self._caller(connection, str(told["name"]), stub, wrapped=wrapped)
        return Tool(name, stub.source, call, timeout=self._timeout)

    def _caller(
        self, connection: Connection, tool: str, stub: Stub, *, wrapped: bool
    ) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            arguments = stub.arguments(args, kwargs)
            if self._loop.is_closed():
                raise McpServerError(connection.name, "its connection is closed.")
            try:
                result = self._run(connection.call(tool, arguments, self._timeout))
            except CancelledError:
                raise McpServerError(connection.name, "its connection was closed.") from None
            try:
                return value_of(result, wrapped=wrapped)
            except McpToolFailure as failure:
                # A server may quote the key that it was given.
                raise McpToolFailure(connection.server.without_secrets(str(failure))) from None

        call.__name__ = identifier(tool)
        return call

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            # A loop that was stopped just then leaves its work without an end.
            while not wait([future], timeout=LOOK_SECONDS).done and not self._loop.is_closed():
                pass
        except KeyboardInterrupt:
            future.cancel()
            raise
        return future.result(timeout=0)


def _names(tools: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each (server, tool): the tool's where it is free, with the server's where not."""
    plain = [identifier(tool) for _, tool in tools]
    counts = Counter(plain)
    found: list[str] = []
    for (server, _), name in zip(tools, plain, strict=True):
        wanted = name
        if counts[name] > 1 or not _can_be(name):
            wanted = f"{identifier(server).strip('_')}_{name.strip('_')}"
        wanted = wanted if _can_be(wanted) else f"tool_{wanted}"
        free, number = wanted, 1
        while free in found:
            number += 1
            free = f"{wanted}_{number}"
        found.append(free)
    return found


def _can_be(name: str) -> bool:
    try:
        check_name(name)
    except ToolError:
        return False
    return True


def _definitions(schema: Any) -> dict[str, Any]:
    return {key: schema[key] for key in ("$defs", "definitions") if key in schema}
