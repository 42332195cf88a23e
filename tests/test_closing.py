"""When a reply that streams in may be closed before its end."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.closing import BlockWatch
from kernel_agent.reply import RunCode, read_reply
from kernel_agent.steps import Reply
from tests.examples import examples

BLOCK = "I look.\n\n```python\nprint(max([3, 1, 2]))\n```"


def closed_at(text: str, watch: BlockWatch, size: int = 3) -> str | None:
    """What the watch keeps of `text`, fed in pieces; None if it would read on to the end."""
    for start in range(0, len(text), size):
        if watch.feed(text[start : start + size]):
            return watch.text
    return None


MADE_UP = {
    "observation": "Observation:\n3\n",
    "observation on its line": "Observation: 3\n",
    "output": "**Output:**\n\n3\n",
    "output fence": "```output\n3\n```\n",
    "turn of the user": "User: thanks\n",
    "turn of a chat template": "<|im_start|>user\n3\n",
    "observation in a turn of its own": "Assistant: Observation:\n3\n",
    "tag": "<observation>\n3\n</observation>\n",
    "after words of its own": "That gives the largest.\n\nOutput: 3\n",
    "our own words": "Variables: a: int 3\n",
    "after a second block": "Then\n```python\nprint(2)\n```\nOutput:\n3\n",
}


@pytest.mark.parametrize("after", MADE_UP.values(), ids=MADE_UP.keys())
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_reply_is_closed_when_its_output_is_made_up(after: str, size: int) -> None:
    text = f"{BLOCK}\n{after}"
    kept = closed_at(text + "```python\nboom()\n```\n", BlockWatch(), size)
    assert kept is not None
    assert text.startswith(kept)
    assert "3\n" not in kept
    assert read_reply(Reply(kept)) == read_reply(Reply(text + "```python\nboom()\n```\n"))


def test_it_is_closed_at_the_very_line_that_begins_the_output() -> None:
    watch = BlockWatch()
    assert not watch.feed(f"{BLOCK}\n\nObservation:")
    assert watch.feed("\n")
    assert watch.text == BLOCK


GOES_ON = {
    "the end of the block": "\n",
    "a short sentence": "\nThis prints the largest of them.\n",
    "an answer": "\nThe answer is 3.\n",
    "a second block": "\nThen:\n```python\nprint(2)\n```\n",
    "a turn of its own": "\nAssistant: And now\n```python\nprint(2)\n```\n",
    "a block of other text": "\nIt has the form\n```text\nOutput: 3\n```\n",
}


@pytest.mark.parametrize("after", GOES_ON.values(), ids=GOES_ON.keys())
def test_a_reply_goes_on_after(after: str) -> None:
    assert closed_at(BLOCK + after, BlockWatch()) is None


OPEN = {
    "a block that is open": "```python\nprint(1)\nObservation: 3\n",
    "a string that holds a fence": '```python\ntext = """\n```\nObservation: 3\n',
    "a draft": "<think>\n```python\nprint(1)\n```\nOutput: 1\n",
    "a block of text": "```markdown\n```python\nprint(1)\n```\nOutput:\n1\n",
    "a fence that was never closed": "````\n```python\nprint(1)\n```\nOutput:\n1\n",
    "a short fence that may be closed later": "```\nSo:\n```python\nprint(1)\n```\nOutput:\n1\n",
    "a fence too many": f"{BLOCK}\n```\nOutput:\n3\n",
    "a block that may be a quotation": "```\nprint(1)\n```\nOutput:\n1\n",
    "words": "Output: 3\nObservation: 3\n",
    "JSON": '{"thought": "\n```python\nprint(1)\n```\nOutput: 3\n',
    "another tool's call": '<tool_call>{"name": "zoom"}</tool_call>\nObservation: 3\n',
}


@pytest.mark.parametrize("text", OPEN.values(), ids=OPEN.keys())
def test_nothing_is_closed_in(text: str) -> None:
    assert closed_at(text, BlockWatch()) is None


def test_a_draft_that_was_never_opened_is_waited_for_if_the_model_writes_such() -> None:
    draft = "Maybe\n```python\nboom()\n```\nOutput: 1? No.\n</think>\n"
    kept = closed_at(f"{draft}{BLOCK}\nOutput:\n3\n", BlockWatch(drafts=True))
    assert kept == draft + BLOCK
    assert closed_at(f"{BLOCK}\nOutput:\n3\n", BlockWatch(drafts=True)) is None


def test_code_of_another_language_is_watched_too() -> None:
    kept = closed_at("```r\nmean(x)\n```\nOutput:\n[1] 3\n", BlockWatch("r"))
    assert kept == "```r\nmean(x)\n```"


PIECES = [
    *("```\n", "```python\n", "````\n", "```json\n", "```output\n", "~~~\n", "<execute>\n"),
    *("</execute>\n", "<code>", "</code>\n", "<tool_call>", "</tool_call>\n", "[PYTHON]\n"),
    *("print(1)\n", "x = 1\n", 's = """\n', '"""\n', "s = '```'\n", "# it's\n", "def f(\n", "\n"),
    *("Observation: 3\n", "Output:\n", "User: hi\n", "Assistant: so\n", "Words.\n", "  ", "\r\n"),
    '{"name": "python", "arguments": {"code": "print(1)"}}',
]
DRAFTS = ["<think>\n", "</think>\n", "</think>"]
STARTS = ["", "```python\nprint(1)\n```\n", "<execute>\nx = 1\n</execute>\n"]
START = st.sampled_from([*STARTS, f"```\nSo:\n{STARTS[1]}", f"{STARTS[1]}```\nOutput:\n3\n"])


def same_code(text: str, watch: BlockWatch) -> None:
    kept = closed_at(text, watch, size=5)
    if kept is None:
        return
    whole = read_reply(Reply(text))
    action = read_reply(Reply(kept))
    assert isinstance(action, RunCode)
    assert isinstance(whole, RunCode), (kept, whole)
    assert action.source == whole.source


@given(start=START, pieces=st.lists(st.sampled_from(PIECES), max_size=14))
@examples(400)
def test_a_closed_reply_runs_the_same_code_as_the_whole(start: str, pieces: list[str]) -> None:
    same_code(start + "".join(pieces), BlockWatch())


@given(start=START, pieces=st.lists(st.sampled_from(PIECES + DRAFTS), max_size=14))
@examples(400)
def test_so_does_one_of_a_model_that_thinks_aloud(start: str, pieces: list[str]) -> None:
    same_code("Hm.\n</think>\n" + start + "".join(pieces), BlockWatch(drafts=True))
    same_code(start + "".join(pieces), BlockWatch(drafts=True))


HUGE = {
    "outputs in a string": '```python\ns = """\n' + "Output: 3\n" * 15_000,
    "one line": "```python\nx = '" + "a" * 300_000,
    "open blocks": "```python\nOutput:\n" * 5_000,
    "lines": "print(1)\n" * 15_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE.keys())
def test_a_huge_reply_is_watched_in_linear_time(text: str) -> None:
    started = time.perf_counter()
    closed_at(text, BlockWatch(), size=8)
    assert time.perf_counter() - started < 5
