"""The code in tool calls that a model wrote out as text: JSON, or tags in the place of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from kernel_agent.syntax import acts, is_clearly_python, parse

CALL_OPENS = r"""
    (?:^|</\w+>)[ \t]*<(?:
        (?P<call>tool_call|function_calls?|minimax:tool_call)
      | (?P<named>function|invoke)(?:=|[ ]name=")[\w.]+"?
    )>
  | (?<!`)(?P<token>
        \[TOOL_CALLS\] | <\|(?:python_tag|action_start|tool_calls?)\|>
      | <[|｜]tool[_▁]calls?(?:_section)?[_▁]begin[|｜]>
      | <\|(?:channel|start)\|>[^<\n]*[ ]to=[^<\n]*
          (?:<\|(?:channel|constrain)\|>[^<\n]*)?<\|message\|>
    )
  | ^(?P<react>Action:[ \t]*\w+[ \t]*\n\s*Action[ ]Input:)(?!\s*(?:`{3}|~{3}))
"""
"""What opens a tool call: a tag, a token of the model's own, the words of ReAct."""

_JSON = json.JSONDecoder(strict=False)
_TOKEN = r"<[|｜][^|｜<>\n]*[|｜]>"
_TOKEN_END = re.compile(
    r"<\|(?:eom_id|action_end|tool_calls_section_end|call)\|>|<｜tool▁calls▁end｜>"
)
_REACT_END = re.compile(r"^[ \t]*(?:Observation|Thought|Action|Final Answer):", re.M)
_HEADER = re.compile(
    rf"""\s*+(?P<opening>(?:
        \[TOOL_CALLS\]
      | <\|(?:channel|start)\|>[^<\n]*[ ]to=(?:functions\.)?(?P<to>\w+)
          (?:[^<\n]*<\|(?:channel|constrain)\|>)?[^<\n]*<\|message\|>
      | Action:[ \t]*(?P<action>\w+)\s*Action[ ]Input:
      | (?:{_TOKEN})(?:function{_TOKEN})?
      )\s*)*+
      (?:(?:functions\.)?(?P<name>\w+)(?::\d+)?(?:\[CALL_ID\]\w+)?
        (?:{_TOKEN}|\[ARGS\]|\s)*(?=```|\{{))?
      (?:```(?P<fence>json|python|py)\s)?\s*""",
    re.X,
)
_TAG_CALL = re.compile(
    r"<(?:function=|invoke name=\")\w*(?:python|code|execute|jupyter)\w*\"?>\s*"
    r"<parameter(?:=| name=\")(?:code|source)\"?>\n?(?P<source>.*)</parameter>",
    re.S | re.I,
)
_ARGUMENT_CALL = re.compile(
    r"\s*(?P<name>\w+)\s*<arg_key>(?:code|source)</arg_key>\s*"
    r"<arg_value>\n?(?P<source>.*?)\n?</arg_value>\s*",
    re.S,
)
_PARAMETER_END = re.compile(r"</parameter>(?=\s*(?:<parameter\b|</function>|</invoke>|\Z))", re.I)
_END = re.compile(rf"(?<!\s)\s*+(?:{_TOKEN}\s*+){{0,4}}\Z")
_RUNS_CODE = re.compile(r"python|code|exec|jupyter|\brun|cell", re.I)


def called(call: str) -> str | None:
    """The code that a tool call wants to be run; None if it holds none or is broken."""
    if tags := _TAG_CALL.search(call):
        return _first_parameter(tags["source"] + "</parameter>")
    if (pair := _ARGUMENT_CALL.fullmatch(call)) and _RUNS_CODE.search(pair["name"]):
        return pair["source"]
    header = _HEADER.match(call)
    assert header
    name = header["to"] or header["action"] or header["name"]
    body = _END.sub("", call[header.end() :])
    body = body.removesuffix("```").strip() if header["fence"] else body
    try:
        value = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        is_code = header["opening"] or header["fence"] in {"python", "py"}
        is_code = is_code and (name is None or _RUNS_CODE.search(name))
        return body if is_code and is_clearly_python(body) else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    return _code_of({"name": name, "arguments": value} if name else value)


def call_end(text: str, opening: re.Match[str]) -> tuple[str, int, bool]:
    """What the call holds that `opening` opens, where it ends, and whether it is closed.

    The text includes the opening where that may name the tool.
    """
    start = opening.end()
    if opening["call"]:
        close = re.compile(rf"</{opening['call']}>", re.I).search(text, _end_of_json(text, start))
        source = text[start : close.start() if close else None].strip()
    elif opening["named"]:
        end = rf"</{opening['named']}>"
        whole = re.compile(rf"</parameter>\s*{end}", re.I).search(text, start)
        close = whole or re.compile(end, re.I).search(text, start)
        source = text[opening.start() : close.end() if close else None]
    elif opening["token"]:
        close = _TOKEN_END.search(text, _end_of_json(text, start))
        source = text[opening.start() : close.end() if close else None]
    else:
        close = _REACT_END.search(text, start)
        source = text[opening.start() : close.start() if close else None]
        return source, close.start() if close else len(text), False
    return source, close.end() if close else len(text), close is not None


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


def _end_of_json(text: str, start: int) -> int:
    """Where the JSON value ends that begins at `start`: a closing tag in its strings is none."""
    while text[start : start + 1].isspace():
        start += 1
    try:
        return _JSON.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return start


def _first_parameter(source: str) -> str:
    """The first parameter's text: a closing tag inside a string of its code is none."""
    ends = islice(_PARAMETER_END.finditer(source), 20)
    sources = [source[: end.start()].rstrip() for end in ends]
    return next((whole for whole in sources if parse(whole)), sources[0])


def _code_of(value: Mapping[str, Any]) -> str | None:
    function = value.get("function", value)
    value = function if isinstance(function, dict) else value
    name = value.get("name", value.get("tool", value.get("tool_name")))
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
