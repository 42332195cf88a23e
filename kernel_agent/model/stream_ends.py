"""What a provider itself says of the end of its reply: litellm makes most of it a "stop"."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from kernel_agent.errors import ModelUnavailableError
from kernel_agent.model_loading import litellm_module

# In lower case. What litellm itself calls "length" or "content_filter" is not among them.
_CUT = frozenset(["model_length", "model_context_window_exceeded", "pause_turn", "error_limit"])
_FAILED = frozenset(
    [
        "error",
        "network_error",
        "abort",
        "insufficient_system_resource",
        "malformed_function_call",
        "malformed_response",
        "unexpected_tool_call",
        "too_many_tool_calls",
    ]
)


def is_cut(reason: str | None) -> bool:
    """Whether a reply that ends for this `reason` is longer than it could be said."""
    return str(reason).lower() in _CUT


def failure(name: str, reason: str | None) -> ModelUnavailableError | None:
    """The error for a reply of the model `name` that ends for this `reason`, if it broke off."""
    if not _is_failure(reason):
        return None
    return ModelUnavailableError(name, f"the provider broke the reply off ({reason!r}).")


def _is_failure(reason: str | None) -> bool:
    return str(reason).lower() in _FAILED


class StreamEnd:
    """Why the provider ends one of litellm's streams, heard before litellm translates it.

    Made before the first chunk is read. It also mends what litellm's readers do to the stream:
    text with `[DONE]` in it passes, the server's `[DONE]` is no reason to end, a line of broken
    JSON is an error, and a whole reply in place of a stream is its only chunk. `timeout` is for
    the requests that litellm sends without one.
    """

    def __init__(self, stream: Any, *, timeout: Any = None) -> None:
        self._stream = stream
        self._said: list[str] = []
        source = getattr(stream, "completion_stream", None)
        if source is not None:
            self._listen(source)
        elif callable(send := getattr(stream, "make_call", None)):
            # Sent with the first chunk: only there does litellm tell one failure from another.
            stream.make_call = partial(self._send, send, timeout)

    @property
    def is_known(self) -> bool:
        """Whether the provider has said that the reply has ended."""
        return self._reason is not None

    def failure(self, name: str) -> ModelUnavailableError | None:
        """The error of the model `name`, if the provider has said that the reply broke off."""
        # Of an "error" of OpenAI's form, litellm makes an exception without words.
        raised = getattr(self._stream, "intermittent_finish_reason", None)
        return failure(name, self._reason) or failure(name, raised)

    def told(self, chunk: Any) -> Any:
        """`chunk` with the finish reason that is right; with none if the reply broke off."""
        for choice in filter(lambda choice: choice.finish_reason, chunk.choices):
            if _is_failure(self._reason):
                choice.finish_reason = None
            elif is_cut(self._reason):
                choice.finish_reason = "length"
            else:
                # litellm does not translate what came together with the last words.
                translated = litellm_module().Choices(finish_reason=choice.finish_reason)
                choice.finish_reason = translated.finish_reason
        return chunk

    @property
    def _reason(self) -> str | None:
        if self._said:
            return self._said[-1]
        return getattr(self._stream, "received_finish_reason", "stop")

    def _send(self, send: Callable[..., Any], timeout: Any, *, client: Any) -> Any:
        post = partial(client.post, timeout=timeout)
        return self._listen(send(client=SimpleNamespace(post=post)))

    def _listen(self, source: Any) -> Any:
        """Hear what comes from `source`, which litellm reads its chunks from."""
        if callable(parse := getattr(source, "chunk_parser", None)):
            source.chunk_parser = partial(self._parsed, parse)
        if callable(read := getattr(source, "_handle_string_chunk", None)):
            source._handle_string_chunk = partial(_read, read, source)
        response: Any = getattr(source, "response", None)
        if "json" in getattr(response, "headers", {}).get("content-type", ""):
            parts = response.iter_bytes
            response.iter_bytes = lambda: _events(parts())
        return source

    def _parsed(self, parse: Callable[[Any], Any], chunk: Any) -> Any:
        _raise_error_in(chunk)
        self._said += map(str, filter(None, _reasons_in(chunk)))
        return parse(_piece(chunk))


def _read(read: Callable[..., Any], source: Any, str_line: Any) -> Any:
    """What litellm's reader `read` of `source` makes of a line, if it took JSON as it is."""
    if not isinstance(str_line, str):
        return read(str_line=str_line)
    data = str_line.removeprefix("data:").strip()
    if data == "[DONE]":
        return read(str_line="")
    if not data or not str_line.startswith(("data:", "{")):
        return read(str_line=str_line)
    chunk = json.loads(data)
    return source.chunk_parser(chunk=chunk) if chunk else read(str_line="")


def _raise_error_in(chunk: Any) -> None:
    """Raise an error within a stream whose code is a word: litellm wants numbers."""
    error = _of(chunk, "error")
    if not isinstance(error, Mapping) or _of(chunk, "type") == "error":
        return
    if isinstance(code := error.get("code"), int):
        return
    status = int(str(code)) if str(code).isdecimal() else 500
    words = str(error.get("message") or error)
    raised = litellm_module().APIError(status, words, llm_provider="", model="")
    raised.body = error
    raise raised


def _reasons_in(chunk: Any) -> Iterator[Any]:
    """Where OpenAI's, Gemini's and Anthropic's chunks say why the reply ends."""
    if _of(chunk, "error"):
        return
    for choice in _of(chunk, "choices") or ():
        yield _of(choice, "finish_reason")
    for candidate in _of(chunk, "candidates") or ():
        yield _of(candidate, "finishReason")
    yield _of(_of(chunk, "promptFeedback"), "blockReason")
    yield _of(_of(chunk, "delta"), "stop_reason")


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _piece(chunk: Any) -> Any:
    """`chunk`; a whole reply as the only chunk of a stream."""
    for choice in _of(chunk, "choices") or ():
        if isinstance(choice, dict) and "delta" not in choice and "message" in choice:
            choice["delta"] = choice["message"]
    return chunk


def _events(parts: Iterator[bytes]) -> Iterator[bytes]:
    """`parts` of an answer; one JSON object is an event of a stream."""
    first = next(parts, b"")
    if not first.lstrip().startswith(b"{"):
        yield first
        yield from parts
        return
    body = b"".join((first, *parts))
    try:
        chunk = _piece(json.loads(body))
    except ValueError:
        yield body
        return
    yield f"data: {json.dumps(chunk)}\n\n".encode()
