"""The command `kernel-agent`: what its commands share, how errors are shown, the exit codes."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from kernel_agent import __version__
from kernel_agent.errors import KernelAgentError, SettingsError

if TYPE_CHECKING:
    from kernel_agent.events import Listener

USAGE_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143  # 128 + SIGTERM, as shells have it


COMMANDS = "run demo resume fork show list diff replay export mcp doctor".split()
"""In the order in which the help lists them: what runs, what goes on, what looks."""


class _Commands(TyperGroup):
    """Turns our errors into one red line and an exit code; all others keep their traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=COMMANDS.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KernelAgentError as error:
            print_error(str(error))
            raise typer.Exit(USAGE_ERROR if isinstance(error, SettingsError) else 1) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error


def print_error(text: str) -> None:
    """Print it on standard error: in red, in a terminal with no word broken at its edge."""
    import shutil
    from textwrap import fill

    from kernel_agent.terminal import plain_text

    lines = plain_text(text).splitlines()
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        how: Any = {"break_long_words": False, "break_on_hyphens": False, "tabsize": 4}
        # What has an indent is code or a list, and short.
        lines = [line if line[:1].isspace() else fill(line, width, **how) for line in lines]
    typer.secho("\n".join(lines), err=True, fg="red")


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kernel-agent {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """A Python code agent whose every run is a notebook."""


@contextmanager
def event_listener(*, quiet: bool, json: bool) -> Iterator[Listener | None]:
    """Who watches a run, as the flags want it."""
    if quiet and json:
        raise SettingsError("--quiet and --json exclude each other. Leave one of them out.")
    if quiet:
        yield None
    elif json:
        from json import dumps

        from kernel_agent.recorded import event_json

        yield lambda event: typer.echo(dumps(event_json(event)))
    else:
        from rich.console import Console

        from kernel_agent.console import LiveView

        with LiveView(Console()) as view:
            yield view


@contextmanager
def spans(wanted: bool) -> Iterator[Listener | None]:
    """A listener that makes OpenTelemetry spans, if it is wanted."""
    if not wanted:
        yield None
        return
    from kernel_agent.telemetry import telemetry_listener

    with closing(telemetry_listener()) as listener:
        yield listener


def main() -> None:
    """The entry point of the command `kernel-agent`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal or pipe that cannot show a character must not end a run.
            stream.reconfigure(errors="replace")
    # An exit like any other: the terminal gets its cursor back, and the kernel ends by itself.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    app(prog_name="kernel-agent")
