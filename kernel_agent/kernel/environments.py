"""Which Python a kernel runs in: an interpreter, or an environment that is made once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from platformdirs import user_cache_path

from kernel_agent.errors import KernelStartError

NAME = "python3"
IPYKERNEL = "ipykernel>=7.4"  # 7.0 to 7.3 can hang (ipykernel #1554)
INSTALLER_PREFIXES = ("PIP_", "UV_", "HTTP_", "HTTPS_", "NO_PROXY", "ALL_PROXY")
VERSION_SECONDS = 30.0
# Written last: an environment without it was never finished.
COMPLETE = "kernel-agent-requirements.txt"


@dataclass(frozen=True)
class Environment:
    """Where a Python kernel runs.

    `python` is an interpreter's path or command, or a virtual environment's folder; None stands
    for this interpreter. `packages` are requirements as pip takes them (`"polars>=1"`): with any,
    the kernel runs in an environment of its own that has them, made when it is first wanted and
    found again by the same requirements and version of Python. `on_progress` gets each line that
    is printed while it is made.
    """

    python: str | Path | None = None
    packages: tuple[str, ...] = ()
    on_progress: Callable[[str], None] | None = None

    @property
    def is_wanted(self) -> bool:
        return self.python is not None or bool(self.packages)

    def interpreter(self, env: Mapping[str, str]) -> Path:
        """The interpreter to start, made first if need be; `env` is what installers may see.

        Raises KernelStartError if there is no such interpreter or a package cannot be installed.
        """
        python = Path(sys.executable) if self.python is None else _find(self.python)
        if not self.packages:
            return python
        requirements = _requirements(self.packages)
        tell = self.on_progress or _ignore
        try:
            return _cached(python, requirements, _installers_env(env), tell)
        except OSError as error:
            raise _failed(requirements, f"{error}.") from error


def python_spec(python: Path, packages: Sequence[str]) -> KernelSpec:
    """The kernelspec of ipykernel in the interpreter `python`, which has the `packages`."""
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    what = f"Python with {', '.join(packages)}" if packages else f"Python ({_home(python).name})"
    return KernelSpec(argv=argv, display_name=what, language="python")


def python_env(python: Path, env: Mapping[str, str]) -> dict[str, str]:
    """`env` with the programs of the interpreter's environment found first, as if activated."""
    activated = dict(env) | {
        "PATH": os.pathsep.join(filter(None, (str(python.parent), env.get("PATH"))))
    }
    activated.pop("VIRTUAL_ENV", None)
    if (_home(python) / "pyvenv.cfg").is_file():
        activated["VIRTUAL_ENV"] = str(_home(python))
    return activated


def missing_ipykernel(python: Path | None) -> str:
    """What to do when the interpreter lacks ipykernel."""
    command = f"{python or Path(sys.executable).name} -m pip install '{IPYKERNEL}'"
    return f"ipykernel is not installed there. `{command}` installs it."


def _home(python: Path) -> Path:
    return python.parent.parent


def _find(python: str | Path) -> Path:
    path = Path(python).expanduser()
    if path.is_dir():
        path = _python_in(path)
    found = shutil.which(path if path.exists() else str(python))
    if found is None:
        raise KernelStartError(
            NAME,
            f"there is no interpreter {str(python)!r}. "
            "Give the path of a python or of a virtual environment's folder.",
        )
    # Not resolved: a virtual environment's python is a link, and its place is what counts.
    return Path(found).absolute()


def _python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _requirements(packages: tuple[str, ...]) -> list[str]:
    requirements = sorted({package.strip() for package in packages})
    for requirement in requirements:
        if not requirement or requirement.startswith("-") or not requirement.isprintable():
            reason = f"{requirement!r} is no package. Name it as for pip: 'polars' or 'polars>=1'."
            raise KernelStartError(NAME, reason)
    return requirements


def _cached(
    python: Path, requirements: list[str], env: dict[str, str], tell: Callable[[str], None]
) -> Path:
    """The interpreter of the environment that holds `requirements`."""
    key = "\n".join([_version(python, env), *requirements])
    root = user_cache_path("kernel-agent") / "environments"
    folder = root / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not _is_complete(folder):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f"{folder.name}.lock", tell):
            if not _is_complete(folder):  # another builder may have finished it meanwhile
                _build(folder, python, requirements, env, tell)
    return _python_in(folder)


def _version(python: Path, env: dict[str, str]) -> str:
    """The version of an interpreter in full, and its implementation."""
    if python == Path(sys.executable):
        return sys.version
    command = [str(python), "-c", "import sys; print(sys.version)"]
    try:
        done = subprocess.run(
            command, env=env, check=True, capture_output=True, text=True, timeout=VERSION_SECONDS
        )
    except subprocess.SubprocessError as error:
        reason = f"{str(python)!r} is no Python that works: {error}"
        raise KernelStartError(NAME, reason) from error
    return done.stdout.strip()


def _is_complete(folder: Path) -> bool:
    # The interpreter is a link: it may lead nowhere when the Python below it was removed.
    return (folder / COMPLETE).is_file() and _python_in(folder).exists()


def _build(
    folder: Path,
    python: Path,
    requirements: list[str],
    env: dict[str, str],
    tell: Callable[[str], None],
) -> None:
    """Make the environment in its final place: its programs name it and could not be moved."""
    shutil.rmtree(folder, ignore_errors=True)
    tell(f"Making an environment with {', '.join(requirements)}: {folder}")
    wanted = [IPYKERNEL, *requirements]
    try:
        if uv := shutil.which("uv", path=env.get("PATH")):
            # With pip inside: `%pip install` is what a model writes.
            make = [uv, "venv", "--seed", "--python", str(python), str(folder)]
            install = [uv, "pip", "install", "--python", str(_python_in(folder))]
        else:
            make = [str(python), "-m", "venv", str(folder)]
            pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
            install = [str(_python_in(folder)), *pip]
        for command in (make, [*install, *wanted]):
            _run(command, requirements, env, tell)
        (folder / COMPLETE).write_text("\n".join(wanted) + "\n", encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _run(
    command: list[str], requirements: list[str], env: dict[str, str], tell: Callable[[str], None]
) -> None:
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip():
                    said.append(line.strip())
                    tell(line.rstrip())
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise _failed(requirements, _complaint(said))


def _complaint(said: list[str]) -> str:
    """What an installer ended with: its last error, and what it explains it by."""
    starts = [n for n, line in enumerate(said) if line.lower().startswith(("error", "×"))]
    return " ".join(said[starts[-1] if starts else -1 :]) or "it said nothing."


def _failed(requirements: list[str], reason: str) -> KernelStartError:
    names = ", ".join(requirements)
    return KernelStartError(NAME, f"an environment with {names} could not be made. {reason}")


def _installers_env(env: Mapping[str, str]) -> dict[str, str]:
    """What an installer may see: as a kernel, and which indexes and proxies to use.

    Building a package runs its code, so it sees no keys either. With PYTHONPATH it would take
    for installed what is not.
    """
    extra = {k: v for k, v in os.environ.items() if k.upper().startswith(INSTALLER_PREFIXES)}
    left_out = ("PYTHONPATH", "VIRTUAL_ENV")
    return {k: v for k, v in {**env, **extra}.items() if k not in left_out}


@contextmanager
def _locked(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when this process ends."""
    with path.open("w", encoding="utf-8") as file:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - it is there on Windows alone

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - it is not there on Windows

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell("Waiting for another process that makes the same environment.")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ignore(line: str) -> None:
    """Nobody wants to see the progress."""
