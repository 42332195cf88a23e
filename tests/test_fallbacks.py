"""Tests of models that stand in for one that is down, through the real litellm."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kernel_agent.errors import (
    ContextWindowExceededError,
    ModelAuthenticationError,
    ModelError,
    ModelUnavailableError,
)
from kernel_agent.events import Event, ModelChanged, ReplyRetried, ReplyText
from kernel_agent.model import Fallbacks, LiteLLM, fallbacks, reply_format, window
from kernel_agent.model.counting import paid_until
from kernel_agent.model.waiting import GivenUpError, Waiting
from kernel_agent.steps import Message, Usage
from tests.local_model import KEY, MESSAGES, ignore, local_model
from tests.openai_server import CutConnection, OpenAIServer, Script, Stall, Status

# pydantic's word to litellm, which silences it except where pytest listens.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the")

DOWN = Status(503, "Closed.", retry_after=0)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries."""
    monkeypatch.setattr(Waiting, "pause", lambda waiting, seconds: None)


def changes(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.model, event.reason) for event in events if isinstance(event, ModelChanged)]


def test_when_one_stays_down_the_next_is_asked_and_named_in_the_reply() -> None:
    events: list[Event] = []
    with OpenAIServer([DOWN, DOWN]) as one, OpenAIServer(["Two.", "Two again."]) as two:
        model = Fallbacks(
            [local_model(one, "openai/one", retries=1), local_model(two, "openai/two")]
        )
        first = model.complete(MESSAGES, events.append)
        second = model.complete(MESSAGES, events.append)
        assert (len(one.requests), len(two.requests)) == (2, 2), "the one that answered is kept"
    assert (first.text, first.model) == ("Two.", "openai/two")
    assert (second.text, second.model) == ("Two again.", "openai/two")
    assert changes(events) == [("openai/two", "Closed. That was try 2 of 2.")]
    kinds = [type(event) for event in events]
    assert kinds.index(ReplyRetried) < kinds.index(ModelChanged) < kinds.index(ReplyText)
    assert first.usage.model_seconds > 0


def test_a_reply_of_the_first_names_no_model() -> None:
    events: list[Event] = []
    with OpenAIServer(["One."]) as one:
        model = Fallbacks([local_model(one, "openai/one"), "openai/two"])
        assert model.complete(MESSAGES, events.append).model == ""
    assert model.name == "openai/one"
    assert changes(events) == []


def test_after_a_while_the_first_is_asked_again_with_one_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fallbacks, "TRY_FIRST_AGAIN", 0.0)
    events: list[Event] = []
    with OpenAIServer([DOWN, DOWN, DOWN, "Back."]) as one, OpenAIServer(["2", "2"]) as two:
        model = Fallbacks(
            [local_model(one, "openai/one", retries=1), local_model(two, "openai/two")]
        )
        names = [model.complete(MESSAGES, events.append).model for _ in range(3)]
        assert (len(one.requests), len(two.requests)) == (4, 2)
    assert names == ["openai/two", "openai/two", ""]
    assert [name for name, _ in changes(events)] == [
        "openai/two",
        "openai/one",
        "openai/two",
        "openai/one",
    ]
    assert "asked again" in changes(events)[1][1]


def test_when_a_fallback_goes_down_too_the_first_and_then_the_rest_are_asked() -> None:
    events: list[Event] = []
    with (
        OpenAIServer([DOWN] * 3) as one,
        OpenAIServer(["Two.", DOWN, DOWN]) as two,
        OpenAIServer(["Three."]) as three,
    ):
        servers = {"openai/one": one, "openai/two": two, "openai/three": three}
        model = Fallbacks([local_model(s, name, retries=1) for name, s in servers.items()])
        replies = [model.complete(MESSAGES, events.append) for _ in range(2)]
        assert [len(server.requests) for server in servers.values()] == [3, 3, 1]
    assert [reply.model for reply in replies] == ["openai/two", "openai/three"]
    assert [name for name, _ in changes(events)] == ["openai/two", "openai/one", "openai/three"]


