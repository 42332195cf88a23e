"""How much a run may take, and when it has taken it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

from kernel_agent.errors import SettingsError
from kernel_agent.steps import Entry, Limit, Plan, Step, Usage


@dataclass(frozen=True)
class Limits:
    """What one task may take; `None` means no limit.

    `max_cost` is in USD, `max_tokens` counts prompt and completion tokens, `max_seconds` is the
    time of model and kernel together; `cell_timeout` is in seconds, for one cell.

    Raises SettingsError for a value that is not above 0.
    """

    max_steps: int = 20
    max_cost: float | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    cell_timeout: float = 120.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None and name not in ("max_steps", "cell_timeout"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise SettingsError(f"{name} is {value!r}, but must be a number above 0.")

    def reached(self, entries: Iterable[Entry]) -> Limit | None:
        """The limit that the `entries` of a task have reached, if any.

        A plan is no step, but has its tokens and its cost. An unknown cost is no cost.
        """
        entries = tuple(entries)
        usage = _used(entries)
        if sum(isinstance(entry, Step) for entry in entries) >= self.max_steps:
            return "max_steps"
        if self.max_cost is not None and (usage.cost or 0.0) >= self.max_cost:
            return "max_cost"
        if self.max_tokens is not None and usage.tokens >= self.max_tokens:
            return "max_tokens"
        if self.max_seconds is not None and self.seconds_left(entries) <= 0:
            return "max_seconds"
        return None

    def cell_seconds(self, entries: Iterable[Entry], *, at_least: float = 0.0) -> float:
        """How long the next cell may run, in seconds: `at_least` so long if there is time left."""
        timeout = max(self.cell_timeout, at_least)
        return min(timeout, max(0.1, self.seconds_left(entries)))

    def seconds_left(self, entries: Iterable[Entry]) -> float:
        if self.max_seconds is None:
            return float("inf")
        used = _used(entries)
        return self.max_seconds - used.model_seconds - used.kernel_seconds

    def about(self) -> dict[str, Any]:
        """The limits that are set, for the transcript."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _used(entries: Iterable[Entry]) -> Usage:
    used = (entry.usage for entry in entries if isinstance(entry, Step | Plan))
    return reduce(add, used, Usage())
