"""Runs the code of a run's steps in its kernel, and keeps the state that they leave there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kernel_agent import answers
from kernel_agent.events import CellStarted, OutputReceived
from kernel_agent.keeping import keep
from kernel_agent.kernel import Kernel
from kernel_agent.rebuilding import rebuild
from kernel_agent.repeating import Ask, OnDeath
from kernel_agent.steps import CellResult, Output, Rebuilt, Step
from kernel_agent.stored_state import store
from kernel_agent.telling import Telling
from kernel_agent.tool_use import recorded_calls, with_kept_calls
from kernel_agent.tools import Toolbox
from kernel_agent.transcript import Transcript


@dataclass
class Executing:
    """A kernel that runs cells, and the `toolbox` that answers their calls; see `Agent`.

    `snapshot_bytes` is 0 where no snapshots are wanted. `after_cell` is called when a cell is
    over; a cell may run for `min_seconds` even if its limit is lower.
    """

    kernel: Kernel
    toolbox: Toolbox
    on_death: OnDeath
    rebuild_seconds: float
    snapshot_bytes: int
    listener: Telling
    ask_user: Ask | None
    after_cell: Callable[[], None] = lambda: None
    min_seconds: float = 0.0

    @property
    def language(self) -> str:
        """The kernel's, in lower case: `"python"`, `"r"`."""
        return self.kernel.language or "python"

    def run(self, step: Step, transcript: Transcript, *, seconds: float) -> CellResult:
        """Run the step's code for at most so many `seconds`; the reply is on disk before."""
        assert step.result is not None
        source = step.result.source
        keep(transcript, partial(transcript.begin, step), self.listener)
        self.listener(CellStarted(len(transcript.task_steps) + 1, step.thought, source))
        result = self.kernel.execute(
            source,
            timeout=seconds,
            listen=self._output_received if self.listener else None,
            progress=transcript.show,
            ask=self.ask_user,
            serve=self._serve if self.toolbox.tools else None,
        )
        self.after_cell()
        folder = self.kernel.border_folder
        result = with_kept_calls(result, source=folder, notebook=transcript.path)
        return answers.keep(result, source=self.kernel.answer_folder, notebook=transcript.path)

    def bring_back(self, step: Step, transcript: Transcript) -> Rebuilt | None:
        """Bring the kernel back if the step's cell has ended it; None if it lives.

        Raises KernelStartError if it does not start again.
        """
        if step.result is None or step.result.status != "died" or self.on_death == "stop":
            return None
        entries = (*transcript.entries, step)
        return rebuild(
            self.kernel,
            entries,
            policy=self.on_death,
            max_seconds=self.rebuild_seconds,
            calls=recorded_calls(entries, transcript.path),
        )

    def take_snapshot(self, step: Step, transcript: Transcript) -> None:
        """Store the variables that the `step` has left, if that is wanted."""
        if not self.snapshot_bytes or step.result is None or not self.kernel.is_alive:
            return
        if event := store(self.kernel, transcript, max_bytes=self.snapshot_bytes):
            self.listener(event)

    def _serve(self, name: str, arguments: Mapping[str, Any]) -> Any:
        return self.toolbox.serve(name, arguments, folder=self.kernel.border_folder)

    def _output_received(self, output: Output) -> None:
        self.listener(OutputReceived(output))
