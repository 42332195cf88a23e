"""What `final_answer` gives comes back as the value that it was."""

from __future__ import annotations

import base64
import json
import os
import pickle
import shutil
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from kernel_agent import Agent, ScriptedModel, answers
from kernel_agent.answer_types import UnfitAnswerError, typed, wanted
from kernel_agent.answers import decoded, keep
from kernel_agent.border.codec import TAG, encode
from kernel_agent.errors import SettingsError
from kernel_agent.kernel import Kernel
from kernel_agent.steps import ANSWER_MIME, CellResult, Observation, Outcome, Reply, Step, Task
from kernel_agent.transcript import Transcript

FRAME = (
    "import pandas as pd, numpy as np\n"
    "df = pd.DataFrame({'n': range(20_000), 't': pd.date_range('2026-01-01', periods=20_000)})\n"
)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with Kernel(cwd=tmp_path_factory.mktemp("work")) as kernel:
        yield kernel


def transcript_of(kernel: Kernel, source: str, path: Path) -> Transcript:
    """A run whose only cell is `source`, as the loop makes it."""
    result = keep(kernel.execute(source), source=kernel.answer_folder, notebook=path)
    transcript = Transcript("s", path=path)
    transcript.add(Task("t", "p"))
    transcript.add(Step(Reply("r"), "r", "", result, Observation("o")))
    transcript.finish(Outcome("answered"))
    return transcript


def output_of(payload: Any, **forms: Any) -> dict[str, Any]:
    data = {"text/plain": "text", ANSWER_MIME: payload, **forms}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def result_of(payload: Any) -> CellResult:
    return CellResult("s", outputs=(output_of(payload),))


def test_a_table_comes_back_also_on_another_machine_and_as_text_without_its_folder(
    kernel, tmp_path
):
    run = transcript_of(kernel, FRAME + "final_answer(df)", tmp_path / "run.ipynb")
    expected = pd.DataFrame({"n": range(20_000), "t": pd.date_range("2026-01-01", periods=20_000)})
    pd.testing.assert_frame_equal(run.answer, expected, check_freq=False)
    assert run.plain_answer == run.steps[0].result.answer["data"]["text/plain"]
    assert "<table" in run.steps[0].result.answer["data"]["text/html"]
    (file,) = (tmp_path / "run-answer").iterdir()
    assert file.suffix == ".arrow"
    assert str(tmp_path) not in (tmp_path / "run.ipynb").read_text()
    there = tmp_path / "elsewhere"
    there.mkdir()
    shutil.copy(tmp_path / "run.ipynb", there)
    alone = Transcript.load(there / "run.ipynb")
    assert alone.entries == run.entries
    assert alone.answer == run.plain_answer
    shutil.copytree(tmp_path / "run-answer", there / "run-answer")
    pd.testing.assert_frame_equal(alone.answer, expected, check_freq=False)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{'m': np.eye(200), (1, 2): {3}}", {"m": np.eye(200), (1, 2): {3}}),
        ("pd.Series([1.5, None], name='x')", pd.Series([1.5, None], name="x")),
        ("float('nan')", float("nan")),
        ("b'raw'", b"raw"),
        ("__import__('datetime').date(2026, 1, 1)", date(2026, 1, 1)),
        ("'long ' * 300_000", "long " * 300_000),
        ("list(range(300_000))", list(range(300_000))),
        ("__import__('decimal').Decimal('1.5')", __import__("decimal").Decimal("1.5")),
    ],
    ids=["array in a dict", "series", "nan", "bytes", "date", "long text", "long list", "decimal"],
)
def test_other_values_come_back_as_such(kernel, source, expected, tmp_path):
    cell = f"import pandas as pd, numpy as np\nfinal_answer({source})"
    run = transcript_of(kernel, cell, tmp_path / "run.ipynb")
    answer = run.answer
    assert type(answer) is type(expected)
    if isinstance(expected, dict):
        assert np.array_equal(answer["m"], np.eye(200))
        assert answer[1, 2] == {3}
    else:
        pd.testing.assert_series_equal(pd.Series([answer]), pd.Series([expected]))
    assert len(json.dumps(run.steps[0].result.answer["data"][ANSWER_MIME])) < 200_000


