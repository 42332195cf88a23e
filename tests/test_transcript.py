"""The record of a run: entries in memory, and the same entries back from the notebook."""

from __future__ import annotations

import json
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.errors import TranscriptError
from kernel_agent.steps import (
    ANSWER_MIME,
    CellResult,
    Note,
    Observation,
    Outcome,
    Plan,
    Reply,
    RequestedCall,
    Step,
    Task,
    ToolCall,
    Usage,
    UserCell,
)
from kernel_agent.transcript import Transcript, new_path
from kernel_agent.transcript.messages import messages_of
from kernel_agent.transcript.storable import MAX_DEPTH
from tests.examples import examples

PNG = "iVBORw0KGgo="
TASK = Task("Which month is the wettest?", "Which month is the wettest?\nSteps: 10")
LOOK = Step(
    Reply("I look.\n```python\nx\n```", "hm", "stop", Usage(10, 5, 2, 1, 0.25, 1.5)),
    "I look.\n```python\nx\n```",
    "I look.",
    CellResult(
        "x",
        outputs=({"output_type": "stream", "name": "stdout", "text": "1\n2\n"},),
        execution_count=1,
        seconds=0.5,
        started=1.7e9,
        variables={"x": "int"},
    ),
    Observation("1\n2\n"),
)
UNUSABLE = Step(Reply("", finish_reason="length"), "", "", None, Observation("No code, no answer."))
ANSWER = Step(Reply("December."), "December.", "December.")


def final(value: Any, text: str = "") -> Step:
    data = {"text/plain": text or repr(value), ANSWER_MIME: value}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    result = CellResult("final_answer(x)", outputs=(output,), execution_count=2)
    return Step(Reply("```python\nfinal_answer(x)\n```"), "", "", result, Observation("ok"))


def valid(path: Path) -> Any:
    """The notebook at `path`, which must be valid and in exactly nbformat's style."""
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) + "\n" == path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["nbformat_minor"] == 5
    return notebook


texts = st.text(max_size=30) | st.sampled_from(
    ["", " ", "\n", " \r\n\u2028x\x0b", "\ud800", "a\ud83d\ude00b", "\x00\x1b[31m", "## Answer\n\n"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
images = st.sampled_from([f"data:image/png;base64,{PNG}", "data:image/gif;base64,R0lGODlh", "odd"])
mimes = st.sampled_from(
    ["text/plain", "text/html", "image/png", "image/svg+xml", "application/json", ANSWER_MIME]
)
outputs = (
    st.fixed_dictionaries(
        {"output_type": st.just("stream"), "name": st.sampled_from(["stdout", "stderr"])},
        optional={"text": texts | st.lists(texts, max_size=2)},
    )
    | st.fixed_dictionaries(
        {"output_type": st.sampled_from(["display_data", "execute_result", "error", "odd"])},
        optional={
            "data": st.dictionaries(mimes, json_values | st.just(f"{PNG}\n"), max_size=3),
            "metadata": json_values,
            "execution_count": json_values,
            "traceback": json_values,
            "transient": json_values,
        },
    )
    | st.dictionaries(texts, json_values, max_size=2)
)
seconds = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**9)
usages = st.builds(
    Usage, counts, counts, counts, counts, st.none() | seconds, seconds, st.floats(0, 1e6)
)
objects = st.dictionaries(texts, json_values, max_size=2)
requested = st.builds(RequestedCall, texts, texts, texts, objects)
replies = st.builds(
    Reply,
    texts | st.just("<think>\nhm\n</think>\nSo."),
    texts,
    st.none() | texts,
    usages,
    st.lists(requested, max_size=2).map(tuple),
    st.lists(objects, max_size=2).map(tuple),
    texts,
)
observations = st.builds(Observation, texts, st.lists(images, max_size=3).map(tuple))
arguments = st.fixed_dictionaries({"args": st.lists(json_values, max_size=2)})
calls = st.builds(ToolCall, texts, arguments, json_values, texts, seconds, usages)
results = st.builds(
    CellResult,
    texts,
    st.sampled_from(["ok", "error", "interrupted", "died"]),
    st.lists(outputs, max_size=3).map(tuple),
    st.none() | st.integers(0, 99),
    seconds,
    seconds,
    texts,
    st.dictionaries(texts, texts, max_size=2),
    texts,
    st.lists(st.none() | texts, max_size=2).map(tuple),
    st.lists(calls, max_size=2).map(tuple),
)
notes = st.builds(Note, texts) | st.builds(Plan, replies, texts, texts, texts)
tasks = st.builds(Task, texts, texts, st.lists(images, max_size=2).map(tuple), texts)
steps = st.builds(Step, replies, texts, texts, st.none() | results, st.none() | observations)
outcomes = st.builds(
    Outcome,
    st.sampled_from(["answered", "limit", "interrupted", "failed"]),
    st.sampled_from([None, "max_steps", "max_cost", "max_tokens", "max_seconds"]),
    texts,
)


@examples(100)
@given(texts, st.lists(tasks | steps | notes, max_size=4), st.none() | outcomes, st.none() | steps)
def test_what_is_saved_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    system: str,
    entries: list[Task | Step | Note],
    outcome: Outcome | None,
    begun: Step | None,
) -> None:
    transcript = Transcript(system, about={"model": {"name": "m"}, "odd": float("nan")})
    for entry in entries:
        transcript.add(entry)
    if begun:
        transcript.begin(begun)
    if outcome:
        transcript.finish(outcome)
    transcript.path = tmp_path_factory.mktemp("run") / "run.ipynb"
    transcript.save()
    valid(transcript.path)
    loaded = Transcript.load(transcript.path)
    for name in (
        "system entries tasks steps task_steps pending outcome outcomes usage answer about "
        "run_id started finished path"
    ).split():
        assert getattr(loaded, name) == getattr(transcript, name), name
    assert json.dumps(loaded.messages()) == json.dumps(transcript.messages())
    native = [messages_of(one.system, one.entries, native=True) for one in (loaded, transcript)]
    assert json.dumps(native[0]) == json.dumps(native[1])
    before = transcript.path.read_bytes()
    loaded.save()
    assert transcript.path.read_bytes() == before


