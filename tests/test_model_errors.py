"""Tests of what a model's failures look like, through the real litellm."""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import traceback
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from kernel_agent.errors import (
    ContextWindowExceededError,
    ModelAuthenticationError,
    ModelError,
    ModelUnavailableError,
)
from kernel_agent.events import Listener
from kernel_agent.model import LiteLLM
from kernel_agent.model_errors import MAX_REASON, model_error
from kernel_agent.model_loading import litellm_module
from tests.local_model import KEY, MESSAGES, complete, ignore, local_model
from tests.openai_server import OpenAIServer, Status

# pydantic's word to litellm, which silences it except where pytest listens.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the")

# What is not tried again

FINAL: list[tuple[Status, type[ModelError], str]] = [
    (Status(400, "temperature must be < 2"), ModelError, "temperature must be < 2."),
    (Status(401, "Bad key."), ModelAuthenticationError, "Bad key. Check the `api_key`"),
    (Status(402, "No credit."), ModelError, "No credit."),
    (Status(403, "Not yours."), ModelAuthenticationError, "Not yours."),
    (Status(404, "No model `x`."), ModelError, "No model `x`. Check `api_base` too"),
    (Status(422, "Odd."), ModelError, "Odd."),
    (Status(429, "Pay first.", "insufficient_quota"), ModelError, "see to the account"),
    (Status(400, "Long.", "context_length_exceeded"), ContextWindowExceededError, "Long."),
    (
        Status(400, "This model's maximum context length is 8192 tokens."),
        ContextWindowExceededError,
        "maximum context length is 8192",
    ),
    (
        Status(400, "the request exceeds the available context size"),
        ContextWindowExceededError,
        "available context size",
    ),
]


@pytest.mark.parametrize("listener", [None, ignore])
@pytest.mark.parametrize(("status", "kind", "reason"), FINAL)
def test_what_will_not_pass_is_not_tried_again(
    status: Status, kind: type[ModelError], reason: str, listener: Listener | None
) -> None:
    with OpenAIServer([status, "Not asked for."]) as server:
        with pytest.raises(ModelError) as caught:
            local_model(server).complete(MESSAGES, listener)
        assert len(server.requests) == 1
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"Model 'openai/local': {status.message}")
    assert reason in caught.value.reason


def test_a_missing_key_is_told_with_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, variable in [("openai/gpt-4o", "OPENAI_API_KEY"), ("anthropic/c", "ANTHROPIC_API")]:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
        with pytest.raises(ModelAuthenticationError, match=f"no key for it.*{variable}"):
            LiteLLM(name).complete(MESSAGES)


@pytest.mark.parametrize("name", ["nosuch", "nosuch/model"])
def test_an_unknown_provider_is_told_with_what_a_name_looks_like(name: str) -> None:
    with pytest.raises(ModelError, match=r"no such provider.*`provider/model`"):
        LiteLLM(name).complete(MESSAGES)


def test_an_address_without_a_server_is_unavailable_and_says_why() -> None:
    with OpenAIServer([]) as server:
        url = server.url
    with pytest.raises(ModelUnavailableError, match="Connection refused"):
        LiteLLM("openai/x", api_base=url, api_key=KEY, retries=0).complete(MESSAGES)


def test_an_address_that_is_no_url_is_not_tried_again() -> None:
    with pytest.raises(ModelError, match="`api_base` is no URL") as caught:
        LiteLLM("openai/x", api_base="localhost:80/v1", api_key=KEY).complete(MESSAGES)
    assert not isinstance(caught.value, ModelUnavailableError)


