"""Keeping keys out of messages and transcripts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|cookie", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)(_|$)")
_URL_SECRETS = re.compile(r"(?<=://)[^/@\s]+@|\?[^\s#]*")


def redact(text: str, params: Mapping[str, Any]) -> str:
    """`text` without the secrets among `params` and in the environment's variables."""
    environment = (value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name))
    # The longest first: a key may be part of another.
    for secret in sorted({*_secrets(params), *_parts(environment)}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def public(value: Any) -> Any:
    """`value` as JSON, without entries that are named like secrets; other objects as their type."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return _URL_SECRETS.sub("", value) if "://" in value else value
        case Mapping():
            return {
                str(name): public(item) for name, item in value.items() if not _secret(name, item)
            }
        case list() | tuple():
            return [public(item) for item in value]
        case _:
            return type(value).__name__


def _secret(name: Any, value: Any) -> bool:
    # Numbers are none: `max_tokens` is a name like any key's.
    return bool(_SECRET_NAME.search(str(name))) and not isinstance(value, int | float | None)


def _secrets(value: Any, *, inside: bool = False) -> Iterator[str]:
    match value:
        case str() if inside:
            yield from _parts([value])
        case str():
            yield from _parts(_URL_SECRETS.findall(value) if "://" in value else [])
        case Mapping():
            for name, item in value.items():
                yield from _secrets(item, inside=inside or _secret(name, item))
        case list() | tuple():
            for item in value:
                yield from _secrets(item, inside=inside)


def _parts(values: Iterable[str]) -> Iterator[str]:
    """The words of `values` that are long enough for a secret: without `Bearer`."""
    return (part for value in values for part in value.split() if len(part) >= 8)
