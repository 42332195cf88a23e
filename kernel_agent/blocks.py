"""Where the code lies in a text: fenced and tagged blocks in all the shapes that models write."""

from __future__ import annotations

import functools
import re
import textwrap
from dataclasses import dataclass, replace
from typing import Literal

from kernel_agent.calls import CALL_OPENS, call_end
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


_PYTHON = "python|py|ipython|tool_code|pycon|python_code|python-repl|jupyter|execute|code|code-cell"
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
_FENCE_CLOSE = (
    r"^[ \t]*(?:`{3,}+|~{3,}+)(?:(?=(?:assistant|user)[ \t]*$)|(?P<info>[^`<\n]*)(?=<|$))"
    r"|`{3,}+[ \t]*(?=(?:</[\w-]+>[ \t]*)?$)"
)
_TAG_CLOSE = rf"</(?:{_TAGS}{_PYTHON_TAGS})>|<end_code>|\[/PYTHON\]"
_ANY_CLOSE = rf"{_FENCE_CLOSE}|{_TAG_CLOSE}"
_TAG_OPEN = re.compile(rf"^[ \t]*<(?:{_TAGS}{_PYTHON_TAGS})>", re.M | re.I)
_CLOSING_TAGS = re.compile(rf"(?:\s*(?:{_TAG_CLOSE}))*", re.I)
_INNER_TAG = re.compile(rf"\s*<(?:{_TAGS}{_PYTHON_TAGS})>", re.I)
_STATEMENT = re.compile(
    r"\s*\S+\s+((?:import|from)\s\S.*|\w+\(.*\)|[\w, ]+ = .*"
    r"|(?:async[ ]|@?\b)(?:def|class|for|while|if|with|try)\b.*:)\s*$"
)
"""Code that begins on the line of its fence, behind the language."""
_TRACEBACK = re.compile(r"\s*Traceback \(most recent")
_PATCH = re.compile(r"^(?:<{7} |@@ -\d)", re.M)


