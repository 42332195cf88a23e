"""What the model is shown of a cell: its outputs as bounded text, its figures, its variables."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kernel_agent.pictures import FIGURE_MIMES, MAX_IMAGES, UnfitPictureError, header_size, picture
from kernel_agent.steps import ANSWER_MIME, CellResult, Observation, Output
from kernel_agent.terminal import plain_text
from kernel_agent.tracebacks import error_text

_CLEANED = 1_000_000  # characters of one output that are looked at; the middle of more is not
_MAX_LINE_OF_OURS = 1_000
_MAX_VARIABLES = 600
_CUT = "\x00"  # stands where text was left out; no output holds it, `plain_text` takes it away


def observe(result: CellResult, *, max_chars: int = 8000, images: bool = False) -> Observation:
    """What the model is shown of `result`, in about `max_chars` characters.

    The outputs come in their order, errors after them, then why the cell was stopped and which
    variables it changed. Of long outputs the beginning and the end are shown; errors and the
    closing lines are always whole.

    With `images` the last `MAX_IMAGES` figures are attached, scaled (see `picture`), the same one
    once; a line in the place of each figure says whether it is.
    """
    outputs = _with_group_traceback(result.outputs)
    outputs, urls = _with_figures(outputs) if images else (outputs, ())
    errors = [error_text(output) for output in outputs if output["output_type"] == "error"]
    closing = [*errors, *_closing_lines(result)]
    room = max(max_chars - sum(len(line) + 1 for line in closing), max_chars // 4)
    body = _body([output for output in outputs if output["output_type"] != "error"], room)
    if not body and not errors and not result.reason:
        body = "(no output)"
    return Observation("\n".join([body, *closing] if body else closing), urls)


def output_text(output: Output) -> str:
    """The text form of one output, of any length: what stands for it in an observation."""
    match output["output_type"]:
        case "stream":
            text = plain_text(_joined(output.get("text", "")))
            return f"stderr:\n{text}" if output.get("name") == "stderr" and text.strip() else text
        case "error":
            return error_text(output)
        case _:
            return _data_text(output)


def figure_size(output: Output) -> tuple[str, int, int] | None:
    """MIME type, width and height (pixels) of the figure in `output`; None without one.

    The size of a figure whose header cannot be read is 0×0.
    """
    data = output.get("data", {})
    for mime in FIGURE_MIMES:
        if mime in data:
            try:
                return (mime, *header_size(mime, _joined(data[mime])))
            except (ValueError, IndexError, binascii.Error):
                return mime, 0, 0
    return None


def _with_figures(outputs: Sequence[Output]) -> tuple[list[Output], tuple[str, ...]]:
    """`outputs` with a line in the place of each figure, and those that are attached as URLs."""
    shown: list[list[Output]] = []
    urls: list[str] = []
    seen: set[str] = set()
    for output in reversed(outputs):
        if (figure := figure_size(output)) is None:
            shown.append([output])
            continue
        data = "".join(_joined(output["data"][figure[0]]).split())
        note = "the same as a later one" if data in seen else _attach(figure[0], data, urls)
        seen.add(data)
        line: Output = {
            "output_type": "display_data",
            "data": {"text/plain": _figure_line(output, f", {note}")},
        }
        # An answer is told as one, whatever it is.
        shown.append([output, line] if ANSWER_MIME in output["data"] else [line])
    return [one for group in reversed(shown) for one in group], tuple(reversed(urls))


def _attach(mime: str, data: str, urls: list[str]) -> str:
    """Add a figure to `urls` if that can be; returns what became of it in words."""
    if mime == FIGURE_MIMES[-1]:
        return "not attached: it is SVG"
    if len(urls) == MAX_IMAGES:
        return f"not attached: only the last {MAX_IMAGES} are"
    try:
        attached = picture(base64.b64decode(data, validate=True))
    except UnfitPictureError as error:
        return f"not attached: {error}"
    except ValueError:
        return "not attached: it is damaged"
    urls.append(attached.url)
    return "its first frame attached" if attached.is_frame else "attached"


def _figure_line(output: Output, note: str = "") -> str:
    """What stands for a figure; empty if `output` has none."""
    match figure_size(output):
        case None:
            return ""
        case (_, 0, _):
            return f"[figure{note}]"
        case (_, width, height):
            return f"[figure {width}×{height}{note}]"


def _closing_lines(result: CellResult) -> list[str]:
    lines = [f"[{plain_text(result.reason)[:_MAX_LINE_OF_OURS]}]"] if result.reason else []
    return lines + ([_variables_line(result.variables)] if result.variables else [])


def _variables_line(variables: Mapping[str, str]) -> str:
    shown: list[str] = []
    room = _MAX_VARIABLES
    for name, summary in variables.items():
        item = " ".join(plain_text(f"{name}: {summary}").split())[:200]
        if len(item) + 2 > room:
            return f"Variables: {', '.join(shown)} … and {len(variables) - len(shown)} more"
        shown.append(item)
        room -= len(item) + 2
    return f"Variables: {', '.join(shown)}"


def _body(outputs: Sequence[Output], room: int) -> str:
    """The outputs' texts, cut to `room` characters in the middle."""
    left_out: list[tuple[int, int]] = []
    pieces = [_tidy(_bounded_text(output, left_out)) for output in outputs]
    text = "\n".join(piece for piece in pieces if piece)
    if len(text) > room:
        text = _shortened(text, room, left_out)
    for characters, lines in left_out:
        text = text.replace(_CUT, _left_out_line(characters, lines), 1)
    return text


