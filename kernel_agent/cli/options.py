"""The options that several commands have."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from kernel_agent.settings import Settings


def option(metavar: str, help: str, *names: str) -> Any:
    """An option that takes a value."""
    # Numbers stay text here: the settings check them, alike for flags, variables and the file.
    return typer.Option(*names, metavar=metavar, help=help)


def switch(help: str, *names: str) -> Any:
    """An option that takes none."""
    return typer.Option(*names, help=help)


Text = str | None
Files = list[Path] | None

Notebook = Annotated[Path, typer.Argument(help="The notebook of a run.")]
KernelName = Annotated[Text, option("NAME", "The Jupyter kernel.  [python3]")]
PythonPath = Annotated[
    Text, option("PATH", "The Python or virtual environment to run the code in.")
]
Packages = Annotated[
    list[str] | None, option("PACKAGE", "A package to have; can be repeated.", "--with")
]
Out = Annotated[Path | None, option("FILE", "The notebook to write.")]
Folder = Annotated[Text, option("DIR", "Where notebooks go.  [runs]")]
CellTimeout = Annotated[Text, option("S", "Seconds a cell may take.  [120]")]
MaxChars = Annotated[
    Text, option("N", "Characters of a cell's output that the model sees.  [8000]")
]
Quiet = Annotated[bool, switch("Print the answer alone.", "--quiet", "-q")]
Json = Annotated[bool, switch("Print every event as a line of JSON.", "--json")]
Yes = Annotated[bool, switch("Execute it without asking.", "--yes", "-y")]


def shared(
    *,
    data: Annotated[Files, option("FILE", "A data file; can be repeated.")] = None,
    image: Annotated[Files, option("FILE", "A picture to look at; can be repeated.")] = None,
    audio: Annotated[Files, option("FILE", "A recording to listen to; can be repeated.")] = None,
    video: Annotated[Files, option("FILE", "A film to watch; can be repeated.")] = None,
    model: Annotated[Text, option("NAME", "The model, as litellm names it.")] = None,
    fallback: Annotated[
        list[str] | None,
        option("NAME", "A model to ask when the first stays down; can be repeated."),
    ] = None,
    api_base: Annotated[Text, option("URL", "The server of the model.")] = None,
    effort: Annotated[Text, option("WORD", "How long it thinks: low, medium, high, …")] = None,
    reply_format: Annotated[
        Text, option("WORD", "How it writes code: fence, tools or json.  [auto]")
    ] = None,
    window: Annotated[Text, option("N", "Tokens that a request and its reply may have.")] = None,
    requests_per_minute: Annotated[Text, option("N", "Requests per minute at most.")] = None,
    kernel: KernelName = None,
    python: PythonPath = None,
    packages: Packages = None,
    out: Out = None,
    max_steps: Annotated[Text, option("N", "Steps at most.  [20]")] = None,
    max_cost: Annotated[Text, option("USD", "Cost at most.")] = None,
    max_tokens: Annotated[Text, option("N", "Tokens at most.")] = None,
    max_seconds: Annotated[Text, option("S", "Seconds at most.")] = None,
    cell_timeout: CellTimeout = None,
    max_chars: MaxChars = None,
    plan_every: Annotated[
        Text, option("N", "Ask for a plan at first and after every N steps.")
    ] = None,
    prompts: Annotated[Text, option("DIR", "Prompt files to use instead.")] = None,
    tools: Annotated[
        Text, option("NAMES", "Built-in tools: web_search, visit_webpage, wikipedia, ask_user.")
    ] = None,
    mcp: Annotated[
        Path | None, option("FILE", "MCP servers, as clients share them (`mcpServers`).")
    ] = None,
    confirm: Annotated[
        bool, switch("Ask before each cell runs; you may edit it.", "--confirm")
    ] = False,
    otel: Annotated[bool, switch("Send OpenTelemetry spans, if that is set up.", "--otel")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Declares the options of every command that runs a task; it is never called."""


def takes_shared(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options of `shared` before its own; it gets their values in `**flags`."""
    hints = get_type_hints(command, include_extras=True)
    hints |= get_type_hints(shared, include_extras=True)
    own = [*inspect.signature(command).parameters.values()]
    arguments = [it for it in own if it.kind is it.POSITIONAL_OR_KEYWORD]
    options = [*inspect.signature(shared).parameters.values()]
    options += [it for it in own if it.kind is it.KEYWORD_ONLY]
    # What typer reads of a function.
    command.__annotations__ = hints
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [it.replace(annotation=hints[it.name]) for it in (*arguments, *options)]
    )
    return command


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


def media_of(flags: Mapping[str, Any]) -> dict[str, list[Path]]:
    """The files for the model's eyes and ears, as `Agent.run` takes them."""
    kinds = {"images": "image", "audio": "audio", "video": "video"}
    return {name: flags[kind] for name, kind in kinds.items() if flags[kind]}
