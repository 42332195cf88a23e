"""When a task is over: what its last reply was, and how it ended."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence

from kernel_agent.looping import Repeats
from kernel_agent.reply import Answer, RunCode, Unusable, read_reply
from kernel_agent.steps import (
    Entry,
    Limit,
    Note,
    Observation,
    Outcome,
    Plan,
    Reply,
    Step,
)
from kernel_agent.syntax import parse


def is_answer(steps: Sequence[Step]) -> bool:
    """Whether a reply without code after `steps` of a task is its answer.

    It is once code has run, or if such a reply was asked about just before; what was refused since
    does not count.
    """
    has_run = any(step.result for step in steps)
    last = next((step for step in reversed(steps) if not step.refused), None)
    was_asked = last is not None and last.result is None and bool(last.thought)
    return has_run or was_asked


def closing_step(reply: Reply, *, language: str, tools: Collection[str] = ()) -> Step:
    """The last reply, which a limit asked for: its text is the answer, its code is not run.

    Where it has no text but code, the answer is what that gives to `final_answer` word for word.
    `tools` are the names that it may call.
    """
    match read_reply(reply, language=language, tools=tools):
        case RunCode(thought, source, said):
            return Step(reply, said, thought or _written_answer(source))
        case Answer(text, said):
            return Step(reply, said, text)
        case Unusable(_, said):
            return Step(reply, said)


def _written_answer(source: str) -> str:
    """The text that code ends with as `final_answer("…")`; empty if it does not."""
    tree = parse(source)
    match tree.body if tree else []:
        case [*_, ast.Expr(ast.Call(ast.Name("final_answer"), [ast.Constant(str() as text)], []))]:
            return text.strip()
    return ""


def last_told(entries: Sequence[Entry]) -> str:
    """What the last of the `entries` of a task has told the model; empty if it told nothing."""
    match entries[-1] if entries else None:
        case Step(observation=Observation(text=text)) | Note(text=text) | Plan(told=text):
            return text
    return ""


def outcome_of(
    step: Step, limit: Limit | None, *, death_ends: bool, loop: Repeats | None = None
) -> Outcome | None:
    """How the task ends with `step`, or None if it goes on.

    `limit` is the one that was reached before; `death_ends` whether a dead kernel ends the run;
    `loop` is how the step repeats others, which ends it if the model was told before.
    """
    if limit is not None:
        is_answered = step.thought.strip() and not step.refused
        return Outcome("answered" if is_answered else "limit", limit)
    if step.observation is None:
        return Outcome("answered")
    if step.result and step.result.status == "died" and death_ends:
        return Outcome("failed", reason=step.result.reason)
    is_over = step.result and step.result.status == "ok" and step.result.answer
    if is_over and not step.refused:
        return Outcome("answered")
    if loop and loop.was_told:
        return Outcome("failed", reason=loop.reason)
    return None
