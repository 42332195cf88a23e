"""Agents as functions of another agent's code."""

import re
import threading

import pytest

from kernel_agent.agent import Agent
from kernel_agent.errors import SettingsError
from kernel_agent.events import StepFinished, SubagentTold
from kernel_agent.replay import replay
from kernel_agent.steps import Reply, Usage
from kernel_agent.testing import ScriptedModel
from kernel_agent.transcript import Transcript


def code(source, thought="Next."):
    return f"{thought}\n```python\n{source}\n```"


def doubles(messages):
    """A model without a state, for several runs at once: it doubles the number in the task."""
    number = re.search(r"Double (\d+)", messages[1]["content"])[1]
    return Reply(code(f"final_answer(2 * {number})"), usage=Usage(10, 5, cost=0.01))


@pytest.fixture
def helper():
    return Agent(doubles, name="doubler", description="Doubles a number.")


@pytest.fixture
def solve(tmp_path, lent_kernel):
    def solve(*replies, **options):
        model = ScriptedModel(replies)
        options = {"folder": tmp_path / "runs", "kernel": lent_kernel} | options
        with Agent(model, **options) as agent:
            return agent.run("What?"), model

    return solve


def test_a_sub_agent_is_a_function_with_a_kernel_and_a_notebook_of_its_own(solve, helper):
    events = []
    run, model = solve(
        code("x = 1\nfinal_answer(doubler('Double 4.') + x)"), agents=[helper],
        listener=events.append,
    )  # fmt: skip
    assert run.answer == 9
    assert "def doubler(task: str, **data):" in model.requests[0][0]["content"]
    [call] = run.transcript.steps[0].result.tool_calls
    child = Transcript.load(run.path.parent / call.transcript)
    assert child.answer == 8
    assert "You are `doubler`, which other code calls: Doubles a number." in child.system
    assert "A cell may run for 3600 seconds" in model.requests[0][0]["content"]
    assert child.about["parent"] == {
        "path": run.path.name, "run": run.transcript.run_id, "step": 1,
    }  # fmt: skip
    assert run.usage.cost == pytest.approx(0.01)
    assert run.usage.prompt_tokens == 10
    told = [event.event for event in events if isinstance(event, SubagentTold)]
    assert any(isinstance(event, StepFinished) for event in told)


def test_several_sub_agents_work_at_once(solve, helper):
    run, _ = solve(
        code("final_answer(doubler.map([f'Double {n}.' for n in range(3)]))"), agents=[helper]
    )
    assert run.answer == [0, 2, 4]
    assert len(list(run.path.parent.glob("*-doubler*.ipynb"))) == 3


def test_a_sub_agent_gets_data_and_gives_values_back(solve, tmp_path):
    child = Agent(
        lambda messages: code("final_answer([value + 1 for value in values])"),
        name="adder", description="Adds one to `values`.",
    )  # fmt: skip
    run, _ = solve(code("final_answer(adder('Add.', values=[1, 2]))"), agents=[child])
    assert run.answer == [2, 3]


def test_a_sub_agent_without_an_answer_is_an_error_in_the_cell(solve):
    child = Agent(
        lambda messages: code("1", ""), name="lost", description="Finds nothing.", max_steps=2
    )
    run, _ = solve(code("lost('Find.')"), code("final_answer(0)"), agents=[child])
    assert "RuntimeError: lost ended at max_steps without an answer" in (
        run.transcript.steps[0].observation.text
    )


def test_what_a_sub_agent_costs_counts_for_the_limit_of_its_parent(solve, helper):
    run, _ = solve(code("doubler('Double 1.')"), "About 2.", agents=[helper], max_cost=0.005)
    assert run.outcome.limit == "max_cost"


def test_what_a_sub_agent_without_an_answer_has_cost_counts_and_its_notebook_is_named(solve):
    def lost(messages):
        steps.append(1)
        return Reply(code(f"x{len(steps)} = 1", ""), usage=Usage(10, 5, cost=0.01))

    steps = []
    child = Agent(lost, name="lost", description="Finds nothing.", max_steps=2)
    run, _ = solve(code("lost('Find.')"), code("final_answer(0)"), agents=[child])
    [call] = run.transcript.steps[0].result.tool_calls
    assert "ended at max_steps" in call.error
    assert run.usage.cost == call.usage.cost == pytest.approx(0.01 * len(steps))
    assert Transcript.load(run.path.parent / call.transcript).outcome.limit == "max_steps"
    assert Transcript.load(run.path).usage == run.usage


def test_the_cost_of_sub_agents_that_the_budget_stops_is_told(solve):
    def costly(messages):
        return Reply(code(f"y{len(messages)} = 1", ""), usage=Usage(10, 5, cost=0.3))

    child = Agent(costly, name="costly", description="Spends.", max_steps=9)
    calls = code("costly.map(['a', 'b', 'c'], return_exceptions=True)")
    run, _ = solve(calls, "Nothing.", agents=[child], max_cost=1.0)
    assert run.outcome.limit == "max_cost"
    spent = [call.usage.cost for call in run.transcript.steps[0].result.tool_calls]
    assert run.usage.cost == pytest.approx(sum(spent))
    children = [Transcript.load(path) for path in run.path.parent.glob("*-costly*.ipynb")]
    assert sorted(child.usage.cost for child in children) == pytest.approx(sorted(spent))
    assert sum(spent) > 1.0


def test_a_replay_needs_no_sub_agent(solve, helper):
    run, _ = solve(code("final_answer(doubler('Double 4.'))"), agents=[helper])
    for notebook in run.path.parent.glob("*-doubler*.ipynb"):
        notebook.unlink()
    assert replay(run.path).holds


def test_an_interrupt_ends_the_sub_agent_too(tmp_path, lent_kernel):
    begun = threading.Event()

    def slow(messages):
        begun.set()
        return code("import time\ntime.sleep(60)")

    child = Agent(slow, name="slow", description="Takes long.")
    model = ScriptedModel([code("slow('Wait.')")])
    with Agent(model, folder=tmp_path, kernel=lent_kernel, agents=[child]) as agent:
        threading.Thread(target=lambda: (begun.wait(), agent.interrupt())).start()
        run = agent.run("Wait.")
    assert run.outcome.status == "interrupted"


@pytest.mark.parametrize(
    ("name", "description", "why"),
    [("no name", "It helps.", "'no name'"), ("helper", " ", "description")],
)
def test_a_sub_agent_needs_a_name_and_a_description(name, description, why):
    child = Agent(ScriptedModel([]), name=name, description=description)
    with pytest.raises(SettingsError, match=why):
        Agent(ScriptedModel([]), agents=[child])


def test_agents_stand_at_most_three_deep():
    agent = Agent(ScriptedModel([]), name="a", description="d")
    for _ in range(2):
        agent = Agent(ScriptedModel([]), name="a", description="d", agents=[agent])
    with pytest.raises(SettingsError, match="3 deep"):
        for _ in range(2):
            agent = Agent(ScriptedModel([]), name="a", description="d", agents=[agent])
