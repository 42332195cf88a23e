"""What a step costs: `python -m tests.benchmarks.steps [--peer smolagents] [--peer autogen]`.

Asks a local scripted server without latency through litellm, as a run would, and prints the
median milliseconds of a step of ours, and of a peer's in the same run (see `scripted`).
"""

from __future__ import annotations

import argparse
import itertools
import statistics

from tests.benchmarks.scripted import PEERS, SOURCES, ours


def median(times: list[float]) -> float:
    """Milliseconds from step to step."""
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(gaps) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=list(PEERS), action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ways = {"ours": ours, "ours, streamed": lambda source: ours(source, streams=True)}
    ways |= {name: PEERS[name] for name in arguments.peer}
    ours(SOURCES["small"])  # the first request loads litellm
    for kind, source in SOURCES.items():
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                found[name].append(median(way(source).times))
        base = statistics.median(found["ours"])
        for name, results in found.items():
            ms = statistics.median(results)
            print(f"{kind:<10} {name:<16} {ms:6.1f} ms a step  {ms / base:5.2f} × ours")


if __name__ == "__main__":
    main()
