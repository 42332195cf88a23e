"""Notebooks that a person wrote, and runs that begin with what is there already."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kernel_agent.errors import TranscriptError
from kernel_agent.steps import (
    CellResult,
    Entry,
    Note,
    Observation,
    Outcome,
    Reply,
    Step,
    Task,
    UserCell,
)
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.body import CHUNK

TASK = Task("A task", "prompt", setup="y = 2")
STEP = Step(Reply("r"), "r", "Think.", CellResult("x = 1", execution_count=1), Observation("seen"))

FAILED = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["line"]}
PRINTED = {"output_type": "stream", "name": "stdout", "text": ["ä\n", "b"]}


def code(source: Any, name: str | None = None, **more: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "metadata": {}, "source": source, "outputs": []}
    cell |= {"execution_count": None} | more
    return cell | ({"id": name} if name else {})


CELLS = [
    {"cell_type": "markdown", "id": "title", "metadata": {"mine": 1}, "source": ["# Mine\n", "x"]},
    code(["a = 1\n", "a"], "one", outputs=[PRINTED], execution_count=7),
    code("1 / 0", "two", outputs=[FAILED], execution_count=8, metadata={"tags": ["t"]}),
    {"cell_type": "raw", "id": "raw", "metadata": {}, "source": "raw"},
    code("never_run()", "three"),
]
NOTEBOOK = {"cells": CELLS, "metadata": {"z": {"y": 1}}, "nbformat": 4, "nbformat_minor": 5}
OLD = NOTEBOOK | {
    "cells": [{k: v for k, v in cell.items() if k != "id"} for cell in CELLS],
    "nbformat_minor": 4,
}
METADATA_FIRST = {"metadata": {"z": {"y": 1}}, "own": [1, {"a": "]"}]} | NOTEBOOK


def text(notebook: dict[str, Any], **options: Any) -> bytes:
    return json.dumps(notebook, **options).encode()


FILES = {
    "indent 1": text(NOTEBOOK, indent=1) + b"\n",
    "indent 2": text(NOTEBOOK, indent=2),
    "indent 4, not ASCII": text(NOTEBOOK, indent=4, ensure_ascii=False),
    "no indent": text(NOTEBOOK),
    "no spaces": text(NOTEBOOK, separators=(",", ":")),
    "CRLF": text(NOTEBOOK, indent=2).replace(b"\n", b"\r\n") + b"\r\n",
    "BOM": b"\xef\xbb\xbf" + text(NOTEBOOK, indent=1),
    "metadata first": text(METADATA_FIRST, indent=3),
    "no ids": text(OLD, indent=1),
    "no ids where there must be some": text(OLD | {"nbformat_minor": 5}, indent=1),
    "duplicate ids": text(NOTEBOOK).replace(b'"two"', b'"one"'),
    "no cells": text(NOTEBOOK | {"cells": []}, indent=1),
    "no metadata": text({k: v for k, v in NOTEBOOK.items() if k != "metadata"}, indent=1),
    "comma before the line": text(NOTEBOOK, indent=1, separators=(" ,", ": ")),
}
HAS_CELLS = {name: file for name, file in FILES.items() if name != "no cells"}


def raw_cells(file: bytes) -> list[bytes]:
    """The bytes of each cell, found without the code that is tested."""
    plain = file.decode("utf-8-sig")
    decoder, found = json.JSONDecoder(), []
    at = plain.index('"cells"')
    at = plain.index("[", at) + 1
    while True:
        at += len(plain[at:]) - len(plain[at:].lstrip(" \r\n,"))
        if plain[at] == "]":
            return found
        _, end = decoder.raw_decode(plain, at)
        found.append(plain[at:end].encode())
        at = end


@pytest.mark.parametrize("file", HAS_CELLS.values(), ids=HAS_CELLS)
def test_a_persons_notebook_is_read_as_cells_of_the_user(tmp_path: Path, file: bytes) -> None:
    (tmp_path / "mine.ipynb").write_bytes(file)
    loaded = Transcript.load(tmp_path / "mine.ipynb")
    one, two, three = loaded.entries
    assert isinstance(one, UserCell)
    assert isinstance(two, UserCell)
    assert isinstance(three, UserCell)
    printed = {"output_type": "stream", "name": "stdout", "text": "ä\nb"}
    assert one.result == CellResult("a = 1\na", "ok", (printed,), 7)
    assert (two.result.source, two.result.status) == ("1 / 0", "error")
    assert three.result == CellResult("never_run()")
    assert loaded.is_foreign
    assert not loaded.written_here
    assert loaded.cwd == tmp_path.resolve()
    assert loaded.messages() == [{"role": "system", "content": ""}]


@pytest.mark.parametrize("is_in_place", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_run_that_continues_a_notebook_leaves_its_cells_byte_for_byte(
    tmp_path: Path, name: str, is_in_place: bool
) -> None:
    file, mine = FILES[name], tmp_path / "mine.ipynb"
    mine.write_bytes(file)
    path = mine if is_in_place else tmp_path / "out" / "run.ipynb"
    transcript = Transcript.continuing(
        mine, "system", path=path, cwd=tmp_path / "work", prelude="p = 1\n", about={"version": "1"}
    )
    users = transcript.entries
    transcript.save()
    prelude_kept = Transcript.load(path)
    assert prelude_kept.cwd == tmp_path / "work"
    entries: list[Task | Step | Note] = [TASK, STEP, Note("told")]
    for entry in entries:
        transcript.add(entry)
    transcript.finish(Outcome("answered"))
    written = path.read_bytes()
    theirs = raw_cells(file)
    now = raw_cells(written)
    assert now[: len(theirs)] == theirs
    setup, title = now[len(theirs) : len(theirs) + 2]
    if not theirs:  # then the notebook begins with the title
        setup, title = title, setup
    assert b"chdir" in setup
    assert b"p = 1" in setup
    assert b'"kind": "task"' in title
    if theirs and name not in ("metadata first", "no metadata"):
        assert written.startswith(file[: file.index(theirs[-1]) + len(theirs[-1])])
    again = Transcript.load(path)
    assert again.entries == (*users, *entries)
    assert not again.is_foreign
    assert again.written_here
    assert again.system == "system"
    document = json.loads(written.decode("utf-8-sig"))
    old = json.loads(file.decode("utf-8-sig"))
    assert {n: v for n, v in document["metadata"].items() if n in old.get("metadata", {})} == (
        old.get("metadata", {})
    )
    assert document["nbformat_minor"] == old["nbformat_minor"]
    if old["nbformat_minor"] == 4:
        assert not any("id" in cell for cell in document["cells"])
    if "ids where" not in name and name not in ("duplicate ids", "metadata first"):
        nbformat.validate(nbformat.from_dict(document))
    before = path.read_bytes()
    again.save()
    assert path.read_bytes() == before


def test_a_run_continues_only_what_is_no_run_yet(tmp_path: Path) -> None:
    Transcript("s", path=tmp_path / "run.ipynb").add(TASK)
    with pytest.raises(TranscriptError, match="Resume it"):
        Transcript.continuing(tmp_path / "run.ipynb", "s", path=tmp_path / "out.ipynb")
    with pytest.raises(TranscriptError, match="cannot be read"):
        Transcript.continuing(tmp_path / "none.ipynb", "s", path=tmp_path / "out.ipynb")


def run(path: Path, cwd: Path | None = None) -> Transcript:
    """Two tasks, three steps, a note, and a cell that a person added in between."""
    transcript = Transcript("s", path=path, cwd=cwd, prelude="p = 1\n")
    for entry in (TASK, STEP, Note("told"), STEP):
        transcript.add(entry)
    transcript.finish(Outcome("limit", "max_steps"))
    for entry in (TASK, STEP):
        transcript.add(entry)
    transcript.finish(Outcome("answered"))
    document = json.loads(path.read_text())
    document["cells"].insert(6, code("mine = 1", "mine"))
    path.write_bytes(text(document, indent=2))
    return Transcript.load(path)


@pytest.mark.parametrize(
    ("at", "count", "outcomes"), [(1, 2, (None,)), (2, 5, (None,)), (3, 7, ("limit", None))]
)
def test_a_fork_has_all_that_was_until_its_step_byte_for_byte(
    tmp_path: Path, at: int, count: int, outcomes: tuple[str | None, ...]
) -> None:
    old = run(tmp_path / "old.ipynb", tmp_path)
    before = (tmp_path / "old.ipynb").read_bytes()
    fork = old.fork(at, tmp_path / "forks" / "new.ipynb")
    assert not (tmp_path / "forks").exists()
    assert fork.entries == old.entries[:count]
    assert fork.about["parent"] == {"path": "../old.ipynb", "run": old.run_id, "step": at}
    assert fork.run_id != old.run_id
    assert [outcome and outcome.status for outcome in fork.outcomes] == list(outcomes)
    assert fork.outcome is fork.pending is None
    fork.add(STEP)
    assert len(old.entries) == 7
    assert (tmp_path / "old.ipynb").read_bytes() == before
    loaded = Transcript.load(tmp_path / "forks" / "new.ipynb")
    assert loaded.entries == (*old.entries[:count], STEP)
    assert loaded.cwd == tmp_path
    assert loaded.problems == ()
    names = [json.loads(cell)["id"] for cell in raw_cells(fork.path.read_bytes())]  # type: ignore[union-attr]
    assert len(names) == len(set(names))
    theirs = [cell for cell in raw_cells(before) if b'"kind": "setup"' not in cell]
    ours = [c for c in raw_cells(fork.path.read_bytes()) if b'"kind": "setup"' not in c]  # type: ignore[union-attr]
    assert ours[:-2] == theirs[: len(ours) - 2]


@pytest.mark.parametrize("at", [-1, 0, 4])
def test_a_fork_at_no_step_says_how_many_there_are(tmp_path: Path, at: int) -> None:
    with pytest.raises(TranscriptError, match=f"has no step {at}: it has 3"):
        run(tmp_path / "old.ipynb").fork(at, tmp_path / "new.ipynb")


def test_a_fork_of_a_run_that_is_going_on_is_one_of_its_finished_steps(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "old.ipynb")
    transcript.add(TASK)
    with pytest.raises(TranscriptError, match="has no step 1: it has 0"):
        transcript.fork(1, tmp_path / "new.ipynb")
    assert transcript.fork(0, tmp_path / "new.ipynb").entries == (TASK,)
    transcript.add(STEP)
    transcript.begin(STEP)
    fork = transcript.fork(1, tmp_path / "new.ipynb")
    fork.save()
    assert fork.entries == Transcript.load(tmp_path / "new.ipynb").entries == (TASK, STEP)
    assert Transcript.load(tmp_path / "new.ipynb").pending is None


def test_a_fork_cuts_through_merged_cells(tmp_path: Path) -> None:
    long = {"output_type": "stream", "name": "stdout", "text": "x" * (CHUNK // 3)}
    step = Step(Reply("r"), "r", "", CellResult("s", outputs=(long,)), Observation("o"))
    transcript = Transcript("s", path=tmp_path / "old.ipynb")
    transcript.add(TASK)
    for _ in range(11):
        transcript.begin(step)
        transcript.add(step)
    cells = raw_cells((tmp_path / "old.ipynb").read_bytes())
    for at in range(1, 12):
        fork = transcript.fork(at, tmp_path / f"{at}.ipynb")
        fork.save()
        assert raw_cells((tmp_path / f"{at}.ipynb").read_bytes()) == cells[: at + 2]


def test_a_setup_is_mended_when_the_notebook_goes_to_another_folder(tmp_path: Path) -> None:
    old = run(tmp_path / "a" / "old.ipynb", tmp_path / "work")
    assert old.cwd == tmp_path / "work"
    old.path = tmp_path / "b" / "c" / "new.ipynb"
    old.save()
    (setup,) = [cell for cell in nbformat.read(old.path, 4).cells if cell.id == "setup"]
    assert "'../../work'" in setup.source
    assert setup.source.endswith("p = 1\n")
    assert Transcript.load(old.path).cwd == tmp_path / "work"
    bare = Transcript("s", path=tmp_path / "work" / "run.ipynb")
    bare.add(TASK)
    loaded = Transcript.load(tmp_path / "work" / "run.ipynb")
    loaded.path = tmp_path / "moved.ipynb"
    loaded.save()
    assert Transcript.load(loaded.path).cwd == tmp_path / "work"
    assert Transcript.load(loaded.path).problems == ()


def test_a_transcript_that_was_saved_before_its_first_task_keeps_its_prelude(
    tmp_path: Path,
) -> None:
    Transcript("s", path=tmp_path / "run.ipynb", prelude="p = 1\n").save()
    loaded = Transcript.load(tmp_path / "run.ipynb")
    loaded.add(TASK)
    again = nbformat.read(tmp_path / "run.ipynb", 4)
    nbformat.validate(again)
    assert [cell.id for cell in again.cells] == ["task-1", "setup", "task-1-setup"]
    assert again.cells[1].source == "p = 1\n"


def test_a_step_takes_its_place_between_cells_that_a_person_added(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path)
    transcript.add(TASK)
    transcript.begin(STEP)
    document = json.loads(path.read_text())
    document["cells"].append(code("mine = 1", "mine"))
    path.write_bytes(text(document, indent=2))
    loaded = Transcript.load(path)
    assert loaded.pending is not None
    loaded.add(Step(Reply("r"), "r", "", CellResult("other"), Observation("seen")))
    loaded.add(STEP)
    kinds: list[type[Entry]] = [type(entry) for entry in Transcript.load(path).entries]
    assert kinds == [Task, Step, UserCell, Step]
    for at, count in ((1, 2), (2, 4)):
        fork = loaded.fork(at, tmp_path / f"{at}.ipynb")
        fork.save()
        assert [type(e) for e in Transcript.load(tmp_path / f"{at}.ipynb").entries] == kinds[:count]
    assert raw_cells((tmp_path / "2.ipynb").read_bytes()) == raw_cells(path.read_bytes())


def test_a_fork_ends_with_its_step_where_others_were_behind_a_running_one(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path)
    transcript.begin(STEP)
    document = json.loads(path.read_text())
    document["cells"].append(code("mine = 1", "mine"))
    path.write_bytes(text(document))
    loaded = Transcript.load(path)
    loaded.add(Step(Reply("r"), "r", "", CellResult("one cell, not two"), Observation("seen")))
    loaded.add(Note("told"))
    loaded.add(STEP)
    fork = loaded.fork(2, tmp_path / "fork.ipynb")
    fork.save()
    assert raw_cells((tmp_path / "fork.ipynb").read_bytes()) == raw_cells(path.read_bytes())
    assert loaded.entries == Transcript.load(path).entries
    fork = loaded.fork(1, tmp_path / "first.ipynb")
    fork.save()
    assert fork.entries == Transcript.load(tmp_path / "first.ipynb").entries


@pytest.mark.parametrize("separators", [(" ,", ": "), (",", ":"), None])
def test_a_setup_that_comes_first_stays_there_byte_for_byte(
    tmp_path: Path, separators: tuple[str, str] | None
) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path, prelude="p = 1\n")
    for _ in range(2):
        transcript.add(STEP)
    path.write_bytes(text(json.loads(path.read_text()), indent=2, separators=separators))
    before = path.read_bytes()
    loaded = Transcript.load(path)
    loaded.save()
    assert path.read_bytes() == before
    loaded.add(STEP)
    last = raw_cells(before)[-1]
    begin = before[: before.rindex(last) + len(last)]
    assert path.read_bytes().startswith(begin)


def test_a_loaded_transcript_pickles(tmp_path: Path) -> None:
    again = pickle.loads(pickle.dumps(run(tmp_path / "old.ipynb")))
    again.add(STEP)
    assert len(Transcript.load(tmp_path / "old.ipynb").steps) == 4


def test_each_task_has_an_outcome_and_the_last_one_can_go_on(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    assert transcript.outcomes == ()
    first, second = Outcome("limit", "max_steps"), Outcome("failed", reason="no key")
    transcript.add(TASK)
    transcript.finish(first)
    transcript.add(TASK)
    assert transcript.outcomes == (first, None)
    transcript.finish(second)
    assert Transcript.load(tmp_path / "run.ipynb").outcomes == (first, second)
    transcript.reopen()
    assert (transcript.outcomes, transcript.outcome, transcript.finished) == (
        (first, None),
        None,
        None,
    )
    transcript.add(STEP)
    loaded = Transcript.load(tmp_path / "run.ipynb")
    assert loaded.outcomes == (first, None)
    document = json.loads((tmp_path / "run.ipynb").read_text())
    del document["metadata"]["kernel_agent"]["run"]["outcomes"]
    document["metadata"]["kernel_agent"]["run"]["outcome"] = {"status": "answered"}
    (tmp_path / "run.ipynb").write_text(json.dumps(document))
    assert Transcript.load(tmp_path / "run.ipynb").outcomes == (None, Outcome("answered"))
