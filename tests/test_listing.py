"""The list of recorded runs: what is told of each, and that nothing breaks it."""

import json
import os
import time
from datetime import datetime

import pytest
from typer.testing import CliRunner

from kernel_agent import listing
from kernel_agent.cli import app
from kernel_agent.listing import list_runs, read_run
from kernel_agent.steps import CellResult, Observation, Outcome, Reply, Step, Task, Usage
from kernel_agent.transcript import Transcript


def record(path, *, task="Count the rows.", steps=2, outcome="answered", text="1"):
    transcript = Transcript("s", path=path)
    transcript.add(Task(task, task))
    outputs = ({"output_type": "stream", "name": "stdout", "text": text},)
    for number in range(steps):
        result = CellResult(f"x = {number}", outputs=outputs, execution_count=1, seconds=1.5)
        reply = Reply("r", usage=Usage(prompt_tokens=10, cost=0.25, model_seconds=0.5))
        transcript.add(Step(reply, "r", "", result, Observation(text)))
    if outcome:
        transcript.finish(Outcome(outcome))
    return path


def edited(path, change):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook)
    path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
    return path


def test_a_run_is_told_by_its_metadata(tmp_path):
    run = read_run(record(tmp_path / "a.ipynb"))
    assert (run.state, run.outcome, run.task, run.steps) == (
        "finished", "answered", "Count the rows.", 2,
    )  # fmt: skip
    assert (run.tokens, run.cost, run.seconds) == (20, 0.5, 4.0)
    assert abs(run.started.timestamp() - time.time()) < 60


def test_a_run_without_an_end_is_unfinished(tmp_path):
    run = read_run(record(tmp_path / "a.ipynb", outcome=None))
    assert (run.state, run.outcome) == ("unfinished", "unfinished")


def test_the_newest_comes_first(tmp_path):
    for day, name in ((1, "b"), (3, "a"), (2, "c")):
        path = record(tmp_path / f"{name}.ipynb")

        def date(notebook, day=day):
            notebook["metadata"]["kernel_agent"]["run"]["started"] = f"2026-01-0{day}T00:00:00"

        edited(path, date)
    assert [run.path.stem for run in list_runs([tmp_path])] == ["a", "c", "b"]


def test_foreign_notebooks_are_listed_only_when_they_are_named(tmp_path):
    path = record(tmp_path / "a.ipynb")
    foreign = tmp_path / "person.ipynb"
    foreign.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    assert [run.path for run in list_runs([tmp_path])] == [path]
    assert [run.state for run in list_runs([foreign])] == ["foreign"]


def test_recursive_finds_runs_in_folders_but_not_in_hidden_ones(tmp_path):
    record(tmp_path / "below" / "a.ipynb")
    record(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.ipynb")
    assert list_runs([tmp_path]) == []
    assert [run.path.name for run in list_runs([tmp_path], recursive=True)] == ["a.ipynb"]


@pytest.mark.parametrize("metadata", ['"kernel_agent": {"run": 5}', '"kernel_agent": {}'])
def test_a_run_without_its_facts_is_damaged(tmp_path, metadata):
    path = tmp_path / "a.ipynb"
    path.write_text(f'{{"cells": [], "metadata": {{{metadata}}}, "nbformat": 4}}')
    assert read_run(path).state == "damaged"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_no_notebook_is_damaged(tmp_path, content):
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)
    run = read_run(path)
    assert run.state == "damaged"
    assert run.reason


@pytest.mark.parametrize("part", ["started", "outcome", "steps", "task", "usage", "run"])
@pytest.mark.parametrize("value", [None, 5, "x", [], {}, {"status": []}, [{}]])
def test_a_fact_of_any_kind_is_listed_without_an_error(tmp_path, part, value):
    def change(notebook):
        known = notebook["metadata"]["kernel_agent"]
        (known["run"] if part in ("started", "outcome", "steps") else known)[part] = value

    edited(record(tmp_path / "a.ipynb"), change)
    done = CliRunner().invoke(app, ["list", str(tmp_path)])
    assert (done.exit_code, done.exception) == (0, None)
    assert "a.ipynb" in done.stdout


def test_a_cut_file_is_damaged(tmp_path):
    path = record(tmp_path / "a.ipynb")
    path.write_bytes(path.read_bytes()[:-200])
    assert read_run(path).state == "damaged"


def test_text_in_an_output_is_not_taken_for_the_metadata(tmp_path):
    lie = '\n "metadata": {"kernel_agent": {"run": {}}},\n "nbformat": 4}'
    path = record(tmp_path / "a.ipynb", text=lie)
    assert read_run(path).task == "Count the rows."

    def move(notebook):
        """The metadata first, and a cell's like those of a notebook behind them."""
        metadata = notebook.pop("metadata")
        cells = notebook.pop("cells")
        cells[-1]["metadata"] = {"kernel_agent": {"run": {}}, "metadata": {"nbformat": 4}}
        notebook |= {"metadata": metadata, "cells": cells}

    assert read_run(edited(path, move)).task == "Count the rows."


def test_metadata_longer_than_the_tail_are_found(tmp_path):
    task = "Count. " * listing.TAIL
    assert read_run(record(tmp_path / "a.ipynb", task=task)).task == task


def test_of_a_finished_run_only_the_end_is_read(tmp_path):
    path = record(tmp_path / "a.ipynb", text="x" * 200_000)

    def count(notebook):
        notebook["metadata"]["kernel_agent"]["run"]["steps"] = 2

    edited(path, count)
    content = bytearray(path.read_bytes())
    content[20:100_000] = b"\x00" * 99_980  # no JSON any more: whoever reads it all fails
    path.write_bytes(content)
    assert read_run(path).steps == 2


def test_five_hundred_runs_of_a_megabyte_are_listed_in_about_a_second(tmp_path):
    path = record(tmp_path / "0.ipynb", text="x" * 500_000)
    edited(path, lambda notebook: notebook["metadata"]["kernel_agent"]["run"].update(steps=2))
    assert path.stat().st_size > 1_000_000
    for number in range(1, 500):
        os.link(path, tmp_path / f"{number}.ipynb")
    started = time.monotonic()
    runs = list_runs([tmp_path])
    assert (len(runs), time.monotonic() - started < 3.0) == (500, True)


def command(*words):
    return CliRunner().invoke(app, ["list", *map(str, words)])


def test_the_table_shows_a_run_in_a_line_and_json_too(tmp_path):
    record(tmp_path / "a.ipynb", task="Which \x1b[31mmonth\x1b[0m\nis the wettest? " + "x" * 100)
    lines = command(tmp_path).stdout.splitlines()
    assert lines[0].split() == [
        "started", "task", "outcome", "steps", "cost", "seconds", "file",
    ]  # fmt: skip
    assert "Which month is the wettest? xxx" in lines[1]
    assert "\x1b" not in lines[1]
    assert "…  answered" in lines[1]
    told = json.loads(command(tmp_path, "--json").stdout)
    assert (told["state"], told["steps"]) == ("finished", 2)
    assert datetime.fromisoformat(told["started"])


def test_no_runs_are_no_error_and_no_folder_is_one(tmp_path):
    assert command(tmp_path).exit_code == 0
    assert command(tmp_path / "missing").exit_code == 2
