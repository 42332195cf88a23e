"""What an MCP tool has given, as a Python value."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 1_000_000  # characters
MAX_BINARY = 50_000_000  # bytes


class McpToolFailure(Exception):
    """An MCP tool says that it has failed; the text is its own."""


def value_of(result: Mapping[str, Any], *, wrapped: bool) -> Any:
    """The value of a `tools/call` result as it came over the wire.

    Structured content is its value (`wrapped`: of its only key, `result`); else a text is str, an
    image a PIL image where PIL is there and bytes where not, a resource str or bytes. Several are
    a list, nothing is None.

    Raises McpToolFailure if the tool says that it has failed.
    """
    content = result.get("content") or []
    if result.get("isError"):
        texts = [item["text"] for item in content if item.get("type") == "text"]
        raise McpToolFailure(bounded("\n".join(texts)) or "The tool failed and does not say why.")
    structured = result.get("structuredContent")
    if structured is not None:
        value = structured.get("result") if wrapped and isinstance(structured, dict) else structured
        # The text beside it is the same value once more; pictures are not.
        binary = [_item(item) for item in content if item.get("type") in ("image", "audio")]
        return [value, *binary] if binary else value
    items = [_item(item) for item in content]
    return items[0] if len(items) == 1 else items or None


def is_wrapped(schema: Any) -> bool:
    """Whether an output schema is that of a value put under the key `result`.

    The official server does so with what is no object, since MCP wants one.
    """
    if not isinstance(schema, Mapping):
        return False
    marked = schema.get("x-fastmcp-wrap-result") or str(schema.get("title")).endswith("Output")
    return bool(marked) and list(schema.get("properties") or ()) == ["result"]


def bounded(text: str) -> str:
    """`text` without its middle if it is very long."""
    if len(text) <= MAX_TEXT:
        return text
    half, left_out = MAX_TEXT // 2, len(text) - MAX_TEXT
    return f"{text[:half]}\n… {left_out:,} characters left out here …\n{text[-half:]}"


def _item(item: Mapping[str, Any]) -> Any:
    match item:
        case {"type": "text", "text": str(text)}:
            return bounded(text)
        case {"type": "image", "data": str(data)}:
            return _image(_bytes(data))
        case {"type": "audio", "data": str(data)}:
            return _bytes(data)
        case {"type": "resource", "resource": {"text": str(text)}}:
            return bounded(text)
        case {"type": "resource", "resource": {"blob": str(blob)}}:
            return _bytes(blob)
        case {"type": "resource_link", "uri": str(uri)}:
            return uri
    return dict(item)


def _bytes(data: str) -> bytes:
    if len(data) > MAX_BINARY * 4 // 3 + 4:
        size = len(data) * 3 // 4
        raise McpToolFailure(f"It gave {size:,} bytes in one piece; {MAX_BINARY:,} are allowed.")
    try:
        return base64.b64decode(data)
    except binascii.Error as error:
        raise McpToolFailure(f"It gave data that are no base64: {error}.") from error


def _image(data: bytes) -> Any:
    try:
        from PIL import Image  # noqa: PLC0415 - not needed where it is not installed
    except ImportError:
        return data
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    # PIL raises what it likes for a broken file, and for one that is a bomb.
    except Exception:
        return data
    return image
