"""What a run tells those who watch it: a listener is any callable that takes one event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_agent.steps import Cut, Outcome, Output, Plan, Rebuilt, Reply, Step, Task, Usage


@dataclass(frozen=True)
class RunStarted:
    """A task was taken on; `path` is the transcript's, `None` if it is not saved."""

    task: Task
    model: str
    kernel: str
    path: Path | None


@dataclass(frozen=True)
class ReplyStarted:
    """The model is being asked for the reply of step `number` (from 1) of at most `max_steps`."""

    number: int
    max_steps: int
    usage: Usage


@dataclass(frozen=True)
class ReplyText:
    """The next piece of the reply's text as it streams in; `reasoning` if it is a draft."""

    text: str
    reasoning: bool = False


@dataclass(frozen=True)
class ReplyRetried:
    """A request failed in a way that is worth another try, which comes in `wait` seconds.

    What has been streamed of the failed reply is void.
    """

    reason: str
    wait: float
    attempt: int


@dataclass(frozen=True)
class RequestHeld:
    """The next request waits for `wait` seconds: `reason` says for what."""

    reason: str
    wait: float


@dataclass(frozen=True)
class ModelChanged:
    """From now on `model` is asked, a fallback or again the first: `reason` says why.

    What has been streamed of a reply before it is void.
    """

    model: str
    reason: str


@dataclass(frozen=True)
class RoomMade:
    """The model is shown less of what was before, as the `cut` says; it is on disk."""

    cut: Cut
    usage: Usage


@dataclass(frozen=True)
class ReplyReceived:
    """The reply is complete."""

    reply: Reply


@dataclass(frozen=True)
class PlanStarted:
    """The model is being asked for a plan, before step `number` (from 1) of at most `max_steps`.

    The plan streams in as `ReplyText`.
    """

    number: int
    max_steps: int
    usage: Usage


@dataclass(frozen=True)
class PlanFinished:
    """The plan is complete and on disk; `usage` is the run's so far."""

    plan: Plan
    usage: Usage


@dataclass(frozen=True)
class ApprovalAsked:
    """The code of step `number` is not run before the user says so; `thought` is its prose."""

    number: int
    thought: str
    source: str


@dataclass(frozen=True)
class CellStarted:
    """The code of step `number` starts to run; `thought` is the prose that came with it."""

    number: int
    thought: str
    source: str


@dataclass(frozen=True)
class OutputReceived:
    """A new output of the running cell; for a stream the new piece of its text."""

    output: Output


@dataclass(frozen=True)
class StepFinished:
    """Step `number` is complete and on disk; `usage` is the run's so far."""

    number: int
    step: Step
    usage: Usage


@dataclass(frozen=True)
class CellRepeated:
    """A recorded cell, number `number` (from 1) of `of`, was run again to get the state back.

    `name` is what it is called (`"step 3"`).
    """

    name: str
    number: int
    of: int


@dataclass(frozen=True)
class StateRebuilt:
    """A resumed run's kernel holds its state again, or what `rebuilt` says of it."""

    rebuilt: Rebuilt


@dataclass(frozen=True)
class SnapshotTaken:
    """The variables are stored as they are after a step.

    `skipped` are those that are not, by name, with the reason; `written` are the new bytes.
    """

    names: tuple[str, ...]
    skipped: Mapping[str, str]
    written: int


@dataclass(frozen=True)
class TranscriptMoved:
    """The notebook could not be saved where it was, for this `reason`: it is at `path` now."""

    path: Path
    reason: str


@dataclass(frozen=True)
class SubagentTold:
    """The sub-agent `name`, which a cell has called, tells an `event` of its own run.

    It comes in the thread of the call; two listeners are never called at once.
    """

    name: str
    event: Event


@dataclass(frozen=True)
class RunFinished:
    """The run is over. `answer` is a JSON value or text, `None` without one."""

    outcome: Outcome
    answer: Any
    usage: Usage
    path: Path | None


Event = (
    RunStarted
    | ReplyStarted
    | ReplyText
    | ReplyRetried
    | RequestHeld
    | ModelChanged
    | RoomMade
    | ReplyReceived
    | PlanStarted
    | PlanFinished
    | ApprovalAsked
    | CellStarted
    | OutputReceived
    | StepFinished
    | CellRepeated
    | StateRebuilt
    | SnapshotTaken
    | TranscriptMoved
    | SubagentTold
    | RunFinished
)

Listener = Callable[[Event], None]
