"""Runs that go on: resumed after an end or a kill, forked, or begun in a notebook of the user's."""

import json
import shutil

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from kernel_agent.agent import Agent
from kernel_agent.errors import ModelError, SettingsError, TranscriptError
from kernel_agent.events import CellRepeated, StateRebuilt
from kernel_agent.kernel import Kernel
from kernel_agent.model import LiteLLM
from kernel_agent.resuming import continue_notebook, fork, resume
from kernel_agent.steps import Note, Outcome, Step, UserCell
from kernel_agent.testing import ScriptedModel
from kernel_agent.transcript import Transcript
from tests.openai_server import OpenAIServer


def code(source, thought="Next."):
    return f"{thought}\n```python\n{source}\n```"


@pytest.fixture
def record(tmp_path, lent_kernel):
    """Records a run with scripted replies; returns its notebook.

    With a `cwd` the run has a kernel of its own. What goes on later always has.
    """

    def record(*replies, task="What?", **options):
        model = ScriptedModel(replies)
        kernel = {} if "cwd" in options else {"kernel": lent_kernel}
        with Agent(model, folder=tmp_path / "runs", **kernel, **options) as agent:
            try:
                return agent.run(task).path
            except ModelError:
                return agent.transcript.path

    return record


def cut_off(notebook, number):
    """Makes step `number` look as it does on disk while its cell runs, and drops what follows."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    cells = content["cells"]
    end = next(i for i, cell in enumerate(cells) if cell["id"] == f"step-{number}")
    cells[end + 1 :] = []
    known = cells[end]["metadata"]["kernel_agent"]
    known["status"] = "running"
    known.pop("observation")
    content["metadata"]["kernel_agent"]["run"]["outcome"] = None
    content["metadata"]["kernel_agent"]["run"]["outcomes"] = [None]
    notebook.write_text(json.dumps(content), encoding="utf-8")


def last_text(model):
    content = model.requests[-1][-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def test_a_run_that_failed_goes_on_with_its_variables_and_the_same_messages(record):
    notebook = record(code("x = 20"), code("y = x + 1"))  # then the script has ended
    assert Transcript.load(notebook).outcome.status == "failed"
    sent = Transcript.load(notebook).messages()
    model = ScriptedModel([code("final_answer(y * 2)")])
    with resume(notebook, model=model) as agent:
        run = agent.run()
    assert (run.answer, run.path) == (42, notebook)
    assert model.requests[0] == sent
    assert Transcript.load(notebook).entries == run.transcript.entries
    nbformat.validate(nbformat.read(notebook, 4))


def test_a_limit_that_is_reached_by_going_on_with_less_is_told_before_the_last_reply(record):
    notebook = record(code("x = 20"), code("y = x + 1"))  # then the script has ended
    model = ScriptedModel(["It is about 21."])
    with resume(notebook, model=model, max_steps=2) as agent:
        run = agent.run()
    assert "No step is left" in last_text(model)
    assert (run.answer, run.outcome) == ("It is about 21.", Outcome("answered", "max_steps"))


@pytest.mark.parametrize("given", [{"data": {"x": 1}}, {"images": ["a.png"]}])
def test_what_is_given_without_a_task_is_refused(record, given):
    notebook = record(code("x = 20"))
    with (
        resume(notebook, model=ScriptedModel([])) as agent,
        pytest.raises(SettingsError, match="go with a task"),
    ):
        agent.run(**given)


def test_a_follow_up_finds_the_variables_of_the_recorded_run(record):
    notebook = record(code("x = 20"), code("final_answer(x)"))
    before = Transcript.load(notebook).messages()
    model = ScriptedModel([code("final_answer(x + 1)")])
    with resume(notebook, model=model) as agent:
        assert agent.run("And one more?").answer == 21
    request = model.requests[0]
    assert request[: len(before) - 1] == before[:-1]
    assert request[len(before) - 1]["content"].startswith(before[-1]["content"])
    assert "And one more?" in last_text(model)


def sent(server):
    """The messages of each request that the server got, as they lay on the wire."""
    return [json.dumps(request.body["messages"]) for request in server.requests]


def test_a_resumed_run_sends_the_bytes_that_the_undisturbed_one_sends(tmp_path, lent_kernel):
    replies = [code("x = 20"), code("print(x)\nx + 1"), code("final_answer(x + 1)")]
    with OpenAIServer(replies) as server:
        model = LiteLLM("openai/any", api_base=server.url)
        with Agent(model, folder=tmp_path / "whole", kernel=lent_kernel) as agent:
            agent.run("What?")
    lent_kernel.execute("%reset -f", counted=False)
    undisturbed = sent(server)
    with OpenAIServer(replies[:2]) as server:
        model = LiteLLM("openai/any", api_base=server.url)
        with (
            Agent(model, folder=tmp_path / "cut", kernel=lent_kernel) as agent,
            pytest.raises(ModelError),
        ):
            agent.run("What?")
    notebook = agent.transcript.path
    with OpenAIServer(replies[2:]) as server:
        model = LiteLLM("openai/any", api_base=server.url)
        with resume(notebook, model=model) as agent:
            assert agent.run().answer == 21
    assert sent(server) == undisturbed[2:]


def test_what_cannot_be_brought_back_is_told_to_the_model(record):
    source = "import time\nkept = 1\nfor i in range(10**9): time.sleep(0.01)"
    notebook = record(code("import random\nx = random.random()\nx"), code(source), cell_timeout=0.3)
    model = ScriptedModel([code("final_answer(kept)")])
    events = []
    with resume(notebook, model=model, listener=events.append) as agent:
        run = agent.run()
    assert run.answer == 1, "an interrupted cell that left variables is run for as long as then"
    assert "Run again, step 1 gave another output than before." in last_text(model)
    assert isinstance(run.transcript.entries[3], Note)
    assert [e.name for e in events if isinstance(e, CellRepeated)] == ["step 1", "step 2"]
    [rebuilt] = [e.rebuilt for e in events if isinstance(e, StateRebuilt)]
    assert rebuilt.differing == ("step 1",)


def test_a_cell_that_was_running_when_the_process_ended_is_shown_as_interrupted(record):
    notebook = record(code("x = 1"), code("print('half')\ny = 2"), code("final_answer(x)"))
    cut_off(notebook, 2)
    model = ScriptedModel([code("final_answer([x, 'y' in globals()])")])
    with resume(notebook, model=model) as agent:
        run = agent.run()
    assert run.answer == [1, False]
    step = run.transcript.steps[1]
    assert (step.result.status, step.result.source) == ("interrupted", "print('half')\ny = 2")
    assert "half" in last_text(model)
    assert "The run's process ended while this cell was running." in last_text(model)
    assert Transcript.load(notebook).entries == run.transcript.entries


@pytest.mark.slow
def test_state_after_a_death_and_a_failed_cell_is_what_the_run_had(record):
    died = "lost = 1\nimport os\nos._exit(1)"
    cells = ["a = 1", "b = 2\n1 / 0", died, "c = 3\n1 / 0", "d = 4"]
    notebook = record(*map(code, cells))
    names = "final_answer([n for n in 'a b c d lost'.split() if n in globals()])"
    with resume(notebook, model=ScriptedModel([code(names)])) as agent:
        assert agent.run().answer == ["a", "c", "d"]


def test_the_answers_to_input_are_recorded_and_given_again(record):
    notebook = record(code("name = input('Who? ')"), ask_user=lambda prompt, password: "Ada")
    with resume(notebook, model=ScriptedModel([code("final_answer(name)")])) as agent:
        assert agent.run().answer == "Ada"


@pytest.mark.slow
def test_data_that_was_given_to_the_run_is_given_again(tmp_path, lent_kernel):
    import pandas as pd

    frame = pd.DataFrame({"n": range(1000)})
    model = ScriptedModel([code("frame['n'].sum()")])
    with (
        Agent(model, folder=tmp_path / "runs", kernel=lent_kernel) as agent,
        pytest.raises(ModelError),
    ):
        agent.run("Sum?", data={"frame": frame})
    path = agent.transcript.path
    with resume(path, model=ScriptedModel([code("final_answer(int(frame['n'].max()))")])) as again:
        assert again.run().answer == 999


def test_a_run_that_has_ended_wants_a_new_task(record):
    notebook = record(code("final_answer(1)"))
    before = notebook.read_bytes()
    with (
        resume(notebook, model=ScriptedModel([])) as agent,
        pytest.raises(SettingsError, match=r"has ended: answered\. Give it a new task"),
    ):
        agent.run()
    assert notebook.read_bytes() == before


def test_a_run_that_was_killed_before_its_end_was_recorded_has_its_answer(record):
    notebook = record(code("final_answer(7)"))
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"]["kernel_agent"]["run"] |= {"outcome": None, "outcomes": [None]}
    content["cells"].pop()
    notebook.write_text(json.dumps(content), encoding="utf-8")
    with resume(notebook, model=ScriptedModel([])) as agent:
        run = agent.run()
    assert (run.answer, run.outcome) == (7, Outcome("answered"))
    assert Transcript.load(notebook).outcome == Outcome("answered")


def test_a_fork_goes_another_way_and_leaves_the_old_notebook_as_it_is(record):
    notebook = record(code("x = 1"), code("x = 2"), code("final_answer(x)"))
    before = notebook.read_bytes()
    model = ScriptedModel([code("final_answer(x + 10)")])
    with fork(notebook, 1, model=model) as agent:
        run = agent.run("Instead add ten.")
    assert run.answer == 11
    assert notebook.read_bytes() == before
    assert run.path == notebook.with_stem(notebook.stem + "-2")
    loaded = Transcript.load(run.path)
    assert loaded.about["parent"]["path"] == notebook.name
    assert loaded.about["parent"]["step"] == 1
    assert loaded.run_id != Transcript.load(notebook).run_id
    assert "Instead add ten." in last_text(model)


@pytest.mark.slow
def test_a_run_that_was_cut_off_can_be_resumed_in_a_new_notebook(record, tmp_path):
    notebook = record(code("x = 1"), code("print('half')"), code("final_answer(x)"))
    cut_off(notebook, 2)
    before = notebook.read_bytes()
    out = tmp_path / "runs" / "again.ipynb"
    with resume(notebook, model=ScriptedModel([code("final_answer(x)")]), out=out) as agent:
        run = agent.run()
    assert (run.answer, run.path) == (1, out)
    assert notebook.read_bytes() == before
    loaded = Transcript.load(out)
    assert loaded.steps[1].result.status == "interrupted"
    assert loaded.about["parent"]["run"] == Transcript.load(notebook).run_id != loaded.run_id


def test_a_fork_after_a_step_that_is_not_there_is_refused(record):
    notebook = record(code("final_answer(1)"))
    with pytest.raises(TranscriptError, match="has no step 2"):
        fork(notebook, 2, model=ScriptedModel([]))


def test_a_resumed_run_has_the_limits_of_the_recorded_one(record):
    notebook = record(code("1"), max_steps=3, cell_timeout=7.0, max_chars=500)
    with resume(notebook, model=ScriptedModel([code("2"), code("3"), "Three."])) as agent:
        run = agent.run()
    assert agent.limits.max_steps == 3
    assert run.outcome == Outcome("answered", "max_steps")


@pytest.mark.slow
def test_a_run_is_resumed_on_another_machine_where_notebook_and_folder_have_moved(record, tmp_path):
    (tmp_path / "seven.txt").write_text("7")
    notebook = record(code("n = int(open('seven.txt').read())"), cwd=tmp_path)
    there = tmp_path / "there"
    shutil.copytree(notebook.parent, there / "runs")
    shutil.move(tmp_path / "seven.txt", there / "seven.txt")
    moved = there / "runs" / notebook.name
    with resume(moved, model=ScriptedModel([code("final_answer(n)")])) as agent:
        assert agent.run().answer == 7


@pytest.mark.slow
def test_a_missing_folder_is_named_and_can_be_replaced(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    model = ScriptedModel([code("final_answer(1)")])
    with Agent(model, folder=tmp_path / "runs", cwd=work) as agent:
        notebook = agent.run("One?").path
    work.rmdir()
    with pytest.raises(SettingsError, match=r"'.*work', which is not there"):
        resume(notebook, model=ScriptedModel([]))
    model = ScriptedModel([code("final_answer(2)")])
    with resume(notebook, model=model, cwd=tmp_path) as agent:
        assert agent.run("Two?").answer == 2


@pytest.fixture
def user_notebook(tmp_path):
    """A notebook as a person writes it."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# My analysis"),
        nbformat.v4.new_code_cell("residuals = [3, 1, 2]"),
        nbformat.v4.new_code_cell("sorted(residuals)"),
        nbformat.v4.new_code_cell("1 / 0"),
    ]
    path = tmp_path / "analysis.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_users_notebook_is_executed_and_shown_and_its_copy_goes_on(user_notebook):
    before = user_notebook.read_bytes()
    model = ScriptedModel([code("final_answer(max(residuals))")])
    with continue_notebook(user_notebook, model) as agent:
        run = agent.run("What is the largest residual?")
    assert run.answer == 3
    assert user_notebook.read_bytes() == before
    assert run.path.name == "analysis-2.ipynb"
    shown = last_text(model)
    assert "# My analysis" in shown
    assert "[cell 3, code]\nsorted(residuals)\n[output]\n[1, 2, 3]" in shown
    assert "ZeroDivisionError" in shown
    written = nbformat.read(run.path, 4)
    nbformat.validate(written)
    assert [cell.source for cell in written.cells][:2] == ["# My analysis", "residuals = [3, 1, 2]"]
    loaded = Transcript.load(run.path)
    assert loaded.entries == run.transcript.entries
    assert isinstance(loaded.entries[0], UserCell)
    assert isinstance(loaded.entries[-1], Step)


