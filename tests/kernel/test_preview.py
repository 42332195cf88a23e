import json

import pandas as pd
import pytest

from kernel_agent.kernel import Kernel, preview


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with Kernel(cwd=tmp_path_factory.mktemp("work")) as kernel:
        yield kernel


def shown(kernel, name, write):
    write(kernel.cwd / name)
    (text,) = kernel.previews("files", [name])
    return text


def test_a_csv_shows_shape_quoted_names_types_missing_values_and_three_rows(kernel):
    text = shown(kernel, "a.csv", lambda p: p.write_text("x, y\n1,a\n2,\n3,c\n4,d\n"))
    assert text.splitlines() == [
        'File "a.csv" (20 bytes, 4 rows × 2 columns as pandas reads it)',
        '- "x": int64, none missing, 1 to 4, 4 distinct; first rows: 1, 2, 3',
        '- " y": str, 1 missing, "a" 1×, "c" 1×, "d" 1×; first rows: "a", nan, "c"',
    ]


def test_a_preview_leaves_the_users_namespace_alone(kernel):
    shown(kernel, "n.csv", lambda p: p.write_text("x\n1\n"))
    names = kernel.execute("sorted(set(dir()) & {'pandas', 'files', 'csv', 'get_ipython'})")
    assert names.outputs[0]["data"]["text/plain"] == "['get_ipython']"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("semi.csv", "a;b\n1;2\n3;4\n5;6\n", "sep=';'"),
        ("tab.tsv", "a\tb\n1\t2\n", r"sep='\t'"),
        ("latin.csv", "name\ncafé\n".encode("latin-1"), "encoding='latin-1'"),
    ],
)
def test_a_csv_that_needs_options_says_how_to_read_it(kernel, name, content, says):
    data = content if isinstance(content, bytes) else content.encode()
    assert says in shown(kernel, name, lambda p: p.write_bytes(data))


def test_other_tables_are_read_as_what_they_are(kernel):
    table = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    parquet = shown(kernel, "t.parquet", table.to_parquet)
    excel = shown(kernel, "t.xlsx", lambda p: table.to_excel(p, index=False))
    records = shown(kernel, "t.json", lambda p: p.write_text(json.dumps([{"a": 1}, {"a": 2}])))
    lines = shown(kernel, "t.jsonl", lambda p: p.write_text('{"a": 1}\n{"a": 2}\n'))
    assert "2 rows × 2 columns" in parquet
    assert 'sheets "Sheet1"' in excel
    assert "a list of 2 objects" in records
    assert '"b": str, 1 missing' in parquet
    assert '- "a": int64' in lines


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("notes.txt", b"hello\nworld", "It begins:\nhello\nworld"),
        ("image.bin", b"\0\1\2", "It is a binary file."),
        ("empty.csv", b"", "cannot be read as a table: EmptyDataError"),
        ("broken.json", b"{", "cannot be read as a table: JSONDecodeError"),
        ("fake.parquet", b"not parquet at all", "cannot be read as a table: ArrowInvalid"),
        ("deep.json", b'{"a": 1, "b": 2}', "an object with 2 keys"),
    ],
)
def test_what_is_no_table_shows_its_size_and_beginning(kernel, name, data, says):
    assert says in shown(kernel, name, lambda p: p.write_bytes(data))


def test_of_a_huge_file_only_the_beginning_is_read(tmp_path, monkeypatch):
    path = tmp_path / "big.csv"
    path.write_text("a,b\n" + "1,2\n" * 50_000)
    monkeypatch.setattr(preview, "MAX_BYTES", 1000)
    monkeypatch.setattr(preview, "HEAD_ROWS", 100)
    (text,) = preview.files([str(path)])
    assert "about 50,000 rows × 2 columns" in text
    assert "the first 100 rows" in text


def test_a_table_of_many_columns_is_bounded(kernel):
    wide = ",".join(f"column{i}" for i in range(500))
    text = shown(kernel, "wide.csv", lambda p: p.write_text(wide + "\n"))
    assert "and 440 more columns" in text
    assert len(text) < 6_000


def test_few_texts_are_counted_and_of_many_the_range_and_the_commonest_are_told(kernel):
    rows = [f"2026/01/{day:02d},{'north ' if day < 3 else 'North'},{day}\n" for day in range(1, 31)]
    rows += ["-,North,-\n"] * 10
    text = shown(kernel, "many.csv", lambda p: p.write_text("day,region,n\n" + "".join(rows)))
    assert '"day": str, none missing, "-" to "2026/01/30", 31 distinct, "-" 10×;' in text
    assert '"region": str, none missing, "North" 38×, "north " 2×;' in text


def test_values_are_short_and_any_type_of_column_is_shown(kernel):
    kernel.execute(
        "import pandas as pd\nodd = pd.DataFrame({'f': [0.37715947248000004, 1e9], "
        "'lists': [[1], [2]], 'time': pd.to_datetime(['2026-01-01', '2026-02-01']), "
        "'none': [None, None], 'flag': [True, False]})"
    )
    (text,) = kernel.previews("variables", ["odd"])
    assert "0.377159 to 1e+09, 2 distinct; first rows: 0.377159, 1e+09" in text
    assert '"lists": object, none missing, [1] 1×, [2] 1×; first rows: [1], [2]' in text
    assert "2026-01-01 00:00:00 to 2026-02-01 00:00:00" in text
    assert '"none": object, 2 missing; first rows: None, None' in text
    assert '"flag": bool, none missing, True 1×, False 1×' in text


def test_variables_are_shown_by_type_and_shape(kernel):
    kernel.execute(
        "import pandas as pd, numpy as np\nt = pd.DataFrame({'a': [1]}); v = [1, 2]; "
        "m = np.zeros((2, 3)); s = pd.Series([1.5], name='price')"
    )
    table, values, matrix, series = kernel.previews("variables", ["t", "v", "m", "s"])
    assert table.startswith("t: DataFrame, 1 rows × 1 columns")
    assert values == "v: list (2 items) = [1, 2]"
    assert matrix == "m: numpy array, shape (2, 3), float64"
    assert '"price": float64' in series
