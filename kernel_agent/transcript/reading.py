"""Notebook cells become entries again, word for word; what cannot is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kernel_agent.steps import Entry, Note, Step, Task, UserCell
from kernel_agent.transcript.attachments import attached
from kernel_agent.transcript.cells import KEY, RUNNING, Cell
from kernel_agent.transcript.fields import Damaged, Fields, known_of, source_of
from kernel_agent.transcript.results import read_cut, read_plan, read_result, read_step


@dataclass(frozen=True)
class Problem:
    """What could not be used: `cell` is its id or `"cell 3"`, empty for the whole notebook."""

    cell: str
    reason: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.reason}" if self.cell else self.reason


@dataclass(frozen=True)
class Mark:
    """Where an entry ends: the number of cells until then, and the last numbers in use."""

    cells: int = 0
    task: int = 0
    step: int = 0
    note: int = 0
    plan: int = 0
    cut: int = 0


@dataclass
class Entries:
    """What the cells of a notebook tell.

    Each entry has one of `marks`. `pending` is the step that was running when the notebook was
    written, in the cells of `running`. `setup` is the place of the setup cell, `own` that of the
    first cell of ours. `last` has the highest numbers in use.
    """

    entries: list[Entry] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    pending: Step | None = None
    running: slice | None = None
    setup: int | None = None
    own: int | None = None
    last: Mark = Mark()
    problems: list[Problem] = field(default_factory=list)


def read_cells(cells: Sequence[Any]) -> Entries:
    """The entries in `cells` (see `joined`). Never raises: what cannot be used is a problem."""
    reader = _Reader(cells)
    for index in range(len(cells)):
        reader.read(index)
    return reader.found


def spoken_name(cell: Any, index: int) -> str:
    """What a cell is called in a problem: by its id, or else by its place."""
    name = cell.get("id") if isinstance(cell, dict) else None
    return name if isinstance(name, str) and name else f"cell {index + 1}"


class _Reader:
    """Goes through the cells once they have been looked through for what belongs together."""

    def __init__(self, cells: Sequence[Any]) -> None:
        self.cells = cells
        self.found = Entries()
        self._thoughts: dict[int, str] = {}
        self._setups: dict[int, int] = {}  # where the setup of a task is
        self._tasks: set[int] = set()
        self._numbers: dict[str, set[int]] = {
            name: set() for name in ("task", "step", "note", "plan", "cut")
        }
        for index, cell in enumerate(cells):
            match known_of(cell):
                case {"kind": "thought", "step": int(number)}:
                    self._thoughts.setdefault(number, source_of(cell) or "")
                case {"kind": "setup", "task": int(number)} if _is_code(cell):
                    self._setups.setdefault(number, index)
                case {"kind": "task", "task": int(number)} if not _is_code(cell):
                    self._tasks.add(number)

    def read(self, index: int) -> None:
        cell = self.cells[index]
        if not isinstance(cell, dict):
            self._problem(index, f"is of type {type(cell).__name__}, no cell. It is passed over.")
            return
        fields = Fields(known_of(cell))
        kind = fields.data.get("kind")
        if fields.data and self.found.own is None:
            self.found.own = index
        try:
            if _is_code(cell):
                self._read_code(index, cell, fields, kind)
            else:
                self._read_text(index, cell, fields, kind)
        except Damaged as error:
            if _is_code(cell):
                self._problem(index, f"{error} It is taken as a cell of the user's.")
                self._add_user_cell(index, cell)
            else:
                self._problem(index, f"{error} It is passed over.")
        for reason in fields.problems:
            self._problem(index, reason)

    def _read_code(self, index: int, cell: Cell, fields: Fields, kind: object) -> None:
        match kind:
            case "setup":
                self._read_setup(index, cell, fields)
            case "code":
                self._read_step(index, cell, fields)
            case _ if fields.data or KEY in _metadata(cell):
                raise Damaged(f"its kind is {kind!r}, which is none of a code cell.")
            case _:
                self._add_user_cell(index, cell)

    def _read_text(self, index: int, cell: Cell, fields: Fields, kind: object) -> None:
        match kind:
            case "task":
                self._read_task(index, cell, fields)
            case "note" if "note" in fields.data:
                self._read_note(index, cell, fields)
            case "plan":
                self._read_plan(index, fields)
            case "cut":
                self._read_cut(index, fields)
            case "code" | "note" | "answer" if "step" in fields.data:
                self._read_step(index, cell, fields)
            case "code" | "setup":
                raise Damaged(f"its kind is {kind!r}, but it is no code cell.")
            case "thought" | "reasoning" | "note" | "reason" | "answer":
                return
            case _ if fields.data or KEY in _metadata(cell):
                raise Damaged(f"its kind is {kind!r}, which is unknown.")

    def _read_setup(self, index: int, cell: Cell, fields: Fields) -> None:
        source = source_of(cell)
        if source is None:
            raise Damaged("its source is no text.")
        if "task" in fields.data:
            number = fields.data["task"]
            if not isinstance(number, int) or not self._is_setup_of(number, index):
                raise Damaged(f"it is the setup of task {number!r}, which is not there or has one.")
        elif self.found.setup is not None:
            raise Damaged("it is a second setup.")
        else:
            self.found.setup = index

    def _read_task(self, index: int, cell: Cell, fields: Fields) -> None:
        number = self._number(fields, "task", or_next=True)
        text = fields.get("text", str, source_of(cell) or "", is_needed=True)
        setup = self.cells[self._setups[number]] if number in self._setups else {}
        images, problems = attached(cell, fields.get("images", list, []))
        fields.problems += problems
        task = Task(
            text,
            fields.get("prompt", str, text, is_needed=True),
            tuple(images),
            source_of(setup) or "",
        )
        self._drop_pending()
        self._add(index, task)

    def _read_note(self, index: int, cell: Cell, fields: Fields) -> None:
        self._number(fields, "note", or_next=True)
        self._drop_pending()
        text = fields.get("text", str, source_of(cell) or "", is_needed=True)
        self._add(index, Note(text))

    def _read_plan(self, index: int, fields: Fields) -> None:
        self._number(fields, "plan", or_next=True)
        self._drop_pending()
        self._add(index, read_plan(fields))

    def _read_cut(self, index: int, fields: Fields) -> None:
        self._number(fields, "cut", or_next=True)
        self._drop_pending()
        self._add(index, read_cut(fields))

    def _read_step(self, index: int, cell: Cell, fields: Fields) -> None:
        number = self._number(fields, "step")
        step = read_step(cell, fields, self._thoughts.get(number, ""), is_code=_is_code(cell))
        self._drop_pending()
        if fields.data.get("status") != RUNNING or step.result is None:
            self._add(index, step)
            return
        self.found.pending = step
        self.found.running = slice(self._start_of(number, index), index + 1)

    def _start_of(self, number: int, index: int) -> int:
        """Where the cells of step `number` begin, of which the one at `index` is the last."""
        while index:
            match known_of(self.cells[index - 1]):
                case {"kind": "thought" | "reasoning", "step": step} if step == number:
                    index -= 1
                case _:
                    break
        return index

    def _number(self, fields: Fields, name: str, *, or_next: bool = False) -> int:
        """The number of an entry of this name. Raises Damaged if it is taken, or is none."""
        taken = self._numbers[name]
        number = fields.data.get(name)
        if or_next and (type(number) is not int or number < 1):
            number = 1 + max(*taken, *(self._tasks if name == "task" else ()), 0, 0)
            fields.problems.append(f"its {name} has no number.")
        if type(number) is not int or number < 1:
            raise Damaged(f"its {name} is {number!r}, no number.")
        if number in taken:
            raise Damaged(f"it is a copy of {name} {number}.")
        taken.add(number)
        last = self.found.last
        self.found.last = replace(last, **{name: max(number, getattr(last, name))})
        return number

    def _drop_pending(self) -> None:
        """The run went on without the step that was running."""
        if self.found.running is not None:
            index = self.found.running.stop - 1
            self._problem(index, "it never finished, and the run went on without it.")
        self.found.pending = self.found.running = None

    def _is_setup_of(self, number: int, index: int) -> bool:
        return number in self._tasks and self._setups.get(number) == index

    def _add_user_cell(self, index: int, cell: Cell) -> None:
        name = cell.get("id")
        fields = Fields({})
        result = read_result(cell, fields)
        for reason in fields.problems:
            self._problem(index, reason)
        self._add(index, UserCell(name if isinstance(name, str) else str(index + 1), result))

    def _add(self, index: int, entry: Entry) -> None:
        self.found.entries.append(entry)
        self.found.marks.append(replace(self.found.last, cells=index + 1))

    def _problem(self, index: int, reason: str) -> None:
        self.found.problems.append(Problem(spoken_name(self.cells[index], index), reason))


def _metadata(cell: Cell) -> dict[str, Any]:
    metadata = cell.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _is_code(cell: Any) -> bool:
    return isinstance(cell, dict) and cell.get("cell_type") == "code"