def test_a_page_of_html_or_an_endless_message_becomes_a_short_reason() -> None:
    page = f"<html><body><h1>Bad\n  Gateway</h1>{'<p>nginx</p>' * 500}</body></html>"
    with pytest.raises(ModelUnavailableError) as caught:
        complete(Status(502, page))
    assert caught.value.reason.startswith("Bad Gateway nginx")
    assert len(caught.value.reason) < 600


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("litellm.BadRequestError: OpenAIException - Too hot.", "Too hot."),
        ("litellm.BadRequestError: BadRequestError: XException - too hot", "too hot."),
        ('AnthropicException - {"error": {"message": "Too \\"hot\\"."}}', 'Too "hot".'),
        ('AnthropicException - b\'{"message": "Too \\\\"hot\\\\"."}\'', 'Too "hot".'),
        ('AnthropicException - b\'{"message": "Too hot."', "Too hot."),
        ('{"message": "Too \\hot."}', '{"message": "Too \\hot."}.'),
        ("APIError: Too hot.\nTraceback (most recent call last):\n  File ...", "Too hot."),
        ("APIError: OpenAIException - ", "it gave no reason."),
        ("Too hot. LiteLLM Retried: 3 times, LiteLLM Max Retries: 3", "Too hot."),
    ],
)
def test_the_reason_is_what_the_provider_says(message: str, reason: str) -> None:
    error = litellm_module().BadRequestError(message, model="m", llm_provider="p")
    assert model_error("m", {}, error).reason == reason


# Keys

SECRET_PARAMS: list[dict[str, Any]] = [
    {"api_key": KEY},
    {"extra_headers": {"Authorization": f"Bearer {KEY}"}},
    {"extra_headers": {"X-Api-Key": KEY}},
    {"extra_body": {"login": [{"password": KEY}]}},
]


STATUSES_WITH_KEY = [
    Status(401, f"Bad: {KEY}"),
    Status(400, f"Body: '{KEY}'"),
    Status(400, "x" * (MAX_REASON - 10) + KEY),  # where a long message is cut
]


@pytest.mark.parametrize("params", SECRET_PARAMS)
@pytest.mark.parametrize("status", STATUSES_WITH_KEY)
def test_a_key_is_in_no_message_no_traceback_and_not_in_the_transcript(
    params: dict[str, Any], status: Status
) -> None:
    with OpenAIServer([status]) as server:
        model = LiteLLM("openai/x", api_base=server.url, **{"api_key": "sk-other-123", **params})
        with pytest.raises(ModelError) as caught:
            model.complete(MESSAGES)
    assert "***" in str(caught.value)
    assert KEY[:8] not in "".join(traceback.format_exception(caught.value))
    assert KEY not in json.dumps(model.about())


def test_a_key_of_the_environment_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    with pytest.raises(ModelError, match=r"Bad: \*\*\*\."):
        complete(Status(400, f"Bad: {KEY}"), api_key="sk-other-123")


def test_about_tells_the_parameters_as_json_without_secrets() -> None:
    model = LiteLLM(
        "openai/x",
        api_base="https://user:hunter2secret@example.org/v1?key=hunter2secret",
        api_key=KEY,
        max_tokens=100,
        stop=["a", "b"],
        extra_headers={"Cookie": "hunter2secret", "X-Title": "me"},
        client=object(),
    )
    assert json.loads(json.dumps(model.about())) == {
        "name": "openai/x",
        "parameters": {
            "api_base": "https://example.org/v1",
            "max_tokens": 100,
            "stop": ["a", "b"],
            "extra_headers": {"X-Title": "me"},
        },
    }


# Every error of litellm and openai has its place

