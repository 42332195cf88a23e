"""Tests of how a reply ends, by what the provider itself says, through the real litellm."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from kernel_agent.errors import (
    ContextWindowExceededError,
    ModelAuthenticationError,
    ModelUnavailableError,
)
from kernel_agent.steps import Reply
from tests.local_model import MESSAGES, complete, ignore, local_model
from tests.openai_server import OpenAIServer, Raw, Stall, Status

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    # pydantic's word to litellm about what does not fit.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]

# litellm reads OpenAI's form with OpenAI's own package for some providers, by itself for others.
OPENAI = "openai/local"
READ_BY_LITELLM = [
    "hosted_vllm/local",
    "deepseek/local",
    "openrouter/any/local",
    "mistral/local",
    "groq/local",
    "xai/local",
]
GEMINI, CLAUDE = "gemini/local", "anthropic/claude-local"
USAGE = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
CODE = 'print("[DONE]", x)\n'


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return event(head | {"choices": [choice]} | more)


def event(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def text(piece: str) -> bytes:
    return chunk({"content": piece})


def end(finish_reason: str) -> bytes:
    return chunk({}, finish_reason)


def call(**function: str) -> bytes:
    part = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return chunk({"tool_calls": [part]})


def stream(*events: bytes) -> Raw:
    return Raw(b"".join((*events, b"data: [DONE]\n\n")))


def whole(finish_reason: str, *, usage: Mapping[str, int] | None = USAGE) -> Raw:
    message = {"role": "assistant", "content": "So far", "reasoning_content": "Hm."}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    body = head | {"choices": [choice]} | ({"usage": usage} if usage else {})
    return Raw(json.dumps(body, indent=1).encode(), "application/json")


def gemini(piece: str, finish_reason: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"parts": [{"text": piece}]}}
    usage = {"promptTokenCount": 70, "candidatesTokenCount": 30, "totalTokenCount": 100}
    reason = {"finishReason": finish_reason} if finish_reason else {}
    return {"candidates": [candidate | reason], "usageMetadata": usage}


def claude(stop_reason: str) -> list[dict[str, Any]]:
    usage = {"input_tokens": 70, "output_tokens": 30}
    head = {"id": "m", "type": "message", "role": "assistant", "model": "c", "usage": usage}
    part = {"type": "text", "text": ""}
    piece = {"type": "text_delta", "text": "So far"}
    return [
        {"type": "message_start", "message": head | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": part},
        {"type": "content_block_delta", "index": 0, "delta": piece},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage},
        {"type": "message_stop"},
    ]


def lost(answer: Raw, listener: Any = ignore, **options: Any) -> ModelUnavailableError:
    with pytest.raises(ModelUnavailableError) as caught:
        complete(answer, listener, **options)
    return caught.value


# Text that looks like the end


@pytest.mark.parametrize("name", [OPENAI, *READ_BY_LITELLM])
def test_code_may_hold_what_ends_a_stream(name: str) -> None:
    reply = complete(stream(text("x = 1\n"), text(CODE), end("stop")), ignore, name=name)
    assert reply.text == f"x = 1\n{CODE}"


@pytest.mark.parametrize("name", [OPENAI, *READ_BY_LITELLM])
def test_a_native_call_may_hold_what_ends_a_stream(name: str) -> None:
    arguments = json.dumps({"code": CODE})
    events = (call(name="python", arguments=arguments[:-1]), call(arguments=arguments[-1]))
    [found] = complete(stream(*events, end("tool_calls")), ignore, name=name).calls
    assert (found.name, found.arguments) == ("python", arguments)


def test_ollamas_lines_may_hold_what_ends_a_stream() -> None:
    lines = [{"message": {"role": "assistant", "content": CODE}, "done": False}]
    lines += [{"message": {"role": "assistant", "content": ""}, "done": True}]
    body = "".join(json.dumps({"model": "m"} | line) + "\n" for line in lines).encode()
    reply = complete(
        Raw(body, "application/x-ndjson"), ignore, name="ollama_chat/local", window=4096
    )
    assert reply.text == CODE


# Streams that end too early


@pytest.mark.parametrize("name", [OPENAI, *READ_BY_LITELLM])
@pytest.mark.parametrize(
    "events",
    [(text("x = 1"),), (text("x = 1"), chunk({}, usage=USAGE)), (call(name="f", arguments="{}"),)],
)
def test_a_stream_that_is_done_without_a_reason_is_not_a_reply(
    events: tuple[bytes, ...], name: str
) -> None:
    error = lost(stream(*events), name=name)
    assert "the stream ended before the reply did" in error.reason
    assert error.usage.completion_tokens > 0


@pytest.mark.parametrize("name", [OPENAI, *READ_BY_LITELLM])
def test_a_reply_with_a_hole_is_not_a_reply(name: str) -> None:
    hole = b'data: {"choices": [{"delta": {"content": "if x:\n\n'
    error = lost(stream(text("x = 1\n"), hole, text("save(x)"), end("stop")), name=name)
    assert "broken JSON" in error.reason
    assert error.usage.completion_tokens > 0


# Reasons


def complete_in_form(name: str, reason: str, listener: Any) -> Reply:
    """A reply of two words that the provider of `name` ends for this reason."""
    match name.partition("/")[0], listener:
        case "gemini", None:
            answer = Raw(json.dumps(gemini("So far", reason)).encode(), "application/json")
        case "gemini", _:
            answer = Raw(event(gemini("So far", reason)))
        case "anthropic", None:
            content = {"content": [{"type": "text", "text": "So far"}], "stop_reason": reason}
            body = claude(reason)[0]["message"] | content
            answer = Raw(json.dumps(body).encode(), "application/json")
        case "anthropic", _:
            answer = Raw(b"".join(map(event, claude(reason))))
        case _, None:
            answer = whole(reason)
        case _:
            answer = stream(text("So "), chunk({"content": "far"}, reason))
    return complete(answer, listener, name=name)


@pytest.mark.parametrize("listener", [None, ignore])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deepseek/local", "insufficient_system_resource"),
        ("hosted_vllm/local", "abort"),
        ("mistral/local", "error"),
        ("openrouter/any/local", "error"),
        (OPENAI, "network_error"),
        (OPENAI, "error"),
        (GEMINI, "MALFORMED_FUNCTION_CALL"),
    ],
)
def test_a_reply_that_the_provider_broke_off_is_lost_but_paid(
    name: str, reason: str, listener: Any
) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        complete_in_form(name, reason, listener)
    assert f"the provider broke the reply off ({reason!r})" in caught.value.reason
    assert caught.value.usage.completion_tokens > 0


def test_a_broken_reply_without_figures_is_counted() -> None:
    error = lost(whole("abort", usage=None), None, name="hosted_vllm/local")
    assert error.usage.prompt_tokens > 0
    assert error.usage.completion_tokens > 0


@pytest.mark.parametrize("listener", [None, ignore])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mistral/local", "model_length"),
        (OPENAI, "model_context_window_exceeded"),
        (CLAUDE, "model_context_window_exceeded"),
        (CLAUDE, "pause_turn"),
    ],
)
def test_a_reply_that_does_not_fit_is_cut_off(name: str, reason: str, listener: Any) -> None:
    reply = complete_in_form(name, reason, listener)
    assert (reply.text, reply.finish_reason) == ("So far", "length")


@pytest.mark.parametrize("listener", [None, ignore])
@pytest.mark.parametrize(
    ("name", "reason", "told"),
    [
        ("hosted_vllm/local", "something_new", "stop"),
        (OPENAI, "sensitive", "content_filter"),
        ("mistral/local", "sensitive", "content_filter"),
        (CLAUDE, "end_turn", "stop"),
        (GEMINI, "STOP", "stop"),
    ],
)
def test_other_reasons_stay_as_litellm_has_them(
    name: str, reason: str, told: str, listener: Any
) -> None:
    assert complete_in_form(name, reason, listener).finish_reason == told


# Gemini before the first chunk


def test_geminis_refused_connection_may_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with OpenAIServer([]) as server, pytest.raises(ModelUnavailableError, match="refused"):
        model = local_model(server, GEMINI, api_base=f"http://127.0.0.1:{port}", retries=0)
        model.complete(MESSAGES, ignore)


def test_geminis_silence_is_no_longer_than_the_timeout() -> None:
    with pytest.raises(ModelUnavailableError, match="timed out"):
        complete(Stall(""), ignore, name=GEMINI, timeout=0.05)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status(503, "The model is overloaded."), ModelUnavailableError),
        (
            Status(400, "API key not valid. Please pass a valid API key."),
            ModelAuthenticationError,
        ),
        (
            Status(400, "The input token count (9) exceeds the maximum number of tokens allowed."),
            ContextWindowExceededError,
        ),
    ],
)
def test_geminis_refusals_are_told_apart(status: Status, kind: type[Exception]) -> None:
    with OpenAIServer([status]) as server, pytest.raises(kind, match=status.message[:20]):
        local_model(server, GEMINI, retries=0).complete(MESSAGES, ignore)


def test_a_request_that_gemini_blocks_is_filtered_and_not_asked_again() -> None:
    feedback = {"promptFeedback": {"blockReason": "SAFETY"}}
    reply = complete(Raw(event(feedback)), ignore, name=GEMINI)
    assert (reply.text, reply.finish_reason) == ("", "content_filter")


# Errors within a stream


@pytest.mark.parametrize("name", ["openrouter/any/local", "groq/local", "hosted_vllm/local"])
@pytest.mark.parametrize("code", ["server_error", None, "429", 502])
def test_an_error_within_a_stream_may_pass_whatever_its_code_is(code: Any, name: str) -> None:
    error = {"code": code, "message": "Provider disconnected"}
    broken = chunk({"content": ""}, "error", error=error)
    found = lost(stream(text("So far"), broken), name=name)
    assert "Provider disconnected" in found.reason
    assert found.usage.completion_tokens > 0


def test_an_error_within_a_stream_keeps_the_code_that_says_more() -> None:
    error = {"code": "context_length_exceeded", "message": "Too long."}
    with pytest.raises(ContextWindowExceededError, match=r"Too long\."):
        complete(stream(event({"error": error})), ignore, name="openrouter/any/local")


# No stream


@pytest.mark.parametrize("name", [OPENAI, "moonshot/local"])
def test_a_whole_reply_in_place_of_a_stream_is_taken(name: str) -> None:
    reply = complete(whole("stop"), ignore, name=name)
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("So far", "Hm.", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (70, 30)


def test_a_whole_reply_on_one_line_is_taken_by_litellms_own_readers_too() -> None:
    body = json.dumps(json.loads(whole("stop").body)).encode()
    reply = complete(Raw(body, "application/json"), ignore, name="hosted_vllm/local")
    assert (reply.text, reply.finish_reason) == ("So far", "stop")
    assert reply.usage.completion_tokens == 30


def test_a_whole_error_in_place_of_a_stream_is_quoted() -> None:
    body = json.dumps({"error": {"message": "Busy now."}}).encode()
    with pytest.raises(ModelUnavailableError, match=r"Busy now\."):
        complete(Raw(body, "application/json"), ignore)


def test_a_stream_that_calls_itself_json_is_read_as_a_stream() -> None:
    body = stream(text("Done."), end("stop")).body
    assert complete(Raw(body, "application/json"), ignore).text == "Done."
