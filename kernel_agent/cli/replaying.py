"""The command that executes a recorded notebook again: `replay`."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernel_agent.cli.app import INTERRUPTED, USAGE_ERROR, app
from kernel_agent.cli.options import (
    Notebook,
    Out,
    Packages,
    PythonPath,
    Yes,
    option,
    tool_options,
)
from kernel_agent.errors import KernelAgentError, SettingsError
from kernel_agent.terminal import plain_text

if TYPE_CHECKING:
    from kernel_agent.replay import CellReplayed, Replay, ReplayStarted
    from kernel_agent.replay_view import ReplayView

DRIFTED = 1


@app.command()
def replay(
    notebook: Notebook,
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="Texts must be equal: nothing is taken for noise.")
    ] = False,
    ignore: Annotated[
        list[str] | None, option("REGEX", "What matches is not compared; can be repeated.")
    ] = None,
    tolerance: Annotated[
        str | None, option("X", "How far numbers may be apart, relative or absolute.  [1e-6]")
    ] = None,
    rules: Annotated[Path | None, option("FILE", "More rules of what is noise (TOML).")] = None,
    out: Out = None,
    kernel: Annotated[
        str | None, option("NAME", "Another Jupyter kernel than the recorded.")
    ] = None,
    python: PythonPath = None,
    packages: Packages = None,
    repeat: Annotated[
        str | None, option("N", "Do it N times, to find cells that never do the same twice.  [1]")
    ] = None,
    live_tools: Annotated[
        str | None, option("NAMES", "Built-in tools to call anew, not to answer from the record.")
    ] = None,
    junit: Annotated[Path | None, option("FILE", "A report for CI to write, as JUnit XML.")] = None,
    yes: Yes = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the last line alone.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each cell, and for the whole.")
    ] = False,
) -> None:
    """Execute a recorded notebook in a fresh kernel, and compare the outputs.

    The code runs in the folder where it ran, and does there again what it did.

    Exit codes: 0 it holds, 1 it drifts, 2 it could not be done, 130 interrupted.
    """
    from kernel_agent.checks import check_file

    if quiet and as_json:
        raise SettingsError("--quiet and --json exclude each other. Leave one of them out.")
    check_file(notebook)
    if out and out.suffix != ".ipynb":
        raise SettingsError(f"--out: {str(out)!r} is not the name of a notebook. End it in .ipynb.")
    choices: dict[str, Any] = {
        "strict": strict,
        "ignore": ignore or (),
        "tolerance": _number("--tolerance", tolerance, 1e-6),
        "rules": rules,
        "out": out,
        "kernel": kernel,
        "python": python,
        "packages": packages or None,
        "repeat": _count("--repeat", repeat),
        "live_tools": tool_options(live_tools, None).get("tools", ()),
    }

    from kernel_agent.cli.trust import confirm_execution
    from kernel_agent.replay import replay as execute
    from kernel_agent.replay_view import summary
    from kernel_agent.transcript import Transcript

    try:
        transcript = Transcript.load(notebook)
        confirm_execution(transcript, yes=yes)
        with _view(quiet=quiet, as_json=as_json) as view:
            done = execute(
                transcript,
                **choices,
                listener=_print_cell if as_json else view,
                ask_user=view.ask if view and sys.stdin.isatty() else None,
                on_progress=lambda line: typer.echo(plain_text(line), err=True),
            )
            if view:
                view.finish(done)
    except KernelAgentError as error:
        # Exit code 1 is for a notebook that was replayed, and drifts.
        typer.secho(plain_text(str(error)), err=True, fg="red")
        raise typer.Exit(USAGE_ERROR) from error
    if as_json:
        typer.echo(json.dumps(_whole_json(done)))
    elif quiet:
        typer.echo(summary(done))
    if junit:
        _write_report(done, junit)
    if done.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(0 if done.holds else DRIFTED)


@contextmanager
def _view(*, quiet: bool, as_json: bool) -> Iterator[ReplayView | None]:
    if quiet or as_json:
        yield None
        return

    from rich.console import Console

    from kernel_agent.replay_view import ReplayView

    with ReplayView(Console()) as view:
        yield view


def _print_cell(event: ReplayStarted | CellReplayed) -> None:
    """A line of JSON for a cell that was compared."""
    cell = getattr(event, "cell", None)
    if cell is None:
        return
    line = {
        "cell": cell.name,
        "step": cell.step,
        "verdict": cell.verdict,
        "status_then": cell.was.status,
        "status_now": cell.now.status if cell.now else None,
        "seconds_then": cell.was.seconds,
        "seconds_now": cell.now.seconds if cell.now else None,
        "differences": [
            {"part": one.part, "text": plain_text(one.text)} for one in cell.differences
        ],
    }
    typer.echo(json.dumps(line))


def _whole_json(done: Replay) -> dict[str, Any]:
    return {
        "notebook": str(done.path),
        "holds": done.holds,
        "interrupted": done.interrupted,
        "seconds": done.seconds,
        "cells": len(done.cells),
        "verdicts": Counter(cell.verdict for cell in done.cells),
        "problems": list(done.problems),
    }


def _write_report(done: Replay, path: Path) -> None:
    from kernel_agent.junit import junit_xml

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(junit_xml(done))
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"--junit: {str(path)!r} cannot be written: {reason}.") from error


def _number(flag: str, text: str | None, default: float) -> float:
    try:
        number = default if text is None else float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise SettingsError(f"{flag}: {text!r} is not a number of 0 or more.")
    return number


def _count(flag: str, text: str | None) -> int:
    if text is None:
        return 1
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise SettingsError(f"{flag}: {text!r} is not a whole number of 1 or more.")
    return int(text)
