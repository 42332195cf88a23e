"""A built-in tool: pages through the whole output of an earlier step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kernel_agent.observation import output_text
from kernel_agent.steps import Entry, Step, Task
from kernel_agent.tools.tool import Tool, as_tool

READER = "read_output"
"""Its name. It is always there, and the system prompt has a line for it."""

PAGE = 20_000
"""Most characters of an output that one call gives."""


def output_reader(entries: Callable[[], Sequence[Entry]]) -> Tool:
    """The tool `read_output` over the steps in `entries()`, counted from 1 in each task."""

    def read_output(
        step: int, start: int = 0, end: int | None = None, task: int | None = None
    ) -> str:
        """Read what an earlier step's cell has put out, also what was left out when it was shown.

        Args:
            step: number of the step, as in "[step 3 of 20]"
            start: first character, from 0
            end: character to stop before, at most 20,000 after start; None: as many as that
            task: number of the user's task that the step belongs to, from 1; None: the last one

        Returns:
            The text; if there is more, a last line in brackets says how long the whole is.
        """
        text = whole_output(steps_of(entries(), task), step)
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"start is {start} and end is {end}. They must be 0 ≤ start ≤ end.")
        if start > len(text):
            raise ValueError(f"start is {start}, but step {step} put out {len(text)} characters.")
        stop = min(len(text), start + PAGE, len(text) if end is None else end)
        more = f"\n[characters {start} to {stop} of {len(text)}]" if stop < len(text) else ""
        return text[start:stop] + more

    return as_tool(read_output)


def steps_of(entries: Sequence[Entry], task: int | None) -> Sequence[Step]:
    """The steps of a task, None for the last one. Raises ValueError if there is no such task."""
    places = [place for place, entry in enumerate(entries) if isinstance(entry, Task)] or [0]
    number = len(places) if task is None else task
    if not 1 <= number <= len(places):
        raise ValueError(f"There is no task {number}. There are tasks 1 to {len(places)}.")
    end = places[number] if number < len(places) else len(entries)
    return [entry for entry in entries[places[number - 1] : end] if isinstance(entry, Step)]


def whole_output(steps: Sequence[Step], number: int) -> str:
    """All that the cell of step `number` (from 1) has put out, as text.

    Raises ValueError if there is no such step, or it ran no code.
    """
    if not 1 <= number <= len(steps):
        known = f"There are steps 1 to {len(steps)}." if steps else "No step is over yet."
        raise ValueError(f"There is no step {number} to read from. {known}")
    result = steps[number - 1].result
    if result is None:
        raise ValueError(f"Step {number} ran no code, so it put out nothing.")
    texts = [output_text(output).rstrip("\n") for output in result.outputs]
    return "\n".join(text for text in texts if text)
