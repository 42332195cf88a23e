"""Where the code lies in a text: fenced and tagged blocks in all the shapes that models write."""

from __future__ import annotations

import functools
import re
import textwrap
from dataclasses import dataclass, replace
from typing import Literal

from kernel_agent.syntax import acts, outside_strings, parse

Kind = Literal["own", "bare", "shell", "output", "call", "other"]


@dataclass(frozen=True)
class Block:
    """A block at `text[start:end]`, its fences or tags included; `source` is what they hold.

    `kind`: `"own"` (labelled with the kernel's language), `"bare"` (no label, but code by its
    looks), `"shell"`, `"output"`, `"call"` (a tool call in words), or `"other"`. `tagged`: inside
    `<execute>` or the like. `closed`: false if its end was missing.
    """

    start: int
    end: int
    source: str
    kind: Kind
    tagged: bool = False
    closed: bool = True


_PYTHON = "python|py|ipython|tool_code|pycon|python_code|python-repl|jupyter|execute|code"
_SHELL = frozenset(["bash", "sh", "shell", "zsh", "console", "shell-session", "cmd", "powershell"])
_OUTPUT = frozenset(["output", "stdout", "result", "observation", "execution_result"])
_NESTING = frozenset(["", "md", "markdown", "text", "txt", "rst"])
_TAGS = (
    r"code|execute(?:_(?:i?python|code))?|run(?:_(?:python|code))?|tool_code|llm-code"
    r"|code_interpreter"
)
_PYTHON_TAGS = r"|i?python3?|py|python_code|jupyter"
_SHELL_TAGS = r"bash|shell|sh|execute_(?:bash|shell)"

_FENCE_LINE = re.compile(r"^[ \t]*(?P<fence>`{3,}+|~{3,}+)(?P<info>[^`\n]*)$", re.M)
_FENCE_CLOSE = r"^[ \t]*(?:`{3,}+|~{3,}+)(?P<info>[^`<\n]*)(?:<.*)?$|`{3,}+[ \t]*$"
_TAG_CLOSE = rf"</(?:{_TAGS}{_PYTHON_TAGS})>|<end_code>|\[/PYTHON\]"
_ANY_CLOSE = rf"{_FENCE_CLOSE}|{_TAG_CLOSE}"
_TAG_OPEN = re.compile(rf"^[ \t]*<(?:{_TAGS}{_PYTHON_TAGS})>", re.M | re.I)

MADE_UP = re.compile(
    r"""^[ \t]*+(?:
      (?:\[/?INS\w*\]?:?[ \t]*+)?[*_#> \t]*+
        (?:observations?|(?:(?:code|console|execution|program)[ ])?outputs?|execution[ ]results?
          |execution[ ]logs?|stdout|user|human|assistant)[*_ \t]*:(?!:)
    | \#+[ \t]*(?:observation|output|execution[ ]result)s?[ \t]*$
    | \[/?(?:output|observation|result|inst|user)s?\]
    | <(?:observation|[\w-]*(?:output|results?)|tool_response|stdout|user|human)\b[^>\n]*>
    | <\|(?:im_start|start_header_id|user|im_end|eot_id|end)\|>
    | Out\[\d+\]: | stderr:[ \t]*$ | \(no[ ]output\)[ \t]*$ | \[figure[ ]\d+×\d+\]
    | Variables:[ ]\w+:[ ] | …[ ][\d,]+[ ]characters\b | Traceback[ ]\(most[ ]recent
    | (?:`{3,}|~{3,})[ \t]*(?:output|stdout|result|observation|execution_result)\b
    )""",
    re.X | re.M | re.I,
)
"""A line where an output or a turn begins that only somebody else can have written."""


def find_blocks(text: str, language: str = "python") -> list[Block]:
    """The blocks of `text` (line ends `\\n`) in their order; none lies in another one."""
    blocks: list[Block] = []
    position = 0
    nesting = True
    while opening := _opening(language).search(text, position):
        block = _read(text, opening, language, nesting)
        if block is None:
            nesting = nesting and not opening["fence"]
            position = opening.end()
            continue
        blocks.append(block)
        position = max(block.end, opening.end())
    return blocks


