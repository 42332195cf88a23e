import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kernel_agent.errors import DeadKernelError, KernelStartError
from kernel_agent.kernel import Kernel, driver


def text_of(result):
    return "".join(o["text"] for o in result.outputs if o["output_type"] == "stream")


def test_state_stays_from_cell_to_cell_and_outputs_come_in_order(kernel):
    kernel.execute("x = 20")
    result = kernel.execute("print('out')\nimport sys\nprint('err', file=sys.stderr)\nx + 1")
    kinds = [(o["output_type"], o.get("name")) for o in result.outputs]
    assert kinds == [("stream", "stdout"), ("stream", "stderr"), ("execute_result", None)]
    assert result.outputs[-1]["data"] == {"text/plain": "21"}
    assert result.status == "ok"
    assert result.seconds > 0


def test_an_error_is_a_result_and_keeps_what_was_printed_before(kernel):
    result = kernel.execute("kept = 1\nprint('before')\n1 / 0")
    assert result.status == "error"
    assert text_of(result) == "before\n"
    assert result.outputs[-1]["ename"] == "ZeroDivisionError"
    assert kernel.execute("kept").outputs[0]["data"]["text/plain"] == "1"


def test_an_exception_group_is_an_error_output_too(kernel):
    result = kernel.execute("raise ExceptionGroup('two', [ValueError('a'), KeyError('b')])")
    assert result.status == "error"
    assert result.outputs[-1]["ename"] == "ExceptionGroup"


def test_outputs_are_told_while_the_cell_runs(kernel, tmp_path):
    gate = tmp_path / "gate"
    heard = []

    def listen(output):
        heard.append(output["text"])
        gate.touch()  # the cell waits for this: it is heard before the cell's end

    source = (
        "import pathlib, time\nprint('now', flush=True)\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\nprint('then')"
    )
    assert kernel.execute(source, timeout=20, listen=listen).status == "ok"
    assert "".join(heard) == "now\nthen\n"


def test_progress_is_told_while_a_long_cell_runs(kernel, tmp_path):
    gate = tmp_path / "gate"
    seen = []

    def progress(outputs):
        seen.append(outputs[0]["text"])
        gate.touch()

    source = (
        "import pathlib, time\nprint('so far', flush=True)\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)"
    )
    assert kernel.execute(source, timeout=20, progress=progress).status == "ok"
    assert seen == ["so far\n"]


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("a = 1; b = 'text'; c = [1, 2]", {"a": "1", "b": "'text'", "c": "list 2"}),
        ("import math", {}),
        ("def f(): pass\nfrom pathlib import Path", {}),
        ("_private = 1", {}),
        ("z = 'x' * 1000", {"z": "str 1000"}),
        ("import numpy as np\nm = np.zeros((2, 3))", {"m": "ndarray 2×3"}),
        ("import numpy as np\nn = np.float64(1.5)", {"n": "1.5"}),
        (
            "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]}); s = df['a']",
            {"df": "DataFrame 2×1", "s": "Series 2"},
        ),
    ],
)  # fmt: skip
def test_new_variables_are_summarised(kernel, source, variables):
    assert kernel.execute(source).variables == variables


def test_variables_say_what_a_cell_changed_and_nothing_else(kernel):
    kernel.execute("same = [1]; grows = [1]")
    assert kernel.execute("grows.append(2)").variables == {"grows": "list 2"}
    assert kernel.execute("late = 1\nraise ValueError").variables == {"late": "1"}


def test_variables_never_run_code_of_the_users_classes(kernel):
    source = (
        "class Evil:\n    def __repr__(self): raise SystemExit\n"
        "    def __len__(self): raise SystemExit\n"
        "    def __getattr__(self, name): raise SystemExit\n"
        "evil = Evil()"
    )
    result = kernel.execute(source)
    assert result.status == "ok"
    assert result.variables["evil"] == "Evil"


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("42", {"value": 42}),
        ("'**bold**'", {"value": "**bold**"}),
        ("{'a': [1, 2.5, None]}", {"value": {"a": [1, 2.5, None]}}),
        ("__import__('numpy').float64(2.5)", {"value": 2.5}),
        ("(1, 2)", {"value": [1, 2]}),
        (
            "{1: 'a'}",
            {"encoded": {"$kernel_agent": "dict", "items": [[1, "a"]]}, "text": "{1: 'a'}"},
        ),
        ("float('nan')", {"encoded": {"$kernel_agent": "float", "text": "nan"}, "text": "nan"}),
        ("object", {"text": "object"}),
    ],
)
def test_final_answer_publishes_the_value_beside_its_rich_form(kernel, value, answer):
    output = kernel.execute(f"final_answer({value})").answer
    assert output["data"]["application/vnd.kernel_agent.answer+json"] == answer
    assert output["data"]["text/plain"]


