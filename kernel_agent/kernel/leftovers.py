"""Finds and ends the processes that a kernel leaves behind in sessions of their own.

Such a process is in no group of the kernel and, once the kernel has died, no child of it either.
What it still has is the kernel's environment. Needs `/proc`; elsewhere nothing is found.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "KERNEL_AGENT_RUNTIME"
"""The variable of a kernel's environment that holds its runtime folder, which is its own."""

ROUNDS = 5  # a process may start another one while it is being found


def end_leftovers(folder: Path) -> None:
    """Kill each process whose environment says that it comes from the kernel of `folder`."""
    for _ in range(ROUNDS):
        pids = list(_leftovers(folder))
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _leftovers(folder: Path) -> Iterator[int]:
    mark = f"{MARK}={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        # Somebody else's, or gone by now; the environment of a killed one is empty.
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name)
