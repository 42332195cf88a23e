"""The media of a task as attachments of its cell: seen where it is shown, and stored once."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

_ATTACHABLE = re.compile(
    # SVG is text, and nbformat has it as text under its MIME type.
    r"data:((image|audio|video)/(?!svg)[\w.+-]+);base64,([A-Za-z0-9+/]+={0,2})"
)
_ENDINGS = {
    "image/jpeg": "jpg",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "video/mpeg": "mpg",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/3gpp": "3gp",
}


def attach(cell: dict[str, Any], urls: Iterable[str]) -> list[str | dict[str, str]]:
    """Attach what `urls` (data URLs) hold to the Markdown `cell`, and show it below its text.

    Returns what stands for each of them: the name of its attachment, or the URL itself where it
    cannot be one. The same URL is attached once.
    """
    attachments: dict[str, dict[str, str]] = {}
    lines: list[str] = []
    stored: dict[str, str | dict[str, str]] = {}
    urls = list(urls)
    for url in dict.fromkeys(urls):
        found = _ATTACHABLE.fullmatch(url)
        if found is None:
            stored[url] = url
            continue
        mime, kind, data = found.groups()
        number = 1 + sum(name.startswith(kind) for name in attachments)
        name = f"{kind}-{number}.{file_ending(mime)}"
        attachments[name] = {mime: data}
        stored[url] = {"attachment": name}
        # Notebooks show no sound and no film from an attachment: a link keeps it there.
        lines.append(f"{'!' if kind == 'image' else ''}[{name}](attachment:{name})")
    if attachments:
        cell["attachments"] = attachments
        cell["source"] += "\n\n" + "\n\n".join(lines)
    return [stored[url] for url in urls]


def attached(cell: Mapping[str, Any], stored: Iterable[Any]) -> tuple[list[str], list[str]]:
    """The data URLs that `attach` has `stored`, and in sentences what became of the others."""
    urls: list[str] = []
    problems: list[str] = []
    for item in stored:
        match item:
            case str():
                urls.append(item)
            case {"attachment": str(name)}:
                url = _url_of(cell.get("attachments"), name)
                if url is None:
                    problems.append(f"its attachment {name!r} is not there, or is damaged.")
                else:
                    urls.append(url)
            case _:
                problems.append(f"an image of it is of type {type(item).__name__}.")
    return urls, problems


def file_ending(mime: str) -> str:
    """How the name of a file of this MIME type ends: `"png"`."""
    form = mime.partition("/")[2]
    return _ENDINGS.get(mime) or re.sub(r"\W", "", form.removeprefix("x-")) or "bin"


def file_of(cell: Mapping[str, Any], name: str) -> tuple[str, bytes] | None:
    """The MIME type and the content of an attachment of `cell`; None if there is no such one."""
    found = _ATTACHABLE.fullmatch(_url_of(cell.get("attachments"), name) or "")
    try:
        return (found[1], base64.b64decode(found[3], validate=True)) if found else None
    except binascii.Error:
        return None


def _url_of(attachments: Any, name: str) -> str | None:
    bundle = attachments.get(name) if isinstance(attachments, dict) else None
    for mime, data in bundle.items() if isinstance(bundle, dict) else ():
        text = "".join(data) if _are_texts(data) else data
        if isinstance(text, str):
            url = f"data:{mime};base64,{''.join(text.split())}"
            if _ATTACHABLE.fullmatch(url):
                return url
    return None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) for line in value)
