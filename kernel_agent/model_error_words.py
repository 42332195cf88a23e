"""What a provider says of an error, and what its words mean.

litellm passes on parts of a provider's answer, each in another place and form: so all that led to
an error of its is looked through.
"""

from __future__ import annotations

import ast
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

DAY = 86_400.0
"""Seconds until a limit that is counted per day has passed, at the latest."""

_OVERFLOW_NAMES = set(
    "context_length_exceeded exceed_context_size_error model_max_prompt_tokens_exceeded "
    "request_too_large".split()
)
_OVERFLOW = re.compile(
    r"(exceed|overflow|longer than|larger than|greater than|too long|too large)"
    r".{0,60}context (length|size|window|limit)"
    r"|context (length|size|window).{0,40}(exceeded|overflow|not enough)"
    r"|context length is only|reached (the )?context length"
    r"|(maximum|max) (context|model|prompt|input) length"
    r"|\b(prompt|input) (is )?too long|too many tokens in (the )?prompt"
    r"|prompt exceeds max|exceeded model token limit|range of input length should be"
    r"|`inputs` (must have less than|tokens \+ `max_new_tokens` must be)"
    r"|(input|prompt) token(s| count).{0,40} exceeds? "
    r"|^request too large|input is too large to process"
    r"|reduce the length of the (messages|prompt|input)",
    re.IGNORECASE,
)
_OUTPUT_AND_WINDOW = re.compile(r"is too large: (\d+)\. This model's maximum context .*? (\d+)")

_UNPAID_NAMES = set(
    "insufficient_quota exceeded_current_quota_error billing_error billing_not_active "
    "billing_hard_limit_reached Arrearage 1113".split()
)
_UNPAID = re.compile(
    r"insufficient (quota|(account )?balance|credits?|funds)|please recharge"
    r"|credit (balance|limit)|credits are depleted|exceeded your monthly \w+ credits"
    r"|(has no|requires more|used all)( \w+)? credits"
    r"|billing hard limit|spend(ing)? limit|api usage limits"
    r"|account.{0,60} (is (not active|suspended)|in good standing)",
    re.IGNORECASE,
)
_UNPAID_OR_BUSY = re.compile(r"exceeded your current quota|billing details", re.IGNORECASE)
"""What Google says of a limit that is counted per minute, too."""

_BAD_KEY_NAMES = set(
    "API_KEY_INVALID authentication_error invalid_api_key invalid_authentication_error "
    "permission_error".split()
)
_BAD_KEY = re.compile(
    r"(invalid|incorrect) api[ _-]?key|api[ _-]?key (is invalid|not valid|expired)", re.IGNORECASE
)

_STATUS_OF_NAME = {"invalid_request_error": 400, "not_found_error": 404}
"""The status that an error within a stream would have had, by the provider's name for it."""

_NAME_KEYS = {"code", "type", "status", "error_type", "error_code", "reason", "quotaId"}
_ERROR_NAMES = re.compile(
    r"^(?:(?:litellm\.)?(?:\w+Exception )?\w*(?:Error|Exception|Timeout)\s*[:-]\s+)+"
)
_JSON_MESSAGE = re.compile(r'"message"\s*:\s*("(?:[^"\\]|\\.)*")')
_NOISE = re.compile(
    r"(, Received response| Error_str:| LiteLLM Retried:|\.? Handle with `litellm\."
    r"|, Metadata: .*User ID:|\.? File an issue if litellm error).*",
    re.DOTALL,
)
_BROKEN_JSON = re.compile(r"line \d+ column \d+ \(char \d+\)")
_UNCLEAR = {
    "provider returned": "its answer is no chat completion: there are no `choices` in it",
    "Response API in-stream": "the stream ended in an error, whose reason litellm does not tell",
}
"""What litellm says itself, by how it begins, and what it means."""
_BROKEN_OVER = (AttributeError, IndexError, KeyError, TypeError)


