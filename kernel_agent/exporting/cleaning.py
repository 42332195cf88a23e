"""A notebook without failed attempts, tried out in a fresh kernel before it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_agent.comparing.comparison import Measure, compare
from kernel_agent.errors import TranscriptError
from kernel_agent.exporting.failures import LEFT_OUT, bound, needed, read, remedies
from kernel_agent.exporting.reading import ReadCell, ReadNotebook
from kernel_agent.kernel import Kernel
from kernel_agent.repeating import LONGER, SPARE_SECONDS, RecordedCell, plan_all, repeat_all
from kernel_agent.steps import ANSWER_MIME, CellResult, Output
from kernel_agent.tracebacks import error_text
from kernel_agent.transcript.cells import KEY, split_lines
from kernel_agent.transcript.setup import setup_cell
from kernel_agent.transcript.storable import storable_output

ALIKE = ("same", "same after normalising")
FORGET = "# The kernel ended here and was started again: what these held was lost.\ndel {names}"
_CHDIR = re.compile(r"\Aimport os\n\n_notebook_folder = .*\nos\.chdir\(.*\)\n+")
_UNDEFINED = re.compile(r"name '(\w+)' is not defined")
_TAGS = ("raises-exception", "skip-execution", "nbval-skip")

Piece = tuple[int, str]
"""The index of a cell, and the source that stands for it in the clean notebook."""


@dataclass
class _Plan:
    """What stands for each cell that is not kept as it is: the number of one of its remedies.

    `forget` are the indices of the cells that ended the kernel after which names are deleted that
    had been lost then.
    """

    forms: dict[int, int]
    forget: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Trouble:
    """A cell that does not do what it did; `undefined` is the name that it misses, if one."""

    index: int
    reason: str
    undefined: str = ""


def clean(
    notebook: ReadNotebook,
    out: Path,
    *,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The clean notebook as JSON, for a file at `out`; its outputs are those of the last trial.

    A cell that failed is left out if the others do without it what they did. Else it is kept so
    that it raises nothing: the lines before the failing one, or all of it with the error caught.
    Executes the code. `tell` gets a line about each trial and each cell that is kept like this.

    Raises TranscriptError if a cell cannot be brought to do what it did, or calls tools that ran
    on the host, or KernelStartError.
    """
    _check_needs_no_host(notebook)
    about = notebook.transcript.facts("kernel")
    spec = notebook.metadata.get("kernelspec")
    name = about.get("name") or (spec.get("name") if isinstance(spec, dict) else "") or "python3"
    kernel = Kernel(str(name), cwd=notebook.cwd, packages=tuple(about.get("packages") or ()))
    cleaning = _Cleaning(notebook, kernel, tell)
    with kernel:
        plan, results = cleaning.run()
        facts = {"kernelspec": kernel.kernelspec, "language_info": kernel.info["language_info"]}
    for index, form in plan.forms.items():
        if form != LEFT_OUT:
            tell(f"Later cells need {notebook.cells[index].name}: {_told(notebook, index, form)}.")
    return _composed(notebook, out, dict(cleaning.pieces(plan)), results, facts)


def _check_needs_no_host(notebook: ReadNotebook) -> None:
    """Raises TranscriptError if the code calls functions that a notebook by itself has not."""
    results = [step.result for step in notebook.transcript.steps if step.result]
    names = sorted({call.name for result in results for call in result.tool_calls})
    if names:
        reason = (
            f"cannot be made clean: its code calls {', '.join(names)}, which ran outside of the "
            "kernel, so no notebook runs it by itself. `replay` does, with the recorded results; "
            "`export --to html` or `--to markdown` shows it."
        )
        raise TranscriptError(notebook.path, reason)


