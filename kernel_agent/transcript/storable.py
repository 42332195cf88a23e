"""Values as a notebook can hold them: what is stored is what is in memory, and comes back equal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from kernel_agent.steps import (
    CellResult,
    Cut,
    Entry,
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
    UserCell,
)

MAX_DEPTH = 60
"""Deeper JSON is cut with an ellipsis: encoders recurse, and some run out of stack."""

Value = TypeVar("Value", bound=Entry | Outcome)


def storable(value: Value) -> Value:
    """`value` with all its text encodable (see `storable_text`) and all its outputs valid.

    Equal to `value` unless it held something that no notebook can hold.
    """
    stored: Value = _storable(value)
    return stored


def storable_text(text: str) -> str:
    """`text` as UTF-8 can hold it: a pair of surrogates is joined, a lone one becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def storable_json(value: Any, depth: int = MAX_DEPTH) -> Any:
    """`value` as JSON that every reader takes.

    Tuples become lists, keys text, NaN and infinities their `repr` (as Jupyter has it, browsers
    read no NaN), and what is no JSON value its `str`.
    """
    match value:
        case str():
            return storable_text(value)
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping() | list() | tuple() if depth == 0:
            return "…"
        case Mapping():
            return {
                storable_text(str(key)): storable_json(item, depth - 1)
                for key, item in value.items()
            }
        case list() | tuple():
            return [storable_json(item, depth - 1) for item in value]
    return storable_text(str(value))


def storable_output(output: Output) -> Output:
    """`output` as nbformat 4.5 allows it, texts in one piece, whatever the kernel sent.

    Keys that the format does not know are dropped, missing ones filled in; an output of an
    unknown type is kept as the text of its JSON.
    """
    output = storable_json(output)
    match output.get("output_type"):
        case "stream":
            name, text = output.get("name") or "stdout", output.get("text", "")
            return {"output_type": "stream", "name": _text(name), "text": _text(text)}
        case "error":
            lines = output.get("traceback") or []
            return {
                "output_type": "error",
                "ename": _text(output.get("ename", "")),
                "evalue": _text(output.get("evalue", "")),
                "traceback": [_text(line) for line in lines] if isinstance(lines, list) else [],
            }
        case "display_data":
            return {"output_type": "display_data", **_data(output)}
        case "execute_result":
            count = _count(output.get("execution_count"))
            return {"output_type": "execute_result", "execution_count": count, **_data(output)}
    data = {"text/plain": json.dumps(output, ensure_ascii=False)}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def is_json_mime(mime: str) -> bool:
    """Whether nbformat allows any JSON under this MIME type; under all others it wants text."""
    return mime == "application/json" or (
        mime.startswith("application/") and mime.endswith("+json")
    )


def _storable(value: Any) -> Any:
    match value:
        case CellResult():
            outputs = tuple(storable_output(output) for output in value.outputs)
            count = _count(value.execution_count)
            return replace(value, **_texts(value) | {"outputs": outputs, "execution_count": count})
        case Task() | Step() | Note() | Plan() | UserCell() | Cut():
            return replace(value, **_texts(value))
        case Reply() | RequestedCall() | Observation() | Outcome() | ToolCall():
            return replace(value, **_texts(value))
        case tuple():
            return tuple(_storable(item) for item in value)
        case str() | Mapping() | list():
            return storable_json(value)
    return value


def _texts(value: Any) -> dict[str, Any]:
    """The fields of a value that have been made storable."""
    return {
        field.name: _storable(getattr(value, field.name))
        for field in fields(value)
        if field.name != "outputs"
    }


def _data(output: Output) -> dict[str, Any]:
    data, metadata = output.get("data"), output.get("metadata")
    bundle = data if isinstance(data, dict) else {}
    return {
        "data": {
            mime: value if is_json_mime(mime) else _text(value) for mime, value in bundle.items()
        },
        "metadata": metadata if isinstance(metadata, dict) else {},
    }


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _count(value: Any) -> int | None:
    """An execution count: an integer that is not negative, or nothing."""
    return value if type(value) is int and value >= 0 else None