@pytest.mark.parametrize("entry", [TASK, LOOK, UNUSABLE, ANSWER, final({"value": 3})])
def test_what_a_notebook_can_hold_is_kept_as_it_is(entry: Task | Step) -> None:
    transcript = Transcript("")
    transcript.add(entry)
    assert transcript.entries == (entry,)


def test_a_lone_surrogate_becomes_a_replacement_character_in_memory_as_on_disk() -> None:
    transcript = Transcript("system \ud800", path=None)
    transcript.add(Task("t \udc80", "p \ud83d\ude00"))
    assert transcript.system == "system \ufffd"
    assert transcript.tasks[0] == Task("t \ufffd", "p 😀")


ODD_OUTPUTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"output_type": "stream", "text": ["a\n", "b"], "transient": {}},
        {"output_type": "stream", "name": "stdout", "text": "a\nb"},
    ),
    (
        {"output_type": "display_data", "data": {"text/plain": 3, "application/json": (1, {2: 3})}},
        {
            "output_type": "display_data",
            "data": {"text/plain": "3", "application/json": [1, {"2": 3}]},
            "metadata": {},
        },
    ),
    (
        {"output_type": "execute_result", "data": None, "execution_count": -1},
        {"output_type": "execute_result", "execution_count": None, "data": {}, "metadata": {}},
    ),
    (
        {"output_type": "error", "traceback": None, "evalue": None},
        {"output_type": "error", "ename": "", "evalue": "null", "traceback": []},
    ),
    (
        {"output_type": "display_data", "data": {"application/x+json": float("inf")}},
        {"output_type": "display_data", "data": {"application/x+json": "inf"}, "metadata": {}},
    ),
    (
        {"output_type": "pyout", "text": "x"},
        {
            "output_type": "display_data",
            "data": {"text/plain": '{"output_type": "pyout", "text": "x"}'},
            "metadata": {},
        },
    ),
]


@pytest.mark.parametrize(("sent", "kept"), ODD_OUTPUTS)
def test_an_odd_output_is_kept_in_a_valid_form(sent: dict[str, Any], kept: dict[str, Any]) -> None:
    transcript = Transcript("")
    transcript.add(Step(Reply("r"), "r", "", CellResult("s", outputs=(sent,)), Observation("o")))
    result = transcript.steps[0].result
    assert result is not None
    assert result.outputs == (kept,)


def test_json_that_is_too_deep_is_cut(tmp_path: Path) -> None:
    deep: Any = 0
    for _ in range(10 * MAX_DEPTH):
        deep = [deep]
    output = {"output_type": "display_data", "data": {"application/json": deep}, "metadata": {}}
    transcript = Transcript("", path=tmp_path / "deep.ipynb")
    transcript.add(Step(Reply("r"), "r", "", CellResult("s", outputs=(output,)), Observation("o")))
    valid(tmp_path / "deep.ipynb")
    assert Transcript.load(tmp_path / "deep.ipynb").entries == transcript.entries


