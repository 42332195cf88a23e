"""Sends one request through litellm; what fails is raised as an error of ours."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Any

from kernel_agent.errors import ModelUnavailableError
from kernel_agent.model_errors import model_error
from kernel_agent.model_loading import litellm_module


def whole(
    name: str, params: Mapping[str, Any], request: Mapping[str, Any]
) -> Generator[Any, None, None]:
    """The response to `request`, the only item.

    `params` are those of the model `name`: their secrets are taken out of errors. Raises
    ModelError, as `model_error` says.
    """
    try:
        response = _completion(request)
    except Exception as error:
        # `from None`: litellm's chain of exceptions quotes the request and may hold the key.
        raise model_error(name, params, error) from None
    if not response.choices:
        raise ModelUnavailableError(name, "the provider's answer is empty (no choices).")
    yield response


def streamed(
    name: str, params: Mapping[str, Any], request: Mapping[str, Any]
) -> Generator[Any, None, None]:
    """The chunks of the reply to `request`; else as `whole`.

    However reading them ends, the connection is closed.
    """
    stream = None
    held: list[Any] = []
    ends: list[str] = []
    said = "its answer is no stream, or an empty one."
    try:
        stream = _completion(request, stream=True, stream_options={"include_usage": True})
        ends = _ends_of_gemini(stream)
        for chunk in stream:
            # litellm makes up a "stop" for a stream that ends early: half a cell would be executed.
            # What the provider itself has said, it knows at the end of the stream at the latest.
            if _knows_end(stream, ends) or not (held or _says_end(chunk)):
                said = "the stream ended before the reply did."
                yield from (*held, chunk)
                held.clear()
            else:
                held.append(chunk)
    except Exception as error:
        raise model_error(name, params, error) from None
    finally:
        _close(stream)
    if not _knows_end(stream, ends):
        raise ModelUnavailableError(name, said)
    yield from held


def _completion(request: Mapping[str, Any], **options: Any) -> Any:
    # litellm never tries again itself: the listener would not hear of it. And it does not look
    # for MCP servers among the tools: it would need a package that not everybody has.
    own = {"num_retries": 0, "max_retries": 0, "_skip_mcp_handler": True}
    return litellm_module().completion(**request, **own, **options)


def _knows_end(stream: Any, ends: list[str]) -> bool:
    return bool(ends) or getattr(stream, "received_finish_reason", "stop") is not None


def _ends_of_gemini(stream: Any) -> list[str]:
    """A list that gets the reason when Gemini says that a reply has ended.

    litellm does not tell: it says "stop" with each of Gemini's chunks. Elsewhere it stays empty.
    """
    ends: list[str] = []
    source: Any = getattr(stream, "completion_stream", None)
    if source is None and callable(fetch := getattr(stream, "fetch_sync_stream", None)):
        source = fetch()
    if (parse := getattr(source, "chunk_parser", None)) is None:
        return ends

    def parsed(chunk: Any) -> Any:
        for candidate in chunk.get("candidates") or () if isinstance(chunk, Mapping) else ():
            ends.extend(filter(None, [candidate.get("finishReason")]))
        return parse(chunk)

    source.chunk_parser = parsed
    return ends


def _says_end(chunk: Any) -> bool:
    return any(choice.finish_reason for choice in chunk.choices)


def _close(stream: Any) -> None:
    """Close the connection under litellm's stream, which has no `close` of its own."""
    source = getattr(stream, "completion_stream", None)
    part: Any
    for part in (source, getattr(source, "streaming_response", None)):
        if hasattr(part, "close"):
            with suppress(Exception):  # a connection that is broken has nothing left to close
                part.close()
