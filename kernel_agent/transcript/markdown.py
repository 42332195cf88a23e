"""Text as Markdown that shows it as it was written."""

from __future__ import annotations

import re

MAX_HEADING = 100
MIN_HEADING = 12

_ACTIVE = re.compile(
    r"\\(?=[!-/:-@\[-`{-~])"  # a backslash that would escape
    r"|[*`\[$]"  # emphasis, code, links, mathematics
    r"|(?<!\w)_|_(?!\w)|~(?=~)"
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # HTML
)
_LINE_START = re.compile(r"^(?:([#>+=|-])|(\d+)([.)]))")
_SENTENCE = re.compile(r"(.+?[.?!])\s+(?=\S)")
_STRUCTURE = re.compile(r"\s|```|~~~|[#>+=|*-]|\d+[.)]")


def headed(text: str) -> str:
    """`text` under a heading: the whole of it if it is one short line, else its beginning."""
    heading, body = _split(text.strip())
    title = re.sub(r"(?<=\s)(#+)$", r"\\\1", _escaped(heading))
    return f"# {title}\n\n{literal(body)}" if body else f"# {title}"


def literal(text: str) -> str:
    """`text` as Markdown that shows its very characters and lines: prose if it looks like that,
    else (indented or fenced lines) as a code block."""
    lines = text.strip("\r\n").splitlines()
    if any(re.match(r"\s+\S|```|~~~", line) for line in lines):
        return fenced("\n".join(lines))
    shown = [_LINE_START.sub(r"\2\\\1\3", _escaped(line.strip())) for line in lines]
    # A line that another one follows at once ends in a break.
    text = "\n".join(shown)
    return re.sub(r"(?<=[^\n])\n(?=[^\n])", "\\\\\n", text)


def fenced(text: str) -> str:
    """`text` as a code block."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def quiet(sentence: str) -> str:
    """`sentence` as one line in italics."""
    words = " ".join(sentence.split())
    end = "" if words.endswith((".", "!", "?", ":", "…")) else "."
    return f"*{_escaped(words)}{end}*"


def _split(text: str) -> tuple[str, str]:
    """The heading and what is left of the text."""
    if not text:
        return "Task", ""
    first, *rest = text.splitlines()
    alone = not rest and len(first) <= MAX_HEADING
    titled = MIN_HEADING <= len(first) <= MAX_HEADING and not _STRUCTURE.match(first)
    if alone or titled:
        return first, "\n".join(rest)
    for sentence in _SENTENCE.finditer(first):
        end, after = sentence.end(1), sentence.end()
        if MIN_HEADING <= end <= MAX_HEADING and not first[after].islower():
            return first[:end], text[after:]
    return "Task", text


def _escaped(line: str) -> str:
    return _ACTIVE.sub(r"\\\g<0>", line)
