"""A run in other forms: a page, a text, a script, a notebook without failed attempts."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

from kernel_agent import Agent, ScriptedModel
from kernel_agent.cli import app
from kernel_agent.errors import SettingsError, TranscriptError
from kernel_agent.exporting import export
from kernel_agent.exporting.failures import bound, read, remedies
from kernel_agent.exporting.reading import ReadCell
from kernel_agent.shipped import shipped
from kernel_agent.steps import CellResult, Observation, Outcome, Reply, Step, Task, ToolCall
from kernel_agent.transcript import Transcript
from tests import thirty_steps

pytestmark = pytest.mark.slow

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)><a href='javascript:alert(3)'>a</a>"
TABLE = (
    "<div><style scoped>.dataframe td {color: red}</style><table border='1' class='dataframe'>"
    "<thead><tr><th>n</th></tr></thead><tbody><tr><td>7</td></tr></tbody></table></div>"
)
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)


def record(path, *cells, model_says="I look.", outputs=()):
    """A run whose cells were not executed: all that an export without a kernel needs."""
    transcript = Transcript("s", path=path)
    transcript.add(Task("Count the rows.", "Count the rows."))
    for number, (source, status) in enumerate(cells, 1):
        result = CellResult(source, status, _failed(number, status) or tuple(outputs), number)
        said = f"{model_says}\n```python\n{source}\n```"
        transcript.add(Step(Reply(said), said, model_says, result, Observation("")))
    transcript.finish(Outcome("answered"))
    return path


def _failed(number, status, line=2):
    if status == "ok":
        return ()
    traceback = [f"Cell In[{number}], line {line}", "ValueError: no"]
    return (
        {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": traceback},
    )


def test_an_existing_file_is_replaced_only_by_force_and_the_run_never(tmp_path):
    run = record(tmp_path / "run.ipynb", ("x = 1", "ok"))
    place = export(run, "script")
    assert place == tmp_path / "run.py"
    with pytest.raises(TranscriptError, match="no file is overwritten"):
        export(run, "script")
    assert export(run, "script", force=True) == place
    with pytest.raises(TranscriptError, match="the run itself"):
        export(run, "script", out=run, force=True)


def test_an_unknown_form_and_a_damaged_notebook_are_named(tmp_path):
    with pytest.raises(SettingsError, match="html, markdown, script, clean"):
        export(record(tmp_path / "run.ipynb"), "pdf")
    (tmp_path / "cut.ipynb").write_text('{"cells": [{}')
    with pytest.raises(TranscriptError, match=r"cut\.ipynb"):
        export(tmp_path / "cut.ipynb", "html")


@pytest.fixture
def evil_run(tmp_path):
    data = {"text/plain": "n\n7", "text/html": TABLE + EVIL, "application/javascript": "alert(4)"}
    svg = {
        "image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(5)</script></svg>"
    }
    outputs = [
        {"output_type": "display_data", "data": data, "metadata": {}},
        {"output_type": "display_data", "data": svg, "metadata": {}},
        {"output_type": "display_data", "data": {"image/png": PIXEL}, "metadata": {}},
        {"output_type": "stream", "name": "stderr", "text": "10%\r100%\n"},
    ]
    return record(
        tmp_path / "run.ipynb",
        ("print('</pre><script>alert(6)</script>```')", "ok"),
        model_says=f"I look at **rows** {EVIL}",
        outputs=outputs,
    )


def test_a_page_has_tables_and_figures_and_no_script(evil_run):
    page = export(evil_run, "html").read_text(encoding="utf-8")
    assert "<script" not in page.lower()
    assert "onerror" not in page
    assert "javascript:" not in page
    assert "default-src &#x27;none&#x27;" in page
    assert "<th>n</th>" in page
    assert 'class="dataframe"' in page
    assert "{color: red}" not in page
    assert f"data:image/png;base64,{PIXEL}" in page
    assert "<strong>rows</strong>" in page
    assert "10%" not in page.partition("<body")[2]
    assert "final_answer" not in page


def test_without_nbconvert_the_error_says_how_to_get_it(evil_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbconvert", None)
    with pytest.raises(SettingsError, match=r"pip install 'kernel-agent\[export\]'"):
        export(evil_run, "html")
    assert not evil_run.with_suffix(".html").exists()


def test_markdown_shows_html_as_text_and_has_figures_beside_it(evil_run):
    text = export(evil_run, "markdown").read_text(encoding="utf-8")
    prose = "\n".join(text.split("```")[::2])
    assert "<script" not in prose
    assert "<img" not in prose
    assert "&lt;script>" in prose
    assert "```text\nn\n7\n" in text
    assert "![Figure 2](run_files/figure-2.png)" in text
    assert (evil_run.parent / "run_files" / "figure-2.png").read_bytes()[:4] == b"\x89PNG"
    assert "````python" in text  # the source holds a fence itself
    with pytest.raises(TranscriptError, match="overwritten"):
        export(evil_run, "markdown", out=evil_run.parent / "run.md")


def test_code_in_markdown_stays_as_it_was(tmp_path):
    says = "So:\n\n```html\n<script>\n```\n\nand <b> it [a](javascript:x) <https://b.org>"
    text = export(record(tmp_path / "a.ipynb", ("1", "ok"), model_says=says), "markdown")
    shown = text.read_text(encoding="utf-8")
    assert "```html\n<script>\n```" in shown
    assert "<b> it [a](unsafe:javascript:x) <https://b.org>" in shown


def run_script(path, *, command=sys.executable):
    done = subprocess.run(
        [command, str(path)], capture_output=True, text=True, timeout=60, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_has_what_worked_and_runs_from_anywhere(tmp_path):
    (tmp_path / "data.txt").write_text("seven")
    run = record(
        tmp_path / "run.ipynb",
        ("from __future__ import annotations\nwords = open('data.txt').read()", "ok"),
        ("unused = 1\nfails()", "error"),
        ("half = 21\nfails()", "error"),
        ("async def twice(n):\n    return 2 * n\nx = await twice(await twice(1))", "ok"),
        ("final_answer(f'{words} {half * 2} {x}')", "ok"),
    )  # fmt: skip
    script = export(run, "script")
    text = script.read_text(encoding="utf-8")
    assert "half = 21" in text
    assert "unused" not in text
    assert "fails" not in text
    assert "# I look.\nhalf = 21" in text
    assert "ipython" not in text
    assert run_script(script) == "seven 42 4\n"


def test_a_script_with_magics_says_how_to_run_it(tmp_path):
    run = record(tmp_path / "run.ipynb", ("%time x = 1", "ok"), ("!echo hello", "ok"))
    script = export(run, "script")
    assert script.read_text(encoding="utf-8").startswith("# run with: ipython run.py\n")
    ipython = Path(sys.executable).with_name("ipython")
    assert "hello" in run_script(script, command=str(ipython))


def test_a_script_of_another_language_has_its_comments_and_its_suffix(tmp_path):
    run = record(tmp_path / "run.ipynb", ("let x = 1;", "ok"), ("let = ;", "error"))
    notebook = json.loads(run.read_text())
    notebook["metadata"]["language_info"] = {"name": "javascript", "file_extension": ".js"}
    run.write_text(json.dumps(notebook))
    script = export(run, "script")
    assert script.name == "run.js"
    assert "// I look.\nlet x = 1;" in script.read_text()
    assert "let = ;" not in script.read_text()


def failed_cell(source, line, *, status="error"):
    outputs = _failed(1, "error", line)
    return ReadCell(
        {"cell_type": "code"}, "code", 1, source, status, CellResult(source, "error", outputs, 1)
    )


def test_a_failed_cell_is_cut_before_the_failing_statement_or_caught():
    head, whole = remedies(failed_cell("a = 1\n# why\nfor i in a:\n    b = i\nc = 2", 4))
    assert head == "a = 1"
    assert "try:\n    for i in a:\n        b = i\nexcept ValueError:" in whole
    assert "c = 2" not in whole


def test_nothing_remains_of_a_cell_that_is_no_python_or_ended_the_kernel():
    assert remedies(failed_cell("a = = 1", 1)) == ()
    assert remedies(failed_cell("a = 1", 1, status="died")) == ()


def test_names_are_read_before_they_are_bound():
    assert read(["x = 1\ny = x + z", "def f(q):\n    return q + w"]) == {"z", "w"}
    assert bound(["import a.b as c, d\nfor e in []:\n    g = 1\ndef h(i): j = 1"]) >= {*"cdegh"}
    assert "j" not in bound(["def h(i): j = 1"])


def record_live(folder, *cells):
    """A run whose cells a kernel has executed."""
    replies = [f"I look.\n```python\n{cell}\n```" for cell in cells]
    with Agent(ScriptedModel(replies), cwd=folder, max_steps=len(cells), cell_timeout=2.0) as agent:
        return agent.run("Count the rows.", out=folder / "run.ipynb").path


def code_of(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    codes = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
    assert not [one for one in outputs if one["output_type"] == "error"]
    return codes


def test_a_clean_notebook_keeps_of_failed_cells_what_later_ones_need(tmp_path):
    run = record_live(
        tmp_path,
        "rows = [1, 2]",
        "unused = 5\n1 / 0",
        "half = 21\nrows.append(3)\n1 / 0",
        "seen = []\nfor n in (2, 1, 0):\n    seen.append(2 / n)",
        "half, seen, rows",
        "final_answer(half)",
    )
    told = []
    clean = export(run, "clean", tell=told.append)
    codes = code_of(clean)
    assert list(codes) == ["setup", "step-1", "step-3", "step-4", "step-5", "step-6"]
    assert codes["step-3"] == "half = 21\nrows.append(3)"
    assert "except ZeroDivisionError:" in codes["step-4"]
    assert [line for line in told if "step 4" in line] == [
        "Later cells need step 4: it is kept, with its error caught."
    ]
    notebook = nbformat.read(clean, as_version=4)
    run_id = json.loads(run.read_text())["metadata"]["kernel_agent"]["run"]["id"]
    assert notebook.metadata.kernel_agent == {"exported_from": run_id}
    assert not any("kernel_agent" in cell.metadata for cell in notebook.cells)
    assert "vnd.kernel_agent" not in clean.read_text()
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [None, 1, 2, 3, 4, 5]
    thoughts = [cell.id for cell in notebook.cells if cell.id.endswith("-thought")]
    assert "step-2-thought" not in thoughts
    assert "step-3-thought" in thoughts
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": tmp_path}}).execute()


def test_a_clean_notebook_in_another_folder_finds_the_data(tmp_path):
    (tmp_path / "data.txt").write_text("seven")
    run = record_live(tmp_path, "final_answer(open('data.txt').read())")
    clean = export(run, "clean", out=tmp_path / "below" / "clean.ipynb")
    notebook = nbformat.read(clean, as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": clean.parent}}).execute()
    assert "seven" in str(notebook.cells[-2].outputs)


def test_what_cannot_be_made_clean_is_named_and_nothing_is_written(tmp_path):
    run = record_live(tmp_path, "open('seen', 'x').close()\nx = 1", "final_answer(x)")
    with pytest.raises(TranscriptError, match=r"cannot be made clean: step 1 raises FileExists"):
        export(run, "clean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.ipynb", "seen"]


def test_outputs_that_differ_in_every_run_stop_nothing(tmp_path):
    run = record_live(tmp_path, "1 / 0", "import random\nrandom.random()", "final_answer(1)")
    assert list(code_of(export(run, "clean"))) == ["setup", "step-2", "step-3"]


def test_a_run_that_called_the_host_is_not_made_clean_and_the_reason_is_said(tmp_path):
    run = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=run)
    transcript.add(Task("Search.", "Search."))
    call = ToolCall("search", {"args": ["a"], "kwargs": {}}, result="b")
    result = CellResult("search('a')", tool_calls=(call,))
    transcript.add(Step(Reply("I search."), "I search.", "", result, Observation("b")))
    transcript.finish(Outcome("answered"))
    with pytest.raises(TranscriptError, match="calls search, which ran outside"):
        export(run, "clean")
    assert [path.name for path in tmp_path.iterdir()] == ["run.ipynb"]


def test_the_command_writes_the_demo_clean_and_papermill_takes_it(tmp_path):
    papermill = pytest.importorskip("papermill")
    from vega_datasets import local_data

    data = Path(local_data.seattle_weather.filepath)
    (tmp_path / data.name).write_bytes(data.read_bytes())
    run = tmp_path / "run.ipynb"
    run.write_bytes((shipped("notebooks") / "seattle-weather.ipynb").read_bytes())
    done = CliRunner().invoke(app, ["export", str(run), "--to", "clean", "--yes"])
    assert done.exit_code == 0, done.output
    clean = tmp_path / "run.clean.ipynb"
    assert done.stdout.strip() == str(clean)
    assert "step-2" in code_of(clean)
    papermill.execute_notebook(clean, tmp_path / "done.ipynb", cwd=tmp_path, progress_bar=False)


def test_a_persons_notebook_becomes_clean_too(tmp_path):
    sources = ["a = 1", "b =", "a + 1", "missing"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[1].outputs = [nbformat.v4.new_output("error", ename="SyntaxError", evalue="")]
    path = tmp_path / "person.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    clean = export(path, "clean")
    assert list(code_of(clean).values()) == ["a = 1", "a + 1"]
    notebook = nbformat.read(clean, as_version=4)
    assert notebook.cells[1].outputs[0].data == {"text/plain": "2"}
    assert "kernel_agent" not in notebook.metadata


@pytest.mark.slow
def test_thirty_steps_become_clean(tmp_path):
    clean = export(thirty_steps.record(tmp_path), "clean")
    codes = code_of(clean)
    assert {"step-4", "step-18"}.isdisjoint(codes)
    assert codes["step-8"] == "half = 1"
    assert "except KeyboardInterrupt" in codes["step-10"]
    assert "del half" in codes["step-16"]
    papermill = pytest.importorskip("papermill")
    papermill.execute_notebook(clean, tmp_path / "done.ipynb", cwd=tmp_path, progress_bar=False)