def test_pictures_come_back_from_what_is_shown_and_are_stored_once(kernel, tmp_path):
    figure = (
        "from matplotlib.figure import Figure\nf = Figure(figsize=(4, 2), dpi=100)\n"
        "f.subplots().plot([1, 2]); final_answer(f)"
    )
    run = transcript_of(kernel, figure, tmp_path / "figure.ipynb")
    assert run.answer.width > 200
    image = "from PIL import Image; final_answer(Image.new('RGB', (3, 2), (1, 2, 3)))"
    run = transcript_of(kernel, image, tmp_path / "image.ipynb")
    assert run.answer.tobytes() == bytes([1, 2, 3] * 6)
    assert not (tmp_path / "image-answer").exists()
    assert run.steps[0].result.answer["data"][ANSWER_MIME].keys() == {"shown", "text"}


def test_what_cannot_be_carried_is_its_text_and_never_no_answer(kernel, tmp_path):
    run = transcript_of(kernel, "final_answer(print)", tmp_path / "function.ipynb")
    assert run.answer == "<function print>" or "print" in run.answer
    source = "class A:\n    def __repr__(self): return 'x' * 7_000_000\nfinal_answer(A())"
    run = transcript_of(kernel, source, tmp_path / "long.ipynb")
    assert run.answer.startswith("xxx")
    assert run.answer.endswith("… of 7,000,000 characters")


def test_without_a_shared_folder_small_tables_are_in_the_notebook_and_large_ones_are_text(
    kernel, tmp_path
):
    sources = "__import__('sys').modules['kernel_agent_inside']._carried['sources']"
    assert kernel.report(f"carry({sources}, None)")
    try:
        run = transcript_of(kernel, FRAME + "final_answer(df[:100])", tmp_path / "small.ipynb")
        assert run.answer.shape == (100, 2)
        assert not (tmp_path / "small-answer").exists()
        large = FRAME + "final_answer(pd.concat([df] * 10))"
        assert isinstance(transcript_of(kernel, large, tmp_path / "large.ipynb").answer, str)
    finally:
        assert kernel.report(f"carry({sources}, {str(kernel.answer_folder)!r})")


def test_a_run_gives_a_table_as_such_and_its_listeners_the_text(tmp_path):
    events: list[Any] = []
    model = ScriptedModel([f"I answer.\n```python\n{FRAME}final_answer(df)\n```"])
    with Agent(model, cwd=tmp_path, listener=events.append) as agent:
        run = agent.run("Which?", out=tmp_path / "run.ipynb")
    assert run.answer.shape == (20_000, 2)
    assert events[-1].answer == run.transcript.plain_answer
    assert "[20000 rows x 2 columns]" in events[-1].answer


def test_only_the_answer_that_counts_is_kept(kernel, tmp_path):
    twice = kernel.execute(FRAME + "final_answer(df)\nfinal_answer(df.n)")
    failed = kernel.execute(FRAME + "final_answer(df)\n1 / 0")
    for result, files in ((failed, 0), (twice, 1)):
        kept = keep(result, source=kernel.answer_folder, notebook=tmp_path / "run.ipynb")
        assert len(list(tmp_path.glob("run-answer/*"))) == files
        assert "encoded" not in kept.outputs[0]["data"][ANSWER_MIME]
    assert "encoded" in kept.outputs[1]["data"][ANSWER_MIME]


def test_an_answer_that_is_too_large_stays_text_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "MAX_BYTES", 100_000)
    pair = [np.zeros(10_000), np.ones(10_000)]
    payload = {"encoded": encode(pair, folder=tmp_path, inline_bytes=100), "text": "[0., …]"}
    kept = keep(result_of(payload), source=tmp_path, notebook=tmp_path / "run.ipynb")
    answer = decoded(kept.answer, folder=tmp_path)
    assert answer.startswith("[0., …]\n[Only this text of the answer is kept: ")
    assert "more than 100,000 bytes" in answer
    assert not (tmp_path / "run-answer").exists()


