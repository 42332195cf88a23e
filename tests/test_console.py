"""The view of a run: what it prints in a terminal and in a pipe, and what it never prints."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from kernel_agent.console import LiveView
from kernel_agent.events import (
    CellStarted,
    Event,
    ModelChanged,
    OutputReceived,
    ReplyReceived,
    ReplyRetried,
    ReplyStarted,
    ReplyText,
    RequestHeld,
    RoomMade,
    RunFinished,
    RunStarted,
    StepFinished,
)
from kernel_agent.recorded import event_json, transcript_events
from kernel_agent.rendering import (
    answer_text,
    calls_text,
    cost_text,
    safe_text,
    seconds_text,
)
from kernel_agent.steps import (
    ANSWER_MIME,
    CellResult,
    Cut,
    Observation,
    Outcome,
    Output,
    Reply,
    Step,
    Task,
    ToolCall,
    Usage,
)
from kernel_agent.transcript import Transcript

TABLE = "   month   rain\n0      1  120.5\n1     11  160.1"
HOSTILE = (
    "a\x1b]0;title\x07b\x1b[2J\x1b[31mc\x1b[0m\x9b2Jd\x08\x08\x00\x1bPq\x1b\\e\x1b[?1049h"
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\\rf [bold]g[/] \ud800"
)


def stream(text: str, name: str = "stdout") -> Output:
    return {"output_type": "stream", "name": name, "text": text}


def shown(text: str) -> Output:
    data = {"text/plain": text}
    return {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": 1}


def raised(name: str, value: str) -> Output:
    lines = ["---", f"{name}: {value}"]
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": lines}


def run_events(
    *outputs: Output,
    thought: str = "I look at **it**.",
    source: str = "x = 6 * 7\nx",
    task: str = "What is *it*?",
    answer: object = "It is **42**.",
    reason: str = "",
    outcome: Outcome = Outcome("answered"),  # noqa: B008
    path: Path | None = Path("runs/it.ipynb"),
) -> Iterator[Event]:
    reply = Reply(
        f"{thought}\n\n```python\n{source}\n```",
        usage=Usage(1000, 234, cost=0.0042, model_seconds=2.0),
    )
    result = CellResult(source, outputs=outputs, seconds=0.5, reason=reason)
    step = Step(reply, reply.text, thought, result, Observation("seen"))
    yield RunStarted(Task(task, task), "some/model", "python3", path)
    yield ReplyStarted(1, 20, Usage())
    yield ReplyReceived(reply)
    yield CellStarted(1, thought, source)
    yield from map(OutputReceived, outputs)
    yield StepFinished(1, step, step.usage)
    yield RunFinished(outcome, answer, step.usage, path)


def printed(events: Iterator[Event], *, max_lines: int = 40) -> str:
    """What the view prints in a pipe."""
    file = io.StringIO()
    with LiveView(Console(file=file, width=80), max_lines=max_lines) as view:
        for event in events:
            view(event)
    return file.getvalue()


def drawn(events: Iterator[Event], *, width: int = 80, live: bool = True) -> str:
    """All that the view sends to a terminal, control codes and all."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, height=24, force_terminal=True, color_system="truecolor",
        legacy_windows=False, _environ={"TERM": "xterm-256color"},
    )  # fmt: skip
    with LiveView(console, live=live) as view:
        for event in events:
            view(event)
    return file.getvalue()


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_run_in_a_pipe_is_plain_text() -> None:
    warning = stream("careful\n", "stderr")
    text = printed(run_events(stream("hello\n"), warning, shown(TABLE)))
    assert text == (
        "What is *it*?\n"
        "some/model · python3\n"
        "\n"
        "── 1 ──\n"
        "\n"
        "I look at **it**.\n"
        "\n"
        "│ x = 6 * 7\n"
        "│ x\n"
        "\n"
        "  hello\n"
        "  careful\n"
        "     month   rain\n"
        "  0      1  120.5\n"
        "  1     11  160.1\n"
        "\n"
        "Answer\n"
        "\n"
        "It is **42**.\n"
        "\n"
        "1 step · model 2.0 s · kernel 0.5 s · 1,234 tokens · $0.0042\n"
        "runs/it.ipynb\n"
    )


