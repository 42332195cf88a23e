"""Events kept for later: those of a recorded run, and any event as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from kernel_agent.events import (
    CellStarted,
    Event,
    ModelChanged,
    OutputReceived,
    PlanFinished,
    PlanStarted,
    ReplyReceived,
    ReplyStarted,
    RoomMade,
    RunFinished,
    RunStarted,
    StepFinished,
)
from kernel_agent.steps import (
    CellResult,
    Cut,
    Outcome,
    Plan,
    Step,
    Task,
    Usage,
    UserCell,
)
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.cells import answer_value


def transcript_events(transcript: Transcript) -> Iterator[Event]:
    """The events of a recorded run, as its listener got them but for the streaming.

    A run that has no recorded end gets one that says so. A cell of the user's has number 0.
    """
    model = str(transcript.facts("model").get("name") or "unknown model")
    kernel = str(transcript.facts("kernel").get("name") or "unknown kernel")
    max_steps = transcript.facts("limits").get("max_steps")
    max_steps = max_steps if isinstance(max_steps, int) else len(transcript.steps)
    usage, number, answer, asked = Usage(), 0, None, ""
    earlier = iter(transcript.outcomes[:-1])
    ended: Outcome | None = None
    for entry in transcript.entries:
        if isinstance(entry, Task):
            if ended or answer is not None:
                yield RunFinished(ended or Outcome("answered"), answer, usage, transcript.path)
            number, answer, ended = 0, None, next(earlier, None)
            yield RunStarted(entry, model, kernel, transcript.path)
            continue
        if isinstance(entry, UserCell):
            yield from _cell_events(0, "", entry.result)
        if isinstance(entry, Cut):
            usage += entry.usage
            yield RoomMade(entry, usage)
        if isinstance(entry, Plan):
            yield PlanStarted(number + 1, max_steps, usage)
            usage += entry.usage
            yield PlanFinished(entry, usage)
        if not isinstance(entry, Step):
            continue
        number += 1
        yield ReplyStarted(number, max_steps, usage)
        usage += entry.usage
        if entry.reply.model != asked:
            asked = entry.reply.model
            yield ModelChanged(asked or model, "")  # why is not recorded
        yield from _step_events(number, entry)
        yield StepFinished(number, entry, usage)
        answer = _answer(entry)
    if transcript.pending:
        yield from _step_events(number + 1, transcript.pending)
    if not transcript.tasks:
        return
    outcome = transcript.outcome or Outcome(
        "failed", reason="its end is not recorded: it still goes on, or its process was killed"
    )
    yield RunFinished(outcome, transcript.plain_answer, usage, transcript.path)


def event_json(event: Event) -> dict[str, Any]:
    """The event as JSON values: `event` is the name of its class, the rest are its fields."""
    return {"event": type(event).__name__, **_json(event)}


def _json(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    match value:
        case Mapping():
            return {str(key): _json(item) for key, item in value.items()}
        case list() | tuple():
            return [_json(item) for item in value]
        case Path():
            return str(value)
        case float() if not math.isfinite(value):
            return None  # JSON has no word for it
    return value


def _answer(step: Step) -> Any:
    if step.refused:
        return None
    if step.result and step.result.answer:
        return answer_value(step.result.answer)
    return None if step.result or step.observation else step.thought or None


def _step_events(number: int, step: Step) -> Iterator[Event]:
    yield ReplyReceived(step.reply)
    if step.result:
        yield from _cell_events(number, step.thought, step.result)


def _cell_events(number: int, thought: str, result: CellResult) -> Iterator[Event]:
    yield CellStarted(number, thought, result.source)
    for output in result.outputs:
        yield OutputReceived(output)
