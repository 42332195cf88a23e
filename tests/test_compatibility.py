"""What other programs do with a run's notebook: they execute, convert, compare and edit it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

import kernel_agent
from kernel_agent import Agent, ScriptedModel
from kernel_agent.errors import SettingsError
from kernel_agent.exporting import export
from kernel_agent.shipped import shipped
from kernel_agent.steps import ANSWER_MIME, CellResult, Observation, Outcome, Reply, Step
from kernel_agent.transcript import Transcript

pytestmark = pytest.mark.slow  # other programs are started for each of them

BLOCKER = """\
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "kernel_agent":
            raise ModuleNotFoundError("blocked")


sys.meta_path.insert(0, Blocker())
"""

CELLS = [
    "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.show()",
    "known = 3\n1 / 0",
    "known += 1\nwhile True:\n    pass",
    "import os\nos._exit(3)",
    "known = 4",
    "final_answer(known + 3)",
]
ENTRY_POINTS = """\
[papermill.engine]
kernel_agent = kernel_agent.papermill_engine:KernelAgentEngine
"""
NBCLIENT = "from nbclient.cli import main; main()"
NBDIFF = "from nbdime.nbdiffapp import main; main()"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of the demo, and that of a run in which cells fail: in each a `run.ipynb`."""
    data = pytest.importorskip("vega_datasets").local_data.seattle_weather.filepath
    demo, failing = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("failing")
    shutil.copyfile(shipped("notebooks") / "seattle-weather.ipynb", demo / "run.ipynb")
    shutil.copyfile(data, demo / "seattle-weather.csv")
    # An earlier version recorded it: this one adds facts to its metadata, once.
    Transcript.load(demo / "run.ipynb").save()
    model = ScriptedModel([f"Step {n}.\n```python\n{cell}\n```" for n, cell in enumerate(CELLS)])
    with Agent(model, cwd=failing, cell_timeout=3.0) as agent:
        assert agent.run("Fail.", out=failing / "run.ipynb").answer == 7
    return {"demo": demo, "failing": failing}


