"""What litellm knows of a model: how it is best asked, how much it holds, what it takes."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from kernel_agent.errors import ModelError
from kernel_agent.model.media_parts import check_media
from kernel_agent.model.peers import Peer
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
    peer = Peer.of(name)
    if peer.info("supports_function_calling"):
        return "tools" if peer.info("supports_reasoning") else "fence"
    return "json" if peer.info("supports_response_schema") else "fence"


def known_window(name: str) -> int | None:
    """How many tokens the model `name` holds; None if litellm does not know."""
    window = Peer.of(name).info("max_input_tokens")
    return window if isinstance(window, int) and window > 0 else None


def known_to_take(name: str, kind: Kind) -> bool:
    """Whether the model `name` is known to take images, audio or video."""
    if kind == "image":
        return bool(Peer.of(name).info("supports_vision"))
    try:
        check_media(name, [f"{kind}/any"])
    except ModelError:
        return False
    return True


def takes_effort(name: str) -> bool:
    """Whether the model `name` may be told how long to reason: False only if that is known."""
    params = None
    with suppress(Exception):  # of an unknown name nothing is known
        params = litellm_module().get_supported_openai_params(name)
    if params is not None and "reasoning_effort" not in params:
        return False
    peer = Peer.of(name)
    is_marked = peer.is_known and peer.provider in _COMPLETE
    return not is_marked or bool(peer.info("supports_reasoning"))
