"""Prints what is seldom told of a run: its state rebuilt, another model, room made, sub-agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernel_agent.console.page import Page
from kernel_agent.events import (
    Event,
    ModelChanged,
    RoomMade,
    RunFinished,
    RunStarted,
    StateRebuilt,
    StepFinished,
    SubagentTold,
    TranscriptMoved,
)
from kernel_agent.rendering import INDENT, answer_text
from kernel_agent.steps import Cut, Rebuilt

MAX_NAMES = 12


class Notices:
    """Prints notices on `page`."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._skipped: set[str] = set()

    def show(self, event: Event) -> None:
        """Print what the event tells, if it is one of these."""
        match event:
            case StateRebuilt(rebuilt):
                self._show_rebuilt(rebuilt)
            case ModelChanged(model, reason):
                self._page.note(
                    ": ".join(filter(None, [f"Now {model} is asked", reason])), "yellow"
                )
            case RoomMade(cut):
                self._show_cut(cut)
            case SubagentTold(name, event):
                self._show_subagent(name, event)
            case TranscriptMoved(path, reason):
                text = f"The notebook is now {path}: where it was it {reason}"
                self._page.note(text, "yellow")

    def show_skipped(self, skipped: Mapping[str, str]) -> None:
        """Say once of each variable that no snapshot holds it."""
        new = {name: reason for name, reason in skipped.items() if name not in self._skipped}
        self._skipped |= new.keys()
        if new:
            named = "; ".join(f"{name} ({reason})" for name, reason in new.items())
            self._page.note(f"{INDENT}[Not in the snapshot: {named}]", "dim", blank=False)

    def _show_rebuilt(self, rebuilt: Rebuilt) -> None:
        parts = [
            rebuilt.reason,
            _named("Restored from the snapshot", rebuilt.restored),
            _named("Run again", rebuilt.back),
            _named("Lost", rebuilt.lost),
            _named("Another output than before", rebuilt.differing),
        ]
        text = "\n".join(filter(None, parts)) or "There were no variables to bring back."
        self._page.note(text, "yellow" if rebuilt.lost or rebuilt.differing else "dim")

    def _show_cut(self, cut: Cut) -> None:
        text = "The model's window is filling up. It goes on with earlier outputs shortened"
        if not cut.summarised:
            self._page.note(f"{text}.", "dim")
            return
        if not cut.summary.strip():
            self._page.note(f"{text}, and without what was before them.", "dim")
            return
        self._page.note(f"{text}, and what was before them as a summary.", "dim")
        self._page.indented("Summary", cut.summary, "dim")

    def _show_subagent(self, name: str, event: Event) -> None:
        """The steps of a sub-agent, in short, under its name."""
        match event:
            case SubagentTold(inner, event):
                self._show_subagent(f"{name} › {inner}", event)
            case RunStarted(task):
                self._page.indented(name, task.text, "cyan")
            case StepFinished(number, step) if step.result and step.observation:
                self._page.indented(f"{name} {number}", step.thought, "")
                self._page.indented("", step.result.source, "dim")
                self._page.indented("", step.observation.text, "dim")
            case RunFinished(outcome, answer):
                ending = answer_text(answer) if answer is not None else str(outcome)
                self._page.indented(f"{name} answers", ending, "green")


def _named(what: str, names: Sequence[str]) -> str:
    """The names after what they are, the first ones of many; empty without any."""
    more = [f"… and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return f"{what}: {', '.join([*names[:MAX_NAMES], *more])}" if names else ""
