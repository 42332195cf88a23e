"""The lines at the bottom of a terminal that are redrawn while others are printed above them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

REDRAW_SECONDS = 0.1


class Region:
    """Draws what `draw` gives ten times a second, from `start` to `stop`, and then takes it away.

    Whatever is printed to the console meanwhile must be printed by `print`.
    """

    def __init__(self, console: Console, draw: Callable[[], RenderableType]) -> None:
        self._console = console
        self._live = Live(console=console, get_renderable=draw, auto_refresh=False, transient=True)
        # rich's own thread may redraw between the moment that `Console.print` looks up how many
        # lines to take away and the moment that it writes: too many are gone, or too few.
        self._lock = Lock()
        self._stopped = Event()
        self._thread = Thread(target=self._redraw, name="kernel-agent-region", daemon=True)

    def start(self) -> None:
        self._live.start(refresh=True)
        self._thread.start()

    def print(self, renderable: RenderableType, **options: Any) -> None:
        with self._lock:
            self._console.print(renderable, **options)

    def stop(self) -> None:
        """Takes the lines away and shows the cursor."""
        self._stopped.set()
        try:
            self._thread.join()
        finally:
            self._live.stop()

    def _redraw(self) -> None:
        while not self._stopped.wait(REDRAW_SECONDS):
            with self._lock:
                self._live.refresh()
