"""The record of a run: tasks and steps in order, saved as a notebook after each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Self, get_args

from kernel_agent.errors import TranscriptError
from kernel_agent.steps import (
    CellResult,
    Cut,
    Entry,
    Format,
    Message,
    Note,
    Outcome,
    Output,
    Plan,
    Step,
    Task,
    Usage,
    UserCell,
)
from kernel_agent.transcript.cells import (
    answer_value,
    cut_cell,
    has_more_than_text,
    note_cell,
    outcome_cells,
    plan_cell,
    step_cells,
    task_cells,
)
from kernel_agent.transcript.forking import parent_of, place_of_step
from kernel_agent.transcript.loading import Loaded, load, without_setup
from kernel_agent.transcript.messages import messages_of
from kernel_agent.transcript.metadata import Run, composed, new_id, outcomes_of
from kernel_agent.transcript.notebook import Notebook
from kernel_agent.transcript.reading import Mark, Problem
from kernel_agent.transcript.sealing import seal
from kernel_agent.transcript.setup import Setup
from kernel_agent.transcript.storable import (
    storable,
    storable_json,
    storable_output,
    storable_text,
)

_PYTHON = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Transcript:
    """Tasks and steps, and the notebook that they are saved in.

    `system` is the exact system prompt. `path` is where the notebook is saved, None to keep it in
    memory; it may be changed. `cwd` is the folder that the kernel works in, `prelude` source that
    makes a plain Jupyter kernel behave like ours. `about` are facts for the metadata, as JSON:
    `version`, `model`, `kernel`, `tools`, `limits`, `parent`, and the notebook's own `kernelspec`
    and `language_info`.

    What goes in is made storable first (see `storable`): a lone surrogate becomes U+FFFD, an odd
    output a valid one, so that memory and file hold equal entries. Each method that saves raises
    TranscriptError if it cannot; what it was given is kept, and `save` may be called again.

    Of one that was loaded, `problems` name what could not be used; `is_foreign` says that it is a
    notebook of a person's and not of a run, `written_here` that this machine wrote all its code.
    """

    def __init__(
        self,
        system: str,
        *,
        path: Path | None = None,
        cwd: Path | None = None,
        prelude: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.system = storable_text(system)
        self.path = path
        self.about: dict[str, Any] = storable_json(_PYTHON | dict(about or {}))
        self.outcome: Outcome | None = None
        self.problems: tuple[Problem, ...] = ()
        self.is_foreign = False
        self.written_here = True
        run = Run()
        self.run_id, self.started, self.finished = run.id, run.started, run.finished
        self._earlier_outcomes: list[Outcome | None] = []
        self._entries: list[Entry] = []
        self._marks: list[Mark] = []
        self._last = Mark()
        self._usage = Usage()
        self._pending: Step | None = None
        self._shown: Sequence[Output] = ()
        self._notebook = Notebook(setup=Setup(storable_text(prelude), cwd))
        self._other_metadata: dict[str, Any] = {}
        # Saving alone is no reason to vouch for what somebody else wrote.
        self._is_own_work = True
        self._loaded_seal: Any = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that happened, in order."""
        return tuple(self._entries)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(entry for entry in self._entries if isinstance(entry, Task))

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(entry for entry in self._entries if isinstance(entry, Step))

    @property
    def task_steps(self) -> tuple[Step, ...]:
        """The steps since the last task."""
        return tuple(entry for entry in self.task_entries if isinstance(entry, Step))

    @property
    def task_entries(self) -> tuple[Entry, ...]:
        """What has happened since the last task."""
        entries = list(
            takewhile(lambda entry: not isinstance(entry, Task), reversed(self._entries))
        )
        return tuple(reversed(entries))

    @property
    def outcomes(self) -> tuple[Outcome | None, ...]:
        """How each task ended; None for one that goes on, or of which it is not known."""
        if not any(isinstance(entry, Task) for entry in self._entries):
            return ()
        return (*self._earlier_outcomes, self.outcome)

    @property
    def pending(self) -> Step | None:
        """The step whose code is running, or was when the file was last written.

        Its result has the outputs so far and the status "ok"; it has no observation.
        """
        if self._pending is None or self._pending.result is None:
            return None
        outputs = tuple(storable_output(output) for output in self._shown)
        return replace(self._pending, result=replace(self._pending.result, outputs=outputs))

    @property
    def usage(self) -> Usage:
        """What the steps, the plans and the summaries have used in all."""
        return self._usage

    @property
    def answer(self) -> Any:
        """The last task's answer; None if there is none (yet).

        The value of `final_answer`, read anew each time: tables, arrays and images from the folder
        beside the notebook. What is not there, or cannot be read here, is its text.
        """
        output = self._answer_output()
        if output is None or not has_more_than_text(output):
            return self.plain_answer
        # Late: most answers do not need it, and its imports are slow.
        from kernel_agent.answers import decoded  # noqa: PLC0415

        return decoded(output, folder=self.path.parent if self.path else None)

    @property
    def plain_answer(self) -> Any:
        """The last task's answer as it can be shown: a JSON value or text; None without one."""
        if (output := self._answer_output()) is not None:
            return answer_value(output)
        match self._last_of_task():
            case Step(result=None, observation=None, thought=thought):
                return thought or None
        return None

    def _answer_output(self) -> Output | None:
        last = self._last_of_task()
        return last.result.answer if last and last.result and not last.refused else None

    @property
    def cwd(self) -> Path:
        """The folder that the kernel worked in, absolute: the notebook's own if nothing else."""
        folder = self._notebook.setup.cwd or (self.path.parent if self.path else Path())
        return folder.resolve()

    @property
    def reply_format(self) -> Format:
        """How the model was told to write its replies."""
        found = self.about.get("reply_format")
        return next((form for form in get_args(Format) if form == found), "fence")

    def facts(self, group: str) -> dict[str, Any]:
        """What `about` says under the name `group` (`"model"`, `"kernel"`); empty if nothing."""
        found = self.about.get(group)
        return found if isinstance(found, dict) else {}

    def messages(self, *more: Entry) -> list[Message]:
        """What the model is sent, derived from the system prompt and the entries alone.

        `more` are entries that are not in the record, after those that are.
        """
        native = self.reply_format == "tools"
        return messages_of(self.system, (*self._entries, *more), native=native)

    def add(self, entry: Task | Step | Note | Plan | Cut) -> None:
        """Append an entry, and save. A step takes the place of a pending one.

        A step that is still pending when something else comes stays in the notebook as a cell
        that never finished, and is no entry.
        """
        entry = storable(entry)
        match entry:
            case Step():
                self._add_step(entry)
            case Task():
                self._add_task(entry)
            case Note():
                self._last = replace(self._last, note=self._last.note + 1)
                self._notebook.leave_running()
                self._notebook.add([note_cell(entry, self._last.note)])
                self._append(entry, len(self._notebook))
            case Plan():
                self._last = replace(self._last, plan=self._last.plan + 1)
                self._notebook.leave_running()
                self._notebook.add([plan_cell(entry, self._last.plan)])
                self._usage += entry.usage
                self._append(entry, len(self._notebook))
            case Cut():
                self._last = replace(self._last, cut=self._last.cut + 1)
                self._notebook.leave_running()
                self._notebook.add([cut_cell(entry, self._last.cut)])
                self._usage += entry.usage
                self._append(entry, len(self._notebook))
        self._pending = self.outcome = self.finished = None
        self._is_own_work = True
        self.save()

    def begin(self, step: Step) -> None:
        """Save a step whose code is about to run: a reply that was paid for is on disk by then.

        It takes the place of one that is still pending. `step.result` may be there for its
        `source` and `started`.
        """
        result = step.result or CellResult(source="")
        step = storable(replace(step, result=replace(result, status="ok"), observation=None))
        self._last = replace(self._last, step=self._step_number())
        self._pending, self._shown = step, result.outputs
        self.outcome = self.finished = None
        self._is_own_work = True
        self._put_pending()
        self.save()

    def show(self, outputs: Sequence[Output]) -> None:
        """Save the running cell's outputs so far."""
        if self._pending is None:
            return
        self._shown = outputs
        self._put_pending()
        # What goes wrong here goes wrong again when the step ends, and the caller is told then.
        with suppress(TranscriptError):
            self.save()

    def finish(self, outcome: Outcome) -> None:
        """Say how the last task ended, and save."""
        outcome = storable(outcome)
        self.outcome, self.finished = outcome, datetime.now(UTC)
        self._notebook.add(outcome_cells(outcome, self._last_of_task(), self._last.task))
        self.save()

    def reopen(self) -> None:
        """The last task goes on: it has no outcome any more, whatever its last cell says."""
        self.outcome = self.finished = None

    def save(self) -> None:
        """Write the notebook to `path`; does nothing without one.

        The first time `path` must not exist yet, later it is replaced whole if nobody else has
        changed it. Raises TranscriptError, and what was at `path` is intact.
        """
        if self.path is not None:
            self._notebook.save(self.path, self._metadata(self.path.parent))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The transcript that was saved at `path`, ready to go on, there.

        What is damaged is left out or taken as what it can be; `problems` say so. A notebook of a
        person's is read too. Raises TranscriptError if there is no notebook of nbformat 4.
        """
        path = Path(path)
        return cls._of(load(path), path)

    @classmethod
    def continuing(
        cls,
        notebook: Path,
        system: str,
        *,
        path: Path,
        cwd: Path | None = None,
        prelude: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> Self:
        """A new run after the cells of a person's `notebook`, saved at `path`; not saved yet.

        `path` may be `notebook` itself. Raises TranscriptError if it cannot be read or is a
        transcript already.
        """
        transcript = cls.load(notebook)
        if not transcript.is_foreign:
            reason = "is the notebook of a run already. Resume it to go on with it"
            raise TranscriptError(notebook, reason)
        transcript.system, transcript.path = storable_text(system), Path(path)
        transcript.about = storable_json(_PYTHON | transcript.about | dict(about or {}))
        transcript._notebook.setup = Setup(storable_text(prelude), cwd)
        return transcript

    def move_on(self, path: Path) -> None:
        """Go on at `path` as a new run, whose parent this one was until now; not saved yet."""
        self.about["parent"] = parent_of(self.path, self.run_id, len(self.steps), path)
        self.run_id, self.path = new_id(), path

    def fork(self, at: int, path: Path) -> Self:
        """A new run, to be saved at `path`, that begins as this one did, up to step `at`.

        Steps are counted from 1; of a run without any, 0 gives all of it. Nothing is saved yet.
        Raises TranscriptError if there is no such step.
        """
        count = place_of_step(self._entries, at, self.path)
        mark = self._marks[count - 1] if count else Mark()
        fork = type(self)(self.system, path=Path(path))
        fork.about = storable_json(self.about)
        fork.about["parent"] = parent_of(self.path, self.run_id, at, Path(path))
        fork.problems, fork.written_here = self.problems, self.written_here
        fork._is_own_work = self._is_own_work
        fork._other_metadata = self._other_metadata
        setup = replace(self._notebook.setup, cwd=self.cwd)
        fork._notebook = self._notebook.first(mark.cells, setup)
        fork._take(self._entries[:count], self._marks[:count], mark)
        fork._earlier_outcomes = self._earlier_outcomes[: max(len(fork.tasks) - 1, 0)]
        return fork

    @classmethod
    def _of(cls, loaded: Loaded, path: Path) -> Self:
        run, read = loaded.run, loaded.read
        transcript = cls(run.system, path=path)
        transcript.about = run.about
        transcript.run_id, transcript.started = run.id, run.started
        transcript.finished, transcript.outcome = run.finished, run.outcome
        transcript.problems, transcript.is_foreign = loaded.problems, loaded.is_foreign
        transcript.written_here = transcript._is_own_work = loaded.written_here
        transcript._loaded_seal = run.seal
        marks = [replace(mark, cells=without_setup(mark.cells, read.setup)) for mark in read.marks]
        transcript._take(read.entries, marks, read.last)
        transcript._earlier_outcomes = list(outcomes_of(run, len(transcript.tasks)))
        if read.pending and read.pending.result:
            transcript._pending, transcript._shown = read.pending, read.pending.result.outputs
        transcript._other_metadata, transcript._notebook = loaded.other_metadata, loaded.notebook
        return transcript

    def _take(self, entries: Sequence[Entry], marks: Sequence[Mark], last: Mark) -> None:
        self._entries, self._marks, self._last = list(entries), list(marks), last
        used = (entry.usage for entry in self._entries if isinstance(entry, Step | Plan | Cut))
        self._usage = sum(used, Usage())

    def _add_task(self, task: Task) -> None:
        if self._last.task:
            self._earlier_outcomes.append(self.outcome)
        if not len(self._notebook):
            self._notebook.setup_at = 1  # behind the title
        self._last = replace(self._last, task=self._last.task + 1)
        self._notebook.leave_running()
        self._notebook.add(task_cells(task, self._last.task))
        self._append(task, len(self._notebook))

    def _add_step(self, step: Step) -> None:
        self._last = replace(self._last, step=self._step_number())
        end = self._put(step_cells(step, self._last.step))
        self._usage += step.usage
        self._append(step, end)

    def _append(self, entry: Entry, cells: int) -> None:
        """Add an entry whose cells end at `cells`: before cells that a person put behind them."""
        place = len(self._marks)
        while place and self._marks[place - 1].cells > cells:
            place -= 1
        self._entries.insert(place, entry)
        self._marks.insert(place, replace(self._last, cells=cells))

    def _put(self, cells: list[dict[str, Any]], *, running: bool = False) -> int:
        end, moved = self._notebook.put(cells, running=running)
        if moved and self._marks and self._marks[-1].cells > end - len(cells):
            self._marks = [
                replace(mark, cells=mark.cells + moved * (mark.cells > end - len(cells)))
                for mark in self._marks
            ]
        return end

    def _put_pending(self) -> None:
        if pending := self.pending:
            self._put(step_cells(pending, self._last.step, running=True), running=True)

    def _metadata(self, folder: Path) -> dict[str, Any]:
        about = storable_json(self.about)
        run = Run(self.run_id, self.system, about, self.started, self.finished, self.outcome)
        run.outcomes, run.seal = list(self.outcomes), self._loaded_seal
        if self._is_own_work:
            run.seal = seal(self.run_id, self._notebook.digests(folder))
        return composed(run, self._other_metadata, self._entries, self._usage)

    def _last_of_task(self) -> Step | None:
        for entry in reversed(self._entries):
            if not isinstance(entry, UserCell | Cut):
                return entry if isinstance(entry, Step) else None
        return None

    def _step_number(self) -> int:
        """The number of the pending step, or else of the next one."""
        return self._last.step + (self._pending is None)
