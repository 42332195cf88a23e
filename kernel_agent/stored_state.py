"""The snapshots of a run: stored beside its notebook, found and restored when it is resumed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_agent.events import SnapshotTaken
from kernel_agent.kernel import Kernel
from kernel_agent.kernel.snapshots import Restored, snapshot_keys
from kernel_agent.repeating import Plan, RecordedCell, plan_all
from kernel_agent.transcript import Transcript


@dataclass(frozen=True)
class Stored:
    """A snapshot of the variables after step `step`, as `key` in `folder`."""

    folder: Path
    key: str
    step: int


def store(kernel: Kernel, transcript: Transcript, *, max_bytes: int) -> SnapshotTaken | None:
    """Take a snapshot after the last step; None for a transcript that is not saved."""
    if transcript.path is None:
        return None
    key = _key(transcript.run_id, len(transcript.steps))
    snapshot = kernel.snapshot(_folder(transcript.path), key, max_bytes=max_bytes)
    skipped = {"everything": snapshot.reason} if snapshot.reason else snapshot.skipped
    return SnapshotTaken(tuple(snapshot.stored), skipped, snapshot.written)


def find(transcript: Transcript) -> Stored | None:
    """The last snapshot of the run that still holds; a fork looks among its parent's too.

    What was stored before a cell killed the kernel does not: the state is another one since then.
    """
    if transcript.path is None:
        return None
    cells = [item for item in plan_all(transcript.entries) if isinstance(item, RecordedCell)]
    since = max((cell.step or 0 for cell in cells if cell.result.status == "died"), default=0)
    places = [(_folder(transcript.path), transcript.run_id, len(transcript.steps))]
    match transcript.about.get("parent"):
        case {"path": str(path), "run": str(run), "step": int(step)}:
            places.append((_folder(transcript.path.parent / path), run, step))
    for folder, run, last in places:
        keys = snapshot_keys(folder)
        for step in range(last, max(since, 1) - 1, -1):
            if (key := _key(run, step)) in keys:
                return Stored(folder, key, step)
    return None


def left_to_run(plan: Plan, stored: Stored, restored: Restored) -> list[Any]:
    """What of `plan` must be executed once the snapshot is restored.

    That is what came after it, and before that the cells that made what it lacks: those alone
    that would change nothing else, since each of their variables was last made by them.
    """
    numbers = {
        item.name: index for index, item in enumerate(plan) if isinstance(item, RecordedCell)
    }
    lacking = {*restored.skipped, *restored.failed}
    before, after = [], []
    last_maker: dict[str, str] = {}
    for item in plan:
        if isinstance(item, RecordedCell) and (item.step or 0) <= stored.step:
            last_maker |= dict.fromkeys(item.result.variables, item.name)
            before.append(item)
        elif isinstance(item, RecordedCell):
            after.append(item)
    again = [
        item
        for item in before
        if lacking & item.result.variables.keys()
        and all(last_maker[name] == item.name for name in item.result.variables)
    ]
    return sorted([*again, *after], key=lambda item: numbers[item.name])


def _folder(notebook: Path) -> Path:
    return notebook.with_name(f"{notebook.stem}-snapshot")


def _key(run_id: str, step: int) -> str:
    return f"{run_id}.step-{step}"
