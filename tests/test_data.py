import dataclasses
import datetime
import decimal
import enum
import math
import zoneinfo
from collections import Counter, namedtuple
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kernel_agent.data import MAX_LITERAL, check_names, give
from kernel_agent.errors import DataError
from kernel_agent.kernel.preview import MAX_TEXT, _variable

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
Pair = namedtuple("Pair", "a b")


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Place:
    name: str
    at: tuple[float, float]


class Row(pydantic.BaseModel):
    day: datetime.date
    mm: float


class Name(str):
    def __str__(self):
        return "something else"


@pytest.fixture
def back(tmp_path, monkeypatch):
    """What code has of data that was given; `files` are the files' names."""
    monkeypatch.chdir(tmp_path)

    def back(data):
        given = give(data, folder=tmp_path / "data", cwd=tmp_path)
        assert str(tmp_path) not in given.source
        namespace = {"files": {file.name for file in given.files}, "source": given.source}
        exec(given.source, namespace)
        return namespace

    return back


@pytest.mark.parametrize(
    "value",
    [
        None, True, 1, 2.5, "text\n'quoted'", b"\0", [1, [2]], (1,), (), {"a": {1: 2}}, {1, 2},
        set(), frozenset({"x"}), frozenset(), 1 + 2j, complex(0.0, math.inf), -math.inf,
        decimal.Decimal("1.10"), PurePosixPath("some/file"),
        datetime.date(2026, 1, 2), datetime.time(12, 30), datetime.timedelta(days=1, seconds=5),
        datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
        datetime.datetime(2026, 7, 1, tzinfo=BERLIN),
        {"deep": [({datetime.date(2026, 1, 1): frozenset({decimal.Decimal(1)})},)]},
        pd.Timestamp("2026-01-01 12:00", tz="Europe/Berlin"), pd.Timedelta("1h"), "{x!r}",
    ],
    ids=repr,
)  # fmt: skip
def test_plain_values_come_back_equal_and_stand_in_the_source(value, back, tmp_path):
    there = back({"x": value})
    assert there["x"] == value
    assert isinstance(there["x"], type(value)) or isinstance(value, PurePosixPath)
    assert there["files"] == set()
    assert not (tmp_path / "data").exists()


def test_what_stands_for_no_value_comes_back_as_it_is(back):
    there = back({"nan": [math.nan], "nat": pd.NaT, "na": pd.NA})
    assert math.isnan(there["nan"][0])
    assert there["nat"] is pd.NaT
    assert there["na"] is pd.NA