@pytest.mark.slow
def test_a_users_notebook_can_be_worked_on_in_place(user_notebook):
    cells = json.loads(user_notebook.read_text())["cells"]
    with continue_notebook(user_notebook, ScriptedModel([code("final_answer(1)")])) as agent:
        run = agent.run("One?", out=user_notebook)
    assert run.path == user_notebook
    assert json.loads(user_notebook.read_text())["cells"][:4] == cells


def test_a_run_in_a_users_notebook_can_be_resumed(user_notebook):
    with continue_notebook(user_notebook, ScriptedModel([code("final_answer(1)")])) as agent:
        run = agent.run("One?")
    with resume(run.path, model=ScriptedModel([code("final_answer(residuals)")])) as agent:
        assert agent.run("And the residuals?").answer == [3, 1, 2]


def test_a_users_own_kernel_is_joined_and_nothing_is_executed_again(user_notebook):
    manager, client = start_new_kernel()
    try:
        client.execute_interactive("residuals = [7]")
        model = ScriptedModel([code("final_answer(residuals)")])
        kernel = Kernel.attach(manager.connection_file)
        with continue_notebook(user_notebook, model, kernel=kernel) as agent:
            assert agent.run("What are they?").answer == [7]
        assert manager.is_alive()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "as they were saved" in last_text(model)


