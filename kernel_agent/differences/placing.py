"""What each entry of a run says, as texts and figures that can be put beside another run's."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kernel_agent.observation import output_text
from kernel_agent.steps import (
    CellResult,
    Cut,
    Entry,
    Note,
    Observation,
    Output,
    Plan,
    Step,
    Task,
    UserCell,
)
from kernel_agent.transcript import Transcript

_FIGURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


@dataclass(frozen=True)
class Placed:
    """An entry of a transcript: its `name` (`"step 3"`), what it `says`, and its figures.

    `says` maps what can differ (`"thought"`, `"source"`, `"outputs"`, …) to its text as it was
    recorded; `figures` are data URLs.
    """

    name: str
    entry: Entry
    says: dict[str, str]
    figures: tuple[str, ...] = ()

    def key(self) -> tuple[str, str]:
        """What it is, and its text: entries that are alike in both stand for each other."""
        texts = (self.says.get(name) for name in ("source", "task", "note", "plan"))
        return self._kind, next((text for text in texts if text), "").strip()

    @property
    def _kind(self) -> str:
        match self.entry:
            case Step(result=None, observation=None):
                return "answer"
            case Step(result=None):
                return "unusable"
            case Step() | UserCell():
                return "code"
        return type(self.entry).__name__


def place(run: Transcript) -> list[Placed]:
    """The entries of `run` in order."""
    placed: list[Placed] = []
    steps = tasks = notes = plans = cuts = 0
    for entry in run.entries:
        match entry:
            case Task():
                tasks += 1
                placed.append(Placed(f"task {tasks}", entry, _task_says(entry)))
            case Note(text):
                notes += 1
                placed.append(Placed(f"note {notes}", entry, {"note": text}))
            case Plan(reply, said):
                plans += 1
                says = {"reasoning": reply.reasoning, "plan": said}
                placed.append(Placed(f"plan {plans}", entry, says))
            case Cut(summary=summary):
                cuts += 1
                placed.append(Placed(f"cut {cuts}", entry, {"summary": summary}))
            case UserCell(name, result):
                placed.append(
                    Placed(f"cell {name}", entry, _cell_says(result), _figures(result.outputs))
                )
            case Step(result=result):
                steps += 1
                figures = _figures(result.outputs) if result else ()
                placed.append(Placed(f"step {steps}", entry, _step_says(entry), figures))
    return placed


def _task_says(task: Task) -> dict[str, str]:
    # The prompt has the words and more, such as a preview of the data: it is not shown twice.
    prompt = "" if task.prompt.strip() == task.text.strip() else task.prompt
    return {"task": task.text, "prompt": prompt, "setup": task.setup}


def _step_says(step: Step) -> dict[str, str]:
    thought = {"reasoning": step.reply.reasoning, "thought": step.thought}
    match step:
        case Step(result=CellResult() as result):
            return thought | _cell_says(result)
        case Step(observation=None):
            return {"reasoning": step.reply.reasoning, "answer": step.thought}
        case Step(observation=Observation(text=why)):
            return thought | {"reply": step.reply.text, "refused": why}
    return thought


def _cell_says(result: CellResult) -> dict[str, str]:
    texts = (output_text(output).rstrip() for output in _merged(result.outputs))
    outputs = "\n".join(text for text in texts if text)
    return {"source": result.source, "status": result.status, "outputs": outputs}


def _merged(outputs: Iterable[Output]) -> list[Output]:
    """`outputs` where neighbouring texts of one stream are one: how they came is chance."""
    merged: list[Output] = []
    for output in outputs:
        before = merged[-1] if merged else {}
        if output["output_type"] == "stream" and before.get("name") == output["name"]:
            merged[-1] = {**before, "text": f"{_joined(before['text'])}{_joined(output['text'])}"}
        else:
            merged.append(output)
    return merged


def _joined(text: Any) -> str:
    return text if isinstance(text, str) else "".join(text)


def _figures(outputs: Iterable[Output]) -> tuple[str, ...]:
    return tuple(url for output in outputs if (url := _data_url(output)))


def _data_url(output: Output) -> str | None:
    data = output.get("data", {})
    for mime in _FIGURES:
        if mime in data:
            return f"data:{mime};base64,{''.join(_joined(data[mime]).split())}"
    if "image/svg+xml" in data:
        content = base64.b64encode(_joined(data["image/svg+xml"]).encode()).decode()
        return f"data:image/svg+xml;base64,{content}"
    return None
