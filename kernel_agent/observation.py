"""What the model is shown of a cell: its outputs as bounded text, its figures, its variables."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    closing lines are always whole. With `images`, PNG and JPEG figures are attached.
    """
    outputs = _with_group_traceback(result.outputs)
    errors = [error_text(output) for output in outputs if output["output_type"] == "error"]
    closing = [*errors, *_closing_lines(result)]
    room = max(max_chars - sum(len(line) + 1 for line in closing), max_chars // 4)
    body = _body([output for output in outputs if output["output_type"] != "error"], room)
    if not body and not errors and not result.reason:
        body = "(no output)"
    urls = tuple(url for output in outputs if images and (url := _image_url(output)))
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
    for mime, read in _SIZES.items():
        if mime in data:
            try:
                return (mime, *read(_joined(data[mime])))
            except (ValueError, IndexError, binascii.Error):
                return mime, 0, 0
    return None


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
        return f"Answer: {_clipped(plain or _joined(data[ANSWER_MIME]))}"
    if figure := figure_size(output):
        _, width, height = figure
        return f"[figure {width}×{height}]" if width else "[figure]"
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


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_LINE_OF_OURS else text[: _MAX_LINE_OF_OURS - 1] + "…"


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


def _png_size(data: str) -> tuple[int, int]:
    header = _bytes(data, 24)
    if header[12:16] != b"IHDR":
        raise ValueError("no PNG header")
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def _jpeg_size(data: str) -> tuple[int, int]:
    content = _bytes(data, 65_536)
    position = 2
    while content[position] == 0xFF:
        marker = content[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = content[position + 5 : position + 7], content[position + 7 :][:2]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    raise ValueError("no JPEG frame")


def _gif_size(data: str) -> tuple[int, int]:
    header = _bytes(data, 10)
    return int.from_bytes(header[6:8], "little"), int.from_bytes(header[8:10], "little")


def _svg_size(data: str) -> tuple[int, int]:
    tag = re.search(r"<svg\b[^>]*>", data[:10_000])
    sizes = dict(re.findall(r'\b(width|height)="([\d.]+)', tag[0])) if tag else {}
    if len(sizes) != 2:
        raise ValueError("no size in the SVG")
    return round(float(sizes["width"])), round(float(sizes["height"]))


_SIZES = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/gif": _gif_size,
    "image/svg+xml": _svg_size,
}


def _bytes(data: str, count: int) -> bytes:
    """The first `count` bytes of base64 text, which may be broken into lines."""
    start = "".join(data[: count * 2].split())
    return base64.b64decode(start[: len(start) // 4 * 4])[:count]


def _image_url(output: Output) -> str | None:
    data = output.get("data", {})
    for mime in ("image/png", "image/jpeg"):
        if mime in data:
            return f"data:{mime};base64,{''.join(_joined(data[mime]).split())}"
    return None
