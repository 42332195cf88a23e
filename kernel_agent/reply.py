"""What a model's reply asks for: run this code, take this answer, or nothing that can be used."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from kernel_agent.blocks import Block, find_blocks
from kernel_agent.calls import called, is_call, thought_and_code
from kernel_agent.drafts import MADE_UP, is_json, made_up_start, without_drafts
from kernel_agent.native_calls import UnusableCall, source_of, unfenced
from kernel_agent.steps import Format, Reply
from kernel_agent.syntax import is_clearly_python, parse


@dataclass(frozen=True)
class RunCode:
    """Code to run: `source` is one cell, `thought` the prose around it.

    `said` is what goes back to the model as its own message: the reply without drafts
    (`<think>`) and without anything from the first made-up output on. It is empty only beside
    native calls.
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


def read_reply(
    reply: Reply,
    *,
    language: str = "python",
    tools: Collection[str] = (),
    reply_format: Format = "fence",
) -> Action:
    """What `reply` asks for; `language` is the kernel's, in lower case (`"python"`, `"r"`).

    Native calls count before the text; they may be of the `tools` with these names and of the one
    for code. Every form of text is read, whatever the `reply_format`: that is the form which an
    Unusable reminds the model of.

    Code inside a draft is never run, nor is code that was cut off. Code after an output that the
    model made up itself is not run either: it was written for an output that never was.
    """
    action = _read_calls(reply, language, tools) if reply.calls else _read(reply, language)
    match action:
        case _Misread(fault, said):
            return Unusable(_told(fault, language, reply_format), said)
        case Answer(_, said) if language != "python" and _PYTHON_FENCE.search(said):
            return Unusable(_told(_NO_PYTHON, language, reply_format), said)
    return action


@dataclass(frozen=True)
class _Fault:
    """What was wrong with a reply, and how to `mend` it where blocks of code are wanted."""

    wrong: str
    mend: str


@dataclass(frozen=True)
class _Misread:
    fault: _Fault
    said: str


def _told(fault: _Fault, language: str, reply_format: Format) -> str:
    if language != "python" and fault is _SHELL_ONLY:
        fault = _NO_SHELL
    match reply_format:
        case "tools":
            mend = (
                f"Call the tool `{language}` with your code as the text `code`, or reply with the "
                "answer, in text alone."
            )
        case "json":
            mend = (
                'Reply with one JSON object, {"thought": "…", "code": "…"}; '
                "if the thought is the answer, the code is empty."
            )
        case _:
            mend = fault.mend.replace("```python", f"```{language}")
    told = f"{fault.wrong} {mend}"
    return told if language == "python" else told.replace("Python code", "code")


def _read_calls(reply: Reply, language: str, tools: Collection[str]) -> RunCode | _Misread:
    text = _END_TOKENS.sub("", reply.text.replace("\r\n", "\n"))
    said = without_drafts(text, language).strip()
    if reply.finish_reason in _CUT:
        return _Misread(_CUT_OFF, said)
    try:
        source = source_of(reply.calls, language=language, tools=tools)
    except UnusableCall as error:
        return _Misread(_Fault(f"{error} Nothing was run.", _TOOL_CALL.mend), said)
    return RunCode(_thought(said, []), source, said)


def _read(reply: Reply, language: str) -> RunCode | Answer | _Misread:
    whole = _END_TOKENS.sub("", reply.text.replace("\r\n", "\n"))
    text = without_drafts(whole, language)
    cut = reply.finish_reason in _CUT
    if pair := thought_and_code(text.strip()):
        return _read_pair(*pair, text.strip(), cut=cut, language=language)
    blocks = find_blocks(text, language)
    if (marker := made_up_start(text, blocks)) is not None:
        text, cut = _END_TOKENS.sub("", text[:marker]), False
        blocks = [block for block in blocks if block.end <= marker]
    said = text.strip()
    if code := _code(blocks):
        return _run(text, blocks, code, cut=cut, language=language)
    if cut:
        return _Misread(_CUT_OFF, said or _NOTHING_SAID)
    if not said:
        return _Misread(_DRAFT_ONLY if whole.strip() else _EMPTY, _NOTHING_SAID)
    blocks = [block for block in blocks if block.kind != "stray"]
    return _without_block(said, language) if not blocks else _answer(said, blocks)


