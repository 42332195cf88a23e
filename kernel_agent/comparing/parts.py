"""What of a cell's outputs is compared when it is executed again, in pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kernel_agent.steps import ANSWER_MIME, Output

Kind = Literal["stream", "display", "error"]

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp")
SVG = "image/svg+xml"
_TEXTS = ("text/plain", "text/html", "text/markdown", "text/latex", SVG)
# Views of widgets are nothing but ids; what a library for the browser ships is code.
_NOT_COMPARED = re.compile(r"application/(?:vnd\.jupyter\.widget|vnd\.bokehjs_|vnd\.holoviews_)")


@dataclass(frozen=True)
class Part:
    """One thing to compare: a stream's text, one form of a display, or an error.

    `name` is `"stdout"`, `"stderr"`, `"error"` or a MIME type; `text` is base64 for images.
    `details` are compared only where every text must be equal: an error's traceback.
    """

    name: str
    text: str
    details: str = ""

    @property
    def is_image(self) -> bool:
        return self.name in IMAGES


@dataclass(frozen=True)
class Shown:
    """One output as it is compared, in `parts`. Outputs of the same `shape` answer each other."""

    kind: Kind
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[str, ...]:
        return (self.kind, *(part.name for part in self.parts))


def shown(outputs: Iterable[Output]) -> list[Shown]:
    """The outputs in order; streams between two others are one for each name.

    stdout and stderr reach the notebook on two ways, in no order that could be relied on.
    """
    found: list[Shown] = []
    streams: dict[str, list[str]] = {}
    for output in outputs:
        if output["output_type"] == "stream":
            streams.setdefault(output["name"], []).append(_text(output["text"]))
            continue
        found += _streams(streams)
        streams = {}
        if output["output_type"] == "error":
            found.append(Shown("error", (_error(output),)))
        elif parts := _forms(output):
            found.append(Shown("display", parts))
    return found + _streams(streams)


def _streams(texts: dict[str, list[str]]) -> list[Shown]:
    whole = {name: "".join(texts[name]) for name in sorted(texts, reverse=True)}
    return [Shown("stream", (Part(name, text),)) for name, text in whole.items() if text]


def _error(output: Output) -> Part:
    name, value = str(output.get("ename") or "Error"), str(output.get("evalue") or "")
    text = f"{name}: {value}" if value else name
    return Part("error", text, "\n".join(map(_text, output.get("traceback") or ())))


def _forms(output: Output) -> tuple[Part, ...]:
    """The forms of a display that say something, texts first."""
    data = output.get("data", {})
    names = [name for name in _TEXTS if name in data]
    names += sorted(
        name
        for name in data
        if name.endswith("json") and not (_NOT_COMPARED.match(name) or _is_only_text(name, data))
    )
    names += [name for name in IMAGES if name in data]
    return tuple(Part(name, _text(data[name])) for name in names)


def _is_only_text(name: str, data: Mapping[str, Any]) -> bool:
    """Whether it is an answer that says no more than the other forms do, but where files lie."""
    return name == ANSWER_MIME and "value" not in data[name]


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case list() if all(isinstance(line, str) for line in value):
            return "".join(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1)
