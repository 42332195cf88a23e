"""A notebook file becomes all that a transcript consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_agent.transcript import body as on_disk
from kernel_agent.transcript.body import LEAD, Body
from kernel_agent.transcript.cells import KEY
from kernel_agent.transcript.fields import known_of, source_of
from kernel_agent.transcript.layout import Layout
from kernel_agent.transcript.metadata import Run, knows_run, read_run
from kernel_agent.transcript.notebook import FIRST_MINOR_WITH_IDS, Frame, Notebook, read_layout_of
from kernel_agent.transcript.reading import Entries, Problem, read_cells, spoken_name
from kernel_agent.transcript.sealing import digest, is_sealed
from kernel_agent.transcript.setup import Setup
from kernel_agent.transcript.storable import storable_json
from kernel_agent.transcript.whole_file import Raw


@dataclass(frozen=True)
class Loaded:
    """All that a notebook tells: the `read` entries, the `run`, and the `notebook` to go on with.

    `other_metadata` are those that are not ours.
    """

    run: Run
    read: Entries
    notebook: Notebook
    other_metadata: dict[str, Any]
    problems: tuple[Problem, ...]
    is_foreign: bool
    written_here: bool


def load(path: Path) -> Loaded:
    """All that the notebook at `path` tells.

    Raises TranscriptError if it cannot be read or is no notebook of nbformat 4.
    """
    layout, identity = read_layout_of(path)
    metadata = storable_json(layout.facts.get("metadata"))
    read, run = read_cells(layout.cells), read_run(metadata)
    is_foreign = read.own is None and not knows_run(metadata)
    problems = list(_problems(layout, run))
    if not is_foreign and not knows_run(metadata) and isinstance(metadata, dict):
        reason = f"its metadata have no {KEY!r}: the system prompt of the run is lost."
        problems.append(Problem("", reason))
    notebook = _notebook(layout, read, metadata, path)
    notebook.own(path, identity)
    notebook.sealed_off = _why_sealed_off(layout, run)
    if read.running is not None:
        running, setup = read.running, read.setup
        notebook.run_on(
            slice(without_setup(running.start, setup), without_setup(running.stop, setup))
        )
    there = metadata if isinstance(metadata, dict) else {}
    return Loaded(
        run,
        read,
        notebook,
        {name: fact for name, fact in there.items() if name != KEY},
        (*problems, *read.problems),
        is_foreign,
        not layout.damage and is_sealed(run.seal, run.id, notebook.digests(path.parent)),
    )


def _problems(layout: Layout, run: Run) -> Iterator[Problem]:
    if layout.damage:
        reason = f"{layout.damage}; what comes after {len(layout.spans)} whole cells is lost."
        yield Problem("", reason)
    if layout.damage and "metadata" not in layout.facts:
        yield Problem("", "its metadata are lost, and with them the system prompt of the run.")
    else:
        yield from (Problem("", reason) for reason in run.problems)
    for index in layout.garbled:
        name = spoken_name(layout.cells[index], index)
        yield Problem(name, "it holds bytes that are no UTF-8; they are read as U+FFFD.")


def _why_sealed_off(layout: Layout, run: Run) -> str:
    if layout.damage:
        return "is cut off or damaged, and saving would lose what could not be read"
    if run.is_newer:
        return "was written by a newer version of kernel_agent"
    return ""


def _notebook(layout: Layout, read: Entries, metadata: object, path: Path) -> Notebook:
    """The cells as they lie on disk; those from the first running one on may still change."""
    data, spans, at = layout.data, layout.spans, read.setup
    lead = data[layout.start : spans[0].start] if spans else LEAD
    setup, setup_at = Setup(cwd=path.parent.resolve()), _place_for_setup(layout, read)
    if at is not None:
        setup_lead = data[spans[at - 1].stop : spans[at].start] if at else lead
        raw = bytes(data[spans[at]])
        setup = Setup.read(layout.cells[at], bytes(setup_lead), raw, path.parent)
        setup_at = at
        if at == 0 and len(spans) > 1:
            lead = data[spans[0].stop : spans[1].start]
    body = _body(layout, lead, read)
    return Notebook(body, _frame(layout, metadata), setup=setup, setup_at=setup_at)


def _body(layout: Layout, lead: Raw, read: Entries) -> Body:
    """All cells but the setup."""
    body, at = Body(lead), read.setup
    indices = [index for index in range(len(layout.spans)) if index != at]
    places = [
        slice(layout.spans[index - 1].stop if number else span.start, span.stop)
        for number, index in enumerate(indices)
        for span in [layout.spans[index]]
    ]
    cells = [
        on_disk.Cell(layout.data[place], _name(cell), _digest(cell))
        for place, index in zip(places, indices, strict=True)
        for cell in [layout.cells[index]]
    ]
    running = without_setup(read.running.start, at) if read.running else len(cells)
    split = min(at or 0, running)
    for part in (slice(0, split), slice(split, running)):
        if part.start < part.stop:
            whole = slice(places[part][0].start, places[part][-1].stop)
            body.add_finished(layout.data[whole], cells[part])
    body.replace(slice(running, running), cells[running:])
    return body


def without_setup(count: int, setup: int | None) -> int:
    """How many of the first `count` cells are not the one at `setup`."""
    return count - (setup is not None and setup < count)


def _place_for_setup(layout: Layout, read: Entries) -> int:
    """Before which cell a setup goes that is not there yet: behind our title, else before ours."""
    if read.own is None:
        return len(layout.spans)
    is_title = read.own == 0 and known_of(layout.cells[0]).get("kind") == "task"
    return read.own + is_title


def _frame(layout: Layout, metadata: object) -> Frame:
    """What stands around the cells; around those of a damaged file, what we write ourselves."""
    minor = layout.facts.get("nbformat_minor")
    has_ids = minor >= FIRST_MINOR_WITH_IDS if type(minor) is int else _have_ids(layout)
    data, start, end, spans = layout.data, layout.start or 0, layout.end, layout.spans
    if layout.damage:
        after = Frame.after if has_ids else b',\n "nbformat": 4,\n "nbformat_minor": 4\n}\n'
        return Frame(after=after, has_ids=has_ids)
    # Between the brackets of no cells there may be space, which goes when there are some.
    tail = data[spans[-1].stop : end] if spans else None
    place = layout.metadata
    if place is None:  # the file must get some
        brace = bytes(data[:start]).index(b"{") + 1
        return Frame(
            bytes(data[:brace]) + b'"metadata": ',
            b", " + bytes(data[brace:start]),
            data[end:],
            False,
            tail,
            has_ids,
        )
    raw = bytes(data[place])
    if place.start > start:
        return Frame(
            data[:start],
            data[end : place.start],
            data[place.stop :],
            True,
            tail,
            has_ids,
            metadata,
            raw,
        )
    return Frame(
        data[: place.start],
        data[place.stop : start],
        data[end:],
        False,
        tail,
        has_ids,
        metadata,
        raw,
    )


def _have_ids(layout: Layout) -> bool:
    return bool(layout.cells) and all(_name(cell) for cell in layout.cells)


def _name(cell: object) -> str:
    name = cell.get("id") if isinstance(cell, dict) else None
    return name if isinstance(name, str) else ""


def _digest(cell: object) -> bytes:
    """Of whatever might be executed; a source that is no text counts too."""
    if not isinstance(cell, dict) or cell.get("cell_type") != "code":
        return b""
    source = source_of(cell)
    return digest(source if source is not None else repr(cell.get("source")))
