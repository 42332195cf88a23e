"""Tools: functions of the user's that the code in the kernel can call."""

from kernel_agent.tools.json_schema import json_tools, takes_json
from kernel_agent.tools.reading_outputs import READER, output_reader
from kernel_agent.tools.tool import Tool, Where, as_tool, tool
from kernel_agent.tools.toolbox import Toolbox, kernel_source

__all__ = [
    "READER",
    "Tool",
    "Toolbox",
    "Where",
    "as_tool",
    "json_tools",
    "kernel_source",
    "output_reader",
    "takes_json",
    "tool",
]
