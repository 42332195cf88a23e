"""Tools from the model's code to the host and back: called, recorded, answered again."""

import json
import threading
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from kernel_agent.agent import Agent
from kernel_agent.errors import ModelError, ToolError
from kernel_agent.replay import replay
from kernel_agent.resuming import resume
from kernel_agent.testing import ScriptedModel
from kernel_agent.tools import tool
from kernel_agent.transcript import Transcript


def code(source, thought="Next."):
    return f"{thought}\n```python\n{source}\n```"


class Shop:
    """A service with a secret and a state, whose calls are counted."""

    def __init__(self):
        self.calls = []
        self._key = "sk-secret-of-the-shop"

    def price(self, item: str, pieces: int = 1) -> float:
        """What `item` costs.

        Args:
            item: its name
            pieces: how many
        """
        self.calls.append((item, pieces))
        if item == "unicorn":
            raise LookupError("there are no unicorns")
        return 2.5 * pieces


@pytest.fixture
def shop():
    return Shop()


@pytest.fixture
def solve(tmp_path, lent_kernel):
    """Runs a task with scripted replies and tools; returns the run and the model."""

    def solve(*replies, **options):
        model = ScriptedModel(replies)
        options = {"folder": tmp_path / "runs", "kernel": lent_kernel} | options
        with Agent(model, **options) as agent, suppress(ModelError):
            agent.run("What?")
        return agent.transcript, model

    return solve


def test_code_calls_a_method_of_the_host_and_the_model_is_told_of_it(solve, shop):
    source = "final_answer(price('tea', pieces=4) + sum(price.map(['a', 'b'])))"
    run, model = solve(code(source), tools=[shop.price])
    assert run.answer == 15.0
    assert sorted(shop.calls) == [("a", 1), ("b", 1), ("tea", 4)]
    system = model.requests[0][0]["content"]
    assert "def price(item: str, pieces: int = 1) -> float:" in system
    assert shop._key not in json.dumps(model.requests)


def test_an_error_of_a_tool_and_a_bad_argument_are_errors_that_the_model_can_mend(solve, shop):
    run, _ = solve(
        code("price('unicorn')"), code("price(item='tea', pieces='many')"), code("final_answer(0)"),
        tools=[shop.price],
    )  # fmt: skip
    seen = [step.observation.text for step in run.steps]
    assert "LookupError: there are no unicorns" in seen[0]
    assert "pieces" in seen[1]
    assert "many" in seen[1]
    assert str(Path(__file__).parent) not in "".join(seen)


def test_calls_are_recorded_and_come_back_with_the_notebook(solve, shop):
    run, _ = solve(code("p = price('tea')"), code("final_answer(p)"), tools=[shop.price])
    [call] = run.steps[0].result.tool_calls
    assert (call.name, call.result, call.error) == ("price", 2.5, "")
    assert call.arguments == {"args": ["tea"], "kwargs": {}}
    assert Transcript.load(run.path).entries == run.entries
    nbformat.validate(nbformat.read(run.path, 4))


def test_a_replay_answers_the_calls_from_the_record_alone(solve, shop):
    cells = [code("prices = price.map(['tea', 'cup'])\nprices"), code("price('unicorn')")]
    run, _ = solve(*cells, code("final_answer(sum(prices))"), tools=[shop.price])
    before = list(shop.calls)
    done = replay(run.path)
    assert done.holds, done
    assert shop.calls == before
    assert replay(run.path, live_tools=[shop.price]).holds
    assert len(shop.calls) == 2 * len(before)


def test_a_replay_shows_the_nearest_recorded_call_of_one_that_is_not_there(solve, shop):
    run, _ = solve(code("price('tea', pieces=4)"), code("final_answer(1)"), tools=[shop.price])
    content = json.loads(run.path.read_text())
    cell = next(cell for cell in content["cells"] if cell["id"] == "step-1")
    cell["source"] = ["price('tea', pieces=5)"]
    run.path.write_text(json.dumps(content))
    done = replay(run.path)
    assert not done.holds
    assert any("4" in problem and "5" in problem for problem in done.problems), done.problems


