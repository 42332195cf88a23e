"""Values that cross the border between host and kernel, and the hostile ones that must not."""

import base64
import dataclasses
import datetime
import decimal
import enum
import hashlib
import io
import json
import os
import pickle
import struct
import zlib
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy
import pandas
import pyarrow
import pytest
from PIL import Image

from kernel_agent.border.codec import TAG, NotTransferable, decode, encode
from kernel_agent.border.files import UnreadableValue, write

BERLIN = ZoneInfo("Europe/Berlin")
PLAIN = [
    None,
    True,
    -5,
    10**2000,
    1.5,
    float("inf"),
    "text with a lone \ud800",
    1 + 2j,
    b"\0\xff",
    bytearray(b"x"),
    decimal.Decimal("1.50"),
    Path("/a/b"),
    datetime.date(2024, 2, 29),
    datetime.time(1, 2, 3),
    datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
    datetime.timedelta(-1, 2, 3),
    (1, (2, ["x"])),
    {1, 2},
    frozenset({"a"}),
    {1: "a", (2, 3): {"b": None}},
    {TAG: "tuple", "items": []},
    {"a": [1, {"b": (2,)}]},
    pandas.Timestamp("2024-01-01T00:00:00.123456789", tz="UTC"),
    pandas.Timedelta("1ns"),
    numpy.datetime64("2024-01-01T00:00:00.123456789"),
    numpy.longdouble(1.5),
]
ARRAYS = [
    numpy.arange(6).reshape(2, 3),
    numpy.asfortranarray(numpy.ones((2, 3))),
    numpy.zeros((0, 3)),
    numpy.array(5),
    numpy.array([(1, 2.0)], dtype="i4,f8"),
    numpy.array(["a", "bc"]),
]
TABLES = [
    pandas.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pandas.Index(["r", "s"], name="i")),
    pandas.DataFrame(numpy.ones((2, 2))),
    pandas.DataFrame({"t": pandas.to_datetime(["2024-01-01"]), "c": pandas.Categorical(["k"])}),
    pandas.Series([1, 2], name=7),
    pyarrow.table({"a": [1, None]}),
]


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    other: list


class Evil:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def crossed(value, folder, *, inline_bytes=64_000, mapped=False):
    encoded = json.loads(json.dumps(encode(value, folder=folder, inline_bytes=inline_bytes)))
    return decode(encoded, folder=folder, mapped=mapped)


@pytest.fixture(params=["inline", "files", "mapped"])
def way(request, tmp_path):
    if request.param == "inline":
        return {"folder": None}
    return {"folder": tmp_path, "inline_bytes": -1, "mapped": request.param == "mapped"}


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:40])
def test_a_plain_value_arrives_as_what_it_was(value, way):
    back = crossed(value, **way)
    assert type(back) is type(value)
    assert back == value


@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: str(value.dtype))
def test_an_array_arrives_with_its_type_and_shape_and_can_be_changed(value, way):
    back = crossed(value, **way)
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    assert (back == value).all()
    assert back.flags.writeable


@pytest.mark.parametrize("value", TABLES, ids=lambda value: type(value).__name__)
def test_a_table_arrives_with_its_index_types_and_names(value, way):
    back = crossed(value, **way)
    assert type(back) is type(value)
    assert back.equals(value)
    assert getattr(back, "name", None) == getattr(value, "name", None)


def test_polars_tables_arrive_too(way):
    polars = pytest.importorskip("polars")
    for value in (polars.DataFrame({"a": [1, None], "b": ["x", "y"]}), polars.Series("s", [1])):
        back = crossed(value, **way)
        assert type(back) is type(value)
        assert back.equals(value)


def test_pictures_and_figures_arrive_as_pictures(way):
    from matplotlib.figure import Figure

    picture = Image.new("RGB", (3, 2), "red")
    assert crossed(picture, **way).tobytes() == picture.tobytes()
    assert crossed(Figure(figsize=(1, 1)), **way).size == (100, 100)


def test_what_has_fields_arrives_as_a_dict_and_a_scalar_of_numpy_as_pythons():
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", x=(int, ...))
    assert crossed(Point(1, [Colour.RED]), None) == {"x": 1, "other": ["red"]}
    assert crossed(model(x=1), None) == {"x": 1}
    numbers = crossed([numpy.int64(1), numpy.float64(2.5), numpy.str_("s"), numpy.True_], None)
    assert [type(number) for number in numbers] == [int, float, str, bool]


def test_missing_values_of_pandas_stay_what_they_are():
    back = crossed([pandas.NaT, pandas.NA], None)
    assert back[0] is pandas.NaT
    assert back[1] is pandas.NA


