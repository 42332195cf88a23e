"""A kernel for somebody who sends source, cell by cell: each cell is observed and kept on disk."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from kernel_agent import __version__
from kernel_agent.kernel import Kernel
from kernel_agent.observation import observe
from kernel_agent.opening import PRELUDE
from kernel_agent.steps import CellResult, Note, Observation, Reply, Step, Task, Usage
from kernel_agent.tools.reading_outputs import output_reader
from kernel_agent.transcript import Transcript, new_path

RESTARTED = "The kernel was restarted: all variables are gone."
MAX_LISTED = 200  # cells, of the latest ones


class Turn:
    """One call of `execute`, which `stop` ends whether its cell runs or still waits."""

    def __init__(self) -> None:
        self.is_over = False


class ManagedKernel:
    """A kernel that starts with the first cell, and the notebook in `folder` that keeps them.

    `make_kernel` makes the kernel, `timeout` is for a cell that says nothing else (seconds),
    `max_chars` bounds what is shown of one. `client` is who sends the cells, for the notebook. Its
    methods may be called from any thread; cells wait for each other.
    """

    def __init__(
        self,
        make_kernel: Callable[[], Kernel],
        *,
        folder: Path,
        client: str,
        timeout: float = 120.0,
        max_chars: int = 8000,
    ) -> None:
        self._make_kernel = make_kernel
        self._folder = folder
        self._client = client
        self._timeout = timeout
        self._max_chars = max_chars
        self._working = threading.Lock()
        self._kernel: Kernel | None = None
        self._transcript: Transcript | None = None
        self._turn: Turn | None = None
        self._is_closed = False

    @property
    def path(self) -> Path | None:
        """The notebook; None as long as there is no cell."""
        return self._transcript.path if self._transcript else None

    def execute(
        self, source: str, *, timeout: float | None = None, turn: Turn | None = None
    ) -> tuple[int, Observation]:
        """Execute a cell: its number (from 1) and what is shown of it.

        It is interrupted after `timeout` seconds. `turn` is for `stop`.

        Raises KernelStartError if the kernel does not start, TranscriptError if the notebook
        cannot be written, KernelAgentError if nothing is executed any more.
        """
        turn = turn or Turn()
        with self._working:
            kernel, transcript = self._started()
            self._turn = turn
            try:
                step = self._step(source, kernel, transcript, timeout or self._timeout, turn)
            finally:
                self._turn = None
            assert step.observation is not None
            return len(transcript.steps), step.observation

    def stop(self, turn: Turn) -> None:
        """End this call of `execute`, and no other."""
        turn.is_over = True
        if self._turn is turn:
            self.interrupt()

    def interrupt(self) -> bool:
        """Interrupt the cell that runs; returns whether there was one."""
        kernel, is_running = self._kernel, self._turn is not None
        if kernel is not None and is_running:
            kernel.interrupt()
        return is_running

    def restart(self) -> None:
        """Interrupt what runs, and start the kernel anew with no variables."""
        self.interrupt()
        with self._working:
            kernel, transcript = self._started()
            kernel.restart()
            transcript.add(Note(RESTARTED))

    def variables(self) -> dict[str, str] | None:
        """The variables, each with a short summary where one is known; None if it cannot tell."""
        with self._working:
            if self._kernel is None or self._transcript is None:
                return {}
            names = self._kernel.report("names()")
            known: dict[str, str] = {}
            for step in self._transcript.steps:
                known |= step.result.variables if step.result else {}
        return None if names is None else {name: known.get(name, "") for name in sorted(names)}

    def read_output(self, cell: int, start: int = 0, end: int | None = None) -> str:
        """What cell `cell` (from 1) has put out, from character `start` up to `end`.

        Raises ValueError if there is no such cell or place.
        """
        return str(output_reader(lambda: self._steps).call(cell, start, end))

    def cells(self) -> list[str]:
        """A line for each cell: number, status, seconds and its first line; the latest ones."""
        lines = [
            f"{number}. [{step.result.status}, {step.result.seconds:.1f} s] {_head(step.result)}"
            for number, step in enumerate(self._steps, 1)
            if step.result
        ]
        return lines[-MAX_LISTED:]

    def close(self) -> None:
        """Interrupt what runs and end the kernel; safe to call twice."""
        self._is_closed = True
        self.interrupt()
        with self._working:
            kernel, self._kernel = self._kernel, None
            if kernel is not None:
                kernel.shutdown()

    @property
    def _steps(self) -> Sequence[Step]:
        return self._transcript.steps if self._transcript else ()

    def _step(
        self, source: str, kernel: Kernel, transcript: Transcript, timeout: float, turn: Turn
    ) -> Step:
        text = _fenced(source, kernel.language)
        reply = Reply(text, finish_reason=None, usage=Usage(cost=None))
        step = Step(reply, text, result=CellResult(source))
        transcript.begin(step)
        if turn.is_over or self._is_closed:
            result = CellResult(source, "interrupted", reason="It was stopped before it began.")
        else:
            result = kernel.execute(source, timeout=timeout, progress=transcript.show)
        seen = observe(result, max_chars=self._max_chars, images=True)
        if result.status == "died":
            kernel.restart()
            seen = replace(seen, text=f"{seen.text}\n[{RESTARTED}]")
        step = replace(step, result=result, observation=seen)
        transcript.add(step)
        return step

    def _started(self) -> tuple[Kernel, Transcript]:
        if self._kernel is None:
            kernel = self._make_kernel()
            kernel.start()
            self._kernel = kernel
        if not self._kernel.is_alive:
            self._kernel.restart()
        if self._transcript is None:
            self._transcript = self._begun(self._kernel)
        return self._kernel, self._transcript

    def _begun(self, kernel: Kernel) -> Transcript:
        title = f"Cells of {self._client}"
        about = {
            "version": __version__,
            "model": {"name": self._client, "parameters": {}},
            "kernel": {
                "name": kernel.name,
                "version": kernel.info.get("implementation_version", ""),
                "isolation": "none",
                "packages": list(kernel.packages),
            },
            "kernelspec": kernel.kernelspec,
            "language_info": kernel.info.get("language_info", {}),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        transcript = Transcript(
            "",
            path=new_path(self._folder, title, date.today()),
            cwd=kernel.cwd,
            prelude=PRELUDE if kernel.language == "python" else "",
            about=about,
        )
        transcript.add(Task(title, title))
        return transcript


def _fenced(source: str, language: str) -> str:
    """The source as a model would have sent it, so that every reader of a run understands it."""
    longest = max(map(len, re.findall("`+", source)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language or 'python'}\n{source}\n{fence}"


def _head(result: CellResult) -> str:
    first = next((line.strip() for line in result.source.splitlines() if line.strip()), "")
    return first if len(first) <= 80 else f"{first[:79]}…"
