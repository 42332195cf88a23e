"""Drives one kernel: starts it, executes cells in it, restarts it, shuts it down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kernel_agent.errors import DeadKernelError, KernelStartError
from kernel_agent.kernel.connection import Connection
from kernel_agent.kernel.execution import Execution, Watcher
from kernel_agent.kernel.process import KernelProcess
from kernel_agent.steps import CellResult, Output

INFO_SECONDS = 0.15  # how often a starting kernel is asked whether it is there
SHUTDOWN_SECONDS = 1.0  # how long a kernel may take to end by itself
REPORT_SECONDS = 10.0  # how long a question to our own source in the kernel may take
INSIDE = "kernel_agent_inside"
PREVIEW = "kernel_agent_preview"
SHADOWED = "`final_answer` is a function, restored: call final_answer(value) to answer."


class Kernel:
    """A Jupyter kernel of our own: alive inside the `with` block, gone after it.

    `name` is a kernelspec's; `cwd` the folder it works in (default: the current one); `env` is
    added to the allowed part of the environment, which holds no secrets; `start_timeout` is in
    seconds. `execute` is for one thread at a time; `interrupt` may be called from any other
    thread and from a signal handler.

    Raises KernelStartError when the kernelspec is unknown or the kernel does not get ready.
    """

    def __init__(
        self,
        name: str = "python3",
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self.name = name
        self.cwd = Path(cwd).absolute() if cwd is not None else Path.cwd()
        self.info: dict[str, Any] = {}
        self._start_timeout = start_timeout
        self._process = KernelProcess(name, cwd=self.cwd, env=env or {})
        self._connection: Connection | None = None
        self._executing = threading.Lock()
        self._interrupted = False
        self._has_inside = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    @property
    def language(self) -> str:
        """The kernel's language in lower case: `python`, `r`, ..."""
        return str(self.info.get("language_info", {}).get("name", "")).lower()

    @property
    def kernelspec(self) -> dict[str, str]:
        """The kernelspec as a notebook's metadata names it."""
        return {"name": self.name, "display_name": self._process.display_name} | (
            {"language": self.language} if self.language else {}
        )

    @property
    def is_alive(self) -> bool:
        return self._connection is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the kernel and wait until it answers; does nothing if it was started before."""
        if self._connection is None:
            self._become_ready(self._process.start())

    def restart(self) -> None:
        """Start anew with an empty namespace; the running process, if any, is killed."""
        self._live().close()
        self._connection = None
        self._become_ready(self._process.restart())

    def shutdown(self) -> None:
        """Let the kernel end, within a second or by force; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._process.is_alive():
                connection.send("control", "shutdown_request", {"restart": False})
                self._wait_for_end()
            connection.close()
        self._process.close()

    def interrupt(self) -> None:
        """Stop the running cell: returns at once, and `execute` soon after."""
        self._interrupted = True
        if (connection := self._connection) is not None:
            connection.wake()

    def execute(
        self,
        source: str,
        *,
        timeout: float | None = None,
        listen: Callable[[Output], None] | None = None,
        progress: Callable[[tuple[Output, ...]], None] | None = None,
        counted: bool = True,
    ) -> CellResult:
        """Execute one cell and return what it did; what the code does never raises here.

        After `timeout` seconds in all the cell is interrupted and its state kept; the kernel is
        killed only if the cell cannot be stopped. `listen` gets each output as it comes, for a
        stream the new text only; `progress` gets all outputs so far, at most twice a second while
        they grow. A cell that is not `counted` leaves the execution count alone.

        Raises DeadKernelError if the kernel was not started.
        """
        with self._executing:
            started = time.time()
            self._interrupted = False
            watcher = Watcher(lambda: self._interrupted, listen, progress)
            execution = Execution(self._live(), self._process, watcher)
            execution.run(self._request(source, counted=counted), timeout)
            report = self._changes(execution)
        shadowed = SHADOWED if report.get("shadowed") else ""
        return CellResult(
            source=source,
            status=execution.status,
            outputs=execution.outputs.all(),
            execution_count=execution.reply.get("execution_count") if counted else None,
            seconds=execution.seconds,
            started=started,
            reason=" ".join(filter(None, (execution.reason, shadowed))),
            variables=report.get("changed", {}),
        )

    def report(self, expression: str, *, module: str = INSIDE) -> Any:
        """What `expression` gives in a module of ours inside the kernel: a JSON value.

        Nothing is shown or counted. None if the kernel has no such module or it failed.
        """
        with self._executing:
            return self._ask(expression, module)

    def previews(self, kind: str, names: Sequence[str]) -> list[str]:
        """A preview of each of the data `files` (paths) or `variables` (names), as text.

        Empty if the kernel is no Python kernel.
        """
        if not names or not self._has_inside:
            return []
        self._install(_source("preview.py"), PREVIEW)
        return list(self.report(f"{kind}({list(names)!r})", module=PREVIEW) or ())

    def _install(self, source: str, module: str) -> bool:
        """Execute source of ours in the kernel, silently and in a `module` of its own."""
        with self._executing:
            names = f"__import__('types').ModuleType({module!r})"
            home = f"vars(__import__('sys').modules.setdefault({module!r}, {names}))"
            request = self._request(f"exec(compile({source!r}, {module!r}, 'exec'), {home})")
            execution = self._run_silently({**request, "user_expressions": {}})
        return bool(execution.reply.get("status") == "ok")

    def _live(self) -> Connection:
        if self._connection is None:
            raise DeadKernelError(f"Kernel {self.name!r} is not running: call start() first.")
        return self._connection

    def _become_ready(self, connection: Connection) -> None:
        self._connection = connection
        try:
            self.info = self._ask_for_info(connection)
            is_python = self.language == "python"
            self._has_inside = is_python and self._install(_source("inside.py"), INSIDE)
        except BaseException:
            self.shutdown()
            raise

    def _ask_for_info(self, connection: Connection) -> dict[str, Any]:
        """Ask until the reply and any IOPub message have come: then both ways are open."""
        deadline = time.monotonic() + self._start_timeout
        info: dict[str, Any] | None = None
        iopub = False
        while info is None or not iopub:
            connection.send("shell", "kernel_info_request")
            ask_again = time.monotonic() + INFO_SECONDS
            while time.monotonic() < ask_again and (info is None or not iopub):
                message = connection.receive(max(0.0, ask_again - time.monotonic()))
                if message is None:
                    continue
                iopub = iopub or message["channel"] == "iopub"
                if message["header"]["msg_type"] == "kernel_info_reply":
                    info = message["content"]
            self._check_start(deadline)
        return info

    def _check_start(self, deadline: float) -> None:
        if not self._process.is_alive():
            words = self._process.last_words()
            says = f" It said:\n{words}" if words else ""
            reason = f"it ended {self._process.exit_reason()}.{says}"
            raise KernelStartError(self.name, reason)
        if time.monotonic() > deadline:
            reason = (
                f"no answer within {self._start_timeout:g} s. "
                f"`jupyter console --kernel {self.name}` shows whether it works by itself."
            )
            raise KernelStartError(self.name, reason)

    def _request(self, source: str, *, counted: bool = True) -> dict[str, Any]:
        reports = {"report": _inside("changes()", INSIDE)} if self._has_inside else {}
        return {
            "code": source,
            "silent": False,
            "store_history": counted,
            "user_expressions": reports,
            "allow_stdin": False,
            # True would abort the next request when it is sent just after an error.
            "stop_on_error": False,
        }

    def _changes(self, execution: Execution) -> dict[str, Any]:
        """Which variables the cell has changed; kernels report by themselves only on success."""
        if not self._has_inside or execution.status == "died":
            return {}
        if execution.status == "ok":
            return _report(execution.reply) or {}
        return self._ask("changes()", INSIDE) or {}

    def _ask(self, expression: str, module: str) -> Any:
        reports = {"report": _inside(expression, module)}
        execution = self._run_silently({**self._request(""), "user_expressions": reports})
        return _report(execution.reply)

    def _run_silently(self, request: dict[str, Any]) -> Execution:
        execution = Execution(self._live(), self._process, Watcher())
        execution.run({**request, "silent": True, "store_history": False}, REPORT_SECONDS)
        return execution

    def _wait_for_end(self) -> None:
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while self._process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)


def _source(file: str) -> str:
    return Path(__file__).with_name(file).read_text(encoding="utf-8")


def _inside(expression: str, module: str) -> str:
    modules = "__import__('sys').modules"
    return f"{modules}[{INSIDE!r}].Report({modules}[{module!r}].{expression})"


def _report(reply: Mapping[str, Any]) -> Any:
    report = reply.get("user_expressions", {}).get("report", {})
    return report.get("data", {}).get("application/json") if report else None
