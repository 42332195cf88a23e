"""What a model's reply asks for: run this code, take this answer, or nothing that can be used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kernel_agent.blocks import MADE_UP, Block, find_blocks
from kernel_agent.steps import Reply
from kernel_agent.syntax import acts, is_clearly_python, parse


@dataclass(frozen=True)
class RunCode:
    """Code to run: `source` is one cell, `thought` the prose around it.

    `said` is what goes back to the model as its own message: the reply without drafts
    (`<think>`) and without anything from the first made-up output on. It is never empty.
    """

    thought: str
    source: str
    said: str


@dataclass(frozen=True)
class Answer:
    """A reply without code."""

    text: str
    said: str


@dataclass(frozen=True)
class Unusable:
    """A reply of no use; `reason` tells the model what was wrong and what to do."""

    reason: str
    said: str


Action = RunCode | Answer | Unusable


def read_reply(reply: Reply, *, language: str = "python") -> Action:
    """What `reply` asks for; `language` is the kernel's, in lower case (`"python"`, `"r"`).

    Code inside a draft is never run, nor is code that was cut off. Code after an output that the
    model made up itself is not run either: it was written for an output that never was.
    """
    match _read(reply, language):
        case Unusable(reason, said) if language != "python":
            return Unusable(_in_words_of(language, reason), said)
        case Answer(_, said) if language != "python" and _PYTHON_FENCE.search(said):
            return Unusable(_in_words_of(language, _NO_PYTHON), said)
        case action:
            return action


def _in_words_of(language: str, reason: str) -> str:
    if reason == _SHELL_ONLY:
        reason = _NO_SHELL
    return reason.replace("```python", f"```{language}").replace("Python code", "code")


def _read(reply: Reply, language: str) -> Action:
    whole = reply.text.replace("\r\n", "\n")
    text = _without_drafts(whole, language)
    blocks = find_blocks(text, language)
    code = _code(blocks)
    cut = reply.finish_reason in _CUT
    if code and (marker := _made_up(text, blocks, code[0].end)) is not None:
        text, cut = text[:marker], False
        blocks = [block for block in blocks if block.end <= marker]
        code = _code(blocks)
    said = text.strip()
    if code:
        return _run(text, code, said, cut=cut, language=language)
    if cut:
        return Unusable(_CUT_OFF, said or _NOTHING_SAID)
    if not said:
        return Unusable(_DRAFT_ONLY if whole.strip() else _EMPTY, _NOTHING_SAID)
    if not blocks and (source := _code_without_fence(_ROLE.sub("", said), language)):
        return RunCode("", source, said)
    return _answer(said, blocks)


_NOTHING_SAID = "(empty reply)"
_CUT = frozenset(["length", "max_tokens"])
_EMPTY = "Your reply was empty. Write what you want to do and one ```python block, or the answer."
_DRAFT_ONLY = (
    "Your reply held nothing but a draft (<think>), and drafts are not run. "
    "Write one ```python block after the draft, or the answer."
)
_CUT_OFF = (
    "Your reply was cut off at the length limit, so nothing of it was run. "
    "Reply again, shorter: do less in one step."
)
_UNCLOSED = (
    "Your last code block was never closed and is not complete, so nothing was run. "
    "Send the whole code again and close the block with ```."
)
_EMPTY_BLOCK = "Your code block was empty. Put the code between ```python and ```."
_SHELL_ONLY = (
    "Shell blocks are not run. Write shell commands in a ```python block, each with `!` "
    "in front: `!ls`."
)
_NO_SHELL = "Shell blocks are not run. Write one ```python block, or the answer."
_NO_PYTHON = "This kernel does not run Python. Write one ```python block, or the answer."
_TOOL_CALL = (
    "A tool call written as text cannot be run, or its JSON is broken. "
    "Write Python code in a ```python block instead."
)
_MADE_UP_ONLY = (
    "You wrote an output yourself; only code that runs has outputs. "
    "Write one ```python block, or the answer."
)

_DRAFT = re.compile(
    r"(?P<open>^[ \t]*+(?:assistant:[ \t]*+)?[<\[](?:think|thinking|reasoning)[>\]])"
    r"|(?<!`)(?P<close>[<\[]/(?:think|thinking|reasoning)[>\]])",
    re.M | re.I,
)
_ROLE = re.compile(r"\A\s*(?:assistant:\s*)+", re.I)
_TAG = re.compile(r"</?(?:thought|code|execute\w*|python|tool_code|llm-code)>|<end_code>", re.I)
_JSON_CALL = re.compile(r'\A\{\s*"(?:thoughts?|code|source|name|tool|function)"\s*:')
_XML_CALL = re.compile(
    r"<function=\w*(?:python|code|execute|jupyter)\w*>\s*<parameter=(?:code|source)>\n?"
    r"(.*?)\s*</parameter>",
    re.S | re.I,
)
_PYTHON_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*py", re.M | re.I)
_RUNS_CODE = re.compile(r"python|code|exec|jupyter|\brun|cell", re.I)


def _without_drafts(text: str, language: str) -> str:
    """`text` without what models think aloud: closed, never closed, or never opened drafts."""
    tags = list(_DRAFT.finditer(text))
    if not tags or _is_json(text):
        return text
    literal = {
        tag.start()
        for block in find_blocks(text, language)
        for tag in _DRAFT.finditer(text, block.start, block.end)
        if block.closed and _is_code(block)
    }
    kept: list[str] = []
    position = 0
    opened = closed = False
    for tag in tags:
        if tag.start() in literal:
            continue
        if tag["open"] and not opened:
            kept.append(text[position : tag.start()])
            opened = True
        elif tag["close"] and (opened or not closed or text[tag.end() :].strip()):
            if not opened:
                kept.clear()
            position, opened, closed = tag.end(), False, True
    if not opened:
        kept.append(text[position:])
    return _DRAFT.sub("", "".join(kept)) if not literal else "".join(kept)


def _is_code(block: Block) -> bool:
    return block.kind in {"own", "bare"} and parse(block.source) is not None


def _code(blocks: list[Block]) -> list[Block]:
    """The blocks to run: calls, else tagged, else labelled ones, else what looks like code."""
    if calls := [block for block in blocks if block.kind == "call"]:
        return [replace(call, source=_called(call.source) or "") for call in calls]
    own = [block for block in blocks if block.kind == "own"]
    tagged = [block for block in own if block.tagged]
    return tagged or own or [block for block in blocks if block.kind == "bare"]


def _made_up(text: str, blocks: list[Block], start: int) -> int | None:
    """Where the first made-up output or turn after `start` begins, code and quotes left out."""
    for block in blocks:
        if block.kind == "output" or block.start < start:
            continue
        if marker := MADE_UP.search(text, start, block.start):
            return marker.start()
        start = block.end
    marker = MADE_UP.search(text, start)
    return marker.start() if marker else None


def _run(text: str, code: list[Block], said: str, *, cut: bool, language: str) -> Action:
    if cut and not code[-1].closed:
        return Unusable(_CUT_OFF, said)
    if code[0].kind == "call" and not all(block.source for block in code):
        return Unusable(_TOOL_CALL, said)
    # A block that lost its end may have lost more than that.
    if any(not b.closed and language == "python" and parse(b.source) is None for b in code):
        return Unusable(_UNCLOSED, said)
    source = "\n\n".join(block.source for block in code if block.source.strip())
    if not source:
        return Unusable(_EMPTY_BLOCK, said)
    return RunCode(_thought(text, code), source, said)


def _thought(text: str, code: list[Block]) -> str:
    starts = [0, *(block.end for block in code)]
    ends = [*(block.start for block in code), len(text)]
    prose = "\n\n".join(text[a:b].strip() for a, b in zip(starts, ends, strict=True))
    prose = _TAG.sub("", _ROLE.sub("", prose))
    return re.sub(r"\n\s*\n", "\n\n", prose).strip()


def _code_without_fence(said: str, language: str) -> str | None:
    """The code of a reply that is nothing but JSON that holds it, or nothing but Python."""
    if said.startswith("{"):
        return _called(said)
    if language == "python" and said.startswith(">>>"):
        return find_blocks(f"```python\n{said}\n```")[0].source
    return said if language == "python" and is_clearly_python(said) else None


def _called(call: str) -> str | None:
    """The code in a tool call, as JSON or as tags; None if it holds none."""
    if xml := _XML_CALL.search(call):
        return xml[1]
    try:
        value = json.loads(call, strict=False)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        return _code_of(value)
    return None


def _code_of(value: Mapping[str, Any]) -> str | None:
    function = value.get("function", value)
    value = function if isinstance(function, dict) else value
    name = value.get("name", value.get("tool"))
    arguments = value.get("arguments", value.get("parameters", value.get("input")))
    if isinstance(arguments, str):
        return _called(arguments)
    if isinstance(arguments, dict):
        if not (isinstance(name, str) and _RUNS_CODE.search(name)):
            return None
        value = arguments
    source = value.get("code", value.get("source"))
    # {"code": "FR"} is an answer.
    if not isinstance(source, str) or (tree := parse(source)) is None or not acts(tree):
        return None
    return source


def _answer(said: str, blocks: list[Block]) -> Action:
    text = _ROLE.sub("", said)
    if _JSON_CALL.match(text) and not _is_json(text):
        return Unusable(_TOOL_CALL, said)
    if [block.kind for block in blocks] == ["shell"]:
        return Unusable(_SHELL_ONLY, said)
    if MADE_UP.match(text) and not blocks:
        return Unusable(_MADE_UP_ONLY, said)
    return Answer(text or said, said)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True
