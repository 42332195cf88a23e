"""The notebook as a person meets it: what each cell shows, and that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from kernel_agent.steps import (
    ANSWER_MIME,
    CellResult,
    Note,
    Observation,
    Outcome,
    Reply,
    Step,
    Task,
)
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.markdown import fenced, headed, literal, quiet
from kernel_agent.transcript.setup import setup_cell

LONG = "Look at the file. Then say which month is the wettest, and by how many millimetres it is."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Which month is the wettest?", "# Which month is the wettest?"),
        ("  spaces around \n", "# spaces around"),
        ("", "# Task"),
        ("How much is $5 + 2*3*4?", r"# How much is \$5 + 2\*3\*4?"),
        ("Is a_b in _x_ <b>?", r"# Is a_b in \_x\_ \<b>?"),
        ("Use `head` &amp; [a](b) \\* ~~c~~", r"# Use \`head\` \&amp; \[a](b) \\\* \~~c\~~"),
        ("Explain C# and ##", r"# Explain C# and \##"),
        ("Look at the data\nand count.", "# Look at the data\n\nand count."),
        ("A short title\n\none\ntwo\n\n- three", "# A short title\n\none\\\ntwo\n\n\\- three"),
        ("Two numbered things\n1. one\n2) two", "# Two numbered things\n\n1\\. one\\\n2\\) two"),
        ("Run this program\n\n  x = 1", "# Run this program\n\n```text\n  x = 1\n```"),
        ("```\nx\n```", "# Task\n\n````text\n```\nx\n```\n````"),
        ("- one\n- two", "# Task\n\n\\- one\\\n\\- two"),
        (f"{LONG} {LONG}", f"# Look at the file.\n\n{LONG[18:]} {LONG}"),
        ("See e.g. a.csv " * 10, "# Task\n\n" + ("See e.g. a.csv " * 10).strip()),
        ("x" * 101, "# Task\n\n" + "x" * 101),
    ],
)
def test_a_task_is_shown_under_a_heading_as_it_was_written(text: str, shown: str) -> None:
    assert headed(text) == shown


def test_small_pieces_of_markdown() -> None:
    assert quiet("Failed:  no *key*\nat all") == r"*Failed: no \*key\* at all.*"
    assert fenced("a ```` b") == "`````text\na ```` b\n`````"
    assert literal("") == ""


def cells(*entries: Task | Step, outcome: Outcome | None = None, tmp_path: Path) -> list[Any]:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    for entry in entries:
        transcript.add(entry)
    if outcome:
        transcript.finish(outcome)
    notebook = nbformat.read(tmp_path / "run.ipynb", 4)
    nbformat.validate(notebook)
    return list(notebook.cells)


def final(data: dict[str, Any]) -> Step:
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    return Step(Reply("r"), "r", "", CellResult("s", outputs=(output,)), Observation("o"))


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({ANSWER_MIME: {"value": 42}, "text/plain": "42"}, "42"),
        ({ANSWER_MIME: {"value": "In *May*"}, "text/plain": "In *May*"}, "In *May*"),
        ({ANSWER_MIME: {"value": [1]}, "text/plain": "[1]"}, "```text\n[1]\n```"),
        ({ANSWER_MIME: {"text": "<A>"}, "text/plain": "<A>"}, "```text\n<A>\n```"),
        ({ANSWER_MIME: {"text": "x"}, "text/markdown": "**x**"}, "**x**"),
        ({ANSWER_MIME: {"value": None}}, "```text\nNone\n```"),
        ({ANSWER_MIME: 3}, "```text\nNone\n```"),
    ],
)
def test_an_answer_that_code_gave_closes_the_notebook(
    tmp_path: Path, data: dict[str, Any], shown: str
) -> None:
    *_, cell = cells(final(data), outcome=Outcome("answered"), tmp_path=tmp_path)
    assert cell.source == f"## Answer\n\n{shown}"
    assert cell.metadata.kernel_agent == {"kind": "answer"}


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Outcome("answered", "max_cost"), "*Answered at max_cost with what was known by then.*"),
        (Outcome("limit", "max_steps"), "*Ended at max_steps without an answer.*"),
        (Outcome("interrupted"), "*Interrupted.*"),
        (Outcome("failed", reason="no key!"), "*Failed: no key!*"),
    ],
)
def test_a_quiet_line_says_how_a_task_ended_if_not_by_an_answer(
    tmp_path: Path, outcome: Outcome, line: str
) -> None:
    task = Task("t", "p")
    *_, cell = cells(task, outcome=outcome, tmp_path=tmp_path)
    assert cell.source == line
    assert cell.metadata.kernel_agent == {"kind": "note"}


def test_a_reply_of_no_use_is_a_note_that_says_why(tmp_path: Path) -> None:
    step = Step(Reply("<code>"), "<code>", "", None, Observation("The code does not end."))
    (note,) = cells(step, tmp_path=tmp_path)
    assert note.source == "*This reply could not be used:*\n\nThe code does not end."
    assert note.metadata.kernel_agent.reply == "<code>"


@pytest.mark.parametrize(
    ("status", "stopped_by", "tags"),
    [
        ("error", "", ["raises-exception"]),
        ("interrupted", "", ["raises-exception"]),
        ("interrupted", "interrupt", ["raises-exception", "skip-execution", "nbval-skip"]),
        ("error", "interrupt", ["raises-exception", "skip-execution", "nbval-skip"]),
        ("died", "", ["raises-exception", "skip-execution", "nbval-skip"]),
    ],
)
def test_a_cell_that_did_not_end_well_has_the_tags_that_let_notebooks_go_on(
    tmp_path: Path, status: Any, stopped_by: str, tags: list[str]
) -> None:
    result = CellResult("s", status, stopped_by=stopped_by)
    (cell,) = cells(Step(Reply("r"), "r", "", result, Observation("o")), tmp_path=tmp_path)
    assert cell.metadata.tags == tags


def test_cells_that_would_hang_or_kill_are_skipped_in_plain_jupyter(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    died = CellResult("import os\nos._exit(1)", "died")
    stopped = CellResult("while True: pass", "interrupted", stopped_by="interrupt")
    for result in (died, stopped, CellResult("6 * 7")):
        transcript.add(Step(Reply("r"), "r", "", result, Observation("o")))
    notebook = nbformat.read(tmp_path / "run.ipynb", 4)
    NotebookClient(notebook, timeout=30).execute()
    assert notebook.cells[-1].outputs[0].data["text/plain"] == "42"


def test_a_note_to_the_model_is_shown_as_it_was_sent(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    for text in ("Go *on*.", "again"):
        transcript.add(Note(text))
    first, second = nbformat.read(tmp_path / "run.ipynb", 4).cells
    assert first.source == "*The model was told:*\n\nGo \\*on\\*."
    assert [first.id, second.id] == ["note-1", "note-2"]
    loaded = Transcript.load(tmp_path / "run.ipynb")
    assert loaded.entries == (Note("Go *on*."), Note("again"))
    assert loaded.messages()[1:] == [{"role": "user", "content": "Go *on*.\n\nagain"}]


def test_times_are_told_as_jupyterlab_tells_them_and_unknown_ones_not_at_all(
    tmp_path: Path,
) -> None:
    def timing(started: float, name: str) -> Any:
        step = Step(Reply("r"), "r", "", CellResult("s", started=started, seconds=1.5))
        folder = tmp_path / name
        return cells(step, tmp_path=folder)[0].metadata.get("execution")

    assert timing(0, "a") is None
    assert timing(1e300, "b") is None
    assert timing(1_700_000_000, "c") == {
        "iopub.status.busy": "2023-11-14T22:13:20+00:00",
        "iopub.execute_input": "2023-11-14T22:13:20+00:00",
        "shell.execute_reply": "2023-11-14T22:13:21.500000+00:00",
        "iopub.status.idle": "2023-11-14T22:13:21.500000+00:00",
    }


def test_only_what_cannot_be_seen_is_in_a_code_cell_s_metadata(tmp_path: Path) -> None:
    reply = "I look.\n```python\nx\n```"
    step = Step(Reply(reply), reply, "I look.", CellResult("x"), Observation("seen"))
    thought, code = cells(step, tmp_path=tmp_path)
    assert (thought.source, code.source) == ("I look.", "x")
    assert code.metadata == {
        "kernel_agent": {
            "finish_reason": "stop",
            "kind": "code",
            "observation": {"text": "seen"},
            "reply": reply,
            "status": "ok",
            "step": 1,
            "usage": {},
        }
    }


def test_the_setup_cell_goes_to_the_kernel_s_folder_however_often_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project" / "runs"
    folder.mkdir(parents=True)
    cell = setup_cell("prepared = True\n", folder.parent, folder)
    assert cell is not None
    assert cell["metadata"]["jupyter"] == {"source_hidden": True}
    monkeypatch.chdir(folder)
    namespace: dict[str, Any] = {}
    for _ in range(3):
        exec(cell["source"], namespace)
        assert Path.cwd() == folder.parent.resolve()
    assert namespace["prepared"]


def test_a_setup_cell_is_there_only_if_there_is_something_to_set_up(tmp_path: Path) -> None:
    assert setup_cell("", tmp_path, tmp_path) is None
    assert setup_cell("", None, tmp_path) is None
    assert "chdir" not in (setup_cell("x = 1", tmp_path, tmp_path) or {})["source"]


def test_the_way_to_the_kernel_s_folder_follows_a_change_of_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    transcript = Transcript("s", cwd=tmp_path, path=tmp_path / "a" / "b" / "run.ipynb")
    transcript.add(Task("t", "p"))
    assert "'../..'" in nbformat.read(transcript.path, 4).cells[1].source
    transcript.path = tmp_path / "c" / "run.ipynb"
    transcript.save()
    assert "'..'" in nbformat.read(transcript.path, 4).cells[1].source


def test_the_notebook_runs_from_top_to_bottom_in_plain_jupyter(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("3")
    path = tmp_path / "runs" / "run.ipynb"
    transcript = Transcript(
        "s", path=path, cwd=tmp_path, prelude="def final_answer(value):\n    display(value)\n"
    )
    transcript.add(Task("t", "p", setup="factor = 2"))
    for source, status in (("1 / 0", "error"), ("x = int(open('data.csv').read())", "ok")):
        result = CellResult(source, "error" if status == "error" else "ok")
        transcript.add(Step(Reply("r"), "r", "", result, Observation("o")))
    last = CellResult("final_answer(factor * x)")
    transcript.add(Step(Reply("r"), "r", "", last, Observation("o")))
    transcript.finish(Outcome("answered"))
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}).execute()
    assert notebook.cells[-1].outputs[0].data["text/plain"] == "6"
