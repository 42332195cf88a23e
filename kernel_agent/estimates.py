"""What the requests to come of a task will use, estimated from those that were made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from kernel_agent.context import IMAGE_TOKENS, tokens_of
from kernel_agent.pictures import MAX_IMAGES
from kernel_agent.steps import CellResult, Cut, Entry, Message, Note, Plan, Reply, Step, Usage

Price = Callable[[Usage], float | None]
"""What the tokens of a usage cost in USD; None where that is not known."""

CHARS_PER_TOKEN = 3
"""Characters of a token, at least: English has four, numbers and most other languages fewer."""

FIRST_REPLY = 500
"""Tokens of a reply while there has been none: a few sentences and a cell."""

FRAME = 300
"""Tokens of an observation beside its outputs: variables, notices, the step."""

QUANTILE = 0.8
"""This share of the replies so far was not longer than what is expected of the next one."""


@dataclass(frozen=True)
class Ahead:
    """Looks ahead in a task: what its next requests will use, by what its replies have told.

    `price` knows what tokens cost, `messages` gives those of the next request as far as they are
    known: they count for a task's first one, and for the first after a cut. `max_chars` bounds what
    an observation shows of a cell. Where replies have told no tokens nothing is expected of the
    next ones either.

    All is told by replies and results alone, so that it is the same before and after the last
    step has its observation.
    """

    price: Price
    messages: Callable[[], Sequence[Message]]
    max_chars: int

    def request(self, entries: Sequence[Entry]) -> Usage:
        """What the request after the `entries` of a task will use: tokens and `model_seconds`."""
        told = [n for n, entry in enumerate(entries) if (r := reply_of(entry)) and r.usage.tokens]
        if not replies_of(entries):
            return Usage(prompt_tokens=self._counted(), completion_tokens=FIRST_REPLY)
        seconds = mean_seconds(entries)
        if not told:
            return Usage(model_seconds=seconds)
        since = entries[told[-1] :]
        last = reply_of(since[0])
        assert last is not None
        known = last.usage
        # Reasoning that is not shown to us cannot be sent back.
        hidden = 0 if last.reasoning or last.signed else known.reasoning_tokens
        is_cut = any(isinstance(entry, Cut) for entry in since)
        expected = known.tokens - hidden + sum(self._added(entry) for entry in since)
        return Usage(
            prompt_tokens=min(expected, self._counted()) if is_cut else expected,
            completion_tokens=_expected(entries),
            # What the cache held it will hold again, unless other messages take its place.
            cached_tokens=0 if is_cut else known.cached_tokens,
            model_seconds=seconds,
        )

    def requests(self, entries: Sequence[Entry], count: int) -> list[Usage]:
        """What the next `count` requests will use if each step is like those before, on average."""
        first = self.request(entries)
        replies = replies_of(entries)
        told = [reply.usage for reply in replies if reply.usage.tokens]
        grown = told[-1].prompt_tokens - told[0].prompt_tokens if told else 0
        # Where there is nothing to compare with: by the reply and what comes round it.
        growth = grown // (len(told) - 1) if len(told) > 1 else first.completion_tokens + FRAME
        growth = max(growth, 0)
        return [
            replace(
                first,
                prompt_tokens=first.prompt_tokens + number * growth,
                cached_tokens=first.cached_tokens + number * growth if first.cached_tokens else 0,
            )
            for number in range(count)
        ]

    def closing(self, entries: Sequence[Entry]) -> Usage:
        """What a closing request will use if it comes after one more step."""
        step = self.request(entries)
        is_known = step.tokens > 0
        shown = FRAME + self.max_chars // CHARS_PER_TOKEN if is_known else 0
        return Usage(
            prompt_tokens=step.tokens + shown,
            completion_tokens=step.completion_tokens,
            cached_tokens=step.cached_tokens,
            model_seconds=step.model_seconds,
        )

    def _counted(self) -> int:
        return tokens_of(list(self.messages()))

    def _added(self, entry: Entry) -> int:
        """Tokens that come to the messages with an entry, beside its reply."""
        match entry:
            case Step(result=None, refused=refused):
                return FRAME + _tokens(len(refused))
            case Step(result=CellResult() as result, refused=refused):
                characters = min(_shown_characters(result), self.max_chars) + len(refused)
                return FRAME + _tokens(characters) + IMAGE_TOKENS * min(_images(result), MAX_IMAGES)
            case Plan():
                return FRAME
            case Note(text):
                return _tokens(len(text))
        return 0


def reply_of(entry: Entry) -> Reply | None:
    """The reply that was paid for with an entry, if any."""
    return entry.reply if isinstance(entry, Step | Plan | Cut) else None


def replies_of(entries: Iterable[Entry]) -> tuple[Reply, ...]:
    """The replies of steps, plans and summaries, in order."""
    return tuple(reply for entry in entries if (reply := reply_of(entry)) is not None)


def mean_seconds(entries: Iterable[Entry]) -> float:
    """How long a reply takes, in seconds; 0 while there has been none."""
    seconds = [reply.usage.model_seconds for reply in replies_of(entries)]
    return sum(seconds) / len(seconds) if seconds else 0.0


def _expected(entries: Sequence[Entry]) -> int:
    """Tokens of the next reply: most of those before were not longer."""
    lengths = sorted(reply.usage.completion_tokens for reply in replies_of(entries))
    return lengths[math.ceil(len(lengths) * QUANTILE) - 1]


def _tokens(characters: int) -> int:
    return -(-characters // CHARS_PER_TOKEN)


def _shown_characters(result: CellResult) -> int:
    """Characters of the outputs' texts: an observation has hardly more."""
    total = 0
    for output in result.outputs:
        match output:
            case {"output_type": "stream", "text": text}:
                total += len(text)
            case {"output_type": "error"}:
                total += len(str(output.get("evalue"))) + sum(map(len, output.get("traceback", ())))
            case {"data": {"text/plain": text}}:
                total += len(text)
            case {"data": data}:
                total += sum(len(text) for text in data.values() if isinstance(text, str))
    return total


def _images(result: CellResult) -> int:
    return sum(
        any(mime.startswith("image/") for mime in output.get("data", ()))
        for output in result.outputs
    )
