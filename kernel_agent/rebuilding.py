"""Gives a kernel the state of a run: after a death within the run, and when one is resumed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from kernel_agent.kernel import Kernel
from kernel_agent.observation import observe
from kernel_agent.repeating import (
    Ask,
    Calls,
    OnDeath,
    Plan,
    RecordedCell,
    Repeated,
    plan_all,
    plan_rebuild,
    repeat,
)
from kernel_agent.steps import CellResult, Entry, Rebuilt, Task

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


def rebuild(
    kernel: Kernel,
    entries: Sequence[Entry],
    *,
    policy: OnDeath,
    max_seconds: float,
    calls: Calls | None = None,
) -> Rebuilt:
    """Restart `kernel`, which a cell has ended, and give it back what it held.

    The last of `entries` is the step of that cell. For `policy` and `max_seconds` see
    `plan_rebuild`. What a cell left that failed or was interrupted is lost.

    Raises KernelStartError if the kernel does not start again.
    """
    plan, reason = plan_rebuild(plan_all(entries), on_death=policy, max_seconds=max_seconds)
    kernel.restart()
    return restore(kernel, plan, had=left_out(entries, plan), reason=reason, calls=calls)


def restore(
    kernel: Kernel,
    plan: Plan,
    *,
    had: Iterable[str],
    reason: str = "",
    calls: Calls | None = None,
    ask: Ask | None = None,
    tell: Callable[[Repeated], bool] = lambda repeated: True,
) -> Rebuilt:
    """Execute `plan` (see `plan_state`) in a fresh `kernel`, to the end or until it cannot be.

    `had` are names of variables that were there and that `plan` does not make. `calls` answers the
    calls of tools. `tell` gets every cell, and says whether to go on. `reason` says why `plan` is
    not all of it.

    Raises KernelStartError if a cell ends the kernel and it does not start again.
    """
    differing: list[str] = []
    lost = dict.fromkeys(had)
    back: dict[str, None] = {}
    for repeated in repeat(kernel, plan, calls=calls, ask=ask):
        was, now = repeated.cell.result, repeated.result
        back |= dict.fromkeys(was.variables)
        lost |= dict.fromkeys(name for name in was.variables if name not in now.variables)
        goes_on = tell(repeated)
        if now.status == "died":
            kernel.restart()
            for _ in repeat(kernel, _setups(plan)):
                pass
        if now.status == "died" or (now.status == "interrupted" and not was.stopped_by):
            name = repeated.cell.spoken.capitalize()
            reason = f"{name} could not be run again: {now.reason}"
            lost |= back | dict.fromkeys(_variables(plan))
            break
        if not was.stopped_by and not same_outputs(was, now):
            differing.append(repeated.cell.spoken)
        if not goes_on:
            break
    there = set(kernel.report("names()") or ())
    return Rebuilt(
        back=tuple(name for name in back if name in there),
        lost=tuple(name for name in lost if name not in there),
        differing=tuple(differing),
        reason=reason,
    )


def left_out(entries: Iterable[Entry], plan: Plan) -> Iterable[str]:
    """The names of the variables that cells made which are not in `plan`."""
    planned = {item.name for item in plan if isinstance(item, RecordedCell)}
    cells = [item for item in plan_all(entries) if isinstance(item, RecordedCell)]
    return (name for cell in cells if cell.name not in planned for name in cell.result.variables)


def same_outputs(one: CellResult, other: CellResult) -> bool:
    """Whether two results show the same, but for addresses in memory."""
    return _shown(one) == _shown(other)


def _shown(result: CellResult) -> str:
    bare = replace(result, variables={}, reason="")
    return f"{bare.status} {_ADDRESS.sub('0x', observe(bare).text)}"


def _variables(plan: Plan) -> Iterable[str]:
    cells = (item for item in plan if isinstance(item, RecordedCell))
    return (name for cell in cells for name in cell.result.variables)


def _setups(plan: Plan) -> list[Task | RecordedCell]:
    return [item for item in plan if isinstance(item, Task)]
