"""An engine for papermill: the notebook's cells are executed in a kernel of ours.

papermill finds it by the name `kernel_agent`, its entry point: `papermill --engine kernel_agent`.
Whoever imports this module imports papermill first, which itself loads all its engines.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from nbformat import from_dict
from papermill.engines import Engine, NotebookExecutionManager
from papermill.log import logger

from kernel_agent.ctrl_c import first_ctrl_c
from kernel_agent.errors import SettingsError
from kernel_agent.kernel import Kernel
from kernel_agent.steps import CellResult, Output
from kernel_agent.transcript.storable import storable_output

MAY_FAIL = "raises-exception"
SKIPPED = "skip-execution"
START_SECONDS = 60.0


class KernelAgentEngine(Engine):  # type: ignore[misc]
    """Executes a notebook as a run does: `final_answer` is there, a cell can always be stopped.

    A cell tagged `raises-exception` may raise: the next ones are executed and papermill reports
    no failure. For that its traceback is kept as text on `stderr`, since papermill takes every
    error output for a failure. A cell tagged `skip-execution` is left out.
    """

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        log_output: bool = False,
        stdout_file: TextIO | None = None,
        stderr_file: TextIO | None = None,
        start_timeout: float = START_SECONDS,
        execution_timeout: float | None = None,
        input_path: object = None,
        env: Mapping[str, str] | None = None,
        **unknown: object,
    ) -> None:
        """Execute the cells of `nb_man.nb` in the current folder, up to one that fails.

        A cell fails if it raises, takes longer than `execution_timeout` seconds, or ends the
        kernel. `start_timeout` is in seconds; `env` is added to the few variables that the kernel
        gets of the environment. papermill passes `input_path` to every engine.

        Raises SettingsError for an option that it does not know, KernelStartError, and
        KeyboardInterrupt if Ctrl-C is pressed between two cells.
        """
        if unknown:
            names = ", ".join(map(repr, sorted(unknown)))
            reason = "It takes what `papermill --help` shows, and `env`."
            raise SettingsError(f"The engine 'kernel_agent' has no option {names}. {reason}")
        kernel = Kernel(kernel_name, env=env, start_timeout=start_timeout)
        echo = _Echo(logs=log_output, stdout=stdout_file, stderr=stderr_file)
        logger.info(f"Executing notebook with kernel: {kernel_name}")
        with kernel:
            nb_man.nb.metadata["language_info"] = from_dict(kernel.info["language_info"])
            _Execution(nb_man, kernel, echo, execution_timeout or None).run()


@dataclass(frozen=True)
class _Echo:
    """Where outputs go as they come, beside the notebook."""

    logs: bool
    stdout: TextIO | None
    stderr: TextIO | None

    def __call__(self, output: Output) -> None:
        match output:
            case {"output_type": "stream", "name": "stderr", "text": text}:
                self._tell(text, self.stderr, logger.warning)
            case {"output_type": "stream", "text": text}:
                self._tell(text, self.stdout, logger.info)
            case {"data": {"text/plain": text}} if self.logs:
                logger.info(text)

    def _tell(self, text: str, file: TextIO | None, log: Any) -> None:
        if self.logs:
            log(text)
        if file is not None:
            file.write(text)
            file.flush()


class _Execution:
    """One notebook on its way through a kernel."""

    def __init__(
        self,
        nb_man: NotebookExecutionManager,
        kernel: Kernel,
        echo: _Echo,
        timeout: float | None,
    ) -> None:
        self._nb_man = nb_man
        self._kernel = kernel
        self._echo = echo
        self._timeout = timeout
        self._interrupted = threading.Event()

    def run(self) -> None:
        with first_ctrl_c(self._interrupt):
            for index, cell in enumerate(self._nb_man.nb.cells):
                if self._interrupted.is_set():
                    raise KeyboardInterrupt
                if self._has_failed(cell, index):
                    return

    def _interrupt(self) -> None:
        self._interrupted.set()
        self._kernel.interrupt()

    def _has_failed(self, cell: Any, index: int) -> bool:
        """Do what is to be done with a cell, and let papermill know; whether all ends there."""
        has_failed = True
        self._nb_man.cell_start(cell, index)
        try:
            has_failed = _is_to_run(cell) and not self._went_well(cell)
        finally:
            if has_failed:
                self._nb_man.cell_exception(cell, cell_index=index)
            self._nb_man.cell_complete(cell, cell_index=index)
        return has_failed

    def _went_well(self, cell: Any) -> bool:
        """Execute a cell and keep what it did."""
        # The times of an earlier execution: papermill keeps its own.
        cell.metadata.pop("execution", None)
        result = self._execute(cell)
        cell.execution_count = result.execution_count
        if result.status in ("ok", "error") and MAY_FAIL in _tags(cell):
            cell.outputs = _nodes(_without_errors(result))
            return True
        cell.outputs = _nodes(_with_reason(result))
        return result.status == "ok"

    def _execute(self, cell: Any) -> CellResult:
        def keep(outputs: tuple[Output, ...]) -> None:
            cell.outputs = _nodes(outputs)
            self._nb_man.autosave_cell()

        return self._kernel.execute(
            cell.source, timeout=self._timeout, listen=self._echo, progress=keep
        )


def _is_to_run(cell: Any) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip()) and SKIPPED not in _tags(cell)


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", ()))


def _nodes(outputs: tuple[Output, ...]) -> list[Any]:
    """`outputs` as papermill has them: with attributes."""
    return [from_dict(storable_output(output)) for output in outputs]


def _without_errors(result: CellResult) -> tuple[Output, ...]:
    """The outputs, with errors as text: papermill takes error outputs for a failure."""
    return tuple(
        _as_text(output) if output["output_type"] == "error" else output
        for output in result.outputs
    )


def _as_text(error: Output) -> Output:
    lines = error["traceback"] or [f"{error['ename']}: {error['evalue']}"]
    return {"output_type": "stream", "name": "stderr", "text": "\n".join(lines) + "\n"}


def _with_reason(result: CellResult) -> tuple[Output, ...]:
    """The outputs, and why the cell was stopped: papermill shows the first error of a cell."""
    if result.status in ("ok", "error"):
        return result.outputs
    kinds = [output["output_type"] for output in result.outputs]
    place = kinds.index("error") if "error" in kinds else len(kinds)
    name = "DeadKernelError" if result.status == "died" else "CellInterrupted"
    error = {
        "output_type": "error",
        "ename": name,
        "evalue": result.reason,
        "traceback": [f"{name}: {result.reason}"],
    }
    return (*result.outputs[:place], error, *result.outputs[place:])
