"""Tests of how a reply is come by, through the real litellm: tries, waits, limits, giving up."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate

import pytest

from kernel_agent.errors import ModelError, ModelUnavailableError
from kernel_agent.events import Event, Listener, ReplyRetried, ReplyText, RequestHeld
from kernel_agent.model import LiteLLM, receiving
from kernel_agent.model.options import Options
from kernel_agent.model.pacing import MINUTE, Pace
from kernel_agent.model.retrying import MAX_ASKED, MAX_WAIT, retry_wait
from kernel_agent.model.waiting import GivenUpError, Waiting
from tests.local_model import MESSAGES, complete, ignore, local_model
from tests.openai_server import (
    Answer,
    CutConnection,
    EmptyChoices,
    MalformedChunk,
    NoGoodbye,
    OpenAIServer,
    Script,
    Stall,
    Status,
    StreamError,
    Trickle,
)

# pydantic's word to litellm, which silences it except where pytest listens.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which take no time but from the deadline."""
    seconds: list[float] = []

    def pause(waiting: Waiting, wait: float) -> None:
        seconds.append(wait)
        waiting.deadline -= wait

    monkeypatch.setattr(Waiting, "pause", pause)
    return seconds


# Trying again

PASSING = [
    Status(408),
    Status(409),
    Status(429),
    Status(500),
    Status(502, "<html><title>502 Bad Gateway</title></html>"),
    Status(503),
    Status(529, "Overloaded"),
    CutConnection(),
    CutConnection(politely=True),
    MalformedChunk(),
    EmptyChoices(),
    StreamError(),
]


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again_and_announced(fault: Script, waits: list[float]) -> None:
    events: list[Event] = []
    with OpenAIServer([fault, "Whole.", fault, "Streamed."]) as server:
        model = local_model(server)
        assert model.complete(MESSAGES).text == "Whole."
        assert model.complete(MESSAGES, events.append).text == "Streamed."
    retried = [event for event in events if isinstance(event, ReplyRetried)]
    assert [(event.wait, event.attempt) for event in retried] == [(waits[1], 1)]
    assert retried[0].reason
    assert "<" not in retried[0].reason
    assert len(waits) == 2


@pytest.mark.parametrize("listener", [None, ignore])
def test_a_provider_that_falls_silent_is_unavailable(listener: Listener | None) -> None:
    with pytest.raises(ModelUnavailableError, match="timed out"):
        complete(Stall(), listener, timeout=0.05)


def test_a_provider_that_stays_away_is_unavailable_in_the_end(waits: list[float]) -> None:
    with OpenAIServer([Status(503, "Come back later.")] * 3) as server:
        model = local_model(server, retries=2)
        with pytest.raises(ModelUnavailableError, match=r"Come back later\. That was try 3 of 3"):
            model.complete(MESSAGES)
    assert len(server.requests) == 3
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7.7),
        ("300", 300, 330),
        ("0", 1, 1.5),
        ("0.05", 1, 1.5),
        ("-1", 1, 1.5),
        ("nan", 1, 1.5),
        ("in a while", 1, 1.5),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 1, 1.5),
    ],
)
def test_the_wait_is_what_the_provider_asks_for_but_not_less_than_our_own(
    header: str, least: float, most: float, waits: list[float]
) -> None:
    with OpenAIServer([Status(429, retry_after=header), "x"]) as server:
        model = local_model(server)
        model.complete(MESSAGES)
    assert least <= waits[0] <= most


def test_the_provider_may_name_a_date(waits: list[float]) -> None:
    date = formatdate(time.time() + 300, usegmt=True)
    with OpenAIServer([Status(429, retry_after=date), "x"]) as server:
        local_model(server).complete(MESSAGES)
    assert 200 <= waits[0] <= 330


def test_a_wait_in_milliseconds_is_more_exact(waits: list[float]) -> None:
    with OpenAIServer([Status(429, retry_after=3, retry_after_ms=2500), "x"]) as server:
        local_model(server).complete(MESSAGES)
    assert 2.5 <= waits[0] <= 2.75


def test_who_asks_for_no_wait_is_not_asked_at_once_again_and_again(waits: list[float]) -> None:
    with OpenAIServer([Status(429, retry_after=0)] * 7) as server:
        with pytest.raises(ModelUnavailableError, match="try 7 of 7"):
            local_model(server).complete(MESSAGES)
        assert len(server.requests) == 7
    assert sum(waits) >= MINUTE


def test_runs_that_are_told_the_same_wait_do_not_come_back_together() -> None:
    assert len({retry_wait(1, 60) for _ in range(20)}) > 1
    assert all(60 <= retry_wait(1, 60) <= 66 for _ in range(20))