def test_a_transcript_in_memory_holds_the_value_itself(tmp_path):
    value = {"a": np.arange(50_000), "b": "long " * 50_000}
    payload = {"encoded": encode(value, folder=tmp_path), "text": "…"}
    kept = keep(result_of(payload), source=tmp_path, notebook=None)
    answer = decoded(kept.answer, folder=None)
    assert answer["b"] == value["b"]
    assert np.array_equal(answer["a"], value["a"])


def test_a_deep_value_is_not_cut_by_the_notebook(tmp_path):
    deep: Any = {1}
    for _ in range(80):
        deep = [deep]
    payload = {"encoded": encode(deep, folder=tmp_path), "text": "…"}
    path = tmp_path / "run.ipynb"
    result = keep(result_of(payload), source=tmp_path, notebook=path)
    transcript = Transcript("s", path=path)
    transcript.add(Task("t", "p"))
    transcript.add(Step(Reply("r"), "r", "", result, Observation("o")))
    assert Transcript.load(path).answer == deep


class Evil:
    def __reduce__(self):
        return os.mkdir, ("pickled",)


def hostile_payloads(folder: Path) -> dict[str, Any]:
    """Answers that a kernel or a notebook of somebody else's may hold."""
    np.save(folder / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    evil = base64.b64encode((folder / "evil.npy").read_bytes()).decode()
    pickled = base64.b64encode(pickle.dumps(Evil())).decode()
    secret = folder / "secret"
    secret.mkdir()
    name = encode(b"x" * 100, folder=secret, inline_bytes=0)["file"]
    return {
        "pickled array": {"encoded": {TAG: "ndarray", "data": evil}},
        "pickle": {"encoded": {TAG: "ndarray", "data": pickled}},
        "another's folder": {"encoded": {TAG: "bytes", "file": name}, "folder": "../secret"},
        "the folder above": {"encoded": {TAG: "bytes", "file": name}, "folder": ".."},
        "an absolute folder": {"encoded": {TAG: "bytes", "file": name}, "folder": str(secret)},
        "a path as name": {"encoded": {TAG: "bytes", "file": f"secret/{name}"}},
        "no such file": {"encoded": {TAG: "bytes", "file": "0" * 40 + ".bin"}},
        "odd": {"encoded": {TAG: ["x"], "file": {}}},
        "deep": {"encoded": json.loads("[" * 900 + "]" * 900)},
        "no picture": {"shown": "image/png"},
        "shown text": {"shown": "text/plain"},
    }  # fmt: skip


def test_a_hostile_answer_is_text_and_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    for what, payload in hostile_payloads(tmp_path).items():
        output = output_of({**payload, "text": "the text"})
        assert decoded(output, folder=run) == "the text", what
        result = CellResult("s", outputs=(output,))
        kept = keep(result, source=run, notebook=run / "run.ipynb")
        assert str(decoded(kept.answer, folder=run)).startswith("the text"), what
    assert not (tmp_path / "pickled").exists()


class Station(BaseModel):
    name: str = Field(description="as the file has it")
    mm: float = Field(ge=0)
    opened: date | None = None


@dataclass
class Point:
    x: int
    y: int = 0


class Row(TypedDict):
    month: int
    total: float


class Tree(BaseModel):
    label: str
    below: list[Tree] = []


@pytest.mark.parametrize(
    ("value", "answer_type", "expected"),
    [
        ({"name": "Oslo", "mm": 1}, Station, Station(name="Oslo", mm=1.0)),
        (
            [{"name": "Oslo", "mm": 1, "opened": "2026-01-01"}],
            list[Station],
            [Station(name="Oslo", mm=1, opened=date(2026, 1, 1))],
        ),
        ({"x": 3}, Point, Point(3)),
        ({"month": 1, "total": 2}, Row, {"month": 1, "total": 2.0}),
        ("yes", Literal["yes", "no"], "yes"),
        (" yes\n", Literal["yes", "no"], "yes"),
        ('"yes"', Literal["yes", "no"], "yes"),
        (3.0, int, 3),
        ("42", int, 42),
        ("It is 42.", str, "It is 42."),
        ('{"name": "Oslo", "mm": 1}', Station, Station(name="Oslo", mm=1)),
        ('```json\n{"x": 1, "y": 2}\n```', Point, Point(1, 2)),
        ([1, [2]], tuple[int, list[int]], (1, [2])),
    ],
)
def test_an_answer_that_fits_is_a_value_of_its_type(value, answer_type, expected):
    assert typed(value, answer_type) == expected


def test_a_class_that_is_no_model_is_checked_by_instance():
    frame = pd.DataFrame({"a": [1]})
    assert typed(frame, pd.DataFrame) is frame
    assert typed({"x": frame}, dict[str, pd.DataFrame])["x"] is frame
    with pytest.raises(UnfitAnswerError, match=r"must be of the type pandas\.DataFrame"):
        typed([1], pd.DataFrame)


def test_what_does_not_fit_is_told_field_by_field():
    value = [{"name": "Oslo", "mm": -1}, {"mm": "much", "opened": "soon"}]
    with pytest.raises(UnfitAnswerError) as caught:
        typed(value, list[Station])
    lines = str(caught.value).splitlines()
    assert lines[:3] == [
        "The answer does not fit:",
        "- [0].mm: input should be greater than or equal to 0, but is -1 (int)",
        "- [1].name: field required",
    ]
    assert lines[3].startswith("- [1].mm: input should be a valid number")
    assert lines[3].endswith("but is 'much' (str)")
    assert "must be JSON" in lines[-1]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("The total is 42.", "it: input should be"),
        ('{"x": "a"}', "x: input should be a valid integer"),
        (pd.DataFrame({"x": [1]}), ".to_dict('records')"),
        ({"x": "y" * 1000}, f"but is '{'y' * 59}…"),
    ],
    ids=["prose", "json", "a table", "long"],
)
def test_the_message_is_about_the_value_that_was_given(value, says):
    with pytest.raises(UnfitAnswerError) as caught:
        typed(value, Point)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_line_for_the_model_has_all_that_the_type_says_and_no_more():
    line = wanted(list[Station])
    schema = json.loads(line[line.index("{") :])
    assert schema == {
        "type": "array",
        "items": {
            "properties": {
                "name": {"description": "as the file has it", "type": "string"},
                "mm": {"minimum": 0, "type": "number"},
                "opened": {
                    "anyOf": [{"format": "date", "type": "string"}, {"type": "null"}],
                    "default": None,
                },
            },
            "required": ["name", "mm"],
            "type": "object",
        },
    }
    assert '"type": "Tree"' in wanted(Tree)
    assert wanted(pd.DataFrame).endswith("must be of the type pandas.DataFrame.")
    assert '"additionalProperties": {"type": "integer"}' in wanted(dict[str, int])


