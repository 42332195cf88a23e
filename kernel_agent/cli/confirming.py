"""Asks the user at the terminal before a cell runs: yes, no, edit it, or always yes."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kernel_agent.errors import SettingsError

if TYPE_CHECKING:
    from kernel_agent.approving import Approve, Refused
    from kernel_agent.console import LiveView
    from kernel_agent.events import Listener

QUESTION = "Run it? y(es), n(o) and why, e(dit), a(lways):"


def check_terminal() -> None:
    """Raises SettingsError if nobody can be asked."""
    if not (sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())):
        raise SettingsError("--confirm asks at the terminal, and there is none. Leave it out.")


def asking_user(listener: Listener | None) -> Approve:
    """Asks in the view that `listener` is, else on standard error, where the code is shown too."""
    from kernel_agent.console import LiveView

    if isinstance(listener, LiveView) and sys.stdout.isatty():
        return _Confirmation(listener, shows_code=True)

    from rich.console import Console

    return _Confirmation(LiveView(Console(stderr=True), live=False), shows_code=False)


class _Confirmation:
    """See `Approve`; `shows_code` says whether the code is on the screen already."""

    def __init__(self, view: LiveView, *, shows_code: bool) -> None:
        self._view = view
        self._shows_code = shows_code
        self._always = False

    def __call__(self, source: str) -> bool | str | Refused:
        from kernel_agent.approving import Refused
        from kernel_agent.events import ApprovalAsked

        if self._always:
            return True
        if not self._shows_code:
            self._view(ApprovalAsked(0, "", source))
        while True:
            word, _, why = self._view.ask(QUESTION, False).strip().partition(" ")
            match word.lower():
                case "y" | "yes":
                    return True
                case "a" | "always":
                    self._always = True
                    return True
                case "" | "n" | "no":  # nothing at all comes from Ctrl-C and Ctrl-D too
                    return Refused(why.strip())
                case "e" | "edit":
                    if (edited := _edited(source)) is not None:
                        return edited


def _edited(source: str) -> str | None:
    """What the user's editor makes of `source`; None if there is no editor or it failed."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        _say("No editor is known. Set EDITOR to one, such as EDITOR=nano, in the next run.")
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cell.py"
        file.write_text(source + "\n", encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            _say(f"The editor {editor!r} could not be used: {error}.")
            return None


def _say(text: str) -> None:
    import typer

    typer.secho(text, err=True, fg="yellow")
