"""How much of a model's window a request takes, and where the run is cut to make room in it."""

from __future__ import annotations

import string
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernel_agent.steps import Cut, Entry, Message, Plan, Step, Usage

IMAGE_TOKENS = 1_600
"""What an image counts for: at their usual sizes, models take 250 to 1,600 tokens of one."""

MEDIA_CHARACTERS = 300
"""Characters of an audio or video file's base64 that count as a token."""

MESSAGE_TOKENS = 6
"""What marks the begin, the role and the end of a message."""

MOST_RESERVED = 4_000
"""Tokens that are kept free for the reply, and no more than an eighth of the window."""

_DIGITS = string.digits.encode()
_DENSE = (string.punctuation + string.ascii_uppercase).encode()


def tokens_of(value: Any) -> int:
    """About how many tokens messages, or any part of one, take; more rather than less.

    Measured against tokenizers of 100,000 words. A digit is a token (some models take each for
    one), 10 letters and blanks are 4, 10 capitals and marks 7; characters that are no ASCII are a
    token for each byte after the first, and 4 tenths.
    """
    match value:
        case str():
            return _tokens_of_text(value)
        case {"image_url": _}:
            return IMAGE_TOKENS
        case {"input_audio": data} | {"file": data} | {"video_url": data}:
            return IMAGE_TOKENS + len(str(data)) // MEDIA_CHARACTERS
        case {"role": _}:
            rest = (part for name, part in value.items() if name != "role")
            return MESSAGE_TOKENS + sum(map(tokens_of, rest))
        case Mapping():
            return sum(map(tokens_of, value.values()))
        case list() | tuple():
            return sum(map(tokens_of, value))
    return 0 if value is None else 1


def _tokens_of_text(text: str) -> int:
    data = text.encode("utf-8", "replace")
    digits = len(data) - len(data.translate(None, _DIGITS))
    dense = len(data) - len(data.translate(None, _DENSE))
    beyond = len(data) - len(text)
    plain = len(text) - digits - dense
    return -(-(10 * digits + 7 * dense + 10 * beyond + 4 * plain) // 10)


def next_tokens(messages: Sequence[Message], entries: Sequence[Entry]) -> int:
    """How many tokens a request with the `messages` of these `entries` has.

    The provider's own count of the last request and its reply, and an estimate of what is new,
    less cautious where that was far too cautious until now; an estimate of all of it where there is
    no count, or one that cannot be of the whole request.
    """
    usage = _last_usage(entries)
    said = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if usage is None or not said:
        return tokens_of(messages)
    known = usage.prompt_tokens + usage.completion_tokens
    if not {"reasoning_content", "thinking_blocks"} & messages[said[-1]].keys():
        known -= min(usage.reasoning_tokens, usage.completion_tokens)  # it is not sent back
    estimate, new = tokens_of(messages[: said[-1] + 1]), tokens_of(messages[said[-1] + 1 :])
    # Some servers leave out what their cache has served.
    if 4 * known < estimate:
        return estimate + new
    return known + min(new, new * 3 * known // (2 * estimate))


def _last_usage(entries: Sequence[Entry]) -> Usage | None:
    """What the last request used, if its messages are still sent."""
    for entry in reversed(entries):
        match entry:
            case Cut():
                return None
            case Step() | Plan():
                return entry.reply.usage
    return None


@dataclass(frozen=True)
class Marks:
    """Numbers of tokens: a request above `full` is cut down to `aim`; none may exceed `most`."""

    full: int
    aim: int
    most: int


def marks(window: int) -> Marks:
    """The marks for a window of so many tokens for messages and reply together.

    Far apart, so that cuts are rare: each costs the provider's cache of what was sent before.
    """
    most = max(window - min(MOST_RESERVED, window // 8), 1)
    return Marks(full=most * 8 // 10, aim=most * 4 // 10, most=most)


def where_to_cut(
    steps: Sequence[int],
    end: int,
    tokens: Callable[[int, int], int],
    *,
    bounds: Marks,
    before: tuple[int, int] = (0, 0),
) -> tuple[int, int]:
    """Where `Cut.shortened` and `Cut.summarised` are to be, so that `bounds.aim` is met.

    `steps` are the places of the steps among the `end` entries, `before` what was cut already, and
    `tokens` tells what a request has after a cut. The newest steps stay whole: two if a step like
    the last has room behind them, else one if it can be sent at all. Old observations are shortened
    first; where that is not enough, old steps are summarised.
    """
    if not steps:
        return before

    def with_whole(last: int) -> int:
        return tokens(max(last, before[0]), max(last, before[1]))

    last, most = steps[-1], bounds.most
    least = with_whole(last)
    if least > bounds.most:
        # Not even the last observation has room: of the last step there is what the model said.
        before = (end, before[1])
        least = tokens(end, max(last, before[1]))
    elif len(steps) > 1:
        two = with_whole(steps[-2])
        # Else the next step would need a cut again.
        if two + (two - least) <= bounds.full:
            last, least, most = steps[-2], two, bounds.full
    # Where much has to stay, the aim is higher: cuts that free little would follow each other.
    aim = max(bounds.aim, least + (most - least) // 3)
    return _smallest(steps, last, tokens, least=least, aim=aim, before=before)


def _smallest(
    steps: Sequence[int],
    last: int,
    tokens: Callable[[int, int], int],
    *,
    least: int,
    aim: int,
    before: tuple[int, int],
) -> tuple[int, int]:
    """The smallest cut with which a request has `aim` tokens, at most up to the step at `last`.

    `least` is what a request has after the largest.
    """
    shortened, summarised = before
    places = [place for place in steps if shortened < place <= last] or [shortened]
    if tokens(places[-1], summarised) <= aim:
        return _first(places, lambda place: tokens(place, summarised) <= aim), summarised
    places = [place for place in steps if summarised < place <= last]
    if not places:
        return max(last, shortened), summarised
    # Half of the room is for steps that stay whole. Few of those before them are kept as lines,
    # so that no summary is needed for many cuts to come.
    half, little = (least + aim) // 2, least + (aim - least) // 8
    whole = _first(places, lambda place: tokens(max(place, shortened), place) <= half)
    places = [place for place in places if place <= whole]
    gone = _first(places, lambda place: tokens(max(last, shortened), place) <= little)
    return max(whole, shortened), gone


def _first(places: Sequence[int], holds: Callable[[int], bool]) -> int:
    """The first of the `places` for which it holds, the last if for none; it holds from one on."""
    found = bisect_left(places, True, key=holds)
    return places[min(found, len(places) - 1)]
