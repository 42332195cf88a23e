"""Executes recorded cells again, in order: to replay a run, or to get its state back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kernel_agent.errors import DataError
from kernel_agent.kernel import Kernel
from kernel_agent.kernel.serving import Serve
from kernel_agent.observation import observe
from kernel_agent.steps import CellResult, Entry, Step, Task, UserCell

OnDeath = Literal["rebuild", "restart", "stop"]
"""What is done when a cell has ended the kernel: `"stop"` ends the run."""

Ask = Callable[[str, bool], str]
"""Answers a cell's `input()` and `getpass()`: gets the prompt, and whether it is for a password."""


class Calls(Protocol):
    """Answers the calls of tools that a cell makes: from the record, or anew."""

    def serve_for(self, cell: str, *, folder: Path | None) -> Serve:
        """What answers the calls of one execution of `cell`; large values lie in `folder`."""


LONGER = 10.0  # how many times its recorded seconds a cell may take when it is executed again
SPARE_SECONDS = 60.0  # and this on top: machines differ
SHORTEST = 0.5  # seconds that a cell is given which was stopped at the time


@dataclass(frozen=True)
class RecordedCell:
    """A code cell of a transcript; one that the user wrote may never have been executed.

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
    """Every setup and every cell of `entries`.

    A cell that ended with the run's process is left out: the kernel of the resumed run has nothing
    of what it did.
    """
    plan: list[Task | RecordedCell] = []
    number = 0
    for entry in entries:
        number += isinstance(entry, Step)
        match entry:
            case Task(setup=setup) if setup:
                plan.append(entry)
            case Step(result=CellResult(status="interrupted", stopped_by="kill")):
                continue
            case Step(result=CellResult() as result):
                plan.append(RecordedCell(f"step-{number}", number, result))
            case UserCell(name, result) if result.source.strip():
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


def plan_rebuild(
    plan: Plan, *, on_death: OnDeath, max_seconds: float
) -> tuple[list[Task | RecordedCell], str]:
    """What gives a kernel that a cell has ended its state back, and why it is not all.

    `plan` is what was executed until then. The setup of every task is executed again, and under
    the policy `"rebuild"` every cell that had succeeded, if they took no more than `max_seconds`
    together. The second value says in a sentence why they are not; it is empty if they are.
    """
    again = [item for item in plan if _status(item) in ("setup", "ok")]
    seconds = sum(item.result.seconds for item in again if isinstance(item, RecordedCell))
    reason = ""
    if on_death != "rebuild":
        reason = "The earlier cells were not run again."
    elif seconds > max_seconds:
        reason = f"The earlier cells were not run again, since they had taken {seconds:.0f} s."
    return [item for item in again if not reason or isinstance(item, Task)], reason


def repeat(
    kernel: Kernel, plan: Plan, *, calls: Calls | None = None, ask: Ask | None = None
) -> Iterator[Repeated]:
    """Execute `plan` in `kernel`; yields each cell when it is over.

    A cell that was stopped at the time runs for as long as it ran then; others may take longer
    than they did, within bounds. A call of `input()` gets the recorded answer, `getpass()` that
    of `ask`; calls of tools are answered by `calls`. Ends when a cell has ended the kernel, after
    yielding it.

    Raises DataError if variables that were given with a task cannot be given again.
    """
    for item in plan:
        if isinstance(item, Task):
            _set_up(kernel, item)
            continue
        result = _execute(kernel, item, calls, ask)
        yield Repeated(item, result)
        if result.status == "died":
            return


def repeat_all(
    kernel: Kernel,
    entries: Sequence[Entry],
    *,
    on_death: OnDeath,
    rebuild_seconds: float = 60.0,
    calls: Calls | None = None,
    ask: Ask | None = None,
) -> Iterator[Repeated]:
    """Execute every cell of `entries`, also those that failed at the time or killed the kernel.

    When the kernel dies it is given back what the run gave it (see `rebuilding.rebuild`), so that
    the next cells find it.

    Raises DataError, KernelStartError if the kernel does not start again.
    """
    plan = plan_all(entries)
    begin = 0
    while begin < len(plan):
        for repeated in repeat(kernel, plan[begin:], calls=calls, ask=ask):
            begin = plan.index(repeated.cell, begin) + 1
            yield repeated
        if kernel.is_alive or begin == len(plan):
            return
        kernel.restart()
        back, _ = plan_rebuild(plan[: begin - 1], on_death=on_death, max_seconds=rebuild_seconds)
        again = repeat(kernel, back, calls=calls, ask=ask)
        if any(repeated.result.status == "died" for repeated in again):
            kernel.restart()


def _set_up(kernel: Kernel, task: Task) -> None:
    result = kernel.execute(task.setup, counted=False)
    if result.status != "ok":
        said = observe(result, max_chars=1000).text
        raise DataError("of the task", f"the kernel could not read it again:\n{said}")


def _status(item: Task | RecordedCell) -> str:
    return "setup" if isinstance(item, Task) else item.result.status


def _left_variables(item: Task | RecordedCell) -> bool:
    return isinstance(item, RecordedCell) and bool(item.result.variables)


def _execute(
    kernel: Kernel, cell: RecordedCell, calls: Calls | None, ask: Ask | None
) -> CellResult:
    recorded = cell.result
    timeout = recorded.seconds * LONGER + SPARE_SECONDS
    if recorded.stopped_by:
        timeout = max(SHORTEST, recorded.seconds)
    answers = iter(recorded.inputs)

    def answer(prompt: str, is_password: bool) -> str:
        known = next(answers, None)
        if known is not None:
            return known
        return ask(prompt, is_password) if ask else ""

    return kernel.execute(
        recorded.source,
        timeout=timeout,
        ask=answer if recorded.inputs else None,
        serve=calls.serve_for(cell.name, folder=kernel.border_folder) if calls else None,
    )
