"""Tests of the scripted model."""

from __future__ import annotations

import pytest

from kernel_agent.errors import ModelError
from kernel_agent.events import Event, ReplyText
from kernel_agent.steps import Reply, Usage
from kernel_agent.testing import ScriptedModel

MESSAGES = [{"role": "user", "content": "Hello"}]


def test_replies_come_in_order_and_a_text_stands_for_a_reply() -> None:
    second = Reply("two", reasoning="Hm.", finish_reason="length", usage=Usage(prompt_tokens=3))
    model = ScriptedModel(["one", second])
    assert [model.complete(MESSAGES), model.complete(MESSAGES)] == [Reply("one"), second]


def test_what_was_asked_is_recorded_as_it_was_at_the_time() -> None:
    model = ScriptedModel(["one", "two"])
    messages = list(MESSAGES)
    model.complete(messages)
    messages.append({"role": "assistant", "content": "one"})
    model.complete(messages)
    assert model.requests == [MESSAGES, messages]


def test_a_script_that_has_ended_says_how_long_it_was() -> None:
    model = ScriptedModel(["one", "two"], name="short")
    model.complete(MESSAGES)
    model.complete(MESSAGES)
    with pytest.raises(ModelError, match=r"'short'.*reply 3 was asked for.*there are 2\."):
        model.complete(MESSAGES)


@pytest.mark.parametrize("text", ["one two", "  x = 1\n\n\ty\n", "\n \n", "", "Grüße, 世界 🎉"])
def test_the_streamed_pieces_are_the_reply(text: str) -> None:
    events: list[Event] = []
    ScriptedModel([Reply(text, reasoning=text)]).complete(MESSAGES, events.append)
    pieces = [event for event in events if isinstance(event, ReplyText)]
    assert pieces == events
    assert "".join(piece.text for piece in pieces if piece.reasoning) == text
    assert "".join(piece.text for piece in pieces if not piece.reasoning) == text


def test_a_paced_reply_comes_word_by_word() -> None:
    events: list[Event] = []
    ScriptedModel(["I will look."], pace=1e6).complete(MESSAGES, events.append)
    assert events == [ReplyText("I"), ReplyText(" will"), ReplyText(" look.")]


def test_it_says_what_it_is() -> None:
    assert ScriptedModel([]).about() == {"name": "scripted", "parameters": {}}
