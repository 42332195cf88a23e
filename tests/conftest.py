"""What all tests share: none of them touches the files of the user who runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernel_agent.kernel import Kernel
from kernel_agent.model import retrying


@pytest.fixture(autouse=True, scope="session")
def _own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept for a user, as the key of the seals, goes to a folder of the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed requests are tried again at once, unless the provider asks for a wait."""
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.0)


@pytest.fixture(scope="module")
def kept_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel of `lent_kernel`: an agent's end does not shut it down."""
    with Kernel(cwd=tmp_path_factory.mktemp("work")) as kernel, pytest.MonkeyPatch.context() as it:
        it.setattr(kernel, "shutdown", lambda: None)
        yield kernel


@pytest.fixture
def lent_kernel(kept_kernel: Kernel) -> Kernel:
    """A kernel for agents that need just any: alive, empty, in a folder of the module's.

    Starting one takes most of the time of a short run, so those of a module have it in turn.
    """
    if not kept_kernel.is_alive:
        kept_kernel.restart()
    kept_kernel.execute("%reset -f", counted=False)
    return kept_kernel
