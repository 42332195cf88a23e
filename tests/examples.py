"""How many examples a property is tried with: some by default, all where THOROUGH is set."""

from __future__ import annotations

import os

from hypothesis import settings


def examples(most: int) -> settings:
    """Settings for at most `most` examples, the same ones in each run."""
    count = most if os.environ.get("THOROUGH") else max(most // 8, 10)
    return settings(max_examples=count, deadline=None, derandomize=True)
