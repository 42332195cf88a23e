"""Puts two sequences side by side, what is alike in one row, also where one has more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import TypeVar

MOST_COMPARED = 2_500  # pairs whose likeness is looked at in one gap
COMPARED_CHARS = 2_000  # of a text, for its likeness to others
LINE_UP = 0.05  # what it is worth that two of one kind stand in one row, however unlike they are
_WORD = re.compile(r"\w+|[^\w\s]")

Item = TypeVar("Item")
Key = Callable[[Item], tuple[str, str]]
"""Gives the kind of an item and its text."""


def align(
    left: Sequence[Item], right: Sequence[Item], *, key: Key[Item]
) -> Iterator[tuple[Item | None, Item | None]]:
    """Both in their order: those with equal keys in one row, then those of one kind and most alike.

    What has no counterpart stands beside None.
    """
    ones, others = [key(item) for item in left], [key(item) for item in right]
    matcher = SequenceMatcher(None, ones, others, autojunk=False)
    for how, start, end, other_start, other_end in matcher.get_opcodes():
        first, second = left[start:end], right[other_start:other_end]
        if how == "equal":
            yield from zip(first, second, strict=True)
        else:
            yield from _matched(first, second, key)


def _matched(
    left: Sequence[Item], right: Sequence[Item], key: Key[Item]
) -> Iterator[tuple[Item | None, Item | None]]:
    """A gap between equal items: those of one kind side by side so that they are most alike."""
    row = column = 0
    if 0 < len(left) * len(right) <= MOST_COMPARED:
        worth = [[_likeness(key(one), key(other)) for other in right] for one in left]
        best = _best(worth)
        while row < len(left) and column < len(right):
            here = worth[row][column]
            if here and best[row][column] == here + best[row + 1][column + 1]:
                yield left[row], right[column]
                row, column = row + 1, column + 1
            elif best[row][column] == best[row + 1][column]:
                yield left[row], None
                row += 1
            else:
                yield None, right[column]
                column += 1
    yield from ((item, None) for item in left[row:])
    yield from ((None, item) for item in right[column:])


def _best(worth: Sequence[Sequence[float]]) -> list[list[float]]:
    """What the best pairing is worth of everything from a row and a column on."""
    best = [[0.0] * (len(worth[0]) + 1) for _ in range(len(worth) + 1)]
    for row in reversed(range(len(worth))):
        for column in reversed(range(len(worth[0]))):
            here = worth[row][column]
            together = here + best[row + 1][column + 1] if here else 0.0
            best[row][column] = max(together, best[row + 1][column], best[row][column + 1])
    return best


def _likeness(one: tuple[str, str], other: tuple[str, str]) -> float:
    """0 if they are of two kinds, else more the more words they share."""
    if one[0] != other[0]:
        return 0.0
    # The exact ratio, which knows of order, takes a hundred times as long.
    matcher = SequenceMatcher(None, _words(one[1]), _words(other[1]), autojunk=False)
    return LINE_UP + matcher.quick_ratio()


@lru_cache(maxsize=200)
def _words(text: str) -> list[str]:
    return _WORD.findall(text[:COMPARED_CHARS])
