"""What a model thought before it replied, as the notebook shows it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernel_agent.steps import CellResult, Observation, Reply, Step, Task
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.folding import reasoning_text
from tests.examples import examples

FRAME = ["details", "summary", "/summary", "/details"]


class Tags(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(reasoning: str) -> Tags:
    from nbconvert.filters.markdown import markdown2html

    return Tags(markdown2html(reasoning_text(Reply("It is 3.", reasoning))))


ACTIVE = st.sampled_from(
    "</details>|<b>|<script>alert(1)</script>|```|# x|- x|    x|\n\n|\n|*a*|`a`|x"
    "|[a](javascript:b)|<!-- |$x$|&lt;|![a](b)".split("|")
)


@given(st.lists(ACTIVE, min_size=1, max_size=8).map("".join))
@example("```python\nprint('</details><script>alert(1)</script>')\n```\n</details>\n<script>")
@examples(150)
def test_nothing_in_the_reasoning_is_html_or_markdown(reasoning: str) -> None:
    if not reasoning.strip():
        return
    tags = shown(reasoning)
    assert [tag for tag in tags.found if tag in FRAME] == FRAME
    assert {tag.strip("/") for tag in tags.found} <= {
        *("details", "summary", "p", "br", "pre", "code", "span", "div")
    }
    words = "".join(tags.text.removeprefix("Reasoning").split())
    assert "".join(reasoning.split()) in words


@pytest.mark.parametrize("reply", [Reply("It is 3."), Reply("It is 3.", " \n"), Reply("```x")])
def test_without_reasoning_nothing_is_shown(reply: Reply) -> None:
    assert reasoning_text(reply) == ""


def test_what_is_thought_aloud_in_the_text_is_reasoning_too() -> None:
    text = reasoning_text(Reply("<think>\nIn the text.\n</think>\nIt is 3.", "Beside it."))
    assert text.split("\n\n")[1:-1] == ["Beside it.", "In the text."]


def test_it_stands_above_the_thought_and_loading_takes_it_from_the_reply(tmp_path: Path) -> None:
    step = Step(Reply("Look.", "hm"), "Look.", "Look.", CellResult("x"), Observation("1"))
    plain = Step(Reply("It is 3.", "well"), "It is 3.", "It is 3.")
    transcript = Transcript("", path=tmp_path / "run.ipynb")
    for entry in (Task("t", "t"), step, plain):
        transcript.add(entry)
    notebook = nbformat.read(tmp_path / "run.ipynb", 4)
    assert [cell.id for cell in notebook.cells] == [
        *("task-1", "step-1-reasoning", "step-1-thought", "step-1"),
        *("step-2-reasoning", "step-2"),
    ]
    for cell in notebook.cells:
        if cell.metadata.kernel_agent.kind == "reasoning":
            cell.source = "edited"
    nbformat.write(notebook, tmp_path / "run.ipynb")
    loaded = Transcript.load(tmp_path / "run.ipynb")
    assert (loaded.entries[1:], loaded.problems) == ((step, plain), ())


def test_a_finished_step_takes_the_place_of_its_running_cells(tmp_path: Path) -> None:
    step = Step(Reply("Look.", "hm"), "Look.", "Look.", CellResult("x"), Observation("1"))
    Transcript("", path=tmp_path / "run.ipynb").begin(step)
    loaded = Transcript.load(tmp_path / "run.ipynb")
    loaded.add(step)
    cells = nbformat.read(tmp_path / "run.ipynb", 4).cells
    assert [cell.id for cell in cells] == ["step-1-reasoning", "step-1-thought", "step-1"]
