"""Answers the calls of tools from the record, when recorded cells are executed again."""

from __future__ import annotations

import builtins
import difflib
import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel_agent.call_files import LeftOutError, as_it_was, comparable, provide
from kernel_agent.errors import ReplayMismatchError
from kernel_agent.steps import ToolCall

CANCELLED = "Cancelled:"
"""How the error of a call begins that was waiting when its cell was stopped."""

SPARE_SECONDS = 1.0  # that a call waits longer than it did which had no answer at the time
_LONGEST = 3_600.0
_SHOWN = 60  # characters of a value in a message
_MOST_DIFFERENCES = 3

ServeCall = Callable[[str, Mapping[str, Any]], Any]
"""Answers a call of a tool: gets its name and its encoded arguments."""


class RecordedCalls:
    """The calls that the cells of a transcript have made, to be answered as they were.

    `cells` are the cells' names (`"step-3"`) with their calls, `path` is the notebook, for
    messages; `sidecar` the folder beside it with the values that are too large for it.
    """

    def __init__(
        self,
        cells: Iterable[tuple[str, Sequence[ToolCall]]],
        *,
        path: str | Path,
        sidecar: Path | None = None,
    ) -> None:
        self._cells = {name: tuple(calls) for name, calls in cells}
        self._path = Path(path)
        self._sidecar = sidecar
        self._mismatches: list[ReplayMismatchError] = []
        self._over = threading.Event()

    @property
    def mismatches(self) -> tuple[ReplayMismatchError, ...]:
        """The calls so far that the record does not have; code may have caught the errors."""
        return tuple(self._mismatches)

    def serve_for(self, cell: str, *, folder: Path | None) -> ServeCall:
        """What answers the calls of one execution of `cell`, in any threads.

        Each recorded call answers one call with its name and arguments, the earlier ones first.
        Large values lie in `folder` as files. Recorded errors are raised again, with the type's
        name and the message; a call that had no answer when its cell was stopped waits as long.
        That ends when the next cell is served, or with `close`.

        The function raises ReplayMismatchError for a call that is not in the record.
        """
        self.close()
        self._over = threading.Event()
        calls = _Cell(self._cells.get(cell, ()), self._sidecar, self._over)

        def serve(name: str, arguments: Mapping[str, Any]) -> Any:
            try:
                return calls.answer(name, arguments, folder)
            except _Mismatch as mismatch:
                error = ReplayMismatchError(self._path.name, cell, str(mismatch))
                self._mismatches.append(error)
                raise error from None

        return serve

    def close(self) -> None:
        """Let no call wait any longer."""
        self._over.set()


class _Mismatch(Exception):
    """What differs between a call and the record, as a sentence."""


class _Cell:
    """The recorded calls of one cell that have not been answered yet."""

    def __init__(
        self, calls: tuple[ToolCall, ...], sidecar: Path | None, over: threading.Event
    ) -> None:
        self._calls = calls
        self._texts = [_text(as_it_was(dict(call.arguments))) for call in calls]
        self._left = list(range(len(calls)))
        self._sidecar = sidecar
        self._over = over
        self._lock = threading.Lock()

    def answer(self, name: str, arguments: Mapping[str, Any], folder: Path | None) -> Any:
        """The recorded result of this call; raises the recorded error."""
        with self._lock:
            call = self._taken(name, arguments, folder)
        if call.error.startswith(CANCELLED):
            self._over.wait(min(call.seconds, _LONGEST) + SPARE_SECONDS)
        if call.error:
            raise recorded_error(call.error)
        try:
            return provide(call.result, sidecar=self._sidecar, folder=folder)
        except LeftOutError as error:
            shown = _shown_call(name, comparable(dict(arguments), folder))
            raise _Mismatch(f"{shown} has no recorded result: {error.reason}") from error

    def _taken(self, name: str, arguments: Mapping[str, Any], folder: Path | None) -> ToolCall:
        same = [number for number in self._left if self._calls[number].name == name]
        text = _text(dict(arguments))
        for number in same:
            if self._texts[number] == text:
                return self._take(number)
        now = comparable(dict(arguments), folder)  # a part may lie in a file here, not there
        text = _text(now)
        for number in same:
            if _text(self._recorded(number)) == text:
                return self._take(number)
        raise _Mismatch(self._difference(name, now))

    def _take(self, number: int) -> ToolCall:
        self._left.remove(number)
        return self._calls[number]

    def _recorded(self, number: int) -> Any:
        return comparable(dict(self._calls[number].arguments), self._sidecar)

    def _difference(self, name: str, now: Mapping[str, Any]) -> str:
        """What differs from the recorded call that is nearest to this one."""
        shown = _shown_call(name, now)
        if not self._calls:
            return f"{shown} is called, but the record has no call in this cell."
        same = [number for number in self._left if self._calls[number].name == name]
        if not self._left or (not same and any(one.name == name for one in self._calls)):
            count = sum(one.name == name for one in self._calls)
            return f"{shown} is one call more than the {count} of {name!r} that are recorded."
        number = max(same or self._left, key=lambda one: self._nearness(one, name, now))
        call, was = self._calls[number], self._recorded(number)
        where = f"call {number + 1} of {len(self._calls)}"
        nearest = f"The nearest recorded one ({where}) is {_shown_call(call.name, was)}."
        differences = "\n".join(_differences(was, now)) if call.name == name else ""
        return "\n".join(filter(None, [f"{shown} is not in the record. {nearest}", differences]))

    def _nearness(self, number: int, name: str, now: Mapping[str, Any]) -> float:
        was, is_now = _text(self._recorded(number))[:2_000], _text(now)[:2_000]
        likeness = difflib.SequenceMatcher(None, was, is_now, autojunk=False).quick_ratio()
        return (self._calls[number].name == name) + likeness


