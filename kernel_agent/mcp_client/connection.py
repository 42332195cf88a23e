"""A connection to one MCP server: made, kept, made again after the server's end, closed."""

from __future__ import annotations

import asyncio
from typing import Any

from kernel_agent.errors import McpServerError
from kernel_agent.mcp_client.servers import Server
from kernel_agent.mcp_client.session import TAIL_BYTES, Session
from kernel_agent.terminal import plain_text

CLOSED = -32000  # the code with which the package says that the other side has hung up
SESSION_ENDED = (32600, 404)  # codes for a session that an HTTP server knows no more


class Connection:
    """The way to one server. All methods are for one and the same event loop, a `ServerLoop`."""

    def __init__(self, server: Server, *, start_timeout: float) -> None:
        self.server = server
        self._start_timeout = start_timeout
        self._session: Session | None = None
        self._connecting = asyncio.Lock()
        self._is_closed = False

    @property
    def name(self) -> str:
        """What the server is called: by the user, or else by itself."""
        own = self._session.own_name if self._session else ""
        return self.server.name if self.server.named else own or self.server.name

    async def connect(self) -> list[dict[str, Any]]:
        """Start or reach the server; returns its tools as the protocol describes them.

        Raises McpServerError if it does not answer in time.
        """
        self._session = session = Session(self.server)
        try:
            async with asyncio.timeout(self._start_timeout):
                return await session.begun
        except TimeoutError:
            reason = f"it did not answer within {self._start_timeout:g} s.{session.last_words()}"
            await session.end()
            raise self._error(reason) from None
        except asyncio.CancelledError:
            await session.end()
            raise
        # What the package raises is a matter of the transport and of its version.
        except Exception as error:
            await session.wait_for_exit()
            reason = f"it cannot be reached: {_said(error)}"
            if session.exit_text and _is_hang_up(error):
                reason = f"it ended {session.exit_text} while it was starting."
            reason += session.last_words()
            await session.end()
            raise self._error(reason) from None

    async def call(self, tool: str, arguments: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The result of one call as it came over the wire; a server that has ended starts anew.

        Raises TimeoutError, and McpServerError if the server ends or refuses the call.
        """
        session = await self._living()
        try:
            async with asyncio.timeout(timeout):
                result = await session.call(tool, arguments)
        except TimeoutError:
            text = f"MCP server {self.name!r}: {tool!r} did not answer within {timeout:g} s."
            raise TimeoutError(text) from None
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise await self._failure(session, tool, error) from None
        found: dict[str, Any] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return found

    async def close(self) -> None:
        """End the session, and the server if it was started here; safe to call twice."""
        self._is_closed = True
        if self._session is not None:
            await self._session.end()

    async def _living(self) -> Session:
        async with self._connecting:
            if self._is_closed:
                raise self._error("its connection is closed.")
            if self._session is None or self._session.has_ended:
                if self._session is not None:
                    await self._session.end()
                await self.connect()
            assert self._session is not None
            return self._session

    async def _failure(self, session: Session, tool: str, error: Exception) -> McpServerError:
        """What a call that raised `error` tells of the server."""
        code = _code(error)
        if code is None or code in SESSION_ENDED or _is_hang_up(error):
            await session.wait_for_exit()
            how = f"it ended {session.exit_text}" if session.exit_text else "it hung up"
            if code is None and not session.exit_text:
                how = f"it cannot be reached: {_said(error)}"
            reason = f"{how} during the call of {tool!r}.{session.last_words()}"
            session.give_up()
            return self._error(f"{reason} The next call connects again.")
        return self._error(f"{tool!r} was refused: {_said(error)}")

    def _error(self, reason: str) -> McpServerError:
        return McpServerError(self.name, self.server.without_secrets(reason))


def _code(error: Exception) -> int | None:
    """The code of an error that came over the wire, or that the package has made like that."""
    code = getattr(getattr(error, "error", None), "code", None)
    return code if isinstance(code, int) else None


def _is_hang_up(error: Exception) -> bool:
    """Whether it means that the other side is there no more."""
    if _code(error) == CLOSED:
        return "closed" in str(error).lower()
    streams = ("BrokenResourceError", "ClosedResourceError", "EndOfStream")  # of anyio
    return isinstance(error, ConnectionError) or type(error).__name__ in streams


def _said(error: Exception) -> str:
    text = " ".join(plain_text(str(error)).split())[:TAIL_BYTES]
    return f"{text or type(error).__name__}."
