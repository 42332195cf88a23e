"""The tokens and the price of a reply: the provider's figures, else litellm's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kernel_agent.errors import ModelError
from kernel_agent.model.replies import ReplyReader
from kernel_agent.model_loading import litellm_module
from kernel_agent.steps import Message, RequestedCall, Usage


def is_count(told: Any, *, says_something: bool = False) -> bool:
    """Whether the usage that a provider `told` is one: no request is empty.

    Nor is a reply that `says_something`: some servers tell no tokens of it, or 0.
    """
    counts = getattr(told, "prompt_tokens", None), getattr(told, "completion_tokens", None)
    match counts:
        case int(prompt), int(completion):
            return prompt > 0 and completion >= int(says_something)
    return False


def paid_until(error: ModelError) -> Usage:
    """What was paid for in vain until `error` was raised."""
    usage: Usage = getattr(error, "usage", Usage())
    return usage


def charge(error: ModelError, usage: Usage) -> None:
    """Let `error` tell that `usage` was paid for in vain until it was raised, as `usage`."""
    vars(error)["usage"] = usage


def usage_of(name: str, told: Any) -> Usage:
    """The usage that the provider `told`, in litellm's form, with its price."""
    prompt, details = told.prompt_tokens_details, told.completion_tokens_details
    return Usage(
        prompt_tokens=told.prompt_tokens,
        completion_tokens=told.completion_tokens,
        cached_tokens=(prompt and prompt.cached_tokens) or 0,
        reasoning_tokens=(details and details.reasoning_tokens) or 0,
        cost=_cost(name, told),
    )


def counted(
    name: str,
    messages: Sequence[Message],
    text: str,
    reasoning: str,
    calls: Sequence[RequestedCall] = (),
) -> Usage:
    """litellm's own count, for a reply whose usage was not told: as litellm counts for streams."""
    count = functools.partial(litellm_module().token_counter, model=name)
    thoughts = count(text=reasoning)
    said = "".join((text, *(f"{call.name}{call.arguments}" for call in calls)))
    told = litellm_module().Usage(
        prompt_tokens=count_tokens(name, messages),
        completion_tokens=count(text=said) + thoughts,
        reasoning_tokens=thoughts,
    )
    return usage_of(name, told)


def used_for(name: str, messages: Sequence[Message], reader: ReplyReader) -> Usage:
    """What a whole reply to `messages`, as `reader` has it, has used: as told, else counted."""
    if is_count(reader.usage_told, says_something=reader.has_begun):
        return usage_of(name, reader.usage_told)
    return counted(name, messages, reader.text, reader.reasoning, reader.calls)


def price_of(name: str, usage: Usage) -> float | None:
    """What the tokens of `usage` cost in USD by litellm's list; None where that is not known."""
    told = litellm_module().Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        prompt_tokens_details={"cached_tokens": usage.cached_tokens},
        reasoning_tokens=usage.reasoning_tokens,
    )
    return _cost(name, told)


def count_tokens(
    name: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> int:
    """The tokens of a request as litellm counts them for the model `name`."""
    count = functools.partial(litellm_module().token_counter, model=name)
    # A reply that was paid for must not be lost to a part that litellm cannot count.
    with suppress(Exception):
        return int(count(messages=list(messages), tools=list(tools) or None))
    return int(count(text="\n".join(str(message.get("content") or "") for message in messages)))


def _cost(name: str, told: Any) -> float | None:
    """The price in USD: the provider's own figure, else by litellm's list, else None."""
    match getattr(told, "cost", None):
        case bool():
            pass
        case int() | float() as cost:
            return float(cost)
    # litellm raises a bare Exception for a model without a price, and a reply that was paid for
    # must not be lost to its price.
    with suppress(Exception):
        return float(sum(litellm_module().cost_per_token(model=name, usage_object=told)))
    return None
