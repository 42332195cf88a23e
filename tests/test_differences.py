"""What differs between two runs, as values, in a terminal and as a page."""

import base64
import json
import re
from dataclasses import replace
from io import BytesIO, StringIO

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from kernel_agent.cli import app
from kernel_agent.diff_page import diff_page
from kernel_agent.diff_view import print_diff, summary_text
from kernel_agent.differences.differing import Fork, diff
from kernel_agent.steps import CellResult, Observation, Outcome, Reply, Step, Task, Usage
from kernel_agent.transcript import Transcript

SOURCES = ["a = 1", "b = a + 1\nb", "print(b)", "final_answer(b)"]


def step(source, text="", *, thought="I look.", status="ok", data=None, usage=None):
    outputs = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
    if data:
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    result = CellResult(source, status, tuple(outputs), 1, seconds=1.0)
    said = f"{thought}\n```python\n{source}\n```"
    return Step(Reply(said, usage=usage or Usage()), said, thought, result, Observation(text))


def run(*steps, task="Count.", parent=None, path=None):
    transcript = Transcript("s", path=path, about={"parent": parent} if parent else {})
    transcript.add(Task(task, task))
    for one in steps:
        transcript.add(one)
    transcript.finish(Outcome("answered"))
    return transcript


def png(width, height, colour):
    stream = BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def changed(found):
    return {
        (pair.left and pair.left.name, pair.right and pair.right.name): [
            change.what for change in pair.changes
        ]
        for pair in found.pairs
        if pair.changes
    }


def test_a_run_is_the_same_as_itself():
    found = diff(run(*map(step, SOURCES)), run(*map(step, SOURCES)))
    assert found.same
    assert len(found.pairs) == 5


def test_an_inserted_step_does_not_shift_those_after_it():
    more = [*SOURCES[:2], "import math", *SOURCES[2:]]
    found = diff(run(*map(step, SOURCES)), run(*map(step, more)))
    assert list(changed(found)) == [(None, "step 3")]
    assert [pair.right.name for pair in found.pairs][-1] == "step 5"


def test_a_changed_step_stands_beside_the_one_that_is_most_like_it():
    other = [*SOURCES[:2], "import math\nprint(math.pi)", "print(b, b)", SOURCES[3]]
    found = diff(run(*map(step, SOURCES)), run(*map(step, other)))
    assert changed(found) == {
        (None, "step 3"): ["thought", "source"],
        ("step 3", "step 4"): ["source"],
    }


def test_thoughts_outputs_status_and_task_are_told_apart():
    found = diff(
        run(step("x", "1"), step("y", thought="One."), step("z")),
        run(step("x", "2"), step("y", thought="Two."), step("z", status="error"), task="Sum."),
    )
    assert changed(found) == {
        ("task 1", "task 1"): ["task"],
        ("step 1", "step 1"): ["outputs"],
        ("step 2", "step 2"): ["thought"],
        ("step 3", "step 3"): ["status"],
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<object object at 0x7f0012345678>", "<object object at 0x7f00aaaaaaaa>"),
        ("Wall time: 15 µs", "Wall time: 16 µs"),
    ],
)
def test_noise_is_no_difference(one, other):
    assert diff(run(step("x", one)), run(step("x", other))).same


def test_usage_is_shown_and_is_no_difference():
    dear = replace(Usage(), prompt_tokens=9, cost=0.5)
    found = diff(run(step("x")), run(step("x", usage=dear)))
    assert found.same
    assert found.uses_differ
    assert "9 tokens" in printed(found)


def test_answers_and_outcomes_differ():
    def answered(text):
        return run(step("x"), Step(Reply(text), text, text))

    other = run(step("x"))
    other.finish(Outcome("limit", "max_steps"))
    found = diff(answered("42"), other)
    assert [change.what for change in found.changes] == ["outcome", "answer"]
    assert not found.same
    assert changed(diff(answered("42"), answered("43"))) == {("step 2", "step 2"): ["answer"]}


