"""The command that gives a run on in another form: `export`."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kernel_agent.cli.app import app
from kernel_agent.cli.options import Notebook, Yes, option


class Form(StrEnum):
    """The forms; their names are what `--to` takes."""

    html = "html"
    markdown = "markdown"
    script = "script"
    clean = "clean"


@app.command()
def export(
    notebook: Notebook,
    *,
    to: Annotated[Form, typer.Option(help="The form of it.")],
    out: Annotated[Path | None, option("FILE", "The file to write.  [beside the notebook]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    yes: Yes = False,
) -> None:
    """Write a run in another form.

    html: a page with tables and figures. markdown: a text, figures beside it. script: the code
    that worked. clean: a notebook without failed attempts; for this the code is executed.
    """
    from kernel_agent import exporting
    from kernel_agent.checks import check_file
    from kernel_agent.cli.trust import confirm_execution
    from kernel_agent.terminal import plain_text
    from kernel_agent.transcript import Transcript

    check_file(notebook)

    if to == Form.clean:
        confirm_execution(Transcript.load(notebook), yes=yes)
    path = exporting.export(
        notebook,
        to.value,
        out=out,
        force=force,
        tell=lambda line: typer.echo(plain_text(line), err=True),
    )
    typer.echo(plain_text(str(path)))
