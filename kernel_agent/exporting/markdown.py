"""A run as Markdown: texts, code, outputs as text, figures as files beside it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from urllib.parse import quote

from kernel_agent.exporting.reading import ReadCell, ReadNotebook, joined
from kernel_agent.observation import output_text
from kernel_agent.steps import ANSWER_MIME, Output
from kernel_agent.terminal import plain_text
from kernel_agent.tracebacks import error_text
from kernel_agent.transcript.attachments import file_ending, file_of

FIGURES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
}
# Tags that mean nothing but a look; that with an attribute is the frame of reasoning.
_HARMLESS = (
    r"/?(?:b|i|em|strong|u|s|del|ins|sub|sup|code|kbd|pre|p|br|hr|ul|ol|li|dl|dt|dd|blockquote|"
    r"table|thead|tbody|tr|td|th|details|summary)\s*/?>|<details style=\"opacity: 0\.6\">"
)
_TAG = re.compile(rf"<(?!{_HARMLESS})(?!(?:https?://|mailto:)[^\s<>]*>)(?=[A-Za-z/!?])", re.I)
_LINK = re.compile(
    r"(\]\(\s*<?|^ {0,3}\[[^\]\n]+\]:\s*<?)(?=[^)\s]*[:&\\])(?!https?://|mailto:)", re.I | re.M
)
_CODE = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n(?:.*?\n)? {0,3}(?P=fence)[`~]*[ \t]*$", re.M | re.S
)


def markdown(notebook: ReadNotebook, folder: str) -> tuple[str, dict[str, bytes]]:
    """The text, and its figures: contents by name, for a folder `folder` beside it.

    HTML and links that could do something are made harmless: what is in a text of the notebook
    is shown, and not obeyed. Tables are shown as the text that the kernel gave for them.
    """
    figures: dict[str, bytes] = {}
    parts: list[str] = []
    for cell in notebook.cells:
        if cell.raw.get("cell_type") == "markdown":
            text = _with_attachments(cell, folder, figures)
            parts.append(_harmless(plain_text(text)).strip())
        elif cell.is_code:
            if not cell.is_prelude:
                parts += _code_parts(cell, notebook.language, folder, figures)
        elif cell.source.strip():
            parts.append(_fenced(cell.source, ""))
    return "\n\n".join(part for part in parts if part) + "\n", figures


def _code_parts(
    cell: ReadCell, language: str, folder: str, figures: dict[str, bytes]
) -> Iterator[str]:
    if cell.source.strip():
        yield _fenced(cell.source, re.sub(r"[^\w+#-]", "", language))
    texts: list[str] = []
    for output in cell.result.outputs if cell.result else ():
        if ANSWER_MIME in output.get("data", {}):
            continue  # it has a place of its own at the end
        if (figure := _figure(output)) is None:
            texts.append(_text(output))
            continue
        yield from _outputs(texts)
        texts = []
        number = 1 + sum(name.startswith("figure-") for name in figures)
        name = f"figure-{number}.{figure[0]}"
        figures[name] = figure[1]
        yield f"![Figure {number}]({quote(folder)}/{name})"
    yield from _outputs(texts)


def _with_attachments(cell: ReadCell, folder: str, figures: dict[str, bytes]) -> str:
    """The text of a Markdown cell; what is attached to it becomes files, too."""

    def linked(reference: re.Match[str]) -> str:
        if (found := file_of(cell.raw, reference[1])) is None:
            return reference[0]
        mime, content = found
        if (name := names.get(reference[1])) is None:
            number = 1 + sum(name.startswith("attachment-") for name in figures)
            name = names[reference[1]] = f"attachment-{number}.{file_ending(mime)}"
            figures[name] = content
        return f"]({quote(folder)}/{name})"

    names: dict[str, str] = {}
    return re.sub(r"\]\(attachment:([^()\s]+)\)", linked, cell.source)


def _outputs(texts: list[str]) -> Iterator[str]:
    text = "\n".join(text.rstrip("\n") for text in texts if text.strip())
    if text.strip():
        yield _fenced(text, "text")


def _text(output: Output) -> str:
    if output["output_type"] == "error":
        return error_text(output)
    if output["output_type"] == "stream":
        return plain_text(joined(output["text"]))
    return output_text(output)


def _figure(output: Output) -> tuple[str, bytes] | None:
    """How the name of the figure's file ends, and the file."""
    data = output.get("data", {})
    for mime, ending in FIGURES.items():
        if mime not in data:
            continue
        text = joined(data[mime])
        if mime == "image/svg+xml":
            return ending, text.encode()
        try:
            return ending, base64.b64decode("".join(text.split()))
        except (binascii.Error, ValueError):
            return None
    return None


def _fenced(text: str, language: str) -> str:
    text = plain_text(text).strip("\n")
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _harmless(text: str) -> str:
    """Markdown without HTML that does more than look; blocks of code stay as they are."""
    parts: list[str] = []
    end = 0
    for block in _CODE.finditer(text):
        parts += [_without_html(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, _without_html(text[end:])])


def _without_html(text: str) -> str:
    return _LINK.sub(r"\1unsafe:", _TAG.sub("&lt;", text))