def test_final_answer_survives_a_bare_except_and_a_table_keeps_its_html(kernel):
    source = (
        "import pandas as pd\ntry:\n    final_answer(pd.DataFrame({'a': [1]}))\n"
        "except:\n    print('eaten')"
    )
    result = kernel.execute(source)
    assert text_of(result) == ""
    assert "<table" in result.answer["data"]["text/html"]


def test_a_shadowed_final_answer_is_restored_and_the_model_told(kernel):
    result = kernel.execute("final_answer = 42")
    assert result.answer is None
    assert "final_answer(value)" in result.reason
    assert kernel.execute("final_answer(1)").answer


def test_wide_tables_are_shown_whole(kernel):
    source = "import pandas as pd\npd.DataFrame({f'column_{i}': [1] for i in range(15)})"
    assert "..." not in kernel.execute(source).outputs[0]["data"]["text/plain"]


@pytest.mark.parametrize(
    "source",
    [
        "import time; time.sleep(60)",
        "while True: pass",
        pytest.param("import asyncio; await asyncio.sleep(60)", marks=pytest.mark.slow),
        pytest.param("import subprocess; subprocess.run(['sleep', '60'])", marks=pytest.mark.slow),
    ],
)
def test_a_cell_over_its_time_is_interrupted_and_the_state_kept(kernel, source):
    kernel.execute("kept = 5")
    result = kernel.execute(f"print('partial')\n{source}", timeout=0.3)
    assert result.status == "interrupted"
    assert text_of(result) == "partial\n"
    assert "0.3 s" in result.reason
    assert "kept" in result.reason
    assert kernel.execute("kept").outputs[0]["data"]["text/plain"] == "5"


def test_the_time_is_a_total_however_often_the_cell_prints(kernel):
    source = "import time\nwhile True:\n    print('.', end='', flush=True)\n    time.sleep(0.01)"
    assert kernel.execute(source, timeout=0.2).status == "interrupted"


def test_another_thread_can_interrupt(kernel):
    result = kernel.execute(
        "import time\nprint('started', flush=True)\ntime.sleep(60)",
        listen=lambda output: threading.Thread(target=kernel.interrupt).start(),
    )
    assert result.status == "interrupted"
    assert "by the user" in result.reason


def test_input_and_getpass_are_answered_by_whoever_is_asked(kernel):
    asked = []

    def ask(prompt, password):
        asked.append((prompt, password))
        return "typed"

    source = "from getpass import getpass\ninput('Name? ') + getpass('Word? ')"
    result = kernel.execute(source, ask=ask, timeout=20)
    assert result.outputs[-1]["data"]["text/plain"] == "'typedtyped'"
    assert asked == [("Name? ", False), ("Word? ", True)]


def test_the_time_of_whoever_is_asked_is_not_the_cells(kernel):
    def ask(prompt, password):
        threading.Event().wait(0.4)
        return "at last"

    assert kernel.execute("input()", ask=ask, timeout=0.3).status == "ok"


@pytest.mark.parametrize("call", ["input()", "__import__('getpass').getpass()"])
def test_where_nobody_can_be_asked_input_fails_at_once(kernel, call):
    result = kernel.execute(call, timeout=20)
    assert result.status == "error"
    assert result.outputs[-1]["ename"] == "StdinNotImplementedError"


