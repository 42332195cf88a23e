"""The seal: whether this machine wrote the code of a notebook."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernel_agent.steps import CellResult, Observation, Reply, Step, Task
from kernel_agent.transcript import Transcript

TASK = Task("A task", "prompt", setup="y = 2")
STEP = Step(Reply("r"), "r", "", CellResult("x = 1"), Observation("seen"))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's folder for data, still empty."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "kernel-agent"


@pytest.fixture
def path(data: Path, tmp_path: Path) -> Path:
    """A notebook that was written on that machine."""
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path, prelude="p = 1", cwd=tmp_path.parent)
    for entry in (TASK, STEP, STEP):
        transcript.add(entry)
    return path


def edit(path: Path, change: Callable[[Any], object]) -> bool:
    """Whether the notebook counts as written here after a change."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return Transcript.load(path).written_here


def cell(document: Any, name: str) -> Any:
    return next(cell for cell in document["cells"] if cell["id"] == name)


def test_what_was_written_here_is_known_and_goes_on_so(path: Path) -> None:
    loaded = Transcript.load(path)
    assert loaded.written_here
    loaded.begin(STEP)
    assert Transcript.load(path).written_here
    loaded.add(STEP)
    assert Transcript.load(path).written_here


def test_loading_makes_no_key_and_saving_one_that_only_its_owner_reads(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4}')
    assert not Transcript.load(tmp_path / "mine.ipynb").written_here
    assert not data.exists()
    Transcript("s", path=tmp_path / "run.ipynb").save()
    assert [file.name for file in data.iterdir()] == ["key"]
    assert stat.S_IMODE((data / "key").stat().st_mode) == 0o600


CHANGES: dict[str, Callable[[Any], object]] = {
    "a source": lambda d: cell(d, "step-1").update(source=["x = 2"]),
    "the setup": lambda d: cell(d, "setup")["source"].append("evil()"),
    "the setup of a task": lambda d: cell(d, "task-1-setup").update(source=["evil()"]),
    "an added cell": lambda d: d["cells"].append(cell(d, "step-1") | {"id": "new"}),
    "a removed cell": lambda d: d["cells"].remove(cell(d, "step-1")),
    "text that became code": lambda d: cell(d, "task-1").update(cell_type="code"),
    "the run": lambda d: d["metadata"]["kernel_agent"]["run"].update(id="other"),
    "the seal": lambda d: d["metadata"]["kernel_agent"]["run"].update(seal="0" * 64),
    "an odd seal": lambda d: d["metadata"]["kernel_agent"]["run"].update(seal=["é"]),
    "a seal that is no ASCII": lambda d: d["metadata"]["kernel_agent"]["run"].update(seal="é"),
    "no seal": lambda d: d["metadata"]["kernel_agent"]["run"].pop("seal"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_code_that_was_changed_counts_as_written_elsewhere(
    path: Path, change: Callable[[Any], object]
) -> None:
    assert not edit(path, change)


def test_what_is_no_code_may_change(path: Path) -> None:
    assert edit(path, lambda d: cell(d, "task-1").update(source=["My title"]))
    assert edit(path, lambda d: cell(d, "step-1").update(outputs=[]))


def test_two_cells_are_not_the_same_code_as_one(path: Path) -> None:
    def move(document: Any) -> None:
        cell(document, "step-1")["source"] = ["x = 1x"]
        cell(document, "step-2")["source"] = [" = 1"]

    assert not edit(path, move)


def test_on_another_machine_nothing_was_written_here(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other"))
    assert not Transcript.load(path).written_here
    Transcript("s", path=tmp_path / "makes-a-key.ipynb").save()
    assert not Transcript.load(path).written_here


def test_saving_alone_does_not_vouch_for_the_code_of_somebody_else(path: Path) -> None:
    assert not edit(path, CHANGES["a source"])
    loaded = Transcript.load(path)
    loaded.save()
    loaded.reopen()
    assert not Transcript.load(path).written_here
    loaded.add(STEP)
    assert Transcript.load(path).written_here


@pytest.mark.parametrize("key", [b"", b"short", None])
def test_without_a_key_it_is_saved_without_a_seal(
    data: Path, tmp_path: Path, key: bytes | None
) -> None:
    if key is None:
        data.parent.mkdir()
        data.write_text("a file in the folder's place")
    else:
        data.mkdir(parents=True)
        (data / "key").write_bytes(key)
    path = tmp_path / "run.ipynb"
    Transcript("s", path=path).add(TASK)
    assert "seal" not in json.loads(path.read_text())["metadata"]["kernel_agent"]["run"]
    assert not Transcript.load(path).written_here


def test_the_seal_goes_with_the_file_to_another_folder(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(path, tmp_path / "elsewhere" / "run.ipynb")
    assert Transcript.load(tmp_path / "elsewhere" / "run.ipynb").written_here
    loaded = Transcript.load(path)
    loaded.path = tmp_path / "deeper" / "down" / "run.ipynb"
    loaded.save()
    assert Transcript.load(loaded.path).written_here
    fork = loaded.fork(1, tmp_path / "fork.ipynb")
    fork.save()
    assert Transcript.load(tmp_path / "fork.ipynb").written_here
