"""The loop, with a scripted model and real kernels."""

import asyncio
import json
import re
import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from kernel_agent.agent import Agent
from kernel_agent.errors import (
    DataError,
    KernelStartError,
    ModelError,
    PromptError,
    SettingsError,
    TranscriptError,
)
from kernel_agent.events import (
    CellStarted,
    OutputReceived,
    ReplyReceived,
    ReplyStarted,
    ReplyText,
    RunFinished,
    RunStarted,
    StepFinished,
    TranscriptMoved,
)
from kernel_agent.steps import Outcome, Reply, Usage
from kernel_agent.testing import ScriptedModel
from kernel_agent.transcript import Transcript


def code(source, thought="Next."):
    return f"{thought}\n```python\n{source}\n```"


@pytest.fixture
def solve(tmp_path, lent_kernel):
    """Runs a task with scripted replies; returns the run and the model.

    With a `cwd` the run has a kernel of its own.
    """

    def solve(*replies, task="What?", data=None, files=(), **options):
        model = ScriptedModel(replies)
        kernel = {} if "cwd" in options else {"kernel": lent_kernel}
        options = {"folder": tmp_path / "runs"} | kernel | options
        with Agent(model, **options) as agent:
            return agent.run(task, data=data, files=files), model

    return solve


def last_user_text(model):
    content = model.requests[-1][-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def test_a_task_goes_in_and_an_answer_and_a_notebook_come_out(solve):
    run, model = solve(code("x = 20"), code("final_answer(x + 1)"), task="How much?")
    assert run.answer == 21
    assert run.outcome == Outcome("answered")
    assert run.path.name.endswith("how-much.ipynb")
    assert Transcript.load(run.path).entries == run.transcript.entries
    assert [m["role"] for m in model.requests[1]] == ["system", "user", "assistant", "user"]
    assert "x: 20" in last_user_text(model)


def test_a_reply_without_code_is_the_answer_once_code_has_run(solve):
    run, _ = solve(code("print(42)"), "It is **42**.")
    assert (run.answer, run.outcome) == ("It is **42**.", Outcome("answered"))


def test_a_reply_without_code_before_any_has_run_is_asked_about_once(solve):
    run, model = solve("I will look at it.", "It is 4.")
    assert run.answer == "It is 4."
    assert "no code block" in last_user_text(model)


def test_an_unusable_reply_becomes_an_observation(solve):
    run, model = solve("", code("final_answer(1)"))
    assert run.answer == 1
    assert "empty" in last_user_text(model)
    assert run.transcript.steps[0].result is None


def test_an_error_is_shown_to_the_model_and_the_run_goes_on(solve):
    run, model = solve(code("kept = 1\n1 / 0"), code("final_answer(kept)"))
    assert run.answer == 1
    assert "ZeroDivisionError" in last_user_text(model)
    assert "kept: 1" in last_user_text(model)


def test_an_answer_from_a_cell_that_fails_is_not_taken(solve):
    run, model = solve(code("final_answer('early')\n1 / 0"), code("final_answer('late')"))
    assert run.answer == "late"
    assert "the answer was not taken" in last_user_text(model)


def test_what_the_model_made_up_is_not_sent_back(solve):
    reply = code("print(1)") + "\nObservation: 1\n" + code("print('made up')")
    run, model = solve(reply, "Done.")
    assert "made up" not in json.dumps(model.requests[1])
    assert run.transcript.steps[0].reply.text == reply


def test_a_follow_up_goes_on_in_the_same_kernel_and_transcript(tmp_path, lent_kernel):
    model = ScriptedModel([code("x = 2\nfinal_answer(x)"), code("final_answer(x * 2)")])
    with Agent(model, folder=tmp_path, kernel=lent_kernel) as agent:
        first = agent.run("Two?")
        second = agent.run("And twice that?")
    assert (first.answer, second.answer) == (2, 4)
    assert second.path == first.path
    assert [task.text for task in second.transcript.tasks] == ["Two?", "And twice that?"]
    assert model.requests[1][: len(model.requests[0])] == model.requests[0]


def test_each_request_begins_with_the_whole_one_before(solve):
    _, model = solve(*[code(f"print({i})") for i in range(5)], "Done.")
    for before, after in zip(model.requests, model.requests[1:], strict=False):
        assert json.dumps(after)[: len(json.dumps(before)) - 1] == json.dumps(before)[:-1]


def test_the_listener_is_told_everything_in_order_and_in_the_runs_thread(solve):
    events, threads = [], set()

    def listen(event):
        events.append(event)
        threads.add(threading.current_thread())

    solve(code("print('out')"), "Done.", listener=listen)
    kinds = [type(e) for e in events if not isinstance(e, ReplyText)]
    step = [ReplyStarted, ReplyReceived]
    cell = [CellStarted, OutputReceived, StepFinished]
    assert kinds == [RunStarted, *step, *cell, *step, StepFinished, RunFinished]
    assert "".join(e.text for e in events if isinstance(e, ReplyText)).endswith("Done.")
    assert threads == {threading.current_thread()}


def test_data_files_are_previewed_and_read_by_the_path_that_is_shown(solve, tmp_path, monkeypatch):
    (tmp_path / "sales.csv").write_text("month, amount\n1,2.5\n2,4\n")
    source = "import pandas as pd\nfinal_answer(pd.read_csv('sales.csv')[' amount'].sum())"
    monkeypatch.chdir(tmp_path)
    run, model = solve(code(source), cwd=tmp_path, files=["sales.csv"])
    assert run.answer == 6.5
    prompt = model.requests[0][1]["content"]
    assert "2 rows × 2 columns" in prompt
    assert '" amount"' in prompt


def test_a_data_file_is_named_as_the_kernel_finds_it(solve, tmp_path, monkeypatch):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for file in ("in/sub/a.txt", "b.txt"):
        (tmp_path / file).write_text("x")
    monkeypatch.chdir(tmp_path)
    files = ["in/sub/a.txt", "b.txt"]
    _, model = solve(code("final_answer(1)"), cwd=tmp_path / "in", files=files)
    prompt = model.requests[0][1]["content"]
    assert 'File "sub/a.txt"' in prompt
    assert f'File "{tmp_path}/b.txt"' in prompt


def test_variables_are_there_before_the_first_step_and_in_the_notebook(solve):
    table = pd.DataFrame({"a": [1, 2, 3]})
    run, model = solve(code("final_answer(int(df.a.sum()) + n)"), data={"df": table, "n": 4})
    assert run.answer == 10
    assert "df: DataFrame, 3 rows × 1 columns" in model.requests[0][1]["content"]
    setup = [c.source for c in nbformat.read(run.path, 4).cells if "read_feather" in c.source]
    assert len(setup) == 1
    assert "n = 4" in setup[0]


def test_the_model_is_told_what_is_there(solve):
    _, model = solve(code("final_answer(1)"), max_steps=7, cell_timeout=33)
    system = model.requests[0][0]["content"]
    assert "pandas" in system
    assert "33 seconds" in system
    assert "[step 1 of 7]" in system


def test_a_cell_over_its_time_is_told_and_the_state_is_kept(solve):
    slow = "kept = 1\nprint('partial')\nimport time\ntime.sleep(60)"
    run, model = solve(code(slow), code("final_answer(kept)"), cell_timeout=0.3)
    assert run.answer == 1
    assert "partial" in last_user_text(model)
    assert "interrupted after 0.3 s" in last_user_text(model)


DEATH = "dying = 1\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"


def test_a_dead_kernel_is_rebuilt_and_the_model_told_what_is_back_and_what_is_not(solve):
    cells = [code("kept = n + 1"), code("half = 1\n1 / 0"), code(DEATH)]
    answer = code("final_answer([n, kept, 'half' in dir(), 'dying' in dir()])")
    run, model = solve(*cells, answer, data={"n": 5})
    assert run.answer == [5, 6, False, False]
    said = last_user_text(model)
    assert "SIGKILL" in said
    assert "The kernel was restarted. The cells that had succeeded were run again." in said
    assert "These variables are there: kept." in said
    assert "These are lost: half." in said


def test_a_cell_that_gives_another_output_when_run_again_is_named(solve):
    cells = [code("import random\nx = random.random()\nx"), code("print('same')"), code(DEATH)]
    _, model = solve(*cells, code("final_answer(1)"))
    assert "Run again, step 1 gave another output than before." in last_user_text(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"on_death": "restart"}, "The earlier cells were not run again."),
        ({"rebuild_seconds": 0.0001}, "were not run again, since they had taken 0 s"),
    ],
)
def test_a_kernel_that_is_only_restarted_is_empty_but_for_its_setup(solve, options, why):
    answer = code("final_answer([n, 'kept' in dir()])")
    run, model = solve(code("kept = 1"), code(DEATH), answer, data={"n": 5}, **options)
    assert run.answer == [5, False]
    assert why in last_user_text(model)
    assert "These are lost: kept." in last_user_text(model)


