"""Entries become notebook cells that read as an analysis; what cannot be seen is metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from kernel_agent.steps import (
    ANSWER_MIME,
    CellResult,
    Cut,
    Note,
    Observation,
    Outcome,
    Output,
    Plan,
    Reply,
    RequestedCall,
    Step,
    Task,
    ToolCall,
    Usage,
)
from kernel_agent.transcript.attachments import attach
from kernel_agent.transcript.folding import folded, reasoning_text
from kernel_agent.transcript.markdown import fenced, headed, literal, quiet

Cell = dict[str, Any]
"""A cell as nbformat 4.5 has it in memory: texts in one piece."""

KEY = "kernel_agent"
"""Where our metadata lies, in a cell's and in the notebook's."""

ANSWER_HEADING = "## Answer\n\n"
PLAN_HEADING = "### Plan\n\n"
RUNNING = "running"
"""The status of a cell that had not finished when the notebook was written."""

LONGEST_SPLIT = 1_000_000  # characters
_SPLIT_MIMES = ("application/javascript", "image/svg+xml")


def task_cells(task: Task, number: int) -> list[Cell]:
    """The cells of task `number` (from 1): its text and, if there is one, its setup."""
    known = {"kind": "task", "task": number, **facts(task, but=("setup", "images"))}
    cells = [_markdown(f"task-{number}", headed(task.text), known)]
    if task.images:
        known["images"] = attach(cells[0], task.images)
    if task.setup:
        known = {"kind": "setup", "task": number}
        cells.append(code_cell(f"task-{number}-setup", task.setup, known))
    return cells


def step_cells(step: Step, number: int, *, running: bool = False) -> list[Cell]:
    """The cells of step `number` (from 1): reasoning, thought, and what came of the reply."""
    known = {"step": number, **_reply_facts(step)}
    name = f"step-{number}"
    before = list(_reasoning_cells(name, step.reply, number))
    after: list[Cell] = []
    match step:
        case Step(result=None, observation=None):
            known["kind"] = "answer"
            return [*before, _markdown(name, ANSWER_HEADING + step.thought, known)]
        case Step(result=None, observation=Observation(text=reason)):
            known["kind"] = "note"
            why = "This was refused:" if step.refused else "This reply could not be used:"
            text = f"{quiet(why)}\n\n{literal(reason)}"
            cell = _markdown(name, text, known)
        case Step(result=CellResult() as result):
            known["kind"] = "code"
            cell = _result_cell(name, result, known, running=running)
            if result.reason and not running:
                # What ended the cell from outside is in no output.
                reason_cell = _markdown(f"{name}-reason", quiet(result.reason), {"kind": "reason"})
                after.append(reason_cell)
    if step.thought.strip():
        thought = {"kind": "thought", "step": number}
        return [*before, _markdown(f"{name}-thought", step.thought, thought), cell, *after]
    if step.thought:
        known["thought"] = step.thought
    return [*before, cell, *after]


def note_cell(note: Note, number: int) -> Cell:
    """The cell of note `number` (from 1)."""
    text = f"{quiet('The model was told:')}\n\n{literal(note.text)}"
    return _markdown(f"note-{number}", text, {"kind": "note", "note": number, "text": note.text})


def plan_cell(plan: Plan, number: int) -> Cell:
    """The cell of plan `number` (from 1)."""
    known = {"kind": "plan", "plan": number, "asked": plan.asked, "told": plan.told}
    known |= _facts_of_reply(plan.reply, plan.said)
    return _markdown(f"plan-{number}", PLAN_HEADING + plan.said, known)


def cut_cell(cut: Cut, number: int) -> Cell:
    """The cell of cut `number` (from 1)."""
    known = {"kind": "cut", "cut": number, **facts(cut, but=("reply",))}
    if cut.reply:
        known |= _facts_of_reply(cut.reply, cut.reply.text)
    text = quiet("From here on the model was shown a line in place of each older output")
    if cut.summary:
        text = folded("Shown to the model from here on, in place of the older steps", cut.summary)
    return _markdown(f"cut-{number}", text, known)


def outcome_cells(outcome: Outcome, last: Step | None, task: int) -> list[Cell]:
    """What closes task number `task`: an answer that code gave, and how the task ended.

    `last` is the task's last step.
    """
    cells = []
    output = last.result.answer if last and last.result and not last.refused else None
    if outcome.status == "answered" and output is not None:
        text = ANSWER_HEADING + _answer_text(output)
        cells.append(_markdown(f"task-{task}-answer", text, {"kind": "answer"}))
    if outcome.status != "answered" or outcome.limit:
        sentence = str(outcome)
        sentence = sentence[:1].upper() + sentence[1:]
        cells.append(_markdown(f"task-{task}-outcome", quiet(sentence), {"kind": "note"}))
    return cells


def code_cell(name: str, source: str, known: dict[str, Any]) -> Cell:
    """A code cell of ours that has not been executed; `known` is what its metadata say."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {KEY: known},
        "outputs": [],
        "source": source,
    }


def answer_value(output: Output) -> Any:
    """The JSON value, or the text, that an output of `final_answer` carries."""
    match output["data"][ANSWER_MIME]:
        case {"value": value}:
            return value
        case {"text": text}:
            return text
    return None


def has_more_than_text(output: Output) -> bool:
    """Whether an output of `final_answer` carries a value, and `answer_value` gives its text."""
    match output["data"][ANSWER_MIME]:
        case {"encoded": _} | {"shown": _}:
            return True
    return False


