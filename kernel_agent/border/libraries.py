"""Arrays, tables and pictures on their way between host and kernel: npy, Arrow and PNG.

Also runs inside the kernel, shipped as text. A library is imported only for a value of its own.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING or __name__.startswith("kernel_agent."):
    from kernel_agent.border.files import UnreadableValue
else:
    from kernel_agent_border_files import UnreadableValue

MAX_PIXELS = 100_000_000
PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
NO_PICKLE = "arrow.py_extension_type"  # how old versions of pyarrow named types that are pickles


class Refused(Exception):
    """A value of a known library that cannot be transferred: why, and what can instead."""


class Packed(NamedTuple):
    """A value as the content of a file: its `kind`, suffix, size (0: unknown) and writer."""

    kind: str
    suffix: str
    size: int
    put: Callable[[BinaryIO], object]


def packed(value: Any) -> Packed | None:
    """How `value` is written, if it is an array, a table or a picture; None if not.

    Raises Refused.
    """
    names = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(value).__mro__]
    for library, name in names:
        pack = _PACKERS.get((library, name))
        if pack is not None:
            return pack(value)
    return None


def _array(value: Any) -> Packed:
    numpy = _library("numpy")
    if value.dtype.hasobject:
        raise Refused("it holds Python objects; .tolist() makes a list of it")
    if isinstance(value, numpy.ma.MaskedArray):
        raise Refused("it is masked; .filled(...) makes it an ordinary array")
    array = numpy.asarray(value)
    kind = "ndarray" if isinstance(value, numpy.ndarray) else "numpy"

    def put(file: BinaryIO) -> None:
        numpy.lib.format.write_array(file, array, allow_pickle=False)

    return Packed(kind, "npy", array.nbytes, put)


def _frame(value: Any) -> Packed:
    pyarrow = _library("pyarrow", "a pandas table", "the package `pyarrow`")
    try:
        table = pyarrow.Table.from_pandas(value)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError) as error:
        what = " ".join(str(part) for part in error.args)
        raise Refused(f"Arrow cannot hold it ({what}); .astype(str) helps for a column") from error
    return _table(table)._replace(kind="pandas.DataFrame")


def _series(value: Any) -> Packed:
    # The name, which need not be a text, goes beside it.
    return _frame(value.to_frame("values"))._replace(kind="pandas.Series")


def _table(table: Any) -> Packed:
    pyarrow = _library("pyarrow")
    if type(table).__name__ == "RecordBatch":
        table = pyarrow.Table.from_batches([table])

    def put(file: BinaryIO) -> None:
        with pyarrow.ipc.new_file(pyarrow.PythonFile(file, mode="w"), table.schema) as writer:
            writer.write_table(table)

    return Packed("pyarrow.Table", "arrow", table.nbytes, put)


def _polars_frame(value: Any) -> Packed:
    polars = _library("polars")
    objects = [name for name, kind in value.schema.items() if kind == polars.Object]
    if objects:
        raise Refused(f"its column {objects[0]!r} holds Python objects")
    data = io.BytesIO()
    value.write_ipc(data, compression="uncompressed")
    content = data.getbuffer()
    return Packed("polars.DataFrame", "arrow", len(content), lambda file: file.write(content))


def _polars_series(value: Any) -> Packed:
    return _polars_frame(value.to_frame())._replace(kind="polars.Series")


def _picture(value: Any) -> Packed:
    if value.mode not in PNG_MODES:
        if value.mode == "F":
            raise Refused("PNG has no floating-point pixels; numpy.asarray(...) makes it an array")
        value = value.convert("RGBA" if value.mode in ("RGBa", "La", "PA") else "RGB")
    data = io.BytesIO()
    value.save(data, format="PNG")
    return _png(data.getvalue())


def _figure(value: Any) -> Packed:
    data = io.BytesIO()
    value.savefig(data, format="png")
    return _png(data.getvalue())


def _png(content: bytes) -> Packed:
    return Packed("image", "png", len(content), lambda file: file.write(content))


def _lazy(value: Any) -> Packed:
    raise Refused("it is not computed yet; .collect() computes it")


def _index(value: Any) -> Packed:
    raise Refused(".tolist() makes a list of it, .to_frame() a table")


def _tensor(value: Any) -> Packed:
    raise Refused(".detach().cpu().numpy() makes an array of it")


_PACKERS: dict[tuple[str, str], Callable[[Any], Packed]] = {
    ("numpy", "ndarray"): _array,
    ("numpy", "generic"): _array,
    ("pandas", "DataFrame"): _frame,
    ("pandas", "Series"): _series,
    ("pandas", "Index"): _index,
    ("polars", "DataFrame"): _polars_frame,
    ("polars", "Series"): _polars_series,
    ("polars", "LazyFrame"): _lazy,
    ("pyarrow", "Table"): _table,
    ("pyarrow", "RecordBatch"): _table,
    ("PIL", "Image"): _picture,
    ("matplotlib", "Figure"): _figure,
    ("torch", "Tensor"): _tensor,
}


def unpacked(kind: str, content: bytes | bytearray | Path) -> Any:
    """The value that `packed` has written, from its bytes or, mapped into memory, from its file.

    Raises UnreadableValue, also for whatever a library says of bytes that are not its format.
    """
    try:
        return _UNPACKERS[kind](content)
    except UnreadableValue:
        raise
    except Refused as error:
        raise UnreadableValue(f"{error}.") from error
    except Exception as error:  # hostile bytes may make a library raise anything
        raise UnreadableValue(f"it is no {kind}: {type(error).__name__}: {error}") from error


def _read_array(content: bytes | bytearray | Path) -> Any:
    numpy = _library("numpy")
    if isinstance(content, Path):
        # Copy on write: whoever gets it may change it, and the file stays as it was.
        return numpy.load(content, mmap_mode="c", allow_pickle=False).view(numpy.ndarray)
    file = io.BytesIO(content)
    major = numpy.lib.format.read_magic(file)
    read = numpy.lib.format.read_array_header_1_0
    if major != (1, 0):
        read = numpy.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise UnreadableValue("it is an array of Python objects.")
    # What the header promises must be there: nothing is made that is larger than what has come.
    count = 1
    for length in shape:
        count *= length
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(content) - file.tell():
        raise UnreadableValue(f"the array's data is not of the shape {shape!r}.")
    array = numpy.ndarray(shape, dtype, content, file.tell(), order="F" if fortran else "C")
    return array if array.flags.writeable else array.copy(order="K")


def _read_scalar(content: bytes | bytearray | Path) -> Any:
    return _read_array(content)[()]


def _read_arrow(content: bytes | bytearray | Path) -> Any:
    pyarrow = _library("pyarrow", "a table", "the package `pyarrow`")
    if isinstance(content, Path):
        source = pyarrow.memory_map(str(content))
    else:
        source = pyarrow.py_buffer(content)
    # An unknown extension type stays what it is stored as; one that is a pickle is not even that.
    with pyarrow.ipc.open_file(source) as reader:
        _check(reader.schema)
        table = reader.read_all()
    if not isinstance(content, Path):
        table.validate(full=True)
    return table


def _check(schema: Any) -> None:
    for field in schema:
        if NO_PICKLE in str(field.metadata) or NO_PICKLE in str(field.type):
            raise UnreadableValue(f"the type of its column {field.name!r} is a pickle.")


def _read_frame(content: bytes | bytearray | Path) -> Any:
    _library("pandas", "a pandas table", "the package `pandas`")
    return _read_arrow(content).to_pandas()


def _read_series(content: bytes | bytearray | Path) -> Any:
    return _read_frame(content)["values"]


def _read_polars_frame(content: bytes | bytearray | Path) -> Any:
    polars = _library("polars", "a polars table", "the package `polars`")
    return polars.read_ipc(content if isinstance(content, Path) else io.BytesIO(content))


def _read_polars_series(content: bytes | bytearray | Path) -> Any:
    return _read_polars_frame(content).to_series()


def _read_image(content: bytes | bytearray | Path) -> Any:
    data = content.read_bytes() if isinstance(content, Path) else bytes(content)
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise UnreadableValue("it is no PNG.")
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    if width * height > MAX_PIXELS:
        raise UnreadableValue(f"its {width}×{height} pixels are too many.")
    try:
        images = importlib.import_module("PIL.Image")
    except ImportError:
        return data
    picture = images.open(io.BytesIO(data), formats=["PNG"])
    picture.load()
    return picture


_UNPACKERS: dict[str, Callable[[bytes | bytearray | Path], Any]] = {
    "ndarray": _read_array,
    "numpy": _read_scalar,
    "pandas.DataFrame": _read_frame,
    "pandas.Series": _read_series,
    "pyarrow.Table": _read_arrow,
    "polars.DataFrame": _read_polars_frame,
    "polars.Series": _read_polars_series,
    "image": _read_image,
}
PACKED = {kind: "npy" if kind in ("ndarray", "numpy") else "arrow" for kind in _UNPACKERS}
PACKED["image"] = "png"


def _library(name: str, what: str = "", needed: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Refused(f"{what} needs {needed}, which is not installed here") from error