@pytest.mark.parametrize(
    ("value", "comes_as"),
    [
        (Colour.RED, "red"),
        (Place("Oslo", (59.9, 10.7)), {"name": "Oslo", "at": (59.9, 10.7)}),
        ([Row(day="2026-01-01", mm=2)], [{"day": datetime.date(2026, 1, 1), "mm": 2.0}]),
        (np.float64(2.5), 2.5),
        ({np.int64(1): np.bool_(True)}, {1: True}),
        (Pair(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (Name("Ada"), "Ada"),
    ],
)
def test_models_enums_and_subclasses_come_as_the_plain_values_in_them(value, comes_as, back):
    there = back({"x": value})["x"]
    assert there == comes_as
    assert type(there) is type(comes_as)


def test_the_source_of_a_set_is_the_same_each_time(tmp_path):
    sources = {
        give({"x": value}, folder=tmp_path, cwd=tmp_path).source
        for value in ({"b", "a"}, {"a", "b"})
    }
    assert sources == {"x = {'a', 'b'}"}


def test_long_values_lie_in_files_that_others_open(back, tmp_path):
    data = {
        "records": [{"a": math.inf, "b": None}] * 500,
        "pairs": [(1, {2})] * 500,
        "text": "one\r\ntwo\n" * 500,
        "odd": "\ud800" * MAX_LITERAL,
        "raw": bytes(range(256)) * 20,
        "days": [datetime.date(2026, 1, 1)] * 200,
    }
    there = back(data)
    assert {name: there[name] for name in data} == data
    assert there["files"] == {"records.json", "pairs.txt", "text.txt", "odd.json", "raw.bin"}
    assert (tmp_path / "data" / "text.txt").read_bytes() == data["text"].encode()


def test_arrays_lie_in_files_and_come_back_equal(back):
    times = np.array(["2026-01-01"], "datetime64[s]")
    there = back({"array": np.arange(6).reshape(2, 3), "times": times})
    assert np.array_equal(there["array"], np.arange(6).reshape(2, 3))
    assert there["times"].dtype == times.dtype
    assert there["files"] == {"array.npy", "times.npy"}


COLUMN = {"x": [1.5, 2.5]}
FRAMES = {
    "plain": pd.DataFrame({"day": pd.to_datetime(["2026-01-01"]), "rain": [1.5]}),
    "empty": pd.DataFrame({"a": pd.Series([], dtype="int8")}),
    "text index": pd.DataFrame(COLUMN, index=["a", "b"]),
    "multiindex": pd.DataFrame(
        COLUMN, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["k", None])
    ),
    "columns in levels": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])
    ),
    "columns of numbers": pd.DataFrame([[1, 2]], columns=[2024, 2025]),
    "categories": pd.DataFrame({"c": pd.Categorical(["b", "a"], ["b", "a", "z"], ordered=True)}),
    "time zone": pd.DataFrame({"t": pd.to_datetime(["2026-07-01"]).tz_localize("Europe/Berlin")}),
    "frequency": pd.DataFrame(COLUMN, index=pd.date_range("2026-01-01", periods=2, freq="D")),
    "nullable": pd.DataFrame({"n": pd.array([1, None], dtype="Int64")}),
    "intervals and periods": pd.DataFrame(
        {"i": pd.interval_range(0, 2), "p": pd.period_range("2026-01", periods=2, freq="M")}
    ),
    "lists": pd.DataFrame({"tags {x}": [["a"], ["b", "c"]], "n": [1, 2]}, index=[7, 7]),
    "numbers as objects": pd.DataFrame({"o": pd.Series([1, None, 3], dtype=object)}),
    "decimals": pd.DataFrame({"d": [decimal.Decimal("1.10"), decimal.Decimal("2.20")]}),
    "dates": pd.DataFrame({"d": [datetime.date(2026, 1, 1), None]}),
    "records": pd.DataFrame({"r": [{"a": 1}, {"a": 2}]}),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=list(FRAMES))
def test_a_dataframe_of_any_kind_comes_back_equal(frame, back):
    there = back({"df": frame})
    pd.testing.assert_frame_equal(there["df"], frame)
    assert pd.read_feather("data/df.feather").shape == frame.shape
    assert there["files"] == {"df.feather"}


@pytest.mark.parametrize(
    "series",
    [
        pd.Series([1, 2]),
        pd.Series([1.5], name="rain", index=["a"]),
        pd.Series([1, None], name=("two", "{words}"), dtype=object),
        pd.Series([1], name=pd.Timestamp("2026-01-01")),
    ],
    ids=["unnamed", "named", "objects", "named by a date"],
)
def test_a_series_comes_back_with_its_name(series, back):
    there = back({"s": series})
    pd.testing.assert_series_equal(there["s"], series)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ({"ok": [1], "z": [1j]}, "column 'z' (complex128) cannot be held by Arrow"),
        ({"ok": [1, 2], "mixed": [1, "a"]}, "column 'mixed' (object) cannot be held by Arrow"),
        ({"things": [object()]}, "column 'things' (object) cannot be held"),
        ({"meta": [{"a": 1}, {"b": 2}]}, "column 'meta' (object) would come back changed"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two of its columns have the name 'a'"),
        (pd.DataFrame([[1, 2]], columns=[1, "a"]), "column names 1 and 'a' are of different"),
        (pd.DataFrame({"a": [1]}, index=[object()]), "its index (Index) cannot be held"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "column 'a' (Sparse[int64, 0])"),
    ],
)
def test_a_dataframe_that_would_change_is_refused_with_the_column(frame, why, tmp_path):
    with pytest.raises(DataError) as caught:
        give({"df": pd.DataFrame(frame)}, folder=tmp_path / "data", cwd=tmp_path)
    assert why in str(caught.value)
    assert "Data 'df'" in str(caught.value)


def test_tables_of_other_libraries_come_back_as_what_they_are(back):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": [1, None], "b": [["x"], []]})
    table = pa.table({"a": pa.array([1, 2], pa.int8()), "b": [{"c": 1}, None]})
    there = back({"frame": frame, "series": frame["a"], "table": table})
    assert there["frame"].equals(frame)
    assert there["series"].equals(frame["a"])
    assert there["series"].name == "a"
    assert there["table"].equals(table)
    with pytest.raises(DataError, match="column 'o' holds Python objects"):
        back({"x": pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)})})


