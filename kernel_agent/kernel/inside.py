"""Runs inside the kernel: shipped there as text, it lives in a module of its own.

It needs IPython and nothing of ours. It gives the code `final_answer`, tells which variables a
cell has made or changed, gives previews of data files, and widens pandas' narrow display.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from IPython import get_ipython
from IPython.display import Markdown, publish_display_data

ANSWER_MIME = "application/vnd.kernel_agent.answer+json"
DATA_PACKAGES = (
    "numpy pandas polars pyarrow duckdb scipy sklearn statsmodels matplotlib seaborn plotly "
    "altair openpyxl xlrd requests bs4 lxml sympy networkx PIL torch xgboost lightgbm"
).split()
NOT_DATA = frozenset(["module", "type", "function", "builtin_function_or_method"])
MAX_NAMES = 200
# Characters of an answer in its message: other forms stand beside it, and there is room for 5
# million. What does not fit is left out there, and an answer must not be.
MAX_ANSWER = 1_000_000
MAX_ANSWER_TEXT = 100_000
MAX_LITERAL = 60


def final_answer(value: Any) -> None:
    """Gives the answer to the task. The value may be text (Markdown), a number, a table, …"""
    shown = Markdown(value) if isinstance(value, str) else value
    data, metadata = get_ipython().display_formatter.format(shown)
    if isinstance(value, str):
        data["text/plain"] = value
    publish_display_data({**data, ANSWER_MIME: _answer(value, data)}, metadata)


def _answer(value: Any, data: dict[str, Any]) -> dict[str, Any]:
    """The value as JSON; else encoded, or as the picture among its forms, and with its text."""
    plain = _plain(value)
    try:
        written = json.dumps(plain, allow_nan=False)
        # Equal after a round trip, or it is no JSON value: integer keys are not.
        if len(written) <= MAX_ANSWER and json.loads(written) == plain:
            return {"value": plain}
    except (TypeError, ValueError, RecursionError):
        pass
    text = str(data.get("text/plain", type(value).__name__))
    if len(text) > MAX_ANSWER_TEXT:
        text = f"{text[:MAX_ANSWER_TEXT]}\n… of {len(text):,} characters"
    if _is_picture(value) and len(data.get("image/png", "")) in range(1, MAX_ANSWER):
        return {"shown": "image/png", "text": text}
    encoded = _encoded(value)
    return {"text": text} if encoded is None else {"encoded": encoded, "text": text}


def carry(sources: dict[str, str], folder: str | None) -> bool:
    """Keep the `sources` of the codec, by module, until an answer needs it: it takes a while.

    Large values go into `folder`, where the host finds them.
    """
    _carried.update(sources=sources, folder=folder)
    return True


_carried: dict[str, Any] = {"sources": {}, "folder": None}


def _encoded(value: Any) -> Any:
    """`value` as the codec has it, None if it cannot be encoded or takes too much room."""
    folder = Path(_carried["folder"]) if _carried["folder"] else None
    if folder is not None and not folder.is_dir():
        folder = None
    if folder is None and sys.getsizeof(value) > 2 * MAX_ANSWER:
        return None
    try:
        for name, source in _carried["sources"].items():
            if name not in sys.modules:
                sys.modules[name] = ModuleType(name)
                exec(compile(source, name, "exec"), vars(sys.modules[name]))
        encoded = sys.modules["kernel_agent_border"].encode(value, folder=folder, name="answer")
        return encoded if len(json.dumps(encoded, allow_nan=False)) <= MAX_ANSWER else None
    except Exception:  # of whatever library: the text is an answer too
        return None


def _is_picture(value: Any) -> bool:
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(value).__mro__}
    return not kinds.isdisjoint([("PIL", "Image"), ("matplotlib", "Figure")])


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number that it stands for; anything else as it is."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(item) for item in value]
    return value


class Report:
    """A JSON value as the result of a user expression."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"application/json": self.value, "text/plain": ""}


_seen: dict[str, tuple[int, str]] = {}


def changes() -> dict[str, Any]:
    """The names that the cell has made or changed, each with a short summary."""
    now = {name: (id(value), summary(value)) for name, value in _variables()}
    changed = {name: both[1] for name, both in now.items() if _seen.get(name) != both}
    _seen.clear()
    _seen.update(now)
    names = dict(list(changed.items())[:MAX_NAMES])
    return {"changed": names, "shadowed": _unshadow(get_ipython())}


def names() -> list[str]:
    """The names of the user's variables."""
    return [name for name, _ in _variables()]


def _variables() -> list[tuple[str, Any]]:
    shell = get_ipython()
    return [
        (name, value)
        for name, value in list(shell.user_ns.items())
        if not name.startswith("_")
        and name not in shell.user_ns_hidden
        and type(value).__name__ not in NOT_DATA
    ]


def _unshadow(shell: Any) -> bool:
    """Give `final_answer` back if the code has put something else under its name."""
    if shell.user_ns.get("final_answer") is final_answer:
        return False
    shell.user_ns["final_answer"] = final_answer
    return True


def summary(value: Any) -> str:
    """What `value` is, in a few words, without running any code of its class."""
    kind = type(value)
    if kind in (bool, int, float, complex, type(None)):
        return _short(repr(value)) if kind is not int or value.bit_length() < 200 else "int"
    if kind is str:
        return _short(repr(value)) if len(value) <= MAX_LITERAL else f"str {len(value)}"
    if kind in (list, tuple, dict, set, frozenset, bytes, bytearray, range):
        return f"{kind.__name__} {len(value)}"
    module = (kind.__module__ or "").partition(".")[0]
    if module in ("pandas", "numpy", "polars"):
        return _shaped(value, kind)
    return kind.__name__


def _shaped(value: Any, kind: type) -> str:
    if kind.__name__ in ("DataFrame", "Series", "ndarray"):
        return f"{kind.__name__} {'×'.join(map(str, value.shape))}".rstrip()
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == ():
        return _short(repr(value.item()))
    return kind.__name__


def _short(text: str) -> str:
    return text if len(text) <= MAX_LITERAL else text[: MAX_LITERAL - 1] + "…"


def packages() -> dict[str, Any]:
    """The data packages that can be imported here, without importing them."""
    found = [name for name in DATA_PACKAGES if importlib.util.find_spec(name)]
    return {"python": sys.version.split()[0], "packages": found}


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls `act` with a module once it is imported, and costs nothing before."""

    def __init__(self, fullname: str, act: Callable[[Any], None]) -> None:
        self._fullname = fullname
        self._act = act

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._fullname:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenAct(spec.loader, self._act)
        return spec


class _ThenAct(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, act: Callable[[Any], None]) -> None:
        self._loader = loader
        self._act = act

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._act(module)


def widen(pandas: Any) -> None:
    """Widen pandas' narrow display."""
    for option, setting in {"display.width": 200, "display.max_columns": 50}.items():
        pandas.set_option(option, setting)


def install() -> None:
    shell = get_ipython()
    shell.user_ns["final_answer"] = final_answer
    shell.user_ns_hidden["final_answer"] = final_answer
    sys.meta_path.insert(0, AfterImport("pandas", widen))


install()
