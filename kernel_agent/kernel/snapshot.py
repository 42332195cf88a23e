"""Runs inside the kernel: stores the user's variables in a folder, and gives them back.

Shipped as text after the modules it imports and `inside`. It pickles with cloudpickle or dill if
one of them is installed, else with the standard pickle, which knows no functions and classes of a
notebook. Like the cells of a notebook, a snapshot is code: restore only what you would run.

Each variable has a pickle of its own. A variable that is met inside another one's pickle stands
there as a reference, so `a is b` and `d["frame"] is frame` hold after a restore, and nothing is
stored twice; functions refer to the live namespace. Not kept: what two variables share that is no
variable itself (a list that is in two dicts is then two lists), an array that is a view of another
(it becomes a copy), and cells of closures that two functions share.
"""

from __future__ import annotations

import builtins
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from types import ModuleType
from typing import TYPE_CHECKING, Any

from IPython import get_ipython

if TYPE_CHECKING:
    from kernel_agent.kernel.snapshot_pickling import reason, versions
    from kernel_agent.kernel.snapshot_restoring import Loading, working_folder
    from kernel_agent.kernel.snapshot_saving import Known, Saving
else:
    from kernel_agent_snapshot_pickling import reason, versions
    from kernel_agent_snapshot_restoring import Loading, working_folder
    from kernel_agent_snapshot_saving import Known, Saving

_known: Known | None = None
_outcome: dict[str, Any] = {}


def is_ready() -> bool:
    return True


def outcome() -> dict[str, Any]:
    """What the last `save` or `restore` did."""
    return _outcome


def save(path: str, key: str, max_bytes: int) -> None:
    """Store the variables as the snapshot `key` of the folder `path`."""
    _run(lambda: _save(path, key, max_bytes))


def restore(path: str, key: str) -> None:
    """Give the namespace what the snapshot `key` of the folder `path` holds."""
    _run(lambda: _restore(path, key))


def _run(act: Callable[[], dict[str, Any]]) -> None:
    """Nothing is raised: the traceback would be shown with the next cell."""
    global _outcome, _known  # noqa: PLW0603
    _outcome = {"reason": "It was interrupted."}
    started = time.monotonic()
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(Quiet(sys.stdout)),
            redirect_stderr(Quiet(sys.stderr)),
        ):
            warnings.simplefilter("ignore")
            _outcome = {**act(), "seconds": time.monotonic() - started}
    except Exception as error:
        _known = None  # what is in the folder now must be read
        _outcome = {"reason": reason(error)}
    except BaseException:  # KeyboardInterrupt, or what is raised when that does not help
        _known = None


class Quiet:
    """A stream without what this thread prints: it would be shown with the next cell."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() == self._thread:
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _use(path: str) -> Known:
    global _known  # noqa: PLW0603
    if _known is None or not _known.folder.is_at(path):
        _known = Known(path)
    return _known


def _save(path: str, key: str, max_bytes: int) -> dict[str, Any]:
    known = _use(path)
    known.folder.written = 0
    values, imports = _variables()
    saving = Saving(known, values, room=max_bytes)
    saving.run()
    generators = {name: saving.keep_aside(state) for name, state in _random_states().items()}
    pickles = [*saving.pickles(), *(entry for entry in generators.values() if entry)]
    skipped = {
        name: saving.skipped[first]
        for name, first in saving.aliases.items()
        if first in saving.skipped
    }
    manifest = {
        "python": _python(),
        "pickler": saving.pickler,
        "folder": working_folder(),
        "path": [folder for folder in sys.path if isinstance(folder, str)],
        "packages": versions(imports.values(), values.values()),
        "imports": imports,
        "submodules": _submodules(imports),
        "pickles": pickles,
        "aliases": {name: first for name, first in saving.aliases.items() if name != first},
        "random": {name: entry for name, entry in generators.items() if entry},
        "skipped": skipped,
    }
    known.folder.write(key, manifest, max_bytes=max_bytes)
    sizes = {name: entry["bytes"] for name, entry in saving.entries.items()}
    return {
        "stored": {name: sizes[first] for name, first in saving.aliases.items() if first in sizes},
        "skipped": skipped,
        "written": known.folder.written,
    }


def _restore(path: str, key: str) -> dict[str, Any]:
    known = _use(path)
    manifest = known.folder.read(key)
    names = [name for entry in manifest["pickles"] for name in entry.get("names", ())]
    if manifest["python"] != _python():
        why = f"It was stored by Python {manifest['python']}; this is {_python()}."
        return {"failed": dict.fromkeys([*names, *manifest["aliases"]], why)}
    namespace = get_ipython().user_ns
    before = dict(namespace)
    try:
        loading = Loading(known.folder, manifest, namespace)
        loading.run()
    except BaseException:
        for name in namespace.keys() - before.keys():
            del namespace[name]
        namespace.update(before)
        raise
    finally:
        namespace["__builtins__"] = builtins  # cloudpickle puts their dict there
    entries = [entry for entry in manifest["pickles"] if "names" in entry]
    known.last = {tuple(entry["names"]): entry for entry in entries}
    sys.modules["kernel_agent_inside"].changes()  # what is there now is nothing that a cell did
    return {
        "names": loading.restored,
        "failed": loading.failed,
        "skipped": manifest["skipped"],
        "imports": loading.imports,
    }


def _variables() -> tuple[dict[str, Any], dict[str, str]]:
    """The user's variables with functions and classes, and the names of imported modules."""
    shell = get_ipython()
    ours = sys.modules["kernel_agent_inside"].final_answer
    calling = sys.modules.get("kernel_agent_calling")
    values, imports = {}, {}
    for name, value in list(shell.user_ns.items()):
        if not isinstance(name, str) or name.startswith("_") or name in shell.user_ns_hidden:
            continue
        if value is ours or (calling and calling.is_offered(value)):
            continue  # `%reset` makes IPython forget that it is hidden
        # Not `isinstance`: that asks a proxy what it stands for.
        if issubclass(type(value), ModuleType):
            module = ModuleType.__getattribute__(value, "__name__")
            if sys.modules.get(module) is value:
                imports[name] = module
                continue
        values[name] = value
    return values, imports


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"random": random.getstate()}
    if numpy_random := sys.modules.get("numpy.random"):
        states["numpy.random"] = numpy_random.get_state(legacy=False)
    return states


def _submodules(imports: dict[str, str]) -> list[str]:
    """What `import package.module` has loaded beside the package, for it binds the package only."""
    packages = {module for name, module in imports.items() if name == module}
    return [
        module
        for module in list(sys.modules)
        if (parts := module.split("."))[0] in packages
        and len(parts) > 1
        and not any(part.startswith("_") for part in parts)
    ]


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))