def test_a_terminal_gets_the_same_with_colours_and_a_frame() -> None:
    text = drawn(run_events(shown(TABLE)), live=False)
    assert "\x1b[" in text
    plain = without_colours(text)
    for words in (
        "What is *it*?",
        "I look at it.",
        "│ x = 6 * 7",
        "120.5",
        "╭─ Answer",
        "It is 42.",
    ):
        assert words in plain


@pytest.mark.parametrize("width", [60, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    row = "  ".join(f"column_{number}" for number in range(40))
    source = "value = compute(" + ", ".join(f"argument_{number}" for number in range(20)) + ")"
    events = run_events(
        stream("word " * 100 + "\n"), shown(f"{row}\n{row}"), thought="word " * 90, source=source
    )
    lines = without_colours(drawn(events, width=width, live=False)).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert sum("column_0" in line for line in lines) == 2
    assert all(line.endswith("…") for line in lines if "column_0" in line)
    assert any("argument_19" in line for line in lines)


def test_markup_in_outputs_thoughts_and_tasks_is_text() -> None:
    markup = "[bold]x[/] [/nothing] :smile: [link=http://e]"
    events = list(run_events(stream(markup + "\n"), thought=markup, task=markup, source=markup))
    assert printed(iter(events)).count(markup) == 4
    assert without_colours(drawn(iter(events), live=False)).count(markup) == 4


def hostile_events() -> Iterator[Event]:
    outputs = (
        stream(HOSTILE + "\n"),
        stream(HOSTILE, "stderr"),
        shown(HOSTILE),
        raised(HOSTILE, HOSTILE),
    )
    yield from run_events(
        *outputs, thought=HOSTILE, source=HOSTILE, task=HOSTILE, answer=HOSTILE, reason=HOSTILE,
        outcome=Outcome("failed", reason=HOSTILE), path=Path(HOSTILE.replace("\x00", "")),
    )  # fmt: skip


def test_no_control_code_of_a_run_reaches_the_terminal() -> None:
    codes = re.findall(
        r"[^\x20-\x7e\n·│─╭╮╰╯…\ufffd]+", without_colours(drawn(hostile_events(), live=False))
    )
    assert codes == []
    assert not re.findall(r"[^\x20-\x7e\n·│─…\ufffd]", printed(hostile_events()))


def test_a_hostile_notebook_shows_no_control_code(tmp_path: Path) -> None:
    path = tmp_path / "hostile.ipynb"
    transcript = Transcript("system", path=path, about={"model": {"name": HOSTILE}})
    for event in hostile_events():
        match event:
            case RunStarted(task):
                transcript.add(task)
            case StepFinished(_, step):
                transcript.add(step)
            case RunFinished(outcome):
                transcript.finish(outcome)
    text = printed(transcript_events(Transcript.load(path)))
    assert not re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


@given(st.text(alphabet=st.sampled_from("ab \n#*_`[]()!<>|-1.&~:\\\t\"'="), max_size=80))
def test_any_markdown_can_be_shown(text: str) -> None:
    drawn(run_events(stream(text), thought=text, answer=text), live=False)


@given(st.text(max_size=60))
def test_safe_text_holds_nothing_to_obey_and_is_stable(text: str) -> None:
    safe = safe_text(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", safe)
    assert safe_text(safe) == safe
    safe.encode("utf-8")


def test_a_flood_is_cut_and_counted_and_an_error_still_shown() -> None:
    flood = [stream("".join(f"line {number}\n" for number in range(100))) for _ in range(20)]
    text = printed(run_events(*flood, raised("KeyError", "'rain'"), shown("late")), max_lines=5)
    assert "  line 4\n  … 1,995 more lines (in the notebook)\n" in text
    assert "KeyError: 'rain'" in text
    assert "… 1 more line (in the notebook)" in text
    assert "line 5\n" not in text


def test_a_flood_without_a_notebook_does_not_speak_of_one() -> None:
    text = printed(run_events(stream("a\n" * 50), path=None), max_lines=5)
    assert "… 45 more lines (not shown)" in text
    assert ".ipynb" not in text


def test_lines_that_come_in_pieces_are_put_together_and_progress_bars_resolved() -> None:
    pieces = [
        "one ",
        "line\nand",
        " another\n",
        "\r10%",
        "\r55%",
        "\r100%\n",
        "no newline at the end",
    ]
    text = printed(run_events(*map(stream, pieces)))
    expected = "  one line\n  and another\n  100%\n  no newline at the end\n"
    assert expected in text


@pytest.mark.parametrize("piece", ["\r" + "=" * 50, "x" * 50])
def test_an_endless_line_is_kept_short(piece: str) -> None:
    text = printed(run_events(*[stream(piece)] * 2000))
    assert max(map(len, text.splitlines())) < 2100


def test_stdout_and_stderr_do_not_mix_within_a_line() -> None:
    text = printed(run_events(stream("out"), stream("err", "stderr"), stream("more")))
    assert "  out\n  err\n  more\n" in text


def test_the_answer_of_a_cell_is_shown_once() -> None:
    data = {"text/plain": "'It is **42**.'", ANSWER_MIME: {"value": "It is **42**."}}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    assert printed(run_events(output)).count("It is **42**.") == 1


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome("limit", "max_steps"), "Ended at max_steps without an answer"),
        (Outcome("answered", "max_cost"), "Answered at max_cost with what was known by then"),
        (Outcome("interrupted"), "Interrupted"),
        (Outcome("failed", reason="no such model"), "Failed: no such model"),
    ],
)
def test_an_end_that_is_not_just_an_answer_is_told(outcome: Outcome, words: str) -> None:
    assert words in printed(run_events(answer=None, outcome=outcome))


