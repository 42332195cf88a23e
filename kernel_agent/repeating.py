"""Executes recorded cells again, in order: to replay a run, or to get its state back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kernel_agent.kernel import Kernel
from kernel_agent.steps import CellResult, Entry, Step, Task, UserCell

OnDeath = Literal["rebuild", "restart", "stop"]
"""What is done when a cell has ended the kernel: `"stop"` ends the run."""

Ask = Callable[[str, bool], str]
"""Answers a cell's `input()` and `getpass()`: gets the prompt, and whether it is for a password."""

LONGER = 10.0  # how many times its recorded seconds a cell may take when it is executed again
SPARE_SECONDS = 60.0  # and this on top: machines differ
SHORTEST = 0.5  # seconds that a cell is given which was stopped at the time


@dataclass(frozen=True)
class RecordedCell:
    """A code cell of a transcript that has been executed.

    `name` is `"step-3"`, or the id of a cell that the user wrote; `step` is the number (from 1)
    of its step, None for a user's cell.
    """

    name: str
    step: int | None
    result: CellResult

    @property
    def spoken(self) -> str:
        """The name in a sentence: `"step 3"`, `"cell a1b2"`."""
        return f"step {self.step}" if self.step else f"cell {self.name}"


@dataclass(frozen=True)
class Repeated:
    """A recorded cell and what it did when it was executed again."""

    cell: RecordedCell
    result: CellResult


Plan = Sequence[Task | RecordedCell]
"""What is to be executed, in order: the setups of tasks, and cells."""


def plan_all(entries: Iterable[Entry]) -> list[Task | RecordedCell]:
    """Every setup and every cell of `entries` that has been executed."""
    plan: list[Task | RecordedCell] = []
    number = 0
    for entry in entries:
        number += isinstance(entry, Step)
        match entry:
            case Task(setup=setup) if setup:
                plan.append(entry)
            case Step(result=CellResult() as result):
                plan.append(RecordedCell(f"step-{number}", number, result))
            case UserCell(name, result) if result.execution_count is not None:
                plan.append(RecordedCell(name, None, result))
    return plan


def plan_state(entries: Iterable[Entry]) -> list[Task | RecordedCell]:
    """What gives a fresh kernel the state that the run's kernel had after `entries`.

    After a cell that killed it the run's kernel was given back the cells that had succeeded until
    then, and nothing else; since then every cell counts, also one that failed, for the lines
    before the failing one have had their effect. An interrupted cell counts if it left variables.
    """
    plan = plan_all(entries)
    deaths = [index for index, item in enumerate(plan) if _status(item) == "died"]
    since = deaths[-1] + 1 if deaths else 0
    return [item for item in plan[:since] if _status(item) in ("setup", "ok")] + [
        item for item in plan[since:] if _status(item) != "interrupted" or _left_variables(item)
    ]


def repeat(kernel: Kernel, plan: Plan, *, ask: Ask | None = None) -> Iterator[Repeated]:
    """Execute `plan` in `kernel`; yields each cell when it is over.

    A cell that was stopped at the time runs for as long as it ran then; others may take longer
    than they did, within bounds. A call of `input()` gets the recorded answer, `getpass()` that
    of `ask`. Ends when a cell has ended the kernel, after yielding it.
    """
    for item in plan:
        if isinstance(item, Task):
            kernel.execute(item.setup, counted=False)
            continue
        result = _execute(kernel, item.result, ask)
        yield Repeated(item, result)
        if result.status == "died":
            return


def repeat_all(
    kernel: Kernel, entries: Sequence[Entry], *, on_death: OnDeath, ask: Ask | None = None
) -> Iterator[Repeated]:
    """Execute every cell of `entries`, also those that failed at the time or killed the kernel.

    When the kernel dies it is given back what the run gave it, so that the next cells find it.

    Raises KernelStartError if it does not start again.
    """
    plan = plan_all(entries)
    begin = 0
    while begin < len(plan):
        done = begin
        for repeated in repeat(kernel, plan[begin:], ask=ask):
            done = plan.index(repeated.cell, done) + 1
            yield repeated
        if done == begin or kernel.is_alive:
            return
        kernel.restart()
        back = [
            item
            for item in plan[: done - 1]
            if _status(item) == "setup" or (_status(item) == "ok" and on_death == "rebuild")
        ]
        if any(repeated.result.status == "died" for repeated in repeat(kernel, back, ask=ask)):
            kernel.restart()
        begin = done


def _status(item: Task | RecordedCell) -> str:
    return "setup" if isinstance(item, Task) else item.result.status


def _left_variables(item: Task | RecordedCell) -> bool:
    return isinstance(item, RecordedCell) and bool(item.result.variables)


def _execute(kernel: Kernel, recorded: CellResult, ask: Ask | None) -> CellResult:
    timeout = recorded.seconds * LONGER + SPARE_SECONDS
    if recorded.stopped_by:
        timeout = max(SHORTEST, recorded.seconds)
    answers = iter(recorded.inputs)

    def answer(prompt: str, is_password: bool) -> str:
        known = next(answers, None)
        if known is not None:
            return known
        return ask(prompt, is_password) if ask else ""

    return kernel.execute(recorded.source, timeout=timeout, ask=answer if recorded.inputs else None)
