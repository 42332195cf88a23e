"""The code of a native call, read out of its JSON arguments while these stream in."""

from __future__ import annotations

import json
import re

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
