"""An MCP server made with the official package: over stdio, or with a port over HTTP."""

import sys
from typing import Literal

from pydantic import BaseModel

try:
    from mcp.server.mcpserver import Image, MCPServer
except ImportError:  # before version 2
    from mcp.server.fastmcp import FastMCP as MCPServer
    from mcp.server.fastmcp import Image

DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)


class Options(BaseModel):
    """How to search."""

    limit: int = 10
    kind: Literal["book", "song"] = "book"


class Found(BaseModel):
    title: str
    score: float


server = MCPServer("shop")


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two whole numbers."""
    return a + b


@server.tool()
def search(query: str, options: Options | None = None) -> list[Found]:
    """Find things by their words."""
    count = options.limit if options else 2
    return [Found(title=f"{query} {number}", score=1 / (number + 1)) for number in range(count)]


@server.tool()
def greet(name: str):
    """Greet somebody."""
    return f"Hello {name}"


@server.tool()
def dot() -> Image:
    """A small picture."""
    return Image(data=DOT, format="png")


@server.tool()
def fail(why: str) -> str:
    """Always fails."""
    raise ValueError(f"no: {why}")


def main():
    if len(sys.argv) == 1:
        server.run()
        return
    port = int(sys.argv[1])
    if hasattr(server.settings, "port"):  # before version 2
        server.settings.port = port
        server.run("streamable-http")
    else:
        server.run("streamable-http", port=port)


main()
