"""Lets a recorded run go on: whether it can, its kernel's state, its unfinished step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

from kernel_agent.errors import SettingsError, TranscriptError
from kernel_agent.events import CellRepeated, Listener
from kernel_agent.kernel import Kernel
from kernel_agent.kernel.snapshots import Restored
from kernel_agent.rebuilding import left_out, restore
from kernel_agent.repeating import Ask, RecordedCell, Repeated, plan_state
from kernel_agent.steps import CellResult, Rebuilt, Step
from kernel_agent.stored_state import find, left_to_run
from kernel_agent.tool_use import recorded_calls
from kernel_agent.transcript import Transcript

KILLED = (
    "The run's process ended while this cell was running. What the cell did to the variables is "
    "lost; those from before it were brought back."
)


def check_can_go_on(transcript: Transcript, task: str | None) -> None:
    """Refuse a transcript that nobody can go on with, or only with a task and there is none.

    Raises TranscriptError, SettingsError for the missing task.
    """
    path = transcript.path or Path("(not saved)")
    if not transcript.tasks or not transcript.system:
        said = "; ".join(map(str, transcript.problems)) or "it holds no task of a run"
        raise TranscriptError(path, f"cannot be gone on with: {said}.")
    outcome = transcript.outcome
    is_over = outcome is not None and outcome.status in ("answered", "limit")
    if task is None and is_over and not transcript.pending:
        raise SettingsError(f"The run in {str(path)!r} has ended: {outcome}. Give it a new task.")


def interrupted(pending: Step) -> Step:
    """The step that was running when the run's process ended, as one that was interrupted."""
    result = pending.result or CellResult("")
    result = replace(result, status="interrupted", reason=KILLED, stopped_by="kill")
    return replace(pending, result=result)


def is_worth_telling(rebuilt: Rebuilt | None) -> bool:
    """Whether the model should hear of it: only what is not as it was."""
    return rebuilt is not None and bool(rebuilt.lost or rebuilt.differing or rebuilt.reason)


def bring_back(
    kernel: Kernel,
    transcript: Transcript,
    *,
    ask: Ask | None,
    tell: Listener,
    stopped: Callable[[], bool],
) -> Rebuilt:
    """Give `kernel`, which has just been started, the state that the run's kernel had.

    A snapshot gives it at once; without one, and for what it lacks, recorded cells are executed.
    Ends early when `stopped` says so.

    Raises KernelStartError if a cell ends the kernel and it does not start again.
    """
    plan = plan_state(transcript.entries)
    had = left_out(transcript.entries, plan)
    restored = Restored()
    if stored := find(transcript):
        restored = kernel.restore(stored.folder, stored.key)
        if not restored.reason:
            plan = left_to_run(plan, stored, restored)
            had = (*restored.skipped, *restored.failed)
    cells = sum(isinstance(item, RecordedCell) for item in plan)
    numbers = count(1)

    def told(repeated: Repeated) -> bool:
        tell(CellRepeated(repeated.cell.spoken, next(numbers), cells))
        return not stopped()

    calls = recorded_calls(transcript.entries, transcript.path)
    rebuilt = restore(kernel, plan, had=had, calls=calls, ask=ask, tell=told)
    calls.close()
    return replace(rebuilt, restored=tuple(restored.names))
