"""The loop: ask the model, run its code, show it what came out, until there is an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kernel_agent import answers
from kernel_agent.answer_types import UnfitAnswerError, typed
from kernel_agent.approving import Approve, Check, Refused, approved, refusal
from kernel_agent.asking import Interrupted
from kernel_agent.ending import closing_step, is_answer, outcome_of
from kernel_agent.errors import KernelAgentError, TranscriptError
from kernel_agent.estimates import Ahead
from kernel_agent.events import (
    ApprovalAsked,
    CellStarted,
    Event,
    OutputReceived,
    PlanFinished,
    PlanStarted,
    ReplyReceived,
    ReplyStarted,
    RunFinished,
    StepFinished,
)
from kernel_agent.keeping import keep
from kernel_agent.kernel import Kernel
from kernel_agent.limits import Limits
from kernel_agent.looping import repeats
from kernel_agent.model import JsonTool, Model, price
from kernel_agent.native_calls import with_calls
from kernel_agent.observation import observe
from kernel_agent.planning import is_due, plan_of
from kernel_agent.prompts import Prompts
from kernel_agent.rebuilding import rebuild
from kernel_agent.repeating import Ask, OnDeath
from kernel_agent.reply import Answer, RunCode, Unusable, read_reply
from kernel_agent.requests import Requests
from kernel_agent.steps import (
    CellResult,
    Entry,
    Limit,
    Note,
    Observation,
    Outcome,
    Output,
    Rebuilt,
    Reply,
    Step,
)
from kernel_agent.stored_state import store
from kernel_agent.telling import Telling
from kernel_agent.tool_use import recorded_calls, with_kept_calls
from kernel_agent.tools import Toolbox, json_tools
from kernel_agent.transcript import Transcript


@dataclass
class Loop:
    """Drives transcripts on with a model and a kernel; for the options see `Agent`.

    `snapshot_bytes` is 0 where no snapshots are wanted. `after_cell` is called when a cell is
    over; a cell may run for `min_cell_timeout` seconds even if its limit is lower. An answer must
    be of `answer_type`, if there is one.
    """

    model: Model
    kernel: Kernel
    prompts: Prompts
    limits: Limits
    max_chars: int
    on_death: OnDeath
    rebuild_seconds: float
    snapshot_bytes: int
    listener: Telling
    ask_user: Ask | None
    approve: Approve | None
    checks: tuple[Check, ...]
    plan_every: int
    toolbox: Toolbox
    after_cell: Callable[[], None] = lambda: None
    min_cell_timeout: float = 0.0
    answer_type: Any = None
    interrupted: bool = False

    def __post_init__(self) -> None:
        self._requests = Requests(self.model, self.prompts, self.listener, lambda: self.interrupted)

    def interrupt(self) -> None:
        """See `Agent.interrupt`."""
        self.interrupted = True
        self._requests.interrupt()
        self.kernel.interrupt()

    def tell(self, event: Event) -> None:
        """Tell the listeners, if there are any."""
        self.listener(event)

    def steps(self, transcript: Transcript) -> Iterator[Step]:
        """Drive `transcript` on, one step at a time, until its last task has an outcome."""
        self._requests.language = self._language
        self._requests.tools = self.native_tools(transcript)
        try:
            while transcript.outcome is None:
                self._plan(transcript)
                limit = self._limit(transcript)
                if outcome := self._exhausted(transcript):
                    self._finish(transcript, outcome)
                    return
                reply = self._ask(transcript)
                step = self._close(reply, transcript) if limit else self._act(reply, transcript)
                keep(transcript, partial(transcript.add, step), self.tell)
                self.tell(StepFinished(len(transcript.task_steps), step, transcript.usage))
                self._take_snapshot(transcript, step)
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
                self._finish(transcript, Outcome("failed", reason=str(error)))
            raise

    def ahead(self, transcript: Transcript) -> Ahead:
        """What the limits look ahead with."""
        return Ahead(partial(price, self.model), transcript.messages, self.max_chars)

    def _reached(self, transcript: Transcript, *more: Entry) -> Limit | None:
        return self.limits.reached((*transcript.task_entries, *more), self.ahead(transcript))

    def _exhausted(self, transcript: Transcript) -> Outcome | None:
        return self.limits.exhausted(transcript.task_entries, self.ahead(transcript))

    def _limit(self, transcript: Transcript) -> Limit | None:
        """The limit that is reached before the next request, for which room is made if not."""
        limit = self._reached(transcript)
        if limit or self._exhausted(transcript) or not self._requests.make_room(transcript):
            return limit
        if limit := self._reached(transcript):  # a summary was paid for
            form = transcript.reply_format
            note = Note(self.prompts.render("limit", limit=limit, reply_format=form))
            keep(transcript, partial(transcript.add, note), self.tell)
        return limit

    def native_tools(self, transcript: Transcript) -> list[JsonTool]:
        """The tools that the model may call natively; none where it writes its calls as code."""
        if transcript.reply_format != "tools":
            return []
        return [*json_tools(self.toolbox.tools, self._language)]

    def outcome_of(self, transcript: Transcript, limit: Limit | None) -> Outcome | None:
        """How the task ends with its last step, before which `limit` was reached; None: not yet."""
        steps = transcript.task_steps
        death_ends = self.on_death == "stop"
        return outcome_of(steps[-1], limit, death_ends=death_ends, loop=repeats(steps))

    def _ask(self, transcript: Transcript) -> Reply:
        number = len(transcript.task_steps) + 1
        self.tell(ReplyStarted(number, self.limits.max_steps, transcript.usage))
        reply = self._requests.reply(transcript)
        self.tell(ReplyReceived(reply))
        return reply

    def _plan(self, transcript: Transcript) -> None:
        """Ask for a plan if one is due; nothing of it is run."""
        if not is_due(transcript.task_entries, self.plan_every):
            return
        if self._reached(transcript) or self._exhausted(transcript):
            return
        number = len(transcript.task_steps) + 1
        self.tell(PlanStarted(number, self.limits.max_steps, transcript.usage))
        render = partial(self.prompts.render, "plan", reply_format=transcript.reply_format)
        asked = render(is_made=False, limit="")
        reply = self._requests.reply(transcript, asked)
        plan = plan_of(reply, asked=asked, language=self._language)
        limit = self._reached(transcript, plan) or ""
        plan = replace(plan, told=render(is_made=True, limit=limit))
        keep(transcript, partial(transcript.add, plan), self.tell)
        self.tell(PlanFinished(plan, transcript.usage))

    def _act(self, reply: Reply, transcript: Transcript) -> Step:
        """Do what the reply says and observe what comes of it."""
        tools, form = self._native_names, transcript.reply_format
        match read_reply(reply, language=self._language, tools=tools, reply_format=form):
            case RunCode(thought, source, said):
                allowed = self._approved(thought, source, transcript)
                if isinstance(allowed, Refused):
                    # Nothing ran, so the code is shown where the prose is.
                    shown = with_calls(said, reply.calls)
                    step = Step(reply, said, shown, refused=allowed.reason)
                    return self.observed(step, transcript, is_code=True)
                step = Step(reply, said, thought, CellResult(allowed))
                step = replace(step, result=self._execute(step, transcript))
                step = self._checked(step, transcript)
                edited = allowed if allowed != source else ""
                rebuilt = self._rebuild(step, transcript)
                return self.observed(step, transcript, edited=edited, rebuilt=rebuilt)
            case Answer(text, said) if is_answer(transcript.task_steps):
                step = self._checked(Step(reply, said, text), transcript)
                return self.observed(step, transcript) if step.refused else step
            case Answer(text, said):
                return self.observed(Step(reply, said, text), transcript, is_question=True)
            case Unusable(reason, said):
                return self.observed(Step(reply, said), transcript, unusable=reason)

    def _close(self, reply: Reply, transcript: Transcript) -> Step:
        """The last step, whose reply a limit has asked for."""
        step = closing_step(reply, language=self._language, tools=self._native_names)
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

    def _checked(self, step: Step, transcript: Transcript) -> Step:
        """`step`, refused if it has an answer that the checks do not take."""
        result = step.result
        if result is None and step.thought.strip():
            return replace(step, refused=self._refusal(step.thought, transcript))
        if result is None or result.status != "ok" or result.answer is None:
            return step
        folder = transcript.path.parent if transcript.path else None
        answer = answers.decoded(result.answer, folder=folder)
        return replace(step, refused=self._refusal(answer, transcript))

    def _refusal(self, answer: Any, transcript: Transcript) -> str:
        """Why the answer is not taken: it is of another type than was wanted, or a check fails."""
        if self.answer_type is not None:
            try:
                answer = typed(answer, self.answer_type)
            except UnfitAnswerError as error:
                return str(error)
        return refusal(answer, transcript, self.checks)

    def _execute(self, step: Step, transcript: Transcript) -> CellResult:
        """Run the step's code; the reply is on disk before."""
        assert step.result is not None
        keep(transcript, partial(transcript.begin, step), self.tell)
        self.tell(CellStarted(len(transcript.task_steps) + 1, step.thought, step.result.source))
        entries = (*transcript.task_entries, step)
        timeout = self.limits.cell_seconds(entries, at_least=self.min_cell_timeout)
        result = self.kernel.execute(
            step.result.source,
            timeout=timeout,
            listen=self._output_received if self.listener else None,
            progress=transcript.show,
            ask=self.ask_user,
            serve=self._serve if self.toolbox.tools else None,
        )
        self.after_cell()
        folder = self.kernel.border_folder
        result = with_kept_calls(result, source=folder, notebook=transcript.path)
        return answers.keep(result, source=self.kernel.answer_folder, notebook=transcript.path)

    def _serve(self, name: str, arguments: Mapping[str, Any]) -> Any:
        return self.toolbox.serve(name, arguments, folder=self.kernel.border_folder)

    def _rebuild(self, step: Step, transcript: Transcript) -> Rebuilt | None:
        """Bring the kernel back if the step's cell has ended it; None if it lives."""
        if step.result is None or step.result.status != "died" or self.on_death == "stop":
            return None
        entries = (*transcript.entries, step)
        return rebuild(
            self.kernel,
            entries,
            policy=self.on_death,
            max_seconds=self.rebuild_seconds,
            calls=recorded_calls(entries, transcript.path),
        )

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
        text = self.prompts.render(
            "observation",
            text=seen.text,
            unusable=unusable,
            is_answer_question=is_question,
            code_refused=step.refused if is_code else "",
            refused="" if is_code else step.refused,
            edited=edited,
            answer_refused=bool(result and result.answer and result.status != "ok"),
            rebuilt=rebuilt,
            language=self.kernel.language,
            step=len(transcript.task_steps) + 1,
            max_steps=self.limits.max_steps,
            limit=self._reached(transcript, step) or "",
            loop=repeats((*transcript.task_steps, step)),
            reply_format=transcript.reply_format,
        )
        return replace(step, observation=Observation(text, seen.images))

    def _take_snapshot(self, transcript: Transcript, step: Step) -> None:
        if not self.snapshot_bytes or step.result is None or not self.kernel.is_alive:
            return
        if event := store(self.kernel, transcript, max_bytes=self.snapshot_bytes):
            self.tell(event)

    def _finish(self, transcript: Transcript, outcome: Outcome) -> None:
        keep(transcript, partial(transcript.finish, outcome), self.tell)
        self.tell(RunFinished(outcome, transcript.plain_answer, transcript.usage, transcript.path))

    @property
    def _native_names(self) -> list[str]:
        """The names of the tools that the model was offered, but for that which runs code."""
        return [tool["function"]["name"] for tool in self._requests.tools[1:]]

    @property
    def _language(self) -> str:
        return self.kernel.language or "python"

    def _output_received(self, output: Output) -> None:
        self.tell(OutputReceived(output))


def _has_image(result: CellResult) -> bool:
    return any(re.match("image/", mime) for o in result.outputs for mime in o.get("data", ()))
