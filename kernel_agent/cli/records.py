"""Commands that look at recorded runs, and at the installation."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import os

import typer

from kernel_agent.cli.app import Notebook, app
from kernel_agent.errors import SettingsError


@app.command()
def show(notebook: Notebook) -> None:
    """Print a run from its notebook."""
    if not notebook.is_file():
        raise SettingsError(f"NOTEBOOK: there is no file {str(notebook)!r}. Check the path.")

    from rich.console import Console

    from kernel_agent.console import LiveView
    from kernel_agent.recorded import transcript_events
    from kernel_agent.transcript import Transcript

    with LiveView(Console(), live=False) as view:
        for event in transcript_events(Transcript.load(notebook)):
            view(event)


@app.command()
def doctor() -> None:
    """Show what is installed, set and missing."""
    from kernel_agent.doctor import examine

    for line in examine(os.environ):
        typer.echo(line)