def test_a_figure_differs_by_its_pixels():
    red, blue = ({"image/png": png(4, 3, colour)} for colour in ((255, 0, 0), (0, 0, 255)))
    found = diff(run(step("plot()", data=red)), run(step("plot()", data=blue)))
    assert changed(found) == {("step 1", "step 1"): ["figure 1"]}
    assert "of the pixels differ" in printed(found)


def test_a_fork_shows_where_it_left_its_parent():
    parent = run(*map(step, SOURCES))
    about = {"path": "run.ipynb", "run": parent.run_id, "step": 2}
    fork = run(*map(step, [*SOURCES[:2], "c = 5", SOURCES[3]]), parent=about)
    found = diff(parent, fork)
    assert (found.fork, found.fork_at) == (Fork("right", 2), 2)
    text = printed(found)
    assert "it left it after step 2" in text
    assert text.index("task 1 to step 2: same") < text.index("here the fork left")
    assert diff(fork, parent).fork == Fork("left", 2)
    assert diff(fork, fork).fork == Fork("both", 2)


def printed(found, **options):
    stream = StringIO()
    print_diff(Console(file=stream, width=100, **options), found)
    return stream.getvalue()


def test_a_pipe_gets_plain_text_and_a_terminal_colours():
    found = diff(run(step("x", "1")), run(step("x", "2")))
    assert "  - 1\n  + 2\n" in printed(found)
    assert "\x1b" not in printed(found)
    assert "\x1b[32m" in printed(found, force_terminal=True)


def test_nothing_in_a_notebook_reaches_the_terminal_as_a_control_code():
    evil = "\x1b]0;title\x07\x1b[2Jhello"
    found = diff(run(step("x", evil)), run(step(f"y # {evil}", "1", thought=evil), task=evil))
    text = printed(found)
    assert "hello" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_a_long_difference_is_bounded():
    long = "\n".join(map(str, range(5000)))
    text = printed(diff(run(step("x", "")), run(step("x", long))))
    assert "more lines" in text
    assert text.count("\n") < 100


def page(found):
    return diff_page(found, title="a <b>", summary=summary_text(found), fork="")


def test_a_page_holds_figures_and_obeys_nothing_of_a_notebook():
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"
    data = {"image/png": png(4, 3, (255, 0, 0)), "text/html": evil}
    blue = {"image/png": png(4, 3, (0, 0, 255))}
    html = page(diff(run(step(evil, evil, data=data)), run(step("x", "1", data=blue), task=evil)))
    assert "<script" not in html
    assert "onerror=alert(1)&gt;" in html
    assert html.count('<img src="data:image/png;base64,') == 2
    assert "default-src &#x27;none&#x27;" in html
    assert html.count("<pre>") == html.count("</pre>")


@pytest.fixture
def notebooks(tmp_path):
    run(step("x", "1"), path=tmp_path / "a.ipynb")
    run(step("x", "2"), path=tmp_path / "b.ipynb")
    (tmp_path / "c.ipynb").write_text("{")
    return tmp_path


def command(*words):
    return CliRunner().invoke(app, ["diff", *map(str, words)])


def test_exit_codes_are_those_of_diff(notebooks):
    a, b = notebooks / "a.ipynb", notebooks / "b.ipynb"
    assert command(a, a).exit_code == 0
    assert command(a, b).exit_code == 1
    assert command(a, notebooks / "missing.ipynb").exit_code == 2


def test_json_says_what_differs(notebooks):
    done = command(notebooks / "a.ipynb", notebooks / "b.ipynb", "--json")
    told = json.loads(done.stdout)
    assert told["same"] is False
    assert told["pairs"][1]["changes"] == [{"what": "outputs", "left": "1", "right": "2"}]


def test_a_page_that_exists_is_replaced_only_by_force(notebooks):
    words = [notebooks / "a.ipynb", notebooks / "b.ipynb", "--html", notebooks / "d.html"]
    assert command(*words).exit_code == 1
    assert command(*words).exit_code == 2
    assert command(*words, "--force").exit_code == 1
    assert "<!DOCTYPE html>" in (notebooks / "d.html").read_text(encoding="utf-8")
