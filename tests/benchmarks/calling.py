"""How many calls of the host's functions a second, and how fast large values go both ways.

`python -m tests.benchmarks.calling [--calls 2000]`
"""

from __future__ import annotations

import argparse
import time

from kernel_agent.border.codec import decode, encode
from kernel_agent.kernel import Kernel
from kernel_agent.kernel.serving import Offer

# Calls a second that other ways were measured to make: plain, with output, async, 8 threads.
BEFORE = {
    "stdin, by raw_input": ("~1,480", "580-725", "1,170-1,510", "1,160-1,305"),
    "iopub + control reply": ("~750", "~430", "~600", "210-1,030"),
    "comm + subshell": ("~300", "~420", "~430", "620-1,080"),
    "unix socket": ("~19,000", "~1,700", "~13,000", "~10,000"),
}
CELLS = {
    "plain": "for n in range({calls}): echo(n)",
    "with \\r output": "for n in range({calls}):\n    print('\\r', n, end='')\n    echo(n)",
    "in await code": "for n in range({calls}): await echo.acall(n)",
    "8 threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: list(pool.map(echo, range({calls})))"
    ),
    "map": "results = echo.map(range({calls}))",
}
VALUES = {
    "1 MB bytes": "bytes(1_000_000)",
    "1 MB text": "'x' * 1_000_000",
    "1 MB list of numbers": "list(range(150_000))",
    "100 MB bytes": "bytes(100_000_000)",
    "100 MB array": "__import__('numpy').random.default_rng(0).random(12_500_000)",
    "100 MB table": (
        "__import__('pandas').DataFrame("
        "__import__('numpy').random.default_rng(0).random((1_250_000, 10)))"
    ),
}


class Host:
    """Gives back what it gets: as it came, or decoded and encoded anew."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __call__(self, name: str, arguments: object) -> object:
        (value,) = arguments["args"]  # type: ignore[index]
        folder = self._kernel.border_folder
        return encode(decode(value, folder=folder), folder=folder)


def seconds_of(kernel: Kernel, source: str) -> float:
    """The best of three, measured inside the kernel."""
    timed = f"import time\nstarted = time.perf_counter()\n{source}\ntime.perf_counter() - started"
    best = float("inf")
    for _ in range(3):
        result = kernel.execute(timed, serve=Host(kernel), max_calls=10**6, timeout=300)
        assert result.status == "ok", result
        best = min(best, float(result.outputs[-1]["data"]["text/plain"]))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    calls = parser.parse_args().calls
    with Kernel() as kernel:
        kernel.offer({"echo": Offer("def echo(value): ...")})
        started = time.perf_counter()
        print(f"{'calls a second':24}" + "".join(f"{name:>16}" for name in CELLS))
        speeds = [
            calls / seconds_of(kernel, source.format(calls=calls)) for source in CELLS.values()
        ]
        print(f"{'this':24}" + "".join(f"{speed:>16,.0f}" for speed in speeds))
        for name, before in BEFORE.items():
            print(f"{name:24}" + "".join(f"{speed:>16}" for speed in before))
        print(f"\n{'there and back':24}{'by file':>16}{'inline':>16}")
        folder = kernel.border_folder
        for name, value in VALUES.items():
            kernel.execute(f"value = {value}")
            by_file = seconds_of(kernel, "echo(value)")
            inline = float("nan")
            if name.startswith("1 MB"):
                switch = "__import__('kernel_agent_calling')._offered.folder = {}"
                kernel.execute(switch.format(None))
                kernel._offering.folder = None
                inline = seconds_of(kernel, "echo(value)")
                kernel.execute(switch.format(f"__import__('pathlib').Path({str(folder)!r})"))
                kernel._offering.folder = folder
            print(f"{name:24}{1000 * by_file:>13.1f} ms{1000 * inline:>13.1f} ms")
        print(f"\n{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
