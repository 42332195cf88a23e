"""Brings a dead kernel back: restarted, and its state rebuilt where that is quick enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kernel_agent.kernel import Kernel
from kernel_agent.observation import observe
from kernel_agent.steps import CellResult, Step, Task

OnDeath = Literal["rebuild", "restart", "stop"]
"""What is done when the kernel dies: `"stop"` ends the run."""

LONGER = 3.0  # how many times its recorded seconds a cell may take when it is run again
SPARE_SECONDS = 5.0  # and this on top

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


@dataclass(frozen=True)
class Rebuilt:
    """What a restarted kernel holds again.

    `back` and `lost` are names of variables that had been there; `differing` are the numbers (from
    1) of the steps whose outputs are not what they were. `reason` says why cells were not run
    again, or not all of them; it is empty if they were.
    """

    back: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    differing: tuple[int, ...] = ()
    reason: str = ""


def rebuild(
    kernel: Kernel, entries: Sequence[Task | Step], *, policy: OnDeath, max_seconds: float
) -> Rebuilt:
    """Restart `kernel` and give it back what it held after `entries`.

    The setup of every task is executed again, and under the policy `"rebuild"` every cell that had
    succeeded, in order, if they took no more than `max_seconds` together. A cell that was
    interrupted, failed or killed the kernel is not run again, so what it left is lost.

    Raises KernelStartError if the kernel does not start again.
    """
    results = [entry.result for entry in entries if isinstance(entry, Step) and entry.result]
    seconds = sum(result.seconds for result in results if result.status == "ok")
    reason = ""
    if policy != "rebuild":
        reason = "The earlier cells were not run again."
    elif seconds > max_seconds:
        reason = f"The earlier cells were not run again, since they had taken {seconds:.0f} s."
    differing: list[int] = []
    _restart(kernel, entries)
    for number, step in enumerate((e for e in entries if isinstance(e, Step)), 1):
        if reason or step.result is None or step.result.status != "ok":
            continue
        again = _repeat(kernel, step.result)
        if again.status == "died":
            _restart(kernel, entries)
            differing.clear()
        if again.status in ("died", "interrupted"):
            reason = f"Step {number} could not be run again: {again.reason}"
        elif not same_outputs(step.result, again):
            differing.append(number)
    had = dict.fromkeys(name for result in results for name in result.variables)
    there = set(kernel.report("names()") or ())
    return Rebuilt(
        back=tuple(name for name in had if name in there),
        lost=tuple(name for name in had if name not in there),
        differing=tuple(differing),
        reason=reason,
    )


def same_outputs(one: CellResult, other: CellResult) -> bool:
    """Whether two results show the same, but for addresses in memory."""
    return _shown(one) == _shown(other)


def _shown(result: CellResult) -> str:
    bare = replace(result, variables={}, reason="")
    return f"{bare.status} {_ADDRESS.sub('0x', observe(bare).text)}"


def _restart(kernel: Kernel, entries: Sequence[Task | Step]) -> None:
    """Restart, and give the kernel what it was given with the tasks."""
    kernel.restart()
    for entry in entries:
        if isinstance(entry, Task) and entry.setup:
            kernel.execute(entry.setup, counted=False)


def _repeat(kernel: Kernel, result: CellResult) -> CellResult:
    return kernel.execute(result.source, timeout=result.seconds * LONGER + SPARE_SECONDS)
