"""What a replay costs: `python -m tests.benchmarks.replaying [--pairs 7]`.

Times `kernel-agent replay` against `jupyter execute` (nbclient) on the same notebook, as whole
processes, in turn: the demo's notebook, and one of thirty cells in which nothing dies or hangs.
Prints the medians and the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vega_datasets import local_data

from kernel_agent import Agent, ScriptedModel
from kernel_agent.shipped import shipped
from tests.thirty_steps import CELLS

DEMO = "seattle-weather.ipynb"
LEFT_OUT = ("while True", "os._exit", "1 / 0", "sqare", "half")
JUPYTER = [sys.executable, "-m", "jupyter", "execute", "--allow-errors"]
REPLAY = [sys.executable, "-m", "kernel_agent", "replay", "--yes"]


def demo(folder: Path) -> Path:
    shutil.copy(local_data.seattle_weather.filepath, folder / "seattle-weather.csv")
    return Path(shutil.copy(shipped("notebooks") / DEMO, folder))


def thirty(folder: Path) -> Path:
    """Records thirty cells that all succeed."""
    cells = [cell for cell in CELLS if not any(word in cell for word in LEFT_OUT)]
    cells = [*cells[:-1], *[f"sum(range({n}_000))" for n in range(29 - len(cells[:-1]))]]
    replies = [f"```python\n{cell}\n```" for cell in [*cells, "final_answer(1)"]]
    path = folder / "thirty-fine.ipynb"
    with Agent(ScriptedModel(replies), cwd=folder, max_steps=len(replies) + 1) as agent:
        agent.run("Do them all.", out=path)
    assert len(replies) == 30
    return path


def seconds(command: list[str], notebook: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        [*command, notebook.name],
        cwd=notebook.parent,
        capture_output=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    taken = time.perf_counter() - started
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    for make in (demo, thirty):
        with tempfile.TemporaryDirectory() as folder:
            notebook = make(Path(folder))
            pairs = []
            for _ in range(arguments.pairs + 1):
                pairs.append((seconds(REPLAY, notebook), seconds(JUPYTER, notebook)))
            del pairs[0]  # warms the caches of the disk
            ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(one / other for one, other in pairs)
            print(
                f"{make.__name__:<8} replay {ours:.2f} s, jupyter execute {theirs:.2f} s, "
                f"ratio {ratio:.2f}"
            )


if __name__ == "__main__":
    main()
