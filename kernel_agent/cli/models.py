"""The model of a command: its name and its parameters, from the settings and from a notebook."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kernel_agent.errors import SettingsError

if TYPE_CHECKING:
    from kernel_agent.model import LiteLLM
    from kernel_agent.settings import Settings
    from kernel_agent.transcript import Transcript
    from kernel_agent.transformers_model import TransformersModel

PARAMETERS = {
    "api_base": "api_base",
    "effort": "reasoning_effort",
    "reply_format": "reply_format",
    "window": "window",
    "requests_per_minute": "requests_per_minute",
}
"""The settings that are parameters of the model, with the names that they have there."""


def prepared_model(
    name: str, settings: Settings, recorded: Mapping[str, Any] | None = None
) -> LiteLLM | TransformersModel:
    """The model, whose library loads from now on: that takes seconds, all else goes on beside.

    `recorded` are the parameters that it had in an earlier run; what is set wins over them.

    Raises SettingsError for what is set and a model in this process does not take.
    """
    from kernel_agent.resuming import LOCAL, model_named

    parameters = {
        parameter: getattr(settings, setting)
        for setting, parameter in PARAMETERS.items()
        if settings.sources[setting] != "default"
    }
    if name.startswith(LOCAL) and parameters:
        setting = next(it for it, parameter in PARAMETERS.items() if parameter in parameters)
        raise SettingsError(
            f"{settings.source(setting)}: {name!r} runs in this process and takes no {setting}. "
            "Leave it out, or choose a model behind a server."
        )
    model = model_named(name, {**(recorded or {}), **parameters})
    model.prepare()
    return model


def recorded_model(transcript: Transcript, settings: Settings) -> LiteLLM | TransformersModel:
    """The model that a run had, with what is set now.

    Raises SettingsError if the notebook does not name one.
    """
    about = transcript.facts("model")
    name, parameters = about.get("name"), about.get("parameters")
    if not isinstance(name, str):
        raise SettingsError("The notebook does not say which model the run had: --model NAME.")
    return prepared_model(name, settings, parameters if isinstance(parameters, dict) else {})
