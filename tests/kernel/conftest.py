"""The kernel that the tests of a module share."""

import pytest

from kernel_agent.kernel import Kernel


@pytest.fixture(scope="module")
def shared():
    with Kernel() as kernel:
        yield kernel


@pytest.fixture
def kernel(shared):
    """The module's kernel, alive and with an empty namespace."""
    if not shared.is_alive:
        shared.restart()
    shared.execute("%reset -f", counted=False)
    return shared
