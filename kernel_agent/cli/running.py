"""Commands that run a task: `run` and `demo`."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernel_agent.cli.app import INTERRUPTED, app, event_listener, spans
from kernel_agent.cli.confirming import asking_user, check_terminal
from kernel_agent.cli.models import prepared_model
from kernel_agent.cli.options import (
    Folder,
    Json,
    Out,
    Quiet,
    media_of,
    option,
    settings_of,
    switch,
    takes_shared,
    tool_options,
)
from kernel_agent.errors import DataError, KernelAgentError, SettingsError

if TYPE_CHECKING:
    from kernel_agent.agent import Agent
    from kernel_agent.events import Listener
    from kernel_agent.kernel import Kernel
    from kernel_agent.model import LiteLLM
    from kernel_agent.settings import Settings
    from kernel_agent.steps import Outcome
    from kernel_agent.transformers_model import TransformersModel

EXIT_CODES = {"answered": 0, "failed": 1, "limit": 3, "interrupted": INTERRUPTED}
AGENT_SETTINGS = (
    "kernel max_steps max_cost max_tokens max_seconds cell_timeout max_chars plan_every "
    "folder prompts instructions"
).split()
FALLBACKS = "fallbacks"
"""The option of the agent whose setting is `fallback`, one for each flag."""

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
@takes_shared
def run(
    task: Annotated[str, typer.Argument(help="What to do. `-` reads it from standard input.")],
    *,
    notebook: Annotated[
        Path | None, option("FILE", "A notebook of yours to work on in: run, and shown to it.")
    ] = None,
    in_place: Annotated[
        bool, switch("Write into --notebook itself, not into a copy.", "--in-place")
    ] = False,
    existing: Annotated[
        str | None, option("FILE", "The connection file of a running kernel to work in.")
    ] = None,
    snapshot: Annotated[
        bool, switch("Store the variables after each step, for `resume`.", "--snapshot")
    ] = False,
    folder: Folder = None,
    instructions: Annotated[
        str | None, option("TEXT", "What to tell the model beside the prompt files.")
    ] = None,
    show_prompt: Annotated[
        bool,
        switch("Print what would be sent first and its tokens; send nothing.", "--show-prompt"),
    ] = False,
    **flags: Any,
) -> None:
    """Do a task: a model writes code, a kernel runs it.

    The thoughts, the code and its outputs are kept in a notebook, and shown as they come.

    Exit codes: 0 answered, 1 failed, 2 a bad argument or setting, 3 a limit was reached without
    an answer, 130 interrupted.
    """
    settings = settings_of(flags | {"folder": folder, "instructions": instructions})
    if flags["confirm"]:
        check_terminal()

    from kernel_agent import checks

    text, files, media = checks.task_text(task), flags["data"] or [], media_of(flags)
    out, quiet = flags["out"], flags["quiet"]
    checks.check_data(files)
    checks.check_media(media)
    checks.check_notebook(notebook, in_place=in_place, out=out)
    checks.check_place(out, settings)
    checks.check_prompts(settings)
    own_kernel = notebook is not None and settings.sources["kernel"] == "default"
    if not flags["python"] and not flags["packages"] and not existing and not own_kernel:
        checks.check_kernel(settings)
    given_tools = tool_options(flags["tools"], flags["mcp"])
    choice = checks.model_choice(settings)
    if not settings.model:
        typer.echo(f"Using {choice.model}: {choice.why}. --model chooses another.", err=True)
    model = prepared_model(choice.model, settings)
    with _watching(flags, show_prompt) as listener, spans(flags["otel"]) as telemetry:
        options = agent_options(settings, listener, telemetry) | {
            **given_tools,
            "python": flags["python"],
            "packages": flags["packages"] or [],
            "snapshot": snapshot,
            "approve": asking_user(listener) if flags["confirm"] else None,
        }
        if existing:
            options |= {"kernel": _attached(existing, flags["python"], flags["packages"])}
        elif own_kernel:
            del options["kernel"]
        with _agent(model, options, notebook) as agent:
            if show_prompt:
                _show_first_request(agent, model, text, files, media, as_json=flags["json"])
            else:
                place = notebook if in_place else out
                watched = not quiet and not flags["json"]
                run_task(agent, text, files, media, out=place, quiet=quiet, watched=watched)


@app.command()
def demo(
    *, out: Out = None, folder: Folder = None, quiet: Quiet = False, json: Json = False
) -> None:
    """Show a run with scripted replies: it needs no model."""
    from kernel_agent.checks import check_place
    from kernel_agent.shipped import shipped

    settings = settings_of({"folder": folder})
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
        run_task(agent, recorded.tasks[0].text, [weather], {}, out=out, quiet=quiet)


def agent_options(
    settings: Settings, listener: Listener | None, *others: Listener | None
) -> dict[str, Any]:
    """The options of an agent that the settings and the terminal say."""
    return {
        **{name: getattr(settings, name) for name in AGENT_SETTINGS},
        **({FALLBACKS: settings.fallback} if settings.fallback else {}),
        "on_progress": lambda line: typer.echo(line, err=True),
        "listener": [one for one in (listener, *others) if one is not None],
        "ask_user": getattr(listener, "ask", None) if sys.stdin.isatty() else None,
    }


def run_task(
    agent: Agent,
    task: str | None,
    files: list[Path],
    media: Mapping[str, Any],
    *,
    out: Path | None = None,
    quiet: bool,
    watched: bool = False,
) -> None:
    """Runs the task, or goes on without one, and leaves with the exit code of the outcome.

    `watched`: the run is shown as it goes, to one who may then be told how to go on with it.
    """
    before = agent.transcript.outcome if agent.transcript else None
    try:
        done = agent.run(task, files=files, out=out, **media)
    except KernelAgentError as error:
        outcome = agent.transcript.outcome if agent.transcript else None
        if watched and outcome and outcome is not before:
            _tell_how_to_go_on(agent)
            if sys.stdout.isatty():  # there it stands already
                raise typer.Exit(EXIT_CODES["failed"]) from error
        raise
    if quiet:
        _print_answer(done.answer, done.outcome, done.path)
    if watched and done.outcome.status == "interrupted":
        _tell_how_to_go_on(agent)
    raise typer.Exit(EXIT_CODES[done.outcome.status])


def _tell_how_to_go_on(agent: Agent) -> None:
    """A line for whoever sits at the terminal."""
    path = agent.transcript.path if agent.transcript else None
    if path and path.exists() and sys.stderr.isatty():
        typer.secho(f"To go on: kernel-agent resume {shlex.quote(str(path))}", err=True, dim=True)


def _watching(
    flags: Mapping[str, Any], show_prompt: bool
) -> AbstractContextManager[Listener | None]:
    """Who watches the run; nobody if there is none but only a look at its first request."""
    if show_prompt and flags["quiet"]:
        raise SettingsError("--quiet and --show-prompt exclude each other. Leave one of them out.")
    if show_prompt:
        return nullcontext()
    return event_listener(quiet=flags["quiet"], json=flags["json"])


def _show_first_request(
    agent: Agent,
    model: LiteLLM | TransformersModel,
    task: str,
    files: list[Path],
    media: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    from kernel_agent.cli.request_view import show_request

    request = agent.first_request(task, files=files, **media)
    count = getattr(model, "count", None)
    tokens = count(request.messages, request.tools) if callable(count) else None
    show_request(request.messages, request.tools, tokens, as_json=as_json)


def _agent(
    model: LiteLLM | TransformersModel, options: dict[str, Any], notebook: Path | None
) -> Agent:
    if notebook is not None:
        from kernel_agent.resuming import continue_notebook

        return continue_notebook(notebook, model, **options)

    from kernel_agent.agent import Agent

    return Agent(model, **options)


def _attached(existing: str, python: str | None, packages: list[str] | None) -> Kernel:
    if python or packages:
        raise SettingsError("--existing is a kernel that runs already: leave --python and --with.")

    from kernel_agent.kernel import Kernel

    return Kernel.attach(existing)


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
