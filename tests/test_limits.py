"""Limits: what a task has used, what its next requests would use, and when that is too much."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_agent.agent import Agent
from kernel_agent.context import tokens_of
from kernel_agent.errors import SettingsError
from kernel_agent.estimates import FIRST_REPLY, Ahead
from kernel_agent.limits import Limits, Scarcity, used_by
from kernel_agent.model import LiteLLM
from kernel_agent.steps import (
    CellResult,
    Cut,
    Note,
    Observation,
    Outcome,
    Plan,
    Reply,
    Step,
    ToolCall,
    Usage,
)
from tests.openai_server import Answer, OpenAIServer


def step(result=None, **usage):
    seconds = usage.pop("kernel_seconds", 0.0)
    result = result or CellResult("", seconds=seconds)
    return Step(Reply("", usage=Usage(**usage)), "", result=result)


def price(usage):
    """A dollar for 1,000 tokens of a prompt, a tenth of that where they are cached; two else."""
    prompt = usage.prompt_tokens - 0.9 * usage.cached_tokens
    return (prompt + 2 * usage.completion_tokens) / 1_000


def ahead(characters=0, *, price=price, max_chars=0):
    message = {"role": "user", "content": "x" * characters}
    return Ahead(price, lambda: [message], max_chars)


@pytest.mark.parametrize(
    "name", ["max_steps", "max_cost", "max_tokens", "max_seconds", "cell_timeout"]
)
@pytest.mark.parametrize("value", [0, -1, True, float("nan"), "3"])
def test_a_limit_must_be_a_number_above_0(name, value):
    with pytest.raises(SettingsError, match=f"{name} is"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("limits", "steps", "reached"),
    [
        (Limits(max_steps=2), [step()], None),
        (Limits(max_steps=2), [step(), step()], "max_steps"),
        (Limits(max_cost=0.1), [step(cost=0.04), step(cost=0.05)], None),
        (Limits(max_cost=0.1), [step(cost=0.04), step(cost=0.06)], "max_cost"),
        (Limits(max_cost=0.1), [step(cost=None)], None),
        (Limits(max_tokens=10), [step(prompt_tokens=6, completion_tokens=4)], "max_tokens"),
        (Limits(max_seconds=1), [step(model_seconds=0.5, kernel_seconds=0.5)], "max_seconds"),
        (Limits(max_seconds=1), [step(model_seconds=0.5, kernel_seconds=0.4)], None),
    ],
)
def test_a_limit_is_reached_by_the_sum_of_the_steps(limits, steps, reached):
    assert limits.reached(steps) == reached


def test_what_plans_summaries_and_sub_agents_use_counts():
    reply = Reply("", usage=Usage(10, 1, cost=0.01, model_seconds=1.0))
    calls = (ToolCall("helper", {}, usage=Usage(100, 10, cost=0.1)), ToolCall("search", {}))
    cell = CellResult("", seconds=5.0, tool_calls=calls)
    used = used_by(
        [Plan(reply, "", "", ""), Cut(1, reply=reply), Cut(2), Step(reply, "", "", cell)]
    )
    assert (used.tokens, used.model_seconds, used.kernel_seconds) == (143, 3.0, 5.0)
    assert used.cost == pytest.approx(0.13)


def test_an_unknown_cost_hides_no_known_one():
    steps = [step(cost=0.2), step(cost=None)]
    assert used_by(steps).cost == 0.2
    assert Limits(max_cost=0.1).reached(steps) == "max_cost"
    call = ToolCall("helper", {}, usage=Usage(cost=None))
    assert used_by([step(CellResult("", tool_calls=(call,)), cost=0.2)]).cost == 0.2


def test_the_next_prompt_is_the_last_one_with_its_reply_and_what_came_of_it():
    output = {"output_type": "stream", "name": "stdout", "text": "x" * 3_000}
    figure = {"output_type": "display_data", "data": {"image/png": "…", "text/plain": "<Figure>"}}
    sizes = [
        ahead(max_chars=limit).request([step(result, prompt_tokens=1_000, completion_tokens=50)])
        for limit in (6_000, 600)
        for result in (CellResult(""), CellResult("", outputs=(output, figure)))
    ]
    bare, shown, _, short = [size.prompt_tokens for size in sizes]
    assert 1_050 < bare < 1_500
    assert bare + 1_000 + 500 < shown < bare + 1_000 + 2_000
    assert short == shown - 1_003 + 200  # what an observation shows is bounded


def test_hidden_reasoning_does_not_come_back_in_the_next_prompt():
    usage = Usage(1_000, 900, reasoning_tokens=800)
    hidden, told = (Step(Reply("", reasoning, usage=usage), "") for reasoning in ("", "Hm."))
    assert ahead().request([told]).prompt_tokens - ahead().request([hidden]).prompt_tokens == 800


def test_a_long_reply_now_and_then_is_no_surprise():
    steps = [step(prompt_tokens=10, completion_tokens=length) for length in (10, 500, 20, 30, 40)]
    assert ahead().request(steps).completion_tokens == 40
    assert ahead().request(steps[:2]).completion_tokens == 500


def test_cached_tokens_are_expected_at_their_price_if_the_last_reply_had_some():
    def steps(cached):
        return [step(prompt_tokens=1_000, completion_tokens=10, cached_tokens=cached, cost=0.3)]

    limits = Limits(max_cost=2.0)
    assert limits.reached(steps(0), ahead()) == "max_cost"
    assert limits.reached(steps(900), ahead()) is None
    # After a cut there are other messages: none of them is cached, but there are fewer.
    assert limits.reached([*steps(900), Cut(1)], ahead(9_000)) == "max_cost"
    assert limits.reached([*steps(900), Cut(1)], ahead(500)) is None


def test_a_limit_is_reached_while_a_closing_request_still_fits():
    steps = [step(prompt_tokens=1_000, completion_tokens=100, cost=1.2)]
    coming = [ahead().request(steps), ahead().closing(steps)]
    needed = sum(map(price, coming))
    assert Limits(max_cost=1.2 + needed + 0.01).reached(steps, ahead()) is None
    assert Limits(max_cost=1.2 + needed - 0.01).reached(steps, ahead()) == "max_cost"
    tokens = 1_100 + sum(one.tokens for one in coming)
    assert Limits(max_tokens=tokens).reached(steps, ahead()) is None
    assert Limits(max_tokens=tokens - 1).reached(steps, ahead()) == "max_tokens"


def test_it_is_told_for_how_many_steps_a_budget_suffices_if_that_is_fewer_than_there_are():
    steps = [step(prompt_tokens=1_000, completion_tokens=100, cost=1.2, model_seconds=1.0)]
    coming = ahead().requests(steps, 20)
    tokens = 1_100 + sum(one.tokens for one in coming[:3])  # two steps and the closing request
    assert Limits(max_tokens=tokens).scarcity(steps, ahead()) == Scarcity("max_tokens", 2)
    assert Limits(max_tokens=tokens - 1).scarcity(steps, ahead()) == Scarcity("max_tokens", 1)
    assert Limits(max_tokens=10**6).scarcity(steps, ahead()) is None
    cost = 1.2 + sum(map(price, coming[:4]))
    assert Limits(max_cost=cost).scarcity(steps, ahead()) == Scarcity("max_cost", 3)
    both = Limits(max_cost=cost, max_tokens=tokens)
    assert both.scarcity(steps, ahead()) == Scarcity("max_tokens", 2)
    assert Limits(max_seconds=5.5).scarcity(steps, ahead()) == Scarcity("max_seconds", 3)
    assert Limits(max_steps=3, max_cost=cost).scarcity(steps, ahead()) is None
    assert both.scarcity((), ahead()) is None


def test_coming_prompts_grow_as_those_before_have_grown():
    steps = [step(prompt_tokens=n, completion_tokens=50) for n in (1_000, 1_400, 1_800)]
    first, second, third = (one.prompt_tokens for one in ahead().requests(steps, 3))
    assert (second - first, third - second) == (400, 400)


def test_time_for_two_more_replies_is_kept_and_in_a_cell_for_one():
    steps = [step(model_seconds=1.0, kernel_seconds=2.0), step(model_seconds=3.0)]
    assert Limits(max_seconds=10.5).reached(steps, ahead()) is None
    assert Limits(max_seconds=9.5).reached(steps, ahead()) == "max_seconds"
    assert Limits(max_seconds=10).cell_seconds(steps) == 2


def test_without_a_price_only_what_was_used_counts_for_the_cost():
    steps = [step(prompt_tokens=10**6, completion_tokens=10**6, cost=0.5)]
    unknown = ahead(10**6, price=lambda usage: None)
    limits = Limits(max_cost=0.6)
    assert limits.reached(steps, unknown) is None
    assert limits.exhausted((), unknown) is None
    spent = [*steps, step(cost=0.2)]
    assert limits.reached(spent, unknown) == "max_cost"
    assert limits.exhausted(spent, unknown) is None  # the closing request is made


def test_nothing_is_expected_of_a_model_that_tells_no_tokens():
    steps = [step(), step()]
    assert ahead(max_chars=8_000).closing(steps) == Usage()
    assert Limits(max_tokens=1).reached(steps, ahead(10**6)) is None


def test_a_first_request_that_does_not_fit_is_not_made():
    first = ahead(3_000)
    needed = tokens_of(list(first.messages())) + FIRST_REPLY
    assert Limits(max_tokens=needed).exhausted((), first) is None
    outcome = Limits(max_tokens=needed - 1).exhausted((), first)
    assert (outcome.status, outcome.limit) == ("limit", "max_tokens")
    told = f"about {needed:,} tokens, and {needed - 1:,} of max_tokens are left"
    assert told in outcome.reason
    outcome = Limits(max_cost=1.5).exhausted((Note("Go on."),), first)
    assert outcome.limit == "max_cost"
    cost = (needed + FIRST_REPLY) / 1_000
    assert f"cost about ${cost:.4f}, and $1.5000 of max_cost is left" in outcome.reason


def test_after_a_surprise_the_closing_request_is_made_while_anything_is_left():
    steps = [step(prompt_tokens=1_000, completion_tokens=10, cost=1.0)] * 2
    assert Limits(max_cost=2.1).reached(steps, ahead()) == "max_cost"
    assert Limits(max_cost=2.1).exhausted(steps, ahead()) is None
    assert Limits(max_cost=2.0).exhausted(steps, ahead()).limit == "max_cost"
    # One reply was asked for without anything kept.
    assert Limits(max_cost=2.1).exhausted(steps[:1], ahead()).limit == "max_cost"


def test_sub_agents_leave_what_the_next_request_costs():
    steps = [step(prompt_tokens=1_000, completion_tokens=100, cost=1.2)]
    kept = price(ahead().request(steps))
    assert Limits(max_cost=5.0).cost_left(steps, ahead()) == pytest.approx(5 - 1.2 - kept)
    assert 0 < Limits(max_cost=1.0).cost_left(steps, ahead()) < 0.001
    assert Limits().cost_left(steps, ahead()) is None


def test_a_limit_is_the_same_before_and_after_the_step_has_its_observation():
    output = {"output_type": "stream", "name": "stdout", "text": "x" * 3_000}
    before = step(CellResult("", outputs=(output,)), prompt_tokens=1_000, completion_tokens=100)
    after = Step(before.reply, "", "", before.result, Observation("x" * 3_000))
    look = ahead(max_chars=8_000)
    for tokens in range(3_000, 10_000, 100):
        limits = Limits(max_tokens=tokens)
        assert limits.reached([before], look) == limits.reached([after], look)
        assert limits.exhausted([before], look) == limits.exhausted([after], look)


def test_a_cell_may_run_for_its_timeout_or_what_is_left_of_the_seconds():
    assert Limits(cell_timeout=5).cell_seconds([]) == 5
    assert Limits(cell_timeout=5, max_seconds=3).cell_seconds([step(kernel_seconds=1.0)]) == 2
    assert Limits(max_seconds=3).cell_seconds([step(model_seconds=9.0)]) > 0


sizes = st.integers(0, 4_000)
shares = st.floats(0, 1)
steps = st.tuples(shares, shares, shares, sizes, st.booleans())


@settings(deadline=None)
@given(st.floats(1, 40), st.integers(1, 100_000), sizes, st.lists(steps, min_size=4, max_size=8))
def test_if_no_reply_takes_more_than_expected_no_budget_is_passed(
    max_cost, max_tokens, characters, drawn
):
    """`drawn`: of each reply the shares of what was expected, the output, whether it is a plan."""
    limits = Limits(max_cost=max_cost, max_tokens=max_tokens, max_steps=10**6)
    look = ahead(characters, max_chars=2_000)
    entries = []
    kept = None
    for *shares_of, output, is_plan in itertools.chain(drawn, drawn * 3):
        limit = limits.reached(entries, look)
        if limits.exhausted(entries, look):
            break
        expected = look.request(entries)
        if limit and kept:  # the closing request: no more than was kept for it
            expected = kept
        prompt = round(expected.prompt_tokens * (shares_of[0] or 1))
        completion = round(expected.completion_tokens * shares_of[1])
        cached = round(min(expected.cached_tokens, prompt) * shares_of[2])
        cost = min(price(Usage(prompt, completion, cached)), price(expected))
        reply = Reply("", usage=Usage(prompt, completion, cached, cost=cost))
        stream = {"output_type": "stream", "name": "stdout", "text": "x" * output}
        kept = look.closing(entries) if entries else None
        if is_plan and not limit:
            entries.append(Plan(reply, "", "", "Go on."))
        else:
            entries.append(Step(reply, "", "", CellResult("", outputs=(stream,))))
        if limit:
            break
    used = used_by(entries)
    assert used.cost <= max_cost * (1 + 1e-9)
    assert used.tokens <= max_tokens


def code(source):
    return f"Next.\n```python\n{source}\n```"


@pytest.fixture
def solve(tmp_path):
    """Runs a task over HTTP with a model whose price litellm knows."""

    def solve(*answers, **options):
        with OpenAIServer(answers) as server:
            model = LiteLLM("openai/gpt-4o", api_base=server.url, api_key="sk-test", retries=0)
            with Agent(model, folder=tmp_path / "runs", cwd=tmp_path, **options) as agent:
                return agent.run("What?"), server.requests

    return solve


def test_over_http_a_priced_run_ends_with_an_answer_within_its_budget(solve):
    cells = [
        Answer(code("print(1)"), prompt_tokens=8_000 + 400 * n, completion_tokens=300)
        for n in range(20)
    ]
    run, requests = solve(*cells[:3], Answer("About 1.", prompt_tokens=9_300), max_cost=0.13)
    assert run.outcome == Outcome("answered", "max_cost")
    assert run.answer == "About 1."
    assert len(requests) == 4
    assert 0.08 < run.usage.cost <= 0.13
    assert "The budget is used up" in requests[-1].body["messages"][-1]["content"]


def test_over_http_nothing_is_asked_where_not_even_the_first_request_fits(solve):
    run, requests = solve(code("final_answer(1)"), max_cost=0.0001)
    assert requests == []
    assert (run.answer, run.outcome.status, run.outcome.limit) == (None, "limit", "max_cost")
    assert "of max_cost is left" in run.outcome.reason
