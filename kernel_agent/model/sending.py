"""Sends one request through litellm; what fails is raised as an error of ours."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Any

from kernel_agent.errors import ModelUnavailableError
from kernel_agent.model.counting import charge, used_for
from kernel_agent.model.refusals import tell_refusals
from kernel_agent.model.replies import ReplyReader
from kernel_agent.model.stream_ends import StreamEnd, failure, is_cut
from kernel_agent.model_errors import model_error
from kernel_agent.model_loading import litellm_module


def whole(
    name: str, params: Mapping[str, Any], request: Mapping[str, Any]
) -> Generator[Any, None, None]:
    """The response to `request`, the only item.

    `params` are those of the model `name`: their secrets are taken out of errors. Raises
    ModelError, as `model_error` says, and ModelUnavailableError for a reply that broke off, with
    what was paid for it (see `counting.charge`).
    """
    reasons: list[str] = []
    try:
        told = {"logger_fn": lambda call: reasons.extend(_stop_reason(call))}
        response = _completion({**told, **request})
    except Exception as error:
        # `from None`: litellm's chain of exceptions quotes the request and may hold the key.
        raise model_error(name, params, error) from None
    if not response.choices:
        raise ModelUnavailableError(name, "the provider's answer is empty (no choices).")
    choice = response.choices[0]
    fields = getattr(choice, "provider_specific_fields", None) or {}
    reason = fields.get("native_finish_reason") or next(iter(reasons), None)
    if lost := failure(name, reason):
        reader = ReplyReader(name=name)
        reader.whole(response)
        charge(lost, used_for(name, request["messages"], reader))
        raise lost
    if is_cut(reason):
        choice.finish_reason = "length"
    yield response


def streamed(
    name: str, params: Mapping[str, Any], request: Mapping[str, Any]
) -> Generator[Any, None, None]:
    """The chunks of the reply to `request`; else as `whole`.

    What has come of a reply that broke off is yielded before the error. However reading them
    ends, the connection is closed.
    """
    stream = end = None
    try:
        stream = _completion(request, stream=True, stream_options={"include_usage": True})
        tell_refusals(stream)
        end = StreamEnd(stream, timeout=request.get("timeout"))
        yield from _chunks(name, stream, end)
    except ModelUnavailableError:
        raise
    except Exception as error:
        raise (end and end.failure(name)) or model_error(name, params, error) from None
    finally:
        _close(stream)


def _chunks(name: str, stream: Any, end: StreamEnd) -> Generator[Any, None, None]:
    held: list[Any] = []
    said = "its answer is no stream, or an empty one."
    for chunk in stream:
        # litellm makes up a "stop" for a stream that ends early: half a cell would be executed.
        # What the provider itself has said, it knows at the end of the stream at the latest.
        if not end.is_known and (held or _says_end(chunk)):
            held.append(chunk)
            continue
        said = "the stream ended before the reply did."
        yield from map(end.told, (*held, chunk))
        held.clear()
        if lost := end.failure(name):
            raise lost
    if not end.is_known:
        raise ModelUnavailableError(name, said)
    yield from map(end.told, held)
    if lost := end.failure(name):
        raise lost


def _completion(request: Mapping[str, Any], **options: Any) -> Any:
    # litellm never tries again itself: the listener would not hear of it. And it does not look
    # for MCP servers among the tools: it would need a package that not everybody has.
    own = {"num_retries": 0, "max_retries": 0, "_skip_mcp_handler": True}
    return litellm_module().completion(**request, **own, **options)


def _stop_reason(call: Mapping[str, Any]) -> list[str]:
    """Why Anthropic says that a whole reply has ended; litellm keeps its own translation alone."""
    with suppress(ValueError, TypeError, KeyError):
        return [str(json.loads(call["original_response"])["stop_reason"])]
    return []


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
