"""Names for new notebooks that are not taken yet."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Container
from datetime import date
from pathlib import Path

MAX_SLUG = 40


def new_path(folder: Path, task: str, today: date) -> Path:
    """A path in `folder` for the transcript of `task` that is not taken yet.

    It reads like `2026-01-31-which-month-is-the-wettest.ipynb`, with -2, -3, … if taken.
    """
    ascii_text = unicodedata.normalize("NFKD", task).encode("ascii", "ignore").decode()
    words = re.findall("[a-z0-9]+", ascii_text[: 10 * MAX_SLUG].lower())
    slug = words[0][:MAX_SLUG] if words else "task"
    for word in words[1:]:
        if len(slug) + 1 + len(word) > MAX_SLUG:
            break
        slug += f"-{word}"
    return free_path(folder / f"{today.isoformat()}-{slug}.ipynb")


def free_path(path: Path, taken: Container[Path] = ()) -> Path:
    """`path`, or if it is there or `taken` the same with -2, -3, … behind the stem."""
    free, number = path, 1
    while free in taken or os.path.lexists(free):
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def new_folder(path: Path) -> Path:
    """A folder that nobody else has made: at `path`, or with -2, -3, … behind it. Raises OSError.

    It may be removed again if it is not needed.
    """
    while True:
        folder = free_path(path)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another run was faster
            continue
        return folder