def test_a_death_can_end_the_run(solve):
    run, model = solve(code(DEATH), on_death="stop")
    assert run.outcome.status == "failed"
    assert "SIGKILL" in run.outcome.reason
    assert len(model.requests) == 1


@pytest.mark.slow
def test_a_cell_that_kills_the_kernel_when_run_again_leaves_it_empty_and_alive(solve, tmp_path):
    second = (
        f"import os, pathlib\nagain = pathlib.Path({str(tmp_path)!r}, 'again')\n"
        "if again.exists(): os._exit(1)\nagain.touch()"
    )
    cells = [code("kept = 1"), code(second), code(DEATH), code("final_answer('kept' in dir())")]
    run, model = solve(*cells)
    assert run.answer is False
    assert "Step 2 could not be run again" in last_user_text(model)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"max_steps": 2}, "max_steps"),
        ({"max_cost": 0.02}, "max_cost"),
        ({"max_tokens": 8_000}, "max_tokens"),
        ({"max_seconds": 3.5}, "max_seconds"),
    ],
)
@pytest.mark.parametrize(
    ("last", "answer"),
    [("About 4.", "About 4."), ("", None)],
)
def test_at_a_limit_the_model_is_asked_once_for_its_best(solve, options, limit, last, answer):
    usage = Usage(prompt_tokens=800, completion_tokens=200, cost=0.01, model_seconds=1.0)
    replies = [Reply(code("print(4)"), usage=usage)] * 2
    run, model = solve(*replies, last, **options)
    assert run.outcome == Outcome("answered" if answer else "limit", limit)
    assert run.answer == answer
    assert len(model.requests) == 3
    assert "no more code will run" in last_user_text(model)
    assert nbformat.read(run.path, 4).cells[-1].source.count("max") == 1