def test_a_resumed_run_repeats_no_call_and_can_make_new_ones(solve, shop):
    run, _ = solve(code("p = price('tea')"), tools=[shop.price])
    model = ScriptedModel([code("final_answer([p, price('cup')])")])
    with resume(run.path, model=model, tools=[shop.price]) as agent:
        assert agent.run().answer == [2.5, 2.5]
    assert shop.calls == [("tea", 1), ("cup", 1)]


def test_after_the_kernel_died_calls_are_not_made_again(solve, shop):
    death = "import os\nos._exit(1)"
    run, _ = solve(
        code("p = price('tea')"), code(death), code("final_answer(p)"), tools=[shop.price]
    )
    assert run.answer == 2.5
    assert shop.calls == [("tea", 1)]


@tool(where="kernel")
def double(n: int) -> int:
    """Twice `n`."""
    return 2 * n


def test_a_tool_of_the_kernel_makes_a_notebook_that_runs_without_us(solve, tmp_path):
    run, _ = solve(code("final_answer(double(21))"), tools=[double])
    assert run.answer == 42
    notebook = nbformat.read(run.path, 4)
    NotebookClient(notebook, resources={"metadata": {"path": run.path.parent}}).execute()
    assert "42" in str(notebook.cells[-2].outputs)


def test_in_plain_jupyter_a_host_tool_says_what_it_is_and_how_to_replay(solve, shop):
    run, _ = solve(code("price('tea')"), code("final_answer(1)"), tools=[shop.price])
    notebook = nbformat.read(run.path, 4)
    NotebookClient(
        notebook, allow_errors=True, resources={"metadata": {"path": run.path.parent}}
    ).execute()
    assert "price() ran outside of the kernel. `kernel-agent replay`" in str(notebook.cells)


def test_output_that_was_cut_can_be_read_on(solve):
    printed = "print('x' * 30_000 + 'needle' + 'x' * 30_000)"
    read = "final_answer(read_output(1, 30_000, 30_006))"
    run, model = solve(code(printed), code(read))
    assert run.answer.startswith("needle")
    assert "read_output(step, start, end, task)" in model.requests[0][0]["content"]
    assert "needle" not in run.steps[0].observation.text


def test_large_values_of_calls_lie_beside_the_notebook(solve):
    def big() -> bytes:
        """Many bytes."""
        return b"12345" * 100_000

    run, _ = solve(code("len(big())"), code("final_answer(1)"), tools=[big])
    assert run.path.stat().st_size < 100_000
    [file] = run.path.with_name(f"{run.path.stem}-calls").iterdir()
    assert file.read_bytes() == b"12345" * 100_000
    assert replay(run.path).holds


def test_a_name_that_is_no_tool_and_two_alike_are_refused_before_anything_is_written(
    tmp_path, shop
):
    with (
        Agent(ScriptedModel([]), folder=tmp_path, tools=[shop.price, shop.price]) as agent,
        pytest.raises(ToolError, match="price"),
    ):
        agent.run("What?")
    assert not list(tmp_path.glob("*.ipynb"))


def test_an_interrupt_during_a_call_ends_the_cell_and_keeps_the_kernel(tmp_path, lent_kernel):
    begun, release = threading.Event(), threading.Event()

    def wait() -> int:
        """Wait."""
        begun.set()
        release.wait(30)
        return 1

    model = ScriptedModel([code("x = 1\nwait()"), code("final_answer(x)")])
    with Agent(model, folder=tmp_path, kernel=lent_kernel, tools=[wait]) as agent:
        threading.Thread(target=lambda: (begun.wait(), agent.interrupt())).start()
        run = agent.run("Wait.")
        release.set()
        assert run.outcome.status == "interrupted"
        assert agent.run().answer == 1
