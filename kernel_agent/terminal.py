"""What a terminal would show of a text: escape sequences out, overwritten characters replaced."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_ERASE = re.compile(r"(?:\x1b\[|\x9b)[012]?K")
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?"  # colours, cursor movements
    r"|\x1b[\]PX^_][^\x07\x1b\n]*+(?:\x07|\x1b\\)?"  # titles, links and other strings
    r"|\x1b[ -/]*+[0-~]?"
)
_ERASED = "\x00"


def plain_text(text: str) -> str:
    """`text` as a terminal shows it: no escape sequences, `\\r` and `\\b` carried out.

    Line ends and tabs are all that is left of the control characters; lone surrogates, which
    cannot be encoded, become U+FFFD.
    """
    if not _CONTROL.search(text):
        return text
    text = _ERASE.sub(_ERASED, text.replace(_ERASED, "").replace("\r\n", "\n"))
    text = _ESCAPE.sub("", text)
    if "\r" in text or "\b" in text or _ERASED in text:
        text = "\n".join(_overwritten(line) for line in text.split("\n"))
    return _CONTROL.sub(lambda found: "\ufffd" if found[0] >= "\ud800" else "", text)


def _overwritten(line: str) -> str:
    """The last state of a line that was written over, such as a progress bar's."""
    shown = ""
    # From the last writing back: an earlier one shows only where it was longer.
    for writing in reversed(line.split("\r")):
        piece = _backspaced(writing.replace(_ERASED, ""))
        if len(piece) > len(shown):
            shown += piece[len(shown) :]
        if _ERASED in writing:
            break
    return shown


def _backspaced(text: str) -> str:
    if "\b" not in text:
        return text
    shown: list[str] = []
    cursor = 0
    for character in text:
        if character == "\b":
            cursor = max(cursor - 1, 0)
        else:
            shown[cursor : cursor + 1] = character
            cursor += 1
    return "".join(shown)
