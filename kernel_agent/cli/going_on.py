"""Commands that go on with recorded runs: `resume` and `fork`."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernel_agent.cli.app import app, event_listener, spans
from kernel_agent.cli.confirming import asking_user, check_terminal
from kernel_agent.cli.options import (
    ApiBase,
    CellTimeout,
    Confirm,
    Data,
    Json,
    KernelName,
    MaxChars,
    MaxCost,
    MaxSeconds,
    MaxSteps,
    MaxTokens,
    McpFile,
    ModelName,
    Notebook,
    Otel,
    Out,
    Packages,
    PlanEvery,
    PromptsFolder,
    PythonPath,
    Quiet,
    Tools,
    Yes,
    settings_of,
    tool_options,
)
from kernel_agent.cli.running import agent_options, prepared_model, run_task
from kernel_agent.errors import SettingsError

if TYPE_CHECKING:
    from kernel_agent.settings import Settings

FollowUp = Annotated[
    str | None, typer.Argument(help="A new task. `-` reads it from standard input.")
]


@app.command()
def resume(
    notebook: Notebook,
    task: FollowUp = None,
    *,
    data: Data = None,
    model: ModelName = None,
    api_base: ApiBase = None,
    kernel: KernelName = None,
    python: PythonPath = None,
    packages: Packages = None,
    out: Out = None,
    max_steps: MaxSteps = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    cell_timeout: CellTimeout = None,
    max_chars: MaxChars = None,
    plan_every: PlanEvery = None,
    prompts: PromptsFolder = None,
    tools: Tools = None,
    mcp: McpFile = None,
    confirm: Confirm = False,
    otel: Otel = False,
    quiet: Quiet = False,
    json: Json = False,
    yes: Yes = False,
) -> None:
    """Go on with a run that was cut off, or with a new task after one that has ended.

    The recorded cells are executed to bring the variables back, or a snapshot does. Model, kernel
    and limits are those of the run unless they are given.
    """
    _go_on(notebook, None, task, locals())


@app.command()
def fork(
    notebook: Notebook,
    task: FollowUp = None,
    *,
    at: Annotated[int, typer.Option(metavar="STEP", min=1, help="The last step to keep.")],
    data: Data = None,
    model: ModelName = None,
    api_base: ApiBase = None,
    kernel: KernelName = None,
    python: PythonPath = None,
    packages: Packages = None,
    out: Out = None,
    max_steps: MaxSteps = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    cell_timeout: CellTimeout = None,
    max_chars: MaxChars = None,
    plan_every: PlanEvery = None,
    prompts: PromptsFolder = None,
    tools: Tools = None,
    mcp: McpFile = None,
    confirm: Confirm = False,
    otel: Otel = False,
    quiet: Quiet = False,
    json: Json = False,
    yes: Yes = False,
) -> None:
    """Take another way after a step of a recorded run, in a new notebook."""
    _go_on(notebook, at, task, locals())


def _go_on(notebook: Path, at: int | None, task: str | None, flags: dict[str, Any]) -> None:
    from kernel_agent import checks

    settings = settings_of(flags)
    if flags["confirm"]:
        check_terminal()
    checks.check_file(notebook)
    text = checks.task_text(task) if task is not None else None
    checks.check_data(flags["data"] or [])
    if flags["out"]:
        checks.check_place(flags["out"], settings)
    checks.check_prompts(settings)

    from kernel_agent import resuming
    from kernel_agent.cli.trust import confirm_execution
    from kernel_agent.transcript import Transcript

    confirm_execution(Transcript.load(notebook), yes=flags["yes"])
    given_tools = tool_options(flags["tools"], flags["mcp"])
    listening = event_listener(quiet=flags["quiet"], json=flags["json"])
    with listening as listener, spans(flags["otel"]) as telemetry:
        options = agent_options(settings, listener, telemetry)
        options = _given(settings, options, flags) | given_tools
        if flags["confirm"]:
            options["approve"] = asking_user(listener)
        if at is None:
            agent = resuming.resume(notebook, out=flags["out"], **options)
        else:
            agent = resuming.fork(notebook, at, out=flags["out"], **options)
        with agent:
            run_task(agent, text, flags["data"] or [], None, quiet=flags["quiet"])


def _given(settings: Settings, options: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """The options that were given as flags: all others are the recorded run's."""
    given = {
        name: value
        for name, value in options.items()
        if settings.sources.get(name, "--").startswith("--")
    }
    if flags["api_base"] and not flags["model"]:
        raise SettingsError("--api-base: say which model to ask there: --model openai/NAME.")
    if flags["model"]:
        given["model"] = prepared_model(flags["model"], settings)
    given |= {"python": flags["python"]} if flags["python"] else {}
    return given | ({"packages": flags["packages"]} if flags["packages"] else {})
