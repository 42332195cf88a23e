"""Gives a kernel the state of a run: after a death within the run, and when one is resumed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from kernel_agent.kernel import Kernel
from kernel_agent.observation import observe
from kernel_agent.repeating import Ask, OnDeath, Plan, RecordedCell, Repeated, plan_state, repeat
from kernel_agent.steps import CellResult, Entry, Step, Task, UserCell

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


@dataclass(frozen=True)
class Rebuilt:
    """What a kernel holds again.

    `back` and `lost` are names of variables that had been there; `differing` are the names of the
    cells (`"step 3"`) whose outputs are not what they were. `reason` says
    why cells were not run again, or not all of them; it is empty if they were.
    """

    back: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    reason: str = ""


def rebuild(
    kernel: Kernel, entries: Sequence[Entry], *, policy: OnDeath, max_seconds: float
) -> Rebuilt:
    """Restart `kernel`, which a cell has ended, and give it back what it held.

    The last of `entries` is the step of that cell. The setup of every task is executed again, and
    under the policy `"rebuild"` every cell that had succeeded, if they took no more than
    `max_seconds` together. What a cell left that failed or was interrupted is lost.

    Raises KernelStartError if the kernel does not start again.
    """
    plan = plan_state(entries)
    seconds = sum(item.result.seconds for item in plan if isinstance(item, RecordedCell))
    reason = ""
    if policy != "rebuild":
        reason = "The earlier cells were not run again."
    elif seconds > max_seconds:
        reason = f"The earlier cells were not run again, since they had taken {seconds:.0f} s."
    kernel.restart()
    if reason:
        _drain(repeat(kernel, _setups(plan)))
        return _rebuilt(kernel, entries, reason=reason)
    return restore(kernel, entries, plan=plan)


def restore(
    kernel: Kernel,
    entries: Sequence[Entry],
    *,
    plan: Plan,
    ask: Ask | None = None,
    tell: Callable[[Repeated], None] = lambda repeated: None,
) -> Rebuilt:
    """Execute `plan` (see `plan_state`) in a fresh `kernel`, until a cell fails to end.

    `tell` gets every cell. Raises KernelStartError if a cell ends the kernel and it does not start
    again.
    """
    differing: list[str] = []
    for repeated in repeat(kernel, plan, ask=ask):
        tell(repeated)
        name, was, now = repeated.cell.spoken, repeated.cell.result, repeated.result
        failed = f"{name.capitalize()} could not be run again: {now.reason}"
        if now.status == "died":
            kernel.restart()
            _drain(repeat(kernel, _setups(plan)))
            return _rebuilt(kernel, entries, reason=failed)
        if now.status == "interrupted" and not was.stopped_by:
            return _rebuilt(kernel, entries, differing, failed)
        if not was.stopped_by and not same_outputs(was, now):
            differing.append(name)
    return _rebuilt(kernel, entries, differing)


def same_outputs(one: CellResult, other: CellResult) -> bool:
    """Whether two results show the same, but for addresses in memory."""
    return _shown(one) == _shown(other)


def _shown(result: CellResult) -> str:
    bare = replace(result, variables={}, reason="")
    return f"{bare.status} {_ADDRESS.sub('0x', observe(bare).text)}"


def _rebuilt(
    kernel: Kernel, entries: Iterable[Entry], differing: Sequence[str] = (), reason: str = ""
) -> Rebuilt:
    had = dict.fromkeys(name for entry in entries for name in _variables(entry))
    there = set(kernel.report("names()") or ())
    return Rebuilt(
        back=tuple(name for name in had if name in there),
        lost=tuple(name for name in had if name not in there),
        differing=tuple(differing),
        reason=reason,
    )


def _variables(entry: Entry) -> Iterable[str]:
    match entry:
        case Step(result=CellResult() as result) | UserCell(result=result):
            return result.variables
    return ()


def _setups(plan: Plan) -> list[Task | RecordedCell]:
    return [item for item in plan if isinstance(item, Task)]


def _drain(repeated: Iterable[Repeated]) -> None:
    for _ in repeated:
        pass
