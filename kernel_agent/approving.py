"""What the caller says to code before it runs, and to an answer before it is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kernel_agent.answer_types import UnfitAnswerError, typed
from kernel_agent.answers import decoded
from kernel_agent.steps import Step
from kernel_agent.telling import described, name_of, warn_of
from kernel_agent.transcript import Transcript


@dataclass(frozen=True)
class Refused:
    """A cell is not run. The model is told so, with the `reason` if there is one."""

    reason: str = ""


Approve = Callable[[str], bool | str | Refused]
"""Called with a cell's source before it runs.

True runs it; a text is source that runs in its place; False, an empty text or `Refused` keeps it
from running.
"""

Check = Callable[[Any, Transcript], str | bool | None]
"""Called with an answer, and the transcript until then; the cell that gave it is `pending`.

None or True takes the answer. A text is the reason why it is not taken, which the model is told;
a failed `assert` is one too; False refuses it without a reason.
"""


def approved(source: str, approve: Approve) -> str | Refused:
    """The source that may run, or why none does.

    When in doubt nothing runs: also if `approve` raises, or returns anything else than it should.
    """
    try:
        verdict = approve(source)
    except Exception as error:  # whatever it is, nobody has said yes
        warn_of(f"{name_of(approve)} failed, so the cell was not run", error)
        return Refused(f"The approval of it failed: {described(error)}")
    match verdict:
        case Refused(reason):
            return Refused(f"The user refused it: {reason}" if reason.strip() else REFUSED)
        case True:
            return source
        case str() if verdict.strip():
            return source if verdict.strip() == source.strip() else verdict.rstrip()
        case False | "" | str():
            return Refused(REFUSED)
    given = TypeError(f"{name_of(approve)} returned {type(verdict).__name__}, not bool or str")
    warn_of("The approval failed, so the cell was not run", given)
    return Refused(f"The approval of it failed: {given}.")


REFUSED = "The user refused it."


def checked(
    step: Step, transcript: Transcript, *, checks: Sequence[Check], answer_type: Any = None
) -> Step:
    """`step`, refused if it has an answer that is not taken.

    That is one of another type than `answer_type`, if there is one, or one that a check refuses.
    """
    result = step.result
    answer: Any = step.thought
    if result is None and not step.thought.strip():
        return step
    if result is not None:
        if result.status != "ok" or result.answer is None:
            return step
        folder = transcript.path.parent if transcript.path else None
        answer = decoded(result.answer, folder=folder)
    if answer_type is not None:
        try:
            answer = typed(answer, answer_type)
        except UnfitAnswerError as error:
            return replace(step, refused=str(error))
    return replace(step, refused=refusal(answer, transcript, checks))


def refusal(answer: Any, transcript: Transcript, checks: Sequence[Check]) -> str:
    """Why the `checks` refuse `answer`, each in a line; empty if they take it.

    A check that fails itself is reported by a RuntimeWarning, and has no say.
    """
    reasons = (_reason(answer, transcript, check) for check in checks)
    return "\n".join(reason for reason in reasons if reason)


def _reason(answer: Any, transcript: Transcript, check: Check) -> str:
    refused = f"Check {name_of(check)} does not hold."
    try:
        verdict = check(answer, transcript)
    except AssertionError as error:
        return str(error).strip() or refused
    except Exception as error:  # the check's own fault must not cost the user the answer
        warn_of(f"Check {name_of(check)} failed, so it had no say", error)
        return ""
    match verdict:
        case None | True:
            return ""
        case False:
            return refused
        case str():
            return verdict.strip()
    given = TypeError(f"it returned {type(verdict).__name__}, not None or str")
    warn_of(f"Check {name_of(check)} failed, so it had no say", given)
    return ""