def test_why_a_cell_was_stopped_is_told() -> None:
    text = printed(run_events(reason="Interrupted after 120 s. Its state is kept."))
    assert "  [Interrupted after 120 s. Its state is kept.]\n" in text


def test_retries_reasoning_and_unusable_replies_are_shown_under_the_step() -> None:
    long = "\n".join(f"draft {number}" for number in range(30))
    reply = Reply("", reasoning=long)
    step = Step(reply, "(empty reply)", observation=Observation("Your reply was empty."))
    text = printed(
        iter(
            [
                ReplyStarted(3, 20, Usage()),
                ReplyRetried("rate limit", 2.5, 1),
                ReplyReceived(reply),
                StepFinished(3, step, Usage()),
            ]
        )
    )
    assert text.startswith("\n── 3 ──\n\ntry 1 failed: rate limit · next in 2.5 s\n\ndraft 0\n")
    assert "draft 7\n… 22 more lines of reasoning\n" in text
    assert text.endswith("\nYour reply was empty.\n")


def test_tries_that_follow_each_other_are_told_line_by_line() -> None:
    tries = [ReplyRetried("It is down.", 0.5 * number, number) for number in range(3)]
    text = printed(iter([ReplyStarted(1, 20, Usage()), ReplyRetried("It is empty.", 0.0, 1)]))
    assert text == "\n── 1 ──\n\ntry 1 failed: It is empty · next at once\n"
    text = printed(iter([ReplyStarted(1, 20, Usage()), *tries[1:]]))
    assert text.endswith(
        "\n\ntry 1 failed: It is down · next in 0.5 s\ntry 2 failed: It is down · next in 1.0 s\n"
    )


def test_a_run_that_fails_at_its_first_request_has_no_figures_to_show() -> None:
    failed = Outcome("failed", reason="Model 'any': no.")
    text = printed(iter([RunFinished(failed, None, Usage(), Path("runs/it.ipynb"))]))
    assert text == "\nFailed: Model 'any': no.\n\nruns/it.ipynb\n"


def test_room_that_was_made_without_a_summary_shows_none() -> None:
    cut = Cut(4, 2, "", "Sum up.", Reply("", usage=Usage(7, 1)))
    text = printed(iter([RoomMade(cut, Usage())]))
    assert text.endswith("shortened, and without what was before them.\n")
    assert "Summary" not in text


def test_a_reply_streams_in_and_gives_way_to_its_final_form() -> None:
    events = list(run_events(shown("42")))
    pieces = [
        ReplyText("a draft", reasoning=True),
        ReplyText("I look\n\n```py"),
        ReplyText("thon\nx"),
    ]
    events[2:2] = [ReplyStarted(1, 20, Usage(cost=None)), *pieces]
    text = without_colours(drawn(iter(events)))
    assert "\x1b[?25l" in text
    assert text.rstrip().endswith("runs/it.ipynb")


