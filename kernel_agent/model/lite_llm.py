"""Any model that litellm knows, as a `Model`: tries, waits, and what goes wrong."""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import os
import random
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from kernel_agent.errors import ModelUnavailableError
from kernel_agent.events import Listener, ReplyRetried, ReplyText
from kernel_agent.model.protocol import JsonTool
from kernel_agent.model_errors import model_error, no_key_error
from kernel_agent.model_loading import litellm_module, prepare_litellm
from kernel_agent.model_secrets import public
from kernel_agent.steps import Message, Reply, Usage

MAX_WAIT = 120.0
"""Longest wait before another try, in seconds, even if the provider asks for more."""

CONNECT_TIMEOUT = 10.0
"""Longest wait for a connection, in seconds: who cannot be reached is found out soon."""

_DRAFT = re.compile(r"<(?:think|thinking)>(.*?)</(?:think|thinking)>(.*)", re.DOTALL)


class LiteLLM:
    """Any model that litellm knows, by a name such as `"anthropic/claude-sonnet-4-5"`.

    `retries` are the further tries when the provider is overloaded or cannot be reached: six ride
    out a limit that is counted per minute. `timeout` is the longest silence of the provider, in
    seconds. `params` go to `litellm.completion` as they are: `api_base`, `api_key`,
    `temperature`, ... Nothing else is added to a request.
    """

    def __init__(
        self, name: str, *, retries: int = 6, timeout: float = 600.0, **params: Any
    ) -> None:
        self.name = name
        self._retries = retries
        self._timeout = timeout
        self._params = params
        if name.startswith("openai/") and params.get("api_base") and not _has_openai_key(params):
            # A server of the user's own seldom wants a key, but litellm wants one to send.
            self._params = params | {"api_key": "none"}
        self._sleep: Callable[[float], None] = time.sleep

    def prepare(self) -> None:
        """Start loading litellm in the background and return at once; `complete` waits for it."""
        prepare_litellm()

    def check(self) -> None:
        """Find out, without asking the provider, what would make every request fail.

        Waits for litellm to be loaded. Raises ModelError for a name that leads to no provider,
        and ModelAuthenticationError if the provider wants a key and there is none.
        """
        litellm = litellm_module()
        try:
            litellm.get_llm_provider(self.name, api_base=self._params.get("api_base"))
        except Exception as error:
            raise self._error(error) from None
        missing = litellm.validate_environment(self.name)["missing_keys"]
        # Where more than a key is missing (Bedrock, Vertex) there are other ways to log in.
        if missing and not self._params.get("api_key") and all(map(_is_key, missing)):
            raise no_key_error(self.name, missing)

    @property
    def takes_images(self) -> bool:
        """Whether the model is known to take images. Waits for litellm to be loaded."""
        return bool(litellm_module().supports_vision(self.name))

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "parameters": public(self._params)}

    def complete(
        self,
        messages: Sequence[Message],
        listener: Listener | None = None,
        *,
        tools: Sequence[JsonTool] = (),
    ) -> Reply:
        """The model's reply; see `Model.complete`.

        Usage is the provider's, or litellm's count where the provider tells none; `model_seconds`
        is the whole time, failed tries and waits included.

        Raises ModelUnavailableError after the last try, and without another try
        ModelAuthenticationError, ContextWindowExceededError and, for the rest, ModelError.
        """
        litellm_module()
        started = time.monotonic()
        for attempt in itertools.count(1):
            try:
                reply = self._stream(messages, listener) if listener else self._whole(messages)
            except ModelUnavailableError as error:
                if attempt > self._retries:
                    reason = f"{error.reason} That was try {attempt} of {attempt}."
                    raise ModelUnavailableError(self.name, reason, error.retry_after) from None
                failure = error
            else:
                break
            wait = retry_wait(attempt, failure.retry_after)
            if listener:
                listener(ReplyRetried(failure.reason, wait, attempt))
            self._sleep(wait)
        seconds = time.monotonic() - started
        return replace(reply, usage=replace(reply.usage, model_seconds=seconds))

    def _whole(self, messages: Sequence[Message]) -> Reply:
        try:
            response = self._request(messages)
        except Exception as error:
            raise self._error(error) from None
        if not response.choices:
            raise ModelUnavailableError(self.name, "the provider's answer is empty (no choices).")
        choice = response.choices[0]
        text, reasoning = choice.message.content or "", _reasoning(choice.message)
        usage = self._usage(response.usage, messages, text, reasoning)
        return Reply(text, reasoning, choice.finish_reason, usage)

    def _stream(self, messages: Sequence[Message], listener: Listener) -> Reply:
        texts: list[str] = []
        reasonings: list[str] = []
        finish_reason = told = None
        with closing(self._chunks(messages)) as chunks:
            for chunk in chunks:
                told = getattr(chunk, "usage", None) or told
                for choice in chunk.choices:
                    finish_reason = choice.finish_reason or finish_reason
                    if reasoning := _reasoning(choice.delta):
                        reasonings.append(reasoning)
                        listener(ReplyText(reasoning, reasoning=True))
                    if text := choice.delta.content:
                        texts.append(text)
                        listener(ReplyText(text))
        text, reasoning = "".join(texts), "".join(reasonings)
        # litellm does the same to a reply that comes whole.
        if not reasoning and (draft := _DRAFT.match(text)):
            reasoning, text = draft.groups()
        usage = self._usage(told, messages, text, reasoning)
        return Reply(text, reasoning, finish_reason, usage)

    def _chunks(self, messages: Sequence[Message]) -> Generator[Any, None, None]:
        """The chunks of a streamed reply. However reading them ends, the connection is closed."""
        stream = None
        try:
            stream = self._request(messages, stream=True, stream_options={"include_usage": True})
            yield from stream
        except Exception as error:
            raise self._error(error) from None
        finally:
            _close(stream)
        # litellm makes up a "stop" for a stream that ends early: half a cell would be executed.
        if getattr(stream, "received_finish_reason", "stop") is None:
            raise ModelUnavailableError(self.name, "the stream ended before the reply did.")

    def _request(self, messages: Sequence[Message], **options: Any) -> Any:
        connect = min(self._timeout, CONNECT_TIMEOUT)
        timeout = importlib.import_module("httpx").Timeout(self._timeout, connect=connect)
        # Copied, since litellm edits messages for some providers. It never tries again itself:
        # the listener would not hear of it.
        return litellm_module().completion(
            model=self.name,
            messages=copy.deepcopy(list(messages)),
            timeout=timeout,
            num_retries=0,
            max_retries=0,
            **options,
            **self._params,
        )

    def _error(self, error: Exception) -> Exception:
        # Raised `from None`: litellm's chain of exceptions quotes the request and may hold the key.
        return model_error(self.name, self._params, error)

    def _usage(self, told: Any, messages: Sequence[Message], text: str, reasoning: str) -> Usage:
        if not getattr(told, "total_tokens", 0):
            told = self._count(messages, text, reasoning)
        prompt, details = told.prompt_tokens_details, told.completion_tokens_details
        return Usage(
            prompt_tokens=told.prompt_tokens,
            completion_tokens=told.completion_tokens,
            cached_tokens=(prompt and prompt.cached_tokens) or 0,
            reasoning_tokens=(details and details.reasoning_tokens) or 0,
            cost=self._cost(told),
        )

    def _count(self, messages: Sequence[Message], text: str, reasoning: str) -> Any:
        """litellm's own count, for a provider that tells none: as litellm counts for streams."""
        count = functools.partial(litellm_module().token_counter, model=self.name)
        thoughts = count(text=reasoning)
        return litellm_module().Usage(
            prompt_tokens=count(messages=list(messages)),
            completion_tokens=count(text=text) + thoughts,
            reasoning_tokens=thoughts,
        )

    def _cost(self, told: Any) -> float | None:
        """The price in USD: the provider's own figure, else by litellm's list, else None."""
        if isinstance(cost := getattr(told, "cost", None), float):
            return cost
        # litellm raises a bare Exception for a model without a price, and a reply that was paid
        # for must not be lost to its price.
        with suppress(Exception):
            return float(sum(litellm_module().cost_per_token(model=self.name, usage_object=told)))
        return None


def _has_openai_key(params: Mapping[str, Any]) -> bool:
    return bool(params.get("api_key") or os.environ.get("OPENAI_API_KEY"))


def _is_key(variable: str) -> bool:
    return variable.endswith("_API_KEY")


def retry_wait(attempt: int, retry_after: float | None) -> float:
    """Seconds to wait after failed try number `attempt` (from 1), at most `MAX_WAIT`.

    What the provider asked for; else 1, 2, 4, ... less up to a half by chance, so that many runs
    that failed together do not come back together.
    """
    if retry_after is not None:
        return min(retry_after, MAX_WAIT)
    return min(2.0 ** (attempt - 1), MAX_WAIT) * random.uniform(0.5, 1)


def _reasoning(message: Any) -> str:
    # litellm leaves the attribute out where there is no reasoning.
    return getattr(message, "reasoning_content", None) or ""


def _close(stream: Any) -> None:
    """Close the connection under litellm's stream, which has no `close` of its own."""
    source = getattr(stream, "completion_stream", None)
    part: Any
    for part in (source, getattr(source, "streaming_response", None)):
        if hasattr(part, "close"):
            with suppress(Exception):  # a connection that is broken has nothing left to close
                part.close()
