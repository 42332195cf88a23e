"""Commands that run a task: `run` and `demo`."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernel_agent.cli.app import (
    INTERRUPTED,
    Folder,
    Json,
    Out,
    Quiet,
    app,
    event_listener,
    option,
)
from kernel_agent.errors import DataError

if TYPE_CHECKING:
    from kernel_agent.agent import Agent
    from kernel_agent.events import Listener
    from kernel_agent.settings import Settings
    from kernel_agent.steps import Outcome

EXIT_CODES = {"answered": 0, "failed": 1, "limit": 3, "interrupted": INTERRUPTED}
DEMO_NOTEBOOK = "seattle-weather.ipynb"
DEMO_DATA = "seattle-weather.csv"
DEMO_PACE = 400.0  # characters per second: readable, and quicker than most models
DEMO_NOTE = """\
The model's replies in this demo are scripted: a model's own, with one slip put in to show how an
error is mended. Everything else is real: the kernel, the data, the outputs, the notebook.
For a real model set a provider's key (`kernel-agent doctor` shows which) or --model, then:
kernel-agent run "Which month is the wettest?" --data weather.csv
"""


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="What to do. `-` reads it from standard input.")],
    *,
    data: Annotated[list[Path] | None, option("FILE", "A data file; can be repeated.")] = None,
    model: Annotated[str | None, option("NAME", "The model, as litellm names it.")] = None,
    api_base: Annotated[str | None, option("URL", "The server of the model.")] = None,
    kernel: Annotated[str | None, option("NAME", "The Jupyter kernel.  [python3]")] = None,
    python: Annotated[
        str | None, option("PATH", "The Python or virtual environment to run the code in.")
    ] = None,
    packages: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="PACKAGE", help="A package to have; can be repeated."),
    ] = None,
    out: Out = None,
    folder: Folder = None,
    max_steps: Annotated[str | None, option("N", "Steps at most.  [20]")] = None,
    max_cost: Annotated[str | None, option("USD", "Cost at most.")] = None,
    max_tokens: Annotated[str | None, option("N", "Tokens at most.")] = None,
    max_seconds: Annotated[str | None, option("S", "Seconds at most.")] = None,
    cell_timeout: Annotated[str | None, option("S", "Seconds a cell may take.  [120]")] = None,
    max_chars: Annotated[
        str | None, option("N", "Characters of a cell's output that the model sees.  [8000]")
    ] = None,
    prompts: Annotated[str | None, option("DIR", "Prompt files to use instead.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Do a task: a model writes code, a kernel runs it.

    The thoughts, the code and its outputs are kept in a notebook, and shown as they come.

    Exit codes: 0 answered, 1 failed, 2 a bad argument or setting, 3 a limit was reached without
    an answer, 130 interrupted.
    """
    from kernel_agent.checks import (
        check_data,
        check_kernel,
        check_place,
        check_prompts,
        model_choice,
        task_text,
    )
    from kernel_agent.settings import config_file, load_settings

    flags = {
        "model": model, "api_base": api_base, "kernel": kernel, "folder": folder,
        "max_steps": max_steps, "max_cost": max_cost, "max_tokens": max_tokens,
        "max_seconds": max_seconds, "cell_timeout": cell_timeout, "max_chars": max_chars,
        "prompts": prompts,
    }  # fmt: skip
    settings = load_settings(flags, os.environ, config_file())
    text, files = task_text(task), data or []
    check_data(files)
    check_place(out, settings)
    check_prompts(settings)
    if not python and not packages:
        check_kernel(settings)
    choice = model_choice(settings)
    if not settings.model:
        typer.echo(f"Using {choice.model}: {choice.why}. --model chooses another.", err=True)
    with (
        event_listener(quiet=quiet, json=json) as listener,
        _agent(choice.model, settings, listener, python, packages or []) as agent,
    ):
        _run(agent, text, files, out, quiet=quiet)


@app.command()
def demo(
    *, out: Out = None, folder: Folder = None, quiet: Quiet = False, json: Json = False
) -> None:
    """Show a run with scripted replies: it needs no model."""
    from kernel_agent.checks import check_place
    from kernel_agent.settings import config_file, load_settings
    from kernel_agent.shipped import shipped

    settings = load_settings({"folder": folder}, os.environ, config_file())
    check_place(out, settings)
    weather = _weather_file(settings.folder)

    from kernel_agent.agent import Agent
    from kernel_agent.testing import ScriptedModel
    from kernel_agent.transcript import Transcript

    recorded = Transcript.load(shipped("notebooks") / DEMO_NOTEBOOK)
    typer.echo(DEMO_NOTE, err=True)
    watched = sys.stdout.isatty() and not quiet and not json
    replies = [step.reply for step in recorded.steps]
    model = ScriptedModel(replies, pace=DEMO_PACE if watched else None)
    with (
        event_listener(quiet=quiet, json=json) as listener,
        # The replies name the file without a folder: where it lies differs between machines.
        Agent(model, cwd=weather.parent, folder=settings.folder, listener=listener) as agent,
    ):
        _run(agent, recorded.tasks[0].text, [weather], out, quiet=quiet)


def _agent(
    name: str,
    settings: Settings,
    listener: Listener | None,
    python: str | None,
    packages: list[str],
) -> Agent:
    from kernel_agent.model import LiteLLM

    parameters: dict[str, Any] = {"api_base": settings.api_base} if settings.api_base else {}
    model = LiteLLM(name, **parameters)
    model.prepare()  # it takes seconds: everything else goes on beside it

    from kernel_agent.agent import Agent

    return Agent(
        model,
        kernel=settings.kernel,
        python=python,
        packages=packages,
        on_progress=lambda line: typer.echo(line, err=True),
        max_steps=settings.max_steps,
        max_cost=settings.max_cost,
        max_tokens=settings.max_tokens,
        max_seconds=settings.max_seconds,
        cell_timeout=settings.cell_timeout,
        max_chars=settings.max_chars,
        folder=settings.folder,
        prompts=settings.prompts,
        listener=listener,
        ask_user=getattr(listener, "ask", None) if sys.stdin.isatty() else None,
    )


def _run(agent: Agent, task: str, files: list[Path], out: Path | None, *, quiet: bool) -> None:
    """Runs the task and leaves with the exit code of its outcome."""
    done = agent.run(task, files=files, out=out)
    if quiet:
        _print_answer(done.answer, done.outcome, done.path)
    raise typer.Exit(EXIT_CODES[done.outcome.status])


def _print_answer(answer: Any, outcome: Outcome, path: Path | None) -> None:
    from kernel_agent.rendering import answer_text

    if outcome.status == "answered":
        typer.echo(answer_text(answer))
    else:
        where = f" The notebook: {path}" if path else ""
        typer.secho(f"No answer. Outcome: {outcome}.{where}", err=True, fg="red")


def _weather_file(folder: Path) -> Path:
    """The demo's data, copied into `folder`, so that the notebook finds it wherever both go."""
    import shutil
    from filecmp import cmp

    try:
        from vega_datasets import local_data
    except ImportError as error:
        raise DataError(
            DEMO_DATA,
            f"{error}. The demo's data come with an extra: pip install 'kernel-agent[data]'.",
        ) from error
    original, copy = Path(local_data.seattle_weather.filepath), folder / DEMO_DATA
    if copy.exists() and not cmp(original, copy, shallow=False):
        raise DataError(DEMO_DATA, f"{str(copy)!r} is another file. Choose another --folder.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(original, copy)
    return copy
