"""Drives one kernel: starts it, executes cells in it, restarts it, shuts it down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kernel_agent.errors import DeadKernelError, KernelBusyError, KernelError, KernelStartError
from kernel_agent.kernel.attached import AttachedProcess
from kernel_agent.kernel.bounded import MAX_CHARS
from kernel_agent.kernel.connection import Connection
from kernel_agent.kernel.environments import Environment
from kernel_agent.kernel.execution import Execution, Watcher
from kernel_agent.kernel.offering import BORDER_SOURCES, TAKE_AWAY, Offering
from kernel_agent.kernel.offering import MODULE as CALLING
from kernel_agent.kernel.offering import SOURCES as CALLING_SOURCES
from kernel_agent.kernel.process import KernelProcess, Process
from kernel_agent.kernel.serving import Offer, Serve
from kernel_agent.kernel.snapshots import Restored, Snapshot, Work, restoring, saving
from kernel_agent.steps import CellResult, Output

INFO_SECONDS = 0.15  # how often a starting kernel is asked whether it is there
SHUTDOWN_SECONDS = 1.0  # how long a kernel may take to end by itself
MAX_CALLS = 256  # of functions of the host, in one cell
REPORT_SECONDS = 10.0  # how long a question to our own source in the kernel may take
INSIDE = "kernel_agent_inside"
PREVIEW = "kernel_agent_preview"
DYING = "kernel_agent_dying"
INTERRUPTIBLE = "kernel_agent_interruptible"
FIGURES = "kernel_agent_figures"
FITTING = "kernel_agent_fitting"
PUBLISHING = "kernel_agent_publishing"
SHADOWED = "`final_answer` is a function, restored: call final_answer(value) to answer."


class Kernel:
    """A Jupyter kernel of our own: alive inside the `with` block, gone after it.

    `name` is a kernelspec's; `cwd` the folder it works in (default: the current one); `env` is
    added to the allowed part of the environment, which holds no secrets; `start_timeout` is in
    seconds. `python` runs it in another interpreter or virtual environment that has ipykernel,
    `packages` in a cached environment made of these requirements; `on_progress` then gets each
    line that pip or uv prints. `execute` is for one thread at a time; `interrupt` may be called
    from any other thread and from a signal handler.

    Raises KernelStartError when the kernelspec is unknown, a package cannot be installed, or the
    kernel does not get ready.
    """

    def __init__(
        self,
        name: str = "python3",
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        python: str | Path | None = None,
        packages: Sequence[str] = (),
        on_progress: Callable[[str], None] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self.name = name
        self.cwd = Path(cwd).absolute() if cwd is not None else Path.cwd()
        self.packages = tuple(packages)
        self.info: dict[str, Any] = {}
        self._start_timeout = start_timeout
        environment = Environment(python, tuple(packages), on_progress)
        self._process: Process = KernelProcess(
            name, cwd=self.cwd, env=env or {}, environment=environment
        )
        self._connection: Connection | None = None
        self._executing = threading.Lock()
        self._interrupted = False
        self._has_inside = False
        self._offering = Offering()

    @classmethod
    def attach(cls, connection_file: str | Path, *, start_timeout: float = 60.0) -> Self:
        """A kernel that somebody else started, joined as one more client; `start` connects.

        `connection_file` is a path, or a file's name in Jupyter's runtime folder. `shutdown` only
        disconnects and `restart` raises KernelError. Its code sees the owner's variables; each
        cell raises KernelBusyError instead of waiting while somebody else's code runs.

        Raises KernelStartError if there is no such file; `start` does if the kernel has ended.
        """
        process = AttachedProcess(connection_file)
        kernel = cls(process.name, start_timeout=start_timeout)
        kernel._process = process
        return kernel

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
    def is_ours(self) -> bool:
        """Whether the kernel was started here, and not attached to."""
        return self._process.is_ours

    @property
    def is_alive(self) -> bool:
        return self._connection is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the kernel and wait until it answers; does nothing if it was started before."""
        if self._connection is None:
            self._become_ready(self._process.start())

    def restart(self) -> None:
        """Start anew with an empty namespace; the running process, if any, is killed.

        Raises KernelError for a kernel of somebody else, KernelStartError when the new process
        does not get ready; after that `start` and `restart` can be tried again.
        """
        if (connection := self._connection) is None:
            self.start()
            return
        self._process.check_restart()
        connection.close()
        self._connection = None
        self._become_ready(self._process.restart())

    def shutdown(self) -> None:
        """Let the kernel end, within a second or by force; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._offering.is_installed and not self._process.is_ours:
                self._take_offers_away(connection)
            if self._process.is_ours and self._process.is_alive():
                connection.send("control", "shutdown_request", {"restart": False})
                self._wait_for_end()
            connection.close()
        self._process.close()
        self._offering.close()

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
        ask: Callable[[str, bool], str] | None = None,
        serve: Serve | None = None,
        max_calls: int = MAX_CALLS,
        counted: bool = True,
    ) -> CellResult:
        """Execute one cell and return what it did; what the code does never raises here.

        After `timeout` seconds in all the cell is interrupted and its state kept; the kernel is
        killed only if the cell cannot be stopped. `listen` gets each output as it comes, for a
        stream the new text only; `progress` gets all outputs so far, at most twice a second while
        they grow. `ask` answers the cell's `input()` and `getpass()`: it gets the prompt and
        whether it is for a password, and its time does not count; without it they raise at once.
        `serve` carries out the calls of functions that were offered, `max_calls` at most, and
        their time does count. A cell that is not `counted` leaves the execution count alone.

        Raises DeadKernelError if the kernel was not started, KernelBusyError if it was attached to
        and somebody else's code runs in it.
        """
        with self._executing:
            started = time.time()
            self._interrupted = False
            serving = serve and self._offering.serving(serve, max_calls, self._live().wake)
            watcher = Watcher(lambda: self._interrupted, listen, progress, ask, serving)
            execution = self._execution(watcher)
            self._process.check_free()
            request = self._request(source, counted=counted)
            if serving:
                request |= serving.marker
            execution.run({**request, "allow_stdin": ask is not None}, timeout)
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
            stopped_by=execution.stopped_by,
            inputs=tuple(execution.inputs),
            tool_calls=serving.calls if serving else (),
        )

    @property
    def border_folder(self) -> Path | None:
        """Where large values of calls lie as files until `shutdown`.

        None if kernel and host share no such folder: then they are inside the encoded values.
        """
        return self._offering.folder

    @property
    def answer_folder(self) -> Path | None:
        """Where large values of answers lie as files until `shutdown`; None if there is none."""
        return self._process.shared_folder

    def offer(self, offers: Mapping[str, Offer]) -> None:
        """Let the code call functions of the host, by name, in place of those of before.

        They are there at once, or from the start on, and after every restart; `{}` takes them
        away. `execute(serve=...)` answers the calls.

        Raises ValueError for a stub that does not fit its name, KernelError if the kernel cannot
        have functions of the host.
        """
        self._offering.change(offers)
        if self._connection is not None:
            self._process.check_free()
            self._install_offers()

    def _carry(self) -> None:
        """Give the kernel the codec of answers: as text, since few answers need it."""
        sources = {module: _source(file) for module, file in BORDER_SOURCES.items()}
        folder = str(self.answer_folder) if self.answer_folder else None
        self.report(f"carry({sources!r}, {folder!r})")

    def _install_offers(self) -> None:
        if not self._offering.offers and not self._offering.is_installed:
            return
        problem = "only a Python kernel can call them"
        if self._has_inside:
            self._install({module: _source(file) for module, file in CALLING_SOURCES.items()})
            problem = self._offering.install(lambda call: self.report(call, module=CALLING))
        if problem:
            names = ", ".join(self._offering.offers)
            raise KernelError(f"Kernel {self.name!r} was not offered {names}: {problem}.")

    def _take_offers_away(self, connection: Connection) -> None:
        """Leave a kernel of somebody else as it was; if it is busy just now, soon after."""
        request = {**self._request(TAKE_AWAY), "silent": True, "user_expressions": {}}
        sent = connection.send("shell", "execute_request", request)
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while (remaining := deadline - time.monotonic()) > 0:
            message = connection.receive(remaining)
            is_reply = message and message["header"]["msg_type"] == "execute_reply"
            if message and is_reply and message["parent_header"].get("msg_id") == sent:
                return

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
        self._install({PREVIEW: _source("preview.py")})
        return list(self.report(f"{kind}({list(names)!r})", module=PREVIEW) or ())

    def snapshot(self, folder: Path, key: str, *, max_bytes: int) -> Snapshot:
        """Store the variables in `folder`, where all snapshots have `max_bytes` together.

        `key` names this one: letters, digits, `.`, `_` and `-`. The oldest others make room.
        `interrupt` stops it; then it is not there, and `reason` says so.
        """
        return Snapshot(**self._work(saving(folder, key, max_bytes)))

    def restore(self, folder: Path, key: str) -> Restored:
        """Give a fresh kernel what the snapshot `key` in `folder` holds."""
        return Restored(**self._work(restoring(folder, key)))

    def _work(self, work: Work) -> dict[str, Any]:
        """The outcome of `work`, or the `reason` why there is none."""
        if not self._has_inside:
            return {"reason": "It is no Python kernel."}
        if not self.report("is_ready()", module=work.module):
            self._install({module: _source(file) for module, file in work.sources.items()})
        with self._executing:
            self._interrupted = False
            self._process.check_free()
            request = self._request(f"__import__('sys').modules[{work.module!r}].{work.call}")
            reports = {"report": _inside("outcome()", work.module)}
            request |= {"silent": True, "store_history": False, "user_expressions": reports}
            execution = self._execution(Watcher(lambda: self._interrupted))
            execution.run(request, work.seconds)
        return _report(execution.reply) or {"reason": execution.reason or "It failed."}

    def _install(self, sources: Mapping[str, str], then: str = "") -> bool:
        """Execute sources of ours, by module, in the kernel: silently, each in a module of its own.

        `then` is a last expression, in the last one's namespace. Returns whether all went well.
        """
        lines = ["sys = __import__('sys')", "types = __import__('types')"]
        home = "{}"
        for module, source in sources.items():
            home = f"vars(sys.modules.setdefault({module!r}, types.ModuleType({module!r})))"
            lines.append(f"exec(compile({source!r}, {module!r}, 'exec'), {home})")
        lines.append(f"eval({then or 'None'!r}, {home})")
        with self._executing:
            request = self._request(f"exec({chr(10).join(lines)!r}, {{}})")
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
            inside = {INSIDE: _source("inside.py"), FIGURES: _source("figures.py")}
            self._has_inside = is_python and self._install(inside)
            if self._has_inside:
                self._carry()
            if self._has_inside and self._process.is_ours:
                mended = {DYING: "dying.py", INTERRUPTIBLE: "interruptible.py"}
                self._install({module: _source(file) for module, file in mended.items()})
                publishing = {FITTING: _source("fitting.py"), PUBLISHING: _source("publishing.py")}
                if self._install(publishing, then=f"install({MAX_CHARS // 2})"):
                    connection.limit_queue()
            self._install_offers()
            self._check_alive()
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
        self._check_alive()
        if time.monotonic() > deadline:
            reason = (
                f"no answer within {self._start_timeout:g} s. "
                f"`jupyter console --kernel {self.name}` shows whether it works by itself."
            )
            raise KernelStartError(self.name, reason)

    def _check_alive(self) -> None:
        if not self._process.is_alive():
            raise KernelStartError(self.name, self._process.why_it_ended())

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
        with suppress(KernelBusyError):  # the next cell will say so
            return self._ask("changes()", INSIDE) or {}
        return {}

    def _ask(self, expression: str, module: str) -> Any:
        reports = {"report": _inside(expression, module)}
        execution = self._run_silently({**self._request(""), "user_expressions": reports})
        return _report(execution.reply)

    def _run_silently(self, request: dict[str, Any]) -> Execution:
        execution = self._execution(Watcher())
        execution.run({**request, "silent": True, "store_history": False}, REPORT_SECONDS)
        return execution

    def _execution(self, watcher: Watcher) -> Execution:
        has_subshells = "kernel subshells" in self.info.get("supported_features", ())
        can_raise = self._has_inside and has_subshells
        return Execution(self._live(), self._process, watcher, can_raise=can_raise)

    def _wait_for_end(self) -> None:
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while self._process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)


def _source(file: str) -> str:
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


def _inside(expression: str, module: str) -> str:
    modules = "__import__('sys').modules"
    return f"{modules}[{INSIDE!r}].Report({modules}[{module!r}].{expression})"


def _report(reply: Mapping[str, Any]) -> Any:
    report = reply.get("user_expressions", {}).get("report", {})
    return report.get("data", {}).get("application/json") if report else None
