"""Asks again what was not replied, as long as another try is worth it."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import replace

from kernel_agent.errors import ModelError, ModelUnavailableError
from kernel_agent.events import Listener, ReplyRetried
from kernel_agent.model.waiting import GivenUpError, Waiting
from kernel_agent.steps import Reply, Usage

MAX_WAIT = 120.0
"""Longest wait of our own before another try, in seconds."""

MAX_ASKED = 600.0
"""Longest wait that a provider may ask for, in seconds: one that asks for more is down."""

MAX_EMPTY = 2
"""How often an empty reply is asked for again."""

NOTHING = Usage()

_NOT_EMPTY = {"length", "max_tokens", "content_filter"}
"""Finish reasons that explain an empty reply: asking again would lead there again."""


class LostReplyError(ModelUnavailableError):
    """There is no reply, but `usage` was paid for what had come of it."""

    def __init__(
        self, model: str, reason: str, retry_after: float | None = None, usage: Usage = NOTHING
    ) -> None:
        super().__init__(model, reason, retry_after)
        self.usage = usage


def usage_lost(error: ModelError) -> Usage:
    """What was paid for in vain until `error`."""
    return error.usage if isinstance(error, LostReplyError) else NOTHING


def until_it_passes(
    ask: Callable[[], Reply], *, retries: int, waiting: Waiting, listener: Listener | None
) -> Reply:
    """The reply of `ask`, which is called again after an error that may pass.

    Its usage is that of all tries. The `listener` hears of each wait before.

    Raises LostReplyError after the last try: when all `retries` have failed, when the provider
    asks for a longer wait than `MAX_ASKED`, or when the deadline of `waiting` comes before.
    """
    usage = NOTHING
    for attempt in itertools.count(1):
        try:
            reply = ask()
        except ModelUnavailableError as error:
            failure, usage = error, usage + usage_lost(error)
        else:
            return replace(reply, usage=usage + reply.usage)
        wait = retry_wait(attempt, failure.retry_after)
        if attempt > retries:
            why = f" That was try {attempt} of {attempt}." if retries else ""
            raise _final(failure, why, usage)
        if wait > MAX_ASKED:
            why = f" It asks to wait {wait:,.0f} s, which is too long to wait here."
            raise _final(failure, why, usage)
        if time.monotonic() + wait > waiting.deadline:
            why = f" Another try would be too late: `deadline` is {waiting.seconds:,g} s."
            raise _final(failure, why, usage)
        if listener:
            listener(ReplyRetried(failure.reason, wait, attempt))
        waiting.pause(wait)
    raise AssertionError("the tries never end by themselves")


def until_it_says_something(ask: Callable[[], Reply], *, listener: Listener | None) -> Reply:
    """The reply of `ask`, which is called again up to `MAX_EMPTY` times if there is none in it.

    The usage of all counts; the last reply is returned as it is. What `ask` raises passes through
    the first time; later the empty reply stands, since it was paid for.
    """
    usage = NOTHING
    for attempt in range(1, MAX_EMPTY + 2):
        try:
            asked = ask()
        except GivenUpError:
            raise
        except ModelError as error:
            if attempt == 1:
                raise
            usage += usage_lost(error)
            break
        reply, usage = asked, usage + asked.usage
        if not is_empty(reply) or attempt > MAX_EMPTY:
            break
        if listener:
            listener(ReplyRetried("the reply is empty.", 0.0, attempt))
    return replace(reply, usage=usage)


def is_empty(reply: Reply) -> bool:
    """Whether there is nothing in `reply` to act on, and no reason why."""
    return not reply.text.strip() and not reply.calls and reply.finish_reason not in _NOT_EMPTY


def retry_wait(attempt: int, retry_after: float | None) -> float:
    """Seconds to wait after failed try number `attempt` (from 1).

    What the provider asked for; else 1, 2, 4, ... up to `MAX_WAIT`, less up to a half by chance,
    so that many runs that failed together do not come back together.
    """
    if retry_after is not None:
        return retry_after
    return min(2.0 ** (attempt - 1), MAX_WAIT) * random.uniform(0.5, 1)


def _final(error: ModelUnavailableError, why: str, usage: Usage) -> LostReplyError:
    final = LostReplyError(error.model, f"{error.reason}{why}", error.retry_after, usage)
    # `error` was raised without litellm's chain, which may hold the key: neither has this one.
    final.__suppress_context__ = True
    return final
