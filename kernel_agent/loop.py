"""The loop: ask the model, run its code, show it what came out, until there is an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from kernel_agent.asking import Asking, Interrupted
from kernel_agent.ending import closing_step, is_answer, outcome_of
from kernel_agent.errors import KernelAgentError, TranscriptError
from kernel_agent.events import (
    CellStarted,
    Event,
    Listener,
    OutputReceived,
    ReplyReceived,
    ReplyStarted,
    RunFinished,
    StepFinished,
)
from kernel_agent.keeping import keep
from kernel_agent.kernel import Kernel
from kernel_agent.limits import Limits
from kernel_agent.model import Model
from kernel_agent.observation import observe
from kernel_agent.prompts import Prompts
from kernel_agent.rebuilding import rebuild
from kernel_agent.repeating import Ask, OnDeath
from kernel_agent.reply import Answer, RunCode, Unusable, read_reply
from kernel_agent.steps import CellResult, Observation, Outcome, Output, Rebuilt, Reply, Step
from kernel_agent.stored_state import store
from kernel_agent.transcript import Transcript


@dataclass
class Loop:
    """Drives transcripts on with a model and a kernel; for the options see `Agent`.

    `snapshot_bytes` is 0 where no snapshots are wanted.
    """

    model: Model
    kernel: Kernel
    prompts: Prompts
    limits: Limits
    max_chars: int
    on_death: OnDeath
    rebuild_seconds: float
    snapshot_bytes: int
    listener: Listener | None
    ask_user: Ask | None
    interrupted: bool = False
    _asking: Asking | None = None

    def interrupt(self) -> None:
        """See `Agent.interrupt`."""
        self.interrupted = True
        if (asking := self._asking) is not None:
            asking.interrupt()
        self.kernel.interrupt()

    def tell(self, event: Event) -> None:
        """Tell the listener, if there is one."""
        if self.listener is not None:
            self.listener(event)

    def steps(self, transcript: Transcript) -> Iterator[Step]:
        """Drive `transcript` on, one step at a time, until its last task has an outcome."""
        try:
            while transcript.outcome is None:
                limit = self.limits.reached(transcript.task_steps)
                reply = self._ask(transcript)
                step = (
                    closing_step(reply, language=self._language)
                    if limit
                    else self._act(reply, transcript)
                )
                keep(transcript, partial(transcript.add, step), self.tell)
                self.tell(StepFinished(len(transcript.task_steps), step, transcript.usage))
                self._take_snapshot(transcript, step)
                outcome = outcome_of(step, limit, death_ends=self.on_death == "stop")
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

    def _ask(self, transcript: Transcript) -> Reply:
        number = len(transcript.task_steps) + 1
        self.tell(ReplyStarted(number, self.limits.max_steps, transcript.usage))
        asking = Asking(self.model, transcript.messages(), streams=bool(self.listener))
        self._asking = asking
        try:
            if self.interrupted:  # between two steps, when there was nothing to be stopped
                raise Interrupted
            reply = asking.reply(self.tell)
        finally:
            self._asking = None
        self.tell(ReplyReceived(reply))
        return reply

    def _act(self, reply: Reply, transcript: Transcript) -> Step:
        """Do what the reply says and observe what comes of it."""
        match read_reply(reply, language=self._language):
            case RunCode(thought, source, said):
                step = Step(reply, said, thought, CellResult(source))
                step = replace(step, result=self._execute(step, transcript))
                return self.observed(step, transcript, rebuilt=self._rebuild(step, transcript))
            case Answer(text, said) if is_answer(transcript.task_steps):
                return Step(reply, said, text)
            case Answer(text, said):
                return self.observed(Step(reply, said, text), transcript, is_question=True)
            case Unusable(reason, said):
                return self.observed(Step(reply, said), transcript, unusable=reason)

    def _execute(self, step: Step, transcript: Transcript) -> CellResult:
        """Run the step's code; the reply is on disk before."""
        assert step.result is not None
        keep(transcript, partial(transcript.begin, step), self.tell)
        self.tell(CellStarted(len(transcript.task_steps) + 1, step.thought, step.result.source))
        return self.kernel.execute(
            step.result.source,
            timeout=self.limits.cell_seconds(transcript.task_steps),
            listen=self._output_received if self.listener else None,
            progress=transcript.show,
            ask=self.ask_user,
        )

    def _rebuild(self, step: Step, transcript: Transcript) -> Rebuilt | None:
        """Bring the kernel back if the step's cell has ended it; None if it lives."""
        if step.result is None or step.result.status != "died" or self.on_death == "stop":
            return None
        entries = (*transcript.entries, step)
        return rebuild(self.kernel, entries, policy=self.on_death, max_seconds=self.rebuild_seconds)

    def observed(
        self,
        step: Step,
        transcript: Transcript,
        *,
        unusable: str = "",
        is_question: bool = False,
        rebuilt: Rebuilt | None = None,
    ) -> Step:
        """`step` with what the model is shown of it.

        `unusable` says why the reply could not be used, `is_question` that it may be the answer,
        `rebuilt` what a kernel that was started anew holds.
        """
        steps = (*transcript.task_steps, step)
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
            answer_refused=bool(result and result.answer and result.status != "ok"),
            rebuilt=rebuilt,
            language=self.kernel.language,
            step=len(steps),
            max_steps=self.limits.max_steps,
            limit=self.limits.reached(steps) or "",
        )
        return replace(step, observation=Observation(text, seen.images))

    def _take_snapshot(self, transcript: Transcript, step: Step) -> None:
        if not self.snapshot_bytes or step.result is None or not self.kernel.is_alive:
            return
        if event := store(self.kernel, transcript, max_bytes=self.snapshot_bytes):
            self.tell(event)

    def _finish(self, transcript: Transcript, outcome: Outcome) -> None:
        keep(transcript, partial(transcript.finish, outcome), self.tell)
        self.tell(RunFinished(outcome, transcript.answer, transcript.usage, transcript.path))

    @property
    def _language(self) -> str:
        return self.kernel.language or "python"

    def _output_received(self, output: Output) -> None:
        self.tell(OutputReceived(output))


def _has_image(result: CellResult) -> bool:
    return any(re.match("image/", mime) for o in result.outputs for mime in o.get("data", ()))
