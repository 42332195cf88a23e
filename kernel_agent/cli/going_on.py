"""Commands that go on with recorded runs: `resume` and `fork`."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernel_agent.cli.app import app, event_listener, spans
from kernel_agent.cli.confirming import asking_user, check_terminal
from kernel_agent.cli.models import PARAMETERS, prepared_model, recorded_model
from kernel_agent.cli.options import (
    Notebook,
    Yes,
    media_of,
    settings_of,
    takes_shared,
    tool_options,
)
from kernel_agent.cli.running import FALLBACKS, agent_options, run_task
from kernel_agent.errors import SettingsError

if TYPE_CHECKING:
    from kernel_agent.settings import Settings
    from kernel_agent.transcript import Transcript

FollowUp = Annotated[
    str | None, typer.Argument(help="A new task. `-` reads it from standard input.")
]


@app.command()
@takes_shared
def resume(notebook: Notebook, task: FollowUp = None, *, yes: Yes = False, **flags: Any) -> None:
    """Go on with a run that was cut off, or with a new task after one that has ended.

    The recorded cells are executed to bring the variables back, or a snapshot does. Model, kernel
    and limits are those of the run unless they are given.
    """
    _go_on(notebook, None, task, flags, yes=yes)


@app.command()
@takes_shared
def fork(
    notebook: Notebook,
    task: FollowUp = None,
    *,
    at: Annotated[int, typer.Option(metavar="STEP", min=1, help="The last step to keep.")],
    yes: Yes = False,
    **flags: Any,
) -> None:
    """Take another way after a step of a recorded run, in a new notebook."""
    _go_on(notebook, at, task, flags, yes=yes)


def _go_on(
    notebook: Path, at: int | None, task: str | None, flags: dict[str, Any], *, yes: bool
) -> None:
    from kernel_agent import checks

    settings = settings_of(flags)
    if flags["confirm"]:
        check_terminal()
    checks.check_file(notebook)
    text = checks.task_text(task) if task is not None else None
    files, media = flags["data"] or [], media_of(flags)
    checks.check_data(files)
    checks.check_media(media)
    checks.check_belongs_to_task(text, files, media)
    if flags["out"]:
        checks.check_place(flags["out"], settings)
    checks.check_prompts(settings)

    from kernel_agent import resuming
    from kernel_agent.cli.trust import confirm_execution
    from kernel_agent.transcript import Transcript

    transcript = Transcript.load(notebook)
    confirm_execution(transcript, yes=yes)
    given_tools = tool_options(flags["tools"], flags["mcp"])
    listening = event_listener(quiet=flags["quiet"], json=flags["json"])
    with listening as listener, spans(flags["otel"]) as telemetry:
        options = agent_options(settings, listener, telemetry)
        options = _given(settings, options, flags) | given_tools
        options |= _model_option(settings, flags, transcript)
        if flags["confirm"]:
            options["approve"] = asking_user(listener)
        if at is None:
            agent = resuming.resume(notebook, out=flags["out"], **options)
        else:
            agent = resuming.fork(notebook, at, out=flags["out"], **options)
        with agent:
            watched = not flags["quiet"] and not flags["json"]
            run_task(agent, text, files, media, quiet=flags["quiet"], watched=watched)


def _given(settings: Settings, options: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """The options that were given as flags: all others are the recorded run's."""
    given = {
        name: value
        for name, value in options.items()
        if settings.sources.get("fallback" if name == FALLBACKS else name, "--").startswith("--")
    }
    given |= {"python": flags["python"]} if flags["python"] else {}
    return given | ({"packages": flags["packages"]} if flags["packages"] else {})


def _model_option(
    settings: Settings, flags: dict[str, Any], transcript: Transcript
) -> dict[str, Any]:
    """The model, if a flag says something of it; else it is the recorded run's."""
    if flags["model"]:
        return {"model": prepared_model(flags["model"], settings)}
    if flags["api_base"]:
        raise SettingsError("--api-base: say which model to ask there: --model openai/NAME.")
    if any(flags[name] for name in PARAMETERS):
        return {"model": recorded_model(transcript, settings)}
    return {}
