"""Runs inside an ipykernel: lets an interrupt hit the code of a cell and nothing else.

Shipped as text, into a module of its own. In ipykernel 7.4 a SIGINT that comes while the kernel
turns from one request to the next ends its event loop, and so the kernel.
"""

from __future__ import annotations

import signal
from types import FrameType

from IPython import get_ipython


def install() -> None:
    """Handle SIGINT during requests; between them the kernel ignores it by itself."""
    shell = get_ipython()
    kernel, run_cell = shell.kernel, type(shell).run_cell.__code__

    def interrupt(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is run_cell:
                # For a cell that goes on: in a handler in Python, unlike in this one, an exception
                # that another thread raises would be swallowed together with the interrupt.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                raise KeyboardInterrupt
            frame = frame.f_back

    def before_request() -> None:
        kernel.saved_sigint_handler = signal.signal(signal.SIGINT, interrupt)

    kernel.pre_handler_hook = before_request


install()
