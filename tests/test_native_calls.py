"""Native tool calls become cells, and replies in JSON too: whole, or not at all."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.native_calls import WIDTH, read_arguments, sent_back, with_calls
from kernel_agent.reply import Answer, RunCode, Unusable, read_reply
from kernel_agent.steps import Reply, RequestedCall
from tests.examples import examples

TOOLS = ("search", "zoom")
CODE = "rain = [3, 1, 2]\nprint(max(rain))"


def call(name: str, arguments: Any = None, **named: Any) -> RequestedCall:
    text = arguments if isinstance(arguments, str) else json.dumps(named)
    return RequestedCall(f"id-{name}", name, text)


def read(
    *calls: RequestedCall, text: str = "", language: str = "python", finish: str = "tool_calls"
) -> RunCode | Answer | Unusable:
    reply = Reply(text, finish_reason=finish, calls=calls)
    return read_reply(reply, language=language, tools=TOOLS, reply_format="tools")


CELLS: dict[str, tuple[RequestedCall, str]] = {
    "the code tool": (call("python", code=CODE), CODE),
    "the code tool in another case": (call("Python", code=CODE), CODE),
    "a name with a namespace": (call("functions.python", code=CODE), CODE),
    "code under source": (call("python", source=CODE), CODE),
    "code with raw line ends": (call("python", '{"code": "' + CODE + '"}'), CODE),
    "code instead of JSON": (call("python", CODE), CODE),
    "code as JSON text": (call("python", json.dumps(CODE)), CODE),
    "code in a fence": (call("python", code=f"```python\n{CODE}\n```"), CODE),
    "code in a bare fence": (call("python", code=f"```\n{CODE}\n```\n"), CODE),
    "another name for the code tool": (call("execute_python", code=CODE), CODE),
    "a bare value as code": (call("python", code="rain"), "rain"),
    "a tool": (call("search", query="a"), "search(query='a')"),
    "a tool without arguments": (call("zoom"), "zoom()"),
    "a tool whose arguments are left out": (call("zoom", ""), "zoom()"),
    "JSON values": (
        call("search", a=None, b=True, c=[1.5, {"d": "é"}]),
        "search(a=None, b=True, c=[1.5, {'d': 'é'}])",
    ),
    "names that are no keywords": (
        call("search", '{"q": 1, "class": 2, "a b": 3}'),
        "search(q=1, **{'class': 2, 'a b': 3})",
    ),
    "the answer": (call("final_answer", answer="It is 3."), "final_answer('It is 3.')"),
}


@pytest.mark.parametrize(("asked", "source"), CELLS.values(), ids=CELLS)
def test_a_call_becomes_a_cell(asked: RequestedCall, source: str) -> None:
    assert read(asked, text="I look.") == RunCode("I look.", source, "I look.")


UNUSABLE: dict[str, tuple[RequestedCall, str]] = {
    "an unknown tool": (call("paint", colour="red"), "no tool 'paint'"),
    "a tool in the words of a code tool": (call("run_query", query="x = 1"), "no tool"),
    "half JSON for code": (call("python", '{"code": "print(1)'), "no JSON object"),
    "half JSON for a tool": (call("search", '{"query": "a'), "no JSON object"),
    "a dict that would run": (call("python", '{"code": print(1)}'), "no JSON object"),
    "a list": (call("search", '["a"]'), "no JSON object"),
    "words instead of code": (call("python", "print the rain"), "no JSON object"),
    "no number of JSON": (call("search", '{"n": NaN}'), "no JSON object"),
    "a number that Python writes no more": (call("search", f'{{"n": {"9" * 5000}}}'), "no JSON"),
    "deep JSON": (call("search", '{"n": ' + "[" * 100_000), "no JSON object"),
    "no code": (call("python", code=" \n"), "held no code"),
    "no arguments for code": (call("python", "{}"), "held no code"),
    "code that is no text": (call("python", code=["x"]), "no JSON object"),
    "code under another name": (call("python", script="x = 1"), "no JSON object"),
    "an answer without a value": (call("final_answer"), "one value"),
    "an answer of two values": (call("final_answer", a=1, b=2), "one value"),
}


@pytest.mark.parametrize(("asked", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_read_whole_is_not_run_and_the_form_is_told(
    asked: RequestedCall, reason: str
) -> None:
    action = read(asked, text="I look.")
    assert isinstance(action, Unusable), action
    assert reason in action.reason
    assert "Nothing was run. Call the tool `python`" in action.reason
    assert (action.said, action.reason.count("\n")) == ("I look.", 0)


@pytest.mark.parametrize("finish", ["length", "max_tokens", "content_filter"])
def test_calls_of_a_reply_that_was_cut_off_are_not_run(finish: str) -> None:
    action = read(call("python", code=CODE), finish=finish)
    assert isinstance(action, Unusable)
    assert "cut off" in action.reason


def test_one_bad_call_among_good_ones_lets_none_run() -> None:
    assert isinstance(read(call("python", code=CODE), call("search", "{")), Unusable)


def test_several_calls_are_one_cell_in_which_each_result_is_seen() -> None:
    action = read(call("search", query="a"), call("python", code="x = 1"), call("zoom", n=2))
    assert action.source == "display(search(query='a'))\n\nx = 1\n\nzoom(n=2)"


def test_a_cell_magic_is_not_joined_to_other_code() -> None:
    magic = call("python", code="%%bash\nls")
    assert read(magic).source == "%%bash\nls"
    for both in ([magic, call("zoom")], [call("zoom"), magic]):
        assert isinstance(read(*both), Unusable)


def test_the_text_beside_calls_is_the_thought_and_a_block_in_it_is_not_run() -> None:
    text = "<think>boom()</think>I look.\n```python\nboom()\n```"
    action = read(call("python", code="x"), text=text)
    assert (action.source, "<think>" in action.said) == ("x", False)


def test_a_reply_without_calls_is_read_as_text() -> None:
    assert read(text=f"```python\n{CODE}\n```").source == CODE
    assert read(text="It is 3.") == Answer("It is 3.", "It is 3.")


def test_another_kernel_has_its_own_tool_for_code_and_no_others() -> None:
    assert read(call("r", code="x <- 1"), language="r").source == "x <- 1"
    for one in (call("python", code="x"), call("search", query="a"), call("final_answer", x=1)):
        action = read(one, language="r")
        assert isinstance(action, Unusable)
        assert "`r`" in action.reason


def test_a_fence_that_is_not_all_of_the_code_stays_as_it_stands() -> None:
    for source in ("```python\nx\n```\nand\n```python\ny\n```", "x = '''\n```python\n'''"):
        assert read(call("python", code=source)).source == source


def test_a_long_call_is_broken_into_lines() -> None:
    words = "many words " * 5
    source = read(call("search", query=words + "\n" + words, kinds=[words, words], n=1)).source
    assert source == (
        "search(\n"
        "    query=(\n"
        f"        {words + chr(10)!r}\n"
        f"        {words!r}\n"
        "    ),\n"
        "    kinds=[\n"
        f"        {words!r},\n"
        f"        {words!r},\n"
        "    ],\n"
        "    n=1,\n"
        ")"
    )


texts = st.text(max_size=40) | st.sampled_from(["```", '"', "\n\n", "\\", "\ud800", "a b\nc" * 40])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.floats(allow_nan=False).filter(abs),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
).filter(lambda value: "inf" not in repr(value) and "Infinity" not in json.dumps(value))
names = st.sampled_from(["query", "n", "class", "größe", "ﬁ", "a b", "é"]) | texts


@given(st.dictionaries(names, values, max_size=4), st.booleans())
@examples(200)
def test_any_json_arguments_reach_the_function_as_they_are(
    arguments: dict[str, Any], is_last: bool
) -> None:
    asked = RequestedCall("1", "search", json.dumps(arguments))
    after = () if is_last else (call("zoom"),)
    source = read(asked, *after).source
    tree = ast.parse(source).body[0].value  # type: ignore[attr-defined]
    if not is_last:
        [tree] = tree.args
    given_names = {one.arg: one.value for one in tree.keywords if one.arg}
    found = {name: ast.literal_eval(value) for name, value in given_names.items()}
    for rest in (one.value for one in tree.keywords if not one.arg):
        found |= ast.literal_eval(rest)
    assert found == arguments
    assert len(source.splitlines()[0]) <= WIDTH + len("display()")


WORDS = (
    '``` ```python </code> <think> </think> Observation: {"code": \' " \\ \n \n\n >>> x = 1'.split(
        " "
    )
)
sources = st.lists(st.sampled_from(WORDS) | texts, min_size=1, max_size=8).map("".join)
sources = sources.map(lambda text: f"x = {text!r}\n# {text.splitlines()[:1]}\nprint(x)\n")
SHAPES = {
    "fence": lambda source: Reply(f"I look.\n\n```python\n{source}```"),
    "tools": lambda source: Reply("", calls=(call("python", code=source),)),
    "json": lambda source: Reply(json.dumps({"thought": "I look.", "code": source})),
}


@pytest.mark.parametrize("shape", SHAPES)
@given(source=sources)
@examples(150)
def test_any_code_comes_out_unchanged_in_every_format(shape: str, source: str) -> None:
    action = read_reply(SHAPES[shape](source), reply_format=shape)  # type: ignore[arg-type]
    assert isinstance(action, RunCode), action
    assert action.source == (source.rstrip() if shape == "fence" else source)


def test_json_without_code_is_the_answer_and_its_thought_is_the_text() -> None:
    text = json.dumps({"thought": "It is 3.", "code": ""})
    assert read_reply(Reply(text), reply_format="json") == Answer("It is 3.", text)


def test_json_may_hold_any_code_and_stays_what_was_said() -> None:
    text = json.dumps({"thought": "I look.", "code": "rain"})
    assert read_reply(Reply(f"<think>hm</think>\n{text}")) == RunCode("I look.", "rain", text)


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ('{"thought": "", "code": ""}', "stop"),
        ('{"thought": "I look.", "code": "pri', "stop"),
        ('{"thought": "I look.", "code": "x = 1"}', "length"),
        ('{"thought": "I look.", "code": "x = 1"} {"thought": "a", "code": "b"}', "stop"),
        ("", "stop"),
    ],
)
def test_json_that_is_not_whole_is_unusable_and_the_form_is_told(text: str, finish: str) -> None:
    action = read_reply(Reply(text, finish_reason=finish), reply_format="json")
    assert isinstance(action, Unusable), action
    assert '{"thought": "…", "code": "…"}' in action.reason
    assert "```" not in action.reason


def test_where_only_text_can_be_calls_are_blocks_of_code() -> None:
    calls = (call("python", code="x = 1"), call("search", query="a"), call("zoom", "{"))
    assert with_calls("I look.", calls) == (
        "I look.\n\n```python\nx = 1\n```\n\n```python\nsearch(query='a')\n```"
        "\n\n```text\nzoom({)\n```"
    )
    assert with_calls("I look.", ()) == "I look."


@given(st.text(max_size=20) | st.builds(json.dumps, values) | st.just('{"a": NaN}'))
@examples(200)
def test_arguments_are_sent_back_as_an_object_and_word_for_word_where_they_are_one(
    arguments: str,
) -> None:
    sent = sent_back(arguments)
    assert isinstance(json.loads(sent), dict)
    assert "NaN" not in sent or arguments in json.loads(sent).values()
    if read_arguments(arguments) not in (None, {}):
        assert sent == arguments or json.loads(sent) == json.loads(arguments, strict=False)