def test_what_comes_between_a_request_and_its_reply_is_told_under_the_step() -> None:
    summary = Cut(4, 2, "They sold\n1\n2\n3\n4\n5\n6", "Sum up.", Reply("", usage=Usage(7, 1)))
    text = printed(
        iter(
            [
                ReplyStarted(3, 20, Usage()),
                RequestHeld("10 requests per minute", 1.5),
                RequestHeld("10 requests per minute", 42.0),
                ModelChanged("ollama/qwen3", "openai/gpt-5 cannot be reached."),
                ModelChanged("openai/gpt-5", ""),
                RoomMade(Cut(4), Usage()),
                RoomMade(summary, summary.usage),
            ]
        )
    )
    filling = "The model's window is filling up. It goes on with earlier outputs shortened"
    assert text == (
        "\n── 3 ──\n"
        "\nwaiting 42 s: 10 requests per minute\n"
        "\nNow ollama/qwen3 is asked: openai/gpt-5 cannot be reached.\n"
        "\nNow openai/gpt-5 is asked\n"
        f"\n{filling}.\n"
        f"\n{filling}, and what was before them as a summary.\n"
        "    Summary: They sold\n    1\n    2\n    3\n    4\n    5\n    … 1 more line\n"
    )


def bottom(*events: Event) -> str:
    """What is redrawn at the bottom of a terminal after these events, as it ends."""
    file = io.StringIO()
    console = Console(
        file=file, width=80, height=24, force_terminal=True, color_system="truecolor",
        _environ={"TERM": "xterm-256color"},
    )  # fmt: skip
    with LiveView(console) as view:
        view(RunStarted(Task("t", "t"), "m", "k", None))
        for event in (ReplyStarted(2, 20, Usage()), *events):
            view(event)
        start = len(file.getvalue())
        view.close()  # draws it a last time
    return file.getvalue()[start:]


def test_reasoning_is_dimmed_while_it_streams_in_and_gives_way_to_the_reply() -> None:
    reasoning = ReplyText("Let me *see*.", reasoning=True)
    assert "\x1b[2;3mLet me *see*.\x1b[0m" in bottom(reasoning)
    assert "see" not in bottom(reasoning, ReplyText("I look."))


def test_a_wait_is_counted_down_in_the_status_line_and_what_was_streamed_is_gone() -> None:
    text = without_colours(bottom(ReplyText("I lo"), ReplyRetried("busy", 30.0, 1)))
    assert re.search(r"step 2/20 · waiting (30|29) s: try 2 · ", text)
    assert "I lo" not in text
    assert "waiting" in without_colours(bottom(RequestHeld("10 requests per minute", 3.0)))
    assert "· thinking ·" in without_colours(bottom(RequestHeld("10 requests per minute", 0.0)))


def test_the_status_line_tells_the_step_what_happens_and_the_cost() -> None:
    file = io.StringIO()
    console = Console(
        file=file, width=80, height=24, force_terminal=True, _environ={"TERM": "xterm"}
    )
    with LiveView(console) as view:
        view(RunStarted(Task("t", "t"), "m", "k", None))
        view(ReplyStarted(2, 20, Usage(1000, 234, cost=None)))
        view(ReplyText("```python\n" + "x = 1\n" * 2000))
    drawn_last, taken_away = file.getvalue().split("\x1b[?25h")
    status = r"[⠁-⣿] step 2/20 · thinking · 0\.\d s · 1,234 tokens · cost unknown"
    assert re.search(status, without_colours(drawn_last))
    assert 20 < taken_away.count("\x1b[2K") <= 24


def test_the_cursor_comes_back_whatever_happens() -> None:
    def broken() -> Iterator[Event]:
        yield from list(run_events())[:4]
        raise KeyboardInterrupt

    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, _environ={"TERM": "xterm"})
    view = LiveView(console)
    with pytest.raises(KeyboardInterrupt), view:
        for event in broken():
            view(event)
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 1
    view.close()


def test_a_recording_holds_each_line_once_and_no_status_line() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    with LiveView(console) as view:
        for event in run_events(shown("42")):
            view(event)
    text = console.export_text(clear=False)
    assert text.count("I look at it.") == 1
    assert "thinking" not in text
    assert "font-weight: bold" in console.export_svg()


