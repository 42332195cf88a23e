"""Asks the model for a plan between two steps: when one is due, and what of its reply is one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from kernel_agent.errors import SettingsError
from kernel_agent.reply import Answer, RunCode, Unusable, read_reply
from kernel_agent.steps import Entry, Plan, Reply, Step


def check_plan_every(plan_every: int | None) -> int:
    """`plan_every` as a number, 0 for never. Raises SettingsError for what is none from 0 up."""
    if plan_every is None:
        return 0
    if isinstance(plan_every, bool) or not isinstance(plan_every, int) or plan_every < 0:
        raise SettingsError(f"plan_every is {plan_every!r}, but must be a whole number from 0.")
    return plan_every


def is_due(entries: Sequence[Entry], plan_every: int) -> bool:
    """Whether a plan comes next after the `entries` of a task: at first, and every so many steps.

    0 is never.
    """
    if not plan_every:
        return False
    steps = sum(isinstance(entry, Step) for entry in entries)
    since = takewhile(lambda entry: not isinstance(entry, Step), reversed(entries))
    return steps % plan_every == 0 and not any(isinstance(entry, Plan) for entry in since)


def plan_of(reply: Reply, *, asked: str, language: str) -> Plan:
    """The plan that `reply` is to what was `asked`; code in it does not go back to the model."""
    match read_reply(reply, language=language):
        case RunCode(thought):
            said = thought
        case Answer(text):
            said = text
        case Unusable(_, text):
            said = text
    return Plan(reply, said or NO_PLAN, asked, "")


NO_PLAN = "(no plan)"  # an empty message is one that most APIs refuse
