"""Writes a run anew, with the outputs that its cells gave when they were executed again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from kernel_agent import __version__
from kernel_agent.errors import SettingsError, TranscriptError
from kernel_agent.opening import PRELUDE
from kernel_agent.steps import CellResult, Cut, Note, Outcome, Plan, Step, Task, UserCell
from kernel_agent.transcript import Transcript


def check_out(transcript: Transcript, out: Path) -> None:
    """Refuse a place that is taken (TranscriptError), or cells of a user's (SettingsError)."""
    if os.path.lexists(out):
        raise TranscriptError(out, "it exists, and no file is overwritten. Choose another name.")
    if any(isinstance(entry, UserCell) for entry in transcript.entries):
        raise SettingsError(
            "out: the notebook has cells that a user wrote, and only runs can be written anew. "
            "`jupyter execute --output` gives it new outputs."
        )


def rewrite(
    transcript: Transcript,
    results: Mapping[int, CellResult],
    out: Path,
    *,
    about: Mapping[str, Any],
) -> None:
    """Write the run to `out`: tasks, replies and observations as recorded, `results` by step.

    `about` are facts of the kernel that gave them. Raises TranscriptError.
    """
    language = about.get("kernelspec", {}).get("language")
    anew = Transcript(
        transcript.system,
        cwd=transcript.cwd,
        prelude=PRELUDE if language == "python" else "",
        about={
            **transcript.about,
            **about,
            "version": __version__,
            "parent": _parent(transcript, out),
        },
    )
    outcomes = iter(transcript.outcomes)
    number = 0
    for entry in transcript.entries:
        number += isinstance(entry, Step)
        match entry:
            case Task():
                if anew.tasks:
                    _finish(anew, next(outcomes, None))
                anew.add(entry)
            case Step(result=CellResult()):
                anew.add(replace(entry, result=results[number]))
            case Step() | Note() | Plan() | Cut():
                anew.add(entry)
    _finish(anew, transcript.outcome)
    # Saved once, when it is whole: one with half of its cells would look like a run's.
    anew.path = out
    anew.save()


def _finish(transcript: Transcript, outcome: Outcome | None) -> None:
    if outcome is not None:
        transcript.finish(outcome)


def _parent(transcript: Transcript, out: Path) -> dict[str, Any]:
    """Where the outputs of then are."""
    parent: dict[str, Any] = {"run": transcript.run_id, "step": len(transcript.steps)}
    if transcript.path is not None:
        folder, path = out.resolve().parent, transcript.path.resolve()
        try:
            parent["path"] = PurePath(os.path.relpath(path, folder)).as_posix()
        except ValueError:  # two drives of Windows
            parent["path"] = path.as_posix()
    return parent
