"""A random sequence of ordinary, nasty, deadly and flooding cells in one kernel.

`KERNEL_AGENT_CHAOS=300 pytest -m slow tests/kernel/test_chaos.py` runs the long one by hand.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel_agent.kernel import Kernel

CELLS = int(os.environ.get("KERNEL_AGENT_CHAOS", "40"))
ORDINARY = "count = globals().get('count', 0) + 1\nprint('count', count)"
MEMORY = 300_000_000


@dataclass(frozen=True)
class Nasty:
    """A cell, the time it gets, and the statuses that are the truth about it."""

    source: str
    statuses: tuple[str, ...]
    timeout: float = 30.0


NASTY = [
    Nasty("import time; time.sleep(600)", ("interrupted",), 0.2),
    Nasty("while True: pass", ("interrupted",), 0.2),
    Nasty("import asyncio; await asyncio.sleep(600)", ("interrupted",), 0.2),
    Nasty(
        "import asyncio; await asyncio.get_running_loop().create_future()", ("interrupted",), 0.2
    ),
    Nasty(
        "import time\nwhile True:\n    try: time.sleep(600)\n    except Exception: pass",
        ("interrupted",),
        0.2,
    ),
    # Only an exception that hits the loop between two tries can stop it: mostly one does.
    Nasty(
        "import time\nwhile True:\n    try: time.sleep(600)\n    except: pass",
        ("interrupted", "died"),
        0.2,
    ),
    Nasty("import threading; threading.Event().wait()", ("interrupted",), 0.2),
    Nasty("import subprocess; subprocess.run(['sleep', '600'])", ("interrupted",), 0.2),
    Nasty("import os; os._exit(7)", ("died",)),
    Nasty("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ("died",)),
    Nasty("import ctypes; ctypes.string_at(0)", ("died",)),
    Nasty("exit()", ("died",)),
    Nasty("for i in range(300_000): print(i)", ("ok",)),
    Nasty("from IPython.display import display\nfor i in range(3_000): display(i)", ("ok",)),
    Nasty("print('x' * 30_000_000)", ("ok",)),
    Nasty("raise ExceptionGroup('two', [ValueError(1), KeyError(2)])", ("error",)),
    Nasty("input()", ("error",)),
    Nasty("1 / 0", ("error",)),
    Nasty("def broken(:", ("error",)),
]


def memory() -> int:
    """The resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run_chaos(count: int, seed: int) -> None:
    choice = random.Random(seed)
    before, expected = memory(), 0
    with Kernel() as kernel:
        for number in range(count):
            if choice.random() < 0.4:
                expected += 1
                result = kernel.execute(ORDINARY, timeout=30)
                assert result.status == "ok", (number, result)
                texts = [o["text"] for o in result.outputs if o["output_type"] == "stream"]
                assert f"count {expected}\n" in "".join(texts), (number, result)
                continue
            nasty = choice.choice(NASTY)
            result = kernel.execute(nasty.source, timeout=nasty.timeout)
            assert result.status in nasty.statuses, (number, nasty.source, result.reason)
            assert result.seconds < nasty.timeout + 6
            if result.status == "died":
                kernel.restart()
                expected = 0
            assert memory() - before < MEMORY, (number, nasty.source)


def nothing_left(folders: list[Path]) -> bool:
    return not any(path for folder in folders for path in folder.rglob("kernel-*"))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    made = []
    for name in ("JUPYTER_RUNTIME_DIR", "TMPDIR", "XDG_RUNTIME_DIR"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
        made.append(folder)
    return made


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_after_any_sequence_of_cells_each_has_its_result_and_the_ordinary_are_right(folders):
    run_chaos(CELLS, seed=CELLS)
    assert nothing_left(folders)