class _Cleaning:
    """Tries out in `kernel` which cells can be left out."""

    def __init__(self, notebook: ReadNotebook, kernel: Kernel, tell: Callable[[str], None]) -> None:
        self._notebook = notebook
        self._cells = notebook.cells
        self._kernel = kernel
        self._tell = tell
        self._measure = Measure.shipped()
        self._unstable: set[int] | None = None

    def run(self) -> tuple[_Plan, dict[int, CellResult]]:
        """The plan that holds, and what each cell did under it."""
        plan = _Plan(self._first_forms())
        while True:
            self._tell("Executing it from top to bottom in a fresh kernel.")
            trouble, results = self._try(plan)
            trouble = trouble or self._difference(results)
            if trouble is None:
                return plan, results
            if not self._mend(plan, trouble):
                name = self._cells[trouble.index].name
                reason = f"cannot be made clean: {name} {trouble.reason}"
                raise TranscriptError(self._notebook.path, reason)
            self._kernel.restart()

    def pieces(self, plan: _Plan) -> Iterator[Piece]:
        """The code of the clean notebook, but for what sets up a plain kernel like ours."""
        for index, cell in enumerate(self._cells):
            if not cell.is_code or cell.is_prelude or not cell.source.strip():
                continue
            if (form := plan.forms.get(index)) is None:
                yield index, cell.source
            elif index in plan.forget:
                if names := self._lost(plan, index):
                    yield index, FORGET.format(names=", ".join(sorted(names)))
            elif form != LEFT_OUT:
                yield index, remedies(cell)[form - 1]

    def _first_forms(self) -> dict[int, int]:
        if self._notebook.language == "python":
            return needed(self._cells)
        return {index: LEFT_OUT for index, cell in enumerate(self._cells) if cell.is_failed}

    def _try(self, plan: _Plan) -> tuple[_Trouble | None, dict[int, CellResult]]:
        results: dict[int, CellResult] = {}
        for index, source in self.pieces(plan):
            cell = self._cells[index]
            seconds = cell.result.seconds if cell.result else 0.0
            timeout = seconds * LONGER + SPARE_SECONDS
            result = self._kernel.execute(source, timeout=timeout, counted=not cell.is_setup)
            results[index] = result
            if result.status != "ok":
                return _trouble(index, result), results
        return None, results

    def _difference(self, results: Mapping[int, CellResult]) -> _Trouble | None:
        """The first cell whose outputs differ because others were left out."""
        for index, result in results.items():
            cell = self._cells[index]
            if cell.is_failed or not cell.is_recorded or cell.result is None:
                continue
            found = compare(cell.result, result, self._measure)
            if found.verdict in ALIKE or index in self._never_the_same():
                continue
            told = " ".join(one.text for one in found.differences[:1])
            return _Trouble(index, f"gives other outputs without them: {told}".rstrip(": "))
        return None

    def _never_the_same(self) -> set[int]:
        """The cells that differ even if nothing is left out: chance, the time, another machine."""
        if self._unstable is None:
            self._tell("Outputs differ. Executing the run as it was, to see which always do.")
            self._kernel.restart()
            transcript = self._notebook.transcript
            on_death = transcript.about.get("on_death", "rebuild")
            again = {
                repeated.cell.name: repeated
                for repeated in repeat_all(self._kernel, transcript.entries, on_death=on_death)
            }
            self._unstable = {
                index
                for index, cell in self._recorded()
                if cell.name not in again
                or compare(cell.result, again[cell.name].result, self._measure).verdict not in ALIKE
            }
        return self._unstable

    def _recorded(self) -> Iterator[tuple[int, RecordedCell]]:
        """Each recorded cell of the transcript with its index in the notebook."""
        index = 0
        for recorded in plan_all(self._notebook.transcript.entries):
            if not isinstance(recorded, RecordedCell):
                continue
            for place in range(index, len(self._cells)):
                cell = self._cells[place]
                if cell.result and cell.source == recorded.result.source:
                    yield place, recorded
                    index = place + 1
                    break

    def _mend(self, plan: _Plan, trouble: _Trouble) -> bool:
        """Keep more of what comes before the cell; False if there is no more."""
        deaths = [n for n in range(trouble.index) if self._cells[n].status == "died"]
        since = deaths[-1] if deaths else -1
        left = [
            index
            for index, form in plan.forms.items()
            if since < index < trouble.index and form < len(remedies(self._cells[index]))
        ]
        wanted = {trouble.undefined} if trouble.undefined else read([self._source(trouble.index)])
        near = [index for index in left if bound([self._source(index)]) & wanted]
        if not near and set(deaths) - plan.forget:
            plan.forget.update(deaths)
            return True
        # Of those that may have to do with it the nearest, of the others all: each trial costs.
        for index in near[-1:] or left:
            plan.forms[index] += 1
        if near or left:
            return True
        # Nobody has executed it yet: it is as good as one that failed.
        is_new = trouble.index not in plan.forms and not self._cells[trouble.index].is_recorded
        if is_new and not self._cells[trouble.index].is_setup:
            plan.forms[trouble.index] = LEFT_OUT
            return True
        return False

    def _source(self, index: int) -> str:
        return self._cells[index].source

    def _lost(self, plan: _Plan, death: int) -> set[str]:
        """The names that cells of the clean notebook have bound, and that the death took away."""
        before = [
            (index, source) for index, source in self.pieces(_Plan(plan.forms)) if index < death
        ]
        names = bound(source for index, source in before if self._cells[index].is_failed)
        again = bound(source for index, source in before if not self._cells[index].is_failed)
        if self._notebook.transcript.about.get("on_death", "rebuild") == "rebuild":
            names -= again
        else:
            names |= again
        return {name for name in names if not name.startswith("_")}


