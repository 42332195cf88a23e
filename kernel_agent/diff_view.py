"""Shows in a terminal what differs between two runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import unified_diff
from itertools import groupby

from rich.console import Console
from rich.text import Text

from kernel_agent.differences.differing import Change, Diff, Fork, Pair, Side
from kernel_agent.differences.placing import Placed
from kernel_agent.rendering import INDENT, LINE_CHARS, counted, safe_text, usage_text

MAX_LINES = 40  # of one difference; the whole of it is in the notebooks, and in the HTML page
CONTEXT = 2  # lines shown before and after one that differs
_STYLES = {"-": "red", "+": "green", "@": "cyan"}

Line = tuple[str, str]
"""A line and its style."""


def print_diff(console: Console, diff: Diff) -> None:
    """Print `diff`: what is alike in a line, what differs as lines with `-` and `+` before them.

    In a pipe the same as plain text.
    """
    for raw, style in _lines(diff):
        line = safe_text(raw)
        line = line if len(line) <= LINE_CHARS else f"{line[:LINE_CHARS]}…"
        if console.is_terminal or console.record:
            console.print(Text(line, style=style, overflow="fold"), soft_wrap=not line)
        else:
            console.out(line, highlight=False)


def fork_text(fork: Fork) -> str:
    """Where a fork left its parent, as a sentence."""
    match fork:
        case Fork("both", step):
            return f"Both are forks of one run, alike up to step {step}."
        case Fork("right", step):
            return f"The second is a fork of the first: it left it after step {step}."
        case Fork(_, step):
            return f"The first is a fork of the second: it left it after step {step}."


def summary_text(diff: Diff) -> str:
    """How much differs, as a sentence."""
    if diff.same:
        return "The same."
    changed = sum(bool(pair.changes and pair.left and pair.right) for pair in diff.pairs)
    first = sum(pair.right is None for pair in diff.pairs)
    second = sum(pair.left is None for pair in diff.pairs)
    parts = [
        f"{changed} differ{'s' if changed == 1 else ''}" * bool(changed),
        f"{first} only in the first" * bool(first),
        f"{second} only in the second" * bool(second),
    ]
    told = ", ".join(filter(None, parts)) or "the runs ended in different ways"
    return f"Of {counted(len(diff.pairs), 'pair')}: {told}."


def _lines(diff: Diff) -> Iterator[Line]:
    yield f"--- {_title(diff.left)}", "bold red"
    yield f"+++ {_title(diff.right)}", "bold green"
    if diff.fork:
        yield fork_text(diff.fork), "cyan"
    cut = len(diff.pairs) if diff.fork_at is None else diff.fork_at + 1
    yield from _pairs_lines(diff.pairs[:cut])
    if diff.fork_at is not None:
        yield "", ""
        yield "── here the fork left ──", "cyan"
    yield from _pairs_lines(diff.pairs[cut:])
    for change in diff.changes:
        yield "", ""
        yield from _change_lines(change)
    yield "", ""
    if diff.uses_differ:
        yield f"usage: {usage_text(diff.left.usage)} → {usage_text(diff.right.usage)}", "dim"
    yield summary_text(diff), "green" if diff.same else "yellow"


def _pairs_lines(pairs: Sequence[Pair]) -> Iterator[Line]:
    for is_same, neighbours in groupby(pairs, key=lambda pair: not pair.changes):
        group = list(neighbours)
        if is_same:
            yield "", ""
            yield _same_line(group), "dim"
            continue
        for pair in group:
            yield "", ""
            yield from _pair_lines(pair)


def _title(side: Side) -> str:
    steps = counted(side.steps, "step")
    return " · ".join(filter(None, [str(side.path or side.run), side.model, steps]))


def _same_line(pairs: list[Pair]) -> str:
    first, last = _name(pairs[0]), _name(pairs[-1])
    return f"  {first}: same" if len(pairs) == 1 else f"  {first} to {last}: same"


def _name(pair: Pair) -> str:
    match pair:
        case Pair(Placed(name=one), Placed(name=other)):
            return one if one == other else f"{one} ({other} in the second)"
        case Pair(Placed(name=one), _) | Pair(_, Placed(name=one)):
            return one
    return ""


def _pair_lines(pair: Pair) -> Iterator[Line]:
    match pair:
        case Pair(Placed() as one, None):
            yield f"── {one.name}, only in the first", "bold red"
        case Pair(None, Placed() as other):
            yield f"── {other.name}, only in the second", "bold green"
        case _:
            yield f"── {_name(pair)}", "bold"
    for change in pair.changes:
        yield from _change_lines(change)


def _change_lines(change: Change) -> Iterator[Line]:
    yield f"{change.what}:", "cyan"
    left, right = (safe_text(text).splitlines() for text in (change.left, change.right))
    lines = list(unified_diff(left, right, lineterm="", n=CONTEXT))[2:]
    shown = lines if len(lines) <= MAX_LINES + 1 else lines[:MAX_LINES]
    for line in shown:
        if line.startswith("@@"):
            if line is not lines[0]:
                yield f"{INDENT}…", "dim"
            continue
        yield f"{INDENT}{line[0]} {line[1:]}".rstrip(), _STYLES.get(line[0], "")
    if hidden := len(lines) - len(shown):
        yield f"{INDENT}… {counted(hidden, 'more line')}", "dim"
    if not lines:
        yield f"{INDENT}differs in blanks or control characters alone", "dim"