@dataclass(frozen=True)
class Said:
    """What a provider says of an error, as far as it is known.

    `reason` is its sentence, and `names` are its codes and types, from whichever field. `status`
    is that of HTTP or, of an error within a stream, the one it would have had; `wait` is how many
    seconds it asks to wait.
    """

    reason: str
    names: frozenset[str]
    status: int | None
    wait: float | None

    @property
    def is_overflow(self) -> bool:
        """Whether less would have to be sent; the limit that it was too much for never passes."""
        if self.wants_too_much:
            return False
        if self.status == 413 and "image" not in self.reason.lower():
            return True
        return bool(_OVERFLOW_NAMES & self.names or _OVERFLOW.search(self.reason))

    @property
    def wants_too_much(self) -> bool:
        """Whether the reply alone might be longer than the window: to send less would not help."""
        found = _OUTPUT_AND_WINDOW.search(self.reason)
        return found is not None and int(found[1]) >= int(found[2])

    @property
    def is_unpaid(self) -> bool:
        """Whether quota, credit or account are exhausted: only the user can mend that."""
        if self.status == 402 or _UNPAID_NAMES & self.names or _UNPAID.search(self.reason):
            return True
        is_google = "RESOURCE_EXHAUSTED" in self.names or "RESOURCE_EXHAUSTED" in self.reason
        return not is_google and bool(_UNPAID_OR_BUSY.search(self.reason))

    @property
    def is_bad_key(self) -> bool:
        """Whether the key is wrong, or not allowed to do this."""
        is_said = bool(_BAD_KEY_NAMES & self.names or _BAD_KEY.search(self.reason))
        return is_said or self.status in (401, 403)


def said(error: BaseException) -> Said:
    """What the provider says in `error` and in what led to it."""
    chain = led_to(error)
    bodies = [body for body in _bodies(chain) if body]
    names = {name for body in bodies for name in _names(body)}
    names |= {str(code) for each in chain if (code := getattr(each, "status_code", None))}
    reason = next(filter(None, map(_sentence, bodies)), "")
    wait = _wait_in_headers(chain)
    if wait is None:
        wait = next((wait for body in bodies for wait in _delays(body)), None)
    if any("PerDay" in name for name in names):
        wait = max(wait or 0.0, DAY)
    return Said(_readable(reason, chain), frozenset(names), _status(chain, bodies, names), wait)


def led_to(error: BaseException) -> list[BaseException]:
    """`error` and what led to it, the latest first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and all(cause is not known for known in chain):
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _status(chain: list[BaseException], bodies: list[Any], names: set[str]) -> int | None:
    """HTTP's own, else what comes nearest to it."""
    for error in chain:
        if _is_httpx(error) and hasattr(error, "response"):
            return int(error.response.status_code)
    # Of an error within a stream litellm often says 500.
    told = [int(name) for body in bodies for name in _names(body) if _is_error_status(name)]
    own = [str(error.status_code) for error in chain if hasattr(error, "status_code")]
    known = [int(status) for status in own if _is_error_status(status)]
    exact = [status for status in known if status < 500]
    meant = [_STATUS_OF_NAME[name] for name in names if name in _STATUS_OF_NAME]
    return next(iter([*told, *exact, *meant, *known]), 500 if own else None)


def _is_httpx(error: BaseException) -> bool:
    return type(error).__module__.startswith("httpx")


def _is_error_status(name: str) -> bool:
    return name.isascii() and name.isdigit() and 400 <= int(name) < 600


def _bodies(chain: list[BaseException]) -> Iterator[Any]:
    """What the provider has answered, as JSON, as often as it is found."""
    for error in chain:
        yield getattr(error, "body", None)
        with suppress(AttributeError, RuntimeError):  # no response, or one that was not read
            yield _quoted(error.response.text)  # type: ignore[attr-defined]
        yield _quoted(_message(error))


def _quoted(text: str) -> Any:
    """The JSON object, or the dict as Python shows it, that there is in `text`."""
    start = text.find("{")
    if start < 0:
        return None
    with suppress(ValueError, RecursionError):
        return json.JSONDecoder(strict=False).raw_decode(text, start)[0]
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        if text.startswith("{'", start):
            return ast.literal_eval(text[start : text.rfind("}") + 1])
    return None


