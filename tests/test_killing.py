"""SIGKILL at random moments of a run: nothing finished is lost and nothing is left behind."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest

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
        told = len(run.stdout.readlines())
    deadline = time.monotonic() + 20
    while left(folder) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert left(folder) == []
    for path in (folder / "runs").glob("*.ipynb"):
        nbformat.validate(nbformat.read(path, 4))
        transcript = Transcript.load(path)
        assert len(transcript.steps) >= told
        assert all(step.result.status == "ok" for step in transcript.steps if step.result)
        return told
    assert told == 0
    return 0


def kill_at_random(count: int, folder: Path) -> list[int]:
    started = time.monotonic()
    (folder / "whole").mkdir()
    with start(folder / "whole") as run:
        assert len(run.stdout.readlines()) == 13
    whole = time.monotonic() - started
    moments = random.Random(count)
    return [kill_at(moments.uniform(0.2, 1.0) * whole, folder / str(n)) for n in range(count)]


def test_a_killed_run_loses_no_finished_step_and_leaves_nothing(tmp_path):
    kill_at_random(4, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_killed_runs_lose_no_finished_step_and_leave_nothing(tmp_path):
    told = kill_at_random(50, tmp_path)
    assert len(set(told)) > 5, "the moments were spread over the run"
