"""Tables as Arrow files, which hold them exactly: whatever would come back changed is refused."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from kernel_agent.literals import NoSourceError, plain, source

VALUE = "value"
"""The name of a Series' only column in its file."""

READ = "pyarrow.ipc.open_file(pyarrow.OSFile({path!r})).read_all()"

_KEPT = ("string", "large_string", "bool", "date32[day]", "null")


class UnfitTableError(ValueError):
    """A table that an Arrow file cannot hold: the message says which part of it, and why."""


def write_frame(frame: Any, file: Path) -> list[str]:
    """Write a pandas DataFrame; returns the lines that read it into `{name}` from `{path!r}`.

    Raises UnfitTableError, which names the column.
    """
    table = _arrow(frame)
    _write(table, file)
    lines = ["import pandas as pd", "{name} = pd.read_feather({path!r})"]
    for position in _objects(frame):
        if _comes_back_by_itself(frame.iloc[:, position], table.column(position)):
            continue
        column, field = _label(frame.columns[position]), table.column_names[position]
        values = f"{READ}[{_braced(repr(field))}].to_pylist()"
        lines += [
            "import pyarrow",
            f"{{name}}[{_braced(column)}] = pd.Series({values}, {{name}}.index, object)",
        ]
    if frequency := getattr(frame.index, "freqstr", None):
        lines.append(f"{{name}}.index.freq = {_braced(repr(frequency))}")
    return lines


def write_series(series: Any, file: Path) -> list[str]:
    """Write a pandas Series, as `write_frame` does."""
    label = _label(series.name)
    lines = write_frame(series.to_frame(VALUE), file)
    return [*lines, f"{{name}} = {{name}}[{VALUE!r}].rename({_braced(label)})"]


def write_polars(table: Any, file: Path) -> list[str]:
    """Write a polars DataFrame or Series, as `write_frame` does."""
    is_series = type(table).__name__ == "Series"
    frame = table.to_frame() if is_series else table
    for name, kind in frame.schema.items():
        if str(kind).startswith("Object"):
            raise UnfitTableError(f"its column {name!r} holds Python objects. Cast it to a type.")
    frame.write_ipc(file, compression="uncompressed")
    read = "{name} = pl.read_ipc({path!r})" + (".to_series()" if is_series else "")
    return ["import polars as pl", read]


def write_arrow(table: Any, file: Path) -> list[str]:
    """Write a pyarrow Table, as `write_frame` does."""
    _write(table, file)
    return ["import pyarrow", f"{{name}} = {READ}"]


def _write(table: Any, file: Path) -> None:
    pyarrow = importlib.import_module("pyarrow")
    # Uncompressed: on the way in, seconds count more than bytes.
    with pyarrow.OSFile(str(file), "wb") as out, pyarrow.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)


def _arrow(frame: Any) -> Any:
    try:
        pyarrow = importlib.import_module("pyarrow")
    except ImportError as error:
        needed = "pandas tables need pyarrow: `pip install 'kernel-agent[data]'` brings it."
        raise UnfitTableError(needed) from error
    _check_columns(frame)
    try:
        table = pyarrow.Table.from_pandas(frame)
    except Exception as error:  # each kind of column has errors of its own
        raise UnfitTableError(_culprit(frame, error)) from error
    there = table.slice(0, 0).to_pandas()
    if not (there.columns.equals(frame.columns) and there.columns.names == frame.columns.names):
        raise UnfitTableError(
            "its column names would come back changed. df.columns = df.columns.map(str) helps."
        )
    if there.index.names != frame.index.names:
        raise UnfitTableError("its index would come back changed. df.reset_index() helps.")
    return table


def _check_columns(frame: Any) -> None:
    names = frame.columns
    if len(twice := names[names.duplicated()]):
        raise UnfitTableError(f"two of its columns have the name {twice[0]!r}. Rename one.")
    for level in range(names.nlevels):
        kinds: dict[str, Any] = {type(one).__name__: one for one in names.get_level_values(level)}
        if len(kinds) > 1:
            first, second = list(kinds.values())[:2]
            raise UnfitTableError(
                f"its column names {first!r} and {second!r} are of different types. "
                "df.columns = df.columns.map(str) helps."
            )


def _culprit(frame: Any, error: Exception) -> str:
    """Which part of `frame` it is that Arrow cannot hold, and why."""
    pyarrow = importlib.import_module("pyarrow")
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        try:
            pyarrow.Array.from_pandas(column)
        except Exception as reason:
            what = f"its column {name!r} ({column.dtype}) cannot be held by Arrow: {_said(reason)}"
            return f"{what} df[{name!r}].astype(str) makes text of it."
    kind = type(frame.index).__name__
    return f"its index ({kind}) cannot be held by Arrow: {_said(error)} df.reset_index() helps."


def _said(error: Exception) -> str:
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.splitlines()[0][:200].rstrip(".") + "." if text else ""


def _objects(frame: Any) -> list[int]:
    return [position for position, kind in enumerate(frame.dtypes) if str(kind) == "object"]


def _comes_back_by_itself(column: Any, stored: Any) -> bool:
    """Whether pandas makes of a `stored` column of objects what it was; if not, a list does.

    Raises UnfitTableError if that does not either.
    """
    if str(stored.type) in _KEPT:
        return True
    values = column.tolist()
    if any(type(value).__name__ == "ndarray" for value in values):
        return True  # as arrays lists come back
    for row, (was, now) in enumerate(zip(values, stored.to_pylist(), strict=True)):
        if not (_is_missing(was) and now is None) and was != now:
            raise UnfitTableError(
                f"its column {column.name!r} ({column.dtype}) would come back changed: "
                f"{was!r:.60} in row {row} as {now!r:.60}. Text by json.dumps does not."
            )
    return str(stored.type).startswith("decimal")


def _is_missing(value: Any) -> bool:
    """Whether it is one of the values that stand for none: the one is as good as the other."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _label(name: Any) -> str:
    try:
        made = plain(name)
    except NoSourceError as error:
        raise UnfitTableError(f"the name {name!r:.80} is no text or number. Rename it.") from error
    if made.imports not in ((), ("import pandas as pd",)):
        raise UnfitTableError(f"the name {name!r:.80} is no text or number. Rename it.")
    return source(made.value)


def _braced(text: str) -> str:
    """`text` as a format string has it."""
    return text.replace("{", "{{").replace("}", "}}")
