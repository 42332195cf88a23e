import random
import threading

import pytest

from kernel_agent.kernel import interrupting
from tests.kernel.nasty_cells import LIMIT, NASTY

SLACK = 2.0  # seconds that a busy machine may add to what is promised


def value_of(result):
    return result.outputs[-1]["data"]["text/plain"]


def is_back_in_time(kernel, cell):
    kernel.execute("kept = 5")
    result = kernel.execute(f"print('partial', flush=True)\n{cell.source}", timeout=LIMIT)
    assert result.outputs[0]["text"].startswith("partial\n")
    is_kept = cell.kept and not (cell.swallows and result.stopped_by == "kill")
    if cell.ends_by_itself:
        assert (result.status, result.stopped_by) == ("error", "")
    elif is_kept:
        assert result.status == "interrupted"
        assert result.stopped_by
        assert f"Stopped by: {result.stopped_by}" in result.reason
        assert "its variables are kept" in result.reason
    if is_kept:
        assert result.seconds < LIMIT + 1 + SLACK
        assert value_of(kernel.execute("kept")) == "5"
    else:
        assert (result.status, result.stopped_by) == ("died", "kill")
        assert "variables are lost" in result.reason
        assert result.seconds < LIMIT + 6 + SLACK


@pytest.mark.parametrize("cell", [pytest.param(c, id=c.name) for c in NASTY if c.quick])
def test_a_nasty_cell_is_back_in_time_with_what_it_printed(kernel, cell, monkeypatch):
    if not cell.kept:
        monkeypatch.setattr(interrupting, "INSIST_SECONDS", 0.2)
    is_back_in_time(kernel, cell)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", [pytest.param(c, id=c.name) for c in NASTY if not (c.quick and c.kept)]
)
def test_the_nastiest_cell_is_back_in_time_with_what_it_printed(kernel, cell):
    is_back_in_time(kernel, cell)


@pytest.mark.slow
def test_the_gentlest_rung_that_works_is_the_one_that_is_told(kernel):
    assert kernel.execute("while True: pass", timeout=0.2).stopped_by == "interrupt"
    awaits = kernel.execute("import asyncio; await asyncio.sleep(60)", timeout=0.2)
    assert awaits.stopped_by == "interrupt and wake-up"
    swallows = (
        "import time\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass"
    )
    assert kernel.execute(swallows, timeout=0.2).stopped_by == "asynchronous exception"


def test_an_exception_that_stopped_a_cell_is_seen_in_its_outputs(kernel):
    source = "import time\nasync def f(): time.sleep(60)\nawait f()"
    assert kernel.execute(source, timeout=0.2).outputs[-1]["ename"] == "CellStopped"


def test_code_that_ends_well_after_its_interrupt_is_said_to_have_done_so(kernel):
    source = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('tidied up')"
    result = kernel.execute(source, timeout=0.2)
    assert result.outputs[0]["text"] == "tidied up\n"
    assert "ended without an error" in result.reason


def test_another_thread_climbs_the_same_ladder(kernel):
    source = "import time\nprint('on', flush=True)\nasync def f(): time.sleep(60)\nawait f()"
    result = kernel.execute(
        source, listen=lambda output: threading.Thread(target=kernel.interrupt).start()
    )
    assert result.stopped_by == "asynchronous exception"
    assert "by the user" in result.reason


def test_a_cell_that_nobody_stops_says_nothing_of_it(kernel):
    assert kernel.execute("1").stopped_by == ""
    assert kernel.execute("1 / 0").stopped_by == ""


RACERS = (
    "import time\nend = time.monotonic() + 0.05\nwhile time.monotonic() < end: pass",
    "import asyncio\nawait asyncio.sleep(0.05)",
)


def race(kernel, rounds):
    """Cells whose time is over at about their own end, each followed by an innocent one."""
    moments = random.Random(rounds)
    for number in range(rounds):
        timeout = 0.05 + moments.uniform(-0.001, 0.006)
        result = kernel.execute(f"kept = {number}\n{RACERS[number % 2]}", timeout=timeout)
        assert result.status in ("ok", "interrupted")
        after = kernel.execute("kept")
        assert (after.status, value_of(after)) == ("ok", str(number))


@pytest.mark.slow
def test_a_stop_that_races_with_the_cells_end_never_hits_the_next_cell(kernel):
    race(kernel, 20)


@pytest.mark.slow
def test_four_hundred_races_never_hit_the_next_cell(kernel):
    race(kernel, 400)
