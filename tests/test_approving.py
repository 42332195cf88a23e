"""Code that is approved, edited or refused before it runs; answers that a check does not take."""

import io
import os
import select
import subprocess
import sys

import pytest
from rich.console import Console

from kernel_agent.agent import Agent
from kernel_agent.approving import Refused, approved, refusal
from kernel_agent.cli.confirming import asking_user
from kernel_agent.console import LiveView
from kernel_agent.events import ApprovalAsked, CellStarted, ReplyStarted, StepFinished
from kernel_agent.repeating import plan_all
from kernel_agent.resuming import resume
from kernel_agent.steps import Outcome, Usage
from kernel_agent.testing import ScriptedModel
from kernel_agent.transcript import Transcript
from tests.openai_server import OpenAIServer


def code(source, thought="Next."):
    return f"{thought}\n```python\n{source}\n```"


@pytest.fixture
def solve(tmp_path, lent_kernel):
    def solve(*replies, task="What?", **options):
        model = ScriptedModel(replies)
        with Agent(model, folder=tmp_path, kernel=lent_kernel, **options) as agent:
            return agent.run(task), model

    return solve


def last_user_text(model):
    return model.requests[-1][-1]["content"]


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (True, "x = 1"),
        ("x = 2\n", "x = 2"),
        ("x = 1\n", "x = 1"),
        (False, Refused("The user refused it.")),
        ("", Refused("The user refused it.")),
        (" \n", Refused("The user refused it.")),
        (Refused(), Refused("The user refused it.")),
        (Refused("Too long."), Refused("The user refused it: Too long.")),
    ],
)
def test_a_verdict_runs_the_code_or_another_or_none(verdict, outcome):
    assert approved("x = 1", lambda source: verdict) == outcome


@pytest.mark.parametrize("verdict", [None, 1, b"x = 2", object()])
def test_what_is_no_verdict_runs_nothing_and_is_reported(verdict):
    with pytest.warns(RuntimeWarning, match=type(verdict).__name__):
        assert isinstance(approved("x = 1", lambda source: verdict), Refused)


def test_a_cell_runs_only_if_it_was_approved(solve):
    asked = []

    def approve(source):
        asked.append(source)
        return True

    run, _ = solve(code("x = 2"), code("final_answer(x)"), approve=approve)
    assert run.answer == 2
    assert asked == ["x = 2", "final_answer(x)"]


def test_a_refused_cell_never_runs_and_the_model_is_told_why(solve, lent_kernel):
    refused = code("open('made', 'w')", "I make a file.")
    verdicts = [Refused("Leave my files alone."), True]
    events = []
    run, model = solve(
        refused, code("final_answer(1)"), approve=lambda s: verdicts.pop(0),
        listener=events.append,
    )  # fmt: skip
    assert run.answer == 1
    assert not (lent_kernel.cwd / "made").exists()
    said = last_user_text(model)
    assert "Your code was not run. The user refused it: Leave my files alone." in said
    assert model.requests[-1][-2]["content"] == refused
    cells = [e for e in events if isinstance(e, ApprovalAsked | CellStarted | StepFinished)]
    kinds = [type(event).__name__ for event in cells]
    assert kinds == [
        "ApprovalAsked", "StepFinished", "ApprovalAsked", "CellStarted", "StepFinished"
    ]  # fmt: skip


def test_a_refused_cell_is_recorded_but_not_executed_again(solve):
    verdicts = [False, True]
    refused, answer = code("open('made', 'w')"), code("final_answer(1)")
    run, _ = solve(refused, answer, approve=lambda s: verdicts.pop(0))
    again = Transcript.load(run.path)
    assert again.entries == run.transcript.entries
    assert again.messages() == run.transcript.messages()
    step = again.steps[0]
    assert (step.result, step.reply.text, step.thought) == (None, refused, refused)
    assert step.refused == "The user refused it."
    assert [cell.name for cell in plan_all(again.entries)] == ["step-2"]
    model = ScriptedModel([code("import os\nfinal_answer(os.path.exists('made'))")])
    with resume(run.path, model=model) as agent:
        assert agent.run("Is it there?").answer is False


