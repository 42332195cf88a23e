"""Executes a recorded notebook in a fresh kernel, and says whether what it shows still holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, get_args

from kernel_agent.built_in_tools import built_in
from kernel_agent.call_record import RecordedCalls
from kernel_agent.comparing.comparison import Comparison, Difference, Measure, Verdict, compare
from kernel_agent.comparing.normalising import compile_ignored, load_rules
from kernel_agent.comparing.text_drift import TOLERANCE
from kernel_agent.ctrl_c import first_ctrl_c
from kernel_agent.errors import KernelError, SettingsError
from kernel_agent.kernel import Kernel
from kernel_agent.repeating import Ask, Calls, OnDeath, RecordedCell, Repeated, plan_all, repeat_all
from kernel_agent.rewriting import check_out, rewrite
from kernel_agent.steps import CellResult
from kernel_agent.tool_use import LiveCalls, recorded_calls, recorded_offers
from kernel_agent.tools import Toolbox
from kernel_agent.transcript import Transcript

HOLDING: tuple[Verdict, ...] = (
    "same",
    "same after normalising",
    "nondeterministic",
    "not recorded",
)
PYTHON = "python3"
NARROW = """\
__import__("sys").meta_path[:] = [
    one
    for one in __import__("sys").meta_path
    if getattr(getattr(one, "_act", None), "__name__", "") != "widen"
]"""  # what a person saw had pandas' own narrow width: our kernels widen it at import


@dataclass(frozen=True)
class ReplayedCell:
    """What became of one recorded cell: its `name` (`"step-3"`, or the id of a user's cell), the
    number of its step, what it did then and now (None if it was not run), and what differs.

    `"nondeterministic"` are cells whose own repeats differ; `differences` are then those between
    two repeats. `"not recorded"` are a user's cells that had not been executed, and raise nothing.
    """

    name: str
    step: int | None
    verdict: Verdict
    was: CellResult
    now: CellResult | None = None
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Replay:
    """What came of a replay: of the notebook at `path`, in `seconds`.

    `problems` say in a sentence each what else there is to know. `interrupted` if the user
    stopped it.
    """

    path: Path | None
    cells: tuple[ReplayedCell, ...]
    seconds: float
    problems: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def holds(self) -> bool:
        """Whether every cell did what it had done, or never does the same twice."""
        return all(holds(cell.verdict) for cell in self.cells)


@dataclass(frozen=True)
class ReplayStarted:
    """A fresh kernel called `kernel` is to execute the `cells` (names): time `round` of `rounds`.

    The cells of the last round are compared.
    """

    path: Path | None
    kernel: str
    cells: tuple[str, ...]
    round: int
    rounds: int


@dataclass(frozen=True)
class CellReplayed:
    """Cell `number` (from 1) of `of` was executed and compared."""

    number: int
    of: int
    cell: ReplayedCell


ReplayListener = Callable[[ReplayStarted | CellReplayed], None]


def holds(verdict: Verdict) -> bool:
    """Whether a verdict is no drift."""
    return verdict in HOLDING


def replay(
    notebook: Path | str | Transcript,
    *,
    kernel: str | None = None,
    python: str | Path | None = None,
    packages: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    strict: bool = False,
    ignore: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    rules: Path | None = None,
    out: Path | str | None = None,
    repeat: int = 1,
    live_tools: Iterable[Any] = (),
    listener: ReplayListener | None = None,
    ask_user: Ask | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Replay:
    """Execute the cells of `notebook` in a fresh kernel and compare them with what is recorded.

    The code runs in the folder where it ran, and does there again what it did. `kernel`, `python`
    and `packages` choose another environment than the recorded one; `env` and `on_progress` are
    as for `Kernel`. `strict`, `ignore` (regular expressions), `tolerance` and `rules` (a TOML
    file) say what counts as a difference, see `Measure`. With `repeat`, everything is executed so
    many times, in as many kernels, to tell drift from what never comes out twice alike. `out` is
    where a notebook with the outputs of now is written, if every cell was run. Calls of tools are
    answered from the record, or by `live_tools` if any are given. A cell's `input()` gets the
    recorded answer, `getpass()` that of `ask_user`. In the main thread Ctrl-C ends the replay: the
    cells that are left are `"not run"`.

    Raises SettingsError for a bad option, TranscriptError if the notebook cannot be read or `out`
    exists, KernelStartError.
    """
    started = monotonic()
    measure = Measure(load_rules(rules), compile_ignored(ignore), tolerance, strict)
    if not tolerance >= 0:
        raise SettingsError(f"tolerance is {tolerance!r}. It must be a number of 0 or more.")
    if repeat < 1:
        raise SettingsError(f"repeat is {repeat!r}. It must be 1 or more.")
    transcript = notebook if isinstance(notebook, Transcript) else Transcript.load(Path(notebook))
    place = Path(out) if out is not None else None
    if place is not None:
        check_out(transcript, place)
    live_tools = [*live_tools]
    names = [tool for tool in live_tools if isinstance(tool, str)]
    toolbox = Toolbox([*built_in(names), *(tool for tool in live_tools if tool not in names)])
    replaying = _Replaying(transcript, measure, toolbox, listener, ask_user)
    options = _environment(transcript, kernel, python, packages)
    about: dict[str, Any] = {}
    for number in range(1, repeat + 1):
        if not replaying.interrupted:
            fresh = Kernel(**options, cwd=transcript.cwd, env=env, on_progress=on_progress)
            about = replaying.execute(fresh, number, repeat)
    toolbox.close()
    cells = replaying.finish()
    problems = [*map(str, transcript.problems), *replaying.problems]
    if place is not None and any(cell.now is None for cell in cells):
        problems.append(f"{str(place)!r} was not written, for not every cell was run.")
    elif place is not None:
        results = {cell.step: cell.now for cell in cells if cell.step and cell.now}
        rewrite(transcript, results, place, about=about)
    seconds = monotonic() - started
    return Replay(transcript.path, cells, seconds, tuple(problems), replaying.interrupted)


class _Replaying:
    """One replay on its way: what its kernels gave, and the cells that have been compared."""

    def __init__(
        self,
        transcript: Transcript,
        measure: Measure,
        toolbox: Toolbox,
        listener: ReplayListener | None,
        ask: Ask | None,
    ) -> None:
        self.interrupted = False
        self.problems: list[str] = []
        self._transcript = transcript
        self._measure = measure
        self._toolbox = toolbox
        self._tell = listener or (lambda event: None)
        self._ask = ask
        self._plan = [one for one in plan_all(transcript.entries) if isinstance(one, RecordedCell)]
        self._rounds: list[list[CellResult]] = []
        self._cells: list[ReplayedCell] = []
        if transcript.pending:
            self.problems.append("The last cell had not finished when the notebook was written.")
        if not any(_is_recorded(cell) for cell in self._plan):
            self.problems.append("No cell has been executed: there is nothing to compare.")

    def execute(self, kernel: Kernel, number: int, rounds: int) -> dict[str, Any]:
        """Execute everything in `kernel`; in the last round each cell is compared at once.

        Returns what the metadata of a notebook say about the kernel.
        """
        names = tuple(cell.name for cell in self._plan)
        self._tell(ReplayStarted(self._transcript.path, kernel.name, names, number, rounds))

        def interrupt() -> None:
            self.interrupted = True
            kernel.interrupt()

        policy: Any = self._transcript.about.get("on_death", "rebuild")
        on_death: OnDeath = policy if policy in get_args(OnDeath) else "rebuild"
        seconds = self._transcript.about.get("rebuild_seconds")
        results: list[CellResult] = []
        with first_ctrl_c(interrupt), kernel:
            if not self._transcript.tasks and kernel.language == "python":
                kernel.execute(NARROW, counted=False)
            calls = self._calls(kernel)
            repeated = repeat_all(
                kernel,
                self._transcript.entries,
                on_death=on_death,
                rebuild_seconds=seconds if isinstance(seconds, int | float) else 60.0,
                calls=calls,
                ask=self._ask,
            )
            try:
                while not self.interrupted and (one := next(repeated, None)):
                    if self.interrupted:  # this very cell was
                        break
                    results.append(one.result)
                    if number == rounds:
                        self._add(self._compared(one))
            except KernelError as error:
                self.problems.append(str(error))
            if isinstance(calls, RecordedCalls):
                calls.close()
                self.problems += map(str, calls.mismatches)
            self._rounds.append(results)
            return _about(kernel)

    def _calls(self, kernel: Kernel) -> Calls:
        """What answers the tools, which the kernel is given as the run's kernel had them."""
        if self._toolbox.tools:
            kernel.offer(recorded_offers(self._transcript.about) | self._toolbox.stubs())
            return LiveCalls(self._toolbox)
        kernel.offer(recorded_offers(self._transcript.about))
        return recorded_calls(self._transcript.entries, self._transcript.path)

    def finish(self) -> tuple[ReplayedCell, ...]:
        """All cells, those that were not run too."""
        for cell in self._plan[len(self._cells) :]:
            self._add(ReplayedCell(cell.name, cell.step, "not run", cell.result))
        return tuple(self._cells)

    def _add(self, cell: ReplayedCell) -> None:
        self._cells.append(cell)
        self._tell(CellReplayed(len(self._cells), len(self._plan), cell))

    def _compared(self, repeated: Repeated) -> ReplayedCell:
        cell, now = repeated.cell, repeated.result
        found = self._between_rounds(now) or compare(cell.result, now, self._measure)
        if not _is_recorded(cell) and now.status == "ok":
            found = Comparison("not recorded")
        return ReplayedCell(
            cell.name, cell.step, found.verdict, cell.result, now, found.differences
        )

    def _between_rounds(self, now: CellResult) -> Comparison | None:
        """What differs between this round and an earlier one, None if nothing does."""
        index = len(self._cells)
        for earlier in self._rounds:
            if index < len(earlier):
                found = compare(earlier[index], now, self._measure)
                if not holds(found.verdict):
                    return Comparison("nondeterministic", found.differences)
        return None


def _is_recorded(cell: RecordedCell) -> bool:
    """Whether a cell has been executed; a user's may be new, or its outputs cleared."""
    return cell.step is not None or cell.result.execution_count is not None


def _about(kernel: Kernel) -> dict[str, Any]:
    packages = {"packages": list(kernel.packages)} if kernel.packages else {}
    version = kernel.info.get("implementation_version", "")
    return {
        "kernel": {"name": kernel.name, "version": version, "isolation": "none", **packages},
        "kernelspec": kernel.kernelspec,
        "language_info": kernel.info.get("language_info", {}),
    }


def _environment(
    transcript: Transcript,
    kernel: str | None,
    python: str | Path | None,
    packages: Sequence[str] | None,
) -> dict[str, Any]:
    """Which kernel: what was asked for, the recorded one if nothing was."""
    if kernel is not None or python is not None or packages is not None:
        return {"name": kernel or PYTHON, "python": python, "packages": tuple(packages or ())}
    known, spec = (transcript.facts(name) for name in ("kernel", "kernelspec"))
    name = known.get("name") or spec.get("name")
    wanted = known.get("packages")
    return {
        "name": name if isinstance(name, str) else PYTHON,
        "packages": tuple(map(str, wanted)) if isinstance(wanted, list) else (),
    }