def _bounded_text(output: Output, left_out: list[tuple[int, int]]) -> str:
    """`output_text` of an output of any size in little time: what is in its middle is not read."""
    if output["output_type"] != "stream":
        return output_text(output)
    text = _joined(output.get("text", ""))
    if len(text) <= _CLEANED:
        return output_text(output)
    head, tail = _ends(text, _CLEANED // 2)
    if not head:
        return output_text({**output, "text": tail})
    left_out.append((len(text) - len(head) - len(tail), text.count("\n", len(head), -len(tail))))
    return f"{output_text({**output, 'text': head}).rstrip()}\n{_CUT}\n{plain_text(tail)}"


def _ends(text: str, size: int) -> tuple[str, str]:
    """The beginning and the end of a long text, whole lines where it has lines.

    Of a line that is written over and over (`\\r`) only its last states count.
    """
    head, tail = text[:size], text[-size:]
    if "\n" in head:
        head = head[: head.rindex("\n") + 1]
    elif "\r" in head:
        head = ""
    start = re.search(r"[\r\n]", tail)
    return head, tail[start.end() :] if start else tail


def _tidy(text: str) -> str:
    """No blanks at line ends, no blank lines around, never more than two in a row."""
    lines = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return re.sub(r"\n{4,}", "\n\n\n", lines).strip("\n")


def _shortened(text: str, room: int, left_out: list[tuple[int, int]]) -> str:
    """`text` without its middle; `left_out` then has an entry for each cut that remains."""
    room = max(room - len(_left_out_line(10**9, 10**8)) - 2, 0)
    start = room * 3 // 5
    end = len(text) - (room - start)
    # Whole lines, unless that costs more than a quarter of what can be shown.
    start = max(text.rfind("\n", start - room // 4, start), 0) or start
    line_end = text.find("\n", end, end + room // 4)
    end = end if line_end < 0 else line_end + 1
    head, middle, tail = text[:start], text[start:end], text[end:]
    first, inside = head.count(_CUT), middle.count(_CUT)
    hidden = left_out[first : first + inside]
    characters = len(middle) + sum(chars for chars, _ in hidden) - inside
    lines = middle.strip("\n").count("\n") + 1 - inside + sum(count for _, count in hidden)
    left_out[first : first + inside] = [(characters, lines)]
    return f"{head}\n{_CUT}\n{tail}"


def _left_out_line(characters: int, lines: int) -> str:
    in_lines = f" ({lines:,} lines)" if lines > 1 else ""
    return f"… {characters:,} characters{in_lines} left out here …"


def _with_group_traceback(outputs: Sequence[Output]) -> list[Output]:
    """`outputs` where an exception group's traceback, which IPython prints, is the error's own."""
    shown = list(outputs)
    bare = [n for n, one in enumerate(shown) if one["output_type"] == "error"]
    if not bare or shown[bare[-1]].get("traceback"):
        return shown
    for n, output in enumerate(shown):
        text = _joined(output.get("text", "")) if output.get("name") == "stderr" else ""
        start = text.rfind("  + Exception Group Traceback")
        if start >= 0:
            shown[bare[-1]] = {**shown[bare[-1]], "traceback": [text[start:]]}
            shown[n] = {**output, "text": text[:start]}
    return shown


_OBJECT = re.compile(r"<[\w.]+ object(?: at 0x[0-9a-f]+)?>")


def _data_text(output: Output) -> str:
    data: Mapping[str, Any] = output.get("data", {})
    plain = plain_text(_joined(data.get("text/plain", "")))
    if ANSWER_MIME in data:
        return f"Answer: {plain or _joined(data[ANSWER_MIME])}"
    if line := _figure_line(output):
        return line
    if plain and not _OBJECT.fullmatch(plain.strip()):
        return plain
    for mime in ("text/markdown", "text/latex"):
        if mime in data:
            return plain_text(_joined(data[mime]))
    if "text/html" in data and (text := _html_text(_joined(data["text/html"]))):
        return text
    others = [
        f"[{mime} output, {len(_joined(value)):,} characters]"
        for mime, value in data.items()
        if mime != "text/plain"
    ]
    return "\n".join(others) or plain


def _joined(value: Any) -> str:
    """A MIME bundle's value as one text: nbformat also stores lists of lines and JSON."""
    match value:
        case str():
            return value
        case list() if all(isinstance(line, str) for line in value):
            return "".join(value)
        case _:
            return json.dumps(value, ensure_ascii=False, default=str)


def _html_text(source: str) -> str:
    """The words of an HTML text, a table row in a line; empty if there are none."""
    text = re.sub(
        r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", "", source[:_CLEANED]
    )
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?i)</t[dh]>\s*(?=<t[dh]\b)", "\t", text)
    text = re.sub(r"(?i)<br\b[^<>]*>|</(?:p|div|tr|li|h\d|table|ul|ol|pre)>", "\n", text)
    text = html.unescape(re.sub(r"<[^<>]*>", "", text))
    return "\n".join(line.strip(" ") for line in plain_text(text).split("\n") if line.strip())