def test_code_in_the_reply_at_a_limit_is_not_run(solve):
    run, _ = solve(code("x = 1"), code("final_answer('run')", "My best guess."), max_steps=1)
    assert run.answer == "My best guess."
    assert run.transcript.steps[-1].result is None


def test_seconds_bound_a_running_cell_too(solve):
    run, _ = solve(code("import time\ntime.sleep(60)"), "So be it.", max_seconds=0.3)
    assert run.outcome == Outcome("answered", "max_seconds")
    assert run.usage.kernel_seconds < 30


def test_a_reply_is_on_disk_before_its_code_runs(tmp_path, lent_kernel):
    out = tmp_path / "run.ipynb"
    source = f"final_answer('no-one-else-says-this' in open({str(out)!r}).read())"
    model = ScriptedModel([code(source, "no-one-else-says-this")])
    with Agent(model, kernel=lent_kernel) as agent:
        assert agent.run("Is it?", out=out).answer is True


def test_outputs_of_a_running_cell_are_on_disk_within_a_second(tmp_path, lent_kernel):
    out = tmp_path / "run.ipynb"
    source = (
        "import time\nprint('so' + ' far', flush=True)\nstarted = time.monotonic()\n"
        f"while 'so far' not in open({str(out)!r}).read(): time.sleep(0.01)\n"
        "final_answer(time.monotonic() - started)"
    )
    with Agent(ScriptedModel([code(source)]), kernel=lent_kernel, cell_timeout=20) as agent:
        assert agent.run("When?", out=out).answer < 1


def test_the_notebook_is_valid_at_every_moment(solve, tmp_path):
    seen = 0

    def validate(event):
        nonlocal seen
        for path in (tmp_path / "runs").glob("*.ipynb"):
            nbformat.validate(nbformat.read(path, 4))
            seen += 1

    solve(code("print(1)\n1 / 0"), "", code("final_answer('a')"), listener=validate)
    assert seen > 10


def test_no_secret_reaches_the_notebook(tmp_path, monkeypatch):
    from kernel_agent.model import LiteLLM
    from tests.openai_server import OpenAIServer, Status

    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment-secret")
    refusal = Status(401, "Incorrect API key provided: sk-parameter-secret.")
    source = "import os\nprint(dict(os.environ))"
    with OpenAIServer([code(source), refusal]) as server:
        model = LiteLLM("openai/any", api_base=server.url, api_key="sk-parameter-secret")
        agent = Agent(model, folder=tmp_path)
        with agent, pytest.raises(ModelError):
            agent.run("What is in the environment?")
    (path,) = tmp_path.glob("*.ipynb")
    assert "secret" not in path.read_text()
    assert Transcript.load(path).outcome.status == "failed"


