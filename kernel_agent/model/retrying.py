"""Asks again what was not replied, as long as another try is worth it."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable

from kernel_agent.errors import ModelError, ModelUnavailableError
from kernel_agent.events import Listener, ReplyRetried
from kernel_agent.model.waiting import GivenUpError, Waiting
from kernel_agent.steps import Reply

FIRST_WAIT = 1.0
"""First wait of our own before another try, in seconds; each later one is twice as long.

Six of them together are more than a minute: that long a limit that is counted per minute lasts.
"""

MAX_WAIT = 120.0
"""Longest wait of our own before another try, in seconds."""

MAX_ASKED = 600.0
"""Longest wait that a provider may ask for, in seconds: one that asks for more is down."""

MAX_EMPTY = 2
"""How often an empty reply is asked for again."""

_NOT_EMPTY = {"length", "max_tokens", "content_filter"}
"""Finish reasons that explain an empty reply: asking again would lead there again."""


def until_it_passes(
    ask: Callable[[], Reply], *, retries: int, waiting: Waiting, listener: Listener | None
) -> Reply:
    """The reply of `ask`, which is called again after an error that may pass.

    The `listener` hears of each wait before.

    Raises ModelUnavailableError after the last try: when all `retries` have failed, when the
    provider asks for a longer wait than `MAX_ASKED`, or when the deadline of `waiting` comes
    before.
    """
    for attempt in itertools.count(1):
        try:
            return ask()
        except ModelUnavailableError as error:
            failure = error
        asked, left = failure.retry_after or 0.0, waiting.deadline - time.monotonic()
        wait = retry_wait(attempt, asked)
        if attempt > retries:
            why = f" That was try {attempt} of {attempt}." if retries else ""
            raise _final(failure, why)
        if asked > MAX_ASKED:
            why = f" It asks to wait {asked:,.0f} s, which is too long to wait here."
            raise _final(failure, why)
        if wait > left:
            why = f" Another try would be too late: `deadline` is {waiting.seconds:,g} s."
            raise _final(failure, why)
        if listener:
            listener(ReplyRetried(failure.reason, wait, attempt))
        waiting.pause(wait)
    raise AssertionError("the tries never end by themselves")


def until_it_says_something(ask: Callable[[], Reply], *, listener: Listener | None) -> Reply:
    """The reply of `ask`, which is called again up to `MAX_EMPTY` times if there is none in it.

    What `ask` raises passes through the first time; later the empty reply stands, since it was
    paid for.
    """
    reply = ask()
    for attempt in range(1, MAX_EMPTY + 1):
        if not is_empty(reply):
            break
        if listener:
            listener(ReplyRetried("the reply is empty.", 0.0, attempt))
        try:
            reply = ask()
        except GivenUpError:
            raise
        except ModelError:
            break
    return reply


def is_empty(reply: Reply) -> bool:
    """Whether there is nothing in `reply` to act on, and no reason why."""
    return not reply.text.strip() and not reply.calls and reply.finish_reason not in _NOT_EMPTY


def retry_wait(attempt: int, asked: float) -> float:
    """Seconds to wait after failed try number `attempt` (from 1).

    What the provider has `asked` for, and up to a tenth more by chance; at least 1, 2, 4, ... and
    up to a half more, at most `MAX_WAIT`. By chance, so that many runs that failed together do not
    come back together; more and never less, because what was asked for or is counted must pass.
    """
    own = min(FIRST_WAIT * 2.0 ** (attempt - 1), MAX_WAIT / 1.5) * random.uniform(1, 1.5)
    return max(asked * random.uniform(1, 1.1), own)


def _final(error: ModelUnavailableError, why: str) -> ModelUnavailableError:
    final = ModelUnavailableError(error.model, f"{error.reason}{why}", error.retry_after)
    # `error` was raised without litellm's chain, which may hold the key: neither has this one.
    final.__suppress_context__ = True
    return final
