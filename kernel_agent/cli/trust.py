"""Asks before the code of a notebook is executed that was not written on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from kernel_agent.cli.app import USAGE_ERROR
from kernel_agent.repeating import plan_all
from kernel_agent.terminal import plain_text
from kernel_agent.transcript import Transcript


def confirm_execution(transcript: Transcript, *, yes: bool) -> None:
    """Warn on stderr that foreign code is going to run; on a terminal ask, unless `yes`.

    Says nothing of a notebook that this machine wrote. Raises typer.Exit if the user refuses.
    """
    if transcript.written_here:
        return
    path, number = transcript.path or Path("notebook"), len(plan_all(transcript.entries))
    cells = "1 cell" if number == 1 else f"{number:,} cells"
    name = plain_text(str(path))
    typer.secho(
        f"{name} was not written on this machine, or was changed since. {cells} with its code "
        f"will be executed, with your rights: on your files, your network, your accounts. "
        f"`kernel-agent show {name}` shows the code.",
        err=True,
        fg="yellow",
    )
    if yes or not sys.stdin.isatty():
        return
    typer.echo("Execute it? [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Exit(USAGE_ERROR)