def recorded_error(error: str) -> Exception:
    """The exception that a record has as `"ValueError: what it said"`.

    Its type has the same name and, if that is a builtin one's, is a subclass of it.
    """
    name, _, message = error.partition(":")
    if not name.isidentifier():
        name, message = "Exception", f" {error}"
    message = message.removeprefix(" ")
    builtin = getattr(builtins, name, None)
    is_builtin = isinstance(builtin, type) and issubclass(builtin, Exception)
    # A group wants the exceptions in it, which no record has.
    kind: Any = builtin if is_builtin and builtin is not ExceptionGroup else Exception

    def say(self: Exception) -> str:
        return message

    # Messages stay as they are: str(KeyError("x")) puts quotes around them.
    methods = {"__str__": say, "__init__": lambda self, *args: None}
    raised: Exception = type(name, (kind,), methods)(message)
    return raised


def _differences(was: Any, now: Any) -> Iterator[str]:
    """Lines for the first places in which the arguments of two calls differ."""
    found = list(_unequal(was, now))
    for place, old, new in found[:_MOST_DIFFERENCES]:
        yield f"  {place}: was {_around(old, new)}, is {_around(new, old)}"
    if len(found) > _MOST_DIFFERENCES:
        yield f"  and {len(found) - _MOST_DIFFERENCES} more differences"


_NOTHING = object()


def _unequal(was: Any, now: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    match was, now:
        case dict(), dict():
            for key in [*was, *(key for key in now if key not in was)]:
                inside = f"{place}[{key!r}]" if place else key
                yield from _unequal(was.get(key, _NOTHING), now.get(key, _NOTHING), inside)
        case list(), list():
            pairs = itertools.zip_longest(was, now, fillvalue=_NOTHING)
            for n, (old, new) in enumerate(pairs):
                yield from _unequal(old, new, f"{place}[{n}]")
        case _ if was != now or isinstance(was, bool) != isinstance(now, bool):
            yield place, was, now


def _around(value: Any, other: Any) -> str:
    """`value` as text, of a long one the part where it begins to differ from `other`."""
    if value is _NOTHING:
        return "nothing"
    text, compared = _text(value), _text(other) if other is not _NOTHING else ""
    if len(text) <= _SHOWN:
        return text
    pairs = enumerate(zip(text, compared, strict=False))
    first = next((n for n, (a, b) in pairs if a != b), min(len(text), len(compared)))
    start = max(0, first - _SHOWN // 2)
    end = start + _SHOWN
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _shown_call(name: str, arguments: Mapping[str, Any]) -> str:
    given = [_clipped(_text(one)) for one in arguments.get("args", ())]
    named = arguments.get("kwargs", {})
    given += [f"{key}={_clipped(_text(one))}" for key, one in named.items()]
    return f"{name}({', '.join(given)})"


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=repr)