def test_a_model_that_fails_leaves_all_steps_on_disk(tmp_path, lent_kernel):
    with Agent(ScriptedModel([code("x = 1")]), folder=tmp_path, kernel=lent_kernel) as agent:
        with pytest.raises(ModelError, match="script has ended"):
            agent.run("What?")
        assert len(Transcript.load(agent.transcript.path).steps) == 1
        assert agent.transcript.outcome.status == "failed"


def interrupting_at(kind, interrupt):
    """A listener that interrupts the agent at the first event of a kind."""

    def listen(event):
        if isinstance(event, kind) and not listen.done:
            listen.done = True
            interrupt()

    listen.done = False
    return listen


@pytest.mark.parametrize("how", ["thread", "ctrl-c"])
def test_an_interrupt_ends_the_run_tidily_with_the_state_kept(tmp_path, lent_kernel, how):
    def interrupt():
        if how == "ctrl-c":
            signal.raise_signal(signal.SIGINT)
        else:
            threading.Thread(target=agent.interrupt).start()

    slow = "kept = 3\nprint('on', flush=True)\nimport time\ntime.sleep(60)"
    model = ScriptedModel([code(slow), code("final_answer(kept)")])
    listener = interrupting_at(OutputReceived, interrupt)
    with Agent(model, folder=tmp_path, kernel=lent_kernel, listener=listener) as agent:
        run = agent.run("Sleep.")
        assert run.outcome == Outcome("interrupted")
        assert Transcript.load(run.path).steps[0].result.status == "interrupted"
        assert agent.run("Go on.").answer == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_gives_up_a_model_that_does_not_answer(tmp_path, lent_kernel):
    asked, forever = threading.Event(), threading.Event()

    def model(messages):
        asked.set()
        forever.wait()

    def interrupt():
        asked.wait()
        agent.interrupt()

    threading.Thread(target=interrupt, daemon=True).start()
    with Agent(model, folder=tmp_path, kernel=lent_kernel) as agent:
        run = agent.run("Anybody?")
    forever.set()
    assert run.outcome == Outcome("interrupted")
    assert Transcript.load(run.path).outcome == Outcome("interrupted")


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    listener = interrupting_at(CellStarted, twice)
    agent = Agent(ScriptedModel([code("1")]), folder=tmp_path, listener=listener)
    with agent, pytest.raises(KeyboardInterrupt):
        agent.run("Stop!")
    assert Transcript.load(agent.transcript.path).pending is not None


def test_it_works_under_a_running_event_loop(solve):
    async def main():
        return solve(code("final_answer(1)"))[0].answer

    assert asyncio.run(main()) == 1


def test_it_works_in_worker_threads_side_by_side(tmp_path):
    def work(number):
        model = ScriptedModel([code(f"final_answer({number})")])
        with Agent(model, folder=tmp_path / str(number)) as agent:
            return agent.run("Which?").answer

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [0, 1, 2]


