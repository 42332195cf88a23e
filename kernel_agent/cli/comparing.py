"""Commands that look at several runs: `diff` and `list`."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernel_agent.cli.app import app
from kernel_agent.cli.options import option
from kernel_agent.errors import SettingsError, TranscriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel_agent.differences.differing import Diff
    from kernel_agent.listing import ListedRun
    from kernel_agent.transcript import Transcript

DIFFERENT = 1  # as `diff` has it; 2 is for what cannot be compared
TASK_WIDTH = 60  # columns where there is no terminal to say how many there are
COLUMNS = ("started", "task", "outcome", "steps", "cost", "seconds", "file")
NUMBERS = ("steps", "cost", "seconds")


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="The notebook of a run.")],
    second: Annotated[Path, typer.Argument(help="The notebook of another one.")],
    *,
    html: Annotated[
        Path | None, option("FILE", "Write a page that shows both side by side, with figures.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --html.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Compare two runs, step by step.

    Exit codes: 0 the same, 1 different, 2 they cannot be compared. Times, ids, addresses in
    memory, tokens and cost make no difference.
    """
    from kernel_agent import differences

    found = differences.diff(_loaded(first), _loaded(second))
    if html:
        _write_page(found, html, force=force)
    if json:
        from json import dumps

        typer.echo(dumps(differences.diff_json(found)))
    else:
        from rich.console import Console

        from kernel_agent.diff_view import print_diff

        print_diff(Console(), found)
    raise typer.Exit(0 if found.same else DIFFERENT)


@app.command(name="list")
def list_(
    places: Annotated[
        list[Path] | None, typer.Argument(help="Folders, or notebooks.  [the folder of runs]")
    ] = None,
    *,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders in the folders, too.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print each run as a line of JSON.")] = False,
) -> None:
    """List recorded runs, newest first."""
    from kernel_agent.listing import list_runs
    from kernel_agent.settings import config_file, load_settings

    for place in places or []:
        if not place.exists():
            raise SettingsError(f"PLACES: there is no {str(place)!r}. Check the path.")
    places = places or [load_settings({}, os.environ, config_file()).folder]
    runs = list_runs([place for place in places if place.exists()], recursive=recursive)
    if json:
        from json import dumps

        for run in runs:
            typer.echo(dumps(_listed_json(run)))
    elif runs:
        _print_table(runs)
    else:
        typer.echo(f"No runs in {', '.join(map(str, places))}.", err=True)


def _loaded(path: Path) -> Transcript:
    from kernel_agent.transcript import Transcript

    try:
        return Transcript.load(path)
    except TranscriptError as error:
        # Not 1: that would say that it could be compared.
        raise SettingsError(str(error)) from error


def _write_page(found: Diff, out: Path, *, force: bool) -> None:
    from kernel_agent.diff_page import diff_page
    from kernel_agent.diff_view import fork_text, summary_text

    names = [side.path.name if side.path else side.run for side in (found.left, found.right)]
    page = diff_page(
        found,
        title=" → ".join(names),
        summary=summary_text(found),
        fork=fork_text(found.fork) if found.fork else "",
    )
    try:
        with out.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(page)
    except FileExistsError as error:
        reason = "exists, and no file is overwritten. Choose another name, or add --force"
        raise SettingsError(f"--html: {str(out)!r} {reason}.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"--html: {str(out)!r} cannot be written: {reason}.") from error


def _listed_json(run: ListedRun) -> dict[str, Any]:
    started = run.started.isoformat() if run.started else None
    return {**vars(run), "path": str(run.path), "started": started}


def _print_table(runs: Sequence[ListedRun]) -> None:
    """A run in a line; in a terminal the task is cut so that the line fits."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    rows = [_row(run) for run in runs]
    widths = {
        name: max(len(name), *(cell_len(row[name]) for row in rows))
        for name in COLUMNS
        if name != "task"
    }
    taken = sum(widths.values()) + 2 * (len(COLUMNS) - 1)
    room = max(console.width - taken, 20) if console.is_terminal else TASK_WIDTH
    widths["task"] = min(room, max(len("task"), *(cell_len(row["task"]) for row in rows)))
    _print_line(console, {name: name for name in COLUMNS}, widths, "bold")
    styles = {"unfinished": "yellow", "damaged": "red", "foreign": "dim"}
    for run, row in zip(runs, rows, strict=True):
        _print_line(console, row, widths, styles.get(run.state, ""))
    for run in runs:
        if run.reason:
            console.print(Text(f"{run.path}: {run.reason}", style="dim"))


def _print_line(console: Any, row: dict[str, str], widths: dict[str, int], style: str) -> None:
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    cells = []
    for name in COLUMNS:
        text, width = row[name], widths[name]
        if cell_len(text) > width:
            text = set_cell_size(text, width - 1) + "…"
        blanks = " " * (width - cell_len(text))
        cells.append(blanks + text if name in NUMBERS else text + blanks)
    console.print(Text("  ".join(cells).rstrip(), style=style))


def _row(run: ListedRun) -> dict[str, str]:
    from kernel_agent.rendering import cost_text, seconds_text

    known = {
        "started": run.started.astimezone().strftime("%Y-%m-%d %H:%M") if run.started else "",
        "task": run.task,
        "outcome": run.outcome.partition(":")[0] or run.state,
        "steps": "" if run.steps is None else str(run.steps),
        "cost": "" if run.state in ("foreign", "damaged") else cost_text(run.cost),
        "seconds": "" if run.seconds is None else seconds_text(run.seconds),
        "file": str(run.path),
    }
    return {name: " ".join(_plain(text).split()) for name, text in known.items()}


def _plain(text: str) -> str:
    from kernel_agent.rendering import safe_text

    return safe_text(text)