def test_when_all_are_down_the_reasons_of_all_are_told() -> None:
    with OpenAIServer([DOWN]) as one, OpenAIServer([Status(500, "Broken.", retry_after=0)]) as two:
        model = Fallbacks(
            [local_model(one, "openai/one", retries=0), local_model(two, "openai/two", retries=0)]
        )
        with pytest.raises(ModelUnavailableError) as caught:
            model.complete(MESSAGES)
    assert str(caught.value).startswith("Model 'openai/one': Closed.")
    assert "'openai/two': Broken." in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status(401, "Bad key."), ModelAuthenticationError),
        (Status(400, "Long.", "context_length_exceeded"), ContextWindowExceededError),
        (Status(400, "Odd."), ModelError),
    ],
)
def test_what_is_not_down_is_not_replaced(status: Status, kind: type[ModelError]) -> None:
    with OpenAIServer([status]) as one, OpenAIServer(["Not asked for."]) as two:
        model = Fallbacks([local_model(one), local_model(two, "openai/two")])
        with pytest.raises(ModelError) as caught:
            model.complete(MESSAGES)
        assert two.requests == []
    assert type(caught.value) is kind


def test_the_keys_of_all_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    model = Fallbacks([LiteLLM("openai/gpt-4o", api_key=KEY), "anthropic/claude-sonnet-4-5"])
    with pytest.raises(ModelAuthenticationError, match=r"anthropic/claude.*ANTHROPIC_API_KEY"):
        model.check()


# What all have in common


def test_all_are_asked_in_a_format_that_all_have() -> None:
    tools = [LiteLLM("openai/a", reply_format="tools"), LiteLLM("openai/b", reply_format="tools")]
    mixed = [LiteLLM("openai/a", reply_format="tools"), LiteLLM("openai/b", reply_format="json")]
    assert reply_format(Fallbacks(tools)) == "tools"
    assert reply_format(Fallbacks(mixed)) == "fence"


def test_a_model_that_guarantees_json_writes_fences_if_the_other_does() -> None:
    with OpenAIServer([DOWN]) as one, OpenAIServer(["Two."]) as two:
        model = Fallbacks(
            [
                local_model(one, "openai/one", retries=0, reply_format="json"),
                local_model(two, "openai/two", reply_format="fence"),
            ]
        )
        model.complete(MESSAGES)
        assert "response_format" not in one.requests[0].body
        assert "response_format" not in two.requests[0].body


def test_the_window_is_the_smallest_that_is_known() -> None:
    sizes: list[int | None] = [9000, None, 5000]
    models = [LiteLLM("openai/unknown", window=size) for size in sizes]
    assert window(Fallbacks(models)) == 5000
    assert window(Fallbacks(["openai/unknown"])) is None


def test_the_price_is_that_of_the_model_that_is_asked() -> None:
    usage = Usage(1000, 100)
    expensive, cheap = LiteLLM("openai/gpt-4o"), LiteLLM("openai/gpt-4o-mini")
    with OpenAIServer([DOWN]) as one, OpenAIServer(["Two."]) as two:
        model = Fallbacks(
            [
                local_model(one, "openai/gpt-4o", retries=0),
                local_model(two, "openai/gpt-4o-mini"),
            ]
        )
        assert model.price(usage) == expensive.price(usage)
        assert model.complete(MESSAGES).usage.cost is not None
        assert model.price(usage) == cheap.price(usage) != expensive.price(usage)


def test_a_model_that_takes_no_images_is_told_where_one_was() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    video = {"type": "image_url", "image_url": {"url": "data:video/mp4;base64,AAAA"}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    messages: list[Message] = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Look."}, image, video, sound]},
    ]
    with OpenAIServer([DOWN]) as one, OpenAIServer(["Two."]) as two:
        model = Fallbacks(
            [local_model(one, "openai/gpt-4o", retries=0), local_model(two, "openai/unknown")]
        )
        assert model.takes_images
        model.complete(messages)
        assert image in one.requests[0].body["messages"][1]["content"]
        sent = two.requests[0].body["messages"]
    assert [part["text"] for part in sent[1]["content"]] == [
        "Look.",
        "[figure]",
        "[video]",
        "[audio]",
    ]
    assert sent[0] == messages[0]


