"""Compares what a cell did with what it had done: the verdict, and what differs, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Literal

from kernel_agent.comparing.normalising import Rule, load_rules, normalised, without
from kernel_agent.comparing.parts import SVG, Part, Shown, shown
from kernel_agent.comparing.pixels import image_difference
from kernel_agent.comparing.text_drift import TOLERANCE, text_difference, texts_agree
from kernel_agent.steps import CellResult, CellStatus

Verdict = Literal[
    "same",
    "same after normalising",
    "nondeterministic",
    "differs",
    "new error",
    "error gone",
    "image differs",
    "not recorded",
    "not run",
]

MAX_ALIGNED = 500  # outputs of a cell; more are compared in pairs, as they come
MAX_SHOWN = 10  # differences of a cell


@dataclass(frozen=True)
class Measure:
    """What counts as a difference.

    Texts are compared after `rules` are applied, numbers in them with `tolerance`; what matches
    `ignored` is dropped. With `strict` texts must be equal as they are, but for what is ignored.
    """

    rules: tuple[Rule, ...] = ()
    ignored: tuple[re.Pattern[str], ...] = ()
    tolerance: float = TOLERANCE
    strict: bool = False

    @classmethod
    def shipped(cls) -> Measure:
        """The rules and the tolerance that hold unless the user says otherwise."""
        return cls(load_rules())


@dataclass(frozen=True)
class Difference:
    """What differs in `part` (`"stdout"`, `"error"`, a MIME type), as lines of text."""

    part: str
    text: str

    @property
    def is_of_image(self) -> bool:
        return self.part.startswith("image/")


@dataclass(frozen=True)
class Comparison:
    """How a cell's new result stands to its old one."""

    verdict: Verdict
    differences: tuple[Difference, ...] = ()


def compare(was: CellResult, now: CellResult, measure: Measure) -> Comparison:
    """Compare two results of one cell.

    The order of outputs counts. Of errors, type and message do; of a cell that was stopped both
    times, what it had printed until then; of one that ended the kernel both times, nothing more.
    """
    match status_of(was), status_of(now):
        case "died", "died":
            return Comparison("same")
        case "interrupted", "interrupted":
            equal = _outputs_equal(was, now, measure)
            return _verdict(_stopped_differences(was, now, measure), equal=equal)
        case before, after if before == after:
            equal = _outputs_equal(was, now, measure)
            return _verdict([] if equal else list(_differences(was, now, measure)), equal=equal)
        case "ok", _:
            return Comparison("new error", (Difference("error", f"+ {_ending(now)}"),))
        case _, "ok":
            return Comparison("error gone", (Difference("error", f"- {_ending(was)}"),))
    return Comparison("differs", (Difference("error", f"- {_ending(was)}\n+ {_ending(now)}"),))


def status_of(result: CellResult) -> CellStatus:
    """The result's status; that of a cell which a user stopped by hand is `"interrupted"`."""
    errors = (output for output in result.outputs if output["output_type"] == "error")
    stopped = any(error.get("ename") == "KeyboardInterrupt" for error in errors)
    return "interrupted" if result.status == "error" and stopped else result.status


def _verdict(differences: Sequence[Difference], *, equal: bool) -> Comparison:
    if not differences:
        return Comparison("same" if equal else "same after normalising")
    only_images = all(difference.is_of_image for difference in differences)
    verdict: Verdict = "image differs" if only_images else "differs"
    listed = tuple(differences[:MAX_SHOWN])
    if (more := len(differences) - MAX_SHOWN) > 0:
        listed = (*listed, Difference("outputs", f"… {more:,} more differences"))
    return Comparison(verdict, listed)


def _ending(result: CellResult) -> str:
    """How a cell ended that did not end well, in a line."""
    errors = [
        one for output in shown(result.outputs) if output.kind == "error" for one in output.parts
    ]
    said = [error.text.partition("\n")[0] for error in errors[-1:]]
    if result.status != "error":
        said = [{"died": "the kernel ended", "interrupted": "it was stopped"}[result.status]]
        said += [result.reason] if result.reason else []
    return ": ".join(said) or "an error"


def _outputs_equal(was: CellResult, now: CellResult, measure: Measure) -> bool:
    """Whether nothing had to be taken out to make them equal."""
    first, second = shown(was.outputs), shown(now.outputs)
    if not measure.strict:
        first, second = ([_without_details(one) for one in side] for side in (first, second))
    return first == second


