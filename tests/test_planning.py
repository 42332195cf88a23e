"""Plans between the steps: when they are asked for, and what the transcript keeps of them."""

import io
import json

import nbformat
import pytest
from rich.console import Console

from kernel_agent.agent import Agent
from kernel_agent.console import LiveView
from kernel_agent.errors import SettingsError
from kernel_agent.events import PlanFinished, PlanStarted, ReplyReceived
from kernel_agent.limits import Limits
from kernel_agent.planning import is_due, plan_of
from kernel_agent.resuming import resume
from kernel_agent.settings import load_settings
from kernel_agent.steps import Note, Outcome, Plan, Reply, Step, Usage
from kernel_agent.testing import ScriptedModel
from kernel_agent.transcript import Transcript

USAGE = Usage(prompt_tokens=8, completion_tokens=2, cost=0.01, model_seconds=1.0)
STEP = Step(Reply("x", usage=USAGE), "x")
PLAN = Plan(Reply("p", usage=USAGE), "p", "Plan!", "Go on.")


def code(source, thought="Next."):
    return f"{thought}\n```python\n{source}\n```"


@pytest.fixture
def solve(tmp_path, lent_kernel):
    def solve(*replies, **options):
        model = ScriptedModel(replies)
        with Agent(model, folder=tmp_path, kernel=lent_kernel, **options) as agent:
            return agent.run("What?"), model

    return solve


@pytest.mark.parametrize(
    ("entries", "every", "due"),
    [
        ([], 0, False),
        ([], 2, True),
        ([PLAN], 2, False),
        ([PLAN, STEP], 2, False),
        ([PLAN, STEP, STEP], 2, True),
        ([PLAN, STEP, STEP, Note("x")], 2, True),
        ([PLAN, STEP, STEP, PLAN, Note("x")], 2, False),
        ([STEP], 1, True),
    ],
)
def test_a_plan_is_due_at_first_and_after_every_so_many_steps(entries, every, due):
    assert is_due(entries, every) == due


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1. Look.", "1. Look."),
        ("<think>Hm.</think>1. Look.", "1. Look."),
        (code("x = 1", "1. Look."), "1. Look."),
        (code("x = 1", ""), "(no plan)"),
        ("", "(empty reply)"),
    ],
)
def test_drafts_and_code_of_a_plan_do_not_go_back_to_the_model(text, said):
    plan = plan_of(Reply(text), asked="Plan!", language="python")
    assert (plan.reply.text, plan.said) == (text, said)


def test_a_plan_counts_for_tokens_cost_and_seconds_but_is_no_step():
    assert Limits(max_steps=2).reached([PLAN, STEP, PLAN]) is None
    assert Limits(max_tokens=20).reached([PLAN, STEP]) == "max_tokens"
    assert Limits(max_cost=0.02).reached([PLAN, STEP]) == "max_cost"
    assert Limits(max_seconds=2).reached([PLAN, STEP]) == "max_seconds"


@pytest.mark.parametrize("value", [-1, True, 2.5, "3"])
def test_a_number_of_steps_that_is_none_is_refused(value):
    with pytest.raises(SettingsError, match="plan_every is"):
        Agent(ScriptedModel([]), plan_every=value)


def test_plans_are_made_on_the_way_and_nothing_of_them_is_run(solve, lent_kernel):
    events = []
    plans = [code("open('made', 'w')", "First x, then y."), "Now the answer."]
    run, model = solve(
        plans[0], code("x = 2"), code("y = x"), plans[1], code("final_answer(y)"),
        plan_every=2, listener=events.append,
    )  # fmt: skip
    assert (run.answer, len(run.transcript.steps)) == (2, 3)
    assert not (lent_kernel.cwd / "made").exists()
    kinds = [type(entry).__name__ for entry in run.transcript.entries]
    assert kinds == ["Task", "Plan", "Step", "Step", "Plan", "Step"]
    assert "y: 2" in model.requests[3][-1]["content"]
    assert "Before you go on, plan." in model.requests[3][-1]["content"]
    assert [event.number for event in events if isinstance(event, PlanStarted)] == [1, 3]
    assert sum(isinstance(event, PlanFinished) for event in events) == 2
    assert sum(isinstance(event, ReplyReceived) for event in events) == 3


