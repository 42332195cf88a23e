"""What litellm knows of a model: how it is best asked, how much it holds, what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from kernel_agent.errors import ModelError
from kernel_agent.model.media_parts import check_media
from kernel_agent.model_loading import litellm_module
from kernel_agent.steps import Format

Kind = Literal["image", "audio", "video"]
"""What a message may hold beside text."""

_COMPLETE = {"openai", "anthropic", "gemini"}
"""Providers all of whose reasoning models litellm marks; of others it misses hundreds."""


def best_format(name: str) -> Format:
    """The form in which the model `name` writes code best. Waits for litellm to be loaded.

    A model that reasons and calls tools keeps its reasoning between its calls. Else a fence:
    code inside JSON is measured worse, and is left to those that guarantee JSON but no calls.
    """
    known = _known(name)
    if known.get("supports_function_calling"):
        return "tools" if known.get("supports_reasoning") else "fence"
    return "json" if known.get("supports_response_schema") else "fence"


def known_window(name: str) -> int | None:
    """How many tokens the model `name` holds; None if litellm does not know."""
    window = _known(name).get("max_input_tokens")
    return window if isinstance(window, int) and window > 0 else None


def known_to_take(name: str, kind: Kind) -> bool:
    """Whether the model `name` is known to take images, audio or video."""
    if kind == "image":
        return bool(_known(name).get("supports_vision"))
    try:
        check_media(name, [f"{kind}/any"])
    except ModelError:
        return False
    return True


def takes_effort(name: str) -> bool:
    """Whether the model `name` may be told how long to reason: False only if that is known."""
    litellm = litellm_module()
    params = provider = None
    with suppress(Exception):  # of an unknown name nothing is known
        params = litellm.get_supported_openai_params(name)
        provider = litellm.get_llm_provider(name)[1]
    if params is not None and "reasoning_effort" not in params:
        return False
    known = _known(name)
    return bool(not known or provider not in _COMPLETE or known.get("supports_reasoning"))


def _known(name: str) -> Mapping[str, Any]:
    if name.startswith(("ollama/", "ollama_chat/")):  # else litellm asks a server for it
        known: Mapping[str, Any] = litellm_module().model_cost.get(name) or {}
        return known
    with suppress(Exception):  # litellm raises a bare Exception for a model that it does not know
        return dict(litellm_module().get_model_info(name))
    return {}