def _read_pair(
    thought: str, source: str, said: str, *, cut: bool, language: str
) -> RunCode | Answer | _Misread:
    """A reply that is a JSON object of a thought and code."""
    if cut:
        return _Misread(_CUT_OFF, said)
    if source.strip():
        return RunCode(thought, unfenced(source, language), said)
    return Answer(thought, said) if thought else _Misread(_EMPTY, said)


_NOTHING_SAID = "(empty reply)"
_CUT = frozenset(["length", "max_tokens", "content_filter"])
_EMPTY = _Fault(
    "Your reply was empty.", "Write what you want to do and one ```python block, or the answer."
)
_DRAFT_ONLY = _Fault(
    "Your reply held nothing but a draft (<think>), and drafts are not run.",
    "Write one ```python block after the draft, or the answer.",
)
_CUT_OFF = _Fault(
    "Your reply was cut off before its end, so nothing of it was run. Reply again, shorter.",
    "Do less in one ```python block.",
)
_UNCLOSED = _Fault(
    "A code block of yours was never closed and is not complete, so nothing was run.",
    "Send the whole code again as one ```python block and close it with ```.",
)
_FENCES_IN_TEXT = _Fault(
    "Your %% cell holds a text with fences, so it is not clear where it ends. Nothing was run.",
    "Open and close the block with four backticks: ````python.",
)
_OPEN_FENCE = _Fault(
    "A fence of more than three backticks was opened before your code and never closed, so it is "
    "not clear what is meant to run.",
    "Put the code between ```python and ```, with nothing around.",
)
_EMPTY_BLOCK = _Fault("Your code block was empty.", "Put the code between ```python and ```.")
_SHELL_ONLY = _Fault(
    "Shell blocks are not run. Python code runs a shell command with `!` in front: `!ls`.",
    "Write it in a ```python block.",
)
_NO_SHELL = _Fault("Shell blocks are not run.", "Write one ```python block, or the answer.")
_NO_PYTHON = _Fault("This kernel does not run Python.", "Write one ```python block, or the answer.")
_TOOL_CALL = _Fault(
    "A tool call written as text cannot be run, or its JSON is broken.",
    "Write Python code in a ```python block instead.",
)
_MADE_UP_ONLY = _Fault(
    "You wrote an output yourself; only code that runs has outputs.",
    "Write one ```python block, or the answer.",
)

_ROLE = re.compile(r"\A\s*(?:assistant:\s*)+", re.I)
_TAG = re.compile(
    r"</?(?:thought|code|execute\w*|python|tool_code|llm-code|[\w:]*tool_call)>|<end_code>", re.I
)
_JSON_CALL = re.compile(r'\A\[?\s*\{\s*"(?:thoughts?|code|source|name|tool|function)"\s*:')
_PYTHON_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*py", re.M | re.I)
_END_TOKENS = re.compile(
    r"(?:(?:<\|(?:im_end|eot_id|eom_id|end|end_of_text|endoftext|return|call"
    r"|end_of_turn(?:_token)?)\|>|</s>|<end_of_turn>|<｜end▁of▁sentence｜>)\s*+)++\Z",
    re.I,
)
_CELL_MAGIC = re.compile(r"\s*%%(?P<is_python>time|timeit|capture|prun)?.*\n?")
_ANY_FENCE = re.compile(r"^[ \t]*(?:`{3}|~{3})[ \t]*$", re.M)
_BEGUN = re.compile(r"^[ \t]*+(?:[`~]|</?\w*)[^\n\s]*\Z", re.M)
"""The last line of a text that was cut where a block may be about to begin."""


def _code(blocks: list[Block]) -> list[Block]:
    """The blocks to run: calls, else tagged, else labelled ones, else what looks like code."""
    if calls := [block for block in blocks if block.kind == "call"]:
        return [replace(call, source=called(call.source) or "") for call in calls]
    own = [_without_call(block) for block in blocks if block.kind == "own"]
    tagged = [block for block in own if block.tagged]
    if code := tagged or own or [block for block in blocks if block.kind == "bare"]:
        return code
    others = [block for block in blocks if block.kind not in {"output", "stray"}]
    if len(others) == 1 and others[0].closed and is_call(others[0].source):
        source = called(others[0].source)
        return [replace(others[0], source=source, kind="call")] if source else []
    return []


