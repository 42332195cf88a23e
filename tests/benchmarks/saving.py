"""What a save costs as a transcript grows, and what a large one takes to be opened.

`python -m tests.benchmarks.saving` saves 2,000 steps of 2 kB, then 2,000 steps with 200 MB of
outputs, and opens the latter in a process of its own. The raw write is open, write, fsync and
rename of the same bytes; it alternates with the save, so that both meet the same disk.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kernel_agent.steps import CellResult, Observation, Output, Reply, Step, Task
from kernel_agent.transcript import Transcript

AT = (20, 200, 2000)
REPEATS = 11
LARGE = 100_000  # characters a step


def main() -> None:
    for size in (2_000, LARGE):
        sys.stdout.write(f"{size:,} characters of outputs a step\n")
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
            path = Path(folder) / "run.ipynb"
            _save(path, size)
            if size == LARGE:
                command = [sys.executable, "-m", "tests.benchmarks.saving", str(path)]
                subprocess.run(command, check=True)


def _save(path: Path, size: int) -> None:
    transcript = Transcript("system", path=path)
    transcript.add(Task("task", "task"))
    first = 0.0
    for number in range(1, AT[-1] + 1):
        measured = number in AT
        transcript.path = path if measured else None
        transcript.add(_step(size))
        if measured:
            save, raw = _medians(transcript, path)
            first = first or save
            sys.stdout.write(
                f"step {number:>5}: save {save:8.2f} ms, raw write {raw:8.2f} ms, "
                f"bound {2 * first + raw:8.2f} ms, {path.stat().st_size:>12,} bytes\n"
            )


def _step(size: int) -> Step:
    """A step with half text and half an image in its outputs."""
    text = "a line of output, as it is printed\n" * (size // 70)
    outputs: list[Output] = [{"output_type": "stream", "name": "stdout", "text": text}]
    if size >= LARGE:
        png = random.Random(size).randbytes(3 * size // 8).hex()[: size // 2]
        data = {"image/png": png, "text/plain": "<Figure>"}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    reply = "Next.\n```python\nprint(1)\n```"
    result = CellResult("print(1)", outputs=tuple(outputs))
    return Step(Reply(reply), reply, "Next.", result, Observation("1"))


def _medians(transcript: Transcript, path: Path) -> tuple[float, float]:
    """Milliseconds of a save, with the work of a step's, and of the raw write."""
    data, saves, raws = path.read_bytes(), [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        transcript.save()
        saves.append(time.perf_counter() - started)
        started = time.perf_counter()
        _write(path.with_name("raw"), data)
        raws.append(time.perf_counter() - started)
    return statistics.median(saves) * 1000, statistics.median(raws) * 1000


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name("raw.tmp")
    with temporary.open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    temporary.replace(path)


def _open(path: Path) -> None:
    """Time and memory of opening; beside it those of the standard library's parser."""
    before = _memory()
    started = time.perf_counter()
    transcript = Transcript.load(path)
    seconds = time.perf_counter() - started
    after = _memory()
    own, mapped, peak = (after[name] - before[name] for name in ("RssAnon", "RssFile", "VmHWM"))
    sys.stdout.write(
        f"open {len(transcript.steps)} steps, {path.stat().st_size / 1e6:.0f} MB: {seconds:.2f} s, "
        f"own memory {own:.0f} MB, mapped file {mapped:.0f} MB, peak of both {peak:.0f} MB\n"
    )
    started = time.perf_counter()
    json.loads(path.read_bytes())
    sys.stdout.write(f"json.loads alone: {time.perf_counter() - started:.2f} s\n")


def _memory() -> dict[str, float]:
    """Megabytes of this process, by kind (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return {name: float(facts[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile", "VmHWM")}


if __name__ == "__main__":
    if sys.argv[1:]:
        _open(Path(sys.argv[1]))
    else:
        main()
