"""Where the code lies in a text: fenced and tagged blocks in all the shapes that models write."""

from __future__ import annotations

import functools
import json
import re
import textwrap
from dataclasses import dataclass, replace
from typing import Literal

from kernel_agent.syntax import acts, outside_strings, parse

Kind = Literal["own", "bare", "shell", "output", "call", "other", "stray"]


@dataclass(frozen=True)
class Block:
    """A block at `text[start:end]`, its fences or tags included; `source` is what they hold.

    `kind`: `"own"` (labelled with the kernel's language), `"bare"` (no label, but code by its
    looks), `"shell"`, `"output"`, `"call"` (a tool call in words), `"other"`, or `"stray"` (only
    a fence or tag: nothing that it opens). `tagged`: inside `<execute>` or the like. `closed`:
    false if its end was missing. `settled`: whatever text may follow, the block stays as it is.
    """

    start: int
    end: int
    source: str
    kind: Kind
    tagged: bool = False
    closed: bool = True
    settled: bool = True


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

_JSON = json.JSONDecoder(strict=False)
_FENCE_LINE = re.compile(r"^[ \t]*(?P<fence>`{3,}+|~{3,}+)(?P<info>[^`\n]*)$", re.M)
_FENCE_CLOSE = r"^[ \t]*(?:`{3,}+|~{3,}+)(?P<info>[^`<\n]*)(?:<.*)?$|`{3,}+[ \t]*$"
_TAG_CLOSE = rf"</(?:{_TAGS}{_PYTHON_TAGS})>|<end_code>|\[/PYTHON\]"
_ANY_CLOSE = rf"{_FENCE_CLOSE}|{_TAG_CLOSE}"
_TAG_OPEN = re.compile(rf"^[ \t]*<(?:{_TAGS}{_PYTHON_TAGS})>", re.M | re.I)


