"""The command: its errors and exit codes, and whole runs against a local server."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import kernel_agent
from kernel_agent.agent import Agent
from kernel_agent.cli import app
from kernel_agent.cli.app import print_error
from kernel_agent.cli.running import DEMO_NOTEBOOK, run_task
from kernel_agent.kernel import Kernel
from kernel_agent.providers import PROVIDERS
from kernel_agent.settings import config_file
from kernel_agent.shipped import shipped
from kernel_agent.steps import ANSWER_MIME, CellResult, Observation, Outcome, Reply, Step, Task
from kernel_agent.terminal import plain_text
from kernel_agent.testing import ScriptedModel
from kernel_agent.transcript import Transcript
from tests.openai_server import OpenAIServer, Status

ROOT = Path(kernel_agent.__file__).resolve().parent.parent
ANSWER = "```python\nfinal_answer(6 * 7)\n```"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an environment without settings and keys."""
    for name in list(os.environ):
        if name.startswith("KERNEL_AGENT_") or any(name in it.variables for it in PROVIDERS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def kernel_agent_command(
    *arguments: str, environ: dict[str, str] | None = None, stdin: str | bytes | None = None
) -> Result:
    return CliRunner().invoke(app, arguments, env=environ, input=stdin)


def record(path: Path) -> None:
    """Saves the transcript of a small run."""
    transcript = Transcript("system", path=path, about={"model": {"name": "some/model"}})
    transcript.add(Task("What is it?", "What is it?"))
    output = {
        "output_type": "display_data",
        "data": {"text/plain": "42", ANSWER_MIME: {"value": 42}},
        "metadata": {},
    }
    result = CellResult("final_answer(42)", outputs=(output,), execution_count=1)
    step = Step(Reply("I know."), "I know.", "I know.", result, Observation("Answer: 42"))
    transcript.add(step)
    transcript.finish(Outcome("answered"))


MODEL = {"KERNEL_AGENT_MODEL": "openai/x"}

# arguments, environment, words on stderr: all are found out before anything is started.
USAGE_ERRORS = [
    ("run", {}, "Missing argument"),
    ("jump", {}, "No such command"),
    ("run x --colour", {}, "No such option"),
    ("run x --max-steps", {}, "requires an argument"),
    ("run x --max-steps 0", MODEL, "--max-steps: '0' is not allowed. max_steps is a whole number"),
    ("run x --max-cost nan", MODEL, "--max-cost: 'nan' is not allowed"),
    ("run x --cell-timeout -1", MODEL, "--cell-timeout: '-1' is not allowed"),
    ("run x", MODEL | {"KERNEL_AGENT_MAX_STEPS": "ten"}, "KERNEL_AGENT_MAX_STEPS: 'ten'"),
    ("run x --data gone.csv", MODEL, "--data: there is no file 'gone.csv'. Check the path."),
    ("run x --data .", MODEL, "--data: '.' is a folder."),
    ("run x --out here.ipynb", MODEL, "--out: 'here.ipynb' exists, and no notebook is overwritten"),
    ("run x --out here.txt", MODEL, "--out: 'here.txt' is not the name of a notebook."),
    ("run x --out here.ipynb/a.ipynb", MODEL, "here.ipynb' is not a folder"),
    ("run x --folder here.ipynb", MODEL, "--folder: 'here.ipynb' is not a folder"),
    ("run x", MODEL | {"KERNEL_AGENT_FOLDER": "here.ipynb"}, "KERNEL_AGENT_FOLDER: 'here.ipynb'"),
    ("run x --kernel pyhton3", MODEL, "--kernel: no kernel 'pyhton3' is installed. Installed: "),
    ("run x --api-base http://localhost:1", {}, "--api-base: a server is set, but no model."),
    ("run x --quiet --json", MODEL, "--quiet and --json exclude each other."),
    ("run ' '", MODEL, "TASK is empty."),
    ("run -", MODEL, "TASK is empty."),
    ("run x", {"OPENAI_API_KEY": "s3cret", "XAI_API_KEY": "s3cret"}, "--model openai/"),
    ("run x --effort hard", MODEL, "--effort: 'hard' is not allowed. effort is one of none, "),
    ("run x --reply-format xml", MODEL, "--reply-format: 'xml' is not allowed"),
    ("run x", MODEL | {"KERNEL_AGENT_WINDOW": "32k"}, "KERNEL_AGENT_WINDOW: '32k'"),
    ("run x --image gone.png", MODEL, "--image: there is no file 'gone.png'. Check the path."),
    ("run x --audio .", MODEL, "--audio: '.' is a folder."),
    ("run x --video gone.mp4", MODEL, "--video: there is no file 'gone.mp4'."),
    ("run x --quiet --show-prompt", MODEL, "--quiet and --show-prompt exclude each other."),
    (
        "run x --model transformers/x --effort low",
        {},
        "--effort: 'transformers/x' runs in this process and takes no effort. Leave it out",
    ),
    (
        "run x --model transformers/x",
        {"KERNEL_AGENT_WINDOW": "9"},
        "KERNEL_AGENT_WINDOW: 'transformers/x' runs in this process and takes no window.",
    ),
    ("resume here.ipynb --data here.ipynb", {}, "--data: files belong to a task."),
    ("fork here.ipynb --at 1 --image here.ipynb", {}, "--image: files belong to a task."),
    ("run x --prompts gone", MODEL, "--prompts: there is no folder 'gone'"),
    ("demo --out here.ipynb", {}, "--out: 'here.ipynb' exists"),
    ("show gone.ipynb", {}, "there is no file 'gone.ipynb'"),
]


@pytest.mark.parametrize(("arguments", "environ", "words"), USAGE_ERRORS)
def test_a_bad_argument_is_told_before_anything_is_written(
    folder: Path, arguments: str, environ: dict[str, str], words: str
) -> None:
    (folder / "here.ipynb").write_text("mine")
    split = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", arguments)]
    result = kernel_agent_command(*split, environ=environ, stdin=" \n")
    assert words in result.stderr
    assert "s3cret" not in result.output
    assert result.exit_code == 2
    assert result.stdout == ""
    assert [path.name for path in folder.iterdir()] == ["here.ipynb"]
    assert (folder / "here.ipynb").read_text() == "mine"


def test_a_task_that_is_no_text_is_refused(folder: Path) -> None:
    result = kernel_agent_command("run", "-", environ=MODEL, stdin=b"\xff\xfe\xff")
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr


def test_a_bad_config_file_is_told_with_its_line(folder: Path) -> None:
    config = config_file()
    assert config.is_relative_to(folder.parent)
    config.parent.mkdir(parents=True)
    config.write_text("# limits\nmax_step = 3\n")
    result = kernel_agent_command("run", "x")
    assert result.exit_code == 2
    assert "config.toml line 2: no setting 'max_step'. Did you mean 'max_steps'?" in result.stderr
    assert "no setting 'max_step'" in kernel_agent_command("doctor").stdout


def test_what_is_no_transcript_is_refused_in_one_line(folder: Path) -> None:
    (folder / "not.ipynb").write_text("{}")
    result = kernel_agent_command("show", "not.ipynb")
    assert result.exit_code == 1
    assert "not.ipynb" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_show_prints_a_recorded_run(folder: Path) -> None:
    record(folder / "run.ipynb")
    result = kernel_agent_command("show", "run.ipynb")
    assert result.exit_code == 0
    for words in ("What is it?", "some/model", "I know.", "│ final_answer(42)", "Answer\n\n42\n"):
        assert words in result.stdout


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    result = kernel_agent_command("--version")
    assert result.stdout == f"kernel-agent {project['version']}\n"
    assert result.exit_code == 0


def test_doctor_names_keys_but_never_tells_them(folder: Path) -> None:
    environ = {"OPENAI_API_KEY": "s3cret", "KERNEL_AGENT_MAX_STEP": "3", "KERNEL_AGENT_KERNEL": "x"}
    result = kernel_agent_command("doctor", environ=environ)
    assert result.exit_code == 0
    assert "s3cret" not in result.output
    for words in (
        "OPENAI_API_KEY",
        "litellm ",
        "python3 ",
        "KERNEL_AGENT_KERNEL\n",
        "KERNEL_AGENT_MAX_STEP is set, but there is no such setting",
        "the kernel 'x' is not installed; KERNEL_AGENT_KERNEL sets it",
    ):
        assert words in result.stdout
    assert list(folder.iterdir()) == []


def imported_by(code: str) -> set[str]:
    """The names of the modules that a fresh Python has imported after `code`."""
    code = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stderr.split())


