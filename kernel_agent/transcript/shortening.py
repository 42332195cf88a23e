"""What of a run's entries the model is still shown after a cut; see `steps.Cut`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from kernel_agent.steps import (
    CellResult,
    Cut,
    Entry,
    Note,
    Observation,
    Output,
    Step,
    Task,
    UserCell,
)
from kernel_agent.terminal import plain_text

MAX_REASON = 400  # characters of what kept code from running, or an answer from being taken
MAX_LAST_LINE = 300
MAX_NAMES = 200
LOOKED_AT = 5_000  # characters of an error's message


def as_cut(entries: Iterable[Entry], *, can_read: bool = False) -> Sequence[Entry]:
    """`entries` as the last cut among them has the model see them; all of them without one.

    With `can_read` the model has been told of `read_output`: the lines say how to call it. What
    comes after the cut changes nothing of what is shown for the entries before it.
    """
    own = without_user_cells(entries)
    at = next((at for at in range(len(own) - 1, -1, -1) if isinstance(own[at], Cut)), None)
    if at is None:
        return own
    cut = own[at]
    assert isinstance(cut, Cut)
    shown = [
        _shortened(entry, task, step, can_read=can_read)
        if isinstance(entry, Step) and place < cut.shortened
        else entry
        for place, (entry, task, step) in enumerate(_numbered(own[:at]))
        if place >= cut.summarised
    ]
    return [*_in_place(own[:at], cut), *shown, *own[at + 1 :]]


def without_user_cells(entries: Iterable[Entry]) -> list[Entry]:
    """The entries as a cut counts them."""
    return [entry for entry in entries if not isinstance(entry, UserCell)]


def _in_place(before: Sequence[Entry], cut: Cut) -> Iterator[Entry]:
    """What stands for the summarised ones of the entries `before` the cut."""
    places = [place for place, entry in enumerate(before) if isinstance(entry, Task)]
    if places and places[-1] < cut.summarised:
        yield before[places[-1]]
    if cut.summary:
        yield Note(cut.summary)


def _numbered(entries: Iterable[Entry]) -> Iterator[tuple[Entry, int, int]]:
    """Each entry with the numbers of its task and of its step in the task, from 1."""
    task = step = 0
    for entry in entries:
        if isinstance(entry, Task):
            task, step = task + 1, 0
        step += isinstance(entry, Step)
        yield entry, max(task, 1), step


def _shortened(step: Step, task: int, number: int, *, can_read: bool) -> Step:
    """`step` with a line as its observation and its notices, unless it is as short already."""
    seen = step.observation
    if seen is None:
        return step
    if step.result is None:
        line = _head(seen.text.removesuffix(seen.notices).rstrip(), MAX_REASON)
    else:
        line = _line(step, step.result, seen, task, number, can_read=can_read)
    text = f"{line}\n{seen.notices}" if seen.notices else line
    if len(text) >= len(seen.text) and not seen.images:
        return step
    return replace(step, observation=Observation(text, notices=seen.notices))


def _line(
    step: Step, result: CellResult, seen: Observation, task: int, number: int, *, can_read: bool
) -> str:
    shown = f"{len(seen.text):,} characters"
    if count := len(seen.images):
        shown += f" and {count} image{'s' * (count > 1)}"
    parts = [f"step {number}: {shown} were shown here."]
    if can_read:
        # The task is named, for steps are counted anew with each.
        parts.append(f"read_output({number}, task={task}) returns the output.")
    errors = [output for output in result.outputs if output["output_type"] == "error"]
    if errors:
        parts.append(_head(_error(errors[-1]), MAX_LAST_LINE))
    if result.reason:
        parts.append(_head(_one_line(result.reason), MAX_LAST_LINE))
    if step.refused and not seen.notices:
        parts.append(f"Refused: {_head(_one_line(step.refused), MAX_REASON)}")
    if result.variables:
        parts.append(f"Variables: {_head(', '.join(map(_one_line, result.variables)), MAX_NAMES)}")
    return f"[{' '.join(parts)}]"


def _error(output: Output) -> str:
    """The name of an error and the last line of what it says."""
    said = plain_text(str(output.get("evalue") or "")[-LOOKED_AT:])
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"{output.get('ename')}: {lines[-1]}" if lines else str(output.get("ename"))


def _one_line(text: str) -> str:
    return " ".join(plain_text(text).split())


def _head(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 2] + " …"
