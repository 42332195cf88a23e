"""Threads that work for as long as it takes; one that is stuck is replaced, not waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal

MAX_WORKERS = 32
IDLE_SECONDS = 5.0  # how long a thread without work stays


@dataclass(eq=False)
class Job:
    """Work that waits for a thread, is being done, or was given up; `begun` is monotonic."""

    work: Callable[[], None]
    state: Literal["waits", "runs", "given up"] = "waits"
    begun: float | None = None


class Workers:
    """Up to 32 threads, made when there is work for them."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._free = 0
        self._count = 0  # without those that are stuck

    def submit(self, work: Callable[[], None]) -> Job:
        """Have `work` done, which must not raise, in the order in which it comes."""
        job = Job(work)
        with self._lock:
            self._jobs.put(job)
            self._waiting += 1
            self._add_thread()
        return job

    def give_up(self, job: Job) -> None:
        """Do not begin it; if it runs already it cannot be stopped, but takes nobody's place."""
        with self._lock:
            is_stuck, job.state = job.state == "runs", "given up"
            if is_stuck:
                self._count -= 1
                self._add_thread()

    def _add_thread(self) -> None:
        if self._waiting > self._free and self._count < MAX_WORKERS:
            self._count += 1
            self._free += 1
            # A daemon: the end of the program does not wait for a call that hangs.
            threading.Thread(target=self._run, name="kernel-agent-call", daemon=True).start()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            if job.state == "runs":
                job.work()
            with self._lock:
                if job.state == "given up" and job.begun is not None:
                    return  # another thread is in this one's place
                self._free += 1

    def _next(self) -> Job | None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._waiting < self._free:
                        self._free -= 1
                        self._count -= 1
                        return None
                continue
            with self._lock:
                self._waiting -= 1
                self._free -= 1
                if job.state == "waits":
                    job.state, job.begun = "runs", time.monotonic()
            return job
