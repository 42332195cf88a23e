"""How much a run may take, and when it has taken it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any

from kernel_agent.errors import SettingsError
from kernel_agent.estimates import Ahead, mean_seconds, replies_of
from kernel_agent.steps import Cut, Entry, Limit, Outcome, Plan, Step, Usage

SMALLEST = 0.000001
"""The least that can be left of a budget, in USD: a limit must be above 0."""


@dataclass(frozen=True)
class Scarcity:
    """That what is left until the limit `name` suffices for about so many more `steps` alone."""

    name: Limit
    steps: int


@dataclass(frozen=True)
class _Budget:
    """A limit, what was spent of it, and the size of a request in its unit."""

    name: Limit
    limit: float
    spent: float
    size: Callable[[Usage], float]

    @property
    def left(self) -> float:
        return self.limit - self.spent


@dataclass(frozen=True)
class Limits:
    """What one task may take; `None` means no limit.

    `max_cost` is in USD, `max_tokens` counts prompt and completion tokens, `max_seconds` is the
    time of model and kernel together; `cell_timeout` is in seconds, for one cell.

    A task is over while what is left still pays for one more request, the closing one, which asks
    for the best answer. So what is told as used stays within `max_cost` and `max_tokens` as long
    as no reply takes more than was expected. Where the price is not known, only what was used
    counts for `max_cost`.

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

    def reached(self, entries: Iterable[Entry], ahead: Ahead | None = None) -> Limit | None:
        """The limit that the `entries` of a task have reached, if any.

        It is reached when another step and the closing request after it would pass it, by what
        `ahead` expects; without `ahead` only what was used counts. Plans and summaries are no
        steps, but have their tokens and their cost.
        """
        entries = tuple(entries)
        if sum(isinstance(entry, Step) for entry in entries) >= self.max_steps:
            return "max_steps"
        budgets = self._budgets(entries, ahead)
        if not budgets or not replies_of(entries):
            return None
        coming = (ahead.request(entries), ahead.closing(entries)) if ahead else ()
        for budget in budgets:
            if _is_passed(budget.limit, budget.spent, sum(budget.size(one) for one in coming)):
                return budget.name
        return None

    def scarcity(self, entries: Iterable[Entry], ahead: Ahead) -> Scarcity | None:
        """For about how many more steps cost, tokens and time suffice, the closing reply kept.

        None where they suffice for all that `max_steps` allows, or nothing tells.
        """
        entries = tuple(entries)
        budgets = self._budgets(entries, ahead)
        if not budgets or not replies_of(entries):
            return None
        most = self.max_steps - sum(isinstance(entry, Step) for entry in entries)
        coming = ahead.requests(entries, most + 1)
        found = [
            Scarcity(budget.name, steps)
            for budget in budgets
            if (steps := _fitting(budget.left, map(budget.size, coming)) - 1) < most
        ]
        return min(found, key=lambda one: one.steps, default=None)

    def exhausted(self, entries: Iterable[Entry], ahead: Ahead) -> Outcome | None:
        """How the task ends if not even the next request may be made; None if it may.

        The first request is not made if it alone would pass `max_cost` or `max_tokens`. A closing
        one is not made once they are used up; if they are not, but a reply took more than was
        expected and so what was kept for the closing one, it is made, for an answer is worth more
        than the rest of a budget.
        """
        entries = tuple(entries)
        budgets = self._budgets(entries, ahead)
        if not budgets:
            return None
        replies, request = len(replies_of(entries)), ahead.request(entries)
        for budget in budgets:
            needed = budget.size(request)
            if budget.name == "max_seconds" or budget.spent + needed <= budget.limit:
                continue
            # An unknown price is 0: then the closing request is made. Before the second reply
            # nothing was kept for it.
            is_known = budget.name == "max_tokens" or ahead.price(request) is not None
            if is_known and (replies < 2 or budget.spent >= budget.limit):
                return _unasked(budget.name, needed, max(budget.left, 0.0))
        return None

    def _budgets(self, entries: Sequence[Entry], ahead: Ahead | None) -> list[_Budget]:
        """Those that are limited; where the price is not known, requests cost nothing."""
        if self.max_cost is self.max_tokens is self.max_seconds is None:
            return []
        used = used_by(entries)
        seconds = used.model_seconds + used.kernel_seconds

        def cost(request: Usage) -> float:
            return (ahead.price(request) if ahead else None) or 0.0

        budgets = (
            _Budget("max_cost", self.max_cost or 0.0, used.cost or 0.0, cost),
            _Budget("max_tokens", self.max_tokens or 0, used.tokens, lambda one: one.tokens),
            _Budget("max_seconds", self.max_seconds or 0.0, seconds, lambda one: one.model_seconds),
        )
        return [budget for budget in budgets if budget.limit]

    def cell_seconds(self, entries: Iterable[Entry], *, at_least: float = 0.0) -> float:
        """How long the next cell may run, in seconds: `at_least` so long if there is time left.

        Time for one more reply, the closing one, is kept.
        """
        entries = tuple(entries)
        timeout = max(self.cell_timeout, at_least)
        return min(timeout, max(0.1, self.seconds_left(entries) - mean_seconds(entries)))

    def seconds_left(self, entries: Iterable[Entry]) -> float:
        if self.max_seconds is None:
            return float("inf")
        used = used_by(entries)
        return self.max_seconds - used.model_seconds - used.kernel_seconds

    def cost_left(self, entries: Sequence[Entry], ahead: Ahead) -> float | None:
        """What others may cost in USD while the last step's cell runs; None without `max_cost`.

        What the next request costs is kept.
        """
        if self.max_cost is None:
            return None
        kept = ahead.price(ahead.request(entries)) or 0.0
        return max(self.max_cost - (used_by(entries).cost or 0.0) - kept, SMALLEST)

    def told(self) -> str:
        """What the model is told of cost, tokens and time; empty if none of them is limited."""
        words = [
            f"${self.max_cost:g}" if self.max_cost is not None else "",
            f"{self.max_tokens:,} tokens (each request counts all that was said before it)"
            if self.max_tokens is not None
            else "",
            f"{self.max_seconds:g} seconds" if self.max_seconds is not None else "",
        ]
        return " and ".join(filter(None, words))

    def about(self) -> dict[str, Any]:
        """The limits that are set, for the transcript."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _fitting(left: float, sizes: Iterable[float]) -> int:
    """How many of the `sizes`, from the first on, fit into what is `left`."""
    return sum(total <= left for total in accumulate(sizes))


def used_by(entries: Iterable[Entry]) -> Usage:
    """What the `entries` have used in all. An unknown cost is no cost, and hides no other."""
    usage, cost = Usage(), 0.0
    for entry in entries:
        if isinstance(entry, Step | Plan | Cut):
            usage += entry.usage
            cost += sum(known or 0.0 for known in _costs(entry))
    return replace(usage, cost=cost)


def _costs(entry: Step | Plan | Cut) -> list[float | None]:
    costs = [entry.reply.usage.cost] if entry.reply else []
    if isinstance(entry, Step) and entry.result:
        costs += [call.usage.cost for call in entry.result.tool_calls]
    return costs


def _is_passed(limit: float, used: float, coming: float) -> bool:
    return used >= limit or used + coming > limit


def _unasked(limit: Limit, needed: float, left: float) -> Outcome:
    if limit == "max_cost":
        why = f"would cost about ${needed:.4f}, and ${left:.4f} of max_cost is left"
    else:
        why = f"would take about {needed:,.0f} tokens, and {left:,.0f} of max_tokens are left"
    return Outcome("limit", limit, f"the next request {why}")
