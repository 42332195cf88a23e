"""Snapshots of a kernel's variables, seen from the host, which never unpickles anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAVE_SECONDS = 90.0  # how long a snapshot may take; by itself it ends after 60
RESTORE_SECONDS = 600.0
MODULE = "kernel_agent_snapshot"
SOURCES = {
    f"kernel_agent_{name}": f"{name}.py"
    for name in (
        "snapshot_folder",
        "snapshot_pickling",
        "snapshot_restoring",
        "snapshot_saving",
        "snapshot",
    )
}


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot holds.

    `stored` are the names of variables with the bytes of their pickles, `skipped` those that are
    not in it, each with the reason. `written` are the bytes that had to be written, `seconds` is
    how long it took. `reason` says why there is no snapshot; it is empty if there is.
    """

    stored: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    written: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Restored:
    """What a kernel has got back from a snapshot.

    `names` are the variables that are there again, `imports` the modules, by the names that they
    have in the code (`{"np": "numpy"}`). `failed` are variables and imports, each with the reason,
    and with them `"the folder"` (the working folder), `"random"` and `"numpy.random"` (the states
    of the generators); `skipped` are the variables that were not stored. `reason` says why nothing
    was restored; it is empty if something was.
    """

    names: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    imports: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Work:
    """A `call` into our `module` inside the kernel, made of `sources`, that may take `seconds`."""

    call: str
    seconds: float
    module: str = MODULE
    sources: Mapping[str, str] = field(default_factory=lambda: SOURCES)


def snapshot_keys(folder: Path) -> frozenset[str]:
    """The keys of the snapshots in `folder`; none if there is no such folder."""
    return frozenset(path.stem for path in folder.glob("*.json"))


def saving(folder: Path, key: str, max_bytes: int) -> Work:
    """Taking a snapshot."""
    return Work(f"save({str(folder.absolute())!r}, {key!r}, {max_bytes!r})", SAVE_SECONDS)


def restoring(folder: Path, key: str) -> Work:
    """Restoring one."""
    return Work(f"restore({str(folder.absolute())!r}, {key!r})", RESTORE_SECONDS)
