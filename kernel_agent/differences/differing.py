"""What differs between two recorded runs, step by step: tasks, replies, what the code did."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kernel_agent.comparing.comparison import Measure, compare
from kernel_agent.comparing.normalising import normalised
from kernel_agent.comparing.pixels import image_difference
from kernel_agent.differences.aligning import align
from kernel_agent.differences.placing import Placed, place
from kernel_agent.observation import figure_size
from kernel_agent.steps import (
    CellResult,
    Outcome,
    Step,
    Usage,
    UserCell,
)
from kernel_agent.transcript import Transcript

ALIKE = ("same", "same after normalising")


@dataclass(frozen=True)
class Change:
    """One thing that differs: `what` it is, and its text on both sides, empty where it is not."""

    what: str
    left: str
    right: str


@dataclass(frozen=True)
class Pair:
    """Two entries that stand for each other, or one alone; alike, they have no `changes`."""

    left: Placed | None
    right: Placed | None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Side:
    """What one of the two runs is as a whole."""

    path: Path | None
    run: str
    model: str
    answer: Any
    outcome: Outcome | None
    usage: Usage
    steps: int


@dataclass(frozen=True)
class Fork:
    """That one run (`side`: `"left"` or `"right"`) began as a fork of the other, after `step`.

    With `side` `"both"` they are forks of one parent, and alike up to `step`.
    """

    side: str
    step: int


@dataclass(frozen=True)
class Diff:
    """Two runs beside each other. `changes` are those of the runs as a whole.

    Times, ids, addresses in memory and other noise (see `normalising`) make no difference. Nor
    does usage: the same replies can cost more or less, depending on what the provider had cached.
    """

    left: Side
    right: Side
    pairs: tuple[Pair, ...]
    changes: tuple[Change, ...] = ()
    fork: Fork | None = None

    @property
    def same(self) -> bool:
        return not self.changes and not any(pair.changes for pair in self.pairs)

    @property
    def fork_at(self) -> int | None:
        """The index of the pair behind which the fork left, None if it is not among the pairs."""
        for index, pair in enumerate(self.pairs):
            parent = pair.right if self.fork and self.fork.side == "left" else pair.left
            if self.fork and parent and parent.name == f"step {self.fork.step}":
                return index
        return None

    @property
    def uses_differ(self) -> bool:
        """Whether tokens or cost differ; it does not count as a difference."""
        one, other = self.left.usage, self.right.usage
        return (one.tokens, one.cost) != (other.tokens, other.cost)


def diff(a: Transcript, b: Transcript) -> Diff:
    """What differs between the runs `a` (left) and `b` (right).

    An entry that one of them has in addition stands alone, and does not shift those after it.
    """
    left, right = _side(a), _side(b)
    pairs = (_pair(one, other) for one, other in align(place(a), place(b), key=Placed.key))
    ends = {"outcome": (_ending(left), _ending(right)), "answer": (_said(left), _said(right))}
    changes = _changes(
        {what: texts[0] for what, texts in ends.items()},
        {what: texts[1] for what, texts in ends.items()},
    )
    return Diff(left, right, tuple(pairs), tuple(changes), _fork(a, b))


def diff_json(diff: Diff) -> dict[str, Any]:
    """`diff` as JSON values: of pairs that are alike the names alone."""
    return {
        "same": diff.same,
        "left": _side_json(diff.left),
        "right": _side_json(diff.right),
        "fork": diff.fork and vars(diff.fork),
        "pairs": [
            {
                "left": pair.left and pair.left.name,
                "right": pair.right and pair.right.name,
                "changes": [vars(change) for change in pair.changes],
            }
            for pair in diff.pairs
        ],
        "changes": [vars(change) for change in diff.changes],
    }


def _side_json(side: Side) -> dict[str, Any]:
    path = str(side.path) if side.path else None
    return {**vars(side), "path": path, "outcome": _ending(side), "usage": vars(side.usage)}


def _side(run: Transcript) -> Side:
    model = run.about.get("model")
    name = str(model.get("name", "")) if isinstance(model, dict) else ""
    return Side(
        run.path, run.run_id, name, run.plain_answer, run.outcome, run.usage, len(run.steps)
    )


def _ending(side: Side) -> str:
    return str(side.outcome) if side.outcome else "unfinished"


def _said(side: Side) -> str:
    return "" if side.answer is None else str(side.answer)


def _pair(left: Placed | None, right: Placed | None) -> Pair:
    changes = _changes(left.says if left else {}, right.says if right else {})
    if left and right:
        changes = [change for change in changes if change.what != "outputs"]
        changes += _output_changes(left, right)
    else:
        changes = [change for change in changes if "ok" not in (change.left, change.right)]
    return Pair(left, right, tuple(changes))


def _changes(left: dict[str, str], right: dict[str, str]) -> list[Change]:
    return [
        Change(what, left.get(what, ""), right.get(what, ""))
        for what in dict.fromkeys([*left, *right])
        if left.get(what, "").strip() != right.get(what, "").strip()
    ]


def _output_changes(left: Placed, right: Placed) -> list[Change]:
    """How the outputs of two cells differ: as texts, as figures, or else in what is not seen."""
    was, now = _result(left), _result(right)
    if was is None or now is None or was.outputs == now.outputs:
        return []
    # A status that differs is told by itself.
    found = compare(replace(was, status="ok"), replace(now, status="ok"), _measure())
    if found.verdict in ALIKE:
        return []
    texts = left.says["outputs"], right.says["outputs"]
    changes = [Change("outputs", *texts)] if _bare(texts[0]) != _bare(texts[1]) else []
    changes += _figure_changes(left.figures, right.figures)
    return changes or [Change(found.part, "", found.text) for found in found.differences]


def _result(item: Placed) -> CellResult | None:
    return item.entry.result if isinstance(item.entry, Step | UserCell) else None


def _bare(text: str) -> str:
    return normalised(text, _measure().rules).strip()


@cache
def _measure() -> Measure:
    return Measure.shipped()


def _figure_changes(left: Sequence[str], right: Sequence[str]) -> Iterator[Change]:
    for number, (one, other) in enumerate(zip_longest(left, right, fillvalue=""), 1):
        if not one or not other:
            yield Change(f"figure {number}", _size(one), _size(other))
        elif one != other and (reason := _unlike(one, other)):
            was, now = _size(one), _size(other)
            yield Change(f"figure {number}", was, now if now != was else f"{now}: {reason}")


def _unlike(one: str, other: str) -> str:
    (mime, first), (other_mime, second) = _parts(one), _parts(other)
    if mime != other_mime:
        return "another kind of image"
    if mime == "image/svg+xml":
        texts = (base64.b64decode(data).decode(errors="replace") for data in (first, second))
        was, now = (normalised(text, _measure().rules) for text in texts)
        return "" if was == now else "another drawing"
    return image_difference(first, second)


def _size(url: str) -> str:
    if not url:
        return ""
    mime, data = _parts(url)
    size = figure_size({"output_type": "display_data", "data": {mime: data}})
    return f"{mime} {size[1]}×{size[2]}" if size and size[1] else mime


def _parts(url: str) -> tuple[str, str]:
    """The MIME type and the base64 text of a data URL."""
    head, _, data = url.partition(",")
    return head.removeprefix("data:").removesuffix(";base64"), data


def _fork(a: Transcript, b: Transcript) -> Fork | None:
    (parent, step), (other_parent, other_step) = _parent(a), _parent(b)
    if other_parent and other_parent == a.run_id:
        return Fork("right", other_step)
    if parent and parent == b.run_id:
        return Fork("left", step)
    if parent and parent == other_parent:
        return Fork("both", min(step, other_step))
    return None


def _parent(run: Transcript) -> tuple[str, int]:
    """The id of the run that this one was forked from, and the last step that they share."""
    match run.about.get("parent"):
        case {"run": str(name), "step": int(step)}:
            return name, step
    return "", 0
