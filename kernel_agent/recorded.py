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
    OutputReceived,
    ReplyReceived,
    ReplyStarted,
    RunFinished,
    RunStarted,
    StepFinished,
)
from kernel_agent.steps import Outcome, Step, Task, Usage
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.cells import answer_value


def transcript_events(transcript: Transcript) -> Iterator[Event]:
    """The events of a recorded run, as its listener got them but for the streaming.

    A run that has no recorded end gets one that says so. Of earlier tasks of the same run only
    the answers are recorded, not how they ended.
    """
    about = transcript.about
    model = str(about.get("model", {}).get("name", "unknown model"))
    kernel = str(about.get("kernel", {}).get("name", "unknown kernel"))
    max_steps = about.get("limits", {}).get("max_steps") or len(transcript.steps)
    usage, number, answer = Usage(), 0, None
    for entry in transcript.entries:
        if isinstance(entry, Task):
            if answer is not None:
                yield RunFinished(Outcome("answered"), answer, usage, transcript.path)
            number, answer = 0, None
            yield RunStarted(entry, model, kernel, transcript.path)
            continue
        number += 1
        yield ReplyStarted(number, max_steps, usage)
        usage += entry.usage
        yield from _step_events(number, entry)
        yield StepFinished(number, entry, usage)
        answer = _answer(entry)
    if transcript.pending:
        yield from _step_events(number + 1, transcript.pending)
    outcome = transcript.outcome or Outcome(
        "failed", reason="its end is not recorded: it still goes on, or its process was killed"
    )
    yield RunFinished(outcome, transcript.answer, usage, transcript.path)


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
    if step.result and step.result.answer:
        return answer_value(step.result.answer)
    return None if step.result or step.observation else step.thought or None


def _step_events(number: int, step: Step) -> Iterator[Event]:
    yield ReplyReceived(step.reply)
    if step.result:
        yield CellStarted(number, step.thought, step.result.source)
        for output in step.result.outputs:
            yield OutputReceived(output)