def find_blocks(text: str, language: str = "python") -> list[Block]:
    """The blocks of `text` (line ends `\\n`) in their order; none lies in another one."""
    blocks: list[Block] = []
    position = 0
    nesting = True
    while opening := _opening(language).search(text, position):
        block = replace(_read(text, opening, language, nesting), start=_start(opening))
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
           | ^(?![ \t]*>)(?:[^`\n]|`[^`\n]+`)++(?P<inline>`{{3,}}+)
               (?=(?:{own})3?[ \t]*\n)(?P<label>\w+)[ \t]*\n
           | (?:^|</\w+>)[ \t]*(?:
               <(?P<tag>{tags})(?:[ \t][^>\n]*)?> | \[(?P<bracket>PYTHON)\]
             | <(?P<shell>{_SHELL_TAGS})>)
           | (?:(?<=[:.!?][ ])|(?<!`)(?=<\w+>[ \t]*$))<(?P<within>execute(?:_i?python|_code)?)>
           | {CALL_OPENS}""",
        re.M | re.X | re.I,
    )


def _start(opening: re.Match[str]) -> int:
    """Where a block begins: what stands before it in its line is prose, or another tag's end."""
    if opening["inline"]:
        return opening.start("inline")
    if opening["fence"]:
        return opening.start()
    before = re.match(r"(?:</\w+>)?[ \t]*", opening[0])
    return opening.start() + len(before[0] if before else "")


def _read(text: str, opening: re.Match[str], language: str, nesting: bool) -> Block:
    if opening["tag"] or opening["bracket"] or opening["within"]:
        return _tagged(text, opening, language)
    if opening["shell"]:
        return _shell(text, opening)
    if opening["fence"] or opening["inline"]:
        return _fenced(text, opening, language, nesting)
    source, end, is_closed = call_end(text, opening)
    return Block(opening.start(), end, source, "call", closed=is_closed, settled=is_closed)


def _shell(text: str, opening: re.Match[str]) -> Block:
    """A shell command in tags."""
    close = re.compile(rf"</{opening['shell']}>", re.I).search(text, opening.end())
    end, after = close.span() if close else (len(text), len(text))
    body, closed = text[opening.end() : end].strip(), close is not None
    return Block(opening.start(), after, body, "shell", closed=closed, settled=closed)


def _fenced(text: str, opening: re.Match[str], language: str, nesting: bool) -> Block:
    info = opening["label"] or opening["info"] or ""
    label = _label(info)
    own = label in _labels(language)
    indent = len(opening["indent"] or "")
    settled = True
    span = opening.span()
    if own and opening["info"] and (statement := _STATEMENT.match(info)):
        span = opening.start(), opening.start("info") + statement.start(1)
    if own or not label:
        block = _code(text, span, _ANY_CLOSE, language, indent)
        if _TAG_OPEN.search(text, opening.end(), block.end):
            block = _code(text, span, _FENCE_CLOSE, language, indent)
        if len(opening["fence"] or "") > 3:
            block = _in_long_fence(text, opening, block, language, indent)
        if own and not block.source and not block.closed and block.end < len(text):
            return _stray(opening)  # the next fence opens the block anew
        if own and language == "python" and (kind := _quoted(block.source)):
            return replace(block, kind=kind)
        ended = block.closed or block.end == len(text)
        if own or (ended and _looks_like_code(block.source, language)):
            return replace(block, kind="own" if own else "bare")
        settled = block.settled
    found = _closing_fence(text, opening, nesting and label in _NESTING)
    if found is None and not label:
        return _stray(opening)
    end, after = found or (len(text), len(text))
    kind = "shell" if label in _SHELL else "output" if label in _OUTPUT else "other"
    body = text[opening.end() : end]
    closed = found is not None
    return Block(opening.start(), after, body, kind, closed=closed, settled=settled and closed)


def _stray(opening: re.Match[str]) -> Block:
    fence = opening["fence"] or ""
    return Block(opening.start(), opening.end(), fence, "stray", closed=False, settled=False)


def _in_long_fence(
    text: str, opening: re.Match[str], block: Block, language: str, indent: int
) -> Block:
    """The block of a fence of more than three: shorter ones are its text, if a long one follows."""
    long = rf"^[ \t]*{opening['fence'][0]}{{{len(opening['fence'])},}}+(?P<info>[^`\n]*)$"
    whole = _code(text, opening.span(), long, language, indent)
    return whole if whole.closed else replace(block, settled=False)


def _quoted(source: str) -> Kind | None:
    """What a block is that only quotes something: a traceback, changes of a file; else None."""
    if _TRACEBACK.match(source):
        return "output"
    return "other" if _PATCH.search(source) and parse(source) is None else None


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
            inner = _code(text, fence.span(), _ANY_CLOSE, language, len(fence["indent"]))
            inner = replace(inner, settled=False)
        after = re.compile(rf"\s*(?:{_TAG_CLOSE})", re.I).match(text, inner.end)
        kind = "own" if inner.kind == "bare" or not fence["info"].strip() else inner.kind
        end = after.end() if after else inner.end
        return replace(inner, start=opening.start(), end=end, kind=kind, tagged=True)
    nested = _INNER_TAG.match(text, opening.end())
    block = _code(text, (nested or opening).span(), _TAG_CLOSE, language, 0)
    end = block.end
    if nested and (closing := _CLOSING_TAGS.match(text, end)):
        end = closing.end()
    if _is_prose(text, opening, block):
        return _stray(opening)
    return replace(block, start=opening.start(), end=end, tagged=True)


def _is_prose(text: str, opening: re.Match[str], block: Block) -> bool:
    """Whether a block is a word of prose: `<code>sorted</code>` does not ask to run it."""
    is_code = (opening["tag"] or "").lower() == "code"
    if not (is_code or opening["within"]) or "\n" in text[block.start : block.end]:
        return False
    tree = parse(block.source)
    goes_on = is_code and re.compile(r"[ \t]*[^<\s]").match(text, block.end)
    return tree is None or not acts(tree) or bool(goes_on)


def _code(text: str, opening: tuple[int, int], closing: str, language: str, indent: int) -> Block:
    """The block of code behind an `opening`, up to the `closing` that is not part of the code."""
    opened, start = opening
    if not text[start - 1].isspace():  # the code begins on the line of its tag
        start = _BLANKS.match(text, start).end()  # type: ignore[union-attr]
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
            return Block(opened, turn, before, "own", closed=False, settled=False)
    after = found.end() if found and closed else end
    return Block(opened, after, source, "own", closed=closed, settled=settled)


def _turn_inside(text: str, start: int, end: int) -> int | None:
    """Where a made-up output or turn begins between `start` and `end`, in no string of the code."""
    first = re.compile(_TURN, re.M | re.I).search(text, start, end)
    turn = next(outside_strings(_TURN, text[start:end]), None) if first else None
    return start + turn.start() if turn else None


_WRAPPED = re.compile(rf"\s*<(?:{_TAGS}{_PYTHON_TAGS})>(.*)(?:{_TAG_CLOSE})\s*", re.S | re.I)
_BLANKS = re.compile(r"[ \t]*")
_NAME_LINE = re.compile(r"\A\s*(?:i?python3?|py)[ \t]*\n(?=.*\S)", re.S | re.I)
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
    if language == "python":
        source = _NAME_LINE.sub("", source)
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
