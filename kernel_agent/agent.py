"""The agent: solves tasks by code in a kernel of its own, and keeps the run as a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kernel_agent.adapters import adapted
from kernel_agent.answer_types import typed, wanted
from kernel_agent.approving import Approve, Check
from kernel_agent.built_in_tools import built_in
from kernel_agent.catching_up import bring_back, check_can_go_on, interrupted, is_worth_telling
from kernel_agent.ctrl_c import first_ctrl_c
from kernel_agent.data import check_names
from kernel_agent.errors import SettingsError, ToolError
from kernel_agent.events import Listener, RunStarted, StateRebuilt
from kernel_agent.keeping import keep
from kernel_agent.kernel import Kernel
from kernel_agent.limits import Limits
from kernel_agent.loop import Loop
from kernel_agent.mcp_client import McpTools, mcp_tools
from kernel_agent.media import media
from kernel_agent.model import Fallbacks, JsonTool, Model, as_model, reply_format
from kernel_agent.opening import (
    Given,
    begin,
    check_model,
    data_file,
    notebook_path,
    system_prompt,
    take_on,
)
from kernel_agent.planning import check_plan_every
from kernel_agent.prompts import Prompts
from kernel_agent.repeating import OnDeath
from kernel_agent.steps import Entry, Message, Note, Outcome, Rebuilt, Reply, Step, Task, Usage
from kernel_agent.subagents import CELL_SECONDS, Subagents
from kernel_agent.telling import Telling
from kernel_agent.tool_use import recorded_offers
from kernel_agent.tools import Toolbox, output_reader
from kernel_agent.transcript import Transcript
from kernel_agent.user_notebook import run_notebook


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
        self.transcript = transcript
        if isinstance(kernel, Kernel):
            if cwd or env or python or packages:
                reason = "cwd, env, python and packages belong to the Kernel: give them to it."
                raise SettingsError(reason)
        else:
            kernel = Kernel(
                kernel, cwd=cwd, env=env, python=python, packages=packages, on_progress=on_progress
            )
        self._loop = Loop(
            model=Fallbacks([model, *fallbacks]) if fallbacks else as_model(model),
            kernel=kernel,
            prompts=Prompts(Path(prompts) if prompts is not None else None),
            limits=self.limits,
            max_chars=max_chars,
            on_death=on_death,
            rebuild_seconds=rebuild_seconds,
            snapshot_bytes=snapshot_bytes if snapshot else 0,
            listener=Telling(listener),
            ask_user=ask_user,
            approve=approve,
            checks=(check,) if callable(check) else tuple(check),
            plan_every=check_plan_every(plan_every),
            toolbox=Toolbox([]),
        )
        self._tools = tools
        self._mcp = [*mcp]
        self._servers: McpTools | None = None
        self._subagents = Subagents(
            agents,
            cwd=kernel.cwd,
            transcript=lambda: self.transcript,
            budget=self._cost_left,
            tell=self._loop.tell,
        )
        self._loop.after_cell = self._subagents.end_cell
        if agents:
            self._loop.min_cell_timeout = CELL_SECONDS
        self._parent: Mapping[str, Any] | None = None
        self._folder = Path(folder)
        self._instructions = instructions
        self._user_notebook = user_notebook
        self._is_behind = transcript is not None  # the kernel lacks what the cells did

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
        self._loop.kernel.shutdown()
        self._loop.toolbox.close()
        if self._servers is not None:
            self._servers.close()

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
            | {"instructions": f"{role}\n\n{self._instructions}".rstrip()}
            | {"listener": listener, "cwd": self._options["cwd"] or cwd}
            | {"max_cost": min(limits, default=None)}
        )
        agent._parent = parent
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
        first run. With an `answer_type` (any that pydantic knows) the answer
        is of that type: the model is told, and of one that does not fit, why. In the main thread,
        Ctrl-C ends the run as `interrupt` does, and a second one raises KeyboardInterrupt.

        Raises DataError, TranscriptError, KernelStartError, or ModelError for a model that cannot
        be asked, before anything is written; and ModelError when the model gives no reply: what
        was done until then is in the notebook.
        """
        data = data or {}
        if task is None and self.transcript is None:
            raise SettingsError("There is no task. Say in a sentence what you want to know.")
        if task is not None and not task.strip():
            raise SettingsError("The task is empty. Say in a sentence what you want to know.")
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
        if self._parent is None:  # who runs once stays interrupted, even if that came before
            self._loop.interrupted = False
        with first_ctrl_c(self.interrupt):
            transcript = self._begun(task or "", out, given)
            rebuilt = self._catch_up(transcript)
            self._take_on(transcript, task, replace(given, data=data), rebuilt)
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
        self._start({})
        transcript = self._new_transcript(self._folder / "none.ipynb")
        task_entry = self._taken_on(transcript, task, given, None)
        messages = transcript.messages(task_entry)
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

    def _begun(self, task: str, out: str | Path | None, given: Given) -> Transcript:
        """The transcript, of a new run if there is none yet; the kernel is started."""
        loop = self._loop
        if self.transcript is not None:
            check_model(loop.model, given.images)
            self._start(self.transcript.about)
            self._use_format(self.transcript)
            return self.transcript
        path = notebook_path(task, folder=self._folder, out=out, user_notebook=self._user_notebook)
        self._start({})
        check_model(loop.model, given.images)
        self.transcript = self._new_transcript(path)
        return self.transcript

    def _new_transcript(self, path: Path) -> Transcript:
        loop = self._loop
        facts: dict[str, Any] = {
            "max_chars": loop.max_chars,
            "on_death": loop.on_death,
            "rebuild_seconds": loop.rebuild_seconds,
        }
        facts |= {"snapshot": True} if loop.snapshot_bytes else {}
        facts |= {"parent": self._parent} if self._parent else {}
        facts |= {"plan_every": loop.plan_every} if loop.plan_every else {}
        facts |= {"instructions": self._instructions} if self._instructions else {}
        return begin(
            self._system_prompt(),
            loop.model,
            loop.kernel,
            path=path,
            limits=self.limits,
            facts=facts,
            tools=loop.toolbox.tools,
            notebook=self._user_notebook,
        )

    def _use_format(self, transcript: Transcript) -> None:
        """Tell a model how to reply that does it in another way than the one before it."""
        form = reply_format(self._loop.model)
        if transcript.reply_format != form:
            transcript.system = self._system_prompt()
            transcript.about["reply_format"] = form

    def _system_prompt(self) -> str:
        loop = self._loop
        return system_prompt(
            loop.model,
            loop.kernel,
            loop.prompts,
            limits=self.limits,
            cell_timeout=max(self.limits.cell_timeout, loop.min_cell_timeout),
            instructions=self._instructions,
            tools=loop.toolbox.tools,
        )

    def _start(self, about: Mapping[str, Any]) -> None:
        """Start the kernel, with the tools that `about` says the run had and those it has now."""
        loop = self._loop
        if not loop.toolbox.tools:
            loop.toolbox = Toolbox(self._all_tools())
        loop.kernel.start()
        if loop.kernel.language == "python":
            loop.kernel.offer(recorded_offers(about) | loop.toolbox.stubs())
        elif self._tools or self._mcp or self._subagents:
            reason = f"kernel {loop.kernel.name!r} is no Python kernel, so its code cannot call it."
            raise ToolError(loop.toolbox.tools[0].name, reason)

    def _all_tools(self) -> list[Any]:
        tools: list[Any] = built_in([name for name in self._tools if isinstance(name, str)])
        tools += [adapted(tool) or tool for tool in self._tools if not isinstance(tool, str)]
        if self._mcp and self._servers is None:
            self._servers = mcp_tools(self._mcp)
        tools += self._servers.tools if self._servers else ()
        tools += self._subagents.tools()
        return [*tools, output_reader(self._entries)]

    def _cost_left(self) -> float | None:
        """What is left of the task's budget in USD; None without one."""
        assert self.transcript is not None
        pending = filter(None, [self.transcript.pending])
        entries = (*self.transcript.task_entries, *pending)
        return self.limits.cost_left(entries, self._loop.ahead(self.transcript))

    def _entries(self) -> Sequence[Entry]:
        return self.transcript.entries if self.transcript else ()

    def _catch_up(self, transcript: Transcript) -> Rebuilt | None:
        """Give the kernel the state of a resumed run; None if there is nothing to be told."""
        if not self._is_behind:
            return None
        loop = self._loop
        rebuilt = bring_back(
            loop.kernel, transcript, ask=loop.ask_user, tell=loop.tell, stopped=self._is_stopped
        )
        if loop.interrupted:
            loop.kernel.restart()  # the next `run` begins with this again
            return None
        self._is_behind = False
        loop.tell(StateRebuilt(rebuilt))
        return rebuilt if is_worth_telling(rebuilt) else None

    def _given(
        self,
        files: Sequence[str | Path],
        images: Sequence[Any],
        audio: Sequence[Any],
        video: Sequence[Any],
    ) -> Given:
        """What goes with a task, found good before anything is started."""
        paths = [data_file(file, self._loop.kernel.cwd) for file in files]
        return Given(files=paths, images=media(images, audio=audio, video=video))

    def _take_on(
        self, transcript: Transcript, text: str | None, given: Given, news: Rebuilt | None
    ) -> None:
        """Add the task; without one, the `news` that the model must know before it goes on."""
        loop = self._loop
        if (pending := transcript.pending) is not None:
            step = loop.observed(interrupted(pending), transcript, rebuilt=news)
            keep(transcript, partial(transcript.add, step), loop.tell)
            news = None
        if text is None:
            transcript.reopen()
            if news:
                note = Note(loop.prompts.render("rebuilt", rebuilt=news))
                keep(transcript, partial(transcript.add, note), loop.tell)
            task = transcript.tasks[-1]
        else:
            task = self._taken_on(transcript, text, given, news)
            if transcript.tasks:
                keep(transcript, partial(transcript.add, task), loop.tell)
            else:
                transcript.add(task)  # nothing is lost yet if it cannot be saved
        loop.tell(RunStarted(task, loop.model.name, loop.kernel.name, transcript.path))

    def _taken_on(
        self, transcript: Transcript, text: str, given: Given, news: Rebuilt | None
    ) -> Task:
        """The task as the model is told it; the kernel is given its data."""
        loop = self._loop
        return take_on(
            text,
            given,
            transcript=transcript,
            kernel=loop.kernel,
            prompts=loop.prompts,
            rebuilt=news,
            notebook=self._user_cells(transcript),
            tools=loop.toolbox.tools,
            wanted=wanted(loop.answer_type) if loop.answer_type is not None else "",
        )

    def _user_cells(self, transcript: Transcript) -> str:
        """The user's notebook as the first task shows it; empty if there is none."""
        if self._user_notebook is None or transcript.tasks:
            return ""
        loop, entries = self._loop, transcript.entries
        return run_notebook(
            loop.kernel, self._user_notebook, entries, tell=loop.tell, stopped=self._is_stopped
        )

    def _is_stopped(self) -> bool:
        return self._loop.interrupted

    def _result(self, transcript: Transcript) -> Run:
        assert transcript.outcome is not None
        answer, answer_type = transcript.answer, self._loop.answer_type
        if answer_type is not None and transcript.outcome.status == "answered":
            answer = typed(answer, answer_type)
        return Run(answer, transcript.outcome, transcript.usage, transcript.path, transcript)
