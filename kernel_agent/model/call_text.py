"""A native call while it streams in, and the code in its JSON arguments."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_OPENING = re.compile(r'\s*\{\s*"code"\s*:\s*"')
_TEXT = re.compile(r'(?:[^"\\]|\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt]))*')
# What a further piece may turn into a character: half of a surrogate pair.
_HALF_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


class CallText:
    """Decodes `{"code": "…"}` piece by piece, wherever the pieces were split.

    `is_complete` when the string has ended. Of arguments of any other form nothing is told.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self._is_inside = False
        self._waiting = ""

    def add(self, piece: str) -> str:
        """The code that is known through the next `piece` of the arguments."""
        if self.is_complete:
            return ""
        self._waiting += piece
        if not self._is_inside:
            opening = _OPENING.match(self._waiting)
            if opening is None:
                return ""
            self._is_inside = True
            self._waiting = self._waiting[opening.end() :]
        return self._decoded()

    def _decoded(self) -> str:
        match = _TEXT.match(self._waiting)
        assert match is not None  # it matches nothing, too
        known = match[0]
        if self._waiting[len(known) :].startswith('"'):
            self.is_complete = True
        elif half := _HALF_PAIR.search(known):
            known = known[: half.start()]
        self._waiting = self._waiting[len(known) :]
        return whole_characters(json.loads(f'"{known}"', strict=False))


def whole_characters(text: str) -> str:
    """`text` with a replacement character for each half of a pair: none can be encoded."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass
class GrowingCall:
    """A native call as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    code: CallText = field(default_factory=CallText)
    is_named_again: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are an object."""
        if not self.arguments.rstrip().endswith("}"):
            return False
        with suppress(ValueError, RecursionError):
            return isinstance(json.loads(self.arguments), dict)
        return False

    def is_followed_by(self, id: str, name: str, piece: str) -> bool:
        """Whether what comes at its place, each part empty where it is not told, begins another.

        Some servers give every call the same index: then a new id and name begin a new call.
        Others give every piece of a call an id of its own, but only the first one the name.
        Without ids, a name behind complete arguments begins a new call, once it is another name
        or has arguments; the same arguments once more are the same call, told again.
        """
        if id and self.id:
            return bool(name) and id != self.id
        if not self.is_complete:
            return False
        self.is_named_again |= bool(name)
        is_other = bool(name) and name != self.name
        return is_other or (self.is_named_again and bool(piece) and piece != self.arguments)