@pytest.fixture(params=["demo", "failing"])
def run(recorded: dict[str, Path], request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A notebook of one's own, with its data beside it."""
    shutil.copytree(recorded[request.param], tmp_path, dirs_exist_ok=True)
    return tmp_path / "run.ipynb"


executes = pytest.mark.parametrize(
    "run", [pytest.param("demo", marks=pytest.mark.slow), "failing"], indirect=True
)


@pytest.fixture
def without_us(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no process that is started find `kernel_agent`."""
    folder = tmp_path_factory.mktemp("blocker")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def python(*arguments: str | Path, cwd: Path) -> str:
    """What a Python process printed, which must end well."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> str:
    """The richest that a reader sees of the last output."""
    data = cell.outputs[-1].data
    return data.get("text/markdown") or data["text/plain"]


def sources_of(path: Path) -> list[str]:
    """What the cells say; jupytext adds a line to one that ends in an empty line."""
    return [cell.source.rstrip("\n") for cell in read(path).cells]


@executes
@pytest.mark.usefixtures("without_us")
def test_jupyter_execute_runs_it_to_its_answer_where_we_are_not_installed(run):
    pytest.importorskip("nbclient")
    notebook = read(run)
    answer = shown(code_cells(notebook)[-1])
    proof = nbformat.v4.new_code_cell("import kernel_agent")
    proof.metadata["tags"] = ["raises-exception"]
    notebook.cells.insert(0, proof)
    nbformat.write(notebook, run)
    python("-c", NBCLIENT, run, "--output=done.ipynb", cwd=run.parent)
    cells = code_cells(read(run.with_name("done.ipynb")))
    assert cells[0].outputs[0].evalue == "blocked"
    assert shown(cells[-1]) == answer


@executes
@pytest.mark.usefixtures("without_us")
def test_nbval_finds_that_its_cells_run_and_that_its_errors_are_expected(run):
    pytest.importorskip("nbval")
    # A cell that ran for ever and is not left out would take so many seconds, and fail.
    options = ["-p", "no:cacheprovider", "--nbval-lax", "--nbval-cell-timeout=20"]
    said = python("-m", "pytest", *options, run, cwd=run.parent)
    stopped = sum("skip-execution" in cell.metadata.get("tags", ()) for cell in read(run).cells)
    assert f"{len(code_cells(read(run))) - stopped} passed" in said


@executes
@pytest.mark.usefixtures("without_us")
def test_papermill_accepts_a_clean_export(run):
    papermill = pytest.importorskip("papermill")
    clean = export(run, "clean")
    place = str(run.with_name("done.ipynb"))
    papermill.execute_notebook(str(clean), place, cwd=str(run.parent), progress_bar=False)
    done = read(Path(place))
    assert shown(code_cells(done)[-1]) == shown(code_cells(read(clean))[-1])
    assert done.metadata.papermill.exception is None


def test_a_script_of_jupytext_has_every_source_and_its_notebook_is_read_without_harm(run):
    jupytext = pytest.importorskip("jupytext")
    sources, steps = sources_of(run), Transcript.load(run).steps
    script = jupytext.writes(read(run), "py:percent")
    jupytext.write(jupytext.reads(script, "py:percent"), run)
    assert sources_of(run) == sources
    back = Transcript.load(run).steps
    assert [(step.reply, step.result and step.result.source) for step in back] == [
        (step.reply, step.result and step.result.source) for step in steps
    ]


def test_a_notebook_that_jupytext_brings_up_to_date_from_its_script_is_the_same_run(run):
    jupytext = pytest.importorskip("jupytext.cli").jupytext
    before, entries = read(run), Transcript.load(run).entries
    jupytext(["--quiet", "--to", "py:percent", str(run)])
    jupytext(["--quiet", "--to", "ipynb", "--update", str(run.with_suffix(".py"))])
    assert [cell.id for cell in read(run).cells] == [cell.id for cell in before.cells]
    loaded = Transcript.load(run)
    assert loaded.entries == entries
    assert not loaded.problems


def test_nbdime_sees_nothing_in_a_new_save_and_in_a_fork_what_was_left_out(run):
    nbdime = pytest.importorskip("nbdime")
    before = read(run)
    fork = Transcript.load(run).fork(2, run.with_name("fork.ipynb"))
    fork.save()
    loaded = Transcript.load(run)
    loaded.save()
    assert nbdime.diff_notebooks(before, read(run)) == []
    changes = {change.key: change.diff for change in nbdime.diff_notebooks(before, read(fork.path))}
    assert set(changes) == {"cells", "metadata"}
    assert {change.op for change in changes["cells"]} == {"removerange"}
    assert set(changes["metadata"][0].key) == set("kernel_agent")
    said = python("-c", NBDIFF, run, fork.path, "-s", cwd=run.parent)
    assert "deleted" in said


def test_a_notebook_names_its_kernel_and_language_as_editors_expect(run):
    metadata = read(run).metadata
    assert {"display_name", "language", "name"} <= set(metadata.kernelspec)
    assert metadata.language_info.name == "python"
    assert all(cell.id for cell in read(run).cells)


@pytest.mark.parametrize("indent", [1, 2])
def test_what_vs_code_keeps_in_the_metadata_stays_byte_for_byte(run, indent):
    content = json.loads(run.read_text(encoding="utf-8"))
    content["metadata"]["vscode"] = {"interpreter": {"hash": "31f2aee4e71d21fbe5cf8b01ff0e069b"}}
    content["metadata"]["language_info"]["version"] = "3.99.1"
    for cell in content["cells"]:
        cell["metadata"]["vscode"] = {"languageId": "python"}
    # As VS Code writes it: keys are in its own order, no newline ends the file.
    run.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    before = run.read_bytes()
    transcript = Transcript.load(run)
    transcript.save()
    assert run.read_bytes() == before
    transcript.reopen()
    said = "More.\n```python\n1\n```"
    transcript.add(Step(Reply(said), said, "More.", CellResult("1"), Observation("")))
    transcript.finish(Outcome("answered"))
    cells = len(content["cells"])
    after = json.loads(run.read_text(encoding="utf-8"))
    assert after["cells"][:cells] == content["cells"]
    for name in ("vscode", "language_info", "kernelspec"):
        assert after["metadata"][name] == content["metadata"][name]


@pytest.fixture
def engine() -> Iterator[str]:
    """The name by which papermill knows the engine."""
    papermill_engines = pytest.importorskip("papermill.engines").papermill_engines
    from kernel_agent.papermill_engine import KernelAgentEngine

    papermill_engines.register("ours", KernelAgentEngine)
    yield "ours"
    papermill_engines.register("ours", None)


def execute(engine: str, folder: Path, *cells: str | tuple[str, str], **options: Any) -> Any:
    """What papermill makes of `cells`, each a source, or a source and a tag."""
    from papermill import execute_notebook

    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "P"}
    for cell in cells:
        source, *tags = (cell,) if isinstance(cell, str) else cell
        notebook.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": tags}))
    nbformat.write(notebook, folder / "in.ipynb")
    place = folder / "out.ipynb"
    execute_notebook(
        folder / "in.ipynb", place, engine_name=engine, cwd=folder, progress_bar=False, **options
    )
    return read(place)


def test_the_engine_executes_with_parameters_tags_and_an_answer(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "secret")
    with (tmp_path / "printed.txt").open("w") as printed:
        done = execute(
            engine,
            tmp_path,
            ("n = 1", "parameters"),
            ("print('before')\nn / 0", "raises-exception"),
            ("n = 0", "skip-execution"),
            "import os\nprint(os.environ['GIVEN'], 'SOME_API_KEY' in os.environ)",
            "final_answer(n * 2)",
            parameters={"n": 21},
            stdout_file=printed,
            env={"GIVEN": "yes"},
        )
    _, injected, failing, skipped, environment, answer = done.cells
    assert injected.metadata.tags == ["injected-parameters"]
    assert [output.name for output in failing.outputs] == ["stdout", "stderr"]
    assert "ZeroDivisionError" in failing.outputs[1].text
    assert (skipped.execution_count, skipped.outputs) == (None, [])
    assert environment.outputs[0].text == "yes False\n"
    assert answer.outputs[0].data[ANSWER_MIME] == {"value": 42}
    assert {cell.metadata.papermill.status for cell in done.cells} == {"completed"}
    assert done.metadata.language_info.version == ".".join(map(str, sys.version_info[:3]))
    assert (tmp_path / "printed.txt").read_text() == "before\nyes False\n"


@pytest.mark.parametrize(
    ("cell", "name", "reason"),
    [
        (("1 / 0",), "ZeroDivisionError", "division by zero"),
        (("while True:\n    pass", "raises-exception"), "CellInterrupted", "its time limit"),
        (("import os\nos._exit(3)", "raises-exception"), "DeadKernelError", "The kernel died"),
    ],
)
def test_the_engine_ends_at_a_cell_that_fails_and_the_notebook_says_why(
    engine, tmp_path, cell, name, reason
):
    from papermill.exceptions import PapermillExecutionError

    source, *tags = cell
    failing = (f"print('before', flush=True)\n{source}", *tags)
    with pytest.raises(PapermillExecutionError) as caught:
        execute(engine, tmp_path, failing, "1", execution_timeout=2)
    assert caught.value.ename == name
    assert reason in caught.value.evalue
    first, second = code_cells(read(tmp_path / "out.ipynb"))
    assert first.outputs[0].text == "before\n"
    assert (first.metadata.papermill.status, first.metadata.papermill.exception) == ("failed", True)
    assert second.metadata.papermill.status == "pending"
    assert second.execution_count is None


class PressesCtrlC:
    """A file; writing to it presses Ctrl-C."""

    def write(self, text: str) -> None:
        signal.raise_signal(signal.SIGINT)

    def flush(self) -> None:
        pass


def test_ctrl_c_interrupts_the_engines_cell_and_keeps_its_outputs(engine, tmp_path):
    from papermill.exceptions import PapermillExecutionError

    endless = "print('before', flush=True)\nwhile True:\n    pass"
    with pytest.raises(PapermillExecutionError) as caught:
        execute(engine, tmp_path, endless, "1", stdout_file=PressesCtrlC())
    assert "interrupted by the user" in caught.value.evalue
    assert code_cells(read(tmp_path / "out.ipynb"))[0].outputs[0].text == "before\n"


def test_the_engine_refuses_an_option_that_it_does_not_know(engine, tmp_path):
    with pytest.raises(SettingsError, match="no option 'iopub_timeout'"):
        execute(engine, tmp_path, "1", iopub_timeout=3)


@executes
def test_papermill_finds_the_engine_by_its_entry_point_and_repeats_a_run(
    run, tmp_path_factory, monkeypatch
):
    pytest.importorskip("papermill")
    folder = tmp_path_factory.mktemp("installed")
    (folder / "engine-1.0.dist-info").mkdir()
    (folder / "engine-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    ours = str(Path(kernel_agent.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), ours]))
    python("-m", "papermill", "--engine", "kernel_agent", run, "done.ipynb", cwd=run.parent)
    answer = code_cells(read(run.with_name("done.ipynb")))[-1]
    assert answer.outputs[-1].data == code_cells(read(run))[-1].outputs[-1].data
    assert Transcript.load(run.with_name("done.ipynb")).steps
