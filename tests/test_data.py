from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kernel_agent.data import check_names, give
from kernel_agent.errors import DataError


def back(given, cwd, monkeypatch):
    monkeypatch.chdir(cwd)
    namespace = {}
    exec(given.source, namespace)
    return namespace


@pytest.mark.parametrize(
    "value", [None, True, 1, 2.5, "text\n'quoted'", b"\0", [1, [2]], (1,), {"a": {1: 2}}, {1, 2}]
)
def test_plain_values_come_back_equal_and_stand_in_the_source(value, tmp_path, monkeypatch):
    given = give({"x": value}, folder=tmp_path / "data", cwd=tmp_path)
    assert given.files == ()
    assert back(given, tmp_path, monkeypatch)["x"] == value
    assert not (tmp_path / "data").exists()


def test_tables_arrays_and_long_values_go_through_files(tmp_path, monkeypatch):
    table = pd.DataFrame({"day": pd.to_datetime(["2026-01-01"]), "rain": [1.5]}, index=["a"])
    data = {
        "table": table,
        "series": table["rain"],
        "unnamed": pd.Series([1, 2]),
        "array": np.arange(6).reshape(2, 3),
        "long": ["word"] * 2000,
        "path": Path("some/file"),
    }
    given = give(data, folder=tmp_path / "data", cwd=tmp_path)
    there = back(given, tmp_path, monkeypatch)
    pd.testing.assert_frame_equal(there["table"], table)
    pd.testing.assert_series_equal(there["series"], table["rain"])
    pd.testing.assert_series_equal(there["unnamed"], data["unnamed"])
    assert np.array_equal(there["array"], data["array"])
    assert there["long"] == data["long"]
    assert there["path"] == Path("some/file")
    assert {f.name for f in given.files} == {
        "table.parquet", "series.parquet", "unnamed.parquet", "array.npy", "long.txt"
    }  # fmt: skip
    assert str(tmp_path) not in given.source


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("two words", 1, "name of a variable"),
        ("class", 1, "name of a variable"),
        ("final_answer", 1, "gives the answer"),
        ("f", lambda: 1, "Allowed: a pandas DataFrame"),
        ("o", object(), "Allowed"),
        ("a", np.array([object()]), "Allowed"),
    ],
)
def test_what_cannot_be_given_is_refused_with_its_name(name, value, why):
    with pytest.raises(DataError, match=why):
        check_names({name: value})


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        give({"x": pd.DataFrame({"a": [1]})}, folder=tmp_path / "file" / "data", cwd=tmp_path)
