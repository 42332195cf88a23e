"""Agents as functions that another agent's code calls: each call is a run of its own."""

from __future__ import annotations

import keyword
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from kernel_agent.errors import SettingsError
from kernel_agent.events import (
    Event,
    Listener,
    PlanFinished,
    RoomMade,
    RunFinished,
    StepFinished,
    SubagentTold,
)
from kernel_agent.kernel.serving import tell_used
from kernel_agent.limits import SMALLEST
from kernel_agent.steps import Outcome, Usage
from kernel_agent.tools import Tool
from kernel_agent.transcript import Transcript, free_path

MAX_DEPTH = 3
"""How deep agents may stand inside each other."""

CELL_SECONDS = 3_600.0
"""How long a cell may run that can call agents: they ask models, which takes its time."""

STUB = '''\
def {name}(task: str, **data):
    """{description}

    An agent of its own: it knows only `task` and the variables that you give it in `data`, and
    returns its answer, which the user does not see. It takes minutes, so ask for all that belongs
    together in one call.
    """
'''


class Answered(Protocol):
    """What a run of a sub-agent has come to; see `agent.Run`."""

    @property
    def answer(self) -> Any: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def path(self) -> Path | None: ...


class Runner(Protocol):
    """An agent that is ready for one run; see `agent.Agent`."""

    def close(self) -> None: ...
    def run(self, task: str, *, data: Mapping[str, Any] | None, out: Path) -> Answered: ...
    def interrupt(self) -> None: ...


class Subagent(Protocol):
    """What an agent needs to be one of another's functions."""

    name: str
    description: str

    def depth(self) -> int: ...
    def copied(
        self,
        *,
        listener: Listener,
        parent: Mapping[str, Any],
        cwd: Path,
        max_cost: float | None,
    ) -> Runner: ...


class Subagents:
    """The sub-agents of one agent: as tools, and those of them that are running.

    `cwd` is the folder that they work in unless they have one of their own, `budget` tells how
    much they may cost (USD, None for no limit).
    """

    def __init__(
        self,
        agents: Sequence[Subagent],
        *,
        cwd: Path,
        budget: Callable[[], float | None],
        transcript: Callable[[], Transcript | None],
        tell: Callable[[Event], None],
    ) -> None:
        for agent in agents:
            check_subagent(agent)
        self._agents = tuple(agents)
        self._cwd = cwd
        self._budget = budget
        self._transcript = transcript
        self._tell = tell
        self._running: set[Runner] = set()
        self._lock = threading.Lock()
        self._taken: set[Path] = set()
        self._costs: dict[Path, float] = {}  # of the runs that the running cell has called, in USD

    def __bool__(self) -> bool:
        return bool(self._agents)

    def tools(self) -> list[Tool]:
        """A tool for each agent."""
        return [self._tool(agent) for agent in self._agents]

    def depth(self) -> int:
        """How many levels of agents stand below this one."""
        return max((1 + agent.depth() for agent in self._agents), default=0)

    def stop(self) -> None:
        """End the runs that are under way: nobody waits for them any more."""
        with self._lock:
            running = list(self._running)
        for runner in running:
            runner.interrupt()

    def end_cell(self) -> None:
        """The cell that called them is over, and so are they; the cell's result has their costs."""
        self.stop()
        with self._lock:
            self._costs.clear()

    def _tool(self, agent: Subagent) -> Tool:
        def call(task: str, **data: Any) -> Any:
            return self._run(agent, task, data)

        description = (
            " ".join(agent.description.split()).replace("\\", "\\\\").replace('"""', "'''")
        )
        stub = STUB.format(name=agent.name, description=description)
        return Tool(agent.name, stub, call, timeout=None)

    def _run(self, agent: Subagent, task: str, data: Mapping[str, Any]) -> Any:
        transcript = self._transcript()
        assert transcript is not None and transcript.path is not None
        step = len(transcript.steps) + 1
        path = self._path(transcript.path, agent.name)
        parent = {"path": transcript.path.name, "run": transcript.run_id, "step": step}
        budget = self._budget()

        def told(event: Event) -> None:
            self._tell(SubagentTold(agent.name, event))
            if isinstance(event, StepFinished | PlanFinished | RoomMade | RunFinished):
                tell_used(_counted(event.usage), path.name)
                if self._is_used_up(path, event.usage, budget):
                    self.stop()

        tell_used(Usage(), path.name)
        with self._lock:
            spent = sum(self._costs.values())
        runner = agent.copied(
            listener=told,
            parent=parent,
            cwd=self._cwd,
            max_cost=None if budget is None else max(budget - spent, SMALLEST),
        )
        with self._lock:
            self._running.add(runner)
        try:
            done = runner.run(task, data=data, out=path)
        finally:
            runner.close()
            with self._lock:
                self._running.discard(runner)
        if done.outcome.status != "answered":
            raise RuntimeError(f"{agent.name} {done.outcome}. Its notebook: {path.name}")
        tell_used(_counted(done.usage), (done.path or path).name)
        return done.answer

    def _is_used_up(self, path: Path, usage: Usage, budget: float | None) -> bool:
        """Whether the runs that the cell has called have used up the budget together."""
        with self._lock:
            self._costs[path] = usage.cost or 0.0
            return budget is not None and sum(self._costs.values()) > budget

    def _path(self, notebook: Path, name: str) -> Path:
        """A notebook beside the run's own that nobody has taken."""
        with self._lock:
            path = free_path(notebook.with_stem(f"{notebook.stem}-{name}"), self._taken)
            self._taken.add(path)
            return path


def _counted(usage: Usage) -> Usage:
    """What counts of a run's usage for its parent: the cell that waits has the kernel's seconds."""
    return replace(usage, kernel_seconds=0.0)


def check_subagent(agent: Subagent) -> None:
    """Raises SettingsError for an agent that cannot be another's function."""
    name = agent.name
    if not name.isidentifier() or keyword.iskeyword(name):
        raise SettingsError(f"A sub-agent needs a name that a function can have, not {name!r}.")
    if not agent.description.strip():
        raise SettingsError(f"Sub-agent {name!r} needs a description: the model chooses by it.")
    if agent.depth() + 1 > MAX_DEPTH:
        raise SettingsError(f"Sub-agent {name!r}: agents stand at most {MAX_DEPTH} deep.")
