"""An error as short as it can be: the user's own frames, the failing lines, the message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kernel_agent.steps import Output
from kernel_agent.terminal import plain_text

_MAX_MESSAGE = 2_000
_MAX_LINE = 200
_MAX_FRAMES = 12
_MAX_CYCLE = 4
_MAX_LINES = 30


@dataclass(frozen=True)
class _Frame:
    place: str
    code: str
    library: bool


def error_text(output: Output) -> str:
    """The short form of an `error` output: frames, the deepest last, then the error itself.

    Frames of libraries are counted and the innermost one is named; repeated frames of a
    recursion are counted. Errors that led to this one follow, a line each.
    """
    name = str(output.get("ename") or "Error")
    entries = [plain_text(entry).rstrip() for entry in output.get("traceback") or ()]
    text = "\n".join(entries)
    message = _message(name, plain_text(str(output.get("evalue") or "")))
    if "Exception Group Traceback" in text:
        return "\n".join([message, *_sub_exceptions(text)])
    *causes, last = _CHAIN.split(text)
    frames = list(_frames(last))
    syntax = _syntax_error(last) if name in _SYNTAX_ERRORS else []
    if syntax and frames and syntax[0].startswith(frames[-1].place):
        frames.pop()
    lines = [*_frame_lines(frames), *syntax, message, *_notes(name, entries)]
    return "\n".join([*lines, *_causes(causes, message)])


_SYNTAX_ERRORS = frozenset(["SyntaxError", "IndentationError", "TabError", "_IncompleteInputError"])
_CHAIN = re.compile(
    r"^(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):$",
    re.M,
)
_HEADER = re.compile(
    r"^[ ]{0,2}(?:(?P<cell>Cell In ?\[\d+\]), line (?P<cell_line>\d+)"
    r"|File \"?(?P<file>[^\"\n]+?)\"?(?::|, line )(?P<line>\d+))"
    r"(?:,? in (?P<function>.*))?$",
    re.M,
)
_ARROW = re.compile(r"^-+> ?\d+ ?(?P<code>.*)$", re.M)
_LIBRARY = re.compile(r".*[\\/](?:(?:site|dist)-packages|lib[\\/]python\d[^\\/]*)[\\/]", re.I)
_ERROR_LINE = re.compile(r"^(?P<error>[A-Za-z_][\w.]*(?:: .*)?)$", re.M)
_GROUP_LINE = re.compile(r"^(?P<margin>[ ]+)\| (?P<error>[A-Za-z_][\w.]*(?:: .*)?)$", re.M)


def _message(name: str, value: str) -> str:
    if name in _SYNTAX_ERRORS:
        value = re.sub(r" \([^()]*, line \d+\)$", "", value)
    left_out = len(value) - _MAX_MESSAGE
    if left_out > 0:
        half = _MAX_MESSAGE // 2
        value = f"{value[:half]} … {left_out:,} characters left out … {value[-half:]}"
    return f"{name}: {value}" if value.strip() else name


def _frames(text: str) -> Iterator[_Frame]:
    headers = list(_HEADER.finditer(text))
    ends = [*(header.start() for header in headers[1:]), len(text)]
    for header, end in zip(headers, ends, strict=False):
        file = header["file"] or ""
        if file.startswith("<"):
            continue
        # A file with a relative path is a compiled part of a library.
        library = bool(file) and bool(_LIBRARY.match(file) or not re.match(r"[~/]|\w:", file))
        place = f"{_LIBRARY.sub('', file)}:{header['line']}"
        if header["cell"]:
            place = f"{header['cell']}, line {header['cell_line']}"
        function = (header["function"] or "").partition("(")[0]
        arrow = _ARROW.search(text, header.end(), end)
        code = arrow["code"] if arrow else text[header.end() : end].strip().partition("\n")[0]
        where = f"{place} in {function}" if function else place
        yield _Frame(_clipped(where), _clipped(code.strip()), library)


def _frame_lines(frames: list[_Frame]) -> list[str]:
    # What lies before the user's first frame is how the kernel came to run it.
    first = next((n for n, frame in enumerate(frames) if not frame.library), 0)
    library = [frame for frame in frames[first:] if frame.library]
    blocks = _collapsed([frame for frame in frames if not frame.library])
    if len(blocks) > _MAX_FRAMES:
        left_out = len(blocks) - _MAX_FRAMES + 1
        blocks[4 : 4 + left_out] = [f"… {left_out} more frames …"]
    if library:
        what = "1 library frame" if len(library) == 1 else f"{len(library)} library frames"
        blocks.append(f"({what} left out, the innermost: {library[-1].place})")
    return blocks


def _collapsed(frames: list[_Frame]) -> list[str]:
    """The frames' texts, with the rounds of a recursion after the first one as a count."""
    blocks: list[str] = []
    position = 0
    while position < len(frames):
        length, rounds = _cycle(frames, position)
        for frame in frames[position : position + length]:
            blocks.append(f"{frame.place}\n    {frame.code}" if frame.code else frame.place)
        if rounds > 1:
            what = "frame" if length == 1 else f"{length} frames"
            blocks.append(f"… the last {what} repeated {rounds - 1:,} more times …")
        position += length * rounds
    return blocks


def _cycle(frames: list[_Frame], start: int) -> tuple[int, int]:
    """How many frames from `start` on repeat at once, and how often they come in all."""
    for length in range(1, _MAX_CYCLE + 1):
        first = frames[start : start + length]
        rounds = 1
        while frames[start + rounds * length : start + (rounds + 1) * length] == first:
            rounds += 1
        if rounds > 1:
            return length, rounds
    return 1, 1


def _syntax_error(text: str) -> list[str]:
    """Where the parser stopped: the place, the line and the caret below it."""
    headers = list(_HEADER.finditer(text))
    if not headers:
        return []
    shown = text[headers[-1].start() :].strip().split("\n")
    lines = [line for line in shown if line.strip() and not _ERROR_LINE.match(line)]
    # The caret stands under its character: both are cut alike.
    return [_clipped(line) for line in lines[:4]]


def _notes(name: str, entries: list[str]) -> list[str]:
    """What `add_note` added: IPython sends it after the error itself."""
    errors = [n for n, entry in enumerate(entries) if entry.startswith((f"{name}:", f"{name}\n"))]
    notes = "\n".join(entries[errors[-1] + 1 :]) if errors else ""
    return [_clipped(line) for line in notes.split("\n") if line.strip()][:_MAX_LINES]


def _causes(texts: list[str], message: str) -> list[str]:
    errors = [_ERROR_LINE.findall(text)[-1:] for text in texts]
    causes = dict.fromkeys(error[0] for error in reversed(errors) if error)
    return [f"caused by {_clipped(cause)}" for cause in causes if cause != message][:_MAX_LINES]


def _sub_exceptions(text: str) -> list[str]:
    """The errors of an exception group, indented as they are nested."""
    found = list(_GROUP_LINE.finditer(text))[1:]
    lines = [f"{line['margin'][2:]}{_clipped(line['error'])}" for line in found]
    return [line for line in lines if not line.lstrip().startswith("Traceback")][:_MAX_LINES]


def _clipped(line: str) -> str:
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + "…"