@functools.cache
def _opening(language: str) -> re.Pattern[str]:
    """What opens a block: a fence, a tag that starts its line, a tool call."""
    own = _PYTHON if language == "python" else re.escape(language)
    tags = _TAGS + (_PYTHON_TAGS if language == "python" else "|" + re.escape(language))
    return re.compile(
        rf"""^(?P<indent>[ \t]*(?:(?:[-*+]|\d{{1,3}}[.)])[ \t]+)?)
               (?P<fence>`{{3,}}+|~{{3,}}+)(?P<info>[^`\n]*)$\n?
           | ^[^`\n]+(?P<inline>`{{3,}}+)(?=(?:{own})3?[ \t]*\n)(?P<label>\w+)[ \t]*\n
           | (?:^|</\w+>)[ \t]*(?:
               <(?P<tag>{tags})(?:[ \t][^>\n]*)?> | \[(?P<bracket>PYTHON)\]
             | <(?P<shell>{_SHELL_TAGS})>
             | <(?P<call>tool_call|function_call)>)""",
        re.M | re.X | re.I,
    )


def _read(text: str, opening: re.Match[str], language: str, nesting: bool) -> Block | None:
    if opening["tag"] or opening["bracket"]:
        return _tagged(text, opening, language)
    if opening["shell"] or opening["call"]:
        kind: Kind = "shell" if opening["shell"] else "call"
        closing = re.compile(rf"</{opening['shell'] or opening['call']}>", re.I)
        close = closing.search(text, opening.end())
        end, after = close.span() if close else (len(text), len(text))
        body = text[opening.end() : end].strip()
        return Block(opening.start(), after, body, kind, closed=close is not None)
    return _fenced(text, opening, language, nesting)


def _fenced(text: str, opening: re.Match[str], language: str, nesting: bool) -> Block | None:
    info = opening["label"] or opening["info"] or ""
    label = _label(info)
    own = label in _labels(language)
    indent = len(opening["indent"] or "")
    if own or not label:
        block = _code(text, opening, _ANY_CLOSE, language, indent)
        if _TAG_OPEN.search(text, opening.end(), block.end):
            block = _code(text, opening, _FENCE_CLOSE, language, indent)
        statement = re.match(r"\s*\S+\s+((?:import|from)\s\S.*|\w+\(.*\)|\w+ = .*)$", info)
        if own and statement:
            block = replace(block, source=f"{statement[1]}\n{block.source}")
        ended = block.closed or block.end == len(text)
        if own or (ended and _looks_like_code(block.source, language)):
            return replace(block, kind="own" if own else "bare")
    found = _closing_fence(text, opening, nesting and label in _NESTING)
    if found is None and not label:
        return None
    end, after = found or (len(text), len(text))
    kind: Kind = "shell" if label in _SHELL else "output" if label in _OUTPUT else "other"
    return Block(opening.start(), after, text[opening.end() : end], kind, closed=bool(found))


def _label(info: str) -> str:
    """The language that the words after an opening fence name, in lower case."""
    found = re.match(r"\s*\{?\s*[.=]?([A-Za-z][\w+#-]*)?", info)
    name = (found[1] or "") if found else ""
    if not name and info.strip():
        return "?"
    return re.sub(r"(?<=py|on)[23](?:\.\d+)*$", "", name.lower())


@functools.cache
def _labels(language: str) -> frozenset[str]:
    match language.lower():
        case "python":
            return frozenset(_PYTHON.split("|"))
        case "bash":
            return _SHELL
        case other:
            return frozenset([other])


def _looks_like_code(source: str, language: str) -> bool:
    if language != "python":
        return bool(source.strip())
    tree = parse(source)
    return tree is not None and acts(tree)


