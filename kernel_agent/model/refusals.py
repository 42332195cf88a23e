"""Refusals, which litellm drops from streams: here they become the text that they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any


def tell_refusals(stream: Any) -> None:
    """Make the refusals within one of litellm's streams text, before its first chunk is read."""
    if callable(create := getattr(stream, "chunk_creator", None)):
        stream.chunk_creator = partial(_created, create)
    source: Any = getattr(stream, "completion_stream", None)
    if callable(parse := getattr(source, "chunk_parser", None)):
        source.chunk_parser = partial(_parsed, parse)


def _created(create: Callable[..., Any], chunk: Any) -> Any:
    """What litellm makes of a chunk of the chat API, whose refusal it does not count as words."""
    for choice in getattr(chunk, "choices", None) or ():
        delta: Any = getattr(choice, "delta", None)
        if isinstance(refusal := getattr(delta, "refusal", None), str):
            delta.content = f"{getattr(delta, 'content', None) or ''}{refusal}"
            delta.refusal = None
    return create(chunk=chunk)


def _parsed(parse: Callable[..., Any], chunk: Any) -> Any:
    """What litellm makes of an event of the Responses API, of which it knows no refusals."""
    if isinstance(chunk, Mapping) and chunk.get("type") == "response.refusal.delta":
        chunk = {**chunk, "type": "response.output_text.delta"}
    return parse(chunk)
