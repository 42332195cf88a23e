"""What the model is sent of calls, reasoning and images, natively and as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.steps import (
    CellResult,
    Entry,
    Message,
    Note,
    Observation,
    Plan,
    Reply,
    RequestedCall,
    Step,
    Task,
    user_message,
)
from kernel_agent.transcript.messages import FIGURES, NOT_RUN, TOGETHER, messages_of
from tests.examples import examples

PNG = "data:image/png;base64,iVBORw0KGgo="
RUN = RequestedCall("c1", "python", '{"code": "x = 1\\nx"}', {"sign": {"b": 1, "a": 2}})
SEARCH = RequestedCall("c2", "search", '{"query": "a"}')
BROKEN = RequestedCall("c3", "search", '{"query": ')
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "s"}
TASK = Task("What?", "What?")


def step(
    *calls: RequestedCall,
    said: str = "I look.",
    seen: str | None = "1",
    images: tuple[str, ...] = (),
    **facts: Any,
) -> Step:
    reply = Reply(said, calls=calls, **facts)
    observation = None if seen is None else Observation(seen, images)
    return Step(reply, said, said, CellResult("x"), observation)


def native(*entries: Entry) -> list[Message]:
    return messages_of("Be brief.", entries, native=True)[1:]


def asked(one: RequestedCall, **extra: Any) -> dict[str, Any]:
    function = {"name": one.name, "arguments": one.arguments}
    return {**extra, "id": one.id, "type": "function", "function": function}


def test_a_call_is_sent_back_with_its_answer() -> None:
    assert native(TASK, step(RUN)) == [
        {"role": "user", "content": "What?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [asked(RUN, sign={"a": 2, "b": 1})],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]


def test_a_call_without_words_has_no_empty_content() -> None:
    assert native(step(RUN, said=""))[0]["content"] is None


def test_reasoning_goes_back_with_its_signed_blocks() -> None:
    [said, _] = native(step(RUN, reasoning="hm", signed=(SIGNED,)))
    assert (said["reasoning_content"], said["thinking_blocks"]) == ("hm", [SIGNED])


def test_the_last_of_several_calls_has_the_observation() -> None:
    results = native(step(RUN, SEARCH))[1:]
    assert [one["tool_call_id"] for one in results] == ["c1", "c2"]
    assert [one["content"] for one in results] == [TOGETHER, "1"]


def test_calls_that_were_not_run_are_answered_too() -> None:
    results = native(step(RUN, SEARCH, seen=None), Task("More", "More"))[1:]
    assert [one["role"] for one in results] == ["tool", "tool", "user"]
    assert [one["content"] for one in results] == [NOT_RUN, NOT_RUN, "More"]


def test_arguments_that_are_no_object_are_sent_back_as_one() -> None:
    [call] = native(step(BROKEN))[0]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"unreadable": '{"query": '}


def test_images_follow_all_tool_messages_and_what_is_said_next() -> None:
    messages = native(step(RUN, SEARCH, images=(PNG,)), Note("Go on."), Task("More", "More"))
    assert [one["role"] for one in messages] == ["assistant", "tool", "tool", "user"]
    assert messages[-1] == user_message(f"{FIGURES}\n\nGo on.\n\nMore", (PNG,))


def test_a_reply_in_text_is_sent_as_text_natively_too() -> None:
    assert native(step(seen="1", images=(PNG,))) == [
        {"role": "assistant", "content": "I look."},
        user_message("1", (PNG,)),
    ]


def test_calls_in_a_plan_are_not_sent_back_for_nothing_of_it_was_run() -> None:
    plan = Plan(Reply("", calls=(RUN,)), "(no plan)", "Plan.", "Go on.")
    assert [one["role"] for one in native(plan)] == ["user", "assistant", "user"]
    assert "tool_calls" not in native(plan)[1]


def test_as_text_calls_are_blocks_and_reasoning_is_left_out() -> None:
    entries = (step(RUN, SEARCH, reasoning="hm", signed=(SIGNED,), images=(PNG,)),)
    assert messages_of("", entries)[1:] == [
        {
            "role": "assistant",
            "content": "I look.\n\n```python\nx = 1\nx\n```\n\n```python\nsearch(query='a')\n```",
        },
        user_message("1", (PNG,)),
    ]


def test_parts_of_any_kind_stay_when_messages_become_one() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}

    class Odd(Note):
        def messages(self) -> tuple[Message, ...]:
            return ({"role": "user", "content": [{"type": "text", "text": "a"}, sound]},)

    [message] = native(Odd("a"), Note("b"))
    assert message["content"] == [{"type": "text", "text": "a\n\nb"}, sound]


entries = st.lists(
    st.sampled_from(
        [
            TASK,
            Note("told"),
            Plan(Reply("p"), "p", "Plan.", "Go on."),
            step(RUN),
            step(RUN, SEARCH, BROKEN, said="", images=(PNG,)),
            step(RUN, seen=None),
            step(images=(PNG,)),
            step(said="It is 1.", seen=None),
        ]
    ),
    max_size=8,
)


@pytest.mark.parametrize("is_native", [False, True])
@given(before=entries, after=entries)
@examples(100)
def test_each_call_is_answered_at_once_and_what_was_sent_stays_as_it_was(
    is_native: bool, before: list[Entry], after: list[Entry]
) -> None:
    messages = messages_of("s", [*before, *after], native=is_native)
    wanted: list[str] = []
    for message, following in zip(messages, [*messages[1:], None], strict=True):
        assert message["content"] or message.get("tool_calls")
        if message["role"] == "tool":
            assert message["tool_call_id"] == wanted.pop(0)
        else:
            assert not wanted
        wanted += [one["id"] for one in message.get("tool_calls", [])]
        assert not (following and message["role"] == following["role"] == "user")
    assert not wanted
    if after and isinstance(after[0], Step):  # its reply is asked for with what was before it
        sent = messages_of("s", before, native=is_native)
        assert json.dumps(messages[: len(sent)]) == json.dumps(sent)
