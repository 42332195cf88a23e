"""Tests of what a provider's words are taken for, through the real litellm."""

# ruff: noqa: E501 - a provider's sentence stays in one piece

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kernel_agent.errors import (
    ContextWindowExceededError,
    ModelAuthenticationError,
    ModelError,
    ModelUnavailableError,
)
from kernel_agent.events import Listener
from kernel_agent.model import LiteLLM
from kernel_agent.model_error_words import DAY
from tests.local_model import KEY, complete, ignore
from tests.openai_server import OpenAIServer, Raw

# pydantic's word to litellm, which silences it except where pytest listens.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the")

MESSAGES = [{"role": "user", "content": "Go."}]


class Refusing:
    """A server that says no to every request: with `body` and `status`."""

    def __init__(self) -> None:
        self.status, self.body = 400, b""
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, name: str, status: int, body: Any, listener: Listener | None) -> ModelError:
        """What is raised when the model `name` is asked and this is the answer."""
        self.status, self.body = status, body.encode() if isinstance(body, str) else _json(body)
        path = "" if name.startswith(("anthropic/", "gemini/", "ollama_chat/")) else "/v1"
        base = f"http://127.0.0.1:{self.http.server_port}{path}"
        with pytest.raises(ModelError) as caught:
            LiteLLM(name, api_base=base, api_key=KEY, retries=0).complete(MESSAGES, listener)
        return caught.value


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Refusing

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests look at what is printed."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.owner.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.owner.body)))
        self.end_headers()
        self.wfile.write(self.owner.body)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Refusing]:
    refusing = Refusing()
    yield refusing
    refusing.http.shutdown()
    refusing.http.server_close()


