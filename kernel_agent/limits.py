"""How much a run may take, and when it has taken it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kernel_agent.errors import SettingsError
from kernel_agent.estimates import Ahead, mean_seconds, replies_of
from kernel_agent.steps import Cut, Entry, Limit, Outcome, Plan, Step, Usage

SMALLEST = 0.000001
"""The least that can be left of a budget, in USD: a limit must be above 0."""


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
        if not replies_of(entries):
            return None
        used = used_by(entries)
        coming = (ahead.request(entries), ahead.closing(entries)) if ahead else ()
        if self.max_cost is not None:
            cost = sum(ahead.price(one) or 0.0 for one in coming) if ahead else 0.0
            if _is_passed(self.max_cost, used.cost or 0.0, cost):
                return "max_cost"
        tokens = sum(one.tokens for one in coming)
        if self.max_tokens is not None and _is_passed(self.max_tokens, used.tokens, tokens):
            return "max_tokens"
        if self.max_seconds is not None:
            seconds = used.model_seconds + used.kernel_seconds
            if _is_passed(self.max_seconds, seconds, sum(one.model_seconds for one in coming)):
                return "max_seconds"
        return None

    def steps_left(self, entries: Iterable[Entry], ahead: Ahead) -> int | None:
        """For about how many more steps cost, tokens and time suffice, the closing reply kept.

        None where they suffice for all that `max_steps` allows, or nothing tells.
        """
        entries = tuple(entries)
        if not replies_of(entries):
            return None
        used, request, closing = used_by(entries), ahead.request(entries), ahead.closing(entries)
        price = ahead.price
        budgets = [
            (self.max_cost, used.cost or 0.0, price(request) or 0.0, price(closing) or 0.0),
            (self.max_tokens, used.tokens, request.tokens, closing.tokens),
            (
                self.max_seconds,
                used.model_seconds + used.kernel_seconds,
                request.model_seconds,
                closing.model_seconds,
            ),
        ]
        left = [
            int((limit - spent - last) / each)
            for limit, spent, each, last in budgets
            if limit is not None and each > 0
        ]
        steps = self.max_steps - sum(isinstance(entry, Step) for entry in entries)
        return max(fewest, 0) if left and (fewest := min(left)) < steps else None

    def exhausted(self, entries: Iterable[Entry], ahead: Ahead) -> Outcome | None:
        """How the task ends if not even the next request may be made; None if it may.

        The first request is not made if it alone would pass `max_cost` or `max_tokens`. A closing
        one is not made once they are used up; if they are not, but a reply took more than was
        expected and so what was kept for the closing one, it is made, for an answer is worth more
        than the rest of a budget.
        """
        entries = tuple(entries)
        used, replies = used_by(entries), len(replies_of(entries))
        limits: dict[Limit, tuple[float | None, float, Callable[[Usage], float | None]]] = {
            "max_cost": (self.max_cost, used.cost or 0.0, ahead.price),
            "max_tokens": (self.max_tokens, used.tokens, lambda request: request.tokens),
        }
        for name, (limit, spent, size) in limits.items():
            needed = None if limit is None else size(ahead.request(entries))
            if limit is None or needed is None or spent + needed <= limit:
                continue
            # Before the second reply nothing was kept for the closing request.
            if replies < 2 or spent >= limit:
                return _unasked(name, needed, max(limit - spent, 0.0))
        return None

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

    def about(self) -> dict[str, Any]:
        """The limits that are set, for the transcript."""
        return {name: value for name, value in asdict(self).items() if value is not None}


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