def test_a_snapshot_gives_the_variables_back_without_running_the_cells(record, tmp_path):
    cells = [
        "from pathlib import Path\nran = Path('ran').open('a').write('x')\nframe = list(range(5))",
        "frame.append(99)\ndef last():\n    return frame[-1]",
        "import sqlite3\nmemory = sqlite3.connect(':memory:')",
    ]
    notebook = record(*map(code, cells), snapshot=True, cwd=tmp_path)
    events = []
    counted = "final_answer([Path('ran').read_text(), last(), type(memory).__name__])"
    model = ScriptedModel([code(counted)])
    with resume(notebook, model=model, listener=events.append) as agent:
        assert agent.run().answer == ["x", 99, "Connection"]
    assert [e.name for e in events if isinstance(e, CellRepeated)] == ["step 3"]
    [rebuilt] = [e.rebuilt for e in events if isinstance(e, StateRebuilt)]
    assert {"frame", "last", "ran"} <= set(rebuilt.restored)
    assert (rebuilt.back, rebuilt.lost) == (("memory",), ())


def test_a_fork_takes_the_snapshot_of_its_step(record):
    notebook = record(code("n = [1]"), code("n.append(2)"), code("n.append(3)"), snapshot=True)
    events = []
    model = ScriptedModel([code("final_answer(n)")])
    with fork(notebook, 2, model=model, listener=events.append) as agent:
        assert agent.run().answer == [1, 2]
    assert not [e for e in events if isinstance(e, CellRepeated)]


@pytest.mark.slow
def test_what_no_snapshot_holds_and_no_cell_alone_makes_is_lost_and_told(record):
    source = "import sqlite3\nmemory = sqlite3.connect(':memory:')\nn = 1"
    notebook = record(code(source), code("n = 2"), snapshot=True)
    model = ScriptedModel([code("final_answer(n)")])
    with resume(notebook, model=model) as agent:
        assert agent.run().answer == 2
    assert "These are lost: memory." in last_text(model)
