"""Runs inside a Python kernel, in a subshell: stops the code of a cell in the main thread.

It is shipped as text with the request that asks for it and needs nothing of ours there.
"""

from __future__ import annotations

import _thread
import ctypes
import signal
import sys
import threading
import time
from types import FrameType

from IPython import get_ipython

PAUSE_SECONDS = 0.02
TOTAL_SECONDS = 3.0


class CellStopped(BaseException):
    """The cell did not end when it was interrupted."""


def stop() -> None:
    """Raise CellStopped in the main thread, again and again while code of a cell runs there.

    Once is not enough for a loop around a bare `except:`, but sooner or later it hits such a loop
    between two tries.
    """
    main = threading.main_thread().ident
    assert main is not None
    deadline = time.monotonic() + TOTAL_SECONDS
    while _runs_cell(sys._current_frames().get(main)) and time.monotonic() < deadline:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(main), ctypes.py_object(CellStopped)
        )
        _wake(main)
        time.sleep(PAUSE_SECONDS)


def _runs_cell(frame: FrameType | None) -> bool:
    """Whether code of a cell is at work: nothing of the kernel's own must be hit."""
    names = get_ipython().user_ns
    while frame is not None and frame.f_globals is not names:
        frame = frame.f_back
    return frame is not None


def _wake(main: int) -> None:
    """Let a blocking call in the main thread return, or else the exception waits for its end."""
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        signal.pthread_kill(main, signal.SIGINT)


stop()