def data_url(output: Output, mime: str) -> str | None:
    """An image of an output as a data URL, None if it has none of this MIME type."""
    data = output.get("data", {}).get(mime)
    return f"data:{mime};base64,{''.join(data.split())}" if isinstance(data, str) else None


def facts(value: Any, but: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass's `value` that differ from their defaults, without `but`."""
    return {
        field.name: getattr(value, field.name)
        for field in fields(value)
        if field.name not in but and getattr(value, field.name) != field.default
    }


def split_lines(cell: Cell) -> Cell:
    """`cell` as it lies on disk: with its texts as lists of lines."""
    split = cell | {"source": cell["source"].splitlines(keepends=True)}
    if "outputs" in cell:
        split["outputs"] = [_split_output(output) for output in cell["outputs"]]
    return split


def _split_output(output: Output) -> Output:
    match output:
        case {"output_type": "stream", "text": text}:
            return output | {"text": _lines(text)}
        case {"data": data}:
            return output | {
                "data": {
                    mime: _lines(value)
                    if isinstance(value, str) and (mime.startswith("text/") or mime in _SPLIT_MIMES)
                    else value
                    for mime, value in data.items()
                }
            }
    return output


def _lines(text: str) -> list[str] | str:
    """Lines, which compare well; a flood in one piece, for millions of lines take much memory."""
    return text.splitlines(keepends=True) if len(text) < LONGEST_SPLIT else text


def _result_cell(name: str, result: CellResult, known: dict[str, Any], *, running: bool) -> Cell:
    """The code cell of a step; with `running` its status says so, whatever the result's is."""
    known["status"] = RUNNING if running else result.status
    shown = ("source", "status", "outputs", "execution_count", "variables", "tool_calls")
    known |= facts(result, but=shown)
    if result.tool_calls:
        known["tool_calls"] = [_call(call) for call in result.tool_calls]
    if result.variables:
        known["variables"] = dict(result.variables)
    cell = code_cell(name, result.source, known)
    cell["outputs"] = list(result.outputs)
    cell["execution_count"] = result.execution_count
    if timing := _timing(result):
        cell["metadata"]["execution"] = timing
    if result.status != "ok":
        cell["metadata"]["tags"] = ["raises-exception"]
    if result.stopped_by or result.status == "died":
        # Without anybody to stop it, it would run for ever or end the kernel again.
        cell["metadata"].setdefault("tags", ["raises-exception"]).extend(
            ["skip-execution", "nbval-skip"]
        )
    return cell


def _call(call: ToolCall) -> dict[str, Any]:
    known = facts(call, but=("usage",))
    return known | ({"usage": facts(call.usage)} if call.usage != Usage() else {})


def _reply_facts(step: Step) -> dict[str, Any]:
    """The reply, and the observation as it was sent."""
    known = _facts_of_reply(step.reply, step.said)
    if step.refused:
        known["refused"] = step.refused
    if step.observation:
        outputs = step.result.outputs if step.result else ()
        known["observation"] = {"text": step.observation.text}
        if images := [_image(url, outputs) for url in step.observation.images]:
            known["observation"]["images"] = images
        if step.observation.notices:
            known["observation"]["notices"] = step.observation.notices
    return known


def _facts_of_reply(reply: Reply, said: str) -> dict[str, Any]:
    known = facts(reply, but=("text", "finish_reason", "usage", "calls", "signed"))
    known |= {"reply": reply.text, "finish_reason": reply.finish_reason}
    if reply.calls:
        known["calls"] = [_requested(call) for call in reply.calls]
    if reply.signed:
        known["signed"] = list(reply.signed)
    known["usage"] = facts(reply.usage)
    return known | ({"said": said} if said != reply.text else {})


def _requested(call: RequestedCall) -> dict[str, Any]:
    known = {"id": call.id, "name": call.name, "arguments": call.arguments}
    return known | ({"extra": call.extra} if call.extra else {})


def _reasoning_cells(name: str, reply: Reply, number: int) -> Iterator[Cell]:
    """A cell to read, if there was any reasoning: the reply's own facts have it word for word."""
    if text := reasoning_text(reply):
        yield _markdown(f"{name}-reasoning", text, {"kind": "reasoning", "step": number})


def _image(url: str, outputs: Iterable[Output]) -> str | dict[str, Any]:
    """A data URL, or where it can be found in the outputs: no image is stored twice."""
    mime = url.removeprefix("data:").partition(";")[0]
    for index, output in enumerate(outputs):
        if data_url(output, mime) == url:
            return {"output": index, "mime": mime}
    return url


def _timing(result: CellResult) -> dict[str, str]:
    """JupyterLab's timing keys; none for a cell of which no time is known."""
    if not result.started:
        return {}
    try:
        busy = datetime.fromtimestamp(result.started, UTC).isoformat()
        idle = datetime.fromtimestamp(result.started + result.seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # a clock that tells no date
        return {}
    begun = {"iopub.status.busy": busy, "iopub.execute_input": busy}
    return begun | {"shell.execute_reply": idle, "iopub.status.idle": idle}


def _answer_text(output: Output) -> str:
    """An answer for a reader: Markdown as such, a number as it is, anything else as code."""
    data = output["data"]
    if markdown := data.get("text/markdown"):
        return str(markdown)
    value = answer_value(output)
    if isinstance(value, str) and "value" in data[ANSWER_MIME]:
        return value
    if isinstance(value, int | float):
        return str(value)
    return fenced(str(data.get("text/plain", value)))


def _markdown(name: str, source: str, known: dict[str, Any]) -> Cell:
    return {"cell_type": "markdown", "id": name, "metadata": {KEY: known}, "source": source}
