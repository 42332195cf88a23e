"""The runs in a folder, told from the end of each notebook, where its metadata lie."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kernel_agent.steps import Outcome
from kernel_agent.transcript.cells import KEY

TAIL = 65_536  # bytes: more than the metadata of nearly every run take
MOST_TRIED = 40  # places in the tail that may be the beginning of the notebook's metadata
_METADATA = re.compile(rb'"metadata"\s*:\s*\{')

State = Literal["finished", "unfinished", "foreign", "damaged"]


@dataclass(frozen=True)
class ListedRun:
    """A notebook in a list.

    `state` is `"finished"`, `"unfinished"` (it still goes on, or was killed), `"foreign"` (a
    notebook that is no run) or `"damaged"` (`reason` says why). `outcome` is the last task's.
    `seconds` are those of model and kernel, `cost` is in USD; None where it is not known.
    """

    path: Path
    state: State
    started: datetime | None = None
    task: str = ""
    outcome: str = ""
    steps: int | None = None
    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None
    reason: str = ""


def list_runs(places: Iterable[Path], *, recursive: bool = False) -> list[ListedRun]:
    """The runs in `places`, newest first: of a folder all notebooks of runs, a file in any case.

    With `recursive` those in folders below, too; hidden ones and links to folders are not
    followed. Of a whole file only the end is read: one that is damaged in its middle is listed
    like any other.
    """
    runs: list[ListedRun] = []
    for place in places:
        if place.is_dir():
            found = (read_run(path) for path in _notebooks(place, recursive=recursive))
            runs += (run for run in found if run.state != "foreign")
        else:
            runs.append(read_run(place))
    oldest = datetime.min.replace(tzinfo=UTC)
    # By name first: those without a date keep this order.
    runs.sort(key=lambda run: str(run.path))
    return sorted(runs, key=lambda run: run.started or oldest, reverse=True)


def read_run(path: Path) -> ListedRun:
    """What the notebook at `path` tells of its run; its `state` says if it tells nothing."""
    try:
        metadata, cells = _metadata(path)
    except OSError as error:
        return ListedRun(path, "damaged", reason=error.strerror or str(error))
    except (ValueError, RecursionError) as error:
        return ListedRun(path, "damaged", reason=_why(error))
    known = metadata.get(KEY)
    if not isinstance(known, dict) or "exported_from" in known:
        return ListedRun(path, "foreign", reason="a notebook, but not of a run")
    run = known.get("run")
    if not isinstance(run, dict):
        return ListedRun(path, "damaged", reason=f"its metadata have no {KEY}.run")
    usage = known.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    outcome = _outcome(run.get("outcome"))
    return ListedRun(
        path,
        "finished" if outcome else "unfinished",
        started=_date(run.get("started")),
        task=known["task"] if isinstance(known.get("task"), str) else "",
        outcome=outcome or "unfinished",
        steps=_steps(run, path, cells),
        tokens=_sum(usage, "prompt_tokens", "completion_tokens"),
        cost=_number(usage.get("cost")),
        seconds=_sum(usage, "model_seconds", "kernel_seconds"),
    )


def _notebooks(folder: Path, *, recursive: bool) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in files:
            path = Path(place, name)
            if name.endswith(".ipynb") and not name.startswith(".") and path.is_file():
                yield path


def _metadata(path: Path) -> tuple[dict[str, Any], Sequence[Any] | None]:
    """The notebook's metadata, and its cells if they had to be read. Raises OSError, ValueError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - TAIL, 0))
        if (found := _from_tail(file.read())) is not None:
            return found, None
        file.seek(0)
        notebook = json.loads(file.read())
    match notebook:
        case {"metadata": dict(metadata), "cells": list(cells)}:
            return metadata, cells
    raise ValueError("it is no notebook: it needs `metadata` and `cells`")


def _from_tail(tail: bytes) -> dict[str, Any] | None:
    """The top-level metadata if they lie in the tail of the file, behind the cells.

    What follows the opening brace of a JSON object up to the end of the file is that object's end
    only if the object is the whole file: so nothing in a cell can be taken for it.
    """
    starts = [match.start() for match in _METADATA.finditer(tail)][-MOST_TRIED:]
    for start in reversed(starts):
        try:
            rest = json.loads(b"{" + tail[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(rest.get("nbformat"), int):
            return dict(rest["metadata"])
        return None
    return None


def _steps(run: dict[str, Any], path: Path, cells: Sequence[Any] | None) -> int | None:
    if type(steps := run.get("steps")) is int:
        return steps
    try:
        if cells is None:
            cells = json.loads(path.read_bytes())["cells"]
        return len({number for cell in cells or () if (number := _step(cell)) is not None})
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _step(cell: Any) -> int | None:
    match cell:
        case {"metadata": {"kernel_agent": {"step": int(number)}}}:
            return number
    return None


def _outcome(data: Any) -> str:
    match data:
        case {"status": "answered" | "limit" | "interrupted" | "failed" as status}:
            limit, reason = data.get("limit"), data.get("reason")
            return str(Outcome(status, limit, reason if isinstance(reason, str) else ""))
    return ""


def _date(text: Any) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _sum(usage: dict[str, Any], *names: str) -> Any:
    numbers = [number for name in names if (number := _number(usage.get(name))) is not None]
    return sum(numbers) if numbers else None


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"it holds no JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
