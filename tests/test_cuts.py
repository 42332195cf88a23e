"""Cuts in the notebook: kept word for word, counted, and nothing that later work stumbles over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.steps import (
    CellResult,
    Cut,
    Entry,
    Note,
    Observation,
    Outcome,
    Reply,
    Step,
    Task,
    Usage,
)
from kernel_agent.transcript import Transcript
from tests.examples import examples

TASK = Task("Which month?", "Which month?")
CUT = Cut(2, 2, "It rained.\n\n# A heading\n<b>bold</b>", "Sum up.", Reply("It rained.", "hm"))
PAID = Cut(3, 1, "Sum.", "Sum up.", Reply("Sum.", usage=Usage(100, 10, cost=0.5)))


def look(number: int) -> Step:
    output = {"output_type": "stream", "name": "stdout", "text": "word " * 500}
    result = CellResult(f"x = {number}", outputs=(output,), variables={"x": "int"})
    return Step(
        Reply("r"), "said", "I look.", result, Observation("word " * 500 + "End.", notices="End.")
    )


def run_with(*entries: Entry, path: Path | None = None) -> Transcript:
    transcript = Transcript("s", path=path)
    for entry in entries:
        transcript.add(entry)  # type: ignore[arg-type]
    return transcript


texts = st.text(max_size=20) | st.sampled_from(["\ud800", "\x00", "## Answer\n\n", "a\r\nb"])
counts = st.integers(0, 9)
replies = st.builds(Reply, texts, texts, st.none() | texts, st.builds(Usage, counts, counts))
cuts = st.builds(Cut, counts, counts, texts, texts, st.none() | replies)


@examples(50)
@given(st.lists(cuts | st.just(TASK) | st.just(look(1)) | st.builds(Note, texts), max_size=6))
def test_cuts_come_back_equal_and_give_the_same_messages(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.ipynb"
    transcript = run_with(*entries, path=path)
    transcript.save()
    nbformat.validate(nbformat.read(path, 4))
    loaded = Transcript.load(path)
    assert not loaded.problems
    assert loaded.entries == transcript.entries
    assert loaded.usage == transcript.usage
    assert json.dumps(loaded.messages()) == json.dumps(transcript.messages())
    before = path.read_bytes()
    loaded.save()
    assert path.read_bytes() == before


def test_a_person_reads_what_the_model_saw_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    run_with(TASK, look(1), look(2), Cut(2), CUT, path=path)
    *_, shorter, summed_up = nbformat.read(path, 4).cells
    assert shorter.cell_type == summed_up.cell_type == "markdown"
    assert "a line in place of each older output" in shorter.source
    assert "in place of the older steps" in summed_up.source
    assert "It rained." in summed_up.source
    assert "\\# A heading" in summed_up.source
    assert "\\<b>" in summed_up.source


def test_a_summary_is_counted_and_is_no_step() -> None:
    transcript = run_with(TASK, look(1), look(2), PAID)
    assert transcript.usage == Usage(100, 10, cost=0.5)
    assert len(transcript.task_steps) == 2


def test_a_cut_does_not_hide_the_answer_before_it() -> None:
    answer = Step(Reply("June."), "June.", "June.")
    transcript = run_with(TASK, look(1), answer, Cut(2))
    assert transcript.answer == "June."


def test_a_run_that_is_loaded_goes_on_with_its_cut_and_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    run_with(TASK, look(1), look(2), CUT, path=path)
    transcript = Transcript.load(path)
    transcript.add(look(3))
    transcript.add(PAID)
    transcript.finish(Outcome("answered"))
    assert Transcript.load(path).entries == (TASK, look(1), look(2), CUT, look(3), PAID)
    assert [cell.id for cell in nbformat.read(path, 4).cells][-1] == "cut-2"


@pytest.mark.parametrize(("at", "cut"), [(2, False), (3, True)])
def test_a_fork_has_the_cuts_that_were_made_until_then(tmp_path: Path, at: int, cut: bool) -> None:
    transcript = run_with(TASK, look(1), look(2), CUT, look(3), PAID, look(4))
    fork = transcript.fork(at, tmp_path / "fork.ipynb")
    fork.save()
    loaded = Transcript.load(tmp_path / "fork.ipynb")
    assert [entry for entry in loaded.entries if isinstance(entry, Cut)] == [CUT] * cut
    assert loaded.messages() == fork.messages()


def test_cells_that_a_person_adds_do_not_move_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    messages = run_with(TASK, look(1), look(2), CUT, look(3), path=path).messages()
    notebook = nbformat.read(path, 4)
    for place in (0, 3, len(notebook.cells)):
        notebook.cells.insert(place, nbformat.v4.new_code_cell("1"))
    nbformat.write(notebook, path)
    transcript = Transcript.load(path)
    assert transcript.messages() == messages
    transcript.add(Cut(4, 2, "Later."))
    assert Transcript.load(path).messages() == transcript.messages()


DAMAGE: list[tuple[dict[str, Any], Cut | None, str]] = [
    ({"shortened": "2"}, Cut(0, 2, CUT.summary, CUT.asked, CUT.reply), "'shortened' is of type"),
    ({"shortened": -1}, Cut(0, 2, CUT.summary, CUT.asked, CUT.reply), "no number of entries"),
    ({"summarised": True}, Cut(2, 0, CUT.summary, CUT.asked, CUT.reply), "no number of entries"),
    ({"summary": 5}, Cut(2, 2, "", CUT.asked, CUT.reply), "'summary' is of type int"),
    ({"reply": 5}, None, "its reply is missing"),
    ({"cut": None}, CUT, "its cut has no number"),
    ({"shortened": 10**9, "summarised": 10**9}, None, ""),
]


@pytest.mark.parametrize(("damage", "kept", "problem"), DAMAGE)
def test_a_damaged_cut_is_taken_as_what_it_can_be_and_named(
    tmp_path: Path, damage: dict[str, Any], kept: Cut | None, problem: str
) -> None:
    path = tmp_path / "run.ipynb"
    run_with(TASK, look(1), look(2), CUT, path=path)
    notebook = json.loads(path.read_text())
    notebook["cells"][-1]["metadata"]["kernel_agent"] |= damage
    path.write_text(json.dumps(notebook))
    transcript = Transcript.load(path)
    assert problem in "; ".join(map(str, transcript.problems))
    if kept or problem:
        assert [entry for entry in transcript.entries if isinstance(entry, Cut)] == (
            [kept] if kept else []
        )
    assert transcript.messages()[0]["role"] == "system"
    assert transcript.tasks == (TASK,)
