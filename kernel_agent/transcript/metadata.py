"""What a notebook's own metadata say of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kernel_agent.steps import Entry, Outcome, Step, Task, Usage
from kernel_agent.transcript.cells import KEY, facts
from kernel_agent.transcript.fields import Damaged, Fields
from kernel_agent.transcript.results import read_outcome

FORMAT = 1
_OF_NOTEBOOK = ("kernelspec", "language_info")
"""What Jupyter keeps there, which is the notebook's and not the run's."""

_OF_RUN = ("format", "run", "task", "system", "usage")
_OBJECTS = ("model", "kernel", "limits", "parent", *_OF_NOTEBOOK)


def new_id() -> str:
    """An id for a run: 16 hexadecimal digits."""
    return os.urandom(8).hex()


@dataclass
class Run:
    """What the metadata of a transcript say; `problems` in sentences."""

    id: str = field(default_factory=new_id)
    system: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None
    outcome: Outcome | None = None
    outcomes: list[Outcome | None] = field(default_factory=list)
    seal: Any = None
    is_newer: bool = False
    problems: list[str] = field(default_factory=list)


def knows_run(metadata: object) -> bool:
    """Whether the metadata are those of a run, be they damaged."""
    known = metadata.get(KEY) if isinstance(metadata, dict) else None
    return isinstance(known, dict) and any(name in known for name in ("format", "run", "system"))


def read_run(metadata: object) -> Run:
    """The run of a notebook's `metadata`. Never raises: what cannot be used is a problem."""
    run = Run()
    there = metadata if isinstance(metadata, dict) else {}
    if not isinstance(metadata, dict):
        run.problems.append("its metadata are missing or no object.")
    known = there.get(KEY)
    fields = Fields(known if isinstance(known, dict) else {})
    about = {name: fact for name, fact in fields.data.items() if name not in _OF_RUN}
    about |= {name: there[name] for name in _OF_NOTEBOOK if name in there}
    for name in _OBJECTS:
        if name in about and not isinstance(about[name], dict):
            run.problems.append(f"its {name!r} is of type {type(about.pop(name)).__name__}.")
    run.about = about
    if not knows_run(metadata):
        return run
    _read_format(run, fields)
    run.system = fields.get("system", str, "", is_needed=True)
    _read_facts(run, fields.inner("run"))
    run.problems += fields.problems
    return run


def outcomes_of(run: Run, tasks: int) -> Sequence[Outcome | None]:
    """How the tasks ended but the last one; where it is not known, None."""
    earlier = run.outcomes[: max(tasks - 1, 0)]
    return [*earlier, *[None] * (max(tasks - 1, 0) - len(earlier))]


def composed(
    run: Run, other: Mapping[str, Any], entries: Sequence[Entry], usage: Usage
) -> dict[str, Any]:
    """The notebook's metadata; `other` are those that are not ours, and come first."""
    told = {
        "id": run.id,
        "started": run.started.isoformat(),
        "finished": run.finished and run.finished.isoformat(),
        "outcome": run.outcome and facts(run.outcome),
        "outcomes": [outcome and facts(outcome) for outcome in run.outcomes],
        "steps": sum(isinstance(entry, Step) for entry in entries),
    }
    if run.seal is not None:
        told["seal"] = run.seal
    known = {
        "format": FORMAT,
        "run": told,
        "task": next((entry.text for entry in entries if isinstance(entry, Task)), None),
        "system": run.system,
        "usage": vars(usage),
    }
    ours = {name: fact for name, fact in run.about.items() if name not in _OF_NOTEBOOK}
    missing = {name: run.about[name] for name in _OF_NOTEBOOK if name in run.about}
    return {**missing, **other, KEY: ours | known}


def _read_format(run: Run, fields: Fields) -> None:
    found = fields.data.get("format")
    if found == FORMAT:
        return
    run.is_newer = isinstance(found, int) and found > FORMAT
    reason = f"it has format {found!r}, this version reads format {FORMAT}"
    run.problems.append(f"{reason}: another version of kernel_agent wrote it.")


def _read_facts(run: Run, fields: Fields) -> None:
    run.id = fields.get("id", str, run.id, is_needed=True)
    run.started = _time(fields, "started") or run.started
    if fields.data.get("finished") is not None:
        run.finished = _time(fields, "finished")
    run.seal = fields.data.get("seal")
    run.outcome = _outcome(fields, fields.data.get("outcome"))
    run.outcomes = [_outcome(fields, item) for item in fields.get("outcomes", list, [])]
    run.problems += fields.problems


def _time(fields: Fields, name: str) -> datetime | None:
    text = fields.get(name, str, "", is_needed=True)
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        fields.problems.append(f"its {name!r} is {text!r}, no date.")
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _outcome(fields: Fields, data: object) -> Outcome | None:
    if data is None:
        return None
    if not isinstance(data, dict):
        fields.problems.append(f"an outcome is of type {type(data).__name__}.")
        return None
    inner = Fields(data)
    try:
        return read_outcome(inner)
    except Damaged as error:
        fields.problems.append(str(error))
    finally:
        fields.problems += inner.problems
    return None
