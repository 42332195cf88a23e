"""Loops: what counts as the same step again, what as something new, and how a run ends by it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.agent import Agent
from kernel_agent.ending import outcome_of
from kernel_agent.looping import TIMES, repeats
from kernel_agent.model import LiteLLM
from kernel_agent.steps import CellResult, Observation, Reply, RequestedCall, Step, ToolCall
from tests.openai_server import OpenAIServer


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def error(value="division by zero", name="ZeroDivisionError"):
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": []}


def cell(source="check()", *outputs, refused="", **fields):
    if any(one["output_type"] == "error" for one in outputs):
        fields = {"status": "error"} | fields
    result = CellResult(source, outputs=outputs, **fields)
    return Step(Reply(source), source, result=result, refused=refused)


def said(text, *calls, refused=""):
    reply = Reply(text, calls=calls)
    return Step(reply, text, observation=Observation("No code."), refused=refused)


def loop_state(steps):
    """What comes of the last of `steps`: `"told"`, `"over"`, or nothing."""
    found = repeats(steps)
    return "" if found is None else "over" if found.was_told else "told"


STEPS = {
    "A": cell("check()", error()),
    "B": cell("look()", stream("nothing\n")),
    "C": said("I will do it now."),
    "D": said("", RequestedCall("1", "pythn", "{}")),
}


def steps_of(letters):
    """Capitals are steps that change nothing, digits edits: each of these is something new."""
    return [
        STEPS.get(letter) or cell(f"x = {letter}", variables={"x": letter}) for letter in letters
    ]


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        ("", ""),
        ("A", ""),
        ("AA", ""),
        ("AAA", "told"),
        ("BBB", "told"),
        ("CCC", "told"),
        ("DDD", "told"),
        ("AAAA", "over"),
        ("ABABA", "told"),
        ("ABABAB", "over"),
        ("ABCABCA", "told"),
        ("A1A2A", ""),
        ("A1A2A3A4A5A", ""),
        ("AA1A", ""),
        ("AA1AA", ""),
        ("AAB1AAA", "told"),
        ("AAA1", ""),
        ("AAA1A", ""),
        ("AAA1BBB", "told"),
        ("AAA1AAA", "over"),  # it has been told of this very step
        ("AAAB", ""),
        ("AAABBB", "told"),
        ("AAAAB", ""),
    ],
)
def test_a_loop_is_told_the_third_time_and_over_the_next(letters, state):
    assert loop_state(steps_of(letters)) == state


@given(st.text("ABCD12345", max_size=25))
def test_no_loop_is_over_before_it_was_told(letters):
    steps = steps_of(letters)
    states = [loop_state(steps[:end]) for end in range(1, len(steps) + 1)]
    if "over" in states:
        assert "told" in states[: states.index("over")]
    for place, state in enumerate(states):
        if state:
            assert letters[: place + 1].count(letters[place]) >= TIMES


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=20))
def test_what_is_new_each_time_is_never_a_loop(numbers):
    assert not any(
        loop_state([cell(f"f({n})", error()) for n in numbers[:end]])
        for end in range(len(numbers) + 1)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("check()", "check( )  # again\n"),
        ("x = 'a'\ncheck(x)", 'x = "a"\n\n# once more\ncheck(\n    x\n)'),
        ("!ls  ", "# list\n!ls"),
        ("await check()", "await (check())"),
    ],
)
def test_comments_and_formatting_are_nothing_new(one, other):
    assert loop_state([cell(one), cell(other), cell(one)]) == "told"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (cell("check(1)"), cell("check(2)")),
        (cell("!ls a"), cell("!ls b")),
        (cell("f()", error()), cell("f()", error("by one"))),
        (cell("f()", error("x", "KeyError")), cell("f()", error("x", "IndexError"))),
        (cell("f()", stream("3 left\n")), cell("f()", stream("2 left\n"))),
        (cell("f()", stream("1")), cell("f()", stream("1"), status="interrupted")),
        (
            cell("f()", {"output_type": "display_data", "data": {"image/png": "aaaa"}}),
            cell("f()", {"output_type": "display_data", "data": {"image/png": "bbbb"}}),
        ),
        (
            cell("f()", tool_calls=(ToolCall("next_page", {}, "one"),)),
            cell("f()", tool_calls=(ToolCall("next_page", {}, "two"),)),
        ),
        (cell("f()", refused="Too small."), cell("f()", refused="Too large.")),
        (said("One."), said("Two.")),
        (said("", RequestedCall("1", "a", "{}")), said("", RequestedCall("2", "b", "{}"))),
    ],
)
def test_another_code_error_output_or_reply_is_something_new(one, other):
    assert repeats([one, one, other]) is None
    assert repeats([one, one, one]) is not None


AT = 1_763_700_000.0  # 04:40:00 UTC


@pytest.mark.parametrize(
    ("one", "other", "is_noise"),
    [
        ("<Thing at 0x7f31a2b3c4d0>", "<Thing at 0x7f99a2b3c4d0>", True),
        ("ptr 0x7f31a2b3c4d0", "ptr 0x7f99a2b3c4d0", True),
        ("04:40:00 not there", "04:40:09 not there", True),
        ("2025-11-21T10:10:00.123 none", "2025-11-21T10:10:09.456 none", True),  # UTC+5:30
        (f"at {AT + 0.5}", f"at {AT + 9.5}", True),
        ("waited 0.31 s", "waited 0.52 s", True),
        ("took 812 ms", "took 12 ms", True),
        ("Wall time: 3.1 ms", "Wall time: 2.9 ms", True),
        ("row of 12:21:00", "row of 13:22:00", False),
        ("next 1500000000", "next 1500003600", False),
        ("period 31 s", "period 52 s", False),
        ("0.31", "0.52", False),
    ],
)
def test_addresses_and_the_times_of_the_run_hide_no_loop(one, other, is_noise):
    steps = [
        cell("poll()", stream(text), started=started, seconds=1.0)
        for text, started in ((one, AT), (other, AT + 9), (other, AT + 9))
    ]
    assert (loop_state(steps) == "told") == is_noise


def test_what_changes_variables_is_something_new():
    grow = cell("x = x + 1", variables={"x": "list"})
    assert loop_state([cell("x = 0", variables={"x": "0"}), *[grow] * 5]) == ""
    stopped = cell("while True: x += 1", variables={"x": "list"}, status="interrupted")
    assert loop_state([stopped] * 5) == ""
    failed = cell("x += 1\n1 / 0", error(), variables={"x": "list"})
    assert loop_state([failed] * 3) == "told"


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("t = read('f.csv')\nprint(t)", "told"),
        ("t = read()\nfor row in t:\n    print(row)", "told"),
        ("with open('f') as t:\n    print(t.read())", "told"),
        ("t = [row for row in range(3)]", "told"),
        ("t = step(t)", ""),
        ("t += 1", ""),
        ("t.append(1)", ""),
        ("t = next(rows)", ""),
        ("%run f.py", ""),
    ],
)
def test_a_cell_that_makes_the_same_variables_anew_changes_nothing(source, state):
    first = cell("rows = iter(f())", variables={"rows": "generator", "row": "int"})
    again = cell(source, variables={"t": "DataFrame 3×2"})
    assert loop_state([first, again, again, again]) == state


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("net.fit()", ""),
        ("counts[0] += 1", ""),
        ("net.rate /= 2", ""),
        ("next(rows)", ""),
        ("time.sleep(5)", "over"),
        ("net.score()\nprint(1)", "over"),
    ],
)
def test_work_in_place_that_no_line_of_variables_shows_is_no_loop(source, state):
    made = cell("net, counts, rows = make()", variables={"net": "Net", "counts": "list 3"})
    outputs = [stream("1\n")] if "print" in source else []
    assert loop_state([made, *[cell(source, *outputs)] * 5]) == state


def test_other_values_of_the_same_variables_are_something_new():
    steps = [cell("t = poll()", variables={"t": f"list {n}"}) for n in (1, 1, 2)]
    assert loop_state(steps) == ""


def test_a_loop_names_its_steps_and_ends_the_run_with_its_error():
    steps = steps_of("1AAA")
    told = repeats(steps)
    assert (told.kind, told.numbers, told.was_told) == ("error", "2, 3 and 4", False)
    seen = replace(steps[-1], observation=Observation("ZeroDivisionError"))
    assert outcome_of(seen, None, death_ends=False, loop=told) is None
    loop = repeats(steps_of("1AAAA"))
    outcome = outcome_of(seen, None, death_ends=False, loop=loop)
    assert str(outcome) == (
        "failed: Steps 2, 3, 4 and 5 ran the same code with the same error (ZeroDivisionError: "
        "division by zero). The model was told, and did it again."
    )


def test_an_answer_ends_the_run_even_if_it_repeats():
    final = {"output_type": "display_data", "data": {"application/vnd.kernel_agent.answer+json": 1}}
    steps = [cell("final_answer(1)", final)] * 4
    loop = repeats(steps)
    assert loop is not None
    observed = replace(steps[-1], observation=Observation("Answer: 1"))
    assert outcome_of(observed, None, death_ends=False, loop=loop).status == "answered"


def test_the_kinds_of_loops_are_told_apart():
    assert repeats(steps_of("BBB")).kind == "result"
    assert repeats(steps_of("CCC")).kind == "reply"
    assert repeats([said("5", refused="Too small.")] * 3).kind == "refused"


def code(source):
    return f"Next.\n```python\n{source}\n```"


@pytest.fixture
def solve(tmp_path):
    def solve(*answers):
        with OpenAIServer(answers) as server:
            model = LiteLLM("openai/any", api_base=server.url, api_key="sk-test", retries=0)
            with Agent(model, folder=tmp_path / "runs", cwd=tmp_path) as agent:
                return agent.run("What?"), [r.body["messages"][-1] for r in server.requests]

    return solve


def test_over_http_a_loop_is_told_once_and_then_the_run_ends(solve):
    run, asked = solve(*[code("1 / 0")] * 9)
    assert len(asked) == 4
    told = ["You go in a circle" in message["content"] for message in asked]
    assert told == [False, False, False, True]
    assert run.answer is None
    assert run.outcome.status == "failed"
    assert "Steps 1, 2, 3 and 4 ran the same code" in run.outcome.reason


def test_over_http_a_model_that_was_told_can_still_answer(solve):
    cells = [code("import os\nos.path.exists('there')")] * 3
    run, asked = solve(*cells, code("final_answer('It never came.')"))
    assert run.answer == "It never came."
    assert "wait longer inside one cell" in asked[-1]["content"]
