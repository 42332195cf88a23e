"""What a snapshot costs: `python -m tests.benchmarks.snapshots [--rounds 5]`.

Prints the median milliseconds of snapshots as a run takes them, seen from the host, and how long
it takes to restore a large table and to compute it again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kernel_agent.kernel import Kernel

ROOM = 20_000_000_000
SMALL = {
    "1,000 numbers and texts": "globals().update({f'v{n}': n if n % 2 else str(n) for n in S})",
    "1,000 lists and dicts": "globals().update({f'v{n}': [n] if n % 2 else {'n': n} for n in S})",
}
FRAME = """
import numpy as np, pandas as pd
rng = np.random.default_rng(0)
frame = pd.DataFrame(rng.random((1_000_000, 20)), columns=[f"c{n}" for n in range(20)])
frame["c0"] = [sum(divmod(n, 7)) for n in range(1_000_000)]
for column in frame.columns[1:]:
    frame[column] = frame[column].rolling(50, min_periods=1).median()
"""
STRINGS = "lines = [str(n) for n in range(1_000_000)]"


def milliseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def show(what: str, times: list[float]) -> None:
    print(f"{what:<46} {statistics.median(times):8.1f} ms  (worst {max(times):.1f})")


def measure(folder: Path, rounds: int) -> None:
    numbers = iter(range(1_000_000))

    def snapshots(kernel: Kernel, part: str, source: str = "") -> list[float]:
        times = []
        for _ in range(rounds):
            kernel.execute(source)
            key = f"step-{next(numbers)}"

            def take(key: str = key) -> None:
                snapshot = kernel.snapshot(folder / part, key, max_bytes=ROOM)
                assert not (snapshot.reason or snapshot.skipped), snapshot

            times.append(milliseconds(take))
        return times

    for number, (what, source) in enumerate(SMALL.items()):
        with Kernel() as kernel:
            kernel.execute(f"S = range(1000); {source}; del S")
            part = f"small-{number}"
            show(f"{what}: first, no library loaded", snapshots(kernel, part)[:1])
            show(f"{what}: unchanged", snapshots(kernel, part))
            show(f"{what}: one changed", snapshots(kernel, part, "v7 = [v7]"))
    with Kernel() as kernel:
        computing = milliseconds(lambda: kernel.execute(FRAME))
        show("160 MB frame: first", snapshots(kernel, "large")[:1])
        show("160 MB frame: unchanged", snapshots(kernel, "large"))
        changed = snapshots(kernel, "large", "frame.iat[5, 5] += 1")
        show("160 MB frame: changed in place", changed)
        key = f"step-{next(numbers) - 1}"
        kernel.restart()
        show(
            "160 MB frame: restored", [milliseconds(lambda: kernel.restore(folder / "large", key))]
        )
        assert kernel.execute("frame.shape").status == "ok"
        show("160 MB frame: computed", [computing])
        kernel.execute("del frame\n" + STRINGS)
        show("1,000,000 texts in a list: unchanged", snapshots(kernel, "texts")[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), rounds)


if __name__ == "__main__":
    main()