ANSWERS: list[tuple[list[Task | Step], Any]] = [
    ([], None),
    ([TASK], None),
    ([TASK, LOOK], None),
    ([TASK, UNUSABLE], None),
    ([TASK, ANSWER], "December."),
    ([TASK, final({"value": {"month": 12}})], {"month": 12}),
    ([TASK, final({"text": "<Figure>"})], "<Figure>"),
    ([TASK, final("odd")], None),
    ([TASK, final({"value": 1}), LOOK], None),
    ([TASK, ANSWER, TASK], None),
]


@pytest.mark.parametrize(("entries", "answer"), ANSWERS)
def test_the_answer_is_the_last_step_s_of_the_last_task(
    entries: list[Task | Step], answer: Any
) -> None:
    transcript = Transcript("")
    for entry in entries:
        transcript.add(entry)
    assert transcript.answer == answer


def test_usage_is_the_sum_of_all_steps() -> None:
    transcript = Transcript("")
    for entry in (TASK, LOOK, TASK, LOOK, ANSWER):
        transcript.add(entry)
    assert transcript.usage == Usage(20, 10, 4, 2, 0.5, 3.0, 1.0)
    assert transcript.task_steps == (LOOK, ANSWER)


def test_messages_of_the_user_that_follow_each_other_are_one() -> None:
    transcript = Transcript("Be brief.")
    shown = Step(Reply("r"), "said", "", CellResult("s"), Observation("seen", ("data:a",)))
    for entry in (shown, Task("more", "prompt", ("data:b",)), Task("again", "again")):
        transcript.add(entry)
    assert transcript.messages() == [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "said"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "seen\n\nprompt\n\nagain"},
                {"type": "image_url", "image_url": {"url": "data:a"}},
                {"type": "image_url", "image_url": {"url": "data:b"}},
            ],
        },
    ]


def test_the_notebook_is_valid_after_every_call_and_its_cells_keep_their_ids(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path, cwd=tmp_path.parent, prelude="a = 1\n")
    ids: list[str] = []

    def check() -> None:
        now = [cell["id"] for cell in valid(path).cells]
        assert [name for name in now if name in ids] == ids
        ids[:] = now

    transcript.save()
    for task, step, outcome in (
        (TASK, LOOK, Outcome("limit", "max_steps")),
        (Task("again", "again", setup="y = 2"), UNUSABLE, Outcome("interrupted")),
        (TASK, final({"value": "December"}), Outcome("answered", "max_cost")),
        (TASK, ANSWER, Outcome("answered")),
    ):
        transcript.add(task)
        check()
        transcript.begin(step)
        check()
        transcript.begin(LOOK)
        check()
        transcript.add(LOOK)
        check()
        transcript.add(step)
        check()
        transcript.finish(outcome)
        transcript.finish(outcome)
        check()


