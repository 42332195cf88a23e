"""Cells that are hard to stop, and what it takes to stop each."""

from __future__ import annotations

from dataclasses import dataclass

LIMIT = 0.3
"""Seconds after which each of them is stopped."""


@dataclass(frozen=True)
class Nasty:
    """A cell that would run for a minute or for ever.

    `kept` tells whether the state must be kept; a `quick` one is part of the default tests, where
    one that only killing the kernel stops is insisted on for a moment instead of for seconds.
    `ends_by_itself` is one that must not block at all. What `swallows` every exception is stopped
    by one that hits it between two tries: mostly one does, on a busy machine maybe none in time.
    """

    name: str
    source: str
    kept: bool = True
    quick: bool = False
    ends_by_itself: bool = False
    swallows: bool = False


NASTY = (
    Nasty("sleep", "import time; time.sleep(60)", quick=True),
    Nasty("busy loop", "while True: pass", quick=True),
    Nasty("top-level await asyncio.sleep", "import asyncio; await asyncio.sleep(60)", quick=True),
    Nasty(
        "await on a future that never comes",
        "import asyncio; await asyncio.get_running_loop().create_future()",
    ),
    Nasty(
        "blocking body in an async def",
        "import time\nasync def f(): time.sleep(60)\nawait f()",
    ),
    Nasty(
        "blocking body in gathered tasks",
        "import asyncio, time\nasync def f(): time.sleep(60)\nawait asyncio.gather(f(), f())",
    ),
    Nasty(
        "except Exception loop",
        "import time\nwhile True:\n    try: time.sleep(60)\n    except Exception: pass",
    ),
    Nasty(
        "except (Exception, KeyboardInterrupt) loop",
        "import time\nwhile True:\n    try: time.sleep(60)\n"
        "    except (Exception, KeyboardInterrupt): pass",
    ),
    Nasty(
        "bare except: loop",
        "import time\nwhile True:\n    try: time.sleep(60)\n    except: pass",
        quick=True,
        swallows=True,
    ),
    Nasty(
        "bare except: busy loop",
        "while True:\n    try:\n        for i in range(100_000): i * i\n    except: pass",
        swallows=True,
    ),
    Nasty("pow(7, 10**8)", "pow(7, 10**8)"),
    Nasty("10**10**8", "10**10**8"),
    Nasty(
        "C code that keeps the GIL and asks for no signal",
        "import itertools; any(itertools.repeat(0))",
        kept=False,
        quick=True,
    ),
    Nasty(
        "subprocess that ignores SIGINT",
        "import subprocess; subprocess.run(['sh', '-c', 'trap \"\" INT; sleep 60'])",
    ),
    Nasty("input() nobody answers", "input('Who? ')", quick=True, ends_by_itself=True),
    Nasty(
        "thread join",
        "import threading, time\n"
        "t = threading.Thread(target=time.sleep, args=(60,), daemon=True)\nt.start()\nt.join()",
    ),
    Nasty(
        "deadlocked lock", "import threading\nlock = threading.Lock()\nwith lock: lock.acquire()"
    ),
    Nasty(
        "multiprocessing pool",
        "import multiprocessing, time\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: pool.map(time.sleep, [60] * 4)",
    ),
    Nasty("catastrophic regex", "import re; re.match('(a+)+$', 'a' * 40 + 'b')"),
    Nasty("time.sleep in a C extension", "import ctypes; ctypes.CDLL(None).sleep(60)"),
    Nasty(
        "the same, keeping the GIL",
        "import ctypes; ctypes.PyDLL(None).sleep(60)",
    ),
)
