"""Where a run is left by another one that begins as it did."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from kernel_agent.errors import TranscriptError
from kernel_agent.steps import Entry, Step


def place_of_step(entries: Sequence[Entry], at: int, path: Path | None) -> int:
    """How many entries there are up to step `at` (from 1), with it.

    Without any step, 0 stands for all there is. Raises TranscriptError if there is no such step.
    """
    ends = [number for number, entry in enumerate(entries, 1) if isinstance(entry, Step)]
    if not ends and at == 0:
        return len(entries)
    if not 1 <= at <= len(ends):
        reason = f"has no step {at}: it has {len(ends)}, counted from 1. Name one of them"
        raise TranscriptError(path or "(not saved)", reason)
    return ends[at - 1]


def parent_of(old: Path | None, run_id: str, at: int, new: Path) -> dict[str, Any]:
    """The fact that the run at `new` has left the one at `old` after step `at`."""
    parent: dict[str, Any] = {"run": run_id, "step": at}
    if old is None:
        return parent
    way = Path(os.path.realpath(old))
    try:
        relative = os.path.relpath(way, os.path.realpath(new.parent))
    except ValueError:  # two drives of Windows
        return {"path": way.as_posix(), **parent}
    return {"path": PurePath(relative).as_posix(), **parent}
