"""What is different between two runs: `differing` says it, of the steps that `aligning` pairs."""

from kernel_agent.differences.differing import Diff, diff, diff_json

__all__ = ["Diff", "diff", "diff_json"]