def _trouble(index: int, result: CellResult) -> _Trouble:
    errors = [output for output in result.outputs if output["output_type"] == "error"]
    said = error_text(errors[-1]).splitlines()[-1] if errors else result.reason
    undefined = _UNDEFINED.search(said)
    verb = {"died": "ends the kernel", "interrupted": "does not end"}.get(result.status, "raises")
    return _Trouble(index, f"{verb} {said}".rstrip(), undefined[1] if undefined else "")


def _told(notebook: ReadNotebook, index: int, form: int) -> str:
    forms = remedies(notebook.cells[index])
    if form < len(forms):
        return "its lines before the failing one are kept"
    return "it is kept, with its error caught"


def _composed(
    notebook: ReadNotebook,
    out: Path,
    pieces: Mapping[int, str],
    results: Mapping[int, CellResult],
    facts: dict[str, Any],
) -> dict[str, Any]:
    cells = [
        _plain_cell(cell, pieces.get(index), results.get(index), number=index)
        for index, cell in enumerate(notebook.cells)
        if not cell.is_prelude and _is_kept(notebook.cells, index, pieces)
    ]
    if (setup := _setup(notebook, out)) and cells:
        place = 1 if cells[0]["cell_type"] == "markdown" else 0
        cells.insert(
            place, {**split_lines(setup), "metadata": {"jupyter": {"source_hidden": True}}}
        )
    minor = notebook.minor
    if minor < 5:  # this version has no ids
        cells = [{key: value for key, value in cell.items() if key != "id"} for cell in cells]
    metadata: dict[str, Any] = dict(facts)
    if notebook.is_ours:
        metadata[KEY] = {"exported_from": notebook.transcript.run_id}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}


def _is_kept(cells: Sequence[ReadCell], index: int, pieces: Mapping[int, str]) -> bool:
    cell = cells[index]
    if cell.is_aside:
        return False
    if cell.is_code:
        return index in pieces or not cell.source.strip()
    if cell.kind != "thought":
        return True
    # A thought goes with the code of its step.
    own = [n for n, other in enumerate(cells) if other.step == cell.step and other.is_code]
    return not own or any(n in pieces for n in own)


def _plain_cell(
    cell: ReadCell, source: str | None, result: CellResult | None, *, number: int
) -> dict[str, Any]:
    """The cell without what only we know of it, with the outputs of the trial."""
    metadata = cell.raw.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    for name in (KEY, "execution"):
        metadata.pop(name, None)
    if tags := metadata.pop("tags", None):
        tags = [tag for tag in tags if tag not in _TAGS]
        metadata |= {"tags": tags} if tags else {}
    plain: dict[str, Any] = {
        "id": cell.raw.get("id") or f"cell-{number}",
        **cell.raw,
        "metadata": metadata,
        "source": cell.source if source is None else source,
    }
    if cell.is_code:
        plain["execution_count"] = result.execution_count if result else None
        plain["outputs"] = [_plain_output(one) for one in result.outputs] if result else []
    return split_lines(plain)


def _plain_output(output: Output) -> Output:
    """The output as any kernel would give it."""
    output = storable_output(output)
    if ANSWER_MIME in output.get("data", {}):
        data = {mime: value for mime, value in output["data"].items() if mime != ANSWER_MIME}
        output = {**output, "data": data}
    return output


def _setup(notebook: ReadNotebook, out: Path) -> dict[str, Any] | None:
    """The cell that makes a plain kernel like ours, for a notebook at `out`."""
    own = next((cell.source for cell in notebook.cells if cell.is_prelude), "")
    return setup_cell(_CHDIR.sub("", own), notebook.cwd, out.parent)