def test_two_recordings_differ_only_in_times_and_the_run_s_id(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        transcript = Transcript("s", path=tmp_path / name)
        for entry in (TASK, LOOK, ANSWER):
            transcript.add(entry)
        transcript.finish(Outcome("answered"))
        notebook = json.loads((tmp_path / name).read_text())
        del notebook["metadata"]["kernel_agent"]["run"]
        found.append(notebook)
    assert found[0] == found[1]


def test_a_reply_is_on_disk_before_its_code_runs_and_the_finished_step_takes_its_place(
    tmp_path: Path,
) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    transcript.add(TASK)
    transcript.begin(Step(LOOK.reply, LOOK.said, LOOK.thought, CellResult("x", started=1.0)))
    assert transcript.pending == Step(
        LOOK.reply, LOOK.said, LOOK.thought, CellResult("x", started=1.0)
    )
    loaded = Transcript.load(tmp_path / "run.ipynb")
    assert (loaded.entries, loaded.pending) == ((TASK,), transcript.pending)
    cells = [cell["id"] for cell in valid(tmp_path / "run.ipynb").cells]
    loaded.finish(Outcome("interrupted"))
    loaded.add(LOOK)
    assert loaded.pending is None
    assert loaded.outcome is None
    notebook = valid(tmp_path / "run.ipynb")
    assert [cell["id"] for cell in notebook.cells] == [*cells, "task-1-outcome"]
    assert notebook.cells[3].metadata.kernel_agent.status == "ok"


def test_a_step_left_running_by_a_new_task_stays_in_the_notebook_and_is_no_entry(
    tmp_path: Path,
) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    transcript.add(TASK)
    transcript.begin(LOOK)
    for entry in (TASK, LOOK):
        transcript.add(entry)
    loaded = Transcript.load(tmp_path / "run.ipynb")
    assert loaded.entries == transcript.entries == (TASK, TASK, LOOK)
    assert loaded.pending is transcript.pending is None
    running = [
        cell.id
        for cell in valid(tmp_path / "run.ipynb").cells
        if cell.metadata.kernel_agent.get("status") == "running"
    ]
    assert running == ["step-1"]
    assert list(map(str, loaded.problems)) == [
        "step-1: it never finished, and the run went on without it."
    ]


def test_outputs_that_are_shown_are_on_disk_while_the_cell_runs(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    transcript.begin(LOOK)
    outputs = ({"output_type": "stream", "name": "stdout", "text": "so far"},)
    transcript.show(outputs)
    pending = Transcript.load(tmp_path / "run.ipynb").pending
    assert pending is not None
    assert pending.result is not None
    assert pending.result.outputs == outputs
    assert pending == transcript.pending


def test_outputs_that_cannot_be_saved_while_the_cell_runs_do_not_stop_it(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    transcript.begin(LOOK)
    transcript.path = tmp_path  # a folder
    transcript.show(())
    with pytest.raises(TranscriptError):
        transcript.add(LOOK)


def test_a_transcript_pickles(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    transcript.add(TASK)
    again = pickle.loads(pickle.dumps(transcript))
    again.add(LOOK)
    assert Transcript.load(tmp_path / "run.ipynb").entries == (TASK, LOOK)


def test_a_loaded_transcript_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path, prelude="a = 1")
    for entry in (TASK, LOOK, ANSWER):
        transcript.add(entry)
    transcript.finish(Outcome("answered"))
    loaded = Transcript.load(path)
    for entry in (TASK, LOOK):
        loaded.add(entry)
    assert Transcript.load(path).entries == (TASK, LOOK, ANSWER, TASK, LOOK)
    assert [cell["id"] for cell in valid(path).cells] == [
        *("task-1", "setup", "step-1-reasoning", "step-1-thought", "step-1", "step-2"),
        *("task-2", "step-3-reasoning", "step-3-thought", "step-3"),
    ]


def test_what_a_person_adds_to_the_notebook_is_kept_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path)
    for entry in (TASK, LOOK, ANSWER):
        transcript.add(entry)
    notebook = nbformat.read(path, 4)
    notebook.metadata["papermill"] = {"version": "2"}
    del notebook.cells[3]["outputs"][0]
    notebook.cells.insert(3, nbformat.v4.new_markdown_cell("My remark.", id="mine"))
    copy = nbformat.from_dict(notebook.cells[4])
    copy["id"] = "copied"
    notebook.cells.insert(5, copy)
    nbformat.write(notebook, path)
    before = path.read_bytes()
    loaded = Transcript.load(path)
    assert [type(entry) for entry in loaded.entries] == [Task, Step, UserCell, Step]
    assert list(map(str, loaded.problems)) == [
        "copied: it is a copy of step 1. It is taken as a cell of the user's."
    ]
    assert loaded.steps[0].thought == "I look."
    loaded.save()
    assert path.read_bytes() == before
    loaded.add(TASK)
    assert valid(path).metadata.papermill.version == "2"


def test_cleared_outputs_take_only_their_images_with_them(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    output = {"output_type": "display_data", "data": {"image/png": PNG + "\n"}, "metadata": {}}
    images = (f"data:image/png;base64,{PNG}", "data:image/png;base64,AAAA")
    result = CellResult("s", outputs=(output,))
    transcript = Transcript("s", path=path)
    transcript.add(Step(Reply("r"), "r", "", result, Observation("seen", images)))
    assert path.read_text().count(PNG) == 1
    assert Transcript.load(path).entries == transcript.entries
    notebook = nbformat.read(path, 4)
    notebook.cells[0]["outputs"] = []
    nbformat.write(notebook, path)
    assert Transcript.load(path).steps[0].observation == Observation("seen", images[1:])


def mended(path: Path, **kernel_agent: Any) -> str:
    """A good notebook's JSON with other facts in its metadata."""
    transcript = Transcript("s", path=path)
    for entry in (TASK, LOOK):
        transcript.add(entry)
    notebook = json.loads(path.read_text())
    notebook["metadata"]["kernel_agent"] |= kernel_agent
    path.unlink()
    return json.dumps(notebook)


BAD_FILES = [
    (b"", "holds no JSON"),
    (b"{", "holds no JSON"),
    (b"\xff\xfe\xfd", "holds no JSON"),
    (b"[" * 100_000, "holds no JSON"),
    (b"[]", "is not a notebook"),
    (b"{}", "is not a notebook"),
    (b'{"nbformat": 4, "metadata": {}, "cells": 3}', "is not a notebook"),
    (b'{"metadata": {}, "cells": []}', "is not a notebook"),
    (b'{"metadata": {"a": 1}, "nbf', "holds no JSON"),
    (b'{"nbformat": 3, "metadata": {}, "cells": []}', "nbformat 3"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_FILES)
def test_a_file_that_is_no_transcript_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "odd.ipynb"
    path.write_bytes(content)
    with pytest.raises(TranscriptError, match=reason) as caught:
        Transcript.load(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"format": 2}, "it has format 2, this version reads format 1"),
        ({"run": None}, "its 'run' is of type NoneType"),
        ({"run": {"id": "x", "started": "today"}}, "its 'started' is 'today', no date"),
        ({"run": {"outcome": {"status": "odd"}}}, "an outcome's 'status' is 'odd'"),
        ({"system": 1}, "its 'system' is of type int"),
        ({"model": []}, "its 'model' is of type list"),
    ],
)
def test_metadata_that_cannot_be_used_are_named_and_the_rest_is_there(
    tmp_path: Path, facts: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "odd.ipynb"
    path.write_text(mended(path, **facts))
    loaded = Transcript.load(path)
    assert loaded.entries == (TASK, LOOK)
    assert any(reason in problem.reason for problem in loaded.problems)
    assert {problem.cell for problem in loaded.problems} == {""}


@pytest.mark.parametrize("name", ["missing.ipynb", ""])
def test_a_missing_file_and_a_folder_cannot_be_loaded(tmp_path: Path, name: str) -> None:
    with pytest.raises(TranscriptError, match="cannot be read"):
        Transcript.load(tmp_path / name)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places(item, (*path, key))
    return found


@pytest.mark.parametrize("odd", [None, -1, "odd", [], {}, [None], {"a": 1}])
def test_damage_anywhere_is_named_or_does_no_harm(tmp_path: Path, odd: Any) -> None:
    path = tmp_path / "run.ipynb"
    image = {"output_type": "display_data", "data": {"image/png": PNG}, "metadata": {}}
    shown = Observation("o", (f"data:image/png;base64,{PNG}",))
    transcript = Transcript("s", path=path)
    for entry in (
        Task("t", "p", ("data:x",), "a = 1"),
        Step(LOOK.reply, "said", "thought", CellResult("s", outputs=(image,)), shown),
        UNUSABLE,
        final({"value": 1}),
    ):
        transcript.add(entry)
    transcript.finish(Outcome("answered", "max_steps"))
    text = path.read_text()
    for way in places(json.loads(text)):
        notebook = json.loads(text)
        inner = notebook
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = odd
        path.write_text(json.dumps(notebook))
        try:
            loaded = Transcript.load(path)
        except TranscriptError:
            continue
        loaded.messages()
        str(loaded.answer)
        loaded.path = None
        loaded.add(TASK)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("Which month is the wettest?", "which-month-is-the-wettest"),
        ("Größe über Maß: naïve café", "groe-uber-ma-naive-cafe"),
        ("…  ", "task"),
        ("日本語", "task"),
        ("x" * 100, "x" * 40),
        ("one two " * 10, "one-two-one-two-one-two-one-two-one-two"),
        ("../../etc/passwd\n", "etc-passwd"),
    ],
)
def test_a_new_path_tells_day_and_task(tmp_path: Path, task: str, name: str) -> None:
    today = date(2026, 1, 31)
    assert new_path(tmp_path, task, today) == tmp_path / f"2026-01-31-{name}.ipynb"


def test_a_path_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    today = date(2026, 1, 31)
    for number in ("", "-2", "-3"):
        path = new_path(tmp_path, "A task", today)
        assert path.name == f"2026-01-31-a-task{number}.ipynb"
        path.symlink_to("nowhere")