def _closing_fence(text: str, opening: re.Match[str], nesting: bool) -> tuple[int, int] | None:
    """The span of the fence that closes a block of another language."""
    depth = 1
    for line in _FENCE_LINE.finditer(text, opening.end()):
        fence = line["fence"]
        if fence[0] != opening["fence"][0] or len(fence) < len(opening["fence"]):
            continue
        if not line["info"].strip():
            depth -= 1
        elif nesting:
            depth += 1
        else:
            return line.start(), line.start()
        if depth == 0:
            return line.span()
    return None


def _tagged(text: str, opening: re.Match[str], language: str) -> Block | None:
    before = re.compile(r"\s*(?=^[ \t]*(?:```|~~~))|", re.M).match(text, opening.end())
    fence = _opening(language).match(text, before.end()) if before and before[0] else None
    if fence and fence["fence"]:
        inner = _fenced(text, fence, language, nesting=False)
        if inner is None:
            inner = _code(text, fence, _ANY_CLOSE, language, len(fence["indent"]))
        after = re.compile(rf"\s*(?:{_TAG_CLOSE})", re.I).match(text, inner.end)
        kind = "own" if inner.kind == "bare" or not fence["info"].strip() else inner.kind
        end = after.end() if after else inner.end
        return replace(inner, start=opening.start(), end=end, kind=kind, tagged=True)
    block = _code(text, opening, _TAG_CLOSE, language, 0)
    # `<code>sorted</code>` in a line of its own is a word in prose, not a request to run it.
    if (opening["tag"] or "").lower() == "code" and "\n" not in text[block.start : block.end]:
        tree = parse(block.source)
        if tree is None or not acts(tree):
            return None
    return replace(block, tagged=True)


def _code(text: str, opening: re.Match[str], closing: str, language: str, indent: int) -> Block:
    """The block of code that `opening` opens, up to the closing that is not part of the code."""
    start = opening.end()
    found = re.compile(closing, re.M | re.I).search(text, start)
    if found and language == "python":
        outside = next(outside_strings(closing, text, start), None)
        # A closing inside a string of the code is none, if the code is code with it.
        if outside and outside.start() > found.start():
            source = _source(text[start : outside.start()], indent, language)
            found = outside if parse(source) else found
    if found is None:
        marker = next(outside_strings(_MADE_UP_LINE, text, start), None)
        end = marker.start() if marker else len(text)
        source = _source(text[start:end], indent, language)
        return Block(opening.start(), end, source, "own", closed=False)
    source = _source(text[start : found.start()], indent, language)
    # Another opening fence ends the block as well, but it is left for the next one.
    reopened = bool("info" in found.groupdict() and (found["info"] or "").strip())
    after = found.start() if reopened else found.end()
    return Block(opening.start(), after, source, "own", closed=not reopened)


_WRAPPED = re.compile(rf"\s*<(?:{_TAGS}{_PYTHON_TAGS})>(.*)(?:{_TAG_CLOSE})\s*", re.S | re.I)
_MADE_UP_LINE = r"^[ \t]*(?:Observation|Execution result|Human|User|Assistant):"


def _source(body: str, indent: int, language: str) -> str:
    """A block's text as a cell: without the indent of its fence, its tags and its prompts."""
    if body[:1] in {" ", "\t"} and not indent and "\n" not in body.strip("\n"):
        body = body.lstrip()
    lines = body.strip("\n").split("\n") if body.strip() else []
    source = "\n".join(_without_indent(line, indent) for line in lines).rstrip()
    if wrapped := _WRAPPED.fullmatch(source):
        source = wrapped[1].strip("\n")
    if language != "python":
        return source
    if source.startswith(">>>"):
        prompts = (re.match(r"[ \t]*(?:>>>|\.\.\.)(?:[ ]|$)(.*)", line) for line in lines)
        return "\n".join(prompt[1] for prompt in prompts if prompt)
    if source[:1] in {" ", "\t"}:
        return textwrap.dedent(source)
    return source


def _without_indent(line: str, indent: int) -> str:
    return line[min(indent, len(line) - len(line.lstrip(" \t"))) :]
