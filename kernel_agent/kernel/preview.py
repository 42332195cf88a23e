"""Runs inside the kernel: shows what a data file or a table holds, without loading it whole.

Shipped there as text like `inside.py`; it needs pandas only for what pandas reads.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from contextlib import suppress
from typing import Any

from IPython import get_ipython

MAX_BYTES = 30_000_000  # a file up to this size is read whole, of a larger one the beginning
HEAD_ROWS = 20_000
MANY_ROWS = 200_000  # a longer column is not counted whole
MAX_COLUMNS = 60
MAX_VALUE = 40
FEW = 8  # distinct texts that are all listed
OFTEN = 20  # a text that stands in more than one row of so many is named
MAX_TEXT = 1_000
CONTAINERS = (list, tuple, dict, set, frozenset)


def files(paths: list[str]) -> list[str]:
    """A preview of each file: path, size, shape, columns with types, missing values, rows."""
    return [_file(path) for path in paths]


def variables(names: list[str]) -> list[str]:
    """A preview of each variable of the user's namespace."""
    return [_variable(name, get_ipython().user_ns[name]) for name in names]


def _file(path: str) -> str:
    readers = {
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
        ".json": _json,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".xlsx": _excel,
        ".xls": _excel,
    }
    reader = readers.get(os.path.splitext(path)[1].lower())
    head = f"File {json.dumps(path, ensure_ascii=False)} ({_size(os.path.getsize(path))}"
    if reader is not None:
        try:
            return head + reader(path)
        except ImportError as error:
            return f"{head}; not read as a table: {error})\n{_text(path)}"
        except Exception as error:
            said = str(error).splitlines()[0][:200] if str(error) else ""
            return (
                f"{head}; cannot be read as a table: {type(error).__name__}: {said})\n{_text(path)}"
            )
    return f"{head})\n{_text(path)}"


def _csv(path: str) -> str:
    import pandas

    options: dict[str, Any] = {}
    separator = _separator(path)
    if separator != ",":
        options["sep"] = separator
    if not _is_utf8(path):
        options["encoding"] = "latin-1"
    call = "".join(f", {name}={value!r}" for name, value in options.items())
    if call:
        call = f"; read with pd.read_csv({path!r}{call})"
    if os.path.getsize(path) <= MAX_BYTES:
        table = pandas.read_csv(path, low_memory=False, **options)
        return f", {_shape(table.shape)}{call})\n{_columns(table)}"
    table = pandas.read_csv(path, nrows=HEAD_ROWS, low_memory=False, **options)
    rows = _estimated_rows(path)
    shape = f"about {rows:,} rows × {table.shape[1]} columns"
    return f", {shape}{call})\n{_columns(table)}\n{_only_head(len(table))}"


def _parquet(path: str) -> str:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    rows = file.metadata.num_rows
    batch = next(file.iter_batches(batch_size=HEAD_ROWS), None)
    table = (batch if batch is not None else file.schema_arrow.empty_table()).to_pandas()
    note = f"\n{_only_head(len(table))}" if len(table) < rows else ""
    return f", {_shape((rows, table.shape[1]))})\n{_columns(table)}{note}"


def _json(path: str) -> str:
    if os.path.getsize(path) > MAX_BYTES:
        return f")\n{_text(path)}"
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        import pandas

        table = pandas.DataFrame(value)
        return f", a list of {len(value):,} objects)\n{_columns(table)}"
    kind = (
        f"an object with {len(value):,} keys" if isinstance(value, dict) else type(value).__name__
    )
    return f", {kind})\n{_text(path)}"


def _json_lines(path: str) -> str:
    import pandas

    table = pandas.read_json(path, lines=True, nrows=HEAD_ROWS)
    note = f"\n{_only_head(len(table))}" if len(table) == HEAD_ROWS else ""
    return f", one JSON object a line, {table.shape[1]} columns)\n{_columns(table)}{note}"


def _excel(path: str) -> str:
    import pandas

    if os.path.getsize(path) > MAX_BYTES:
        return ", too large for a preview)"
    with pandas.ExcelFile(path) as book:
        names = book.sheet_names
        table = book.parse(names[0], nrows=HEAD_ROWS)
    sheets = ", ".join(json.dumps(name, ensure_ascii=False) for name in names)
    return f", sheets {sheets}; the first one: {_shape(table.shape)})\n{_columns(table)}"


def _variable(name: str, value: Any) -> str:
    kind = type(value)
    names = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    if ("pandas", "DataFrame") in names:
        shape = f"{value.shape[0]:,} rows × {value.shape[1]} columns"
        return f"{name}: DataFrame, {shape}{_index(value.index)}\n{_columns(value)}"
    if ("pandas", "Series") in names:
        head = f"{name}: Series of {len(value):,} values{_index(value.index)}"
        return f"{head}\n{_columns(value.to_frame())}"
    if ("polars", "DataFrame") in names or ("pyarrow", "Table") in names:
        library = next(library for library, _ in names if library in ("polars", "pyarrow"))
        shape = f"{value.shape[0]:,} rows × {value.shape[1]} columns"
        return f"{name}: {library} {kind.__name__}, {shape}\n{_other_columns(value)}"
    if ("polars", "Series") in names:
        head = f"{name}: polars Series of {len(value):,} values"
        return f"{head}\n{_other_columns(value.to_frame())}"
    if ("numpy", "ndarray") in names:
        return f"{name}: numpy array, shape {value.shape}, {value.dtype}"
    if ("PIL", "Image") in names:
        return f"{name}: PIL image, {value.width}×{value.height} pixels, mode {value.mode}"
    if isinstance(value, (str, bytes)) and len(value) > MAX_TEXT:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{name}: {kind.__name__} of {len(value):,} {unit}, begins {value[:MAX_TEXT]!r} …"
    length = f" ({len(value):,} items)" if isinstance(value, CONTAINERS) else ""
    return f"{name}: {kind.__name__}{length} = {_beginning(value)}"


