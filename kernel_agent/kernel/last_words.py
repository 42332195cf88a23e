"""What a kernel's process has said before it died: the end of its standard error."""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 16_000
MAX_LINES = 40
FATAL = "Fatal Python error: "
MACHINERY = (
    "/IPython/core/",
    "/ipykernel/",
    "/ipykernel_launcher.py",
    "/traitlets/",
    "/asyncio/",
    "/tornado/",
    "<frozen runpy>",
    "Extension modules:",
)


def last_words(path: Path) -> str:
    """The last lines of the file at `path`; of a fatal error's traceback the user's own frames."""
    try:
        with path.open("rb") as stderr:
            stderr.seek(max(0, path.stat().st_size - MAX_BYTES))
            text = stderr.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    before, fatal, traceback = text.rpartition(FATAL)
    if fatal:
        return _last_lines(before + fatal + _own_frames(traceback))
    return _last_lines(text)


def _own_frames(traceback: str) -> str:
    """`traceback`, most recent call first, without the frames of the kernel that ran the code."""
    lines = traceback.splitlines()
    return "\n".join(line for line in lines if not any(part in line for part in MACHINERY))


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-MAX_LINES:])
