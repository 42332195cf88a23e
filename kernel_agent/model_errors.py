"""What goes wrong at a provider, as an exception of ours with a short reason."""

from __future__ import annotations

import ast
import importlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from kernel_agent.errors import (
    ContextWindowExceededError,
    ModelAuthenticationError,
    ModelError,
    ModelUnavailableError,
)
from kernel_agent.model_secrets import public, redact

MAX_REASON = 500
"""Longest reason, in characters."""

NO_KEY = "none"
"""What is sent as the key to a server of the user's own while there is none."""

_ERROR_NAMES = re.compile(r"^(?:(?:litellm\.)?\w*(?:Error|Exception|Timeout)\s*[:-]\s+)+")
_JSON_MESSAGE = re.compile(r'"message"\s*:\s*("(?:[^"\\]|\\.)*")')
_WORTH_ANOTHER_TRY = {408, 409, 425, 429}
_NOISE = re.compile(r"(, Received response| Error_str:| LiteLLM Retried:).*", re.DOTALL)
_BROKEN_JSON = re.compile(r"line \d+ column \d+ \(char \d+\)")
_MISSING_KEY = re.compile(
    r"missing (credentials|\w+ api key)|locate credentials|api_key client option", re.IGNORECASE
)


def model_error(model: str, params: Mapping[str, Any], error: Exception) -> ModelError:
    """The exception of ours for `error`, which litellm raised when asked for a reply.

    `model` is the name that was asked for; the secrets among `params` are taken out of the
    message, and so are those in the environment.
    """
    httpx, litellm, openai = map(importlib.import_module, ("httpx", "litellm", "openai"))
    # litellm wraps what breaks a stream; the wrapper always says 500.
    error = getattr(error, "original_exception", None) or error
    reason = _shorten(redact(_reason(error), params))
    status = _status(error)
    match error:
        case litellm.ContextWindowExceededError():
            return ContextWindowExceededError(model, reason)
        case _ if _code(error) == "context_length_exceeded":
            return ContextWindowExceededError(model, reason)
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return ModelAuthenticationError(model, _about_key(reason, model, params))
        case _ if status in (401, 403) or _MISSING_KEY.search(reason):
            return ModelAuthenticationError(model, _about_key(reason, model, params))
        case _ if "LLM Provider NOT provided" in reason:
            return ModelError(model, f"there is no such provider. {_NAME_HINT}")
        case openai.NotFoundError() if "api_base" in params:
            return ModelError(model, f"{reason} Check `api_base` too: it often ends in /v1.")
        case openai.NotFoundError():
            return ModelError(model, f"{reason} {_NAME_HINT}")
        case _ if _code(error) == "insufficient_quota":
            return ModelError(model, f"{reason} More tries would not help: see to the account.")
        case _ if isinstance(_transport_error(error), httpx.UnsupportedProtocol):
            return ModelError(model, f"`api_base` is no URL: {reason}")
        case openai.APIConnectionError() | openai.APIResponseValidationError():
            return ModelUnavailableError(model, f"{reason}{_where(params)}", retry_after(error))
        case _ if status in _WORTH_ANOTHER_TRY or (status or 0) >= 500:
            return ModelUnavailableError(model, reason, retry_after(error))
        case _:
            return ModelError(model, reason)


def _where(params: Mapping[str, Any]) -> str:
    """Where a server of the user's own was asked."""
    base = params.get("api_base")
    return f" The server that is asked is {public(base)}." if base else ""


def no_key_error(model: str, variables: Sequence[str]) -> ModelAuthenticationError:
    """There is no key in any of the environment's `variables`."""
    where = " or ".join(variables)
    reason = f"there is no key for it. Set it in the environment ({where}), or give `api_key`."
    return ModelAuthenticationError(model, reason)


def retry_after(error: Exception) -> float | None:
    """The wait in seconds that the provider asked for.

    That is `retry-after-ms`, in milliseconds, else `Retry-After`, as seconds or a date.
    """
    response = getattr(error, "response", None)
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(response, "headers", None),
    ):
        known = headers or {}
        if (exact := _seconds(known.get("retry-after-ms") or "")) is not None:
            return exact / 1000
        if value := known.get("retry-after"):
            return _seconds(value)
    return None


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


def _status(error: Exception) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _code(error: Exception) -> Any:
    """The API's own name for the error, more exact than the status."""
    body = getattr(error, "body", None)
    if body is None:  # what litellm asks without OpenAI's SDK it quotes, without reading it
        text = str(getattr(error, "message", None) or error)
        with suppress(ValueError):
            body = json.JSONDecoder().raw_decode(text[text.index("{") :])[0].get("error")
    return body.get("code") if isinstance(body, Mapping) else None


def _transport_error(error: Exception) -> BaseException | None:
    """What failed below HTTP, which litellm only calls `Connection error.`"""
    transport_error = importlib.import_module("httpx").TransportError
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, transport_error):
        cause = cause.__cause__ or cause.__context__
    return cause


def _reason(error: Exception) -> str:
    """The provider's own words: no class names, JSON, HTML or traceback around them."""
    text = str(getattr(error, "message", None) or error)
    text = _ERROR_NAMES.sub("", text.partition("Traceback (most recent call last)")[0])
    if text == "Connection error.":
        text = f"Connection error: {_transport_error(error) or 'no reason known'}"
    with suppress(SyntaxError, ValueError):  # what is cut off or broken is shown as it is
        if text.startswith(("b'", 'b"')):  # litellm shows some bodies as Python shows bytes
            text = ast.literal_eval(text).decode()
    with suppress(ValueError):
        if found := _JSON_MESSAGE.search(text):
            text = json.loads(found[1], strict=False)
    if "<html" in text.lower():
        text = re.sub(r"<[^>]+>", " ", text)
    if _BROKEN_JSON.search(text):
        text = f"The answer is broken JSON: {text}"
    text = " ".join(_NOISE.sub("", text).split()) or "it gave no reason"
    if not type(error).__module__.startswith(("litellm", "openai")):
        text = f"{type(error).__name__}: {text}"
    return text if text.endswith((".", "!", "?")) else text + "."


def _shorten(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + "…"


def _seconds(value: str) -> float | None:
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
