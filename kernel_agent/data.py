"""Gives the user's values to the kernel: as source that makes them, and files that it reads."""

from __future__ import annotations

import json
import keyword
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_agent import literals
from kernel_agent.arrow_files import (
    UnfitTableError,
    write_arrow,
    write_frame,
    write_polars,
    write_series,
)
from kernel_agent.errors import DataError

MAX_LITERAL = 2_000
"""Longest source of a value, in characters, that stands in a cell if a file can hold the value."""

MAX_SOURCE = 100_000
"""Longest source of a value that no file can hold."""

ALLOWED = (
    "a pandas or polars DataFrame or Series, a pyarrow Table, a numpy array, a PIL image, "
    f"a matplotlib figure, or {literals.ALLOWED}"
)
PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")

Write = Callable[[Any, Path], list[str]]
"""Writes a value into a file; returns the lines that read it into `{name}` from `{path!r}`."""


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
        if _library_form(value) is None:
            _plain(name, value)
        elif reason := _refusal(value):
            raise DataError(name, reason)


def give(data: Mapping[str, Any], *, folder: Path, cwd: Path) -> Given:
    """Source that makes each value of `data` a variable of the kernel.

    Small plain values stand in the source; others are written into `folder` (made if needed) in
    open formats without pickle: Arrow (Feather), npy, PNG, JSON, and text. The source names the
    files relative to `cwd`, the folder that the kernel works in.

    Raises DataError if a value cannot be written, say because pyarrow is missing.
    """
    check_names(data)
    given = [_given(name, value, folder=folder, cwd=cwd) for name, value in data.items()]
    lines = dict.fromkeys(line for _, made, _ in given for line in made)
    imports = [line for line in lines if _is_import(line)]
    # A variable with the name of a module that others need (`datetime`) takes it in the end.
    modules = {line.split()[-1].partition(".")[0] for line in imports}
    given.sort(key=lambda one: one[0] in modules)
    makers = [line for _, made, _ in given for line in made if not _is_import(line)]
    return Given("\n".join([*imports, *makers]), tuple(file for *_, file in given if file))


def _given(name: str, value: Any, *, folder: Path, cwd: Path) -> tuple[str, list[str], Path | None]:
    """The name, the lines that make the variable, and the file that they read, if any."""
    form = _library_form(value)
    if form is None:
        made = _plain(name, value)
        text = literals.source(made.value)
        form = _plain_form(made) if len(text) > MAX_LITERAL else None
        if form is None:
            if len(text) > MAX_SOURCE:
                reason = f"its source has {len(text):,} characters. A DataFrame can be that long."
                raise DataError(name, reason)
            return name, [*made.imports, f"{name} = {text}"], None
        value = made.value
    suffix, write = form
    file = folder / f"{name}.{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = write(value, file)
    except UnfitTableError as error:
        raise DataError(name, str(error)) from error
    except Exception as error:
        raise DataError(name, f"cannot be written to {str(file)!r}: {error}") from error
    path = Path(os.path.relpath(file, cwd)).as_posix()
    return name, [line.format(name=name, path=path) for line in lines], file


def _is_import(line: str) -> bool:
    return line.startswith(("import ", "from "))


def _plain(name: str, value: Any) -> literals.Plain:
    try:
        return literals.plain(value)
    except literals.NoSourceError as error:
        which = f"{name}{error.where} is {error.what}, which" if error.where else error.what
        hint = error.hint or f"Allowed: {ALLOWED}."
        raise DataError(name, f"{which} cannot be given to the kernel. {hint}") from None


def _plain_form(made: literals.Plain) -> tuple[str, Write] | None:
    """How a long plain value is written; None if it can only stand in the source."""
    if isinstance(made.value, bytes):
        return "bin", _write_bytes
    if isinstance(made.value, str) and not _is_odd(made.value):
        return "txt", _write_text
    if made.is_json:
        return "json", _write_json
    return ("txt", _write_literal) if made.is_literal else None


def _is_odd(text: str) -> bool:
    """Whether UTF-8 cannot hold `text`: it has half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _library_form(value: Any) -> tuple[str, Write] | None:
    """The suffix and the writer of a value of a library; None if it is of none of those."""
    for kind in type(value).__mro__:
        library = kind.__module__.partition(".")[0]
        if form := _FORMS.get((library, kind.__name__)):
            return form
    return None


def _refusal(value: Any) -> str:
    """Why an array or an image cannot be written, before that is tried; empty if it can."""
    if hasattr(value, "mask") and hasattr(value, "filled"):
        return "it is a masked array. .filled(...) makes it an ordinary one."
    if getattr(getattr(value, "dtype", None), "hasobject", False) and hasattr(value, "tobytes"):
        return "it is an array of Python objects. .tolist() makes a list of it."
    if getattr(value, "mode", "") == "F":
        return "PNG holds no pixels of mode 'F'. numpy.asarray(...) makes an array of it."
    return ""


def _write_bytes(value: bytes, file: Path) -> list[str]:
    file.write_bytes(value)
    return ["import pathlib", "{name} = pathlib.Path({path!r}).read_bytes()"]


def _write_text(value: str, file: Path) -> list[str]:
    file.write_bytes(value.encode())  # the ends of its lines stay what they are
    return ["import pathlib", "{name} = pathlib.Path({path!r}).read_bytes().decode()"]


def _write_json(value: Any, file: Path) -> list[str]:
    file.write_text(json.dumps(value), encoding="utf-8")
    read = "{name} = json.loads(pathlib.Path({path!r}).read_text(encoding='utf-8'))"
    return ["import json", "import pathlib", read]


def _write_literal(value: Any, file: Path) -> list[str]:
    file.write_text(literals.source(value), encoding="utf-8")
    read = "{name} = ast.literal_eval(pathlib.Path({path!r}).read_text(encoding='utf-8'))"
    return ["import ast", "import pathlib", read]


def _write_array(value: Any, file: Path) -> list[str]:
    import numpy  # noqa: PLC0415 - the caller has it, since the value is one

    with file.open("wb") as out:
        numpy.save(out, numpy.asarray(value), allow_pickle=False)
    return ["import numpy as np", "{name} = np.load({path!r}, allow_pickle=False)"]


def _write_image(value: Any, file: Path) -> list[str]:
    if value.mode not in PNG_MODES:
        value = value.convert("RGBA" if value.mode in ("RGBa", "La", "PA") else "RGB")
    value.save(file, format="PNG")
    return ["from PIL import Image", "{name} = Image.open({path!r})"]


def _write_figure(value: Any, file: Path) -> list[str]:
    value.savefig(file, format="png")
    return ["from PIL import Image", "{name} = Image.open({path!r})"]


_FORMS: dict[tuple[str, str], tuple[str, Write]] = {
    ("pandas", "DataFrame"): ("feather", write_frame),
    ("pandas", "Series"): ("feather", write_series),
    ("polars", "DataFrame"): ("arrow", write_polars),
    ("polars", "Series"): ("arrow", write_polars),
    ("pyarrow", "Table"): ("arrow", write_arrow),
    ("numpy", "ndarray"): ("npy", _write_array),
    ("PIL", "Image"): ("png", _write_image),
    ("matplotlib", "Figure"): ("png", _write_figure),
}