def _without_details(output: Shown) -> Shown:
    return Shown(output.kind, tuple(Part(part.name, part.text) for part in output.parts))


def _differences(was: CellResult, now: CellResult, measure: Measure) -> Iterator[Difference]:
    for before, after in _pairs(shown(was.outputs), shown(now.outputs)):
        yield from _output_differences(before, after, measure)


def _pairs(was: list[Shown], now: list[Shown]) -> Iterator[tuple[Shown | None, Shown | None]]:
    """Outputs that answer each other; None for one that has no counterpart."""
    shapes = [output.shape for output in was], [output.shape for output in now]
    if shapes[0] == shapes[1] or max(len(was), len(now)) > MAX_ALIGNED:
        yield from zip_longest(was, now)
        return
    for tag, was_from, was_to, now_from, now_to in SequenceMatcher(
        None, *shapes, autojunk=False
    ).get_opcodes():
        before, after = was[was_from:was_to], now[now_from:now_to]
        if tag == "replace" and len(before) == len(after):
            yield from zip(before, after, strict=True)
            continue
        if tag == "equal":
            yield from zip(before, after, strict=True)
            continue
        yield from ((output, None) for output in before)
        yield from ((None, output) for output in after)


def _output_differences(
    was: Shown | None, now: Shown | None, measure: Measure
) -> Iterator[Difference]:
    forms = [{part.name: part for part in side.parts} if side else {} for side in (was, now)]
    before, after = forms
    text_differs = False
    for name in dict.fromkeys([*before, *after]):
        difference = _part_difference(before.get(name), after.get(name), measure)
        if difference is None:
            continue
        # The HTML of a table says what its text has just said.
        if text_differs and name == "text/html":
            continue
        text_differs = text_differs or name == "text/plain"
        yield difference


def _part_difference(was: Part | None, now: Part | None, measure: Measure) -> Difference | None:
    there = was or now
    assert there is not None
    if was is None or now is None:
        return _one_sided(was, now, measure)
    if there.is_image:
        text = image_difference(was.text, now.text)
        return Difference(there.name, text) if text else None
    before, after = _text(was, measure), _text(now, measure)
    tolerance = 0.0 if measure.strict else measure.tolerance
    if texts_agree(before, after, tolerance):
        return None
    text = text_difference(before, after, tolerance)
    if there.name == SVG:
        text = "the drawing differs\n" + text
    return Difference(there.name, text)


def _one_sided(was: Part | None, now: Part | None, measure: Measure) -> Difference | None:
    there = was or now
    assert there is not None
    which = "was there then, not now" if was else "is new"
    if there.is_image:
        return Difference(there.name, which)
    text = _text(there, measure)
    if not text.strip():
        return None
    difference = text_difference(text if was else "", "" if was else text, 0.0)
    return Difference(there.name, f"{which}\n{difference}")


def _text(part: Part, measure: Measure) -> str:
    if measure.strict:
        return without(part.text + (f"\n{part.details}" if part.details else ""), measure.ignored)
    # What is to be ignored is looked for in the text that the user has seen.
    return normalised(without(normalised(part.text, ()), measure.ignored), measure.rules)


def _stopped_differences(
    was: CellResult, now: CellResult, measure: Measure
) -> Sequence[Difference]:
    """What differs in the shorter one of two cells that were stopped, at other moments."""
    first, second = (
        [output for output in shown(result.outputs) if output.kind != "error"]
        for result in (was, now)
    )
    differences: list[Difference] = []
    for before, after in zip(first, second, strict=False):
        if before.kind == after.kind == "stream" and before.shape == after.shape:
            one, other = (_whole_lines(_text(side.parts[0], measure)) for side in (before, after))
            length = min(len(one), len(other))
            same = texts_agree(
                "\n".join(one[:length]), "\n".join(other[:length]), measure.tolerance
            )
            if not same:
                text = text_difference("\n".join(one), "\n".join(other), measure.tolerance)
                differences.append(Difference(before.parts[0].name, text))
        elif before.shape == after.shape:
            differences += _output_differences(before, after, measure)
    return differences


def _whole_lines(text: str) -> list[str]:
    """The lines but the last: it may have been cut, or be a progress bar on its way."""
    return text.rstrip("\n").split("\n")[:-1]
