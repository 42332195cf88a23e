"""What goes wrong at a provider, as an exception of ours with a short reason."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kernel_agent.errors import (
    ContextWindowExceededError,
    ModelAuthenticationError,
    ModelError,
    ModelUnavailableError,
)
from kernel_agent.model_error_words import led_to, said
from kernel_agent.model_secrets import public, redact

MAX_REASON = 500
"""Longest reason, in characters."""

NO_KEY = "none"
"""What is sent as the key to a server of the user's own while there is none."""

_WORTH_ANOTHER_TRY = {408, 409, 425, 429}
_MISSING_KEY = re.compile(
    r"missing (credentials|\w+ api key)|locate credentials|api_key client option", re.IGNORECASE
)
_OLLAMA = ("ollama/", "ollama_chat/")
_OWN_PATHS = ("anthropic/", "gemini/")


def model_error(model: str, params: Mapping[str, Any], error: Exception) -> ModelError:
    """The exception of ours for `error`, which litellm raised when asked for a reply.

    `model` is the name that was asked for; the secrets among `params` are taken out of the
    message, and so are those in the environment.
    """
    httpx, litellm, openai = map(importlib.import_module, ("httpx", "litellm", "openai"))
    error = _provider_error(error)
    told = said(error)
    reason, status = _shorten(redact(told.reason, params)), told.status
    transport = next((e for e in led_to(error) if isinstance(e, httpx.TransportError)), None)
    where = redact(_where(params, transport), params)
    is_final = status is not None and 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY
    is_key = isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError)
    match error:
        case _ if told.wants_too_much:
            return ModelError(model, f"{reason} Ask for fewer `max_tokens`.")
        case _ if told.is_overflow or isinstance(error, litellm.ContextWindowExceededError):
            return ContextWindowExceededError(model, reason)
        case _ if told.is_unpaid:
            return ModelError(model, f"{reason} More tries would not help: see to the account.")
        case _ if is_key or told.is_bad_key or _MISSING_KEY.search(reason):
            return ModelAuthenticationError(model, _about_key(reason, model, params))
        case _ if "LLM Provider NOT provided" in reason:
            return ModelError(model, f"there is no such provider. {_NAME_HINT}")
        case openai.NotFoundError():
            return ModelError(model, f"{reason} {_not_found_hint(model, params)}")
        case _ if isinstance(transport, httpx.UnsupportedProtocol):
            return ModelError(model, f"`api_base` is no URL: {reason}")
        case openai.APIConnectionError() | openai.APIResponseValidationError() if not is_final:
            return ModelUnavailableError(model, f"{reason}{where}", told.wait)
        case _ if transport is not None:
            return ModelUnavailableError(model, f"{reason}{where}", told.wait)
        case _ if status in _WORTH_ANOTHER_TRY or (status or 0) >= 500:
            return ModelUnavailableError(model, reason, told.wait)
        case _:
            return ModelError(model, reason)


def _provider_error(error: Exception) -> Exception:
    """What tells most: litellm wraps what breaks a stream, and may itself break over an error."""
    # The wrapper always says 500.
    error = getattr(error, "original_exception", None) or error
    if isinstance(error, ValueError | TypeError):
        for cause in led_to(error):
            if type(cause).__module__.startswith("litellm.llms") and isinstance(cause, Exception):
                return cause
    return error


def _where(params: Mapping[str, Any], transport: Any) -> str:
    """Where was asked: a server of the user's own, else the address that was not reached."""
    base = params.get("api_base")
    if not base:
        with suppress(AttributeError, RuntimeError):  # httpx: the request has never been set
            base = str(transport.request.url)
    return f" The server that is asked is {public(base)}." if base else ""


def _not_found_hint(model: str, params: Mapping[str, Any]) -> str:
    """What to do where there is no such model, or no such path."""
    if model.startswith(_OLLAMA):
        return "`ollama list` shows the models that there are."
    if "api_base" in params and not model.startswith(_OWN_PATHS):
        return "Check `api_base` too: it often ends in /v1."
    return _NAME_HINT


def no_key_error(model: str, variables: Sequence[str]) -> ModelAuthenticationError:
    """There is no key in any of the environment's `variables`."""
    where = " or ".join(variables)
    reason = f"there is no key for it. Set it in the environment ({where}), or give `api_key`."
    return ModelAuthenticationError(model, reason)


_NAME_HINT = (
    "A name is `provider/model`, such as 'anthropic/claude-sonnet-4-5', 'openai/gpt-5' or "
    "'ollama/qwen3'; https://docs.litellm.ai/docs/providers lists them."
)


def _about_key(reason: str, model: str, params: Mapping[str, Any]) -> str:
    """`reason`, and what to do about the key."""
    if params.get("api_key") == NO_KEY:
        return f"{reason} The server wants a key: set OPENAI_API_KEY, or give `api_key`."
    if params.get("api_key"):
        return f"{reason} Check the `api_key` that was given."
    missing = importlib.import_module("litellm").validate_environment(model)["missing_keys"]
    if not missing:
        return f"{reason} Check the provider's key in the environment, or give `api_key`."
    if _MISSING_KEY.search(reason):
        return no_key_error(model, missing).reason
    return f"{reason} Set it in the environment ({', '.join(missing)}), or give `api_key`."


def _shorten(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + "…"
