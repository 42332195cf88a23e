"""Mends a server's list of tools before the package `mcp` refuses all of it for one bad schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

MARK = "x-kernel-agent-given"
"""Under this key a mended schema holds what the server has sent."""


class MendedStream:
    """A session's stream of messages from the server, with every list of tools mended."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return _mended(await self._stream.__anext__())

    async def receive(self) -> Any:
        return _mended(await self._stream.receive())


def given_schema(schema: Any) -> Any:
    """The schema as the server sent it."""
    return schema.get(MARK, schema) if isinstance(schema, Mapping) else schema


def _mended(message: Any) -> Any:
    inner = getattr(message, "message", None)
    # Before version 2 the message is in a `root`.
    result = getattr(getattr(inner, "root", inner), "result", None)
    tools = result.get("tools") if isinstance(result, dict) else None
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            _mend(tool)
    return message


def _mend(tool: dict[str, Any]) -> None:
    if not _is_object(given := tool.get("inputSchema")):
        tool["inputSchema"] = {"type": "object", MARK: given}
    if "outputSchema" in tool and not _is_object(tool["outputSchema"]):
        del tool["outputSchema"]


def _is_object(schema: Any) -> bool:
    """Whether it is what the protocol wants: an object's schema, its properties schemas."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return (
        isinstance(properties, dict)
        and all(isinstance(one, dict) for one in properties.values())
        and isinstance(required, list)
        and all(isinstance(one, str) for one in required)
    )
