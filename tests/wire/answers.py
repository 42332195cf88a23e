"""What a scripted provider says, in no provider's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A native call; `signature` is what Gemini gives with it, and `id` is empty if it has none."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""
    signature: str = ""


@dataclass(frozen=True)
class Counts:
    """The tokens that the provider tells: `cached` and `written` are parts of `prompt`."""

    prompt: int = 1000
    completion: int = 50
    cached: int = 0
    written: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Said:
    """One answer. `signature` goes with the reasoning, `redacted` is reasoning kept secret.

    `details` are OpenRouter's own, in as many pieces as they are sent.
    """

    text: str = ""
    reasoning: str = ""
    signature: str = ""
    redacted: str = ""
    calls: tuple[Call, ...] = ()
    counts: Counts = field(default_factory=Counts)
    details: tuple[Mapping[str, Any], ...] = ()
    is_cut: bool = False
    """Whether its stream ends after half of its events, as if that were all."""


def pieces(text: str, size: int = 7) -> list[str]:
    """`text` in pieces of `size` characters: what a stream is made of."""
    return [text[start : start + size] for start in range(0, len(text), size)]