def test_roles_alternate_and_each_request_begins_with_the_whole_one_before(solve):
    _, model = solve("A plan.", code("1"), "A plan.", code("2"), "A plan.", "2.", plan_every=1)
    for messages in model.requests:
        roles = [message["role"] for message in messages]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)][: len(roles)]
    for before, after in zip(model.requests, model.requests[1:], strict=False):
        # All but its last characters: a plan may be asked for in a message that is there already.
        assert json.dumps(after).startswith(json.dumps(before).removesuffix('"}]'))


def test_a_plan_loads_back_equal_and_can_be_read_in_the_notebook(solve):
    plan = Reply("<think>Hm.</think>First *x*.\n\n- a\n- b", reasoning="r", usage=USAGE)
    run, _ = solve(plan, code("final_answer(1)"), plan_every=3)
    again = Transcript.load(run.path)
    assert again.problems == ()
    assert again.entries == run.transcript.entries
    assert again.messages() == run.transcript.messages()
    assert again.usage == run.usage
    assert (again.usage.tokens, again.usage.model_seconds) == (10, 1.0)
    notebook = nbformat.read(run.path, 4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells if "Plan" in cell.source] == [
        "### Plan\n\nFirst *x*.\n\n- a\n- b"
    ]


def test_a_limit_that_a_plan_reaches_is_told_at_once(solve):
    plan = Reply("A long plan.", usage=USAGE)
    run, model = solve(plan, "No idea.", plan_every=1, max_tokens=3_000)
    assert "The token limit is reached" in model.requests[1][-1]["content"]
    assert (run.answer, run.outcome) == ("No idea.", Outcome("answered", "max_tokens"))


def test_no_plan_is_asked_for_when_a_limit_is_reached(solve):
    run, model = solve("A plan.", code("1"), "One.", plan_every=1, max_steps=1)
    assert run.outcome == Outcome("answered", "max_steps")
    assert len(model.requests) == 3


def test_a_resumed_run_goes_on_after_its_plan(tmp_path, lent_kernel):
    model = ScriptedModel(["First x."])
    with Agent(model, folder=tmp_path, kernel=lent_kernel, plan_every=2) as agent:
        with pytest.raises(Exception, match="script has ended"):
            agent.run("What?")
        path = agent.transcript.path
    model = ScriptedModel([code("final_answer(1)")])
    with resume(path, model=model, plan_every=2) as agent:
        assert agent.run().answer == 1
    assert model.requests[0][-2] == {"role": "assistant", "content": "First x."}
    assert Transcript.load(path).about["plan_every"] == 2


def test_a_fork_keeps_the_plans_before_it(solve, tmp_path):
    run, _ = solve("P1.", code("1"), "P2.", code("final_answer(2)"), plan_every=1)
    fork = run.transcript.fork(2, tmp_path / "fork.ipynb")
    fork.save()
    assert fork.usage == run.usage
    assert Transcript.load(tmp_path / "fork.ipynb").entries == run.transcript.entries
    first = run.transcript.fork(1, tmp_path / "first.ipynb")
    assert [type(entry).__name__ for entry in first.entries] == ["Task", "Plan", "Step"]


def test_the_view_shows_a_plan_under_its_heading():
    console = Console(file=io.StringIO(), width=80)
    with LiveView(console) as view:
        view(PlanStarted(1, 20, Usage()))
        view(PlanFinished(Plan(Reply("First x."), "First x.", "", ""), USAGE))
    assert console.file.getvalue().strip() == "── Plan ──\n\nFirst x."


def test_the_setting_is_a_number_of_steps(tmp_path):
    none = tmp_path / "none.toml"
    assert load_settings({"plan_every": "3"}, {}, none).plan_every == 3
    assert load_settings({}, {"KERNEL_AGENT_PLAN_EVERY": "0"}, none).plan_every == 0
    for bad in ("-1", "often"):
        with pytest.raises(SettingsError, match="a whole number from 0"):
            load_settings({"plan_every": bad}, {}, none)
