"""How nasty cells are stopped: `python -m tests.benchmarks.nasty`.

Prints for each cell the seconds until control was back beyond its limit, the rung of the ladder
that ended it, and whether the kernel's state was kept.
"""

from __future__ import annotations

from kernel_agent.kernel import Kernel
from tests.kernel.nasty_cells import LIMIT, NASTY


def main() -> None:
    print(f"{'cell, stopped after ' + str(LIMIT) + ' s':<50} {'more':>7}  state  stopped by")
    with Kernel() as kernel:
        for cell in NASTY:
            if not kernel.is_alive:
                kernel.restart()
            kernel.execute("kept = 5")
            result = kernel.execute(cell.source, timeout=LIMIT)
            kept = kernel.is_alive and kernel.execute("assert kept == 5").status == "ok"
            more = max(0.0, result.seconds - LIMIT)
            by = result.stopped_by or f"nobody: {result.status} at once"
            print(f"{cell.name:<50} {more:5.2f} s  {'kept' if kept else 'lost'}   {by}")


if __name__ == "__main__":
    main()