@pytest.mark.parametrize("answer_type", [3, "NotThere", list[3], {}])
def test_a_type_that_cannot_be_checked_is_refused_at_once(answer_type):
    with pytest.raises(SettingsError, match=r"answer_type .*(3|NotThere|{}).* cannot be used: "):
        wanted(answer_type)


def test_results_without_an_answer_stay_as_they_are():
    plain = CellResult("s", outputs=({"output_type": "stream", "name": "stdout", "text": "x"},))
    for result in (plain, result_of({"value": 1}), replace(plain, status="error"), result_of(3)):
        assert keep(result, source=None, notebook=None) == result


def test_an_answer_of_another_type_than_was_wanted_goes_back_to_the_model(tmp_path):
    class Month(BaseModel):
        name: str
        rain: float

    replies = [
        "```python\nfinal_answer({'name': 'May', 'rain': 'much'})\n```",
        "```python\nfinal_answer({'name': 'May', 'rain': 12.5})\n```",
    ]
    model = ScriptedModel(replies)
    with Agent(model, folder=tmp_path, cwd=tmp_path) as agent:
        run = agent.run("Which month?", answer_type=Month)
    assert run.answer == Month(name="May", rain=12.5)
    assert "rain" in model.requests[1][-1]["content"]
    assert "rain" in model.requests[0][1]["content"], "the task says what is wanted"
