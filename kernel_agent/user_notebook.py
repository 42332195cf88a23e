"""A notebook of the user's as the beginning of a run: executed, and shown to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernel_agent.events import CellRepeated, Listener
from kernel_agent.kernel import Kernel
from kernel_agent.observation import observe
from kernel_agent.repeating import plan_all, repeat
from kernel_agent.steps import CellResult, Entry, UserCell
from kernel_agent.transcript.notebook import read_notebook

MAX_CHARS = 20_000
OUTPUT_CHARS = (2_000, 500, 0)
"""How much is shown of each output; less where the cells would not fit otherwise."""


def run_notebook(
    kernel: Kernel,
    notebook: Path,
    entries: Sequence[Entry],
    *,
    tell: Listener,
    stopped: Callable[[], bool],
) -> str:
    """Execute the user's `notebook`, unless `kernel` is its own, and return it as text.

    `entries` are its cells as they were read. A cell that fails does not end it, one that ends
    the kernel does.

    Raises TranscriptError if the notebook cannot be read, KernelStartError.
    """
    results = {entry.id: entry.result for entry in entries if isinstance(entry, UserCell)}
    note = ""
    if kernel.is_ours:
        plan = plan_all(entries)
        for number, repeated in enumerate(repeat(kernel, plan), 1):
            tell(CellRepeated(repeated.cell.spoken, number, len(plan)))
            results[repeated.cell.name] = repeated.result
            if repeated.result.status == "died":
                note = f"\n\n[{repeated.result.reason} No further cell was run.]"
                kernel.restart()
            if stopped():
                break
    return notebook_text(read_notebook(notebook)["cells"], [*results.values()]) + note


def notebook_text(
    cells: Sequence[Mapping[str, Any]],
    results: Sequence[CellResult],
    *,
    max_chars: int = MAX_CHARS,
) -> str:
    """The `cells` of a notebook (as nbformat has them) for the model, in about `max_chars`.

    `results` are those of its code cells, in order. Where all is too long the outputs are
    shortened first, then the oldest cells are left out.
    """
    shown: list[str] = []
    for output_chars in OUTPUT_CHARS:
        of_code = iter(results)
        shown = [
            _cell(
                number,
                cell,
                next(of_code, None) if cell.get("cell_type") == "code" else None,
                output_chars,
            )
            for number, cell in enumerate(cells, 1)
        ]
        if sum(map(len, shown)) <= max_chars:
            return "\n\n".join(filter(None, shown))
    kept: list[str] = []
    room = max_chars
    for text in reversed(shown):
        room -= len(text)
        if room < 0:
            break
        kept.append(text)
    if not kept:
        kept = [shown[-1][:max_chars] + " …"]
    gone = len(shown) - len(kept)
    left_out = [f"[cells 1 to {gone} are left out]"] if gone else []
    return "\n\n".join(filter(None, [*left_out, *reversed(kept)]))


def _cell(
    number: int, cell: Mapping[str, Any], result: CellResult | None, output_chars: int
) -> str:
    source = cell.get("source", "")
    source = ("".join(source) if isinstance(source, list) else str(source)).strip("\n")
    if not source.strip():
        return ""
    if cell.get("cell_type") != "code":
        return f"[cell {number}, {cell.get('cell_type', 'text')}]\n{source}"
    text = f"[cell {number}, code]\n{source}"
    if result is None or not result.outputs or not output_chars:
        return text
    shown = observe(replace(result, variables={}), max_chars=output_chars).text
    return f"{text}\n[output]\n{shown}"
