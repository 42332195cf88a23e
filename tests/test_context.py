"""The model's window: how full it is, where a run is cut, and what the model is shown then."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent import Agent
from kernel_agent.context import IMAGE_TOKENS, Marks, marks, next_tokens, tokens_of, where_to_cut
from kernel_agent.errors import ContextWindowExceededError, ModelUnavailableError
from kernel_agent.making_room import make_room
from kernel_agent.model import LiteLLM
from kernel_agent.prompts import Prompts
from kernel_agent.steps import (
    CellResult,
    Cut,
    Entry,
    Message,
    Note,
    Observation,
    Plan,
    Reply,
    RequestedCall,
    Step,
    Task,
    Usage,
    UserCell,
)
from kernel_agent.tools import output_reader
from kernel_agent.transcript.messages import messages_of
from tests.examples import examples
from tests.openai_server import Answer, OpenAIServer, Request, Script, Status

PNG = "data:image/png;base64,iVBORw0KGgo="
SYSTEM = "You solve tasks. read_output(step) returns a step's whole output."
TASK = Task("Which month is the wettest?", "Which month is the wettest?", (PNG,))


def step(number: int, size: int = 2000, *, native: bool = False, **changes: Any) -> Step:
    """A step whose observation has about `size` characters."""
    shown = f"{number} word " * (size // 7) + f"\nVariables: x{number}: int"
    code = f"x{number} = look({number})"
    output = {"output_type": "stream", "name": "stdout", "text": shown}
    result = CellResult(code, outputs=(output,), variables={f"x{number}": "int"})
    said = f"I look at {number}.\n```python\n{code}\n```"
    reply = Reply(said)
    if native:
        said = f"I look at {number}."
        call = RequestedCall(f"call-{number}", "python", json.dumps({"code": code}))
        reply = Reply(said, calls=(call,))
    made = Step(reply, said, f"I look at {number}.", result, Observation(shown))
    return replace(made, **changes)


def real_tokens(messages: Sequence[Message]) -> int:
    """What a provider might count: fewer than the cautious estimate."""
    return len(json.dumps(messages, ensure_ascii=False)) // 4


def summary(messages: list[Message]) -> Reply:
    return Reply("June had 42.7 mm.", usage=Usage(real_tokens(messages), 10))


def room(entries: Sequence[Entry], window: int | None = 8000, **options: Any) -> Cut | None:
    given = {"system": SYSTEM, "reply_format": "fence", "prompts": Prompts(), "ask": summary}
    return make_room(entries, window=window, **given | options)


def text_of(messages: Sequence[Message]) -> str:
    return json.dumps(messages, ensure_ascii=False)


# How many tokens there are

LANGUAGES = [  # with what a tokenizer of 100,000 words makes of it, as tiktoken's cl100k counts
    ("The rows have one date each, so I sum the amounts by month. ", 14),
    ("我们把每个月的金额加起来，然后和前一年比较，看看哪个月的降雨量最多。", 37),
    ("月ごとの金額を合計し、前年と比較して、どの月の雨量が最も多いかを調べます。", 41),
    ("월별 금액을 합산하여 전년과 비교하고 어느 달에 비가 가장 많이 왔는지 알아봅니다. ", 49),
    ("Мы складываем суммы по месяцам и сравниваем их с прошлым годом. ", 34),
    ("نجمع المبالغ حسب الشهر ونقارنها بالعام السابق لمعرفة أي شهر كان الأكثر مطرا. ", 54),
    ("हम महीने के अनुसार राशियों को जोड़ते हैं और पिछले वर्ष से तुलना करते हैं। ", 71),
    ("เรารวมยอดเงินตามเดือนและเปรียบเทียบกับปีก่อน ", 39),
    ("Αθροίζουμε τα ποσά ανά μήνα και τα συγκρίνουμε με το προηγούμενο έτος. ", 61),
    ("😀🚀🧑‍🔬🌧️🎉🦄", 23),
    ('[{"a": 0, "b": [0, {"c": "x"}]}, {"a": 1, "b": [1, {"c": "x"}]}]', 40),
    ("=-=-{}[]();:'\"/\\|<>?!@#$%^&*", 16),
    ("0.14285714 12.345678 -3.00000001\n" * 9, 9 * 26),  # some models take each digit for one
]


@pytest.mark.parametrize(("text", "tokens"), LANGUAGES)
def test_an_estimate_is_never_below_what_a_tokenizer_makes_of_a_text(
    text: str, tokens: int
) -> None:
    assert tokens <= tokens_of(text) <= 3 * tokens


def test_an_image_counts_the_same_however_long_its_data_are() -> None:
    small, large = (Task("", "Look.", (PNG + "A" * size,)).messages() for size in (4, 400_000))
    assert tokens_of(small) == tokens_of(large)
    assert IMAGE_TOKENS < tokens_of(small) < IMAGE_TOKENS + 20


def test_the_provider_s_own_count_is_taken_for_what_it_has_counted() -> None:
    counted = step(1, reply=Reply("r", usage=Usage(5000, 100)))
    messages = messages_of(SYSTEM, [TASK, counted])
    new = tokens_of(messages[-1:])
    assert 5100 < next_tokens(messages, [TASK, counted]) <= 5100 + new
    note = Note("word " * 100)
    more = next_tokens(messages_of(SYSTEM, [TASK, counted, note]), [TASK, counted, note])
    assert more > next_tokens(messages, [TASK, counted]) + 100


def test_reasoning_that_is_not_sent_back_does_not_count() -> None:
    usage = Usage(5000, 3000, reasoning_tokens=2900)
    entries = [TASK, step(1, reply=Reply("r", "hm", usage=usage))]
    messages = messages_of(SYSTEM, entries)
    assert next_tokens(messages, entries) < 7000
    sent_back = messages_of(SYSTEM, entries, native=True)
    assert next_tokens(sent_back, entries) > 8000


@pytest.mark.parametrize("usage", [Usage(), Usage(10, 5)])
def test_a_count_that_is_missing_or_leaves_out_most_is_not_believed(usage: Usage) -> None:
    entries = [TASK, step(1), step(2, reply=Reply("r", usage=usage))]
    messages = messages_of(SYSTEM, entries)
    assert next_tokens(messages, entries) == tokens_of(messages)


def test_a_count_from_before_a_cut_says_nothing_of_what_is_sent_after_it() -> None:
    entries = [TASK, step(1, reply=Reply("r", usage=Usage(90_000, 5))), Cut(2)]
    messages = messages_of(SYSTEM, entries)
    assert next_tokens(messages, entries) == tokens_of(messages)


# Where to cut


def cost(whole: int = 100, line: int = 10, summarised: int = 30, base: int = 50) -> Any:
    """Tokens of ten steps at the places 1 to 10, behind a task."""

    def tokens(shortened: int, gone: int) -> int:
        kept = [line if place < shortened else whole for place in range(1, 11) if place >= gone]
        return base + sum(kept) + (summarised if gone else 0)

    return tokens


STEPS = range(1, 11)


@pytest.mark.parametrize(
    ("tokens", "bounds", "cut"),
    [
        # Shortening is enough, and no more is shortened than is needed.
        (cost(), Marks(800, 400, 1000), (8, 0)),
        (cost(), Marks(1600, 800, 2000), (4, 0)),
        # Lines alone would take too much: half of the room is for whole steps.
        (cost(line=90), Marks(800, 400, 1000), (9, 9)),
        (cost(whole=50, line=40), Marks(400, 200, 500), (9, 9)),
        # Two whole steps would fill it, one does not.
        (cost(whole=400), Marks(800, 400, 1000), (10, 0)),
        # Two would leave no room for the next one: then the next request would be cut again.
        (cost(whole=250), Marks(800, 400, 1000), (10, 0)),
        (cost(whole=200), Marks(800, 400, 1000), (9, 0)),
        # Not even one whole step has room.
        (cost(whole=1000), Marks(800, 400, 1000), (11, 0)),
    ],
)
def test_old_observations_go_first_then_old_steps_and_the_newest_stay(
    tokens: Any, bounds: Marks, cut: tuple[int, int]
) -> None:
    assert where_to_cut(STEPS, 11, tokens, bounds=bounds) == cut


def test_a_cut_goes_on_from_the_one_before() -> None:
    assert where_to_cut(STEPS, 11, cost(), bounds=Marks(800, 400, 1000), before=(9, 3)) == (9, 3)


def test_marks_leave_room_for_the_reply() -> None:
    assert marks(32_000) == Marks(full=22_400, aim=11_200, most=28_000)
    assert marks(200_000).most == 196_000
    assert marks(1).most == 1


# What is shown after a cut


def test_an_observation_before_the_cut_becomes_a_line_that_says_how_to_read_it() -> None:
    failed = CellResult(
        "1/0",
        "error",
        ({"output_type": "error", "ename": "ValueError", "evalue": "\x1b[31mfirst\nlast\n"},),
        reason="It was slow.",
        variables={"a": "int", "b": "DataFrame 3×4"},
    )
    entries: list[Entry] = [
        Task("One", "One"),
        step(1, observation=Observation("x" * 20_431, (PNG, PNG))),
        Task("Two", "Two"),
        step(1),
        step(2, result=failed, refused="Too small."),
        step(3),
        Cut(5),
    ]
    texts = [message["content"] for message in messages_of(SYSTEM, entries)]
    assert texts[3] == (
        "[step 1: 20,431 characters and 2 images were shown here. "
        "read_output(1, task=1) returns the output. Variables: x1]\n\nTwo"
    )
    assert texts[7] == (
        f"[step 2: {len(step(1).observation.text):,} characters were shown here. "  # type: ignore[union-attr]
        "read_output(2, task=2) returns the output. ValueError: last It was slow. "
        "Refused: Too small. Variables: a, b]"
    )
    assert texts[9] == step(3).observation.text  # type: ignore[union-attr]


def test_the_line_names_the_call_that_gives_the_output() -> None:
    entries = [Task("1", "1"), step(1), step(2), Task("2", "2"), step(3)]
    tool = output_reader(lambda: entries)
    for number, task, name in ((2, 1, "2 word"), (1, 2, "3 word"), (1, None, "3 word")):
        assert str(tool.call(number, task=task)).startswith(name)
    with pytest.raises(ValueError, match="There is no task 3"):
        tool.call(1, task=3)


def test_read_output_is_named_only_to_a_model_that_was_told_of_it() -> None:
    entries = [TASK, step(1), step(2), Cut(2)]
    assert "read_output" not in text_of(messages_of("Solve it.", entries))


def test_notices_stay_where_an_observation_becomes_a_line() -> None:
    words = "No step is left, so no more code will run."
    seen = Observation("word " * 500 + f"\n[step 4 of 4]\n{words}", notices=words)
    unusable = Observation("no " * 300 + f"\n[step 5 of 5]\n{words}", notices=words)
    entries = [TASK, step(1, observation=seen), step(2, result=None, observation=unusable), Cut(3)]
    _, _, _, first, _, second = messages_of(SYSTEM, entries)
    assert first["content"].startswith("[step 1: ")
    assert first["content"].endswith(f"Variables: x1]\n{words}")
    assert second["content"].endswith(f" …\n{words}")
    assert len(second["content"]) < 500


def test_what_is_short_already_stays_as_it_is() -> None:
    short = step(1, 0)
    why = Step(Reply("?"), "?", observation=Observation("That is no code."))
    entries: list[Entry] = [TASK, short, why, step(2)]
    assert messages_of(SYSTEM, [*entries, Cut(3)]) == messages_of(SYSTEM, entries)


def test_summarised_steps_are_replaced_by_the_last_task_and_the_summary() -> None:
    early, late = Task("Early", "Early"), Task("Late", "Late", (PNG,))
    entries: list[Entry] = [early, step(1), late, step(1), step(2), Cut(4, 4, "It rained.")]
    system, first, *rest = messages_of(SYSTEM, entries)
    assert first == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Late\n\nIt rained."},
            {"type": "image_url", "image_url": {"url": PNG}},
        ],
    }
    assert rest == messages_of(SYSTEM, [late, step(2)])[2:]
    assert system["content"] == SYSTEM


def test_a_last_task_that_is_still_shown_is_not_shown_twice() -> None:
    entries: list[Entry] = [Task("Early", "Early"), step(1), TASK, step(1), Cut(2, 2, "Sum.")]
    messages = messages_of(SYSTEM, entries)
    assert text_of(messages).count(TASK.prompt) == 1
    assert messages[1]["content"][0]["text"] == f"Sum.\n\n{TASK.prompt}"


def test_cells_of_the_user_s_are_not_counted() -> None:
    entries: list[Entry] = [TASK, step(1), step(2), step(3), Cut(3, 2, "Sum.")]
    cell = UserCell("a", CellResult("1"))
    mixed = [cell, *entries[:2], cell, *entries[2:4], cell, entries[4], cell]
    assert messages_of(SYSTEM, mixed) == messages_of(SYSTEM, entries)


# Making room


def test_a_request_that_fits_is_left_alone() -> None:
    entries = [TASK, *(step(number) for number in range(5))]
    assert room(entries, 100_000) is None
    assert room(entries, None) is None


def test_old_observations_are_shortened_without_asking_anybody() -> None:
    entries = [TASK, *(step(number) for number in range(12))]
    cut = room(entries, 16_000, ask=None)
    assert cut is not None
    assert cut.shortened > 3
    assert (cut.summarised, cut.summary, cut.reply) == (0, "", None)


def many_steps(count: int = 90) -> list[Entry]:
    plan = Plan(Reply("p"), "First the rain, then the snow.", "Plan.", "Go on.")
    return [TASK, step(0), plan, *(step(number, 500) for number in range(1, count))]


def test_the_model_sums_up_what_it_saw_and_that_takes_the_place_of_the_steps() -> None:
    entries = many_steps()
    asked: list[list[Message]] = []

    def ask(messages: list[Message]) -> Reply:
        asked.append(messages)
        return summary(messages)

    cut = room(entries, ask=ask)
    assert cut is not None
    assert cut.reply is not None
    assert asked[0][-1]["content"].endswith(cut.asked)
    text = text_of(messages_of(SYSTEM, [*entries, cut]))
    assert text.count(TASK.prompt) == 1
    assert "June had 42.7 mm." in text
    assert "First the rain, then the snow." in text
    for number in range(90):
        assert f"x{number}" in text
    assert tokens_of(messages_of(SYSTEM, [*entries, cut])) <= marks(8000).full


def test_what_a_summary_replaces_is_told_beside_it_plan_and_functions_too() -> None:
    plan = Plan(Reply("1. Look."), "1. Look.", "Plan.", "Go on.")
    source = "def look(name, *, rows=60):\n    return name\n\nclass Row: pass\n%time x = 1"
    first = replace(step(1), result=CellResult(source))
    entries = [TASK, first, plan, *(step(number) for number in range(2, 40))]
    cut = room(entries)
    assert cut is not None
    text = messages_of(SYSTEM, [*entries, cut])[1]["content"][0]["text"]
    assert "## Your plan from before step 2\n1. Look." in text
    assert "look(name, *, rows=60), class Row" in text


def test_a_summary_is_asked_for_in_as_many_words_as_are_kept_of_it() -> None:
    asked: list[str] = []
    said = "word " * 2_000

    def ask(messages: list[Message]) -> Reply:
        asked.append(messages[-1]["content"])
        return Reply(said)

    cut = room([TASK, *(step(number) for number in range(40))], ask=ask)
    assert cut is not None
    found = re.search(r"at most (\d+) words \(what is longer is cut\)", asked[0])
    assert found is not None
    assert int(found[1]) <= cut.summary.count("word ") < 2_000


def test_the_newest_output_is_there_where_a_summary_is_asked_for() -> None:
    asked: list[str] = []

    def ask(messages: list[Message]) -> Reply:
        asked.append(text_of(messages))
        return summary(messages)

    entries = [TASK, *(step(number, 3_000) for number in range(60))]
    assert room(entries, ask=ask)
    assert "59 word 59 word" in asked[0]


def test_the_summary_is_asked_for_behind_the_very_messages_that_were_sent() -> None:
    entries: list[Entry] = [TASK]
    sent: list[Message] = []
    asked: list[list[Message]] = []

    def ask(messages: list[Message]) -> Reply:
        asked.append(messages)
        return summary(messages)

    while not asked:
        if cut := room(entries, ask=ask):
            entries.append(cut)
        if not asked:
            sent = messages_of(SYSTEM, entries)
            usage = Usage(real_tokens(sent), 30)
            made = step(len(entries), 1500)
            entries.append(replace(made, reply=replace(made.reply, usage=usage)))
    assert asked[0][: len(sent)] == sent


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (Reply("It rained.\n\n```python\nos.remove('x')\n```"), "It rained."),
        (Reply("It rained and", finish_reason="length"), "It rained and …"),
        (Reply("It rained.", calls=(RequestedCall("a", "python", "{"),)), "It rained."),
        (Reply("<think>It rained.</think>"), "- Step 2, ended with status ok: I look at 1."),
        (Reply(""), "- Step 2, ended with status ok: I look at 1."),
        (Reply("```python\nx\n```"), "- Step 2, ended with status ok: I look at 1."),
    ],
)
def test_only_words_of_a_summary_are_kept_and_without_any_what_is_known_of_the_steps(
    reply: Reply, kept: str
) -> None:
    entries = [TASK, *(step(number, 300) for number in range(40))]
    cut = room(entries, 5000, ask=lambda messages: reply)
    assert cut is not None
    assert cut.reply == reply
    assert kept in cut.summary
    assert "os.remove" not in cut.summary


def test_a_summary_that_the_provider_finds_too_long_to_ask_for_is_made_of_what_is_known() -> None:
    def ask(messages: list[Message]) -> Reply:
        raise ContextWindowExceededError("m", "too long")

    cut = room(many_steps(), ask=ask)
    assert cut is not None
    assert (cut.asked, cut.reply) == ("", None)
    assert "ended with status ok" in cut.summary


def test_any_other_error_of_the_summary_passes_through() -> None:
    def ask(messages: list[Message]) -> Reply:
        raise ModelUnavailableError("m", "gone")

    with pytest.raises(ModelUnavailableError):
        room(many_steps(), ask=ask)


@pytest.mark.parametrize("window", [None, 1_000_000])
def test_a_request_that_was_refused_is_cut_to_half_whatever_the_numbers_say(
    window: int | None,
) -> None:
    entries: list[Entry] = [TASK, *(step(number) for number in range(20))]
    sizes = [tokens_of(messages_of(SYSTEM, entries))]
    asked: list[int] = []

    def ask(messages: list[Message]) -> Reply:
        asked.append(tokens_of(messages))
        assert asked[-1] <= 0.85 * sizes[-1]
        return Reply("Sum.")

    while (cut := room(entries, window, refused=True, ask=ask)) is not None:
        entries.append(cut)
        sizes.append(tokens_of(messages_of(SYSTEM, entries)))
    assert all(after < before for before, after in pairwise(sizes))
    assert sizes[1] <= sizes[0] // 2
    assert len(sizes) < 8


def test_the_newest_output_stays_after_a_refusal_where_it_may_fit() -> None:
    entries: list[Entry] = [TASK, *(step(number, 500) for number in range(8)), step(9, 8000)]
    sent = messages_of(SYSTEM, entries)
    cut = room(entries, None, refused=True)
    assert cut is not None
    messages = messages_of(SYSTEM, [*entries, cut])
    assert messages[-1] == sent[-1]
    assert tokens_of(messages) <= 0.85 * tokens_of(sent)


def test_without_a_wish_for_a_summary_nobody_is_asked_and_what_is_known_is_told() -> None:
    cut = room(many_steps(), ask=None)
    assert cut is not None
    assert (cut.asked, cut.reply) == ("", None)
    assert "ended with status ok" in cut.summary


def test_where_no_summary_has_room_the_user_still_speaks_first() -> None:
    entries: list[Entry] = [TASK, *(step(number, 700) for number in range(9))]
    entries += [Task("T", "word " * 1_400), step(9, 200), step(10, 200)]
    cut = room(entries, 2_400)
    assert cut is not None
    messages = messages_of(SYSTEM, [*entries, cut])
    assert [message["role"] for message in messages[:3]] == ["system", "user", "assistant"]
    check_form(messages)


def test_nothing_is_cut_where_there_is_nothing_to_cut() -> None:
    large = Task("T", "word " * 20_000)
    assert room([large], 8000) is None
    assert room([large], 8000, refused=True) is None
    entries = [large, step(1, 0)]
    assert room(entries, 8000) is None


# Runs of any shape


def run_of(
    sizes: Sequence[int], window: int, *, counted: bool, native: bool
) -> tuple[list[Entry], list[str], list[int]]:
    """A run's entries, its requests as text, and the sizes of all that was asked."""
    entries: list[Entry] = [TASK]
    asked: list[int] = []
    requests: list[str] = []

    def ask(messages: list[Message]) -> Reply:
        asked.append(tokens_of(messages) if not counted else real_tokens(messages))
        return Reply("It rained. " * 20, usage=Usage(real_tokens(messages), 60))

    for number, size in enumerate(sizes):
        if cut := room(entries, window, ask=ask, reply_format="tools" if native else "fence"):
            entries.append(cut)
        messages = messages_of(SYSTEM, entries, native=native)
        check_form(messages)
        requests.append(text_of(messages))
        tokens = real_tokens(messages)
        asked.append(tokens if counted else tokens_of(messages))
        made = step(number, size, native=native)
        usage = Usage(tokens, len(made.said) // 4) if counted else Usage()
        entries.append(replace(made, reply=replace(made.reply, usage=usage)))
    return entries, requests, asked


def check_form(messages: Sequence[Message]) -> None:
    """Roles in the order that the strictest chat template takes; each call has its answer."""
    open_calls: list[str] = []
    before = "system"
    for message in messages[1:]:
        role = message["role"]
        if role == "tool":
            assert message["tool_call_id"] == open_calls.pop(0)
        else:
            assert not open_calls
            assert role == ("user" if before in ("system", "assistant") else "assistant")
        open_calls += [call["id"] for call in message.get("tool_calls", ())]
        before = "assistant" if open_calls else "user" if role == "tool" else role
    assert not open_calls


@examples(40)
@given(
    sizes=st.lists(st.integers(0, 8000), min_size=1, max_size=60),
    window=st.integers(6000, 40_000),
    counted=st.booleans(),
    native=st.booleans(),
)
def test_a_run_of_any_steps_stays_within_the_window_and_its_prefix_stays_between_cuts(
    sizes: list[int], window: int, counted: bool, native: bool
) -> None:
    entries, requests, asked = run_of(sizes, window, counted=counted, native=native)
    # The largest step, the task and the system prompt have less than the smallest window here.
    assert max(asked) < window
    cuts = [entry for entry in entries if isinstance(entry, Cut)]
    broken = 0
    for before, after in pairwise(requests):
        # Two characters end the list and the message; a text may go on after its quote.
        broken += not after.startswith(before[:-3])
    assert broken <= len(cuts)


@pytest.mark.parametrize(
    ("counted", "native"), [(True, True), pytest.param(False, False, marks=pytest.mark.slow)]
)
def test_cuts_are_so_rare_that_little_is_sent_past_the_cache(counted: bool, native: bool) -> None:
    chance = random.Random(1)
    sizes = [chance.randint(0, 8000) for _ in range(300)]
    entries, requests, _ = run_of(sizes, 32_000, counted=counted, native=native)
    uncached = sum(
        len(after) - len(os.path.commonprefix([before, after]))  # noqa: RUF071 - texts
        for before, after in pairwise(requests)
    )
    new = sum(len(text_of(messages_of("", [e]))) for e in entries if isinstance(e, Step))
    assert uncached < 2 * new
    cuts = [entry for entry in entries if isinstance(entry, Cut)]
    assert sum(cut.reply is not None for cut in cuts) < len(cuts) / 5


# A long run over HTTP

WINDOW = 32_000
SUMMARY = "Blocks were summed; the largest so far is block 7 with 4711.25."
QUESTION = "Which of the blocks is the wettest, and by how much?"


class LongRun(OpenAIServer):
    """Replies with one cell after the other, and refuses what is longer than its window.

    `tokens` are those of the requests that it took, as tiktoken counts them.
    """

    def __init__(self, steps: int, *, tells: bool, window: int = WINDOW) -> None:
        super().__init__([])
        self.steps, self.tells, self.window = steps, tells, window
        self.tokens: list[int] = []
        self.refused = self.done = self.plans = self.summaries = 0

    def next_answer(self, request: Request) -> Script:
        from litellm import token_counter  # takes seconds

        self.requests.append(request)
        messages = request.body["messages"]
        tokens = token_counter("gpt-4", messages=messages)
        if tokens > self.window:
            self.refused += 1
            reason = f"This model's maximum context length is {self.window} tokens."
            return Status(400, reason, "context_length_exceeded")
        self.tokens.append(tokens)
        text = self.reply(messages[-1]["content"])
        spoken = token_counter("gpt-4", text=text)
        return Answer(text, usage=self.tells, prompt_tokens=tokens, completion_tokens=spoken)

    def reply(self, last: str) -> str:
        if "Sum up the work" in last:
            self.summaries += 1
            return SUMMARY
        if "Before you go on, plan." in last:
            self.plans += 1
            return f"Plan number {self.plans}: sum block after block, then compare."
        self.done += 1
        if self.done > self.steps:
            return "I compare.\n```python\nfinal_answer(best)\n```"
        return f"I sum block {self.done}.\n```python\n{CELL.format(number=self.done)}```"


CELL = """\
block_{number} = {number}
best = max(block_{number}, 0)
for row in range(400):
    print("row", row, "of block", {number}, "has", row * 1.0625 + {number}, "mm of rain.")
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tells", [True, False])
def test_three_hundred_steps_stay_within_a_small_window_and_know_task_plan_and_variables(
    tmp_path: Path, tells: bool
) -> None:
    with LongRun(300, tells=tells) as server:
        model = LiteLLM("openai/any", api_base=server.url, window=WINDOW)
        with Agent(model, max_steps=310, plan_every=110, folder=tmp_path, cwd=tmp_path) as agent:
            run = agent.run(QUESTION)
    assert (run.outcome.status, run.answer) == ("answered", 300)
    assert len(run.transcript.steps) == 301
    last = text_of(server.requests[-1].body["messages"])
    assert server.refused == 0
    assert max(server.tokens) < WINDOW - 4000
    assert QUESTION in last
    assert "Plan number 3" in last
    assert SUMMARY in last
    for name in ("best", "block_1", "block_2", "block_299", "block_300"):
        assert name in last
    cuts = [entry for entry in run.transcript.entries if isinstance(entry, Cut)]
    assert server.summaries == sum(cut.reply is not None for cut in cuts) <= 12
    assert len(cuts) < 100
    prompts = sum(server.tokens)
    assert run.usage.prompt_tokens == prompts if tells else run.usage.prompt_tokens > prompts / 2


def test_room_is_made_for_a_closing_request_without_paying_for_a_summary(tmp_path: Path) -> None:
    with LongRun(99, tells=True, window=6000) as server:
        model = LiteLLM("openai/any", api_base=server.url, window=6000)
        with Agent(model, folder=tmp_path, cwd=tmp_path, max_steps=3) as agent:
            run = agent.run(QUESTION)
    assert run.outcome.limit == "max_steps"
    assert server.refused == server.summaries == 0
    last = text_of(server.requests[-1].body["messages"])
    assert "no more code will run" in last
    assert any(isinstance(entry, Cut) for entry in run.transcript.entries)


@pytest.mark.parametrize("window", [None, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_window_that_is_smaller_than_was_known_is_found_out_and_the_run_goes_on(
    tmp_path: Path, window: int | None
) -> None:
    with LongRun(8, tells=True, window=6000) as server:
        model = LiteLLM("openai/any", api_base=server.url, window=window)
        with Agent(model, folder=tmp_path, cwd=tmp_path) as agent:
            run = agent.run(QUESTION)
    assert (run.outcome.status, run.answer) == ("answered", 8)
    cuts = sum(isinstance(entry, Cut) for entry in run.transcript.entries)
    assert 1 <= cuts == server.refused
    assert QUESTION in text_of(server.requests[-1].body["messages"])