UNAVAILABLE, AUTHENTICATION = ModelUnavailableError, ModelAuthenticationError
LITELLM_ERRORS: dict[str, type[ModelError]] = {
    "APIConnectionError": UNAVAILABLE,
    "APIError": UNAVAILABLE,  # by its status, 500 here
    "APIResponseValidationError": UNAVAILABLE,
    "AuthenticationError": AUTHENTICATION,
    "BadGatewayError": UNAVAILABLE,
    "BadRequestError": ModelError,
    "ContentPolicyViolationError": ModelError,
    "ContextWindowExceededError": ContextWindowExceededError,
    "ImageFetchError": ModelError,
    "InternalServerError": UNAVAILABLE,
    "InvalidRequestError": ModelError,
    "JSONSchemaValidationError": UNAVAILABLE,
    "LiteLLMUnknownProvider": ModelError,
    "MidStreamFallbackError": UNAVAILABLE,
    "MockException": UNAVAILABLE,
    "ModelNotMappedError": ModelError,
    "NotFoundError": ModelError,
    "OpenAIError": ModelError,
    "PaymentRequiredError": ModelError,
    "PermissionDeniedError": AUTHENTICATION,
    "RateLimitError": UNAVAILABLE,
    "RejectedRequestError": ModelError,
    "ServiceUnavailableError": UNAVAILABLE,
    "Timeout": UNAVAILABLE,
    "UnprocessableEntityError": ModelError,
    "UnsupportedParamsError": ModelError,
    "VectorStoreSearchError": ModelError,
    # Of litellm's proxy server and its budgets, which a run does not use.
    "BlockedPiiEntityError": ModelError,
    "BudgetExceededError": ModelError,
    "GuardrailRaisedException": ModelError,
    "ModifyResponseException": ModelError,
    "SensitiveDataRouteException": ModelError,
}
OPENAI_ERRORS: dict[str, type[ModelError]] = {
    "APIConnectionError": UNAVAILABLE,
    "APIError": ModelError,
    "APIResponseValidationError": UNAVAILABLE,
    "APIStatusError": UNAVAILABLE,  # by its status, 500 here
    "APITimeoutError": UNAVAILABLE,
    "AuthenticationError": AUTHENTICATION,
    "BadRequestError": ModelError,
    "ConflictError": UNAVAILABLE,
    "ContentFilterFinishReasonError": ModelError,
    "InternalServerError": UNAVAILABLE,
    "LengthFinishReasonError": ModelError,
    "NotFoundError": ModelError,
    "OAuthError": AUTHENTICATION,
    "OpenAIError": ModelError,
    "PermissionDeniedError": AUTHENTICATION,
    "RateLimitError": UNAVAILABLE,
    "UnprocessableEntityError": ModelError,
    # Of parts of openai's client that litellm's completions do not use.
    "InvalidWebhookSignatureError": ModelError,
    "WebSocketConnectionClosedError": ModelError,
    "WebSocketQueueFullError": ModelError,
}


# openai's errors know no status by themselves; those not listed here come with 500.
STATUS = {
    "BadRequestError": 400,
    "ConflictError": 409,
    "UnprocessableEntityError": 422,
    "RateLimitError": 429,
}


def public_errors(module: Any) -> dict[str, type[Exception]]:
    found = inspect.getmembers(module, inspect.isclass)
    return {
        name: kind
        for name, kind in found
        if issubclass(kind, Exception) and not name.startswith("_")
    }


def an_instance(kind: type[Exception]) -> Exception:
    """An error of `kind` with something fitting for each of its required parameters."""
    if not inspect.isfunction(kind.__init__):
        return kind("It failed.")
    request = httpx.Request("POST", "http://127.0.0.1/v1")
    fitting = {
        "status_code": 500,
        "response": httpx.Response(STATUS.get(kind.__name__, 500), request=request),
        "request": request,
        "current_cost": 2.0,
        "max_budget": 1.0,
        "request_data": {},
        "body": None,
        "failures": [],
        "completion": SimpleNamespace(usage=None),
    }
    parameters = inspect.signature(kind).parameters.values()
    required = (p.name for p in parameters if p.default is p.empty)
    return kind(**{name: fitting.get(name, "It failed.") for name in required})


@pytest.mark.parametrize(
    ("module", "places"), [("litellm.exceptions", LITELLM_ERRORS), ("openai", OPENAI_ERRORS)]
)
def test_every_public_error_has_its_place(module: str, places: dict[str, type[ModelError]]) -> None:
    litellm_module()
    errors = public_errors(importlib.import_module(module))
    found = {name: type(model_error("m", {}, an_instance(kind))) for name, kind in errors.items()}
    assert found == {name: places.get(name) for name in errors}


def test_an_error_goes_to_another_process_whole() -> None:
    error = ModelUnavailableError("openai/x", "it is down.", 7.0)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (ModelUnavailableError, str(error))
    assert (again.model, again.reason, again.retry_after) == ("openai/x", "it is down.", 7.0)
