"""What a trivial cell and a cell of 20,000 outputs cost: `python -m tests.benchmarks.outputs`.

Prints two ratios, each measured in turns in one run: our cell against the bare round trip of
jupyter_client, and our handling of the outputs against nbclient's. At most 1.15 and below 1.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nbformat
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from kernel_agent.kernel import Kernel

CELLS = 50
MANY = "from IPython.display import display\nfor i in range({outputs}): display(i)"


@contextmanager
def bare_client() -> Iterator[Any]:
    options = ["--HistoryManager.enabled=False"]
    manager, client = start_new_kernel(extra_arguments=options, stderr=subprocess.DEVNULL)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def bare_cells(client: Any) -> float:
    """Seconds of a trivial cell through jupyter_client alone, sent and received by hand."""
    times = []
    for _ in range(CELLS):
        begun = time.perf_counter()
        msg_id = client.execute("1")
        client.get_shell_msg(timeout=10)
        while True:
            message = client.get_iopub_msg(timeout=10)
            is_ours = message["parent_header"].get("msg_id") == msg_id
            if is_ours and message["content"].get("execution_state") == "idle":
                break
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def our_cells(kernel: Kernel) -> float:
    times = []
    for _ in range(CELLS):
        begun = time.perf_counter()
        kernel.execute("1")
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def our_outputs(kernel: Kernel, outputs: int) -> float:
    begun = time.perf_counter()
    result = kernel.execute(MANY.format(outputs=outputs))
    assert result.status == "ok"
    return time.perf_counter() - begun


def nbclient_outputs(outputs: int) -> float:
    cell = nbformat.v4.new_code_cell(MANY.format(outputs=outputs))
    client = NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=600)
    with client.setup_kernel(stderr=subprocess.DEVNULL):
        begun = time.perf_counter()
        client.execute_cell(cell, 0)
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--outputs", type=int, default=20_000)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    many: dict[str, list[float]] = {"ours": [], "nbclient": []}
    with Kernel() as kernel, bare_client() as client:
        for _ in range(arguments.rounds):
            found["bare"].append(bare_cells(client))
            found["ours"].append(our_cells(kernel))
            many["ours"].append(our_outputs(kernel, arguments.outputs))
            many["nbclient"].append(nbclient_outputs(arguments.outputs))
    cell = {name: statistics.median(times) * 1000 for name, times in found.items()}
    print(f"trivial cell: ours {cell['ours']:.2f} ms, bare {cell['bare']:.2f} ms, ", end="")
    print(f"ratio {cell['ours'] / cell['bare']:.2f}")
    flood = {name: statistics.median(times) for name, times in many.items()}
    print(f"{arguments.outputs:,} outputs: ours {flood['ours']:.2f} s, ", end="")
    print(f"nbclient {flood['nbclient']:.2f} s, ratio {flood['ours'] / flood['nbclient']:.2f}")


if __name__ == "__main__":
    main()