def nested(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def google(message: str, status: str, *details: Any) -> dict[str, Any]:
    return {"error": {"code": 429, "message": message, "status": status, "details": details}}


BOTH = pytest.mark.parametrize("listener", [pytest.param(None, marks=pytest.mark.slow), ignore])
Case = tuple[str, int, Any]
OPENAI, OLLAMA, GEMINI, VLLM = "openai/m", "ollama_chat/q", "gemini/gemini-2.5-pro", "hosted_vllm/q"
CLAUDE, LM_STUDIO = "anthropic/claude-sonnet-4-5", "lm_studio/q"

# The window overflows

OVERFLOWS: list[Case] = [
    (LM_STUDIO, 400, {"error": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."}),
    (LM_STUDIO, 400, {"error": "The number of tokens to keep from the initial prompt is greater than the context length."}),
    (LM_STUDIO, 400, {"error": "Reached context length of 4096 tokens with this model."}),
    (OLLAMA, 400, {"error": "the input length exceeds the context length"}),
    (OLLAMA, 400, {"error": "prompt too long; exceeded max context length by 4 tokens"}),
    ("mistral/m", 400, {"message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", "code": 3051}),
    ("mistral/m", 422, {"message": "Too many tokens in prompt", "code": 1000}),
    ("openrouter/x/y", 400, nested("This endpoint's maximum context length is 128000 tokens. However, you requested about 200000 tokens.", code=400)),
    ("openrouter/x/y", 400, nested("Provider returned error", code=400, metadata={"raw": '{"error": {"message": "Prompt is too long."}}'})),
    ("xai/grok-4", 400, {"code": "Client specified an invalid argument", "error": "This model's maximum prompt length is 131072 but the request contains 200000 tokens."}),
    ("moonshot/kimi", 400, nested("Invalid request: Your request exceeded model token limit: 131072")),
    (OPENAI, 400, nested("Prompt exceeds max length", code="1261")),
    (OPENAI, 400, nested("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]")),
    (OPENAI, 400, nested("The prompt is too long: 200000, model maximum context length: 131071")),
    (OPENAI, 422, {"error": "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000", "error_type": "validation"}),
    (OPENAI, 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193."}),
    (VLLM, 400, nested("The decoder prompt (length 9000) is longer than the maximum model length of 8192.")),
    (VLLM, 400, nested("You passed 9001 input tokens and requested 0 output tokens. However, the model's context length is only 8192 tokens, resulting in a maximum input length of 8192.")),
    (VLLM, 400, nested("'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 8192 tokens and your request has 6000 input tokens")),
    (OPENAI, 400, {"message": "Requested token count exceeds the model's maximum context length of 8192 tokens."}),
    (OPENAI, 400, {"message": "The input (9000 tokens) is longer than the model's context length (8192 tokens)."}),
    (OPENAI, 400, nested("request (5000 tokens) exceeds the available context size (4096 tokens)")),
    (OPENAI, 400, nested("No.", type="exceed_context_size_error")),
    (OPENAI, 500, nested("Context size has been exceeded.", code=500, type="server_error")),
    (OPENAI, 429, nested("Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 50000.", code="rate_limit_exceeded")),
    ("groq/m", 413, nested("Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000", code="rate_limit_exceeded")),
    (OPENAI, 400, nested("Your input exceeds the context window of this model.")),
    (OPENAI, 400, nested("Input tokens exceed the configured limit of 272000 tokens.")),
    (OPENAI, 400, nested("Input is too long for requested model.")),
    (OPENAI, 413, "<html><h1>413 Request Entity Too Large</h1></html>"),
    (CLAUDE, 413, nested("Request exceeds the maximum size", type="request_too_large")),
    (CLAUDE, 400, nested("prompt is too long: 208310 tokens > 200000 maximum")),
    (GEMINI, 400, nested("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).")),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", OVERFLOWS)
def test_an_overflow_is_known_by_the_words_of_its_provider(
    case: Case, listener: Listener | None, server: Refusing
) -> None:
    assert type(server.answer(*case, listener)) is ContextWindowExceededError


PASSING: list[Case] = [
    (OPENAI, 429, nested("Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 25000, Requested 6000. You can increase your rate limit by adding a payment method at https://platform.openai.com/account/billing.", type="tokens")),
    ("groq/m", 429, nested("Rate limit reached on tokens per minute (TPM): Limit 6000. Need more tokens? Upgrade at https://console.groq.com/settings/billing", type="tokens")),
    (CLAUDE, 429, nested("This request would exceed the rate limit for your organization of 30,000 input tokens per minute. Please reduce the prompt length or the maximum tokens requested, or try again later.", type="rate_limit_error")),
    (OPENAI, 429, nested("Requests have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 6 seconds.", code="429")),
    (OPENAI, 429, nested("Too many tokens, please wait before trying again.")),
    ("moonshot/kimi", 429, nested("Your account x<y> request reached organization max RPM: 3, please try again after 1 seconds", type="rate_limit_reached_error")),
    ("openrouter/x/y", 429, nested("Rate limit exceeded: free-models-per-min. Add 10 credits to unlock more.", code=429)),
    (GEMINI, 429, google("You exceeded your current quota, please check your plan and billing details.", "RESOURCE_EXHAUSTED")),
    (CLAUDE, 529, nested("Overloaded", type="overloaded_error")),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", PASSING)
def test_a_limit_that_passes_is_neither_an_overflow_nor_an_unpaid_bill(
    case: Case, listener: Listener | None, server: Refusing
) -> None:
    assert isinstance(server.answer(*case, listener), ModelUnavailableError)


NO_OVERFLOWS: list[Case] = [
    (OPENAI, 400, nested("max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.")),
    (VLLM, 400, nested("'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 8192 tokens and your request has 60 input tokens")),
    (VLLM, 400, nested("max_tokens=10000 cannot be greater than max_model_len=8192. Please request fewer output tokens.")),
    ("groq/m", 400, nested("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model")),
    (CLAUDE, 400, nested("max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude-3-5")),
    (OPENAI, 400, nested("Range of max_tokens should be [1, 8192]")),
    (GEMINI, 400, nested("Unable to submit request because it has a maxOutputTokens value of 100000 but the supported range is from 1 to 65537")),
    (CLAUDE, 400, nested("messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes")),
    (OPENAI, 413, nested("The image is too large.")),
    (OPENAI, 400, nested("Invalid 'input[3].id': string too long. Expected a string with maximum length 64", code="string_above_max_length")),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", NO_OVERFLOWS)
def test_what_less_of_the_messages_would_not_help_is_no_overflow(
    case: Case, listener: Listener | None, server: Refusing
) -> None:
    assert type(server.answer(*case, listener)) is ModelError


# Account and key

QUOTA = "You exceeded your current quota, please check your plan and billing details."
UNPAID: list[Case] = [
    (OPENAI, 429, nested("No.", type="insufficient_quota", code=None)),
    (OPENAI, 429, nested(QUOTA, type=None)),
    (OPENAI, 429, nested("Billing hard limit has been reached", code="billing_hard_limit_reached")),
    (OPENAI, 429, nested("Your account is not active.", type="billing_not_active")),
    ("moonshot/kimi", 429, nested("Suspended.", type="exceeded_current_quota_error")),
    (OPENAI, 429, nested("No.", code="1113")),
    (OPENAI, 429, nested("Insufficient balance or no resource package. Please recharge.")),
    ("xai/grok-4", 403, {"code": "No.", "error": "Your team has no credits. purchase them"}),
    ("xai/grok-4", 429, {"code": "No.", "error": "Your team abc has either used all available credits or reached its monthly spending limit."}),
    (CLAUDE, 400, nested("Your credit balance is too low to access the Anthropic API.")),
    (CLAUDE, 400, nested("You have reached your specified API usage limits.")),
    ("deepseek/m", 402, nested("Insufficient Balance", code="invalid_request_error")),
    ("openrouter/x/y", 402, nested("This request requires more credits, or fewer max_tokens.")),
    (GEMINI, 429, google("Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED")),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", UNPAID)
def test_what_is_not_paid_for_is_the_users_to_mend(
    case: Case, listener: Listener | None, server: Refusing
) -> None:
    error = server.answer(*case, listener)
    assert type(error) is ModelError
    assert error.reason.endswith("More tries would not help: see to the account.")


@BOTH
def test_a_bad_key_is_known_by_its_name_too(listener: Listener | None, server: Refusing) -> None:
    body = google("No.", "INVALID_ARGUMENT", {"reason": "API_KEY_INVALID"})
    error = server.answer(GEMINI, 400, body, listener)
    assert type(error) is ModelAuthenticationError


IN_STREAM: list[tuple[dict[str, Any], type[ModelError], str]] = [
    ({"code": 400}, ModelError, "No."),
    ({"code": 401}, ModelAuthenticationError, "No. Check the `api_key`"),
    ({"code": 402}, ModelError, "No. More tries would not help"),
    ({"code": 403}, ModelAuthenticationError, "No. Check the `api_key`"),
    ({"type": "invalid_request_error"}, ModelError, "No."),
    ({"code": "insufficient_quota"}, ModelError, "No. More tries would not help"),
    ({"code": "context_length_exceeded"}, ContextWindowExceededError, "No."),
]


@pytest.mark.parametrize(("error", "kind", "reason"), IN_STREAM)
def test_an_error_within_a_stream_is_what_it_would_have_been_before_it(
    error: dict[str, Any], kind: type[ModelError], reason: str
) -> None:
    event = b"data: " + _json({"error": {"message": "No.", **error}}) + b"\n\n"
    with pytest.raises(ModelError) as caught:
        complete(Raw(event + b"data: [DONE]\n\n"), ignore)
    assert type(caught.value) is kind
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("code", [429, 500, "server_error", None])
def test_an_error_within_a_stream_that_may_pass_is_worth_another_try(code: Any) -> None:
    event = b"data: " + _json({"error": {"message": "No.", "code": code}}) + b"\n\n"
    with pytest.raises(ModelUnavailableError):
        complete(Raw(event + b"data: [DONE]\n\n"), ignore)


# Google's waits


@BOTH
@pytest.mark.parametrize(("delay", "wait"), [("7.5s", 7.5), ("0s", 0), ("soon", None)])
def test_the_wait_that_google_asks_for_is_read(
    delay: str, wait: float | None, listener: Listener | None, server: Refusing
) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    error = server.answer(GEMINI, 429, google(QUOTA, "RESOURCE_EXHAUSTED", info), listener)
    assert isinstance(error, ModelUnavailableError)
    assert error.retry_after == wait


@BOTH
def test_a_limit_per_day_is_waited_for_elsewhere(
    listener: Listener | None, server: Refusing
) -> None:
    failure = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
    info = {"retryDelay": "30s"}
    body = google(QUOTA, "RESOURCE_EXHAUSTED", failure, info)
    error = server.answer(GEMINI, 429, body, listener)
    assert isinstance(error, ModelUnavailableError)
    assert error.retry_after == DAY


# Readable reasons

TEXTS: list[tuple[Case, str]] = [
    ((LM_STUDIO, 400, {"error": "It's no model."}), "It's no model."),
    ((OLLAMA, 404, {"error": "model 'q' not found"}), "model 'q' not found. `ollama list` shows the models that there are."),
    ((CLAUDE, 404, nested("model: claude-x")), "model: claude-x. A name is `provider/model`"),
    ((CLAUDE, 500, nested("Internal")), "Internal."),
    ((OPENAI, 400, {"detail": [{"msg": "Field required", "loc": ["body"]}]}), "Field required."),
    (("openrouter/x/y", 502, nested("Provider returned error", code=502, metadata={"raw": '{"message": "Boom"}'})), "Provider returned error: Boom."),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("case", "reason"), TEXTS)
def test_the_reason_is_the_providers_sentence(
    case: Case, reason: str, listener: Listener | None, server: Refusing
) -> None:
    assert server.answer(*case, listener).reason.startswith(reason)


WHOLE: list[tuple[Case, str]] = [
    ((OPENAI, 200, nested("No money", code=402)), "No money. More tries would not help"),
    ((GEMINI, 200, nested("No money", code=402)), "No money. More tries would not help"),
    ((OPENAI, 200, {}), "its answer is no chat completion: there are no `choices` in it."),
    ((CLAUDE, 200, {}), "litellm cannot make sense of the request or the answer (KeyError: "),
]


@pytest.mark.parametrize(("case", "reason"), WHOLE)
def test_an_answer_that_is_none_is_explained(case: Case, reason: str, server: Refusing) -> None:
    assert server.answer(*case, None).reason.startswith(reason)


@BOTH
@pytest.mark.parametrize("name", [OPENAI, VLLM, CLAUDE, GEMINI, OLLAMA])
def test_who_cannot_be_reached_is_named(name: str, listener: Listener | None) -> None:
    with OpenAIServer([]) as gone:
        url = gone.url
    with pytest.raises(ModelUnavailableError) as caught:
        LiteLLM(name, api_base=url, api_key=KEY, retries=0).complete(MESSAGES, listener)
    assert "Connection refused" in caught.value.reason
    assert caught.value.reason.endswith(f"The server that is asked is {url}.")


def test_without_an_api_base_the_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer([]) as gone:
        monkeypatch.setenv("OPENAI_BASE_URL", gone.url)
    with pytest.raises(ModelUnavailableError, match=f"asked is {gone.url}/chat/completions"):
        LiteLLM(OPENAI, api_key=KEY, retries=0).complete(MESSAGES)
