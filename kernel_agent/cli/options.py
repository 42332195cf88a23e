"""The options that several commands have."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kernel_agent.settings import Settings


def option(metavar: str, help: str, *names: str) -> Any:
    """An option that takes a value."""
    # Numbers stay text here: the settings check them, alike for flags, variables and the file.
    return typer.Option(*names, metavar=metavar, help=help)


Notebook = Annotated[Path, typer.Argument(help="The notebook of a run.")]
Data = Annotated[list[Path] | None, option("FILE", "A data file; can be repeated.")]
ModelName = Annotated[str | None, option("NAME", "The model, as litellm names it.")]
ApiBase = Annotated[str | None, option("URL", "The server of the model.")]
KernelName = Annotated[str | None, option("NAME", "The Jupyter kernel.  [python3]")]
PythonPath = Annotated[
    str | None, option("PATH", "The Python or virtual environment to run the code in.")
]
Packages = Annotated[
    list[str] | None, option("PACKAGE", "A package to have; can be repeated.", "--with")
]
Out = Annotated[Path | None, option("FILE", "The notebook to write.")]
Folder = Annotated[str | None, option("DIR", "Where notebooks go.  [runs]")]
MaxSteps = Annotated[str | None, option("N", "Steps at most.  [20]")]
MaxCost = Annotated[str | None, option("USD", "Cost at most.")]
MaxTokens = Annotated[str | None, option("N", "Tokens at most.")]
MaxSeconds = Annotated[str | None, option("S", "Seconds at most.")]
CellTimeout = Annotated[str | None, option("S", "Seconds a cell may take.  [120]")]
MaxChars = Annotated[
    str | None, option("N", "Characters of a cell's output that the model sees.  [8000]")
]
PlanEvery = Annotated[str | None, option("N", "Ask for a plan at first and after every N steps.")]
PromptsFolder = Annotated[str | None, option("DIR", "Prompt files to use instead.")]
Confirm = Annotated[
    bool, typer.Option("--confirm", help="Ask before each cell runs; you may edit it.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer alone.")]
Json = Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")]
Tools = Annotated[
    str | None, option("NAMES", "Built-in tools: web_search, visit_webpage, wikipedia, ask_user.")
]
McpFile = Annotated[
    Path | None, option("FILE", "MCP servers, as clients share them (`mcpServers`).", "--mcp")
]
Otel = Annotated[bool, typer.Option("--otel", help="Send OpenTelemetry spans, if that is set up.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Execute it without asking.")]


def settings_of(flags: Mapping[str, Any]) -> Settings:
    """The settings in force, where `flags` has those that a command was given, by name."""
    from kernel_agent.settings import NAMES, config_file, load_settings

    known = {name: flags[name] for name in NAMES if name in flags}
    return load_settings(known, os.environ, config_file())


def tool_options(tools: str | None, mcp: Path | None) -> dict[str, Any]:
    """The agent's tools: names with commas between, and the servers of a file."""
    options: dict[str, Any] = {}
    if tools:
        from kernel_agent.built_in_tools import built_in

        names = [name.strip() for name in tools.split(",") if name.strip()]
        built_in(names)  # a name that is wrong is told before anything is started
        options["tools"] = names
    if mcp:
        from kernel_agent.mcp_client import mcp_config

        options["mcp"] = mcp_config(mcp)
    return options
