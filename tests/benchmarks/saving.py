"""What a save costs as a transcript grows: `python -m tests.benchmarks.saving`."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from kernel_agent.steps import CellResult, Observation, Reply, Step, Task
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.whole_file import write_whole

AT = (5, 50, 500, 2000)


def main() -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "a line of output\n" * 120}
    step = Step(
        Reply("Next.\n```python\nprint(1)\n```"),
        "Next.\n```python\nprint(1)\n```",
        "Next.",
        CellResult("print(1)", outputs=(output,)),
        Observation("1"),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.ipynb"
        transcript = Transcript("system", path=path)
        transcript.add(Task("task", "task"))
        times: list[float] = []
        for number in range(1, AT[-1] + 11):
            started = time.perf_counter()
            transcript.add(step)
            times.append(time.perf_counter() - started)
            if number - 10 in AT:
                save = statistics.median(times[-21:]) * 1000
                raw, size = _raw(path), path.stat().st_size
                print(
                    f"step {number - 10:>5}: save {save:6.2f} ms, "
                    f"raw write {raw:6.2f} ms, {size:>12,} bytes"
                )


def _raw(path: Path) -> float:
    data = path.read_bytes()
    times = []
    for _ in range(21):
        started = time.perf_counter()
        write_whole(path, [data], new=False)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