def _beginning(value: Any) -> str:
    """What `repr` gives, of large containers only for the first items."""
    if isinstance(value, CONTAINERS) and len(value) > MAX_TEXT:
        head = itertools.islice(value.items() if isinstance(value, dict) else value, MAX_TEXT)
        value = dict(head) if isinstance(value, dict) else list(head)
        return f"{repr(value)[:MAX_TEXT]} …"
    text = repr(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + f" … ({len(text):,} characters)"


def _index(index: Any) -> str:
    """What the index is, unless it only counts the rows."""
    if type(index).__name__ == "RangeIndex" and index.name is None:
        return ""
    names = ", ".join("unnamed" if name is None else _quoted(name) for name in index.names)
    first = f", first {_value(index[0])}" if len(index) else ""
    kind = type(index).__name__ if type(index).__name__ != "Index" else f"Index of {index.dtype}"
    return f"; index {names}: {kind}{first}"


def _other_columns(table: Any) -> str:
    """A line per column of a polars or pyarrow table: name, type, missing values, first rows."""
    lines = []
    is_arrow = hasattr(table, "column_names")
    names = list(table.column_names if is_arrow else table.columns)
    for position, name in enumerate(names[:MAX_COLUMNS]):
        column = table.column(position) if is_arrow else table.to_series(position)
        missing = column.null_count if is_arrow else column.null_count()
        first = column.slice(0, 3)
        rows = ", ".join(map(_value, first.to_pylist() if is_arrow else first.to_list()))
        said = f"{missing} missing" if missing else "none missing"
        kind = column.type if is_arrow else column.dtype
        lines.append(f"- {_quoted(name)}: {kind}, {said}; first rows: {rows}")
    return "\n".join([*lines, *_more_columns(names)])


def _columns(table: Any) -> str:
    """A line per column: quoted name, type, missing values, range or variety, first rows."""
    lines = [_column(table, position) for position in range(min(table.shape[1], MAX_COLUMNS))]
    return "\n".join([*lines, *_more_columns(list(table.columns))])


def _more_columns(names: list[Any]) -> list[str]:
    """A line on the columns that have none of their own, if there are such."""
    rest = names[MAX_COLUMNS:]
    shown = ", ".join(map(_quoted, rest))[:MAX_TEXT]
    return [f"- and {len(rest)} more columns: {shown}"] if rest else []


def _column(table: Any, position: int) -> str:
    column = table.iloc[:, position]
    missing = int(column.isna().sum())
    parts = [str(column.dtype), f"{missing} missing" if missing else "none missing"]
    with suppress(TypeError):  # lists and dicts can be neither counted nor ordered
        parts += _variety(column, numeric=column.dtype.kind in "iufM")
    values = ", ".join(_value(value) for value in column.head(3))
    return f"- {_quoted(table.columns[position])}: {', '.join(parts)}; first rows: {values}"


def _variety(column: Any, *, numeric: bool) -> list[str]:
    """Which values there are: all of a few with their counts, else the range and the number.

    Of a long column of numbers only the range: to count them takes seconds.
    """
    if len(column) > MANY_ROWS and numeric:
        extent = f"{_value(column.min())} to {_value(column.max())}"
        return [extent] if column.count() else []
    if len(column) > MANY_ROWS:
        parts = _variety(column.head(HEAD_ROWS), numeric=False)
        return [f"in the first {HEAD_ROWS:,} rows {', '.join(parts)}"] if parts else []
    counts = column.value_counts()
    if not numeric and len(counts) <= FEW:
        return [f"{_value(value)} {count}×" for value, count in counts.items()]
    extent = f"{_value(counts.index.min())} to {_value(counts.index.max())}" if len(counts) else ""
    parts = [extent, f"{len(counts):,} distinct"] if extent else [f"{len(counts):,} distinct"]
    if not numeric and counts.iloc[0] > len(column) / OFTEN:
        parts.append(f"{_value(counts.index[0])} {counts.iloc[0]}×")
    return parts


def _quoted(name: Any) -> str:
    return json.dumps(name, ensure_ascii=False) if isinstance(name, str) else repr(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        text = _quoted(value)
    else:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[0]:,} rows × {shape[1]} columns as pandas reads it"


def _only_head(rows: int) -> str:
    return f"Types and missing values are those of the first {rows:,} rows."


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _head(path: str, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def _separator(path: str) -> str:
    if path.lower().endswith(".tsv"):
        return "\t"
    sample = _head(path, 64_000).decode("utf-8", errors="replace")
    try:
        return csv.Sniffer().sniff(sample, delimiters=",;\t|").delimiter
    except csv.Error:
        return ","


def _is_utf8(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            for _ in range(MAX_BYTES // 1_000_000 + 1):
                if not file.read(1_000_000):
                    break
    except UnicodeDecodeError:
        return False
    return True


def _estimated_rows(path: str) -> int:
    head = _head(path, 5_000_000)
    return max(1, round(os.path.getsize(path) / (len(head) / max(1, head.count(b"\n")))) - 1)


def _text(path: str) -> str:
    head = _head(path, 4 * MAX_TEXT)
    if b"\0" in head:
        return "It is a binary file."
    text = head.decode("utf-8", errors="replace")[:MAX_TEXT]
    return f"It begins:\n{text.rstrip()}"
