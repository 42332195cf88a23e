"""Makes the README's picture from the demo's notebook: `python -m tests.picture`."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from kernel_agent.console import LiveView
from kernel_agent.events import Event, ReplyStarted, RunFinished, RunStarted
from kernel_agent.recorded import transcript_events
from kernel_agent.shipped import shipped
from kernel_agent.transcript import Transcript

STEPS = {2, 3}
PICTURE = Path(__file__).parent.parent / "notebooks" / "terminal.svg"
COMMAND = "kernel-agent demo (two of seven steps)"


def main() -> None:
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    shown = True
    with LiveView(console) as view:
        for event in transcript_events(
            Transcript.load(shipped("notebooks") / "seattle-weather.ipynb")
        ):
            shown = _is_shown(event, shown)
            if shown:
                view(_as_a_user_sees_it(event))
    svg = console.export_svg(title=COMMAND, theme=SVG_EXPORT_THEME, unique_id="run")
    # The picture asks no server for a font.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    PICTURE.write_text(svg.replace("Fira Code", "ui-monospace, Menlo, Consolas"), encoding="utf-8")


def _is_shown(event: Event, shown: bool) -> bool:
    """A few steps and the end: the whole run would fill many screens."""
    match event:
        case ReplyStarted(number=number):
            return number in STEPS
        case RunFinished():
            return True
    return shown


def _as_a_user_sees_it(event: Event) -> Event:
    """With the path that a run gives to its notebook."""
    match event:
        case RunStarted() | RunFinished():
            return replace(event, path=Path("runs/2026-01-31-which-month-is-the-wettest.ipynb"))
    return event


if __name__ == "__main__":
    main()