def test_no_secret_of_the_host_is_seen_from_inside(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("SOME_UNKNOWN_TOKEN", "sk-secret")
    with Kernel(env={"GIVEN": "yes"}) as kernel:
        source = "import json, os, subprocess\nprint(json.dumps(dict(os.environ)))"
        inside = text_of(kernel.execute(source))
        child = text_of(kernel.execute("print(subprocess.check_output('env', text=True))"))
    assert "sk-secret" not in inside + child
    assert json.loads(inside)["GIVEN"] == "yes"
    assert json.loads(inside)["PATH"] == os.environ["PATH"]


def test_an_unknown_kernelspec_names_those_that_are_installed():
    with pytest.raises(KernelStartError, match=r"'pyhton3'.*no such kernelspec.*python3"):
        Kernel("pyhton3").start()


def test_a_missing_folder_is_said_before_anything_starts(tmp_path):
    with pytest.raises(KernelStartError, match=r"gone.*does not exist"):
        Kernel(cwd=tmp_path / "gone").start()


def kernelspec(folder: Path, *argv: str) -> None:
    spec = folder / "kernels" / "broken"
    spec.mkdir(parents=True)
    content = {"argv": list(argv), "display_name": "broken", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(content))


def test_a_kernel_that_dies_at_start_shows_its_last_words(tmp_path, monkeypatch):
    program = "import sys; sys.exit('no module named luck')"
    kernelspec(tmp_path, sys.executable, "-c", program, "{connection_file}")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(KernelStartError, match="no module named luck"):
        Kernel("broken").start()


def test_a_kernel_that_never_answers_is_given_up_at_the_deadline(tmp_path, monkeypatch):
    program = "import time; time.sleep(600)"
    kernelspec(tmp_path, sys.executable, "-c", program, "{connection_file}")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setattr(driver, "SHUTDOWN_SECONDS", 0.1)  # nor does it end by itself
    with pytest.raises(KernelStartError, match=r"no answer within 0\.3 s"):
        Kernel("broken", start_timeout=0.3).start()


def test_a_kernel_that_was_not_started_cannot_execute():
    with pytest.raises(DeadKernelError, match="start"):
        Kernel().execute("1")


def test_a_kernel_that_was_not_started_touches_no_file_when_it_is_shut_down(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").touch()
    Kernel().shutdown()
    with pytest.raises(KernelStartError):
        Kernel("pyhton3").start()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """The folders in which a kernel leaves files, made empty and watched."""
    for name in ("JUPYTER_RUNTIME_DIR", "TMPDIR", "XDG_RUNTIME_DIR"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    return lambda: sorted(
        str(p) for p in tmp_path.rglob("*") if not p.is_dir() or p.name[:7] == "kernel-"
    )


def test_after_the_block_no_file_and_no_process_is_left(runtime):
    with pytest.raises(RuntimeError), Kernel() as kernel:
        source = "import os, subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
        printed = text_of(kernel.execute(source + "print(os.getpid(), child.pid)"))
        assert any("kernel-" in path for path in runtime())
        raise RuntimeError
    assert runtime() == []
    for pid in map(int, printed.split()):
        assert not runs(pid)


# It never lets another thread of its own run: only somebody else can end it.
BLOCKED = """
import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
while not pathlib.Path({gate!r}).exists(): time.sleep(0.01)
pow(7, 10**9)
"""

AGENT = """
import pathlib, sys
from kernel_agent.kernel import Kernel

def listen(output):
    print(output["text"], end="", flush=True)
    pathlib.Path(sys.argv[2]).touch()

kernel = Kernel()
kernel.start()
kernel.execute(sys.argv[1], listen=listen)
"""


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_killed_agent_leaves_no_file_and_no_process(runtime, how, tmp_path_factory):
    gate = str(tmp_path_factory.mktemp("gate") / "gate")
    command = [sys.executable, "-c", AGENT, BLOCKED.format(gate=gate), gate]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        pids = [int(pid) for pid in agent.stdout.readline().split()]
        agent.send_signal(how)
    deadline = time.monotonic() + 20
    while (any(map(runs, pids)) or runtime()) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert len(pids) == 2
    assert not any(map(runs, pids))
    assert runtime() == []


def runs(pid: int) -> bool:
    """Whether a process is there and is no zombie waiting for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
