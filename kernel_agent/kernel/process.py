"""A kernel's process: started in a clean environment, watched, ended, and never left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import KernelManager
from jupyter_core.utils import run_sync

from kernel_agent.errors import KernelStartError
from kernel_agent.kernel.connection import Connection, new_context
from kernel_agent.kernel.environments import (
    NAME,
    Environment,
    missing_ipykernel,
    python_env,
    python_spec,
)
from kernel_agent.kernel.last_words import last_words
from kernel_agent.kernel.leftovers import MARK, end_leftovers
from kernel_agent.kernel.runtime import (
    connection_file_path,
    new_runtime_folder,
    runtime_places,
    start_guard,
)
from kernel_agent.kernel.variables import kernel_environment

# Says who it is before it becomes the kernel, so that the guard knows at any moment.
LAUNCHER = 'echo $$ >"$0"; exec "$@"'

IPYKERNEL_OPTIONS = [
    "--HistoryManager.enabled=False",
    # A cell is over at the idle status, which comes after all outputs on their own channel: no
    # need to sleep before the reply so that outputs overtake it.
    "--IPythonKernel._execute_sleep=0",
]


class _Manager(KernelManager):
    """Starts the kernel's command by way of a `launcher`; `spec` replaces the installed one."""

    launcher: Sequence[str] = ()
    spec: KernelSpec | None = None

    @property
    def kernel_spec(self) -> KernelSpec | None:
        return self.spec or super().kernel_spec

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        return [*self.launcher, *super().format_kernel_cmd(extra_arguments)]


class Process(Protocol):
    """What driving a kernel needs of its process, whether it `is_ours` or somebody else's."""

    @property
    def is_ours(self) -> bool: ...
    @property
    def display_name(self) -> str: ...
    @property
    def shared_folder(self) -> Path | None: ...
    def start(self) -> Connection: ...
    def check_free(self) -> None: ...
    def check_restart(self) -> None: ...
    def is_alive(self) -> bool: ...
    def exit_reason(self) -> str: ...
    def why_it_ended(self) -> str: ...
    def last_words(self) -> str: ...
    def interrupt(self) -> None: ...
    def restart(self) -> Connection: ...
    def end(self) -> None: ...
    def close(self) -> None: ...


