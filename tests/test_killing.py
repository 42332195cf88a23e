"""SIGKILL at random moments of a run: nothing finished is lost and nothing is left behind."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from kernel_agent.replay import replay
from kernel_agent.transcript import Transcript

PROGRAM = """
import sys
from kernel_agent import Agent, ScriptedModel
from kernel_agent.events import StepFinished

cells = [f"import time\\nfor i in range(20): print({n}, i); time.sleep(0.002)" for n in range(12)]
replies = [f"Step {n}.\\n```python\\n{cell}\\n```" for n, cell in enumerate(cells)]

def listen(event):
    if isinstance(event, StepFinished):
        print(event.number, flush=True)

with Agent(ScriptedModel([*replies, "Done."]), folder=sys.argv[1], listener=listen) as agent:
    agent.run("Count.")
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        name: str(folder) for name in ("TMPDIR", "JUPYTER_RUNTIME_DIR", "XDG_RUNTIME_DIR")
    }
    command = [sys.executable, "-c", PROGRAM, str(folder / "runs")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def left(folder: Path) -> list[str]:
    """The files of kernels in the folder, and the processes that were started with them."""
    files = [path.name for path in folder.iterdir() if path.name != "runs"]
    processes = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command:
            processes.append(command.decode(errors="replace"))
    return files + processes


def kill_at(moment: float, folder: Path) -> int:
    """Kills a run `moment` seconds after its start; returns the number of steps it had told of."""
    folder.mkdir()
    with start(folder) as run:
        threading.Timer(moment, run.kill).start()
        return len(run.stdout.readlines())


def check_what_is_there(folder: Path, told: int) -> None:
    """Soon nothing is left of a killed run but its notebook, with each step that was told of."""
    deadline = time.monotonic() + 20
    while left(folder) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert left(folder) == []
    for path in (folder / "runs").glob("*.ipynb"):
        nbformat.validate(nbformat.read(path, 4))
        transcript = Transcript.load(path)
        assert len(transcript.steps) >= told
        assert all(step.result.status == "ok" for step in transcript.steps if step.result)
        return
    assert told == 0


def kill_at_random(count: int, folder: Path) -> list[int]:
    started = time.monotonic()
    (folder / "whole").mkdir()
    with start(folder / "whole") as run:
        assert len(run.stdout.readlines()) == 13
    whole = time.monotonic() - started
    moments = random.Random(count)
    folders = [folder / str(number) for number in range(count)]
    told = [kill_at(moments.uniform(0.2, 1.0) * whole, each) for each in folders]
    for each, steps in zip(folders, told, strict=True):  # what is left goes meanwhile
        check_what_is_there(each, steps)
    return told


def kill_after(steps: int, run: subprocess.Popen[bytes]) -> int:
    """Kills a run that has told of so many steps; returns of how many it had told in the end."""
    with run:
        told = len([run.stdout.readline() for _ in range(steps)])
        run.kill()
        return told + len(run.stdout.readlines())


def test_a_killed_run_loses_no_finished_step_and_leaves_nothing(tmp_path):
    folders = [tmp_path / "early", tmp_path / "late"]
    for folder in folders:
        folder.mkdir()
    runs = [start(folder) for folder in folders]
    told = [kill_after(steps, run) for steps, run in zip((2, 7), runs, strict=True)]
    for folder, steps in zip(folders, told, strict=True):
        check_what_is_there(folder, steps)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_killed_runs_lose_no_finished_step_and_leave_nothing(tmp_path):
    told = kill_at_random(50, tmp_path)
    assert len(set(told)) > 5, "the moments were spread over the run"


RESUMABLE = """
import re, sys
from pathlib import Path
from kernel_agent import Agent, Transcript
from kernel_agent.resuming import resume

PARTS = 8

def model(messages):
    done = 0
    for message in messages[2:]:
        if message["role"] == "user" and "process ended" not in message["content"]:
            done = max([done, *map(int, re.findall(r"part (\\d+) done", message["content"]))])
    if done == PARTS:
        return "Now the sum.\\n```python\\nfinal_answer(sum(parts))\\n```"
    first = "parts = []\\n" if not done else ""
    part = f"for i in range(10): print(i); time.sleep(0.002)\\nparts.append({done + 1})"
    return f"```python\\nimport time\\n{first}{part}\\nprint('part {done + 1} done')\\n```"

folder = Path(sys.argv[1])
[notebook] = list(folder.glob("*.ipynb")) or [None]
if notebook is None:
    with Agent(model, folder=folder) as agent:
        run = agent.run("Add up.")
elif (done := Transcript.load(notebook)).outcome is not None:
    assert done.outcome.status == "answered"
    run = done
else:
    with resume(notebook, model=model) as agent:
        run = agent.run()
print("answer", run.answer)
"""


def start_resumable(folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        name: str(folder) for name in ("TMPDIR", "JUPYTER_RUNTIME_DIR", "XDG_RUNTIME_DIR")
    }
    command = [sys.executable, "-c", RESUMABLE, str(folder / "runs")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def answers_after_kills(count: int, folder: Path, *, at_once: int = 1) -> list[bytes]:
    """The answers of runs that were each killed at a random moment and then resumed."""

    def answer(number: int, moment: float | None) -> bytes:
        place = folder / str(number)
        place.mkdir(exist_ok=True)
        with start_resumable(place) as run:
            if moment is not None:
                threading.Timer(moment, run.kill).start()
            return run.stdout.read()

    started = time.monotonic()
    undisturbed = answer(0, None)
    whole = time.monotonic() - started
    assert undisturbed == b"answer 36\n"
    moments = random.Random(count)

    def killed_and_resumed(number: int, moment: float) -> bytes:
        answer(number, moment)
        return answer(number, None)

    with ThreadPoolExecutor(at_once) as pool:
        when = [moments.uniform(0.3, 1.0) * whole for _ in range(count)]
        return list(pool.map(killed_and_resumed, range(1, count + 1), when))


@pytest.mark.slow
def test_a_killed_run_that_is_resumed_ends_in_the_same_answer(tmp_path):
    assert answers_after_kills(2, tmp_path, at_once=2) == [b"answer 36\n"] * 2


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_killed_runs_that_are_resumed_end_in_the_same_answer(tmp_path):
    count = int(os.environ.get("KERNEL_AGENT_KILLS", "30"))
    assert answers_after_kills(count, tmp_path) == [b"answer 36\n"] * count


ADDING = {
    "tools": [
        {
            "name": "add",
            "inputSchema": {"type": "object", "additionalProperties": True},
            "outputSchema": {"type": "object", "properties": {"result": {"type": "integer"}}},
        }
    ],
    "results": {
        "add": {"content": [{"type": "text", "text": "5"}], "structuredContent": {"result": 5}}
    },
}

WITH_TOOLS = """
import re, sys
from pathlib import Path
from kernel_agent import Agent
from kernel_agent.resuming import resume

folder, server = Path(sys.argv[1]), sys.argv[2]
CELLS = [
    "a = price('tea')",
    "b = add(a=2, b=3)['result']",
    "c = doubler('Double 4.')",
    "import time; time.sleep(60) if not resumed() else None",
    "final_answer([a, b, c])",
]

def price(item: str) -> float:
    'What an item costs.'
    with (folder / "calls").open("a") as file:
        file.write("price ")
    return 2.5

def resumed() -> bool:
    'Whether this is the second try.'
    print("waiting", flush=True)
    return "resume" in sys.argv

def model(messages):
    done = sum(m["role"] == "user" and "process ended" not in m["content"] for m in messages[2:])
    return f"```python\\n{CELLS[done]}\\n```"

def doubles(messages):
    with (folder / "calls").open("a") as file:
        file.write("doubler ")
    return "```python\\nfinal_answer(8)\\n```"

options = {
    "tools": [price, resumed],
    "mcp": [{"command": sys.executable, "args": [server, str(folder / "add.json")]}],
    "agents": [Agent(doubles, name="doubler", description="Doubles.")],
}
if "resume" in sys.argv:
    [notebook] = [p for p in folder.glob("*.ipynb") if "doubler" not in p.name]
    with resume(notebook, model=model, **options) as agent:
        run = agent.run()
else:
    with Agent(model, folder=folder, cwd=folder, **options) as agent:
        run = agent.run("Go.")
print("answer", run.answer)
"""


@pytest.mark.slow
def test_a_killed_run_with_tools_mcp_and_a_sub_agent_repeats_no_call_and_replays(tmp_path):
    pytest.importorskip("mcp")
    server = Path(__file__).parent / "mcp_servers" / "raw.py"
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "add.json").write_text(json.dumps(ADDING))
    command = [sys.executable, "-c", WITH_TOOLS, str(folder), str(server)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"waiting\n"
        run.kill()
    done = subprocess.run([*command, "resume"], capture_output=True, check=True, timeout=100)
    assert done.stdout.endswith(b"answer [2.5, 5, 8]\n")
    assert (folder / "calls").read_text() == "price doubler "
    [notebook] = [path for path in folder.glob("*.ipynb") if "doubler" not in path.name]
    # Neither the functions, nor the server, nor the model are there now.
    assert replay(notebook).holds
