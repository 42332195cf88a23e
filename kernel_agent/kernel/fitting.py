"""Cuts what is too long to be kept, and says so; also runs inside the kernel, shipped as text."""

from __future__ import annotations

import json
from typing import Any

MARK = "kernel_agent"
"""The key of our own entries in an output's metadata."""


def shortened(text: str, room: int) -> str:
    """`text` in about `room` characters: its beginning, a line on what is gone, and its end."""
    if len(text) <= room:
        return text
    keep = max(0, room - len(gap_line(len(text))) - 2)
    tail = keep // 2
    gone = gap_line(len(text) - keep)
    return f"{text[: keep - tail]}\n{gone}\n{text[len(text) - tail :]}"


def gap_line(characters: int, outputs: int = 0) -> str:
    """The line that stands where `characters` and whole `outputs` were left out."""
    also = f" and {outputs:,} outputs" if outputs else ""
    return f"… {characters:,} characters{also} were not kept …"


def fitted(
    data: dict[str, Any], metadata: dict[str, Any], room: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A MIME bundle and its metadata, with `data` in about `room` characters.

    The smallest forms are kept whole, `text/plain` is shortened, and other forms that do not fit
    are left out. The original lengths of these are in `metadata["kernel_agent"]["characters"]`.
    """
    sizes = {mime: value_size(value) for mime, value in data.items()}
    if sum(sizes.values()) <= room:
        return data, metadata
    kept: dict[str, Any] = {}
    cut: dict[str, int] = {}
    # Text last: it is the one form that can be shortened.
    for mime in sorted(sizes, key=lambda mime: (mime == "text/plain", sizes[mime])):
        if sizes[mime] <= room:
            kept[mime] = data[mime]
            room -= sizes[mime]
        else:
            cut[mime] = sizes[mime]
    if "text/plain" in cut and isinstance(data["text/plain"], str):
        kept["text/plain"] = shortened(data["text/plain"], room)
    elif not kept:
        gone = ", ".join(f"{mime} of {size:,} characters" for mime, size in cut.items())
        kept["text/plain"] = f"[{gone}: too long to be kept]"
    return kept, marked(metadata, characters=cut)


def marked(metadata: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """`metadata` with `facts` under our own key."""
    known = metadata.get(MARK)
    return {**metadata, MARK: {**(known if isinstance(known, dict) else {}), **facts}}


def value_size(value: Any) -> int:
    """How many characters a value of a MIME bundle has: text as such, anything else as JSON."""
    return len(value) if isinstance(value, str) else len(json.dumps(value, default=str))