def test_a_transcript_is_shown_as_the_run_was_live(tmp_path: Path) -> None:
    path = tmp_path / "it.ipynb"
    events = list(run_events(stream("hello\n"), shown(TABLE), path=path))
    transcript = Transcript(
        "system",
        path=path,
        about={
            "model": {"name": "some/model"},
            "kernel": {"name": "python3"},
            "limits": {"max_steps": 20},
        },
    )
    answer = Step(Reply("It is **42**."), "It is **42**.", "It is **42**.")
    usage = events[-1].usage
    events[-1:] = [
        ReplyStarted(2, 20, usage),
        ReplyReceived(answer.reply),
        StepFinished(2, answer, usage),
        events[-1],
    ]
    transcript.add(events[0].task)
    for event in events:
        if isinstance(event, StepFinished):
            transcript.add(event.step)
    transcript.finish(Outcome("answered"))
    assert list(transcript_events(Transcript.load(path))) == events


def test_a_recorded_run_tells_which_model_replied_and_what_it_was_not_shown(
    tmp_path: Path,
) -> None:
    transcript = Transcript("s", path=tmp_path / "a.ipynb", about={"model": {"name": "first"}})
    transcript.add(Task("t", "t"))
    for model in ("", "second", "second", ""):
        reply = Reply("r", model=model, usage=Usage(1, 1))
        transcript.add(Step(reply, "r", observation=Observation("o")))
    transcript.add(Cut(2, 1, "Short.", "Sum up.", Reply("Short.", usage=Usage(10, 5))))
    events = list(transcript_events(transcript))
    changes = [event.model for event in events if isinstance(event, ModelChanged)]
    assert changes == ["second", "first"]
    (made,) = [event for event in events if isinstance(event, RoomMade)]
    assert made.usage.tokens == 4 * 2 + 15


def test_a_run_without_a_recorded_end_says_so() -> None:
    transcript = Transcript("system")
    transcript.add(Task("t", "t"))
    transcript.begin(Step(Reply("```python\n1\n```"), "x", "look", CellResult("1")))
    text = printed(transcript_events(transcript))
    assert "│ 1\n" in text
    assert "its end is not recorded" in text


def test_the_answers_of_earlier_tasks_are_shown_too() -> None:
    transcript = Transcript("system")
    for word in ("first", "second"):
        transcript.add(Task(word, word))
        transcript.add(Step(Reply(f"{word} answer"), "x", f"{word} answer"))
        transcript.finish(Outcome("answered"))
    text = printed(transcript_events(transcript))
    assert text.index("first answer") < text.index("second\n") < text.index("second answer")


def test_every_event_is_json() -> None:
    events = list(run_events(stream("a\n"), answer={"mean": float("nan")}))
    events[3:3] = [RequestHeld("r", 1.0), ModelChanged("m", "r"), RoomMade(Cut(2), Usage())]
    values = [event_json(event) for event in events]
    assert [value["event"] for value in values] == [type(event).__name__ for event in events]
    assert values[0]["path"] == "runs/it.ipynb"
    assert values[3] == {"event": "RequestHeld", "reason": "r", "wait": 1.0}
    assert values[5]["cut"]["shortened"] == 2
    assert values[-2]["step"]["result"]["outputs"] == [stream("a\n")]
    assert values[-1]["answer"] == {"mean": None}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.24, "4.2 s"), (42.4, "42 s"), (185, "3 min 05 s"), (7380, "2 h 03 min")],
)
def test_seconds_are_told_as_people_do(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [(None, "cost unknown"), (0.0, "$0.00"), (0.00421, "$0.0042"), (1.2, "$1.20")],
)
def test_an_unknown_cost_is_not_zero(cost: float | None, text: str) -> None:
    assert cost_text(cost) == text


@pytest.mark.parametrize(
    ("answer", "text"), [("a *b*", "a *b*"), (3.5, "3.5"), (["é"], '[\n  "é"\n]'), (None, "null")]
)
def test_an_answer_is_text_or_json(answer: object, text: str) -> None:
    assert answer_text(answer) == text


def test_calls_of_tools_are_told_in_one_line():
    calls = [ToolCall("price", {}, seconds=0.1), ToolCall("price", {}, error="KeyError: 'x'")]
    assert calls_text([*calls, ToolCall("search", {})]) == (
        "called price ×2 (1 failed), search · 0.1 s"
    )
