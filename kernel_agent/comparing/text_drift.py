"""What differs between two texts: numbers within a tolerance do not, the rest is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from difflib import SequenceMatcher

TOLERANCE = 1e-6
"""How far two numbers may be apart, relative or absolute, and still be the same."""

MAX_LINES = 40  # of a difference that is shown
MAX_LINE = 300  # characters
MAX_NUMBERS = 6  # that are listed
MAX_COMPARED = 2_000  # lines that are aligned; the time grows with their square
CONTEXT = 2  # equal lines around a difference

_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d[\d,]{0,60}+(?:\.\d{0,60}+)?|\.\d{1,60}+)(?:[eE][-+]?\d{1,4}+)?(?!\w)"
)


def texts_agree(one: str, other: str, tolerance: float) -> bool:
    """Whether two texts are equal but for numbers that differ by at most `tolerance`.

    Integers are counts, which must be equal, unless the tolerance is larger than `TOLERANCE`.
    """
    if one == other:
        return True
    was, now = one.split("\n"), other.split("\n")
    if tolerance <= 0 or len(was) != len(now):
        return False
    pairs = [(a, b) for a, b in zip(was, now, strict=True) if a != b]
    if not all(_lines_agree(a, b, tolerance) for a, b in pairs):
        return False
    # Where a number got longer its column got wider; blanks alone are no reason.
    return any(_NUMBER.findall(a) != _NUMBER.findall(b) for a, b in pairs)


def text_difference(one: str, other: str, tolerance: float) -> str:
    """How two texts differ: lines that begin with `-` (then), `+` (now) or a blank, bounded.

    Where only numbers differ, a last line lists them.
    """
    was, now = one.splitlines(), other.splitlines()
    numbers: list[tuple[str, str]] = []
    if len(was) == len(now):
        numbers = _numbers_apart(was, now, tolerance)
    if numbers:
        pairs = zip(was, now, strict=True)
        now = [a if _lines_agree(a, b, tolerance) else b for a, b in pairs]
    lines = list(_changes(was, now))
    if (more := len(lines) - MAX_LINES) > 1:
        lines = [*lines[:MAX_LINES], f"  … {more:,} more lines"]
    if not lines:
        return "only the ends of lines differ"
    return "\n".join([*lines, *([_number_line(numbers)] if numbers else [])])


def _lines_agree(one: str, other: str, tolerance: float) -> bool:
    if one == other:
        return True
    if _skeleton(one) != _skeleton(other):
        return False
    return all(_agree(was, now, tolerance) for was, now in _numbers(one, other))


def _skeleton(line: str) -> str:
    """What a line is besides its numbers and the width of its columns."""
    return re.sub(r"[ \t]+|-{2,}|─{2,}", " ", _NUMBER.sub(" 0 ", line)).strip()


def _numbers(one: str, other: str) -> Iterator[tuple[str, str]]:
    return zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)


def _numbers_apart(was: list[str], now: list[str], tolerance: float) -> list[tuple[str, str]]:
    """The numbers that differ by too much; none if anything else differs."""
    apart: list[tuple[str, str]] = []
    for one, other in zip(was, now, strict=True):
        if one == other:
            continue
        if _skeleton(one) != _skeleton(other):
            return []
        apart += [pair for pair in _numbers(one, other) if not _agree(*pair, tolerance)]
    return apart


def _agree(was: str, now: str, tolerance: float) -> bool:
    if was == now:
        return True
    if tolerance <= TOLERANCE and _is_integer(was) and _is_integer(now):
        return _value(was) == _value(now)
    first, second = _value(was), _value(now)
    finite = math.isfinite(first) and math.isfinite(second)
    return finite and math.isclose(first, second, rel_tol=tolerance, abs_tol=tolerance)


def _is_integer(number: str) -> bool:
    return number.replace(",", "").lstrip("+-").isdigit()


def _value(number: str) -> float:
    plain = number.replace(",", "")
    return int(plain) if _is_integer(number) else float(plain)


def _number_line(apart: list[tuple[str, str]]) -> str:
    listed = ", ".join(f"{was} → {now}{_change(was, now)}" for was, now in apart[:MAX_NUMBERS])
    more = f", … and {len(apart) - MAX_NUMBERS:,} more" if len(apart) > MAX_NUMBERS else ""
    return f"  numbers, then → now: {listed}{more}"


def _change(was: str, now: str) -> str:
    before, after = _value(was), _value(now)
    if not before or not math.isfinite(before) or not math.isfinite(after):
        return ""
    return f" ({(after - before) / abs(before) * 100:+.2g} %)"


def _changes(was: list[str], now: list[str]) -> Iterator[str]:
    """The lines that differ, with the equal ones next to them."""
    start = next((n for n, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), None)
    start = min(len(was), len(now)) if start is None else start
    begin = max(start - CONTEXT, 0)
    matcher = SequenceMatcher(
        None, was[begin:][:MAX_COMPARED], now[begin:][:MAX_COMPARED], autojunk=False
    )
    for number, group in enumerate(matcher.get_grouped_opcodes(CONTEXT)):
        if number:
            yield "  …"
        for tag, was_from, was_to, now_from, now_to in group:
            if tag == "equal":
                yield from _marked("  ", was[begin + was_from : begin + was_to])
                continue
            yield from _marked("- ", was[begin + was_from : begin + was_to])
            yield from _marked("+ ", now[begin + now_from : begin + now_to])


def _marked(mark: str, lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield mark + (line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…")
