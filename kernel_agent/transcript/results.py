"""A cell and what its metadata say become a step, or the result of a user's cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields as fields_of
from typing import Any, get_args

from kernel_agent.steps import (
    CellResult,
    CellStatus,
    Cut,
    Limit,
    Observation,
    Outcome,
    Output,
    Plan,
    Reply,
    RequestedCall,
    Step,
    ToolCall,
    Usage,
)
from kernel_agent.transcript.cells import ANSWER_HEADING, RUNNING, Cell, data_url
from kernel_agent.transcript.fields import Damaged, Fields, source_of


def read_step(cell: Cell, fields: Fields, thought: str, *, is_code: bool) -> Step:
    """The step of a `cell` that its metadata's `fields` tell more of.

    Raises Damaged if there is no reply, and none can be made out.
    """
    kind, source = fields.data.get("kind"), source_of(cell)
    text = fields.data.get("reply")
    if kind == "answer":
        thought = (source or "").removeprefix(ANSWER_HEADING)
        text = fields.get("reply", str, thought, is_needed=True)
    reply = _reply(text, fields)
    result = None
    if kind == "code" and is_code:
        result = read_result(cell, fields)
    elif kind == "code":
        fields.problems.append("it is no code cell any more: its code counts as not executed.")
    observation = None
    if "observation" in fields.data:
        observation = _observation(fields, result)
    said, thought = fields.get("said", str, reply.text), fields.get("thought", str, thought)
    return Step(reply, said, thought, result, observation, fields.get("refused", str, ""))


def read_plan(fields: Fields) -> Plan:
    """The plan of a cell, from its metadata's `fields`. Raises Damaged if there is no reply."""
    reply = _reply(fields.data.get("reply"), fields)
    return Plan(
        reply,
        fields.get("said", str, reply.text),
        fields.get("asked", str, "", is_needed=True),
        fields.get("told", str, "", is_needed=True),
    )


def read_cut(fields: Fields) -> Cut:
    """The cut of a cell, from its metadata's `fields`. Raises Damaged for a reply that is none."""
    return Cut(
        _count(fields, "shortened"),
        _count(fields, "summarised") if "summarised" in fields.data else 0,
        fields.get("summary", str, ""),
        fields.get("asked", str, ""),
        _reply(fields.data["reply"], fields) if "reply" in fields.data else None,
    )


def read_result(cell: Cell, fields: Fields) -> CellResult:
    """What a code cell did; for a user's cell there are no `fields`."""
    outputs = _outputs(cell, fields)
    failed = any(output["output_type"] == "error" for output in outputs)
    status: CellStatus = "error" if failed else "ok"
    if fields.data:
        allowed = (*get_args(CellStatus), RUNNING)
        found = fields.one_of("status", allowed, status)
        status = "ok" if found == RUNNING else found
    source = source_of(cell)
    if source is None:
        fields.problems.append("its source is no text.")
    count = cell.get("execution_count")
    return CellResult(
        source=source or "",
        status=status,
        outputs=outputs,
        execution_count=count if type(count) is int and count >= 0 else None,
        seconds=fields.get("seconds", float, 0.0),
        started=fields.get("started", float, 0.0),
        reason=fields.get("reason", str, ""),
        variables=_variables(fields),
        stopped_by=fields.get("stopped_by", str, ""),
        inputs=tuple(_inputs(fields)),
        tool_calls=tuple(_tool_calls(fields)),
    )


def read_outcome(fields: Fields) -> Outcome:
    """An outcome from the notebook's metadata. Raises Damaged."""
    data = fields.data
    status, limit = data.get("status"), data.get("limit")
    if status not in ("answered", "limit", "interrupted", "failed"):
        raise Damaged(f"an outcome's 'status' is {status!r}.")
    if limit is not None and limit not in get_args(Limit):
        raise Damaged(f"an outcome's 'limit' is {limit!r}.")
    return Outcome(status, limit, fields.get("reason", str, ""))