def test_the_longest_wait_that_may_be_asked_for_is_waited_for(waits: list[float]) -> None:
    with OpenAIServer([Status(429, retry_after=MAX_ASKED), "x"]) as server:
        local_model(server).complete(MESSAGES)
    assert waits[0] >= MAX_ASKED


def test_a_provider_that_asks_for_too_long_a_wait_is_down(waits: list[float]) -> None:
    with OpenAIServer([Status(429, retry_after=MAX_ASKED + 1), "Not asked for."]) as server:
        with pytest.raises(ModelUnavailableError, match="asks to wait 601 s") as caught:
            local_model(server).complete(MESSAGES)
        assert len(server.requests) == 1
    assert caught.value.retry_after == MAX_ASKED + 1
    assert waits == []


def test_the_deadline_is_for_all_tries_and_waits_together(waits: list[float]) -> None:
    with (
        OpenAIServer([Status(429, retry_after=500)] * 9) as server,
        pytest.raises(ModelUnavailableError, match="too late: `deadline` is 1,200 s"),
    ):
        local_model(server, retries=100, deadline=1200).complete(MESSAGES)
    assert [int(wait) // 100 for wait in waits] == [5, 5]


def test_a_try_that_lasted_to_the_deadline_is_the_last() -> None:
    with OpenAIServer([Stall(), "Not asked for."]) as server:
        with pytest.raises(ModelUnavailableError, match="too late: `deadline`"):
            local_model(server, deadline=0.1).complete(MESSAGES)
        assert len(server.requests) == 1


def test_waits_grow_up_to_a_limit_and_differ_by_chance() -> None:
    for attempt, least in enumerate([1, 2, 4, 8, 16, 32, 64, 80, 80], start=1):
        waits = {retry_wait(attempt, 0) for _ in range(20)}
        assert least <= min(waits) < max(waits) <= min(1.5 * least, MAX_WAIT)


def test_the_tries_that_there_are_by_default_ride_out_a_limit_per_minute() -> None:
    for _ in range(100):
        assert sum(retry_wait(attempt, 0) for attempt in range(1, Options.retries + 1)) >= MINUTE


# Limits

SILENT: list[Script] = [Stall(), Stall(""), Trickle()]


@pytest.mark.parametrize(
    "name",
    [
        "openai/local",
        pytest.param("anthropic/claude-local", marks=pytest.mark.slow),
        pytest.param("gemini/local", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("listener", [None, ignore])
@pytest.mark.parametrize("script", SILENT)
def test_no_request_lasts_longer_than_its_deadline_and_its_connection_is_closed(
    script: Script, listener: Listener | None, name: str
) -> None:
    with OpenAIServer([script]) as server:
        model = local_model(server, name, deadline=0.1, retries=0)
        with pytest.raises(ModelUnavailableError, match=r"complete in 0\.1 s"):
            model.complete(MESSAGES, listener)
        assert server.hung_up.wait(5)


@pytest.mark.parametrize("script", [Stall("Wait"), Trickle("Wait")])
def test_a_stream_that_stalls_is_closed_and_tried_again(script: Script, waits: list[float]) -> None:
    events: list[Event] = []
    with OpenAIServer([script, "Done."]) as server:
        reply = local_model(server, stall=0.1).complete(MESSAGES, events.append)
        assert server.hung_up.wait(5)
    assert reply.text == "Done."
    [retried] = [event for event in events if isinstance(event, ReplyRetried)]
    assert retried.reason == "it fell silent for 0.1 s."


def test_before_the_first_words_a_stream_may_be_silent_for_longer() -> None:
    with pytest.raises(ModelUnavailableError, match="complete in"):
        complete(Trickle(""), ignore, stall=0.01, deadline=0.1)


def test_a_complete_reply_counts_though_the_connection_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiving, "AFTER_END", 0.05)
    reply = complete(NoGoodbye("Done."), ignore)
    assert (reply.text, reply.finish_reason) == ("Done.", "stop")
    assert reply.usage.completion_tokens > 0


# Empty replies


@pytest.mark.parametrize("listener", [None, ignore])
def test_an_empty_reply_is_asked_again_and_its_usage_counts(listener: Listener | None) -> None:
    events: list[Event] = []
    tell = events.append if listener else None
    with OpenAIServer([Answer(""), Answer(" \n", reasoning="Hm."), "Done."]) as server:
        reply = local_model(server).complete(MESSAGES, tell)
    assert reply.text == "Done."
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (300, 60)
    retried = [event for event in events if isinstance(event, ReplyRetried)]
    expected = [("the reply is empty.", 0.0, 1), ("the reply is empty.", 0.0, 2)]
    assert [(e.reason, e.wait, e.attempt) for e in retried] == (expected if listener else [])


def test_the_third_empty_reply_is_returned_as_it_is() -> None:
    with OpenAIServer([Answer("")] * 4) as server:
        reply = local_model(server).complete(MESSAGES)
        assert len(server.requests) == 3
    assert (reply.text, reply.usage.prompt_tokens) == ("", 300)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_empty_reply_with_a_reason_is_not_asked_again(reason: str) -> None:
    with OpenAIServer([Answer("", finish_reason=reason), "Not asked for."]) as server:
        assert local_model(server).complete(MESSAGES).finish_reason == reason
        assert len(server.requests) == 1


def test_an_empty_reply_that_was_paid_for_outlives_an_error_after_it() -> None:
    with OpenAIServer([Answer(""), Status(401)]) as server:
        reply = local_model(server).complete(MESSAGES)
    assert (reply.text, reply.usage.prompt_tokens) == ("", 100)


# Requests per minute


def test_of_any_minute_no_more_requests_begin_than_are_wanted() -> None:
    pace = Pace(2)
    first, second, third, fourth, fifth = (pace.reserve() for _ in range(5))
    assert (third, fourth, fifth) == (first + MINUTE, second + MINUTE, third + MINUTE)


def test_a_request_that_is_not_sent_leaves_its_place() -> None:
    pace = Pace(2)
    first, second = pace.reserve(), pace.reserve()
    pace.release(second)
    assert pace.reserve() < first + MINUTE


def test_requests_are_held_and_told_so_retries_and_other_threads_included(
    waits: list[float],
) -> None:
    events: list[Event] = []
    with OpenAIServer([Status(503, retry_after=0), "one", "two"]) as server:
        model = local_model(server, requests_per_minute=1)
        thread = threading.Thread(target=model.complete, args=(MESSAGES,))
        thread.start()
        thread.join(10)
        assert waits[0] <= 1.5, "the wait for the other try"
        model.complete(MESSAGES, events.append)
    [held] = [event for event in events if isinstance(event, RequestHeld)]
    assert held.wait == waits[2]
    assert MINUTE - 10 < waits[1] <= MINUTE < 2 * MINUTE - 10 < waits[2] <= 2 * MINUTE
    assert held.reason == "`requests_per_minute` is 1."


# Giving up


def raised_in_thread(model: LiteLLM, listener: Listener, cancel_at: threading.Event) -> ModelError:
    """What `complete` raises in a thread that is told to give up once `cancel_at` is set."""
    raised: list[ModelError] = []

    def ask() -> None:
        try:
            model.complete(MESSAGES, listener)
        except ModelError as error:
            raised.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert cancel_at.wait(5)
    assert thread.ident is not None
    model.cancel(thread.ident)
    thread.join(5)
    assert not thread.is_alive()
    return raised[0]


@pytest.mark.parametrize(
    ("script", "options", "moment"),
    [
        (Stall("Wait"), {}, ReplyText),
        (Status(429, retry_after=100), {}, ReplyRetried),
        ("Done.", {"requests_per_minute": 1}, RequestHeld),
    ],
)
def test_whatever_a_request_waits_for_it_can_be_given_up(
    script: Script, options: dict[str, int], moment: type[Event]
) -> None:
    seen = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, moment):
            seen.set()

    with OpenAIServer(["First.", script]) as server:
        model = local_model(server, **options)
        model.complete(MESSAGES, ignore)
        assert isinstance(raised_in_thread(model, listen, seen), GivenUpError)
        assert not isinstance(script, Stall) or server.hung_up.wait(5)


def test_giving_up_does_nothing_to_those_who_ask_for_nothing() -> None:
    with OpenAIServer(["Done."]) as server:
        model = local_model(server)
        model.cancel(threading.get_ident())
        assert model.complete(MESSAGES).text == "Done."


# Who listens may stop it


class StopListeningError(Exception):
    pass


def test_a_listener_that_raises_closes_the_connection_and_is_not_tried_again() -> None:
    def stop(event: Event) -> None:
        raise StopListeningError

    with OpenAIServer([Stall(), "Not asked for."]) as server:
        with pytest.raises(StopListeningError):
            local_model(server).complete(MESSAGES, stop)
        assert server.hung_up.wait(5)
        assert len(server.requests) == 1


def test_a_listener_may_stop_the_tries() -> None:
    def stop(event: Event) -> None:
        raise StopListeningError

    with OpenAIServer([Status(503), "Not asked for."]) as server:
        with pytest.raises(StopListeningError):
            local_model(server).complete(MESSAGES, stop)
        assert len(server.requests) == 1


def test_a_listener_may_stop_a_request_that_is_held() -> None:
    def stop(event: Event) -> None:
        if isinstance(event, RequestHeld):
            raise StopListeningError

    with OpenAIServer(["one", "Not asked for."]) as server:
        model = local_model(server, requests_per_minute=1)
        model.complete(MESSAGES, stop)
        with pytest.raises(StopListeningError):
            model.complete(MESSAGES, stop)
        assert len(server.requests) == 1
