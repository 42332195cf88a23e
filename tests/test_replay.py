"""A recorded run is executed again: what holds, what drifts, and how it is told."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import nbformat
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from kernel_agent import Agent, ScriptedModel
from kernel_agent.cli import app
from kernel_agent.cli.trust import confirm_execution
from kernel_agent.comparing.comparison import Difference
from kernel_agent.errors import SettingsError, TranscriptError
from kernel_agent.junit import junit_xml
from kernel_agent.replay import CellReplayed, Replay, ReplayedCell, ReplayStarted, replay
from kernel_agent.replay_view import ReplayView, summary
from kernel_agent.steps import CellResult, Entry, Output, Reply, Step, Task, UserCell
from kernel_agent.transcript import Transcript

CELLS = [
    "x = 6 * 7\nx",
    "1 / 0",
    "object()",
    "import random\nrandom.random()",
    "from PIL import Image\nImage.new('RGB', (8, 8), 'red')",
    "open('seen.txt', 'w').write(str(x))",
    "final_answer(x)",
]
RANDOM = "step-4"
HOSTILE = "\x1b]0;title\x07\x1b[2J[bold]&<x>\x00\ufffe"


def record(folder: Path, cells: list[str], *, cell_timeout: float = 30.0) -> Path:
    """Records a run of these cells, the last of which answers, and returns its notebook."""
    path = folder / "run.ipynb"
    model = ScriptedModel([f"Look.\n```python\n{cell}\n```" for cell in cells])
    with Agent(model, cwd=folder, cell_timeout=cell_timeout) as agent:
        agent.run("What is it?", out=path)
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded"), CELLS)


@pytest.fixture(scope="module")
def drifting(recorded: Path) -> Path:
    """The same run, with outputs that are not what the code gives."""
    notebook = json.loads(recorded.read_text())
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    cells["step-1"]["outputs"][0]["data"]["text/plain"] = ["43"]
    cells["step-2"]["outputs"] = []
    cells["step-2"]["metadata"]["kernel_agent"]["status"] = "ok"
    cells["step-6"]["outputs"].append({"output_type": "stream", "name": "stdout", "text": HOSTILE})
    path = recorded.with_name("drifting.ipynb")
    path.write_text(json.dumps(notebook))
    return path


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


def verdicts(done: Replay) -> dict[str, str]:
    return {cell.name: cell.verdict for cell in done.cells}


def test_a_run_holds_but_for_what_never_comes_out_twice_alike(recorded: Path) -> None:
    (recorded.parent / "seen.txt").unlink(missing_ok=True)
    events: list[ReplayStarted | CellReplayed] = []
    done = replay(recorded, listener=events.append)
    assert verdicts(done) == {
        "step-1": "same",
        "step-2": "same",
        "step-3": "same after normalising",
        RANDOM: "differs",
        "step-5": "same",
        "step-6": "same",
        "step-7": "same",
    }
    assert not done.holds
    assert done.path == recorded
    assert (recorded.parent / "seen.txt").read_text() == "42"  # in the folder of the run
    names = tuple(cell.name for cell in done.cells)
    assert events[0] == ReplayStarted(recorded, "python3", names, 1, 1)
    assert events[1:] == [CellReplayed(n, 7, cell) for n, cell in enumerate(done.cells, 1)]


@pytest.mark.slow
def test_repeats_tell_what_is_random_from_drift(recorded: Path) -> None:
    done = replay(str(recorded), repeat=2)
    assert verdicts(done)[RANDOM] == "nondeterministic"
    assert done.holds
    found = next(cell for cell in done.cells if cell.name == RANDOM)
    assert found.differences[0].part == "text/plain"


def test_the_command_shows_each_cell_each_drift_and_a_last_line(drifting: Path) -> None:
    report = drifting.with_name("report.xml")
    done = command(drifting, "--ignore", r"0\.\d+", "--junit", report)
    assert done.exit_code == 1, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "drifting.ipynb · python3 · 7 cells"
    assert re.match(r"step-1 +differs +\S+ m?s +\S+ m?s  x = 6 \* 7$", lines[2])
    assert re.match(r"step-2 +new error ", lines[3])
    assert "  text/plain\n  - 43\n  + 42\n    numbers, then → now: 43 → 42 (-2.3 %)" in done.stdout
    assert "  + ZeroDivisionError: division by zero" in done.stdout
    assert "\n  stdout\n" in done.stdout
    assert lines[-1].startswith(
        "It drifts in 3 of 7 cells: 2 same, 2 same after normalising, 2 differs, 1 new error · "
    )
    suite = Xml.fromstring(report.read_bytes())[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("7", "3", "0")
    failures = {case.get("name"): case.findtext("failure") for case in suite}
    assert "- 43\n+ 42" in (failures["step-1"] or "")
    assert failures["step-7"] is None


def test_as_json_each_cell_is_a_line_and_so_is_the_whole(drifting: Path) -> None:
    done = command(drifting, "--json", "--strict")
    assert done.exit_code == 1, done.output
    *cells, whole = [json.loads(line) for line in done.stdout.splitlines()]
    assert [cell["cell"] for cell in cells] == [f"step-{n}" for n in range(1, 8)]
    assert cells[0]["verdict"] == "differs"
    assert cells[0]["differences"][0]["part"] == "text/plain"
    assert cells[2]["verdict"] == "differs"  # an address: nothing is normalised
    assert whole["holds"] is False
    assert whole["verdicts"]["new error"] == 1


def test_quietly_only_the_last_line_is_printed_and_the_exit_code_says_that_it_holds(
    recorded: Path,
) -> None:
    done = command(recorded, "--quiet", "--ignore", r"0\.\d+", "--yes")
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"It holds: 5 same, 2 same after normalising · .+ s\n", done.stdout)


UNSTEADY = re.compile(
    r'"(?:id|run|started|finished|seconds|kernel_seconds|seal|iopub\.\S+?|shell\.\S+?)": [^\n]*'
    r"|0x[0-9a-f]+|0\.\d{5,}"
)


@pytest.mark.slow
def test_out_is_a_run_with_the_outputs_of_now_and_twice_the_same_bytes(
    recorded: Path, drifting: Path
) -> None:
    texts = []
    for name in ("first.ipynb", "second.ipynb"):
        out = recorded.parent / "again" / name
        replay(drifting, out=out)
        nbformat.validate(nbformat.read(out, as_version=4))
        texts.append(UNSTEADY.sub("…", out.read_text()))
        out.rename(recorded.parent / name)
    assert texts[0] == texts[1]
    then, now = Transcript.load(drifting), Transcript.load(recorded.parent / "first.ipynb")
    assert now.about["parent"] == {"path": "../drifting.ipynb", "run": then.run_id, "step": 7}
    assert now.run_id != then.run_id
    assert now.messages() == then.messages()
    assert (now.answer, now.outcome) == (42, then.outcome)
    first = now.steps[0].result
    assert first is not None
    assert first.outputs[0]["data"] == {"text/plain": "42"}


@pytest.mark.slow
def test_cells_that_were_stopped_or_ended_the_kernel_do_so_again(tmp_path: Path) -> None:
    cells = [
        "kept = 1",
        "import time\nprint('begun', flush=True)\nfor n in range(100):\n    time.sleep(1)",
        "import os\nos._exit(3)",
        "kept + 1",
        "typed = input('name: ')",
        "final_answer(kept)",
    ]
    path = tmp_path / "run.ipynb"
    model = ScriptedModel([f"```python\n{cell}\n```" for cell in cells])
    with Agent(model, cwd=tmp_path, cell_timeout=0.4, ask_user=lambda *prompt: "Ada") as agent:
        agent.run("What is it?", out=path)
    done = replay(path)
    assert done.holds, done
    assert [cell.now.status for cell in done.cells if cell.now] == [
        "ok",
        "interrupted",
        "died",
        "ok",
        "ok",
        "ok",
    ]


def test_ctrl_c_ends_the_replay_and_the_cells_that_are_left_were_not_run(
    recorded: Path, tmp_path: Path
) -> None:
    def listen(event: ReplayStarted | CellReplayed) -> None:
        if isinstance(event, CellReplayed) and event.number == 2:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "out.ipynb"
    done = replay(recorded, listener=listen, out=out, repeat=1)
    assert [cell.verdict for cell in done.cells] == ["same", "same", *["not run"] * 5]
    assert done.interrupted
    assert not done.holds
    assert not out.exists()
    assert "not every cell was run" in done.problems[-1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert Xml.fromstring(junit_xml(done))[0].get("skipped") == "5"


class Foreign(Transcript):
    """A notebook that a person wrote elsewhere."""

    cells: tuple[Entry, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.cells


def user_cell(name: str, source: str, text: str | None = None) -> UserCell:
    data = {"text/plain": text}
    shown: Output = {
        "output_type": "execute_result",
        "data": data,
        "metadata": {},
        "execution_count": 1,
    }
    count = None if text is None else 1
    return UserCell(name, CellResult(source, "ok", (shown,) if text else (), count))


def test_a_persons_notebook_replays_as_plain_jupyter_would_show_it(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    notebook = Foreign("", cwd=tmp_path)
    notebook.cells = (
        user_cell("a", "import pandas as pd\npd.get_option('display.width')", "80"),
        user_cell("b", "width = 1"),
        user_cell("c", "width", "1"),
        user_cell("d", "nothing_of_this_name"),
    )
    done = replay(notebook)
    assert verdicts(done) == {"a": "same", "b": "not recorded", "c": "same", "d": "new error"}
    with pytest.raises(SettingsError, match="cells that a user wrote"):
        replay(notebook, out=tmp_path / "out.ipynb")


def test_a_persons_notebook_is_replayed_from_its_file(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell(
            source,
            execution_count=number,
            outputs=[nbformat.v4.new_output("stream", name="stdout", text=f"{shown}\n")],
        )
        for number, (source, shown) in enumerate([("print(1)", "1"), ("print(2)", "3")], 1)
    ]
    path = tmp_path / "theirs.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    done = command(path)
    assert done.exit_code == 1, done.output
    assert "2 cells with its code will be executed" in done.stderr
    assert f"{cells[1].id}: differs" in done.stdout
    assert "  - 3\n  + 2\n" in done.stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def confirm(
    notebook: Transcript, typed: str, monkeypatch: pytest.MonkeyPatch, *, yes: bool = False
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    confirm_execution(notebook, yes=yes)


def test_before_foreign_code_is_executed_the_user_is_told_and_on_a_terminal_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    notebook = Foreign("", path=tmp_path / "foreign\x1b[2J.ipynb")
    notebook.cells = (user_cell("a", "1 + 1", "2"), user_cell("b", "3", "3"))
    notebook.written_here = False
    for refusal in ("n\n", "\n"):
        with pytest.raises(typer.Exit) as left:
            confirm(notebook, refusal, monkeypatch)
        assert left.value.exit_code == 2
    said = capsys.readouterr()
    assert "2 cells" in said.err
    assert "with your rights" in said.err
    assert "Execute it? [y/N]" in said.err
    assert "\x1b[2J" not in said.err
    assert not said.out
    confirm(notebook, "y\n", monkeypatch)
    capsys.readouterr()
    confirm(notebook, "", monkeypatch, yes=True)
    assert "with your rights" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # a pipe: nobody to be asked
    confirm_execution(notebook, yes=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tolerance", "x"], "--tolerance: 'x' is not a number of 0 or more."),
        (["--tolerance", "-1"], "--tolerance: '-1' is not a number of 0 or more."),
        (["--tolerance", "nan"], "--tolerance: 'nan' is not a number of 0 or more."),
        (["--repeat", "0"], "--repeat: '0' is not a whole number of 1 or more."),
        (["--ignore", "("], "--ignore: '(' is no regular expression"),
        (["--rules", "none.toml"], "--rules 'none.toml': cannot be read"),
        (["--out", "out.txt"], "--out: 'out.txt' is not the name of a notebook"),
        (["--out", __file__.replace(".py", ".ipynb")], None),
        (["--quiet", "--json"], "exclude each other"),
        (["--kernel", "nope"], "Kernel 'nope' did not start"),
    ],
)
def test_bad_usage_says_what_is_wrong_and_exits_with_2(
    recorded: Path, arguments: list[str], said: str | None
) -> None:
    if said is None:  # a file that is there
        arguments, said = ["--out", str(recorded)], "it exists, and no file is overwritten"
    done = command(recorded, *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr


def test_a_notebook_that_is_none_exits_with_2(tmp_path: Path) -> None:
    assert command(tmp_path / "none.ipynb").exit_code == 2
    broken = tmp_path / "broken.ipynb"
    broken.write_text("no JSON")
    assert command(broken).exit_code == 2


def test_options_of_the_function_are_checked(recorded: Path) -> None:
    with pytest.raises(SettingsError, match="tolerance"):
        replay(recorded, tolerance=float("nan"))
    with pytest.raises(SettingsError, match="repeat"):
        replay(recorded, repeat=0)
    with pytest.raises(TranscriptError, match="it exists"):
        replay(recorded, out=recorded)


def test_a_run_without_cells_says_that_there_is_nothing_to_compare(tmp_path: Path) -> None:
    transcript = Transcript("system", path=tmp_path / "run.ipynb")
    transcript.add(Task("Hello?", "Hello?"))
    transcript.add(Step(Reply("Hello."), "Hello.", "Hello."))
    done = replay(transcript)
    assert done.holds
    assert done.problems == ("No cell has been executed: there is nothing to compare.",)


def hostile_replay() -> Replay:
    result = CellResult(f"print(1)  # {HOSTILE}", "ok", (), 1, 0.5)
    cell = ReplayedCell(
        f"cell {HOSTILE}", None, "differs", result, result, (Difference("stdout", f"- {HOSTILE}"),)
    )
    return Replay(Path(f"{HOSTILE}.ipynb"), (cell,), 1.0, (f"problem {HOSTILE}",))


def show(console: Console, done: Replay) -> str:
    with ReplayView(console) as view:
        names = tuple(cell.name for cell in done.cells)
        view(ReplayStarted(done.path, HOSTILE, names, 1, 2))
        view(ReplayStarted(done.path, HOSTILE, names, 2, 2))
        for number, cell in enumerate(done.cells, 1):
            view(CellReplayed(number, len(done.cells), cell))
        view.finish(done)
    file: Any = console.file
    return str(file.getvalue())


@pytest.mark.parametrize("width", [20, 100])
def test_nothing_of_a_notebook_is_obeyed_by_a_terminal(width: int) -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, color_system="truecolor"
    )
    shown = show(console, hostile_replay())
    assert "title" not in shown
    assert "\x1b[2J" not in shown
    assert "\x00" not in shown
    assert "[bold]" in shown


def test_in_a_pipe_the_view_is_plain_text_in_columns() -> None:
    shown = show(Console(file=io.StringIO(), width=40), hostile_replay())
    assert "\x1b" not in shown
    head, row = shown.splitlines()[1:3]
    assert head.index("verdict") == row.index("differs")
    assert shown.endswith(f"{summary(hostile_replay())}\n")


def test_the_junit_report_holds_only_what_xml_can() -> None:
    report = junit_xml(hostile_replay())
    assert "\ufffe" not in report.decode()
    case = Xml.fromstring(report)[0][0]
    assert "&<x>" in (case.findtext("failure") or "")
