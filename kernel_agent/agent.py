"""The agent: solves tasks by code in a kernel of its own, and keeps the run as a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kernel_agent.answer_types import typed, wanted
from kernel_agent.approving import Approve, Check
from kernel_agent.beginning import Beginning
from kernel_agent.catching_up import check_can_go_on
from kernel_agent.ctrl_c import first_ctrl_c
from kernel_agent.data import check_names
from kernel_agent.errors import SettingsError
from kernel_agent.events import Listener
from kernel_agent.executing import Executing
from kernel_agent.kernel import Kernel
from kernel_agent.limits import Limits
from kernel_agent.loop import Loop
from kernel_agent.media import media
from kernel_agent.model import Fallbacks, JsonTool, Model, as_model
from kernel_agent.opening import (
    Given,
    data_file,
)
from kernel_agent.planning import check_plan_every
from kernel_agent.prompts import Prompts
from kernel_agent.repeating import OnDeath
from kernel_agent.steps import Message, Outcome, Reply, Step, Usage
from kernel_agent.subagents import CELL_SECONDS, Subagents
from kernel_agent.telling import Telling
from kernel_agent.tools import Toolbox
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


@dataclass(frozen=True)
class FirstRequest:
    """What a run asks its model first: messages, and the tools that it may call natively."""

    messages: list[Message]
    tools: list[JsonTool]


class Agent:
    """Solves tasks by code in a kernel of its own; every run is a notebook.

    `model` is a name as litellm knows it (`"openai/gpt-5"`), a Model, or a function from messages
    to a reply's text; `fallbacks` are others that are asked, in order, while it is down. `kernel`
    is a kernelspec's name, or a `Kernel`, which is started and shut down with the agent. `cwd` is
    the folder the code works in, `env` what is added to its environment; `python`, `packages` and
    `on_progress` say which Python runs it: all as for `Kernel`, and only with a kernelspec's name.
    The limits bound each task. Notebooks go to `folder`, unless `run` is told otherwise.
    `max_chars` bounds what the model is shown of a cell. `prompts` is a folder whose files replace
    the package's own, `instructions` is text added to the system prompt. `listener`, one or
    several, is called with every event, in the thread that runs the agent; what it raises is
    reported by a warning, and the run goes on. So is `ask_user`, when a cell calls `input()` or
    `getpass()`, with the prompt and whether it is for a password. Without it these raise at once.

    `approve` is called with the source of each cell before it runs, and says whether it may, or
    what runs in its place (see `approving.Approve`). `check`, one function or several, is called
    with each answer and the transcript; a text that it returns is why the answer is not taken: the
    model is told so and goes on, within the limits (see `approving.Check`). With `plan_every` the
    model is asked for a plan before the first step and after every so many of them.

    `tools` are functions that the code in the kernel can call and that run here (see `tools.tool`),
    names of built-in ones (`"web_search"`), and tools of other libraries. `mcp` are MCP servers:
    `{"command": …, "args": […]}`, or a URL. They are started with the first `run`. `agents` are
    agents with a `name` and a `description`: the code calls them as functions, each call is a run
    with a kernel and a notebook of its own, and what it uses counts for this agent's limits. A
    cell may then run for an hour.

    When a cell ends the kernel, `on_death` says what is done: `"rebuild"` restarts it and runs the
    cells again that had succeeded, if they took no more than `rebuild_seconds` together;
    `"restart"` starts it empty; `"stop"` ends the run.

    With `snapshot` the variables are stored beside the notebook after each step, in a folder of at
    most `snapshot_bytes`, so that a resumed run has them at once.

    One agent has one kernel and one transcript: a second `run` goes on where the first ended. With
    `transcript`, a recorded run, already the first does (see `resuming.resume`); with
    `user_notebook` it works on in a notebook of the user's (see `resuming.continue_notebook`). An
    agent is used by one thread at a time; `interrupt` may be called from any.

    Raises SettingsError for a limit that is not above 0 or a `plan_every` below it, PromptError for
    a missing `prompts`.
    """

    def __init__(
        self,
        model: Model | str | Callable[[list[Message]], str | Reply],
        *,
        fallbacks: Sequence[Model | str | Callable[[list[Message]], str | Reply]] = (),
        kernel: str | Kernel = "python3",
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
        snapshot: bool = False,
        snapshot_bytes: int = 2_000_000_000,
        folder: str | Path = "runs",
        prompts: str | Path | None = None,
        instructions: str = "",
        listener: Listener | Sequence[Listener] | None = None,
        ask_user: Callable[[str, bool], str] | None = None,
        approve: Approve | None = None,
        check: Check | Sequence[Check] = (),
        plan_every: int | None = None,
        tools: Iterable[Any] = (),
        mcp: Sequence[Mapping[str, Any] | str] = (),
        agents: Sequence[Agent] = (),
        name: str = "",
        description: str = "",
        transcript: Transcript | None = None,
        user_notebook: Path | None = None,
    ) -> None:
        tools = [*tools]
        self._options = {key: value for key, value in locals().items() if key != "self"}
        self.name = name
        self.description = description
        self.limits = Limits(max_steps, max_cost, max_tokens, max_seconds, cell_timeout)
        if isinstance(kernel, Kernel):
            if cwd or env or python or packages:
                reason = "cwd, env, python and packages belong to the Kernel: give them to it."
                raise SettingsError(reason)
        else:
            kernel = Kernel(
                kernel, cwd=cwd, env=env, python=python, packages=packages, on_progress=on_progress
            )
        telling = Telling(listener)
        self._cells = Executing(
            kernel=kernel,
            toolbox=Toolbox([]),
            on_death=on_death,
            rebuild_seconds=rebuild_seconds,
            snapshot_bytes=snapshot_bytes if snapshot else 0,
            listener=telling,
            ask_user=ask_user,
        )
        self._loop = Loop(
            model=Fallbacks([model, *fallbacks]) if fallbacks else as_model(model),
            cells=self._cells,
            prompts=Prompts(Path(prompts) if prompts is not None else None),
            limits=self.limits,
            max_chars=max_chars,
            listener=telling,
            approve=approve,
            checks=(check,) if callable(check) else tuple(check),
            plan_every=check_plan_every(plan_every),
        )
        self._subagents = Subagents(
            agents,
            cwd=kernel.cwd,
            transcript=lambda: self.transcript,
            budget=self._cost_left,
            tell=self._loop.tell,
        )
        self._cells.after_cell = self._subagents.end_cell
        if agents:
            self._cells.min_seconds = CELL_SECONDS
        self._beginning = Beginning(
            self._loop,
            tools=tools,
            mcp=[*mcp],
            subagents=self._subagents,
            folder=Path(folder),
            instructions=instructions,
            transcript=transcript,
            user_notebook=user_notebook,
        )

    @property
    def transcript(self) -> Transcript | None:
        """The record of the run; None before the first."""
        return self._beginning.transcript

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
        self._cells.kernel.shutdown()
        self._beginning.close()

    def interrupt(self) -> None:
        """End the run tidily: the cell or the request that is under way is stopped.

        Safe from any thread and from a signal handler. `run` returns soon after, its outcome
        `"interrupted"`, its kernel alive.
        """
        self._loop.interrupt()
        self._subagents.stop()

    def copied(
        self,
        *,
        listener: Listener,
        parent: Mapping[str, Any],
        cwd: Path,
        max_cost: float | None,
    ) -> Agent:
        """An agent like this one for a run of its own, which names its `parent` in the notebook.

        `cwd` is for an agent that was given none; `max_cost` in USD counts if it is lower.
        """
        if isinstance(self._options["kernel"], Kernel):
            raise SettingsError(
                f"Sub-agent {self.name!r} needs the name of a kernel, not a Kernel."
            )
        limits = [cost for cost in (self.limits.max_cost, max_cost) if cost is not None]
        role = f"You are `{self.name}`, which other code calls: {self.description}"
        agent = Agent(
            **self._options
            | {"instructions": f"{role}\n\n{self._options['instructions']}".rstrip()}
            | {"listener": listener, "cwd": self._options["cwd"] or cwd}
            | {"max_cost": min(limits, default=None)}
        )
        agent._beginning.parent = parent
        return agent

    def depth(self) -> int:
        """How many levels of sub-agents stand below this agent."""
        return self._subagents.depth()

    def run(
        self,
        task: str | None = None,
        *,
        data: Mapping[str, Any] | None = None,
        files: Sequence[str | Path] = (),
        images: Sequence[Any] = (),
        audio: Sequence[Any] = (),
        video: Sequence[Any] = (),
        out: str | Path | None = None,
        answer_type: Any = None,
    ) -> Run:
        """Solve `task` and return what came of it; the notebook is on disk all along.

        Without a `task` a run that was interrupted, failed or killed goes on. `data` are variables
        for the code; `files` are data files that the model is shown a preview of; `images`, `audio`
        and `video` go to the model itself (see `media.media`). `out` is the notebook's path for a
        first run. With an `answer_type` (any that pydantic knows) the answer is of that type: the
        model is told, and of one that does not fit, why. In the main thread, Ctrl-C ends the run as
        `interrupt` does, and a second one raises KeyboardInterrupt.

        Raises DataError, TranscriptError, KernelStartError, or ModelError for a model that cannot
        be asked, before anything is written; and ModelError when the model gives no reply: what
        was done until then is in the notebook.
        """
        data = data or {}
        if task is None and self.transcript is None:
            raise SettingsError("There is no task. Say in a sentence what you want to know.")
        if task is not None and not task.strip():
            raise SettingsError("The task is empty. Say in a sentence what you want to know.")
        if task is None and any(map(len, (data, files, images, audio, video))):
            raise SettingsError("Data, files and media go with a task, and there is none. Give it.")
        check_names(data)
        given = self._given(files, images, audio, video)
        self._loop.answer_type = answer_type
        if answer_type is not None:
            wanted(answer_type)  # a type that cannot be is told before anything is started
        if self.transcript is not None:
            if task is None and (outcome := self._unrecorded_outcome(self.transcript)):
                self.transcript.finish(outcome)
                return self._result(self.transcript)
            check_can_go_on(self.transcript, task)
        if callable(prepare := getattr(self._loop.model, "prepare", None)):
            prepare()
        if self._beginning.parent is None:
            # A sub-agent runs once, and stays interrupted even if that came before.
            self._loop.interrupted = False
        with first_ctrl_c(self.interrupt):
            transcript = self._beginning.begun(task or "", out, given)
            rebuilt = self._beginning.catch_up(transcript)
            self._beginning.take_on(transcript, task, replace(given, data=data), rebuilt)
            for _ in self.steps(transcript):
                pass
        return self._result(transcript)

    def first_request(
        self,
        task: str,
        *,
        files: Sequence[str | Path] = (),
        images: Sequence[Any] = (),
        audio: Sequence[Any] = (),
        video: Sequence[Any] = (),
    ) -> FirstRequest:
        """What `run` would ask the model first. The kernel is started; nothing is sent or written.

        Raises DataError, KernelStartError, and SettingsError for an agent that has run already.
        """
        if self.transcript is not None:
            raise SettingsError("There is a transcript already, so no request is the first.")
        given = self._given(files, images, audio, video)
        beginning = self._beginning
        beginning.start({})
        transcript = beginning.new_transcript(beginning.folder / "none.ipynb")
        messages = self._loop.first_messages(transcript, beginning.task(transcript, task, given))
        return FirstRequest(messages, self._loop.native_tools(transcript))

    def steps(self, transcript: Transcript) -> Iterator[Step]:
        """Drive `transcript` on, one step at a time, until its last task has an outcome."""
        return self._loop.steps(transcript)

    def _unrecorded_outcome(self, transcript: Transcript) -> Outcome | None:
        """How a run ended whose process was killed before it could write that down."""
        steps = transcript.task_steps
        if transcript.outcome is not None or transcript.pending or not steps:
            return None
        before = [entry for entry in transcript.task_entries if entry is not steps[-1]]
        limit = self.limits.reached(before, self._loop.ahead(transcript))
        return self._loop.outcome_of(transcript, limit)

    def _cost_left(self) -> float | None:
        """What is left of the task's budget in USD; None without one."""
        assert self.transcript is not None
        pending = filter(None, [self.transcript.pending])
        entries = (*self.transcript.task_entries, *pending)
        return self.limits.cost_left(entries, self._loop.ahead(self.transcript))

    def _given(
        self,
        files: Sequence[str | Path],
        images: Sequence[Any],
        audio: Sequence[Any],
        video: Sequence[Any],
    ) -> Given:
        """What goes with a task, found good before anything is started."""
        paths = [data_file(file, self._cells.kernel.cwd) for file in files]
        return Given(files=paths, images=media(images, audio=audio, video=video))

    def _result(self, transcript: Transcript) -> Run:
        assert transcript.outcome is not None
        answer, answer_type = transcript.answer, self._loop.answer_type
        if answer_type is not None and transcript.outcome.status == "answered":
            answer = typed(answer, answer_type)
        return Run(answer, transcript.outcome, transcript.usage, transcript.path, transcript)