def test_large_values_become_files_and_equal_ones_the_same_file(tmp_path):
    long = {"list": list(range(50_000)), "text": "x" * 100_000, "bytes": bytes(100_000)}
    encoded = encode(long, folder=tmp_path)
    assert len(json.dumps(encoded)) < 300
    assert decode(encoded, folder=tmp_path) == long
    assert encode(long, folder=tmp_path) == encoded
    assert not list(tmp_path.glob("draft-*"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_a_set_is_encoded_in_one_order():
    assert encode({"b", "a", "c"}, folder=None)["items"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("value", "where", "hint"),
    [
        ({"x": [0, 1, 2, lambda: 1]}, "data['x'][3] (function)", "pass what it returns"),
        (Point(1, [object()]), "data.other[0] (object)", "make it a dict"),
        ((n for n in ()), "data (generator)", "list(...)"),
        (numpy.array([{}]), "data (numpy.ndarray)", ".tolist()"),
        (pandas.Index([1]), "data (pandas.Index)", ".tolist()"),
        (pandas.DataFrame({"a": [1, "x"]}), "data (pandas.DataFrame)", "column a"),
        (numpy.ma.masked_array([1], [True]), "data (numpy.MaskedArray)", "filled"),
        (io.BytesIO(), "data (_io.BytesIO)", "make it"),
    ],
)
def test_what_cannot_be_transferred_is_named_with_its_place_and_a_way_out(value, where, hint):
    with pytest.raises(NotTransferable) as caught:
        encode(value, folder=None, name="data")
    assert str(caught.value).startswith(where.split(" (")[0])
    assert where.split(" (")[1].rstrip(")") in str(caught.value)
    assert hint in str(caught.value)


def test_circles_and_depths_are_refused():
    circle = []
    circle.append({"again": circle})
    with pytest.raises(NotTransferable, match=r"value\[0\]\['again'\].*contains itself"):
        encode(circle, folder=None)
    deep = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(NotTransferable, match="levels deep"):
        encode(deep, folder=None)
    with pytest.raises(UnreadableValue, match="levels"):
        decode(deep, folder=None)


def inline(kind, content):
    return {TAG: kind, "data": base64.b64encode(content).decode(), "name": None}


def test_a_pickle_is_unpickled_through_no_door(tmp_path):
    mark = tmp_path / "unpickled"
    evil = pickle.dumps(Evil(mark))
    npy = io.BytesIO()
    numpy.save(npy, numpy.array([Evil(mark)], dtype=object), allow_pickle=True)
    field = pyarrow.field("a", pyarrow.int64()).with_metadata(
        {
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": evil,
        }
    )
    schemas = [
        pyarrow.schema([field]),
        pyarrow.schema([("a", pyarrow.int64())], metadata={b"pandas": evil}),
        pyarrow.schema([("a", pyarrow.int64())], metadata={b"pandas": b'{"columns": "x"}'}),
    ]
    doors = [inline("ndarray", npy.getvalue()), inline("numpy", npy.getvalue())]
    for schema in schemas:
        sink = io.BytesIO()
        with pyarrow.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pyarrow.record_batch([[1]], schema=schema))
        kinds = ("pyarrow.Table", "pandas.DataFrame", "pandas.Series", "polars.DataFrame")
        doors += [inline(kind, sink.getvalue()) for kind in kinds]
    kinds = ("ndarray", "numpy", "pandas.DataFrame", "pandas.Series", "pyarrow.Table", "image")
    doors += [inline(kind, evil) for kind in (*kinds, "polars.DataFrame", "json", "str", "pickle")]
    refused = 0
    for door in doors:
        try:
            decode(door, folder=None)
        except UnreadableValue:
            refused += 1
    assert not mark.exists()
    assert refused >= len(kinds) + 2
    for suffix, kind in (("npy", "ndarray"), ("arrow", "pandas.DataFrame"), ("png", "image")):
        name = write(tmp_path, suffix, lambda file: file.write(evil))
        for mapped in (False, True):
            with pytest.raises(UnreadableValue):
                decode({TAG: kind, "file": name}, folder=tmp_path, mapped=mapped)
    assert not mark.exists()


def test_a_file_is_read_only_from_the_folder_and_only_if_it_is_what_was_written(tmp_path):
    folder = tmp_path / "border"
    folder.mkdir()
    digest = hashlib.blake2b(b"secret", digest_size=20).hexdigest()
    outside = tmp_path / f"{digest}.bin"
    outside.write_bytes(b"secret")
    (folder / outside.name).symlink_to(outside)
    names = [outside.name, f"../{outside.name}", str(outside), "x\0.bin", "", None, 5, ["a"]]
    pipe, there = f"{'a' * 40}.bin", f"{'b' * 40}.bin"
    os.mkfifo(folder / pipe)
    (folder / there).write_bytes(b"something else")
    (folder / f"{'c' * 40}.bin").mkdir()
    for name in [*names, pipe, there, f"{'c' * 40}.bin", f"{'d' * 40}.bin", f"{digest}.npy"]:
        with pytest.raises(UnreadableValue):
            decode({TAG: "bytes", "file": name}, folder=folder)
    with pytest.raises(UnreadableValue, match="no folder"):
        decode({TAG: "bytes", "file": outside.name}, folder=None)


def test_a_picture_that_unpacks_to_too_much_is_refused():
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    with pytest.raises(UnreadableValue, match="too many"):
        decode(inline("image", bomb), folder=None)


def test_an_array_whose_header_promises_more_than_there_is_is_refused():
    npy = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    numpy.lib.format.write_array_header_1_0(npy, header)
    with pytest.raises(UnreadableValue, match="shape"):
        decode(inline("ndarray", npy.getvalue() + bytes(8)), folder=None)


@pytest.mark.parametrize(
    "encoded",
    [
        {TAG: "no such kind"},
        {TAG: ["tuple"]},
        {TAG: "tuple"},
        {TAG: "tuple", "items": 5},
        {TAG: "set", "items": [[]]},
        {TAG: "dict", "items": [[1]]},
        {TAG: "bytes", "data": "no base64!"},
        {TAG: "int", "text": "x"},
        {TAG: "float", "text": None},
        {TAG: "decimal", "text": "x"},
        {TAG: "datetime", "text": "yesterday"},
        {TAG: "datetime", "text": "2024-01-01", "zone": "../../etc/passwd"},
        {TAG: "timestamp", "text": "never"},
    ],
    ids=str,
)
def test_what_encode_cannot_have_made_is_one_clear_error(encoded):
    with pytest.raises(UnreadableValue):
        decode(encoded, folder=None)
