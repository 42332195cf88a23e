"""What a kernel's code is offered of the host: installed there, and served for each cell."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kernel_agent.kernel.runtime import new_runtime_folder, runtime_places, start_guard
from kernel_agent.kernel.serving import Offer, Serve, Serving, check_offers
from kernel_agent.kernel.workers import Workers

MODULE = "kernel_agent_calling"
BORDER_SOURCES = {
    "kernel_agent_border_files": "../border/files.py",
    "kernel_agent_border_libraries": "../border/libraries.py",
    "kernel_agent_border": "../border/codec.py",
}
SOURCES = BORDER_SOURCES | {f"kernel_agent_{name}": f"{name}.py" for name in ("courier", "calling")}
TAKE_AWAY = f"__import__('sys').modules[{MODULE!r}].install({{}}, None)"


class Offering:
    """The functions that are offered, their workers, and the folder of large values.

    `folder` is None until a kernel has shown that it reads and writes the same one.
    """

    def __init__(self) -> None:
        self.offers: dict[str, Offer] = {}
        self.is_installed = False
        self.folder: Path | None = None
        self._own_folder: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._workers = Workers()

    def change(self, offers: Mapping[str, Offer]) -> None:
        """Raises ValueError for a stub that does not fit its name."""
        check_offers(offers)
        self.offers = dict(offers)

    def install(self, report: Callable[[str], Any]) -> str:
        """Offer them in the kernel, where `report` evaluates: why that failed, empty if not."""
        self.folder = self._shared_folder(report)
        stubs = {name: offer.stub for name, offer in self.offers.items()}
        folder = str(self.folder) if self.folder else None
        outcome = report(f"offer({stubs!r}, {folder!r})")
        self.is_installed = outcome == "" and bool(stubs)
        return "the kernel did not answer" if outcome is None else str(outcome)

    def serving(self, serve: Serve, max_calls: int, wake: Callable[[], None]) -> Serving:
        """Serves the calls of one cell."""
        return Serving(serve, self.offers, self._workers, max_calls=max_calls, wake=wake)

    def close(self) -> None:
        """Remove the folder; safe to call twice."""
        self.folder, self.is_installed = None, False
        if self._guard is not None:
            with suppress(BrokenPipeError):  # someone has ended it
                self._guard.communicate(b"done\n")
            self._guard = None
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)
            self._own_folder = None

    def _shared_folder(self, report: Callable[[str], Any]) -> Path | None:
        """The folder of large values, if the kernel sees and can change it."""
        if self._own_folder is None:
            try:
                self._own_folder = new_runtime_folder(runtime_places())
            except OSError:
                return None  # no room for files: large values go with the messages
            if os.name != "nt":
                self._guard = start_guard(self._own_folder, has_kernel=False)
        token = secrets.token_hex()
        of_host, of_kernel = (self._own_folder / name for name in ("of-host", "of-kernel"))
        of_host.write_text(token, encoding="ascii")
        try:
            is_shared = report(f"is_shared({str(self._own_folder)!r}, {token!r})") is True
            is_same = is_shared and of_kernel.read_text(encoding="ascii") == token
        except (OSError, ValueError):
            return None
        finally:
            for probe in (of_host, of_kernel):
                probe.unlink(missing_ok=True)
        return self._own_folder if is_same else None