def test_it_works_in_a_notebook_cell(tmp_path):
    from nbclient import NotebookClient

    source = (
        "from kernel_agent import Agent, ScriptedModel\n"
        "with Agent(ScriptedModel(['```python\\nfinal_answer(6)\\n```'])) as agent:\n"
        "    run = agent.run('Which?')\nprint(run.answer)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()
    assert notebook.cells[0].outputs[0].text == "6\n"


def test_jupyter_alone_executes_the_notebook_of_a_run(solve, tmp_path):
    from nbclient import NotebookClient

    (tmp_path / "here.txt").write_text("7")
    cells = code("n = int(open('here.txt').read())"), code("1 / 0"), code("final_answer(n + m)")
    run, _ = solve(*cells, cwd=tmp_path, data={"m": 1})
    notebook = nbformat.read(run.path, 4)
    for cell in notebook.cells:
        cell["outputs"] = [] if cell.cell_type == "code" else None
    for cell in notebook.cells:
        if cell.cell_type != "code":
            del cell["outputs"]
    resources = {"metadata": {"path": str(run.path.parent)}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert last.outputs[0].data["text/plain"] == "8"


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ({"task": "  "}, {}, SettingsError("The task is empty")),
        ({"files": ["gone.csv"]}, {}, DataError("gone.csv", "there is no such file")),
        ({"files": ["."]}, {}, DataError(".", "it is a folder")),
        ({"data": {"not a name": 1}}, {}, DataError("not a name", "this cannot be the name")),
        ({"data": {"f": print}}, {}, DataError("f", "a builtins.")),
        ({"out": "there.ipynb"}, {}, TranscriptError("there.ipynb", "it exists")),
        ({}, {"kernel": "pyhton3"}, KernelStartError("pyhton3", "no such kernelspec")),
        ({}, {"cwd": "gone"}, KernelStartError("python3", "The folder")),
    ],
)
def test_bad_input_is_one_clear_error_and_no_file_is_made_or_lost(
    tmp_path, monkeypatch, arguments, options, error
):
    monkeypatch.chdir(tmp_path)
    Path("there.ipynb").touch()
    agent = Agent(ScriptedModel([]), **options)
    with agent, pytest.raises(type(error), match=re.escape(str(error))):
        agent.run(**{"task": "What?"} | arguments)
    assert [path.name for path in tmp_path.rglob("*")] == ["there.ipynb"]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"max_steps": 0}, SettingsError), ({"prompts": "gone"}, PromptError)],
)
def test_bad_options_are_refused_by_the_constructor(options, error):
    with pytest.raises(error):
        Agent(ScriptedModel([]), **options)


def test_every_kernel_seconds_count_is_in_the_usage(solve):
    started = time.monotonic()
    run, _ = solve(code("import time\ntime.sleep(0.2)"), "Done.")
    assert 0.2 <= run.usage.kernel_seconds <= time.monotonic() - started


@pytest.mark.parametrize("trouble", ["another program", "a folder in its place", "read-only"])
def test_a_run_whose_notebook_cannot_be_saved_any_more_goes_on_elsewhere(
    tmp_path, lent_kernel, trouble
):
    events = []
    path = tmp_path / "runs" / "run.ipynb"

    def disturb(event):
        events.append(event)
        if not isinstance(event, StepFinished) or event.number != 1:
            return
        if trouble == "another program":
            path.write_text("{}")
        elif trouble == "read-only":
            path.chmod(0o444)
        else:
            path.unlink()
            path.mkdir()

    model = ScriptedModel([code("x = 1"), code("x += 1"), code("final_answer(x)")])
    with Agent(model, kernel=lent_kernel, listener=disturb) as agent:
        run = agent.run("Two?", out=path)
    assert run.answer == 2
    assert run.path == path.with_name("run-2.ipynb")
    [moved] = [event for event in events if isinstance(event, TranscriptMoved)]
    assert moved.path == run.path
    assert Transcript.load(run.path).entries == run.transcript.entries
    assert trouble != "another program" or path.read_text() == "{}"


def test_a_run_that_can_be_saved_nowhere_keeps_its_transcript_in_memory(tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))

    def disturb(event):
        if isinstance(event, StepFinished):
            shutil.rmtree(folder)
            folder.touch()  # no folder can be made where a file is

    model = ScriptedModel([code("x = 1"), code("final_answer(x)")])
    agent = Agent(model, cwd=tmp_path, folder=folder, listener=disturb)
    with agent, pytest.raises(TranscriptError, match="cannot be saved"):
        agent.run("One?")
    assert len(agent.transcript.steps) == 1
    folder.unlink()
    agent.transcript.save()
    assert Transcript.load(agent.transcript.path).steps == agent.transcript.steps


@pytest.mark.slow
def test_runs_of_the_same_task_that_begin_together_write_into_files_of_their_own(tmp_path):
    np = pytest.importorskip("numpy")
    begin = threading.Barrier(2)

    def run(number):
        class Model:
            name, takes_images = "m", False

            def check(self):
                begin.wait(60)  # both have chosen a name by now, and saved nothing yet

            def about(self):
                return {"name": "m", "parameters": {}}

            def complete(self, messages, listener=None):
                return Reply(code("final_answer(big.sum())"))

        with Agent(Model(), cwd=tmp_path, folder=tmp_path / "runs") as agent:
            return agent.run("Add it up.", data={"big": np.full(100_000, number)})

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(run, (1, 2))
    assert (first.answer, second.answer) == (100_000, 200_000)
    assert first.path != second.path
    assert Transcript.load(first.path).answer == 100_000
    assert Transcript.load(second.path).answer == 200_000
