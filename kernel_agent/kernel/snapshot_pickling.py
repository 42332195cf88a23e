"""Runs inside the kernel: which picklers there are, and what is special about a notebook's code.

Shipped as text before `snapshot`; it needs the standard library, and takes cloudpickle or dill if
one of them is installed.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

IN_NOTEBOOK = "It is defined in the notebook: to store it, `pip install cloudpickle`."
NAMESPACE = ""  # stands for the namespace in a pickle, as a name does for that variable
MAX_REASON = 200
CACHED = type(functools.lru_cache(print))

Refer = Callable[[Any], "str | None"]
"""The name by which a pickle refers to an object, None for what it holds itself."""


def find_pickler(namespace: dict[str, Any]) -> tuple[str, Callable[[Any, Refer], Any]]:
    """The best pickler there is: its name, and what makes one for a sink."""
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ImportError:
        pass
    else:
        parts = {"namespace": namespace}
        kind: Any = type("Pickler", (CloudRules, cloudpickle.Pickler), parts)
        return f"cloudpickle {cloudpickle.__version__}", kind
    try:
        dill = importlib.import_module("dill")
    except ImportError:
        return "pickle", type("Pickler", (PlainRules, pickle.Pickler), {})

    def make(sink: Any, refer: Refer) -> Any:
        pickler = dill.Pickler(sink, protocol=5)
        # No class of our own: dill does not treat one as its own pickler.
        pickler.persistent_id = lambda value: refer(_not_open(value))
        return pickler

    return f"dill {dill.__version__}", make


class Rules:
    """Before a pickler class: variables that are met inside another one become references."""

    def __init__(self, sink: Any, refer: Refer) -> None:
        self.refer = refer
        super().__init__(sink, protocol=5)  # type: ignore[call-arg]

    def persistent_id(self, value: Any) -> str | None:
        return self.refer(value)


class CloudRules(Rules):
    """Before cloudpickle's: functions get the live namespace and not a copy of what they use."""

    namespace: dict[str, Any]

    def reducer_override(self, value: Any) -> Any:
        kind = type(_not_open(value))
        if kind is CACHED and value.__module__ == "__main__":
            return _cached, (value.__wrapped__, value.cache_parameters())
        reduced = super().reducer_override(value)  # type: ignore[misc]
        if kind is not FunctionType or value.__globals__ is not self.namespace:
            return reduced
        if reduced is NotImplemented:
            return reduced
        make, (code, _, *rest), (attributes, slots), *others = reduced
        slots = {**slots, "__globals__": {}}
        return make, (code, self.namespace, *rest), (attributes, slots), *others


class PlainRules(Rules):
    """Before the standard pickler: it would store the notebook's own code by its name alone."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        is_code = kind in (FunctionType, CACHED) or issubclass(kind, type)
        if is_code and getattr(value, "__module__", None) == "__main__":
            raise ValueError(IN_NOTEBOOK)
        return NotImplemented


def _not_open(value: Any) -> Any:
    """`value`, unless it is a file: cloudpickle and dill would store what stands in it."""
    kind = type(value)
    if issubclass(kind, io.IOBase) and kind not in (io.StringIO, io.BytesIO):
        raise TypeError("cannot pickle an open file")
    return value


def _cached(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


class Unpickler(pickle.Unpickler):
    """Takes references to variables from `load`."""

    def __init__(self, file: Any, load: Callable[[str], Any]) -> None:
        super().__init__(file)
        self._value = load

    def persistent_load(self, name: Any) -> Any:
        return self._value(name)


def versions(modules: Iterable[str], values: Iterable[Any]) -> dict[str, str]:
    names = {*modules, *(str(type(value).__module__) for value in values)}
    roots = {name.partition(".")[0] for name in names}
    found = {root: vars(sys.modules[root]).get("__version__") for root in roots & {*sys.modules}}
    return {root: version for root, version in sorted(found.items()) if isinstance(version, str)}


def reason(error: BaseException) -> str:
    """An exception in a line."""
    try:
        said = str(error).partition("\n")[0][:MAX_REASON]
    except Exception:
        said = ""
    return said if type(error) is ValueError else f"{type(error).__name__}: {said}".rstrip(": ")
