"""Runs inside the kernel: stores variables as pickles, what has not changed since last time once.

Shipped as text after `snapshot_folder` and `snapshot_pickling`.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

from IPython import get_ipython

if TYPE_CHECKING:
    from kernel_agent.kernel.snapshot_folder import ENTRY, Entry, Folder, Sink, TooLarge, TooSlow
    from kernel_agent.kernel.snapshot_pickling import CACHED, NAMESPACE, find_pickler, reason
else:
    from kernel_agent_snapshot_folder import ENTRY, Folder, TooLarge, TooSlow
    from kernel_agent_snapshot_pickling import CACHED, NAMESPACE, find_pickler, reason

SECONDS = 60.0  # for a whole snapshot; what was not stored until then is skipped
NEW = {"bytes": 0}
RETRY_SECONDS = 1200.0  # a variable that used them up is left alone for so long
ATOMS = frozenset(
    [int, float, complex, bool, str, bytes, range, type(None), type(...), type(NotImplemented)]
)


class Known:
    """What this kernel remembers of the folder that it used last.

    `last` are the entries by the names they hold, `frozen` values that cannot have changed while
    they are the same objects, `slow` when (monotonic) a variable that took too long may try again.
    """

    def __init__(self, path: str) -> None:
        self.folder = Folder(path)
        self.last: dict[tuple[str, ...], Entry] = {}
        self.frozen: dict[str, Any] = {}
        self.slow: dict[str, float] = {}


class Saving:
    """One snapshot on its way: `entries` by variable, and the reasons of what is `skipped`.

    `aliases` names for each variable the first one that is the same object: that one is stored.
    """

    def __init__(self, known: Known, values: dict[str, Any], *, room: int) -> None:
        self.entries: dict[str, Entry] = {}
        self.skipped: dict[str, str] = {}
        self._known = known
        self._room = self._bound = room
        self._deadline = time.monotonic() + SECONDS
        self._needs: dict[str, set[str]] = {}
        self._namespace = get_ipython().user_ns
        self.pickler, self._pickler = find_pickler(self._namespace)
        first = {id(value): name for name, value in reversed(values.items())}
        self.aliases = {name: first[id(value)] for name, value in values.items()}
        self._values = {name: values[name] for name in dict.fromkeys(self.aliases.values())}
        self._shared = {
            id(value): name
            for name, value in self._values.items()
            if known.frozen.get(name, self) is not value and _has_identity(value)
        }
        self._shared[id(self._namespace)] = NAMESPACE

    def run(self) -> None:
        """Small ones first: what is large or slow must not keep them out."""
        last = self._known.last
        circles = [names for names in last if len(names) > 1 and self._values.keys() >= {*names}]
        inside = {name for names in circles for name in names}
        alone = [(name,) for name in self._values if name not in inside]
        for names in sorted([*circles, *alone], key=lambda names: last.get(names, NEW)["bytes"]):
            self._keep(names)
            if len(names) > 1 and names[0] in self.skipped:
                for name in names:
                    del self.skipped[name]
                    self._keep((name,))
        for names in self._circles():
            if names not in circles:
                self._room += sum(map(_cost, self._entries(names)))
                self._keep(names)
        self._skip_what_needs_skipped()
        entries = {tuple(entry["names"]): entry for entry in self.entries.values()}
        self._known.last = entries
        frozen = [name for name in self.entries if id(self._values[name]) not in self._shared]
        self._known.frozen = {name: self._values[name] for name in frozen}

    def pickles(self) -> list[Entry]:
        """The entries in the order of the variables, each with the `names` that it holds."""
        return self._entries(self._values)

    def keep_aside(self, value: Any) -> Entry | None:
        """The entry of a value that is no variable; None if there is no room for it."""
        try:
            return self._stored(lambda sink: pickle.Pickler(sink, 5).dump(value), known=None)
        except (TooLarge, TooSlow):
            return None

    def _entries(self, names: Iterable[str]) -> list[Entry]:
        found = [self.entries[name] for name in names if name in self.entries]
        return list({id(entry): entry for entry in found}.values())

    def _keep(self, names: tuple[str, ...]) -> None:
        """Store variables in one pickle, or skip them."""
        began = time.monotonic()
        try:
            if began > self._deadline or began < self._known.slow.get(names[0], 0.0):
                raise TooSlow
            entry, needs = self._entry(names)
            entry = {**entry, "names": list(names)}
            self.entries |= dict.fromkeys(names, entry)
            needs -= {NAMESPACE}
            self._needs |= dict.fromkeys(names, needs if len(names) == 1 else needs | {*names})
        except (Exception, SystemExit) as error:
            for name in names:
                self.entries.pop(name, None)
                self.skipped[name] = self._why(error)
        finally:
            if began < self._deadline < time.monotonic():
                self._known.slow[names[0]] = time.monotonic() + RETRY_SECONDS

    def _entry(self, names: tuple[str, ...]) -> tuple[Entry, set[str]]:
        """The entry of the pickle of variables, and the names of others that it refers to."""
        values = tuple(self._values[name] for name in names)
        last, needs = self._known.last.get(names), set[str]()
        if last and self._known.frozen.get(names[0], self) is values[0] and self._fits(last):
            return last, needs
        if values[0] is self._namespace:
            raise ValueError("It is the namespace of all variables.")
        own = {id(value): self._shared.pop(id(value), None) for value in values}
        try:
            entry = self._stored(self._dump(values, needs), known=last["hash"] if last else None)
        finally:
            self._shared |= {each: name for each, name in own.items() if name is not None}
        if any(map(_is_code, values)):
            entry["code"] = True
        return entry, needs

    def _dump(self, values: tuple[Any, ...], needs: set[str]) -> Callable[[Sink], None]:
        shared = self._shared

        def refer(value: Any) -> str | None:
            name = shared.get(id(value))
            if name is not None:
                needs.add(name)
            return name

        return lambda sink: self._pickler(sink, refer).dump(values)

    def _stored(self, dump: Callable[[Sink], None], *, known: str | None) -> Entry:
        room = self._room - ENTRY
        entry = self._known.folder.keep(dump, known=known, room=room, deadline=self._deadline)
        self._room -= _cost(entry)
        return entry

    def _fits(self, entry: Entry) -> bool:
        fits = _cost(entry) <= self._room and self._known.folder.has(entry)
        self._room -= _cost(entry) if fits else 0
        return fits

    def _circles(self) -> list[tuple[str, ...]]:
        """Variables that refer to each other in a circle: only one pickle can hold them."""
        reach = {name: self._reached(name) for name, needs in self._needs.items() if needs}
        circles = dict[tuple[str, ...], None]()
        for name, reached in reach.items():
            if name in reached:
                circle = {other for other in reached if name in reach.get(other, ())}
                circles[tuple(other for other in self._values if other in circle)] = None
        return list(circles)

    def _reached(self, name: str) -> set[str]:
        reached, new = set[str](), {name}
        while new:
            new = {need for one in new for need in self._needs.get(one, ())} - reached
            reached |= new
        return reached

    def _skip_what_needs_skipped(self) -> None:
        waiting = True
        while waiting:
            waiting = False
            for name in list(self.entries):
                if needed := next((n for n in self._needs[name] if n not in self.entries), None):
                    self.skipped[name] = f"It refers to {needed!r}, which is not stored."
                    del self.entries[name]
                    waiting = True

    def _why(self, error: BaseException) -> str:
        if isinstance(error, TooLarge):
            return f"It does not fit into the {self._bound / 1e6:,.1f} MB of all snapshots."
        if isinstance(error, TooSlow):
            return f"It was not pickled within the {SECONDS:g} s of a snapshot."
        return reason(error)


def _cost(entry: Entry) -> int:
    return int(len(entry["data"]) if "data" in entry else entry["bytes"]) + ENTRY


def _has_identity(value: Any) -> bool:
    """Whether it makes a difference that two variables hold the same object, and not an equal."""
    if _is_code(value):
        return getattr(value, "__module__", None) == "__main__"
    return not _is_frozen(value)


def _is_frozen(value: Any) -> bool:
    """Whether `value` can never change, nor anything in it."""
    kind = type(value)
    return kind in ATOMS or (kind in (tuple, frozenset) and all(map(_is_frozen, value)))


def _is_code(value: Any) -> bool:
    kind = type(value)
    return kind in (FunctionType, BuiltinFunctionType, CACHED) or issubclass(kind, type)
