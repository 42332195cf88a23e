"""Runs inside an ipykernel: sees to it that what a dying kernel has said is not lost.

Shipped as text, into a module of its own.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from typing import Any

SEND_SECONDS = 0.05  # what zmq's own thread needs to send what it was given


def keep_fatal_error() -> None:
    """Let it be told on the process's own standard error: the kernel's ends with the kernel."""
    original = getattr(sys.stderr, "_original_stdstream_copy", None)
    if original is not None:
        faulthandler.enable(original, all_threads=False)


def keep_outputs() -> None:
    """Let `os._exit` wait until all outputs have left, in the kernel but not in its forks."""
    kernel, exit_at_once = os.getpid(), os._exit

    def _exit(status: int) -> Any:
        if os.getpid() == kernel:
            sys.stdout.flush()
            sys.stderr.flush()
            time.sleep(SEND_SECONDS)
        exit_at_once(status)

    os._exit = _exit


keep_fatal_error()
keep_outputs()
