"""A run as an HTML page, by nbconvert: with its figures and tables, and without any script."""

from __future__ import annotations

import base64
import io
import json
import re
import warnings
from html import escape
from importlib import import_module
from typing import Any

from kernel_agent.errors import SettingsError
from kernel_agent.exporting.reading import ReadCell, ReadNotebook
from kernel_agent.terminal import plain_text
from kernel_agent.transcript.attachments import file_of

POLICY = (
    "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
TAGS = frozenset(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption "
    "figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strong sub "
    "summary sup table tbody td tfoot th thead tr u ul var".split()
)
ATTRIBUTES = {
    "*": ["class", "title", "align", "valign", "dir", "lang", "style"],
    "a": ["href", "id"],
    "img": ["src", "alt", "width", "height"],
    "td": ["colspan", "rowspan"],
    "th": ["colspan", "rowspan", "scope"],
    **{f"h{level}": ["id"] for level in range(1, 7)},
}
_WITH_CONTENT = re.compile(r"(?is)<(script|style|template|noscript|iframe)\b.*?(?:</\1\s*>|\Z)")
_SCRIPT = re.compile(r"(?is)<script\b.*?</script\s*>")
# What a page can show without a script; the rest has a text form beside it.
_SHOWN = re.compile(r"text/(plain|html|markdown|latex)|image/(png|jpeg|gif|webp|svg\+xml)")


def page(notebook: ReadNotebook) -> str:
    """The notebook as an HTML page of its own: figures are in it, and it fetches nothing.

    What a notebook could do to its reader is taken out, twice: the HTML of its texts and outputs
    is reduced to `TAGS` and `ATTRIBUTES`, and the page's policy forbids scripts and fetching.
    So formulas stay TeX, and a plot that needs a script is shown as the text or the image that
    lies beside it. Raises SettingsError if nbconvert is not installed.
    """
    try:
        # It takes a second to import, and not everybody has it.
        exporter = import_module("nbconvert").HTMLExporter(sanitize_html=True)
    except ImportError as error:
        raise SettingsError(
            f"--to html needs nbconvert ({error}). pip install 'kernel-agent[export]'"
        ) from error
    exporter.register_filter("clean_html", _harmless)
    title = notebook.transcript.tasks[0].text if notebook.transcript.tasks else notebook.path.stem
    with warnings.catch_warnings():
        # Of ids and the like in notebooks that are a little off: they can be shown all the same.
        warnings.simplefilter("ignore")
        body, _ = exporter.from_file(io.StringIO(json.dumps(_shown(notebook))))
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        f"<title>{escape(' '.join(plain_text(title).split())[:200])}</title>"
    )
    body = _SCRIPT.sub("", body)
    return re.sub(r"<title>.*?</title>", lambda _: head, body, count=1, flags=re.S)


def _shown(notebook: ReadNotebook) -> dict[str, Any]:
    """The notebook with what can be shown: no setup of ours, no widgets, no scripts."""
    cells = []
    for cell in notebook.cells:
        if cell.is_prelude:
            continue
        raw = dict(cell.raw)
        raw["metadata"] = {}
        if cell.is_code:
            outputs = cell.result.outputs if cell.result else ()
            raw["outputs"] = [_output(output) for output in outputs]
            raw["execution_count"] = cell.result.execution_count if cell.result else None
        if raw.get("cell_type") == "markdown":
            raw["attachments"] = _attachments(cell)
        cells.append(raw)
    metadata = {"language_info": {"name": notebook.language}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": notebook.minor}


def _attachments(cell: ReadCell) -> dict[str, dict[str, str]]:
    """The attachments of a Markdown cell, for each one that its text names, be it there or not.

    nbconvert gives up a page whose text names one that is missing.
    """
    attachments = {}
    for name in re.findall(r"attachment:([^\s()<>\"'\]]*)", cell.source):
        mime, content = file_of(cell.raw, name) or ("text/plain", b"")
        attachments[name] = {mime: base64.b64encode(content).decode()}
    return attachments


def _output(output: dict[str, Any]) -> dict[str, Any]:
    if output["output_type"] == "stream" and "\r" in output["text"]:
        # A page cannot write a line over: of a progress bar the last state is shown.
        return {**output, "text": plain_text(output["text"])}
    if "data" not in output:
        return output
    data = {mime: value for mime, value in output["data"].items() if _SHOWN.fullmatch(mime)}
    return {**output, "data": data, "metadata": {}}


def _harmless(element: Any) -> str:
    """HTML without what a reader's browser would obey or fetch."""
    bleach = import_module("bleach")  # nbconvert brings it
    css = import_module("bleach.css_sanitizer")
    styles = css.CSSSanitizer(allowed_css_properties=[*css.ALLOWED_CSS_PROPERTIES, "opacity"])
    text = element.decode() if isinstance(element, bytes) else str(element)
    cleaned = bleach.clean(
        _WITH_CONTENT.sub("", text),
        tags=TAGS,
        attributes=ATTRIBUTES,
        protocols=["http", "https", "mailto", "data"],
        css_sanitizer=styles,
        strip=True,
    )
    return str(cleaned)
