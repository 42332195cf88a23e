"""Notebook cells become entries again, word for word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_args

from kernel_agent.steps import (
    CellResult,
    CellStatus,
    Limit,
    Observation,
    Outcome,
    Output,
    Reply,
    Step,
    Task,
    Usage,
)
from kernel_agent.transcript.cells import ANSWER_HEADING, KEY, RUNNING, Cell, data_url
from kernel_agent.transcript.storable import storable_output

Kind = TypeVar("Kind")


@dataclass
class Entries:
    """What the cells of a notebook tell.

    `pending` is the step that was running when the notebook was written, in the cells of
    `running`. `task_numbers` and `step_numbers` are those that cells have.
    """

    entries: list[Task | Step] = field(default_factory=list)
    pending: Step | None = None
    running: slice | None = None
    task_numbers: set[int] = field(default_factory=set)
    step_numbers: set[int] = field(default_factory=set)


def read_cells(cells: Sequence[Cell]) -> Entries:
    """The entries in `cells` as they lie on disk.

    Cells that a person has added are passed over, and so are copies of ours. Raises ValueError
    that says which cell is damaged.
    """
    read = Entries()
    texts: dict[tuple[str, int], str] = {}
    for index, cell in enumerate(cells):
        try:
            match _known(cell):
                case {"kind": "thought", "step": int(number)}:
                    texts.setdefault(("thought", number), _source(cell))
                case {"kind": "setup", "task": int(number)}:
                    texts.setdefault(("setup", number), _source(cell))
        except ValueError as error:
            raise _damaged(index, cell, error) from error
    for index, cell in enumerate(cells):
        try:
            match _known(cell):
                case {"kind": "task"} as known:
                    _read_task(read, known, texts)
                case {"kind": "code" | "note" | "answer", "step": _} as known:
                    _read_step(read, cells, index, known, texts)
        except ValueError as error:
            raise _damaged(index, cell, error) from error
    return read


def read_outcome(data: Mapping[str, Any]) -> Outcome:
    """An outcome from the notebook's metadata. Raises ValueError."""
    status = _one_of(data, "status", ("answered", "limit", "interrupted", "failed"))
    limit = None if data.get("limit") is None else _one_of(data, "limit", get_args(Limit))
    return Outcome(status, limit, get(data, "reason", str, ""))


def get(data: Mapping[str, Any], name: str, kind: type[Kind], default: Kind | None = None) -> Kind:
    """`data[name]`, which must be a `kind`. Raises ValueError; so it does without a default."""
    value = data.get(name, default)
    if isinstance(value, kind) or (kind is float and isinstance(value, int)):
        return value  # type: ignore[return-value]
    if name not in data:
        raise ValueError(f"it has no {name!r}")
    raise ValueError(f"its {name!r} is of type {type(value).__name__}, not {kind.__name__}")


def _damaged(index: int, cell: Cell, error: ValueError) -> ValueError:
    return ValueError(f"cell {index} (id {cell.get('id')!r}) is damaged: {error}")


def _known(cell: Cell) -> dict[str, Any]:
    """What we know of a cell; nothing of a person's."""
    metadata = cell.get("metadata")
    known = metadata.get(KEY) if isinstance(metadata, dict) else None
    return known if isinstance(known, dict) else {}


def _source(cell: Cell) -> str:
    match cell.get("source"):
        case str() as source:
            return source
        case list() as lines if all(isinstance(line, str) for line in lines):
            return "".join(lines)
    raise ValueError("its source is no text")


def _read_task(read: Entries, known: dict[str, Any], texts: dict[tuple[str, int], str]) -> None:
    number = get(known, "task", int)
    if number in read.task_numbers:
        return
    read.task_numbers.add(number)
    read.pending = read.running = None
    read.entries.append(
        Task(
            get(known, "text", str),
            get(known, "prompt", str),
            tuple(_texts(known, "images")),
            texts.get(("setup", number), ""),
        )
    )


def _read_step(
    read: Entries,
    cells: Sequence[Cell],
    index: int,
    known: dict[str, Any],
    texts: dict[tuple[str, int], str],
) -> None:
    number = get(known, "step", int)
    if number in read.step_numbers:
        return
    read.step_numbers.add(number)
    read.pending = read.running = None
    cell = cells[index]
    step = _step(cell, known, texts.get(("thought", number), ""))
    if known.get("status") != RUNNING:
        read.entries.append(step)
        return
    before = _known(cells[index - 1]) if index else {}
    above = before.get("kind") == "thought" and before.get("step") == number
    read.pending, read.running = step, slice(index - above, index + 1)


def _step(cell: Cell, known: dict[str, Any], thought: str) -> Step:
    text = get(known, "reply", str)
    reply = Reply(
        text,
        get(known, "reasoning", str, ""),
        None if known.get("finish_reason") is None else get(known, "finish_reason", str),
        _usage(get(known, "usage", dict)),
    )
    result = _result(cell, known) if known["kind"] == "code" else None
    if known["kind"] == "answer":
        thought = _source(cell).removeprefix(ANSWER_HEADING)
    return Step(
        reply,
        get(known, "said", str, text),
        get(known, "thought", str, thought),
        result,
        _observation(get(known, "observation", dict), result) if "observation" in known else None,
    )


def _result(cell: Cell, known: dict[str, Any]) -> CellResult:
    status = _one_of(known, "status", (*get_args(CellStatus), RUNNING))
    outputs = get(cell, "outputs", list)
    if not all(isinstance(output, dict) for output in outputs):
        raise ValueError("an output is no object")
    count = cell.get("execution_count")
    return CellResult(
        source=_source(cell),
        status="ok" if status == RUNNING else status,
        outputs=tuple(storable_output(output) for output in outputs),
        execution_count=count if isinstance(count, int) else None,
        seconds=get(known, "seconds", float, 0.0),
        started=get(known, "started", float, 0.0),
        reason=get(known, "reason", str, ""),
        variables=get(known, "variables", dict, {}),
        stopped_by=get(known, "stopped_by", str, ""),
        inputs=tuple(_inputs(known)),
    )


def _observation(data: dict[str, Any], result: CellResult | None) -> Observation:
    images = []
    for image in get(data, "images", list, []):
        match image:
            case str():
                images.append(image)
            case {"output": int(index), "mime": str(mime)}:
                # A person may have cleared the outputs: then there is no image any more.
                outputs: tuple[Output, ...] = result.outputs if result else ()
                url = data_url(outputs[index], mime) if 0 <= index < len(outputs) else None
                images += [url] if url else []
            case _:
                raise ValueError(f"an image is of type {type(image).__name__}")
    return Observation(get(data, "text", str), tuple(images))


def _usage(data: dict[str, Any]) -> Usage:
    numbers: dict[str, Any] = {
        part.name: get(data, part.name, type(part.default))
        for part in fields(Usage)
        if data.get(part.name) is not None
    }
    if "cost" in data:
        numbers["cost"] = None if data["cost"] is None else get(data, "cost", float)
    return Usage(**numbers)


def _texts(data: dict[str, Any], name: str) -> list[str]:
    texts = get(data, name, list, [])
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"its {name!r} are not all text")
    return texts


def _inputs(data: dict[str, Any]) -> list[str | None]:
    inputs = get(data, "inputs", list, [])
    if not all(text is None or isinstance(text, str) for text in inputs):
        raise ValueError("its 'inputs' are not all text")
    return inputs


def _one_of(data: Mapping[str, Any], name: str, allowed: Sequence[str]) -> Any:
    value = data.get(name)
    if value not in allowed:
        raise ValueError(f"its {name!r} is {value!r}, not one of {', '.join(allowed)}")
    return value
