"""Gives the user's values to the kernel: as source that makes them, and files that it reads."""

from __future__ import annotations

import ast
import keyword
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_agent.errors import DataError

MAX_LITERAL = 2_000
"""Longest value, in characters of its `repr`, that stands in the source itself."""

ALLOWED = (
    "a pandas DataFrame or Series, a numpy array, a Path, or None, bool, int, float, str, bytes, "
    "list, tuple, dict and set of these"
)


@dataclass(frozen=True)
class Given:
    """Values on their way to the kernel: `source` makes the variables, from `files` if needed."""

    source: str = ""
    files: tuple[Path, ...] = ()


def check_names(data: Mapping[str, Any]) -> None:
    """Refuse names that are no variable's and values that cannot be given, before any is written.

    Raises DataError, which names the first of them.
    """
    for name, value in data.items():
        if not (isinstance(name, str) and name.isidentifier()) or keyword.iskeyword(name):
            raise DataError(str(name), "this cannot be the name of a variable.")
        if name == "final_answer":
            raise DataError(name, "this name is the function's that gives the answer.")
        if _form(value) is None:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise DataError(name, f"a {kind} cannot be given to the kernel. Allowed: {ALLOWED}.")


def give(data: Mapping[str, Any], *, folder: Path, cwd: Path) -> Given:
    """Source that makes each value of `data` a variable of the kernel.

    Small plain values stand in the source; others are written into `folder` (made if needed) in
    open formats without pickle: Parquet, npy, and Python literals as text. The source names the
    files relative to `cwd`, the folder that the kernel works in.

    Raises DataError if a value cannot be written, say because pyarrow is missing.
    """
    check_names(data)
    lines: list[str] = []
    files: list[Path] = []
    for name, value in data.items():
        form = _form(value)
        if form == "literal" and len(text := repr(value)) <= MAX_LITERAL:
            lines.append(f"{name} = {text}")
            continue
        if form == "path":
            lines += ["import pathlib", f"{name} = pathlib.Path({str(value)!r})"]
            continue
        file = folder / f"{name}.{_SUFFIX[str(form)]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(value, str(form), file)
        except Exception as error:
            raise DataError(name, f"cannot be written to {str(file)!r}: {error}") from error
        files.append(file)
        path = Path(os.path.relpath(file, cwd)).as_posix()
        label = getattr(value, "name", None)
        lines += _READ[str(form)].format(name=name, path=path, label=label).splitlines()
    return Given("\n".join(dict.fromkeys(lines)), tuple(files))


_SUFFIX = {"frame": "parquet", "series": "parquet", "array": "npy", "literal": "txt"}

_READ = {
    "frame": "import pandas as pd\n{name} = pd.read_parquet({path!r})",
    "series": (
        "import pandas as pd\n{name} = pd.read_parquet({path!r}).iloc[:, 0].rename({label!r})"
    ),
    "array": "import numpy as np\n{name} = np.load({path!r}, allow_pickle=False)",
    "literal": (
        "import ast, pathlib\n"
        "{name} = ast.literal_eval(pathlib.Path({path!r}).read_text(encoding='utf-8'))"
    ),
}


def _form(value: Any) -> str | None:
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    match root, kind.__name__:
        case "pandas", "DataFrame":
            return "frame"
        case "pandas", "Series":
            return "series"
        case "numpy", "ndarray":
            return None if value.dtype.hasobject else "array"
    if isinstance(value, Path):
        return "path"
    return "literal" if _is_literal(value) else None


def _is_literal(value: Any) -> bool:
    """Whether `repr` gives a literal that stands for the very same value."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _write(value: Any, form: str, file: Path) -> None:
    match form:
        case "frame":
            value.to_parquet(file)
        case "series":
            value.to_frame("value").to_parquet(file)
        case "array":
            import numpy  # noqa: PLC0415 - the caller has it, since the value is one

            with file.open("wb") as out:
                numpy.save(out, value, allow_pickle=False)
        case _:
            file.write_text(repr(value), encoding="utf-8")