def test_images_and_figures_come_as_pictures(back):
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([1, 2])
    photo = Image.new("RGB", (3, 2), (10, 20, 30))
    there = back({"photo": photo, "print": Image.new("CMYK", (1, 1)), "plot": figure})
    assert there["photo"].tobytes() == photo.tobytes()
    assert there["print"].mode == "RGB"
    assert there["plot"].size == (100, 50)


def test_a_variable_may_have_the_name_of_a_module(back):
    there = back({"datetime": 1, "day": datetime.date(2026, 1, 1), "pd": 2, "s": pd.Series([3])})
    assert (there["datetime"], there["pd"], there["s"][0]) == (1, 2, 3)
    assert there["day"] == datetime.date(2026, 1, 1)


def test_a_pandas_table_in_the_shape_of_a_subclass_is_a_table(back):
    class MyFrame(pd.DataFrame):
        pass

    assert back({"df": MyFrame({"a": [1]})})["df"].a.tolist() == [1]


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("two words", 1, "name of a variable"),
        ("class", 1, "name of a variable"),
        ("final_answer", 1, "gives the answer"),
        ("f", lambda: 1, "Allowed: a pandas or polars DataFrame"),
        ("o", object(), "Allowed"),
        ("a", np.array([object()]), "array of Python objects"),
        ("m", np.ma.masked_array([1], [True]), r"masked array. .filled\(...\)"),
        ("i", Image.new("F", (1, 1)), "mode 'F'"),
        (
            "x",
            {"a": [1, 2, object()]},
            r"x\['a'\]\[2\] is a builtins.object, which cannot be given",
        ),
        (
            "x",
            {"t": pd.DataFrame()},
            r"x\['t'\] is a .*DataFrame, which .*Give it to `data` under a name",
        ),
        ("x", (n for n in "ab"), r"list\(...\) makes a list"),
        ("x", CYCLE, "contains itself"),
        ("x", [10**5000], "4,000 digits"),
        ("t", datetime.datetime(2026, 1, 1, tzinfo=type("T", (datetime.tzinfo,), {})()), "zone"),
    ],
)
def test_what_cannot_be_given_is_refused_with_its_name_and_place(name, value, why):
    with pytest.raises(DataError, match=why) as caught:
        check_names({name: value})
    assert caught.value.name == name


def test_a_long_value_that_no_file_holds_is_refused(tmp_path):
    days = [datetime.date(2026, 1, 1)] * 5000
    with pytest.raises(DataError, match="its source has 135,000 characters"):
        give({"days": days}, folder=tmp_path, cwd=tmp_path)


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        give({"x": pd.DataFrame({"a": [1]})}, folder=tmp_path / "file" / "data", cwd=tmp_path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Image.new("L", (640, 480)), "x: PIL image, 640×480 pixels, mode L"),
        (np.array([[1.0, math.nan, 3.0]]), "x: numpy array, shape (1, 3), float64"),
        (np.array(["a"]), "x: numpy array, shape (1,), <U1"),
        ("long " * 1000, "x: str of 5,000 characters, begins 'long long"),
        (list(range(100_000)), "x: list (100,000 items) = [0, 1, 2"),
        (pa.table({"a": [1, None]}), ' columns\n- "a": int64, 1 missing; first rows: 1, None'),
        (FRAMES["multiindex"], '; index "k", unnamed: MultiIndex, first (\'a\''),
        (FRAMES["text index"], "; index unnamed: Index of str, first \"a\"\n"),
        (
            pd.DataFrame({"n": np.arange(300_000.0), "t": ["a", "b", "c"] * 100_000}),
            '- "n": float64, none missing, 0 to 299999; first rows: 0, 1, 2\n'
            '- "t": str, none missing, in the first 20,000 rows "a" 6667×, "b" 6667×, "c" 6666×;',
        ),
    ],
    ids=["image", "array", "texts", "str", "list", "table", "levels", "index", "many rows"],
)  # fmt: skip
def test_the_model_is_shown_what_a_value_is_and_never_all_of_it(value, said):
    shown = _variable("x", value)
    assert said in shown
    assert len(shown) < MAX_TEXT + 100


def test_a_polars_table_is_shown_without_pandas():
    pl = pytest.importorskip("polars")
    shown = _variable("x", pl.DataFrame({"a": [1, None], "b": ["x", "y"]}))
    assert shown.splitlines() == [
        "x: polars DataFrame, 2 rows × 2 columns",
        '- "a": Int64, 1 missing; first rows: 1, None',
        '- "b": String, none missing; first rows: "x", "y"',
    ]
