import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from kernel_agent.errors import KernelStartError
from kernel_agent.kernel import Kernel

NOTICED = 0.5
SLACK = 2.0  # seconds that a busy machine may add


def text_of(result):
    return "".join(o["text"] for o in result.outputs if o["output_type"] == "stream")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("exit()", "exit()"),
        ("quit()", "exit()"),
    ],
)
def test_a_death_is_noticed_at_once_and_says_why(kernel, source, why):
    result = kernel.execute(source, timeout=30)
    assert result.status == "died"
    assert result.stopped_by == ""
    assert why in result.reason
    assert "variables are lost" in result.reason
    assert result.seconds < NOTICED + SLACK
    assert not kernel.is_alive


def test_what_was_printed_before_a_sudden_exit_is_kept(kernel):
    result = kernel.execute("print('before')\nimport os; os._exit(1)")
    assert text_of(result) == "before\n"


def test_a_segfault_shows_the_line_that_caused_it_and_nothing_of_the_kernels_own(kernel):
    said = text_of(kernel.execute("import ctypes\nctypes.string_at(0)"))
    assert "Fatal Python error: Segmentation fault" in said
    assert "line 2 in <module>" in said
    assert "/ipykernel/" not in said
    assert "Extension modules" not in said


def test_sys_exit_is_an_error_that_keeps_the_kernel(kernel):
    result = kernel.execute("kept = 1\nimport sys; sys.exit(3)")
    assert result.status == "error"
    assert kernel.execute("kept").status == "ok"


def test_too_much_memory_is_an_error_that_keeps_the_kernel(kernel):
    limit = (
        "import resource\nlimits = resource.getrlimit(resource.RLIMIT_AS)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8_000_000_000, limits[1]))\n"
        "try: bytearray(100_000_000_000)\n"
        "finally: resource.setrlimit(resource.RLIMIT_AS, limits)"
    )
    result = kernel.execute(limit)
    assert (result.status, result.outputs[-1]["ename"]) == ("error", "MemoryError")
    assert kernel.execute("1").status == "ok"


def test_a_kernel_that_died_while_idle_runs_nothing_and_says_so(kernel):
    pid = int(kernel.execute("import os; os.getpid()").outputs[0]["data"]["text/plain"])
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not kernel.is_alive)
    result = kernel.execute("1")
    assert result.status == "died"
    assert "before the cell could begin, killed by SIGKILL" in result.reason


def wait_until(holds, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="found by way of /proc")
@pytest.mark.parametrize("death", ["import os; os._exit(1)", "exit()"])
def test_what_a_dead_kernel_has_started_is_ended_even_in_a_session_of_its_own(kernel, death):
    source = (
        "import subprocess\n"
        "near = subprocess.Popen(['sleep', '600'])\n"
        "far = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "print(near.pid, far.pid)\n"
    )
    result = kernel.execute(source + death)
    assert result.status == "died"
    for pid in map(int, text_of(result).split()):
        assert wait_until(lambda pid=pid: not runs(pid))


DIES_ONCE = """
import os, pathlib, runpy, sys
flag = pathlib.Path({flag!r})
if flag.exists():
    sys.exit("out of luck")
sys.argv = ["ipykernel_launcher", "-f", sys.argv[1]]
runpy.run_module("ipykernel_launcher", run_name="__main__")
"""


@pytest.fixture
def moody(tmp_path, monkeypatch):
    """A kernel that does not start while the file `flag` exists."""
    flag = tmp_path / "flag"
    spec = tmp_path / "kernels" / "moody"
    spec.mkdir(parents=True)
    program = DIES_ONCE.format(flag=str(flag))
    content = {
        "argv": [sys.executable, "-c", program, "{connection_file}"],
        "display_name": "moody",
        "language": "python",
    }
    (spec / "kernel.json").write_text(json.dumps(content))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernel = Kernel("moody")
    yield kernel, flag
    kernel.shutdown()


def test_a_kernel_that_died_while_starting_can_be_started_again(moody):
    kernel, flag = moody
    flag.touch()
    with pytest.raises(KernelStartError, match=r"(?s)exit code 1.*out of luck"):
        kernel.start()
    flag.unlink()
    kernel.start()
    assert kernel.execute("1").status == "ok"


@pytest.mark.parametrize(
    "again", [Kernel.start, pytest.param(Kernel.restart, marks=pytest.mark.slow)]
)
def test_a_kernel_that_died_during_a_restart_can_be_started_again(moody, again):
    kernel, flag = moody
    kernel.start()
    flag.touch()
    with pytest.raises(KernelStartError, match="out of luck"):
        kernel.restart()
    assert not kernel.is_alive
    flag.unlink()
    again(kernel)
    assert kernel.execute("1").status == "ok"
