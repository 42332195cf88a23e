"""A cell may put out any amount: the agent's memory, and its waiting, stay bounded."""

import json
import os
import subprocess
import sys
import threading

import pytest

from kernel_agent.kernel.bounded import MAX_CHARS, MAX_OUTPUTS
from kernel_agent.observation import observe

# By hand, for eight minutes: KERNEL_AGENT_FIGURES=10000 pytest -m slow -k figures
FIGURES = int(os.environ.get("KERNEL_AGENT_FIGURES", "1200"))

# Executes a cell in a process of its own, whose memory nothing else uses.
MEASURE = """
import json, resource, sys, time
from pathlib import Path
from kernel_agent.kernel import Kernel
from kernel_agent.observation import observe
from kernel_agent.steps import Reply, Step, Task
from kernel_agent.transcript import Transcript

source, folder = sys.argv[1:]
status = lambda name: int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])
with Kernel() as kernel:
    kernel.execute("import time")
    transcript = Transcript("s", path=Path(folder) / "t.ipynb")
    transcript.add(Task("t", "t"))
    step = Step(Reply("r"), "r")
    transcript.begin(step)
    idle = status("VmRSS")
    source += "\\nended = time.time()"
    result = kernel.execute(source, timeout=900, progress=transcript.show)
    back = time.time()
    observation = observe(result, images=True)
    transcript.add(Step(Reply("r"), "r", result=result, observation=observation))
    peak = status("VmHWM")
    saved = time.time()
    ended = kernel.execute("print(ended)").outputs[0]["text"]
    texts = [o.get("text") or o.get("data", {}).get("text/plain") or "" for o in result.outputs]
    print(json.dumps({
        "status": result.status, "reason": result.reason, "outputs": len(result.outputs),
        "megabytes": (peak - idle) / 1024, "seconds": result.seconds, "seen": observation.text,
        "after_end": back - float(ended), "saving": saved - back,
        "characters": sum(map(len, texts)), "note": [t for t in texts if "not kept" in t][:1] != [],
    }))
"""

FLOODS = {
    "100,000 displays": "for n in range(100_000): display(n)",
    "1 GB of print": "line = 'x' * 99\nfor n in range(10_000_000): print(line)",
    "1 GB of print at once": "line = 'x' * 999_999\nfor n in range(1000): print(line)",
    "a line of 200 MB": "print('é' * 200_000_000)",
    "a result of 200 MB": "display('y' * 200_000_000)",
    "a table of 50 MB": (
        "import pandas as pd\npd.set_option('display.max_rows', None)\n"
        "display(pd.DataFrame({c: range(400_000) for c in 'abcdefghijkl'}))"
    ),
    "1 GB of a subprocess": "import os\nos.system('yes 0123456789 2>&1 | head -c 1000000000')",
    "figures": (
        f"import matplotlib.pyplot as plt\nfor n in range({FIGURES}):\n"
        "    plt.figure(figsize=(1, 1)); plt.plot([n]); plt.show()"
    ),
}


def measure(source, folder, seconds):
    command = [sys.executable, "-c", MEASURE, source, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells a process's memory")
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_costs_little_memory_and_the_run_goes_on_soon(name, tmp_path):
    found = measure(FLOODS[name], tmp_path, 900)
    print(name, {key: value for key, value in found.items() if key != "seen"})
    assert found["status"] == "ok", found["reason"]
    assert found["megabytes"] < 300
    assert found["after_end"] < 20
    assert found["saving"] < 20
    assert found["note"]
    assert found["outputs"] <= MAX_OUTPUTS + 1
    assert found["characters"] <= MAX_CHARS + 1000
    assert len(found["seen"]) < 9000


def not_kept(output):
    return output.get("metadata", {}).get("kernel_agent", {}).get("not_kept")


def test_of_3000_displays_the_ends_are_kept_and_the_rest_is_counted(kernel):
    outputs = kernel.execute("for n in range(3000): display(n)", timeout=60).outputs
    (gap,) = [n for n, output in enumerate(outputs) if not_kept(output)]
    numbers = [int(o["data"]["text/plain"]) for o in outputs if not not_kept(o)]
    half = MAX_OUTPUTS // 2
    assert numbers == [*range(half), *range(3000 - half, 3000)]
    assert (gap, not_kept(outputs[gap])["outputs"]) == (half, 3000 - MAX_OUTPUTS)


def test_of_a_line_of_30_million_characters_the_ends_are_kept_and_all_are_counted(kernel):
    result = kernel.execute("print('a' * 15_000_000 + 'b' * 15_000_000)", timeout=60)
    head, note, tail = result.outputs[0]["text"].rstrip("\n").split("\n")
    assert len(head) + len(tail) + 1 == MAX_CHARS
    assert (set(head), set(tail)) == ({"a"}, {"b"})
    assert note == "… 20,000,001 characters were not kept …"
    assert len(observe(result).text) < 9000


def test_a_result_of_20_million_characters_has_its_length_in_its_metadata(kernel):
    (output,) = kernel.execute("'y' * 20_000_000", timeout=60).outputs
    assert len(output["data"]["text/plain"]) <= MAX_CHARS // 2
    assert output["metadata"]["kernel_agent"]["characters"] == {"text/plain": 20_000_002}


def test_an_error_after_a_flood_is_kept(kernel):
    result = kernel.execute("print('x' * 20_000_000)\n1 / 0", timeout=60)
    assert result.outputs[-1]["ename"] == "ZeroDivisionError"


def test_outputs_wait_in_the_kernel_while_a_listener_is_slow_and_none_is_lost(kernel):
    heard = []

    def listen(output):
        if not heard:
            threading.Event().wait(1)
        heard.append(output["text"])

    source = "for n in range(3000): print(n, flush=True)"
    result = kernel.execute(source, timeout=60, listen=listen)
    assert "".join(heard).split() == [str(n) for n in range(3000)]
    assert result.outputs[0]["text"] == "".join(heard)


def test_a_listener_is_told_that_a_flood_goes_on_and_of_the_error_that_ends_it(kernel):
    heard = []
    source = "for n in range(30): print('x' * 1_000_000, flush=True)\n1 / 0"
    kernel.execute(source, timeout=60, listen=heard.append)
    assert sum(len(o.get("text", "")) for o in heard) < 2 * MAX_CHARS
    assert sum("Too much output" in o.get("text", "") for o in heard) == 1
    assert heard[-1]["ename"] == "ZeroDivisionError"