def find_blocks(text: str, language: str = "python") -> list[Block]:
    """The blocks of `text` (line ends `\\n`) in their order; none lies in another one."""
    blocks: list[Block] = []
    position = 0
    nesting = True
    while opening := _opening(language).search(text, position):
        block = _read(text, opening, language, nesting)
        blocks.append(block)
        if block.kind == "stray":
            nesting = nesting and not opening["fence"]
            position = opening.end()
        else:
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
             | <(?P<call>tool_call|function_calls?)>)""",
        re.M | re.X | re.I,
    )


def _read(text: str, opening: re.Match[str], language: str, nesting: bool) -> Block:
    if opening["tag"] or opening["bracket"]:
        return _tagged(text, opening, language)
    if opening["shell"] or opening["call"]:
        return _called(text, opening)
    return _fenced(text, opening, language, nesting)


def _called(text: str, opening: re.Match[str]) -> Block:
    """A shell command or a tool call in tags."""
    name = opening["shell"] or opening["call"]
    start = _end_of_json(text, opening.end()) if opening["call"] else opening.end()
    close = re.compile(rf"</{name}>", re.I).search(text, start)
    end, after = close.span() if close else (len(text), len(text))
    kind: Kind = "shell" if opening["shell"] else "call"
    body = text[opening.end() : end].strip()
    closed = close is not None
    return Block(opening.start(), after, body, kind, closed=closed, settled=closed)


def _end_of_json(text: str, start: int) -> int:
    """Where the JSON value ends that begins at `start`: a closing tag in its strings is none."""
    try:
        return _JSON.raw_decode(text, re.compile(r"\s*").match(text, start).end())[1]  # type: ignore[union-attr]
    except (ValueError, RecursionError):
        return start


def _fenced(text: str, opening: re.Match[str], language: str, nesting: bool) -> Block:
    info = opening["label"] or opening["info"] or ""
    label = _label(info)
    own = label in _labels(language)
    indent = len(opening["indent"] or "")
    settled = True
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
        settled = block.settled
    found = _closing_fence(text, opening, nesting and label in _NESTING)
    if found is None and not label:
        fence = opening["fence"] or ""
        return Block(opening.start(), opening.end(), fence, "stray", closed=False, settled=False)
    end, after = found or (len(text), len(text))
    kind: Kind = "shell" if label in _SHELL else "output" if label in _OUTPUT else "other"
    body = text[opening.end() : end]
    closed = found is not None
    return Block(opening.start(), after, body, kind, closed=closed, settled=settled and closed)


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


def _tagged(text: str, opening: re.Match[str], language: str) -> Block:
    before = re.compile(r"\s*(?=^[ \t]*(?:```|~~~))|", re.M).match(text, opening.end())
    fence = _opening(language).match(text, before.end()) if before and before[0] else None
    if fence and fence["fence"]:
        inner = _fenced(text, fence, language, nesting=False)
        if inner.kind == "stray":
            inner = _code(text, fence, _ANY_CLOSE, language, len(fence["indent"]))
            inner = replace(inner, settled=False)
        after = re.compile(rf"\s*(?:{_TAG_CLOSE})", re.I).match(text, inner.end)
        kind = "own" if inner.kind == "bare" or not fence["info"].strip() else inner.kind
        end = after.end() if after else inner.end
        return replace(inner, start=opening.start(), end=end, kind=kind, tagged=True)
    block = _code(text, opening, _TAG_CLOSE, language, 0)
    # `<code>sorted</code>` in a line of its own is a word in prose, not a request to run it.
    if (opening["tag"] or "").lower() == "code" and "\n" not in text[block.start : block.end]:
        tree = parse(block.source)
        if tree is None or not acts(tree):
            return replace(block, kind="stray", end=opening.end())
    return replace(block, tagged=True)


def _code(text: str, opening: re.Match[str], closing: str, language: str, indent: int) -> Block:
    """The block of code that `opening` opens, up to the closing that is not part of the code."""
    start = opening.end()
    found = re.compile(closing, re.M | re.I).search(text, start)
    settled = found is not None
    if found and language == "python":
        outside = next(outside_strings(closing, text, start), None)
        settled = outside is not None and outside.start() == found.start()
        # A closing inside a string of the code is none, if the code is code with it.
        if outside and outside.start() > found.start():
            source = _source(text[start : outside.start()], indent, language)
            found = outside if parse(source) else found
    end = found.start() if found else len(text)
    source = _source(text[start:end], indent, language)
    # Another opening fence ends the block as well, but it is left for the next one.
    opens = found is not None and (found.groupdict().get("info") or "").strip()
    closed = found is not None and not opens
    if turn := _turn_inside(text, start, end):
        before = _source(text[start:turn], indent, language)
        broken = language == "python" and parse(source) is None
        if not closed or (broken and before and parse(before)):
            return Block(opening.start(), turn, before, "own", closed=False, settled=False)
    after = found.end() if found and closed else end
    return Block(opening.start(), after, source, "own", closed=closed, settled=settled)


def _turn_inside(text: str, start: int, end: int) -> int | None:
    """Where a made-up output or turn begins between `start` and `end`, in no string of the code."""
    first = re.compile(_TURN, re.M | re.I).search(text, start, end)
    turn = next(outside_strings(_TURN, text[start:end]), None) if first else None
    return start + turn.start() if turn else None


_WRAPPED = re.compile(rf"\s*<(?:{_TAGS}{_PYTHON_TAGS})>(.*)(?:{_TAG_CLOSE})\s*", re.S | re.I)
_TURN = (
    r"^ ?[*_]*(?:observations?|(?:(?:code|console|execution|program) )?outputs?"
    r"|execution (?:result|log)s?|user|human|assistant)[*_]*:(?![:=])[^=\n]*$"
    r"|^ ?\[/?INST?\w*\]|^ ?<\|(?:im_start|im_end|start_header_id|user|eot_id|end)\|>"
    r"|^Traceback \(most recent|^(?:>>> )?Out\[\d+\]:"
)
"""Where an output or a turn begins that has run into a block: a class may have a field `user:`."""


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
