"""The loop: ask the model, run its code, show it what came out, until there is an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kernel_agent.approving import Approve, Check, Refused, approved, checked
from kernel_agent.asking import Interrupted
from kernel_agent.ending import closing_step, is_answer, last_told, outcome_of
from kernel_agent.errors import KernelAgentError, ModelError, TranscriptError
from kernel_agent.estimates import Ahead
from kernel_agent.events import (
    ApprovalAsked,
    Event,
    PlanFinished,
    PlanStarted,
    ReplyReceived,
    ReplyStarted,
    RunFinished,
    StepFinished,
)
from kernel_agent.executing import Executing
from kernel_agent.keeping import keep
from kernel_agent.limits import Limits
from kernel_agent.looping import repeats
from kernel_agent.model import JsonTool, Model, paid_until, price
from kernel_agent.native_calls import with_calls
from kernel_agent.observation import observe
from kernel_agent.planning import is_due, plan_of
from kernel_agent.prompts import Prompts
from kernel_agent.reply import Answer, RunCode, Unusable, read_reply
from kernel_agent.requests import Requests
from kernel_agent.steps import (
    CellResult,
    Entry,
    Limit,
    Message,
    Note,
    Observation,
    Outcome,
    Rebuilt,
    Reply,
    Step,
    Task,
    Usage,
)
from kernel_agent.telling import Telling
from kernel_agent.tools import READER, json_tools, takes_json
from kernel_agent.transcript import Transcript


@dataclass
class Loop:
    """Drives transcripts on with a model and a kernel; for the options see `Agent`.

    An answer must be of `answer_type`, if there is one.
    """

    model: Model
    cells: Executing
    prompts: Prompts
    limits: Limits
    max_chars: int
    listener: Telling
    approve: Approve | None
    checks: tuple[Check, ...]
    plan_every: int
    answer_type: Any = None
    interrupted: bool = False

    def __post_init__(self) -> None:
        self._requests = Requests(self.model, self.prompts, self.listener, lambda: self.interrupted)

    def interrupt(self) -> None:
        """See `Agent.interrupt`."""
        self.interrupted = True
        self._requests.interrupt()
        self.cells.kernel.interrupt()

    def tell(self, event: Event) -> None:
        """Tell the listeners, if there are any."""
        self.listener(event)

    def steps(self, transcript: Transcript) -> Iterator[Step]:
        """Drive `transcript` on, one step at a time, until its last task has an outcome."""
        self._requests.language = self.cells.language
        self._requests.tools = self.native_tools(transcript)
        try:
            while transcript.outcome is None:
                limit = self._prepare(transcript)
                if outcome := self._exhausted(transcript):
                    self._finish(transcript, outcome)
                    return
                reply = self._ask(transcript, limit)
                step = self._close(reply, transcript) if limit else self._act(reply, transcript)
                keep(transcript, partial(transcript.add, step), self.tell)
                self.tell(StepFinished(len(transcript.task_steps), step, transcript.usage))
                self.cells.take_snapshot(step, transcript)
                outcome = self.outcome_of(transcript, limit)
                if outcome is None and self.interrupted:
                    outcome = Outcome("interrupted")
                if outcome is not None:
                    self._finish(transcript, outcome)
                yield step
        except Interrupted:
            self._finish(transcript, Outcome("interrupted"))
        except KernelAgentError as error:
            with suppress(TranscriptError):  # that may be the very error
                self._finish(transcript, Outcome("failed", reason=_why(error)))
            raise

    def ahead(self, transcript: Transcript) -> Ahead:
        """What the limits look ahead with."""
        return Ahead(partial(price, self.model), transcript.messages, self.max_chars)

    def _reached(self, transcript: Transcript, *more: Entry) -> Limit | None:
        return self.limits.reached((*transcript.task_entries, *more), self.ahead(transcript))

    def _exhausted(self, transcript: Transcript) -> Outcome | None:
        return self.limits.exhausted(transcript.task_entries, self.ahead(transcript))

    def _make_room(self, transcript: Transcript, limit: Limit | None) -> None:
        if not self._exhausted(transcript):
            # What a limit leaves is for the closing request, and not for a summary.
            self._requests.make_room(transcript, sums_up=limit is None)

    def _prepare(self, transcript: Transcript) -> Limit | None:
        """Make room and a plan; returns the limit that is reached before the next request.

        The model knows of it then: from the last observation (and then it stands, even if room is
        made), or by a note if it is reached only now: a summary was paid for, or the run goes on
        with other limits.
        """
        limit = self._reached(transcript)
        self._make_room(transcript, limit)
        if limit is None:
            limit = self._plan(transcript) or self._reached(transcript)
        if limit and not self._exhausted(transcript):
            form = transcript.reply_format
            words = self.prompts.render("limit", limit=limit, reply_format=form)
            if words not in last_told(transcript.task_entries):
                keep(transcript, partial(transcript.add, Note(words)), self.tell)
        return limit

    def first_messages(self, transcript: Transcript, task: Task) -> list[Message]:
        """What the model is asked first if `task` comes to a `transcript` of nothing else."""
        plan = is_due([task], self.plan_every)
        return transcript.messages(task, *([Note(self._plan_words(transcript))] if plan else []))

    def native_tools(self, transcript: Transcript) -> list[JsonTool]:
        """The tools that the model may call natively; none where it writes its calls as code."""
        if transcript.reply_format != "tools":
            return []
        # The prompt has a line for it, and a schema would go with every request.
        offered = [tool for tool in self.cells.toolbox.tools if tool.name != READER]
        return json_tools(offered, self.cells.language)

    def outcome_of(self, transcript: Transcript, limit: Limit | None) -> Outcome | None:
        """How the task ends with its last step, before which `limit` was reached; None: not yet."""
        steps = transcript.task_steps
        death_ends = self.cells.on_death == "stop"
        return outcome_of(steps[-1], limit, death_ends=death_ends, loop=repeats(steps))

    def _ask(self, transcript: Transcript, limit: Limit | None) -> Reply:
        number = len(transcript.task_steps) + 1
        self.tell(ReplyStarted(number, self.limits.max_steps, transcript.usage))
        reply = self._requests.reply(transcript, sums_up=limit is None)
        self.tell(ReplyReceived(reply))
        return reply

    def _plan(self, transcript: Transcript) -> Limit | None:
        """Ask for a plan if one is due, of which nothing is run; returns a limit that it tells."""
        if not is_due(transcript.task_entries, self.plan_every):
            return None
        if self._reached(transcript) or self._exhausted(transcript):  # a summary was paid for
            return None
        number = len(transcript.task_steps) + 1
        self.tell(PlanStarted(number, self.limits.max_steps, transcript.usage))
        asked = self._plan_words(transcript)
        reply = self._requests.reply(transcript, asked)
        plan = plan_of(reply, asked=asked, language=self.cells.language)
        limit = self._reached(transcript, plan)
        plan = replace(plan, told=self._plan_words(transcript, is_made=True, limit=limit or ""))
        keep(transcript, partial(transcript.add, plan), self.tell)
        self.tell(PlanFinished(plan, transcript.usage))
        self._make_room(transcript, limit)
        return limit

    def _plan_words(self, transcript: Transcript, *, is_made: bool = False, limit: str = "") -> str:
        form = transcript.reply_format
        return self.prompts.render("plan", is_made=is_made, limit=limit, reply_format=form)

    def _act(self, reply: Reply, transcript: Transcript) -> Step:
        """Do what the reply says and observe what comes of it."""
        tools, form = self._native_names, transcript.reply_format
        match read_reply(reply, language=self.cells.language, tools=tools, reply_format=form):
            case RunCode(thought, source, said):
                allowed = self._approved(thought, source, transcript)
                if isinstance(allowed, Refused):
                    # Nothing ran, so the code is shown where the prose is.
                    shown = with_calls(said, reply.calls)
                    step = Step(reply, said, shown, refused=allowed.reason)
                    return self.observed(step, transcript, is_code=True)
                step = Step(reply, said, thought, CellResult(allowed))
                step = replace(step, result=self._run(step, transcript))
                step = self._checked(step, transcript)
                edited = allowed if allowed != source else ""
                rebuilt = self.cells.bring_back(step, transcript)
                return self.observed(step, transcript, edited=edited, rebuilt=rebuilt)
            case Answer(text, said) if is_answer(transcript.task_steps):
                step = self._checked(Step(reply, said, text), transcript)
                return self.observed(step, transcript) if step.refused else step
            case Answer(text, said):
                return self.observed(Step(reply, said, text), transcript, is_question=True)
            case Unusable(reason, said):
                return self.observed(Step(reply, said), transcript, unusable=reason)

    def _run(self, step: Step, transcript: Transcript) -> CellResult:
        entries = (*transcript.task_entries, step)
        seconds = self.limits.cell_seconds(entries, at_least=self.cells.min_seconds)
        return self.cells.run(step, transcript, seconds=seconds)

    def _checked(self, step: Step, transcript: Transcript) -> Step:
        return checked(step, transcript, checks=self.checks, answer_type=self.answer_type)

    def _close(self, reply: Reply, transcript: Transcript) -> Step:
        """The last step, whose reply a limit has asked for."""
        step = closing_step(reply, language=self.cells.language, tools=self._native_names)
        step = self._checked(step, transcript)
        if not step.refused:
            return step
        text = self.prompts.render("refused", refused=step.refused)
        return replace(step, observation=Observation(text))

    def _approved(self, thought: str, source: str, transcript: Transcript) -> str | Refused:
        """The source that may run."""
        if self.approve is None:
            return source
        self.tell(ApprovalAsked(len(transcript.task_steps) + 1, thought, source))
        allowed = approved(source, self.approve)
        # Who ends the run while being asked has not said yes.
        return Refused("The user ended the run before.") if self.interrupted else allowed

    def observed(
        self,
        step: Step,
        transcript: Transcript,
        *,
        unusable: str = "",
        is_question: bool = False,
        is_code: bool = False,
        edited: str = "",
        rebuilt: Rebuilt | None = None,
    ) -> Step:
        """`step` with what the model is shown of it.

        `unusable` says why the reply could not be used, `is_question` that it may be the answer,
        `is_code` that its code was refused, `edited` is the source that the user had run in its
        place, `rebuilt` what a kernel that was started anew holds.
        """
        result = step.result
        seen = Observation("")
        if result is not None:
            images = bool(_has_image(result)) and self.model.takes_images
            seen = observe(result, max_chars=self.max_chars, images=images)
        common = {
            "limit": self._reached(transcript, step) or "",
            "reply_format": transcript.reply_format,
        }
        notices = self.prompts.render(
            "notices",
            refused="" if is_code else step.refused,
            answer_refused=bool(result and result.answer and result.status != "ok"),
            rebuilt=rebuilt,
            loop=repeats((*transcript.task_steps, step)),
            **common,
        )
        text = self.prompts.render(
            "observation",
            text=seen.text,
            unusable=unusable,
            is_answer_question=is_question,
            code_refused=step.refused if is_code else "",
            edited=edited,
            notices=notices,
            language=self.cells.kernel.language,
            step=len(transcript.task_steps) + 1,
            max_steps=self.limits.max_steps,
            scarcity=self.limits.scarcity((*transcript.task_entries, step), self.ahead(transcript)),
            **common,
        )
        return replace(step, observation=Observation(text, seen.images, notices))

    def _finish(self, transcript: Transcript, outcome: Outcome) -> None:
        keep(transcript, partial(transcript.finish, outcome), self.tell)
        self.tell(RunFinished(outcome, transcript.plain_answer, transcript.usage, transcript.path))

    @property
    def _native_names(self) -> list[str]:
        """The names of the tools that may be called natively, but for that which runs code."""
        if not self._requests.tools:
            return []
        language = self.cells.language
        return [tool.name for tool in self.cells.toolbox.tools if takes_json(tool, language)]


def _why(error: KernelAgentError) -> str:
    """What a run ends with, and what the model was paid for replies that never came."""
    paid = paid_until(error) if isinstance(error, ModelError) else Usage()
    return f"{error} Paid in vain: {paid.tokens:,} tokens." if paid.tokens else str(error)


def _has_image(result: CellResult) -> bool:
    return any(re.match("image/", mime) for o in result.outputs for mime in o.get("data", ()))
