"""The tools of MCP servers: `tools` gives them, over the `connection` to each of the `servers`."""

from kernel_agent.mcp_client.servers import mcp_config
from kernel_agent.mcp_client.tools import McpTools, mcp_tools

__all__ = ["McpTools", "mcp_config", "mcp_tools"]