HEAVY = {"litellm", "pandas", "jupyter_client", "nbformat", "rich", "jinja2", "typer"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    imported = imported_by("import kernel_agent; dir(kernel_agent)")
    assert imported & HEAVY == set()
    assert {name for name in imported if name.startswith("kernel_agent")} == {"kernel_agent"}


def test_help_does_not_wait_for_what_only_a_run_needs() -> None:
    code = "import kernel_agent.cli as c\ntry: c.app(['run', '--help'])\nexcept SystemExit: pass"
    assert imported_by(code) & HEAVY == {"typer"}


def test_every_exported_name_is_there() -> None:
    for name in kernel_agent.__all__:
        assert getattr(kernel_agent, name) is not None
        assert name in dir(kernel_agent)
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        kernel_agent.Agnet  # noqa: B018


def server_arguments(server: OpenAIServer) -> tuple[str, ...]:
    return ("--model", "openai/test", "--api-base", server.url)


def test_a_quiet_run_prints_the_answer_alone_and_leaves_a_notebook(folder: Path) -> None:
    (folder / "data.csv").write_text("a,b\n1,2\n")
    with OpenAIServer([ANSWER]) as server:
        result = kernel_agent_command(
            "run", "-", "--data", "data.csv", "--out", "out/it.ipynb", "--quiet",
            *server_arguments(server),
            environ={"OPENAI_API_KEY": "sk-test"}, stdin="What is six times seven?\n",
        )  # fmt: skip
        assert "data.csv" in json.dumps(server.requests[0].body)
    assert (result.exit_code, result.stdout) == (0, "42\n"), result.output
    transcript = Transcript.load(folder / "out" / "it.ipynb")
    assert transcript.tasks[0].text == "What is six times seven?"
    assert transcript.answer == 42


def test_what_is_set_for_the_model_is_sent_and_recorded_and_a_flag_changes_it_on_resuming(
    folder: Path,
) -> None:
    (folder / "prompts").mkdir()
    (folder / "prompts" / "task.md").write_text("Task: {{ task }}")
    words = ("--prompts", "prompts", "--instructions", "Answer in French.")
    model = ("--effort", "low", "--reply-format", "fence", "--window", "90000")
    with OpenAIServer([ANSWER, ANSWER]) as server:
        where = ("--model", "openai/gpt-5", "--api-base", server.url)
        environ = {"OPENAI_API_KEY": "sk-test", "KERNEL_AGENT_REQUESTS_PER_MINUTE": "100"}
        first = kernel_agent_command(
            "run", "x", "--quiet", "--out", "it.ipynb", *words, *model, *where, environ=environ
        )
        second = kernel_agent_command(
            "resume", "it.ipynb", "y", "--quiet", "--effort", "high",
            environ={"OPENAI_API_KEY": "sk-test"},
        )  # fmt: skip
        bodies = [request.body for request in server.requests]
    assert (first.stdout, second.stdout) == ("42\n", "42\n"), first.output + second.output
    assert [body["reasoning_effort"] for body in bodies] == ["low", "high"]
    system, task = bodies[0]["messages"]
    assert system["content"].endswith("\n\nAnswer in French.")
    assert task["content"] == "Task: x"
    about = Transcript.load(folder / "it.ipynb").about["model"]["parameters"]
    expected = {"reasoning_effort": "low", "window": 90000, "requests_per_minute": 100}
    assert expected.items() <= about.items()


def test_the_first_request_is_shown_with_its_tokens_and_nothing_is_sent_or_written(
    folder: Path,
) -> None:
    (folder / "rain.csv").write_text("month,mm\n1,120.5\n")
    arguments = ("run", "How much rain?", "--data", "rain.csv", "--out", "it.ipynb")
    with OpenAIServer([ANSWER]) as server:
        shown = kernel_agent_command(*arguments, "--show-prompt", *server_arguments(server))
        assert server.requests == []
        assert [path.name for path in folder.iterdir()] == ["rain.csv"]
        sent = kernel_agent_command(*arguments, "--quiet", *server_arguments(server))
        (request,) = server.requests
    assert (shown.exit_code, sent.exit_code) == (0, 0), shown.output + sent.output
    system, task = (message["content"] for message in request.body["messages"])
    said = f"── system ──\n{system}\n\n── user ──\n{task}\n\n── "
    assert shown.stdout.startswith(said)
    tokens = re.fullmatch(r"([\d,]+) tokens ──\n", shown.stdout.removeprefix(said))
    assert tokens
    assert 500 < int(tokens[1].replace(",", "")) < 1500


@pytest.mark.usefixtures("no_waits")
def test_a_fallback_is_asked_when_the_first_model_stays_down(folder: Path) -> None:
    with OpenAIServer([Status(503, retry_after=0)] * 9) as down, OpenAIServer([ANSWER]) as up:
        environ = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": up.url}
        result = kernel_agent_command(
            "run", "x", "--json", "--fallback", "openai/spare",
            *server_arguments(down), environ=environ | {"OPENAI_API_BASE": up.url},
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    (changed,) = [event for event in events if event["event"] == "ModelChanged"]
    assert changed["model"] == "openai/spare"
    (received,) = [event for event in events if event["event"] == "ReplyReceived"]
    assert received["reply"]["model"] == "openai/spare"


def test_a_picture_goes_with_the_task(folder: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    with OpenAIServer([ANSWER]) as server:
        where = ("--model", "openai/gpt-4o", "--api-base", server.url)
        result = kernel_agent_command(
            "run", "Which colour?", "--image", "red.png", "--quiet", *where,
            environ={"OPENAI_API_KEY": "sk-test"},
        )  # fmt: skip
        (request,) = server.requests
    assert result.stdout == "42\n", result.output
    _, task = request.body["messages"]
    assert task["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_misnamed_prompt_file_is_told_before_anything_is_started(folder: Path) -> None:
    (folder / "words").mkdir()
    (folder / "words" / "systm.md").write_text("You are brief.")
    result = kernel_agent_command("run", "x", "--prompts", "words", environ=MODEL)
    assert result.exit_code == 2
    assert "--prompts: Prompt 'systm.md': no prompt has this name" in result.stderr
    assert "Did you mean 'system.md'?" in result.stderr


def test_the_code_runs_in_the_python_that_is_asked_for(folder: Path) -> None:
    arguments = ("run", "x", "--quiet", "--python", sys.executable)
    with OpenAIServer([ANSWER]) as server:
        environ = {"OPENAI_API_KEY": "sk-test"}
        result = kernel_agent_command(*arguments, *server_arguments(server), environ=environ)
    assert (result.exit_code, result.stdout) == (0, "42\n"), result.output
    (notebook,) = (folder / "runs").glob("*.ipynb")
    kernelspec = json.loads(notebook.read_text())["metadata"]["kernelspec"]
    assert kernelspec["display_name"].startswith("Python (")


@pytest.mark.slow
def test_a_package_that_does_not_exist_ends_the_run_after_the_progress(folder: Path) -> None:
    with OpenAIServer([ANSWER]) as server:
        result = kernel_agent_command(
            "run", "x", "--quiet", "--with", "no-such-package-1", "--with", "no-such-package-2",
            *server_arguments(server), environ={"OPENAI_API_KEY": "sk-test"},
        )  # fmt: skip
        assert server.requests == []
    assert result.exit_code == 1, result.output
    first, *_, last = result.stderr.splitlines()
    assert first.startswith("Making an environment with no-such-package-1, no-such-package-2")
    assert "could not be made" in last
    assert not (folder / "runs").exists()


def test_a_limit_without_an_answer_has_a_code_of_its_own(folder: Path) -> None:
    with OpenAIServer(["```python\nx = 1\n```", "```python\nx = 2\n```"]) as server:
        result = kernel_agent_command(
            "run", "x", "--max-steps", "1", "--quiet", *server_arguments(server),
            environ={"OPENAI_API_KEY": "sk-test"},
        )  # fmt: skip
    assert result.exit_code == 3, result.output
    assert result.stdout == ""
    assert "max_steps" in result.stderr


def test_at_a_terminal_a_failure_is_told_once_with_how_to_go_on(
    tmp_path: Path, lent_kernel: Kernel, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = tmp_path / "a run.ipynb"
    with (
        Agent(ScriptedModel([]), kernel=lent_kernel) as agent,
        pytest.raises(typer.Exit) as left,
    ):
        run_task(agent, "What?", [], {}, out=out, quiet=False, watched=True)
    assert left.value.exit_code == 1
    error = plain_text(capsys.readouterr().err)
    assert error == f"To go on: kernel-agent resume '{out}'\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_error_breaks_at_words_in_a_terminal_and_nowhere_else(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    print_error("A name is like 'openai/gpt-5-of-today-and-tomorrow'.\n  what has an indent")
    end = "\n" if is_terminal else " "
    assert plain_text(capsys.readouterr().err) == (
        f"A name is like{end}'openai/gpt-5-of-today-and-tomorrow'.\n  what has an indent\n"
    )


def test_a_failed_run_is_one_line_on_stderr_and_events_are_json(folder: Path) -> None:
    with OpenAIServer([Status(401, "Incorrect API key provided.")]) as server:
        result = kernel_agent_command(
            "run", "x", "--json", *server_arguments(server), environ={"OPENAI_API_KEY": "sk-test"}
        )
    assert result.exit_code == 1, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["RunStarted", "ReplyStarted", "RunFinished"]
    assert events[-1]["outcome"]["status"] == "failed"
    assert len(result.stderr.splitlines()) == 1


# The command with a model that says what its first argument is: litellm takes seconds to load.
SCRIPTED = """
import sys
from kernel_agent import ScriptedModel, resuming
from kernel_agent.cli import main

model = ScriptedModel([sys.argv.pop(1)])
model.prepare = lambda: None
resuming.model_named = lambda *given: model
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
    ids=["ctrl-c", "terminate"],
)
def test_a_signal_ends_a_run_tidily(folder: Path, how: signal.Signals, code: int) -> None:
    sleeping = "```python\nprint('asleep', flush=True)\nimport time\ntime.sleep(100)\n```"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPTED, sleeping, "run", "x", "--json", "--model", "openai/test"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OPENAI_API_KEY": "sk-test", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout
    for line in process.stdout:
        if '"asleep' in line and "OutputReceived" in line:
            break
    process.send_signal(how)
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    if how == signal.SIGINT:
        assert json.loads(rest.splitlines()[-1])["outcome"]["status"] == "interrupted"
    assert "Traceback" not in errors
    (notebook,) = folder.rglob("*.ipynb")
    assert "asleep" in notebook.read_text()


def test_the_demo_runs_for_real_and_says_what_is_scripted(folder: Path) -> None:
    if not (shipped("notebooks") / DEMO_NOTEBOOK).exists():
        pytest.skip("the notebook is not there")
    result = kernel_agent_command("demo", "--out", "demo.ipynb")
    assert result.exit_code == 0, result.output
    assert "scripted" in result.stderr
    assert "Answer\n" in result.stdout
    assert Transcript.load(folder / "demo.ipynb").outcome == Outcome("answered")


RUN_ERRORS = [
    (
        "--model nope/gpt",
        {},
        "Model 'nope/gpt': there is no such provider. A name is `provider/",
        0,
    ),
    ("--model openai/gpt-5", {}, "there is no key for it. Set it in the environment (OPENAI_", 0),
    ("--model openai/gpt-5 --api-base nonsense", {}, "`api_base` is no URL", 1),
    ("--model openai/any --api-base {url}", {"OPENAI_API_KEY": "sk-wr0ng-key"}, "wrong key", 1),
]


@pytest.mark.parametrize(("arguments", "environ", "words", "notebooks"), RUN_ERRORS)
def test_a_model_that_cannot_be_asked_is_one_line_on_stderr(
    folder: Path, arguments: str, environ: dict[str, str], words: str, notebooks: int
) -> None:
    with OpenAIServer([Status(401, "wrong key sk-wr0ng-key")]) as server:
        options = arguments.format(url=server.url).split()
        done = kernel_agent_command("run", "x", "--quiet", *options, environ=environ)
    assert done.exit_code == 1
    assert words in done.stderr
    assert "sk-wr0ng-key" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(list(folder.rglob("*.ipynb"))) == notebooks


def test_a_server_of_ones_own_needs_no_key(folder: Path) -> None:
    with OpenAIServer([ANSWER]) as server:
        done = kernel_agent_command(
            "run", "x", "--quiet", "--model", "openai/any", "--api-base", server.url
        )
    assert done.stdout == "42\n"


def test_a_streamed_run_on_a_real_table_shows_everything_as_plain_text(folder: Path) -> None:
    (folder / "rain.csv").write_text("month,mm\n1,120.5\n2,90\n")
    look = "I sum it.\n```python\nimport pandas as pd\nrain = pd.read_csv('rain.csv')\nrain\n```"
    answer = "```python\nfinal_answer(float(rain['mm'].sum()))\n```"
    with OpenAIServer([look, answer]) as server:
        options = ["--model", "openai/any", "--api-base", server.url, "--data", "rain.csv"]
        done = kernel_agent_command("run", "How much rain?", *options)
    assert done.exit_code == 0, done.stderr
    assert [request.body["stream"] for request in server.requests] == [True, True]
    assert '"mm": float64' in server.requests[0].body["messages"][1]["content"]
    for words in ("How much rain?", "I sum it.", "rain = pd.read_csv", "120.5", "210.5", "2 steps"):
        assert words in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_a_cell_asks_the_user_at_the_terminal(folder: Path) -> None:
    import pty

    source = "name = input('Your ' + 'name? ')\nprint(name.upper())"
    seen = b""
    with OpenAIServer([f"```python\n{source}\n```", "Done."]) as server:
        ours, theirs = pty.openpty()
        command = [
            sys.executable,
            "-m",
            "kernel_agent",
            "run",
            "Greet me.",
            "--model",
            "openai/any",
        ]
        process = subprocess.Popen(
            [*command, "--api-base", server.url], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        while select.select([ours], [], [], 30)[0]:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if b"Your name? " in seen + piece and b"Your name? " not in seen:
                os.write(ours, b"Ada\n")
            seen += piece
        os.close(ours)
        code = process.wait(20)
    assert code == 0, seen
    assert b"ADA" in seen
