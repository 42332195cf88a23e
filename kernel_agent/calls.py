"""The code in tool calls that a model wrote out as text: JSON, or tags in the place of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from kernel_agent.syntax import acts, parse

_TAG_CALL = re.compile(
    r"<(?:function=|invoke name=\")\w*(?:python|code|execute|jupyter)\w*\"?>\s*"
    r"<parameter(?:=| name=\")(?:code|source)\"?>\n?(?P<source>.*)</parameter>",
    re.S | re.I,
)
_PARAMETER_END = re.compile(r"</parameter>(?=\s*(?:<parameter\b|</function>|</invoke>|\Z))", re.I)
_RUNS_CODE = re.compile(r"python|code|exec|jupyter|\brun|cell", re.I)


def called(call: str) -> str | None:
    """The code that a tool call wants to be run; None if it holds none or is broken."""
    if tags := _TAG_CALL.search(call):
        return _first_parameter(tags["source"] + "</parameter>")
    try:
        value = json.loads(call, strict=False)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _code_of(value) if isinstance(value, dict) else None


def thought_and_code(text: str) -> tuple[str, str] | None:
    """The two texts of a reply that is nothing but `{"thought": …, "code": …}`; None for others."""
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    match value:
        case {"thought": str() as thought, "code": str() as source} if len(value) == 2:
            return thought.strip(), source
    return None


def is_call(text: str) -> bool:
    """Whether JSON names a function, or a thought beside its code: no data has these keys."""
    return bool(re.match(r'\s*\[?\s*\{\s*"(?:thoughts?|name|tool|function)"\s*:', text))


def _first_parameter(source: str) -> str:
    """The first parameter's text: a closing tag inside a string of its code is none."""
    ends = islice(_PARAMETER_END.finditer(source), 20)
    sources = [source[: end.start()].rstrip() for end in ends]
    return next((whole for whole in sources if parse(whole)), sources[0])


def _code_of(value: Mapping[str, Any]) -> str | None:
    function = value.get("function", value)
    value = function if isinstance(function, dict) else value
    name = value.get("name", value.get("tool"))
    arguments = value.get("arguments", value.get("parameters", value.get("input")))
    if isinstance(arguments, str):
        return called(arguments)
    if isinstance(arguments, dict):
        if not (isinstance(name, str) and _RUNS_CODE.search(name)):
            return None
        value = arguments
    source = value.get("code", value.get("source"))
    # {"code": "FR"} is an answer.
    if not isinstance(source, str) or (tree := parse(source)) is None or not acts(tree):
        return None
    return source
