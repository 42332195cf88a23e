"""The loop: ask the model, run its code, show it what came out, until there is an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kernel_agent.asking import Asking, Interrupted
from kernel_agent.ctrl_c import first_ctrl_c
from kernel_agent.data import check_names
from kernel_agent.errors import KernelAgentError, SettingsError
from kernel_agent.events import (
    CellStarted,
    Event,
    Listener,
    OutputReceived,
    ReplyReceived,
    ReplyStarted,
    RunFinished,
    RunStarted,
    StepFinished,
)
from kernel_agent.kernel import Kernel
from kernel_agent.limits import Limits
from kernel_agent.model import Model, as_model
from kernel_agent.observation import observe
from kernel_agent.opening import begin, data_file, notebook_path, take_on
from kernel_agent.prompts import Prompts
from kernel_agent.rebuilding import Rebuilt, rebuild
from kernel_agent.repeating import OnDeath
from kernel_agent.reply import Answer, RunCode, Unusable, read_reply
from kernel_agent.steps import (
    CellResult,
    Limit,
    Message,
    Observation,
    Outcome,
    Output,
    Reply,
    Step,
    Usage,
)
from kernel_agent.transcript import Transcript


@dataclass(frozen=True)
class Run:
    """What came of a task.

    `answer` is the value of `final_answer` if JSON can hold it, text otherwise, and `None` without
    an answer; `outcome` says how the run ended; `usage` is the whole transcript's; `path` is the
    notebook's.
    """

    answer: Any
    outcome: Outcome
    usage: Usage
    path: Path | None
    transcript: Transcript


class Agent:
    """Solves tasks by code in a kernel of its own; every run is a notebook.

    `model` is a name as litellm knows it (`"openai/gpt-5"`), a Model, or a function from messages
    to a reply's text. `kernel` is a kernelspec's name, `cwd` the folder the code works in, `env`
    what is added to its environment; `python`, `packages` and `on_progress` say which Python runs
    it, as for `Kernel`. `limits` bound each task. Notebooks go to `folder`, unless
    `run` is told otherwise. `max_chars` bounds what the model is shown of a cell. `prompts` is a
    folder whose files replace the package's own, `instructions` is text added to the system
    prompt. `listener` is called with every event, in the thread that runs the agent; so is
    `ask_user`, when a cell calls `input()` or `getpass()`, with the prompt and whether it is for a
    password. Without it these raise at once.

    When a cell ends the kernel, `on_death` says what is done: `"rebuild"` restarts it and runs the
    cells again that had succeeded, if they took no more than `rebuild_seconds` together;
    `"restart"` starts it empty; `"stop"` ends the run.

    One agent has one kernel and one transcript: a second `run` goes on where the first ended. It
    is used by one thread at a time; `interrupt` may be called from any.

    Raises SettingsError for a limit that is not above 0, PromptError for a missing `prompts`.
    """

    def __init__(
        self,
        model: Model | str | Callable[[list[Message]], str | Reply],
        *,
        kernel: str = "python3",
        python: str | Path | None = None,
        packages: Sequence[str] = (),
        on_progress: Callable[[str], None] | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        max_steps: int = 20,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        max_seconds: float | None = None,
        cell_timeout: float = 120.0,
        max_chars: int = 8000,
        on_death: OnDeath = "rebuild",
        rebuild_seconds: float = 60.0,
        folder: str | Path = "runs",
        prompts: str | Path | None = None,
        instructions: str = "",
        listener: Listener | None = None,
        ask_user: Callable[[str, bool], str] | None = None,
    ) -> None:
        self.limits = Limits(max_steps, max_cost, max_tokens, max_seconds, cell_timeout)
        self.transcript: Transcript | None = None
        self._model = as_model(model)
        self._kernel = Kernel(
            kernel, cwd=cwd, env=env, python=python, packages=packages, on_progress=on_progress
        )
        self._max_chars = max_chars
        self._on_death = on_death
        self._rebuild_seconds = rebuild_seconds
        self._folder = Path(folder)
        self._prompts = Prompts(Path(prompts) if prompts is not None else None)
        self._instructions = instructions
        self._listener = listener
        self._ask_user = ask_user
        self._asking: Asking | None = None
        self._interrupted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Shut the kernel down; the transcript stays. Safe to call twice."""
        self._kernel.shutdown()

    def interrupt(self) -> None:
        """End the run tidily: the cell or the request that is under way is stopped.

        Safe from any thread and from a signal handler. `run` returns soon after, its outcome
        `"interrupted"`, its kernel alive.
        """
        self._interrupted = True
        if (asking := self._asking) is not None:
            asking.interrupt()
        self._kernel.interrupt()

    def run(
        self,
        task: str,
        *,
        data: Mapping[str, Any] | None = None,
        files: Sequence[str | Path] = (),
        out: str | Path | None = None,
    ) -> Run:
        """Solve `task` and return what came of it; the notebook is on disk all along.

        `data` are variables for the code; `files` are data files that the model is shown a
        preview of. `out` is the notebook's path for a first run. In the main thread, Ctrl-C
        ends the run as `interrupt` does, and a second one raises KeyboardInterrupt.

        Raises DataError, TranscriptError, KernelStartError, or ModelError for a model that cannot
        be asked, before anything is written; and ModelError when the model gives no reply: what
        was done until then is in the notebook.
        """
        data = data or {}
        if not task.strip():
            raise SettingsError("The task is empty. Say in a sentence what you want to know.")
        check_names(data)
        paths = [data_file(file, self._kernel.cwd) for file in files]
        path = None if self.transcript else notebook_path(task, folder=self._folder, out=out)
        if callable(prepare := getattr(self._model, "prepare", None)):
            prepare()
        self._interrupted = False
        with first_ctrl_c(self.interrupt):
            transcript = self._take_on(task, data, paths, path)
            for _ in self.steps(transcript):
                pass
        return self._result(transcript)

    def steps(self, transcript: Transcript) -> Iterator[Step]:
        """Drive `transcript` on, one step at a time, until its last task has an outcome."""
        try:
            while transcript.outcome is None:
                limit = self.limits.reached(transcript.task_steps)
                reply = self._ask(transcript)
                step = self._closing(reply) if limit else self._act(reply, transcript)
                transcript.add(step)
                self._tell(StepFinished(len(transcript.task_steps), step, transcript.usage))
                if (outcome := self._outcome(step, limit)) is not None:
                    self._finish(transcript, outcome)
                yield step
        except Interrupted:
            self._finish(transcript, Outcome("interrupted"))
        except KernelAgentError as error:
            self._finish(transcript, Outcome("failed", reason=str(error)))
            raise

    def _take_on(
        self, text: str, data: Mapping[str, Any], files: Sequence[str], path: Path | None
    ) -> Transcript:
        """Begin the transcript at `path`, or go on with the one there is, with a new task."""
        kernel, prompts = self._kernel, self._prompts
        kernel.start()
        if self.transcript is None:
            assert path is not None
            self.transcript = begin(
                self._model,
                kernel,
                prompts,
                path=path,
                limits=self.limits,
                instructions=self._instructions,
            )
        transcript = self.transcript
        task = take_on(text, data, files, transcript=transcript, kernel=kernel, prompts=prompts)
        transcript.add(task)
        self._tell(RunStarted(task, self._model.name, kernel.name, transcript.path))
        return transcript

    def _ask(self, transcript: Transcript) -> Reply:
        number = len(transcript.task_steps) + 1
        self._tell(ReplyStarted(number, self.limits.max_steps, transcript.usage))
        asking = Asking(self._model, transcript.messages(), streams=bool(self._listener))
        self._asking = asking
        try:
            if self._interrupted:  # between two steps, when there was nothing to be stopped
                raise Interrupted
            reply = asking.reply(self._tell)
        finally:
            self._asking = None
        self._tell(ReplyReceived(reply))
        return reply

    def _act(self, reply: Reply, transcript: Transcript) -> Step:
        """Do what the reply says and observe what comes of it."""
        match read_reply(reply, language=self._kernel.language or "python"):
            case RunCode(thought, source, said):
                step = Step(reply, said, thought, CellResult(source))
                step = replace(step, result=self._execute(step, transcript))
                return self._observe(step, transcript, rebuilt=self._rebuild(step, transcript))
            case Answer(text, said) if _is_answer(transcript.task_steps):
                return Step(reply, said, text)
            case Answer(text, said):
                return self._observe(Step(reply, said, text), transcript, is_question=True)
            case Unusable(reason, said):
                return self._observe(Step(reply, said), transcript, unusable=reason)

    def _execute(self, step: Step, transcript: Transcript) -> CellResult:
        """Run the step's code; the reply is on disk before."""
        assert step.result is not None
        transcript.begin(step)
        self._tell(CellStarted(len(transcript.task_steps) + 1, step.thought, step.result.source))
        return self._kernel.execute(
            step.result.source,
            timeout=self.limits.cell_seconds(transcript.task_steps),
            listen=self._output_received if self._listener else None,
            progress=transcript.show,
            ask=self._ask_user,
        )

    def _rebuild(self, step: Step, transcript: Transcript) -> Rebuilt | None:
        """Bring the kernel back if the step's cell has ended it; None if it lives."""
        if step.result is None or step.result.status != "died" or self._on_death == "stop":
            return None
        entries = (*transcript.entries, step)
        return rebuild(
            self._kernel, entries, policy=self._on_death, max_seconds=self._rebuild_seconds
        )

    def _observe(
        self,
        step: Step,
        transcript: Transcript,
        *,
        unusable: str = "",
        is_question: bool = False,
        rebuilt: Rebuilt | None = None,
    ) -> Step:
        steps = (*transcript.task_steps, step)
        result = step.result
        seen = Observation("")
        if result is not None:
            images = bool(_has_image(result)) and self._model.takes_images
            seen = observe(result, max_chars=self._max_chars, images=images)
        text = self._prompts.render(
            "observation",
            text=seen.text,
            unusable=unusable,
            is_answer_question=is_question,
            answer_refused=bool(result and result.answer and result.status != "ok"),
            rebuilt=rebuilt,
            language=self._kernel.language,
            step=len(steps),
            max_steps=self.limits.max_steps,
            limit=self.limits.reached(steps) or "",
        )
        return replace(step, observation=Observation(text, seen.images))

    def _closing(self, reply: Reply) -> Step:
        """The last reply, which a limit asked for: its text is the answer, its code is not run."""
        match read_reply(reply, language=self._kernel.language or "python"):
            case RunCode(thought, _, said):
                return Step(reply, said, thought)
            case Answer(text, said):
                return Step(reply, said, text)
            case Unusable(_, said):
                return Step(reply, said)

    def _outcome(self, step: Step, limit: Limit | None) -> Outcome | None:
        """How the run ends with `step`, or None if it goes on."""
        if limit is not None:
            return Outcome("answered" if step.thought.strip() else "limit", limit)
        if step.observation is None:
            return Outcome("answered")
        if step.result and step.result.status == "died" and self._on_death == "stop":
            return Outcome("failed", reason=step.result.reason)
        if step.result and step.result.status == "ok" and step.result.answer:
            return Outcome("answered")
        return Outcome("interrupted") if self._interrupted else None

    def _finish(self, transcript: Transcript, outcome: Outcome) -> None:
        transcript.finish(outcome)
        self._tell(RunFinished(outcome, transcript.answer, transcript.usage, transcript.path))

    def _result(self, transcript: Transcript) -> Run:
        assert transcript.outcome is not None
        return Run(
            transcript.answer, transcript.outcome, transcript.usage, transcript.path, transcript
        )

    def _output_received(self, output: Output) -> None:
        self._tell(OutputReceived(output))

    def _tell(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)


def _is_answer(steps: Sequence[Step]) -> bool:
    """Whether a reply without code now is the answer: code has run, or it was asked for before."""
    has_run = any(step.result for step in steps)
    was_asked = bool(steps) and steps[-1].result is None and bool(steps[-1].thought)
    return has_run or was_asked


def _has_image(result: CellResult) -> bool:
    return any(re.match("image/", mime) for o in result.outputs for mime in o.get("data", ()))