class KernelProcess:
    """The process of one kernel, with its connection file, its sockets and its guard.

    `name` is a kernelspec's; `cwd` the folder that the kernel works in; `env` is added to the
    allowed part of the host's environment; `environment` says which Python runs it, if not the
    kernelspec does.
    """

    is_ours = True

    def __init__(
        self, name: str, *, cwd: Path, env: Mapping[str, str], environment: Environment
    ) -> None:
        self.name = name
        self._cwd = cwd
        self._env = {**kernel_environment(), **env}
        self._environment = environment
        self._python: Path | None = None
        self._manager: _Manager | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._exit_code: int | None = None

    def start(self) -> Connection:
        """Start the process and connect to it; it may not be ready yet.

        Raises KernelStartError for an unknown kernelspec, a missing folder or interpreter, or a
        package that cannot be installed.
        """
        if self._environment.is_wanted:
            if self.name != NAME:
                reason = "`python` and `packages` choose a Python kernel: leave its name out."
                raise KernelStartError(self.name, reason)
            self._python = self._environment.interpreter(kernel_environment())
        try:
            self._folder = folder = new_runtime_folder(runtime_places())
            connection_file = connection_file_path(folder)
            if os.name != "nt":
                self._guard = start_guard(folder, connection_file)
            self._manager = _Manager(
                kernel_name=self.name, connection_file=str(connection_file), context=new_context()
            )
            if os.name != "nt":
                self._manager.transport = "ipc"
                self._manager.ip = str(folder / "k")
                self._manager.launcher = ["/bin/sh", "-c", LAUNCHER, str(folder / "pid")]
            if self._python is not None:
                self._manager.spec = python_spec(self._python, self._environment.packages)
            self._launch()
        except NoSuchKernel as error:
            self.close()
            raise KernelStartError(self.name, _no_such_kernel()) from error
        except ValueError as error:
            self.close()
            raise KernelStartError(self.name, f"its kernelspec is no JSON: {error}.") from error
        except OSError as error:
            self.close()
            raise KernelStartError(self.name, f"{error}.") from error
        return Connection(self.manager)

    def check_free(self) -> None:
        """Nobody else uses it."""

    def check_restart(self) -> None:
        """It may always be restarted."""

    def restart(self) -> Connection:
        """End the process and start another one, with the same connection file."""
        self.end()
        if self._folder is not None:
            (self._folder / "pid").unlink(missing_ok=True)
        try:
            self._launch()
        except OSError as error:
            self.close()
            raise KernelStartError(self.name, f"{error}.") from error
        return Connection(self.manager)

    def _launch(self) -> None:
        if not self._cwd.is_dir():
            raise NotADirectoryError(f"The folder {str(self._cwd)!r} does not exist")
        manager = self.manager
        is_ipykernel = any("ipykernel" in word for word in self._spec.argv)
        with self._stderr.open("wb") as stderr:
            manager.start_kernel(
                cwd=str(self._cwd),
                env=(python_env(self._python, self._env) if self._python else self._env)
                | {MARK: str(self._folder)},
                stdin=subprocess.DEVNULL,
                # What a cell writes to file descriptor 1 is echoed there.
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                extra_arguments=IPYKERNEL_OPTIONS if is_ipykernel else [],
            )
        self._exit_code = None

    @property
    def manager(self) -> _Manager:
        if self._manager is None:
            raise RuntimeError("the kernel's process was not started")
        return self._manager

    @property
    def _stderr(self) -> Path:
        if self._folder is None:
            raise RuntimeError("the kernel's process was not started")
        return self._folder / "stderr"

    @property
    def display_name(self) -> str:
        return str(self._spec.display_name)

    @property
    def shared_folder(self) -> Path | None:
        """The folder of its files, where it may leave some for the host; None if there is none."""
        return self._folder

    @property
    def _spec(self) -> KernelSpec:
        spec = self.manager.kernel_spec
        if spec is None:
            raise NoSuchKernel(self.name)
        return spec

    @property
    def pid(self) -> int | None:
        return getattr(self.manager.provisioner, "pid", None)

    def is_alive(self) -> bool:
        """Whether the process runs; once it has ended, `exit_reason` says how."""
        provisioner = self.manager.provisioner
        if provisioner is None or not provisioner.has_process:
            return False
        self._exit_code = run_sync(provisioner.poll)()
        return self._exit_code is None

    def exit_reason(self) -> str:
        """How the process ended, as the end of a sentence: `killed by SIGSEGV`."""
        code = self._exit_code
        if code is None:
            return "for an unknown reason"
        if code >= 0:
            return f"with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (out of memory is the usual cause)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"

    def why_it_ended(self) -> str:
        """Why the process ended while it was starting, as sentences."""
        words = self.last_words()
        if "No module named" in words and "ipykernel" in words:
            return missing_ipykernel(self._python)
        says = f" It said:\n{words}" if words else ""
        return f"it ended {self.exit_reason()}.{says}"

    def last_words(self) -> str:
        """The end of what the process has written to its standard error."""
        return last_words(self._stderr)

    def interrupt(self) -> None:
        """Interrupt as the kernelspec asks: SIGINT to the process group, or a message."""
        self.manager.interrupt_kernel()

    def end(self) -> None:
        """Kill the process and every process that it has started; safe to call twice."""
        if not self.manager.has_kernel:
            return
        pid = self.pid
        self.manager.shutdown_kernel(now=True, restart=True)
        if pid is not None and os.name != "nt":
            # No such group: the kernel had started no process that outlived it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        if self._folder is not None:
            end_leftovers(self._folder)

    def close(self) -> None:
        """End the process and remove every file that was made for it; safe to call twice."""
        if self._manager is not None:
            if self._manager.has_kernel:
                self.end()
            self._manager.cleanup_resources()
            self._manager.context.destroy(linger=0)
            self._manager = None
        if self._guard is not None:
            with suppress(BrokenPipeError):  # someone has ended it
                self._guard.communicate(b"done\n")
            self._guard = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def installed_kernels() -> dict[str, str]:
    """The names of the installed kernelspecs and the folders that they lie in."""
    return dict(sorted(KernelSpecManager().find_kernel_specs().items()))


def _no_such_kernel() -> str:
    names = ", ".join(installed_kernels()) or "none"
    return (
        f"no such kernelspec. Installed: {names}. "
        f"`{Path(sys.executable).name} -m jupyter kernelspec list` shows them."
    )