def _sentence(body: Any) -> str:
    """The words for a human in `body`."""
    match body:
        case str():
            inner = _sentence(_quoted(body)) if body.lstrip().startswith(("{", "[")) else ""
            return inner or body
        case {"message": str(message), "metadata": {"raw": str(raw)}}:
            return f"{message}: {_sentence(raw)}"  # OpenRouter, of the provider that it asked
    if isinstance(body, list):
        return next(filter(None, map(_sentence, body)), "")
    if not isinstance(body, Mapping):
        return ""
    fields = (body.get(key) for key in ("error", "message", "detail", "msg", "response"))
    return next(filter(None, map(_sentence, fields)), "")


def _names(body: Any) -> Iterator[str]:
    """The provider's own names for the error."""
    for key, value in _fields(body):
        if key in _NAME_KEYS and isinstance(value, str | int):
            yield str(value)


def _delays(body: Any) -> Iterator[float]:
    """The waits that Google's `RetryInfo` asks for."""
    for key, value in _fields(body):
        if key == "retryDelay" and (seconds := _seconds(str(value).removesuffix("s"))) is not None:
            yield seconds


def _fields(body: Any) -> Iterator[tuple[Any, Any]]:
    """The keys and values of all objects in `body`."""
    own = body if isinstance(body, Mapping) else {}
    yield from own.items()
    for value in body if isinstance(body, list) else own.values():
        yield from _fields(value)


def _wait_in_headers(chain: list[BaseException]) -> float | None:
    """That is `retry-after-ms`, in milliseconds, else `Retry-After`, as seconds or a date."""
    for error in chain:
        own = getattr(getattr(error, "response", None), "headers", None)
        for headers in (getattr(error, "litellm_response_headers", None), own):
            known = headers or {}
            if (exact := _seconds(known.get("retry-after-ms") or "")) is not None:
                return exact / 1000
            if value := known.get("retry-after"):
                return _seconds(value)
    return None


def _seconds(value: str) -> float | None:
    with suppress(ValueError):
        return None if math.isnan(number := float(value)) else max(0.0, number)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _message(error: BaseException) -> str:
    """What `error` says by itself: no class names or traceback around it, nor litellm's advice."""
    text = str(getattr(error, "message", None) or error)
    text = _ERROR_NAMES.sub("", text.partition("Traceback (most recent call last)")[0])
    text = _NOISE.sub("", text).strip()
    with suppress(SyntaxError, ValueError):  # what is cut off or broken is shown as it is
        if text.startswith(("b'", 'b"')):  # litellm shows some bodies as Python shows bytes
            text = ast.literal_eval(text).decode()
    return text


def _readable(sentence: str, chain: list[BaseException]) -> str:
    """`sentence`, else what the exceptions say, as one line."""
    text = sentence or _own_words(chain)
    text = next((clear for start, clear in _UNCLEAR.items() if text.startswith(start)), text)
    if "<html" in text.lower():
        text = re.sub(r"<[^>]+>", " ", text)
    if _BROKEN_JSON.search(text):
        text = f"The answer is broken JSON: {text}"
    text = " ".join(_NOISE.sub("", text).split()) or "it gave no reason"
    return text if text.endswith((".", "!", "?")) else text + "."


def _own_words(chain: list[BaseException]) -> str:
    error, *causes = chain
    is_litellm = type(error).__module__.startswith(("litellm", "openai"))
    if is_litellm and causes and isinstance(causes[0], _BROKEN_OVER):
        kind = type(causes[0]).__name__
        return f"litellm cannot make sense of the request or the answer ({kind}: {causes[0]})"
    # Below litellm's there may be words that it has lost; httpx has none of the provider's.
    own = (each for each in chain if each is error or not _is_httpx(each))
    text = next(filter(None, map(_message, own)), "")
    if text == "Connection error.":
        text = f"Connection error: {next(filter(_is_httpx, causes), 'no reason known')}"
    if found := _JSON_MESSAGE.search(text):
        with suppress(ValueError):
            text = json.loads(found[1], strict=False)
    text = text.removeprefix("LiteLLM: ").removeprefix("Message: ")
    return text if is_litellm else f"{type(error).__name__}: {text}"