def test_an_edited_cell_runs_and_is_recorded_in_place_of_the_models(solve):
    edits = ["x = 5\nprint('mine')", True]
    reply = code("x = 1")
    run, model = solve(reply, code("final_answer(x)"), approve=lambda s: edits.pop(0))
    assert run.answer == 5
    said = last_user_text(model)
    assert "The user changed your code" in said
    assert "x = 5\nprint('mine')" in said
    step = Transcript.load(run.path).steps[0]
    assert step == run.transcript.steps[0]
    assert (step.reply.text, step.result.source) == (reply, "x = 5\nprint('mine')")


def test_an_approval_that_fails_runs_nothing_and_is_reported(solve):
    def approve(source):
        if "1 / 0" in source:
            raise LookupError("no one there")
        return True

    with pytest.warns(RuntimeWarning, match="approve failed, so the cell was not run: LookupError"):
        run, model = solve(code("1 / 0"), code("final_answer(1)"), approve=approve)
    assert run.answer == 1
    assert "LookupError: no one there" in last_user_text(model)


def test_who_ends_the_run_while_being_asked_has_not_said_yes(tmp_path, lent_kernel):
    def approve(source):
        agent.interrupt()
        return True

    model = ScriptedModel([code("open('made', 'w')")])
    with Agent(model, folder=tmp_path, kernel=lent_kernel, approve=approve) as agent:
        run = agent.run("What?")
    assert run.outcome == Outcome("interrupted")
    assert not (lent_kernel.cwd / "made").exists()
    assert Transcript.load(run.path).steps[0].reply.text == code("open('made', 'w')")


def test_words_after_a_refusal_are_not_at_once_the_answer(solve):
    replies = [code("1"), "I see.", code("final_answer(2)")]
    verdicts = [False, True]
    run, _ = solve(*replies, approve=lambda s: verdicts.pop(0))
    assert run.answer == 2


def big(answer, transcript):
    """A check, with its reason."""
    return None if int(answer) > 9 else f"{answer} is too small."


def test_a_refused_answer_goes_back_to_the_model_whichever_way_it_came(solve):
    replies = [code("final_answer(3)"), "5", code("final_answer(11)")]
    run, model = solve(*replies, check=big)
    assert (run.answer, run.outcome) == (11, Outcome("answered"))
    assert "The answer was not taken: 3 is too small." in model.requests[1][-1]["content"]
    assert "The answer was not taken: 5 is too small." in model.requests[2][-1]["content"]
    assert Transcript.load(run.path).entries == run.transcript.entries
    assert [step.refused for step in run.transcript.steps] == [
        "3 is too small.", "5 is too small.", ""
    ]  # fmt: skip


def test_a_check_sees_the_transcript_and_the_cell_that_gave_the_answer(solve):
    seen = []

    def check(answer, transcript):
        seen.append((answer, transcript.tasks[0].text, transcript.pending.result.source))

    solve(code("final_answer(3)"), check=[check], task="How many?")
    assert seen == [(3, "How many?", "final_answer(3)")]


def test_an_answer_that_is_refused_to_the_end_is_none(solve):
    run, _ = solve(code("final_answer(3)"), "About 4.", check=lambda a, t: "No.",
                   max_steps=1)  # fmt: skip
    assert (run.answer, run.outcome) == (None, Outcome("limit", "max_steps"))
    again = Transcript.load(run.path)
    assert (again.answer, again.outcome, again.entries) == (
        None, run.outcome, run.transcript.entries
    )  # fmt: skip
    assert again.steps[-1].thought == "About 4."


def test_a_run_that_was_cut_off_after_a_refused_answer_goes_on(tmp_path, lent_kernel):
    model = ScriptedModel([code("final_answer(3)")])
    with Agent(model, folder=tmp_path, kernel=lent_kernel, check=big) as agent:
        with pytest.raises(Exception, match="script has ended"):
            agent.run("What?")
        path = agent.transcript.path
    assert Transcript.load(path).answer is None
    with resume(path, model=ScriptedModel([code("final_answer(12)")]), check=big) as agent:
        assert agent.run().answer == 12


def long(answer, transcript):
    if len(answer) < 4:
        raise AssertionError("longer, please")