def _reply(text: object, fields: Fields) -> Reply:
    if not isinstance(text, str):
        raise Damaged("its reply is missing.")
    return Reply(
        text,
        fields.get("reasoning", str, ""),
        None if fields.data.get("finish_reason") is None else fields.get("finish_reason", str, ""),
        _usage(fields),
        tuple(_requested_calls(fields)),
        tuple(_signed(fields)),
        fields.get("model", str, ""),
    )


def _requested_calls(fields: Fields) -> Iterator[RequestedCall]:
    for number, data in enumerate(fields.get("calls", list, []), 1):
        call = Fields(data if isinstance(data, dict) else {})
        if not isinstance(call.data.get("name"), str):
            fields.problems.append(f"requested call {number} has no name.")
            continue
        yield RequestedCall(
            call.get("id", str, "", is_needed=True),
            call.data["name"],
            call.get("arguments", str, "", is_needed=True),
            call.get("extra", dict, {}),
        )
        fields.problems += call.problems


def _signed(fields: Fields) -> Iterator[dict[str, Any]]:
    for block in fields.get("signed", list, []):
        if isinstance(block, dict):
            yield block
        else:
            fields.problems.append(f"a signed block is of type {type(block).__name__}.")


def _count(fields: Fields, name: str) -> int:
    """A number of entries, 0 for what is none."""
    count = fields.get(name, int, 0, is_needed=True)
    if isinstance(count, bool) or count < 0:
        fields.problems.append(f"its {name!r} is {count!r}, no number of entries.")
        return 0
    return count


def _outputs(cell: Cell, fields: Fields) -> tuple[Output, ...]:
    found = cell.get("outputs")
    if not isinstance(found, list):
        fields.problems.append("its outputs are no list.")
        return ()
    if any(output is None for output in found):
        fields.problems.append("an output is no object.")
    return tuple(output for output in found if output is not None)


def _observation(fields: Fields, result: CellResult | None) -> Observation:
    inner = fields.inner("observation")
    images = []
    for image in inner.get("images", list, []):
        match image:
            case str():
                images.append(image)
            case {"output": int(index), "mime": str(mime)}:
                # A person may have cleared the outputs: then there is no image any more.
                outputs: tuple[Output, ...] = result.outputs if result else ()
                url = data_url(outputs[index], mime) if 0 <= index < len(outputs) else None
                images += [url] if url else []
            case _:
                fields.problems.append(f"an image is of type {type(image).__name__}.")
    text = inner.get("text", str, "", is_needed=True)
    fields.problems += inner.problems
    return Observation(text, tuple(images), inner.get("notices", str, ""))


def _usage(fields: Fields) -> Usage:
    inner = fields.inner("usage")
    numbers: dict[str, Any] = {
        part.name: inner.get(part.name, type(part.default), part.default)
        for part in fields_of(Usage)
        if inner.data.get(part.name) is not None
    }
    if "cost" in inner.data and inner.data["cost"] is None:
        numbers["cost"] = None
    fields.problems += inner.problems
    return Usage(**numbers)


def _tool_calls(fields: Fields) -> Iterator[ToolCall]:
    for number, data in enumerate(fields.get("tool_calls", list, []), 1):
        call = Fields(data if isinstance(data, dict) else {})
        if not isinstance(call.data.get("name"), str):
            fields.problems.append(f"tool call {number} has no name.")
            continue
        yield ToolCall(
            call.data["name"],
            call.get("arguments", dict, {}),
            call.data.get("result"),
            call.get("error", str, ""),
            call.get("seconds", float, 0.0),
            _usage(call) if "usage" in call.data else Usage(),
            call.get("transcript", str, ""),
        )
        fields.problems += call.problems


def _variables(fields: Fields) -> dict[str, str]:
    found = fields.get("variables", dict, {})
    texts = {name: kind for name, kind in found.items() if isinstance(kind, str)}
    if len(texts) < len(found):
        fields.problems.append("its 'variables' are not all told in text.")
    return texts


def _inputs(fields: Fields) -> list[str | None]:
    found = fields.get("inputs", list, [])
    texts = [text for text in found if text is None or isinstance(text, str)]
    if len(texts) < len(found):
        fields.problems.append("its 'inputs' are not all text.")
    return texts
