"""The record of a run: tasks and steps in order, saved as a notebook after each of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kernel_agent.errors import TranscriptError
from kernel_agent.steps import CellResult, Message, Outcome, Output, Step, Task, Usage
from kernel_agent.transcript.cells import (
    KEY,
    Cell,
    answer_value,
    facts,
    outcome_cells,
    setup_cell,
    step_cells,
    task_cells,
)
from kernel_agent.transcript.messages import messages_of
from kernel_agent.transcript.notebook import Notebook, read_notebook
from kernel_agent.transcript.reading import get, read_cells, read_outcome
from kernel_agent.transcript.storable import (
    storable,
    storable_json,
    storable_output,
    storable_text,
)

FORMAT = 1
_OF_NOTEBOOK = ("kernelspec", "language_info")
_OF_RUN = ("format", "run", "task", "system", "usage")
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
        self.run_id = os.urandom(8).hex()
        self.started = datetime.now(UTC)
        self.finished: datetime | None = None
        self.outcome: Outcome | None = None
        self._cwd = cwd
        self._prelude = storable_text(prelude)
        self._entries: list[Task | Step] = []
        self._usage = Usage()
        self._pending: Step | None = None
        self._shown: Sequence[Output] = ()
        self._last_task = 0
        self._last_step = 0
        self._notebook = Notebook()
        self._other_metadata: dict[str, Any] = {}

    @property
    def entries(self) -> tuple[Task | Step, ...]:
        """Tasks and steps in order."""
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
        steps: list[Step] = []
        for entry in reversed(self._entries):
            if isinstance(entry, Task):
                break
            steps.append(entry)
        return tuple(reversed(steps))

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
        """What the steps have used in all."""
        return self._usage

    @property
    def answer(self) -> Any:
        """The last task's answer: a JSON value or text; None if there is none (yet)."""
        last = self._last_of_task()
        match last:
            case Step(result=CellResult(answer=dict() as output)):
                return answer_value(output)
            case Step(result=None, observation=None):
                return last.thought or None
        return None

    def messages(self) -> list[Message]:
        """What the model is sent, derived from the system prompt and the entries alone."""
        return messages_of(self.system, self._entries)

    def add(self, entry: Task | Step) -> None:
        """Append a task or a step, and save. A step takes the place of a pending one.

        A step that is still pending when a task comes stays in the notebook as a cell that never
        finished, and is no entry.
        """
        entry = storable(entry)
        if isinstance(entry, Task):
            self._last_task += 1
            self._notebook.leave_running()
            self._notebook.add(task_cells(entry, self._last_task))
        else:
            self._last_step = self._step_number()
            self._notebook.put(step_cells(entry, self._last_step))
            self._usage += entry.usage
        self._entries.append(entry)
        self._pending = self.outcome = self.finished = None
        self.save()

    def begin(self, step: Step) -> None:
        """Save a step whose code is about to run: a reply that was paid for is on disk by then.

        It takes the place of one that is still pending. `step.result` may be there for its
        `source` and `started`.
        """
        result = step.result or CellResult(source="")
        step = storable(replace(step, result=replace(result, status="ok"), observation=None))
        self._last_step = self._step_number()
        self._pending, self._shown = step, result.outputs
        self.outcome = self.finished = None
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
        self._notebook.add(outcome_cells(outcome, self._last_of_task(), self._last_task))
        self.save()

    def save(self) -> None:
        """Write the notebook to `path`; does nothing without one.

        The first time `path` must not exist yet, later it is replaced whole. Raises
        TranscriptError, and what was at `path` is intact.
        """
        if self.path is not None:
            setup = setup_cell(self._prelude, self._cwd, self.path.parent)
            self._notebook.save(self.path, self._metadata(), setup)

    @classmethod
    def load(cls, path: Path) -> Transcript:
        """The transcript that was saved at `path`, ready to go on, there.

        Raises TranscriptError if it cannot be read, is no notebook, no transcript, damaged, or of
        a newer format.
        """
        path = Path(path)
        notebook = read_notebook(path)
        metadata = notebook["metadata"]
        known = metadata.get(KEY)
        if not isinstance(known, dict):
            reason = f"is a notebook but no transcript: its metadata have no {KEY!r}"
            raise TranscriptError(path, reason)
        if known.get("format") != FORMAT:
            reason = f"has format {known.get('format')!r}, this version reads format {FORMAT}"
            raise TranscriptError(path, f"{reason}: another version of kernel_agent wrote it")
        try:
            return cls._read(path, metadata, known, notebook["cells"])
        except ValueError as error:
            raise TranscriptError(path, f"is damaged: {error}") from error

    @classmethod
    def _read(
        cls, path: Path, metadata: dict[str, Any], known: dict[str, Any], cells: list[Cell]
    ) -> Transcript:
        read = read_cells(cells)
        run = get(known, "run", dict)
        transcript = cls(get(known, "system", str), path=path)
        transcript.about = {
            **{name: fact for name, fact in known.items() if name not in _OF_RUN},
            **{name: metadata[name] for name in _OF_NOTEBOOK if name in metadata},
        }
        transcript.run_id = get(run, "id", str)
        transcript.started = datetime.fromisoformat(get(run, "started", str))
        if run.get("finished") is not None:
            transcript.finished = datetime.fromisoformat(get(run, "finished", str))
        if run.get("outcome") is not None:
            transcript.outcome = read_outcome(get(run, "outcome", dict))
        transcript._entries = read.entries
        transcript._usage = sum((step.usage for step in transcript.steps), Usage())
        if read.pending and read.pending.result:
            transcript._pending, transcript._shown = read.pending, read.pending.result.outputs
        transcript._last_task = max(read.task_numbers, default=0)
        transcript._last_step = max(read.step_numbers, default=0)
        own = (KEY, *_OF_NOTEBOOK)
        transcript._other_metadata = {n: fact for n, fact in metadata.items() if n not in own}
        transcript._notebook = Notebook.loaded(path, cells, read.running)
        return transcript

    def _metadata(self) -> dict[str, Any]:
        about = storable_json(self.about)
        run = {
            "id": self.run_id,
            "started": self.started.isoformat(),
            "finished": self.finished and self.finished.isoformat(),
            "outcome": self.outcome and facts(self.outcome),
        }
        known = {
            "format": FORMAT,
            "run": run,
            "task": next((task.text for task in self.tasks), None),
            "system": self.system,
            "usage": vars(self._usage),
        }
        ours = {name: fact for name, fact in about.items() if name not in _OF_NOTEBOOK}
        theirs = {name: about[name] for name in _OF_NOTEBOOK if name in about}
        return self._other_metadata | theirs | {KEY: ours | known}

    def _last_of_task(self) -> Step | None:
        last = self._entries[-1] if self._entries else None
        return last if isinstance(last, Step) else None

    def _step_number(self) -> int:
        """The number of the pending step, or else of the next one."""
        return self._last_step + (self._pending is None)

    def _put_pending(self) -> None:
        if pending := self.pending:
            cells = step_cells(pending, self._last_step, running=True)
            self._notebook.put(cells, running=True)
