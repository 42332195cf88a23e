"""How a run begins or goes on: its kernel with the tools, its transcript, its state, its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kernel_agent.adapters import adapted
from kernel_agent.answer_types import wanted
from kernel_agent.built_in_tools import built_in
from kernel_agent.catching_up import bring_back, interrupted, is_worth_telling
from kernel_agent.errors import ToolError, TranscriptError
from kernel_agent.events import RunStarted, StateRebuilt
from kernel_agent.keeping import keep
from kernel_agent.loop import Loop
from kernel_agent.mcp_client import McpTools, mcp_tools
from kernel_agent.model import reply_format
from kernel_agent.opening import Given, begin, check_model, notebook_path, system_prompt, take_on
from kernel_agent.steps import Entry, Note, Rebuilt, Task
from kernel_agent.subagents import Subagents
from kernel_agent.tool_use import recorded_offers
from kernel_agent.tools import Toolbox, output_reader
from kernel_agent.transcript import Transcript, free_path
from kernel_agent.user_notebook import run_notebook


class Beginning:
    """All that is done before a `loop` can drive a transcript on; for the options see `Agent`.

    `parent` is what the notebook of a sub-agent's run names as its parent.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        tools: Sequence[Any],
        mcp: Sequence[Mapping[str, Any] | str],
        subagents: Subagents,
        folder: Path,
        instructions: str,
        transcript: Transcript | None,
        user_notebook: Path | None,
    ) -> None:
        self.transcript = transcript
        self.folder = folder
        self.parent: Mapping[str, Any] | None = None
        self._loop, self._cells = loop, loop.cells
        self._tools, self._mcp, self._subagents = tools, mcp, subagents
        self._servers: McpTools | None = None
        self._instructions = instructions
        self._user_notebook = user_notebook
        self._is_named = True  # by the user
        self._is_behind = transcript is not None  # the kernel lacks what the cells did

    def close(self) -> None:
        """End what the tools stand on."""
        self._cells.toolbox.close()
        if self._servers is not None:
            self._servers.close()

    def begun(self, task: str, out: str | Path | None, given: Given) -> Transcript:
        """The transcript, of a new run if there is none yet; the kernel is started."""
        model = self._loop.model
        if self.transcript is not None:
            check_model(model, given.images)
            self.start(self.transcript.about)
            self._use_format(self.transcript)
            return self.transcript
        path = notebook_path(task, folder=self.folder, out=out, user_notebook=self._user_notebook)
        self._is_named = out is not None
        self.start({})
        check_model(model, given.images)
        self.transcript = self.new_transcript(path)
        return self.transcript

    def start(self, about: Mapping[str, Any]) -> None:
        """Start the kernel, with the tools that `about` says the run had and those it has now.

        Raises KernelStartError, ToolError.
        """
        cells, kernel = self._cells, self._cells.kernel
        if not cells.toolbox.tools:
            cells.toolbox = Toolbox(self._all_tools())
        kernel.start()
        if kernel.language == "python":
            kernel.offer(recorded_offers(about) | cells.toolbox.stubs())
        elif self._tools or self._mcp or self._subagents:
            reason = f"kernel {kernel.name!r} is no Python kernel, so its code cannot call it."
            raise ToolError(cells.toolbox.tools[0].name, reason)

    def new_transcript(self, path: Path) -> Transcript:
        """The transcript of a new run, not saved yet; the kernel must have been started."""
        loop, cells = self._loop, self._cells
        facts: dict[str, Any] = {
            "max_chars": loop.max_chars,
            "on_death": cells.on_death,
            "rebuild_seconds": cells.rebuild_seconds,
        }
        facts |= {"snapshot": True} if cells.snapshot_bytes else {}
        facts |= {"parent": self.parent} if self.parent else {}
        facts |= {"plan_every": loop.plan_every} if loop.plan_every else {}
        facts |= {"instructions": self._instructions} if self._instructions else {}
        return begin(
            self._system_prompt(),
            loop.model,
            cells.kernel,
            path=path,
            limits=loop.limits,
            facts=facts,
            tools=cells.toolbox.tools,
            notebook=self._user_notebook,
        )

    def catch_up(self, transcript: Transcript) -> Rebuilt | None:
        """Give the kernel the state of a resumed run; None if there is nothing to be told."""
        if not self._is_behind:
            return None
        loop, cells = self._loop, self._cells
        rebuilt = bring_back(
            cells.kernel, transcript, ask=cells.ask_user, tell=loop.tell, stopped=self._is_stopped
        )
        if loop.interrupted:
            cells.kernel.restart()  # the next `run` begins with this again
            return None
        self._is_behind = False
        loop.tell(StateRebuilt(rebuilt))
        return rebuilt if is_worth_telling(rebuilt) else None

    def take_on(
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
            task = self.task(transcript, text, given, news)
            if transcript.tasks:
                keep(transcript, partial(transcript.add, task), loop.tell)
            else:
                self._add_first(transcript, task)
        kernel = self._cells.kernel.name
        loop.tell(RunStarted(task, loop.model.name, kernel, transcript.path))

    def _add_first(self, transcript: Transcript, task: Task) -> None:
        """Add the first task. Raises TranscriptError: nothing is lost yet if it cannot be saved."""
        try:
            transcript.add(task)
        except TranscriptError:
            path = transcript.path
            # Another run may have begun under the name that was chosen for this one.
            if self._is_named or path is None or not path.exists():
                raise
            transcript.path = free_path(path)
            transcript.save()

    def task(
        self, transcript: Transcript, text: str, given: Given, news: Rebuilt | None = None
    ) -> Task:
        """The task as the model is told it; the kernel is given its data."""
        loop, cells = self._loop, self._cells
        return take_on(
            text,
            given,
            transcript=transcript,
            kernel=cells.kernel,
            prompts=loop.prompts,
            rebuilt=news,
            notebook=self._user_cells(transcript),
            tools=cells.toolbox.tools,
            wanted=wanted(loop.answer_type) if loop.answer_type is not None else "",
        )

    def _use_format(self, transcript: Transcript) -> None:
        """Tell a model how to reply that does it in another way than the one before it."""
        form = reply_format(self._loop.model)
        if transcript.reply_format != form:
            transcript.system = self._system_prompt()
            transcript.about["reply_format"] = form

    def _system_prompt(self) -> str:
        loop, cells = self._loop, self._cells
        return system_prompt(
            loop.model,
            cells.kernel,
            loop.prompts,
            limits=loop.limits,
            cell_timeout=max(loop.limits.cell_timeout, cells.min_seconds),
            max_chars=loop.max_chars,
            instructions=self._instructions,
            tools=cells.toolbox.tools,
        )

    def _all_tools(self) -> list[Any]:
        tools: list[Any] = built_in([name for name in self._tools if isinstance(name, str)])
        tools += [adapted(tool) or tool for tool in self._tools if not isinstance(tool, str)]
        if self._mcp and self._servers is None:
            self._servers = mcp_tools(self._mcp)
        tools += self._servers.tools if self._servers else ()
        tools += self._subagents.tools()
        return [*tools, output_reader(self._entries)]

    def _entries(self) -> Sequence[Entry]:
        return self.transcript.entries if self.transcript else ()

    def _user_cells(self, transcript: Transcript) -> str:
        """The user's notebook as the first task shows it; empty if there is none."""
        if self._user_notebook is None or transcript.tasks:
            return ""
        return run_notebook(
            self._cells.kernel,
            self._user_notebook,
            transcript.entries,
            tell=self._loop.tell,
            stopped=self._is_stopped,
        )

    def _is_stopped(self) -> bool:
        return self._loop.interrupted