def broken(answer, transcript):
    raise LookupError("the database is gone")


@pytest.mark.parametrize(
    ("checks", "reason"),
    [
        ([], ""),
        ([lambda a, t: None, lambda a, t: True, lambda a, t: ""], ""),
        ([lambda a, t: "one", lambda a, t: "two"], "one\ntwo"),
        ([long], "longer, please"),
    ],
)
def test_the_reasons_of_all_checks_are_told(checks, reason):
    assert refusal("abc", Transcript(""), checks) == reason


def test_a_check_that_says_no_more_than_no_is_named():
    def is_prime(answer, transcript):
        return False

    assert "is_prime does not hold" in refusal(4, Transcript(""), [is_prime])


@pytest.mark.parametrize("check", [broken, lambda a, t: 3])
def test_a_check_that_fails_itself_has_no_say_and_is_reported(check):
    with pytest.warns(RuntimeWarning, match="had no say"):
        assert refusal("abc", Transcript(""), [check, long]) == "longer, please"


def asking(monkeypatch, *typed):
    """The terminal's approval, with what the user types."""
    left = list(typed)
    monkeypatch.setattr(LiveView, "ask", lambda view, prompt, password: left.pop(0))
    return asking_user(None)


@pytest.mark.parametrize(
    ("typed", "verdict"),
    [
        (["y"], True),
        (["Yes "], True),
        (["what?", "n"], Refused()),
        (["no use the copy"], Refused("use the copy")),
        ([""], Refused()),
    ],
)
def test_the_user_says_at_the_terminal_what_happens(monkeypatch, typed, verdict):
    assert asking(monkeypatch, *typed)("x = 1") == verdict


def test_always_is_asked_once(monkeypatch):
    approve = asking(monkeypatch, "a")
    assert [approve("x = 1"), approve("x = 2")] == [True, True]


def test_the_code_is_edited_in_the_users_editor(monkeypatch, tmp_path):
    script = tmp_path / "editor.py"
    script.write_text("import sys\nopen(sys.argv[1], 'a').write('y = 2\\n')")
    monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")
    assert asking(monkeypatch, "e")("x = 1") == "x = 1\ny = 2\n"


@pytest.mark.parametrize("editor", ["", "no-such-editor-anywhere", "'unclosed"])
def test_without_an_editor_the_user_is_told_and_asked_again(monkeypatch, capsys, editor):
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor)
    assert asking(monkeypatch, "e", "y")("x = 1") is True
    assert "editor" in capsys.readouterr().err.lower()


def test_confirm_without_a_terminal_is_a_bad_setting(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "kernel_agent", "run", "x", "--confirm"],
        check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--confirm asks at the terminal" in done.stderr


def test_the_view_shows_code_that_is_asked_about_once_and_an_edited_one_again():
    console = Console(file=io.StringIO(), width=80)
    with LiveView(console) as view:
        for number, ran in enumerate(["x = 'one'", "y = 'edited'"], 1):
            view(ReplyStarted(number, 20, Usage()))
            view(ApprovalAsked(number, "I look.", "x = 'one'"))
            view(CellStarted(number, "I look.", ran))
    lines = console.file.getvalue().split()
    assert (lines.count("'one'"), lines.count("'edited'"), lines.count("look.")) == (2, 1, 2)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_confirm_shows_each_cell_once_and_asks(tmp_path):
    import pty

    seen = b""
    answers = [b"n not now\n", b"y\n"]
    replies = [code("first = 'cell'"), code("final_answer('second' + ' cell')")]
    with OpenAIServer(replies) as server:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [
                sys.executable, "-m", "kernel_agent", "run", "What?", "--confirm",
                "--model", "openai/any", "--api-base", server.url,
            ],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path,
        )  # fmt: skip
        os.close(theirs)
        questions = 0
        while select.select([ours], [], [], 30)[0]:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if seen.count(b"a(lways):") > questions:
                questions += 1
                os.write(ours, answers.pop(0))
        os.close(ours)
        exit_code = process.wait(20)
        told = server.requests[-1].body["messages"][-1]["content"]
    assert exit_code == 0, seen
    assert questions == 2
    assert "The user refused it: not now" in told
    assert b"second cell" in seen