def test_about_tells_of_all_and_makes_them_again() -> None:
    model = Fallbacks([LiteLLM("openai/a", temperature=0.5, api_key=KEY), "ollama/b"])
    first = {"name": "openai/a", "parameters": {"temperature": 0.5}}
    assert model.about() == {**first, "fallbacks": [{"name": "ollama/b", "parameters": {}}]}
    assert pickle.loads(pickle.dumps(model)).about() == model.about()


def test_functions_can_stand_in() -> None:
    def echo(messages: list[Message]) -> str:
        return str(messages[-1]["content"])

    with OpenAIServer([DOWN]) as one:
        model = Fallbacks([local_model(one, retries=0), echo])
        reply = model.complete([{"role": "user", "content": "Hello"}], ignore)
    assert (reply.text, reply.model) == ("Hello", "echo")


def test_what_a_fallback_is_asked_can_be_given_up() -> None:
    seen, raised = threading.Event(), list[BaseException]()

    def listen(event: Event) -> None:
        if isinstance(event, ReplyText):
            seen.set()

    with OpenAIServer([DOWN]) as one, OpenAIServer([Stall("Wait")]) as two:
        model = Fallbacks([local_model(one, retries=0), local_model(two, "openai/two")])
        thread = threading.Thread(target=raising(model, listen, raised), daemon=True)
        thread.start()
        assert seen.wait(5)
        assert thread.ident is not None
        model.cancel(thread.ident)
        thread.join(5)
        assert two.hung_up.wait(5)
    assert isinstance(raised[0], GivenUpError)


def test_who_gives_up_between_two_models_asks_no_other() -> None:
    with OpenAIServer([DOWN]) as one, OpenAIServer(["Not asked for."]) as two:
        model = Fallbacks([local_model(one, retries=0), local_model(two, "openai/two")])

        def listen(event: Event) -> None:
            if isinstance(event, ModelChanged):
                model.cancel(threading.get_ident())

        with pytest.raises(GivenUpError):
            model.complete(MESSAGES, listen)
        assert two.requests == []


def test_what_the_first_was_paid_in_vain_counts() -> None:
    with OpenAIServer([CutConnection("word " * 200)]) as one, OpenAIServer(["Two."]) as two:
        model = Fallbacks([local_model(one, retries=0), local_model(two, "openai/two")])
        reply = model.complete(MESSAGES, ignore)
    assert reply.usage.completion_tokens > 20 + 150


@pytest.mark.parametrize(
    ("last", "kind"),
    [(Status(401), ModelAuthenticationError), (CutConnection("A"), ModelUnavailableError)],
)
def test_what_was_paid_in_vain_is_told_by_the_error(last: Script, kind: type[ModelError]) -> None:
    with OpenAIServer([CutConnection("word " * 200)]) as one, OpenAIServer([last]) as two:
        models = [local_model(one, retries=0), local_model(two, "openai/two", retries=0)]
        with pytest.raises(kind) as caught:
            Fallbacks(models).complete(MESSAGES, ignore)
    assert paid_until(caught.value).completion_tokens > 150


def test_who_is_given_up_between_two_models_is_told_what_was_paid() -> None:
    with OpenAIServer([CutConnection("word " * 200)]) as one:
        model = Fallbacks([local_model(one, retries=0), "openai/two"])

        def listen(event: Event) -> None:
            if isinstance(event, ModelChanged):
                model.cancel(threading.get_ident())

        with pytest.raises(GivenUpError) as caught:
            model.complete(MESSAGES, listen)
    assert paid_until(caught.value).completion_tokens > 150


def test_a_listener_may_ask_the_same_models() -> None:
    texts: list[str] = []
    with OpenAIServer(["Outer.", "Inner."]) as one:
        model = Fallbacks([local_model(one)])

        def listen(event: Event) -> None:
            if isinstance(event, ReplyText) and not texts:
                texts.append("")
                texts.append(model.complete(MESSAGES).text)

        assert model.complete(MESSAGES, listen).text == "Outer."
    assert texts[1] == "Inner."


def raising(
    model: Fallbacks, listener: Callable[[Event], None], raised: list[BaseException]
) -> Callable[[], Any]:
    def ask() -> None:
        try:
            model.complete(MESSAGES, listener)
        except ModelError as error:
            raised.append(error)

    return ask


def test_no_models_are_no_model() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Fallbacks([])
