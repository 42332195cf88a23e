"""Commands that look at recorded runs, and at the installation."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import os

import typer

from kernel_agent.cli.app import app
from kernel_agent.cli.options import Notebook


@app.command()
def show(notebook: Notebook) -> None:
    """Print a run from its notebook."""
    from kernel_agent.checks import check_file

    check_file(notebook)

    from rich.console import Console

    from kernel_agent.console import LiveView
    from kernel_agent.recorded import transcript_events
    from kernel_agent.terminal import plain_text
    from kernel_agent.transcript import Transcript

    transcript = Transcript.load(notebook)
    with LiveView(Console(), live=False) as view:
        for event in transcript_events(transcript):
            view(event)
    for problem in transcript.problems:
        typer.secho(plain_text(str(problem)), err=True, fg="yellow")


@app.command()
def doctor() -> None:
    """Show what is installed, set and missing."""
    from kernel_agent.doctor import examine

    for line in examine(os.environ):
        typer.echo(line)
