"""Start to first result: `python -m tests.benchmarks.kernel_start`.

Side by side, in pairs: our `Kernel` against jupyter_client's stock `start_new_kernel`, each with
one executed cell. The ratio is to be at most 0.75.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from jupyter_client.manager import start_new_kernel

from kernel_agent.kernel import Kernel

PAIRS = 11
LIMIT = 0.75


def ours() -> float:
    started = time.perf_counter()
    with Kernel() as kernel:
        assert kernel.execute("x = 1 + 1").status == "ok"
        return time.perf_counter() - started


def stock() -> float:
    started = time.perf_counter()
    manager, client = start_new_kernel()
    try:
        assert client.execute_interactive("x = 1 + 1")["content"]["status"] == "ok"
        return time.perf_counter() - started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def pair(turn: int) -> tuple[float, float]:
    """Both, in an order that changes with every turn."""
    order: tuple[Callable[[], float], ...] = (ours, stock) if turn % 2 else (stock, ours)
    seconds = {run: run() for run in order}
    return seconds[ours], seconds[stock]


def main() -> None:
    pair(0)  # what is read from disk once
    pairs = [pair(turn) for turn in range(PAIRS)]
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"Kernel            {statistics.median(one for one, _ in pairs):6.3f} s")
    print(f"start_new_kernel  {statistics.median(other for _, other in pairs):6.3f} s")
    print(f"ratio             {ratio:6.2f}  (at most {LIMIT})")


if __name__ == "__main__":
    main()