def _without_call(block: Block) -> Block:
    """A block that holds a tool call which wants code to be run: as that code."""
    is_call_of_code = block.source.startswith(("{", "[")) and is_call(block.source)
    return replace(block, source=called(block.source) or block.source) if is_call_of_code else block


def _run(
    text: str, blocks: list[Block], code: list[Block], *, cut: bool, language: str
) -> RunCode | Answer | _Misread:
    said = text.strip()
    whole = all(block.closed and block.settled for block in blocks)
    if cut and (not whole or _BEGUN.search(text)):
        return _Misread(_CUT_OFF, said)
    if code[0].kind == "call" and not all(block.source for block in code):
        return _Misread(_TOOL_CALL, said)
    if any(_may_hold_more(text, block, language) for block in code):
        return _Misread(_FENCES_IN_TEXT, said)
    if any(_is_half(block, language) for block in code):
        return _Misread(_UNCLOSED, said)
    before = (block for block in blocks if block.start < code[0].start)
    if any(block.kind == "stray" and len(block.source) > 3 for block in before):
        return _Misread(_OPEN_FENCE, said)
    source = "\n\n".join(block.source for block in code if block.source.strip())
    if not source:
        return _Misread(_EMPTY_BLOCK, said)
    return RunCode(_thought(text, code), source, said)


def _may_hold_more(text: str, block: Block, language: str) -> bool:
    """Whether the fence that ends a text in a `%%` cell may be one of that text."""
    magic = _CELL_MAGIC.match(block.source)
    if language != "python" or block.tagged or not magic or magic["is_python"]:
        return False
    is_long = text.startswith(("````", "~~~~"), block.start)
    later = _ANY_FENCE.search(text, block.end if block.closed else block.end - 1)
    return bool(later) and not is_long


def _is_half(block: Block, language: str) -> bool:
    """Whether the end of a block is lost, and more than its closing may be lost with it."""
    if block.kind == "call":
        return False
    if block.closed:
        # What seems to close it stands in a string that nothing closes.
        return not block.settled and parse(block.source) is None
    if language != "python" or not block.source.strip():
        return True
    magic = _CELL_MAGIC.match(block.source)
    if magic and not magic["is_python"]:
        return True
    tree = parse(block.source[magic.end() :] if magic else block.source)
    return tree is None or (bool(tree.body) and _has_no_body_yet(tree.body[-1]))


def _has_no_body_yet(statement: ast.stmt) -> bool:
    """Whether a function or class that comes last consists of its docstring alone."""
    match statement:
        case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body) | ast.ClassDef(body=body):
            is_docstring = len(body) == 1 and ast.get_docstring(statement, clean=False) is not None
            return is_docstring or _has_no_body_yet(body[-1])
    return False


def _thought(text: str, code: list[Block]) -> str:
    starts = [0, *(block.end for block in code)]
    ends = [*(block.start for block in code), len(text)]
    prose = "\n\n".join(text[a:b].strip() for a, b in zip(starts, ends, strict=True))
    prose = _TAG.sub("", _ROLE.sub("", prose))
    return re.sub(r"\n\s*\n", "\n\n", prose).strip()


def _without_block(said: str, language: str) -> RunCode | Answer | _Misread:
    """A reply without blocks: nothing but JSON that holds code, nothing but Python, or words."""
    text = _ROLE.sub("", said)
    if text.startswith(("{", "[")) and (source := called(text)):
        return RunCode("", source, said)
    if language == "python" and text.startswith(">>>"):
        source = find_blocks(f"```python\n{text}\n```")[0].source
        return RunCode("", source, said) if source.strip() else _answer(said, [])
    if language == "python" and is_clearly_python(text):
        return RunCode("", text, said)
    if language == "python" and (marker := MADE_UP.search(text)):
        before = text[: marker.start()].strip()
        if is_clearly_python(before):
            return RunCode("", before, before)
    return _answer(said, [])


def _answer(said: str, blocks: list[Block]) -> RunCode | Answer | _Misread:
    text = _ROLE.sub("", said)
    if _JSON_CALL.match(text) and not is_json(text):
        return _Misread(_TOOL_CALL, said)
    if blocks and blocks[0].kind == "shell" and (len(blocks) == 1 or MADE_UP.search(text)):
        return _Misread(_SHELL_ONLY, said)
    if MADE_UP.match(text) and not blocks:
        return _Misread(_MADE_UP_ONLY, said)
    return Answer(text or said, said)
