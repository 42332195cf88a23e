"""Thousands of calls in random company: of threads, batches, errors, large values, interrupts.

`KERNEL_AGENT_CALLS=100000 pytest -m slow tests/kernel/test_calling_chaos.py` runs more by hand.
"""

import os
import random
import threading
import time

import pytest

from kernel_agent.border.codec import decode, encode
from kernel_agent.kernel.serving import Offer

MANY = int(os.environ.get("KERNEL_AGENT_CALLS", "10000"))
STUB = Offer("def answer(key, size: int = 1, wait: float = 0.0): ...", timeout=60)
SETUP = '''
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor
wrong, right = [], 0

def check(key, size, wait=0.0):
    """Call once: the result must be this call's own, and so must an error."""
    global right
    try:
        got = answer(key, size, wait)
    except LookupError as error:
        ok = key[-1] == 0 and str(error) == str(key)
    else:
        ok = got[0] == key and got[1] == bytes([key[0] % 256]) * size
    if not ok: wrong.append(key)
    right += ok

async def check_async(key, size):
    global right
    got = await answer.acall(key, size)
    ok = got[0] == key
    if not ok: wrong.append(key)
    right += ok
'''
# Each makes `n` calls whose keys begin with `cell`; the last part of a key is 0 for an error.
CELLS = {
    "plain": "for i in range({n}): check(({cell}, i, i % 7), {size})",
    "printing": "for i in range({n}): print('\\r', i, end=''); check(({cell}, i, i % 7), {size})",
    "threads": (
        "with ThreadPoolExecutor(8) as pool:\n"
        "    list(pool.map(lambda i: check(({cell}, i, i % 7), {size}), range({n})))"
    ),
    "map": (
        "keys = [({cell}, i, 1) for i in range({n})]\n"
        "got = answer.map(keys, size={size})\n"
        "wrong += [k for k, g in zip(keys, got) if g[0] != k or len(g[1]) != {size}]\nright += {n}"
    ),
    "async": ("await asyncio.gather(*(check_async(({cell}, i, 1), {size}) for i in range({n})))"),
}
INTERRUPTED = {
    "plain": "while True: check(({cell}, 0, 1), {size}, 0.001)",
    "threads": (
        "def work(i):\n    while True: check(({cell}, i, 1), {size}, 0.001)\n"
        "with ThreadPoolExecutor(8) as pool: list(pool.map(work, range(8)))"
    ),
    "map": "while True: answer.map([({cell}, i, 1) for i in range(20)], wait=0.001)",
    "async": "while True: await check_async(({cell}, 0, 1), {size})",
}


class Host:
    """Answers with the key it was asked with; in random order, since it takes random times."""

    def __init__(self, kernel, seed):
        self._kernel = kernel
        self._random = random.Random(seed)

    def __call__(self, name, arguments):
        folder = self._kernel.border_folder
        key, size, wait = (
            *(decode(each, folder=folder) for each in arguments["args"]),
            *(arguments["kwargs"].get(each) for each in ("size", "wait")),
        )[:3]
        if self._random.random() < 0.1 or wait:
            time.sleep(self._random.random() * 0.004)
        if key[-1] == 0:
            raise LookupError(str(key))
        return encode((key, bytes([key[0] % 256]) * (size or 1)), folder=folder)


def run_chaos(kernel, calls, seed):
    choice = random.Random(seed)
    host = Host(kernel, seed)
    kernel.offer({"answer": STUB})
    options = {"serve": host, "timeout": 120, "max_calls": 10**6}
    assert kernel.execute(SETUP, **options).status == "ok"
    made = expected = cell = 0
    while made < calls:
        cell += 1
        size = choice.choice([1, 100, 10_000, 70_000])
        if choice.random() < 0.25:
            source = INTERRUPTED[choice.choice(list(INTERRUPTED))].format(cell=cell, size=size)
            timer = threading.Timer(0.05 + choice.random() * 0.3, kernel.interrupt)
            timer.start()
            result = kernel.execute(source, **options)
            timer.join()
            # With very bad luck it is interrupted before its first line.
            assert result.status == "interrupted", (seed, cell, source, result.outputs)
            kernel.execute("before = right = 0", **options)
            expected = 0
        else:
            n = choice.randint(1, 60)
            if choice.random() < 0.1:
                n, size = 2, 5_000_000
            source = CELLS[choice.choice(list(CELLS))].format(cell=cell, n=n, size=size)
            result = kernel.execute(source, **options)
            assert result.status == "ok", (seed, cell, source, result.outputs, result.reason)
            assert len(result.tool_calls) == n
            expected += n
        made += len(result.tool_calls)
        reports = kernel.execute("print(wrong, right)", **options)
        assert reports.outputs[0]["text"] == f"[] {expected}\n", (seed, cell, source)


@pytest.mark.slow
@pytest.mark.timeout(110)
def test_no_call_gets_anothers_result_and_none_hangs(kernel):
    run_chaos(kernel, 500, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_same_for_many_thousands_of_calls(kernel):
    run_chaos(kernel, MANY, seed=2)
