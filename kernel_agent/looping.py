"""Whether a run goes in circles: the same code with the same result, and nothing new between."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kernel_agent.comparing.normalising import load_rules, normalised
from kernel_agent.steps import CellResult, Output, Step

TIMES = 3
"""How often a step may come to the same, with nothing new since, before the model is told."""


@dataclass(frozen=True)
class Repeats:
    """That the last step has come to the same as others before, and nothing is new since.

    `kind` says what repeats: a cell with an `error` (type and message), a cell with its `result`,
    a `reply` of which nothing could be run, or what was `refused`. `steps` are the numbers of
    these steps in the task, from 1. `was_told` says that the model was told before the last.
    """

    kind: Literal["error", "result", "reply", "refused"]
    steps: tuple[int, ...]
    error: str = ""
    was_told: bool = False

    @property
    def numbers(self) -> str:
        """The steps in words: `"1, 3 and 5"`."""
        *others, last = map(str, self.steps)
        return f"{', '.join(others)} and {last}"

    @property
    def reason(self) -> str:
        """Why the run ends with this, in a sentence."""
        what = {
            "error": f"ran the same code with the same error ({self.error})",
            "result": "ran the same code with the same result",
            "reply": "were the same reply, of which nothing could be run",
            "refused": "did the same, which was refused",
        }
        return f"Steps {self.numbers} {what[self.kind]}. The model was told, and did it again."


def repeats(steps: Sequence[Step]) -> Repeats | None:
    """How the last of a task's `steps` repeats earlier ones; None if it does not, or not enough.

    It does when the same has come `TIMES` times, without anything new from the first of these
    repetitions on: new is what has not been done before, or has changed variables. So A A A and
    A B A B A count, and A edit A edit A does not. Steps need no observation for this.
    """
    found: Repeats | None = None
    told: set[Hashable] = set()
    is_told = is_stale = False
    places: dict[Hashable, list[int]] = {}
    seen: set[Hashable] = set()
    for number, (mark, has_moved) in enumerate(_marks(steps), 1):
        is_new = has_moved or mark not in seen
        if has_moved or (is_new and is_stale):
            places.clear()
        if is_new:
            is_told = is_stale = False
        is_stale = is_stale or not is_new
        seen.add(mark)
        places.setdefault(mark, []).append(number)
        found = None
        if not is_new and len(places[mark]) >= TIMES:
            step = steps[number - 1]
            was_told = is_told or mark in told
            found = Repeats(_kind(step), tuple(places[mark]), _error(step), was_told)
            told.add(mark)
            is_told = True
    return found


def _kind(step: Step) -> Literal["error", "result", "reply", "refused"]:
    if step.refused:
        return "refused"
    if step.result is None:
        return "reply"
    return "error" if _error(step) else "result"


def _error(step: Step) -> str:
    """The error of a cell that raised, a line of it."""
    for output in reversed(step.result.outputs if step.result else ()):
        if output["output_type"] == "error" and step.result and step.result.status == "error":
            value = str(output.get("evalue", "")).strip().partition("\n")[0]
            return f"{output.get('ename', 'Error')}: {value}".removesuffix(": ")[:_MAX_ERROR]
    return ""


_MAX_ERROR = 200


def _marks(steps: Sequence[Step]) -> Iterator[tuple[Hashable, bool]]:
    """What is equal for steps that come to the same, and whether a step has changed variables."""
    said = [_said(step) for step in steps]
    often = Counter(said)
    known: set[str] = set()
    made: set[Hashable] = set()
    for step, key in zip(steps, said, strict=True):
        result = step.result
        # Only of code that comes again the outputs have to be read.
        mark = (key, _outcome(result)) if result and often[key] > 1 else key
        has_moved = result is not None and result.status == "ok" and _works_in_place(result, known)
        if result and result.variables and result.status in ("ok", "interrupted"):
            known |= result.variables.keys()
            values = (mark, *result.variables.items())
            has_moved = has_moved or values not in made or not _makes_anew(result, known)
            made.add(values)
        yield mark, has_moved


def _said(step: Step) -> Hashable:
    """What the model has done in a step: the code that ran, or what it said."""
    if step.result is not None:
        return ("cell", _canonical(step.result.source), step.result.status, step.refused)
    calls = tuple((call.name, call.arguments) for call in step.reply.calls)
    return ("reply", step.said.strip(), calls, step.refused)


@functools.lru_cache(maxsize=2_000)
def _canonical(source: str) -> str:
    """Code without comments and formatting; what is no Python (magics, other languages) as is."""
    tree = _tree(source)
    if tree is None:
        lines = (line.strip() for line in source.split("\n"))
        return "\n".join(line for line in lines if line and not line.startswith("#"))
    return ast.dump(tree)


def _tree(source: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _works_in_place(result: CellResult, known: set[str]) -> bool:
    """Whether a cell changes what no line of variables shows: a part of a value, an iterator.

    So does a method of a `known` variable that is called for nothing else: its cell shows nothing.
    """
    is_sure, names = _worked_on(result.source)
    return is_sure or (not result.outputs and not names.isdisjoint(known))


@functools.lru_cache(maxsize=2_000)
def _worked_on(source: str) -> tuple[bool, frozenset[str]]:
    """Whether code changes parts of values or moves iterators; whose methods it calls alone."""
    is_sure, names = False, set()
    tree = _tree(source)
    for node in ast.walk(tree) if tree else ():
        match node:
            case ast.AugAssign(target=ast.Subscript() | ast.Attribute()):
                is_sure = True
            case ast.Call(func=ast.Name("next")):
                is_sure = True
            case ast.Expr(ast.Call(ast.Attribute(value=ast.Name(name)))):
                names.add(name)
    return is_sure, frozenset(names)


def _makes_anew(result: CellResult, known: set[str]) -> bool:
    """Whether a cell makes all that it changed without having read a variable that was there.

    Such a cell, run again with the same outcome, leaves everything as it was.
    """
    tree = _tree(result.source)
    if tree is None:
        return False
    made: set[str] = set()
    for statement in tree.body:
        bound: set[str] = set()
        read: set[str] = set()
        stored: set[str] = set()
        for node in ast.walk(statement):
            match node:
                case ast.For(target=target) | ast.AsyncFor(target=target):
                    bound |= _names(target)
                case ast.comprehension(target=target):
                    bound |= _names(target)
                case ast.withitem(optional_vars=ast.expr() as target):
                    bound |= _names(target)
                case ast.AugAssign(target=target):
                    read |= _names(target)
                case ast.Name(id=name, ctx=ast.Load()):
                    read.add(name)
                case ast.Name(id=name):
                    stored.add(name)
        if (read & known) - made - bound:
            return False
        made |= stored
    return result.variables.keys() <= made


def _names(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def _outcome(result: CellResult) -> Hashable:
    """The error of a cell, or its outputs, without what is noise in them."""
    if result.status == "died":
        return result.status
    if errors := [one for one in result.outputs if one["output_type"] == "error"]:
        return (errors[-1].get("ename"), _quiet(str(errors[-1].get("evalue", "")), result))
    # What a function of the host gave tells of a state that no variable shows.
    calls = repr([(call.name, call.result, call.error) for call in result.tool_calls])
    return (*(_shown(output, result) for output in result.outputs), calls)


def _shown(output: Output, result: CellResult) -> Hashable:
    if output["output_type"] == "stream":
        return (output.get("name"), _quiet(str(output.get("text", "")), result))
    data = output.get("data", {})
    return tuple((mime, _quiet(str(value), result)) for mime, value in sorted(data.items()))


_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,16}\b")
_CLOCK = re.compile(r"(?<![\d:])\d{1,2}:(\d\d):(\d\d)(?:[.,]\d+)?(?![\d:])")
_EPOCH = re.compile(r"(?<![\w.])1\d{9}(?:\.\d+)?(?![\w.])")
_DURATION = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?(ns|us|µs|μs|ms|s|secs?|seconds?)\b")
_UNITS = {"n": 1e-9, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "m": 1e-3, "s": 1.0}
_QUARTER = 900  # seconds: no time zone is a smaller part of an hour away
_SLACK = 2.0  # seconds between two clocks
_READ = 20_000  # characters of an output that the noise is taken out of


def _quiet(text: str, result: CellResult) -> str:
    """`text` without addresses in memory and without the times of its cell's run.

    A clock's time counts as such only while the cell ran, a duration only up to the cell's own:
    others may be data, and new.
    """

    def is_now(seconds: float, cycle: float) -> bool:
        return (seconds - result.started + _SLACK) % cycle <= result.seconds + 2 * _SLACK

    def clock(found: re.Match[str]) -> str:
        return "…" if is_now(int(found[1]) * 60 + int(found[2]), _QUARTER) else found[0]

    def epoch(found: re.Match[str]) -> str:
        return "…" if is_now(float(found[0]), 1e10) else found[0]

    def duration(found: re.Match[str]) -> str:
        return "…" if float(found[1]) * _UNITS[found[2][0]] <= result.seconds else found[0]

    if len(text) > _READ:
        return text
    text = _ADDRESS.sub("0x…", normalised(text, _rules()))
    if not result.started:
        return text
    return _DURATION.sub(duration, _EPOCH.sub(epoch, _CLOCK.sub(clock, text)))


_rules = functools.cache(load_rules)
