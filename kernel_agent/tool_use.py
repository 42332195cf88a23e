"""The tools of a run as its notebook has them: told, recorded, and answered from the record."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kernel_agent.call_files import keep_files
from kernel_agent.call_record import RecordedCalls
from kernel_agent.kernel.serving import Offer, Serve
from kernel_agent.repeating import RecordedCell, plan_all
from kernel_agent.steps import CellResult, Entry
from kernel_agent.tools import Tool, Toolbox

MAX_BYTES = 200_000_000
"""Most bytes of large values that one cell's calls add to the folder beside the notebook."""

ELSEWHERE = (
    "{name}() ran outside of the kernel. `kernel-agent replay` on this notebook answers its calls "
    "from the record."
)


def about_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """The tools as the notebook's metadata have them: enough to offer them again in a replay."""
    return [
        {"name": one.name, "stub": one.stub, "where": one.where, "timeout": one.timeout}
        for one in tools
    ]


def recorded_offers(about: Mapping[str, Any]) -> dict[str, Offer]:
    """The functions of the host that a recorded run's code could call; odd entries left out."""
    offers: dict[str, Offer] = {}
    tools = about.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        match tool:
            case {"name": str(name), "stub": str(stub), "where": "host"}:
                timeout = tool.get("timeout")
                timeout = timeout if isinstance(timeout, int | float) and timeout > 0 else None
                try:
                    offers[name] = Offer(stub, timeout)
                except ValueError:
                    continue
    return offers


def stand_ins(tools: Iterable[Tool]) -> str:
    """Source that defines the host's tools for plain Jupyter, where they say what they are."""
    sources = []
    for tool in tools:
        if tool.where == "host":
            module = ast.parse(tool.stub)
            (definition,) = module.body
            assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
            why = ELSEWHERE.format(name=tool.name)
            definition.body += ast.parse(f"raise NotImplementedError({why!r})").body
            sources.append(ast.unparse(module))
    return "\n\n\n".join(sources)


class LiveCalls:
    """Answers the calls of cells that are executed again by calling the tools anew."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox

    def serve_for(self, cell: str, *, folder: Path | None) -> Serve:
        return partial(self._toolbox.serve, folder=folder)


def recorded_calls(entries: Iterable[Entry], notebook: Path | None) -> RecordedCalls:
    """What answers the calls of `entries`' cells when they are executed again."""
    cells = [item for item in plan_all(entries) if isinstance(item, RecordedCell)]
    path = notebook or Path("(not saved)")
    sidecar = _sidecar(notebook) if notebook else None
    calls = [(cell.name, cell.result.tool_calls) for cell in cells]
    return RecordedCalls(calls, path=path, sidecar=sidecar)


def with_kept_calls(
    result: CellResult, *, source: Path | None, notebook: Path | None
) -> CellResult:
    """`result` with the large values of its calls beside the `notebook`; they lie in `source`."""
    if notebook is None or not result.tool_calls:
        return result
    room = MAX_BYTES
    calls = []
    for call in result.tool_calls:
        kept = keep_files(call, source=source, sidecar=_sidecar(notebook), max_bytes=room)
        room -= kept.bytes
        calls.append(kept.call)
    return replace(result, tool_calls=tuple(calls))


def _sidecar(notebook: Path) -> Path:
    return notebook.with_name(f"{notebook.stem}-calls")
