"""A kernel's process: started in a clean environment, watched, ended, and never left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import KernelManager
from jupyter_core.paths import jupyter_runtime_dir
from jupyter_core.utils import run_sync

from kernel_agent.errors import KernelStartError
from kernel_agent.kernel.connection import Connection, new_context

# What a kernel needs of the host's environment. Everything else, API keys above all, stays out.
ENVIRONMENT = frozenset(
    "PATH HOME LANG LANGUAGE TERM TZ TMPDIR USER LOGNAME SHELL VIRTUAL_ENV PYTHONPATH PYTHONUTF8 "
    "LD_LIBRARY_PATH DYLD_LIBRARY_PATH SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE NO_COLOR "
    "IPYTHONDIR JUPYTER_PATH JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR R_HOME R_LIBS R_LIBS_USER "
    "SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT TEMP TMP APPDATA LOCALAPPDATA PROGRAMDATA "
    "USERPROFILE HOMEDRIVE HOMEPATH NUMBER_OF_PROCESSORS PROCESSOR_ARCHITECTURE".split()
)
ENVIRONMENT_PREFIXES = ("LC_", "XDG_", "CONDA_PREFIX", "OMP_", "MKL_", "OPENBLAS_", "CUDA_VISIBLE_")

# Waits for the end of its standard input, which comes when the agent is gone, even by SIGKILL; then
# ends the kernel's process group and removes the kernel's files. A kernel that was being launched
# just then is waited for: ipykernel itself does not always notice that its parent is gone.
GUARD = """
while read -r line; do said=$line; done
[ "$said" = done ] && exit
tries=50
until [ -s "$1/pid" ] || [ $tries = 0 ]; do sleep 0.1; tries=$((tries - 1)); done
[ -s "$1/pid" ] && kill -s KILL -- "-$(cat "$1/pid")" 2>/dev/null
rm -rf -- "$@"
"""

# Says who it is before it becomes the kernel, so that the guard knows at any moment.
LAUNCHER = 'echo $$ >"$0"; exec "$@"'

IPYKERNEL_OPTIONS = [
    "--HistoryManager.enabled=False",
    # A cell is over at the idle status, which comes after all outputs on their own channel: no
    # need to sleep before the reply so that outputs overtake it.
    "--IPythonKernel._execute_sleep=0",
]

LONGEST_FOLDER = 80  # a Unix socket's path has about 100 bytes


class _Manager(KernelManager):
    """Starts the kernel's command by way of a `launcher`."""

    launcher: Sequence[str] = ()

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        return [*self.launcher, *super().format_kernel_cmd(extra_arguments)]


class KernelProcess:
    """The process of one kernel, with its connection file, its sockets and its guard.

    `name` is a kernelspec's; `cwd` the folder that the kernel works in; `env` is added to the
    allowed part of the host's environment.
    """

    def __init__(self, name: str, *, cwd: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self._cwd = cwd
        self._env = {**kernel_environment(), **env}
        self._manager: _Manager | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._exit_code: int | None = None

    def start(self) -> Connection:
        """Start the process and connect to it; it may not be ready yet.

        Raises KernelStartError for an unknown kernelspec, a missing folder or interpreter.
        """
        self._folder = folder = new_runtime_folder()
        runtime = Path(jupyter_runtime_dir())
        # Here `jupyter console --existing` and editors find the kernel.
        connection_file = runtime / f"kernel-{uuid.uuid4()}.json"
        try:
            runtime.mkdir(parents=True, exist_ok=True)
            if os.name != "nt":
                self._guard = start_guard(folder, connection_file)
            self._manager = _Manager(
                kernel_name=self.name, connection_file=str(connection_file), context=new_context()
            )
            if os.name != "nt":
                self._manager.transport = "ipc"
                self._manager.ip = str(folder / "k")
                self._manager.launcher = ["/bin/sh", "-c", LAUNCHER, str(folder / "pid")]
            self._launch()
        except NoSuchKernel as error:
            self.close()
            raise KernelStartError(self.name, _no_such_kernel()) from error
        except OSError as error:
            self.close()
            raise KernelStartError(self.name, f"{error}.") from error
        return Connection(self.manager)

    def restart(self) -> Connection:
        """End the process and start another one, with the same connection file."""
        self.end()
        if self._folder is not None:
            (self._folder / "pid").unlink(missing_ok=True)
        try:
            self._launch()
        except OSError as error:
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
                env=self._env,
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

    def last_words(self, max_chars: int = 2000) -> str:
        """The end of what the process has written to its standard error."""
        try:
            with self._stderr.open("rb") as stderr:
                stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - max_chars))
                return stderr.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def interrupt(self) -> None:
        """Interrupt as the kernelspec asks: SIGINT to the process group, or a message."""
        self.manager.interrupt_kernel()

    def end(self) -> None:
        """Kill the process and whatever is left of its process group."""
        pid = self.pid
        self.manager.shutdown_kernel(now=True, restart=True)
        if pid is not None and os.name != "nt":
            # No such group: the kernel had started no process that outlived it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

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


def kernel_environment() -> dict[str, str]:
    """The part of the host's environment that a kernel may see."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)
    }


def installed_kernels() -> dict[str, str]:
    """The names of the installed kernelspecs and the folders that they lie in."""
    return dict(sorted(KernelSpecManager().find_kernel_specs().items()))


def new_runtime_folder() -> Path:
    """A new private folder whose path is short enough for Unix sockets."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]
    for candidate in candidates:
        if candidate and len(candidate) <= LONGEST_FOLDER and os.access(candidate, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="kernel-agent-", dir=candidate))
    return Path(tempfile.mkdtemp(prefix="kernel-agent-"))


def start_guard(*paths: Path) -> subprocess.Popen[bytes]:
    """Start the small shell that cleans up after this process, should it be killed."""
    return subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "kernel-agent-guard", *map(str, paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath},
        start_new_session=True,  # Ctrl-C in the agent's terminal is not meant for it
    )


def _no_such_kernel() -> str:
    names = ", ".join(installed_kernels()) or "none"
    return (
        f"no such kernelspec. Installed: {names}. "
        f"`{Path(sys.executable).name} -m jupyter kernelspec list` shows them."
    )
