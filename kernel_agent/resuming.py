"""Agents that go on with a notebook: a run's, resumed or forked, or one of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel_agent.agent import Agent
from kernel_agent.errors import SettingsError, TranscriptError
from kernel_agent.kernel import Kernel
from kernel_agent.model import LiteLLM, Model, as_model
from kernel_agent.steps import Message, Reply
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.paths import free_path

if TYPE_CHECKING:
    from kernel_agent.transformers_model import TransformersModel

LOCAL = "transformers/"
LIMITS = ("max_steps", "max_cost", "max_tokens", "max_seconds", "cell_timeout")

AnyModel = Model | str | Callable[[list[Message]], str | Reply]


def resume(
    notebook: str | Path,
    *,
    model: AnyModel | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Agent:
    """An agent whose next `run` goes on where the run of `notebook` ended, or was cut off.

    It has the model and the options that the run was started with, as far as they are recorded
    and not given here; the `options` are those of `Agent`. The kernel gets its state back when
    `run` is called. The steps go into the same notebook, or with `out` into a new one that names
    it as its parent.

    Raises TranscriptError for a notebook that is none of a run, SettingsError.
    """
    transcript = _of_run(Path(notebook))
    if out is not None:
        transcript.move_on(Path(out))
    return _agent(transcript, model, options)


def fork(
    notebook: str | Path,
    at: int,
    *,
    model: AnyModel | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Agent:
    """An agent whose next `run` takes another way after step `at` (from 1) of a recorded run.

    It writes a new notebook (`out`, or a new name beside the old one), which names the old one as
    its parent; the old one is left as it is. For the rest see `resume`.

    Raises TranscriptError also if there is no such step.
    """
    path = Path(out) if out is not None else free_path(Path(notebook))
    return _agent(_of_run(Path(notebook)).fork(at, path), model, options)


def continue_notebook(notebook: str | Path, model: AnyModel, **options: Any) -> Agent:
    """An agent that works on in a notebook of the user's, in its kernel and its folder.

    Its first `run` executes the notebook's cells, shows them to the model, and writes its own
    after them: into a copy, or into the notebook itself if `out` names that. With an attached
    `Kernel` as `kernel` nothing is executed again. `options` are those of `Agent`.

    Raises TranscriptError for a notebook of a run, or one that cannot be read.
    """
    notebook = Path(notebook)
    transcript = Transcript.load(notebook)
    if not transcript.is_foreign:
        raise TranscriptError(notebook, "is the notebook of a run. `resume` goes on with it.")
    if isinstance(name := transcript.facts("kernelspec").get("name"), str):
        options = {"kernel": name} | options
    if not isinstance(options.get("kernel"), Kernel):
        options = {"cwd": notebook.parent} | options
    return Agent(model, user_notebook=notebook, **options)


def _recorded_options(transcript: Transcript) -> dict[str, Any]:
    """The options that the run's `Agent` had, as far as they are recorded."""
    about = transcript.about
    limits, kernel = transcript.facts("limits"), transcript.facts("kernel")
    options: dict[str, Any] = {
        name: limits[name] for name in LIMITS if isinstance(limits.get(name), int | float)
    }
    if isinstance(max_chars := about.get("max_chars"), int):
        options["max_chars"] = max_chars
    if isinstance(name := kernel.get("name"), str):
        options["kernel"] = name
    if isinstance(packages := kernel.get("packages"), list):
        options["packages"] = [str(package) for package in packages]
    if (policy := about.get("on_death")) in ("rebuild", "restart", "stop"):
        options["on_death"] = policy
    if isinstance(seconds := about.get("rebuild_seconds"), int | float):
        options["rebuild_seconds"] = seconds
    if type(plan_every := about.get("plan_every")) is int and plan_every > 0:
        options["plan_every"] = plan_every
    if isinstance(instructions := about.get("instructions"), str):
        options["instructions"] = instructions
    if about.get("snapshot") is True:
        options["snapshot"] = True
    options["cwd"] = transcript.cwd
    return options


def _recorded_model(transcript: Transcript) -> LiteLLM | TransformersModel:
    """The model that the run had, with its parameters; keys come from the environment.

    Raises SettingsError if none is recorded.
    """
    model = transcript.facts("model")
    if not isinstance(name := model.get("name"), str):
        raise SettingsError("The notebook does not say which model the run had. Name one.")
    return model_named(name, _parameters(model))


def _recorded_fallbacks(transcript: Transcript) -> list[LiteLLM | TransformersModel]:
    """The models that were to be asked while the run's own was down."""
    recorded = transcript.facts("model").get("fallbacks")
    facts = [one for one in recorded if isinstance(one, dict)] if isinstance(recorded, list) else []
    return [
        model_named(one["name"], _parameters(one))
        for one in facts
        if isinstance(one.get("name"), str)
    ]


def model_named(name: str, parameters: Mapping[str, Any]) -> LiteLLM | TransformersModel:
    """The model of this name: one in this process if it begins with `transformers/`."""
    if name.startswith(LOCAL):
        from kernel_agent.transformers_model import TransformersModel  # noqa: PLC0415 - an extra

        return TransformersModel(name.removeprefix(LOCAL), **parameters)
    return LiteLLM(name, **parameters)


def _of_run(path: Path) -> Transcript:
    transcript = Transcript.load(path)
    if transcript.is_foreign:
        reason = "is a notebook but no transcript. `run --notebook` works on in it."
        raise TranscriptError(path, reason)
    return transcript


def _agent(transcript: Transcript, model: AnyModel | None, options: dict[str, Any]) -> Agent:
    recorded = _recorded_options(transcript)
    if isinstance(options.get("kernel"), Kernel):
        recorded = {n: o for n, o in recorded.items() if n not in ("kernel", "packages", "cwd")}
    options = recorded | options
    if (cwd := options.get("cwd")) and not Path(cwd).is_dir():
        raise SettingsError(
            f"The run worked in folder {str(cwd)!r}, which is not there. Name its place with `cwd`."
        )
    asked = _recorded_model(transcript) if model is None else as_model(model)
    if asked.name == transcript.facts("model").get("name"):
        options = {"fallbacks": _recorded_fallbacks(transcript)} | options
    return Agent(asked, transcript=transcript, **options)


def _parameters(model: Mapping[str, Any]) -> dict[str, Any]:
    parameters = model.get("parameters")
    return parameters if isinstance(parameters, dict) else {}
