"""Functions of the host that the code in a kernel calls: each call is run, bounded and recorded."""

from __future__ import annotations

import ast
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel_agent.kernel.workers import Job, Workers
from kernel_agent.steps import ToolCall, Usage

MAGIC = "kernel_agent calls: "  # the same in calling.py
SERVED = "kernel_agent_serves"
GRACE_SECONDS = 0.05  # the interrupt is to come first, before the errors that it causes


Serve = Callable[[str, Mapping[str, Any]], Any]
"""Carries out a call: gets the name and `{"args": […], "kwargs": {…}}`, values as `border` encodes
them, and returns the encoded result, or raises. It is called in worker threads, up to 32 at once;
what it returns after the call was given up is dropped."""

_carried_out = threading.local()


def tell_used(usage: Usage, transcript: str) -> None:
    """Tell what the call that this thread carries out has used until now, and its own notebook.

    It stands in the call's record, even if the call fails or is given up. Elsewhere nothing is
    done.
    """
    call = getattr(_carried_out, "call", None)
    if call is not None:
        call.usage, call.transcript = usage, transcript


@dataclass(frozen=True)
class Offer:
    """A function of the host for the code in the kernel.

    `stub` is its `def` with docstring, without a body that does anything; `timeout` is how many
    seconds a call may take.

    Raises ValueError if the stub is no single `def`.
    """

    stub: str
    timeout: float | None = 120.0

    def __post_init__(self) -> None:
        try:
            nodes = ast.parse(self.stub).body
        except SyntaxError as error:
            raise ValueError(f"The stub {self.stub!r} is no Python: {error}.") from error
        if len(nodes) != 1 or not isinstance(nodes[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
            raise ValueError(f"The stub {self.stub!r} must be one `def`, with its docstring.")


def check_offers(offers: Mapping[str, Offer]) -> None:
    """Raises ValueError for a stub that defines another name than it is offered under."""
    for name, offer in offers.items():
        (definition,) = ast.parse(offer.stub).body
        if getattr(definition, "name", None) != name:
            raise ValueError(f"The stub of {name!r} defines another name: {offer.stub!r}.")


@dataclass(eq=False)
class _Call:
    """A call from its arrival on.

    Only the thread that executes the cell changes it, but for what it has used: that tells the
    thread that carries it out.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    timeout: float | None
    job: Job | None = None
    seconds: float = 0.0
    result: Any = None
    error: str = ""
    usage: Usage = field(default_factory=Usage)
    transcript: str = ""

    @property
    def running_seconds(self) -> float:
        """How long it has been running; not how long it has waited for its turn."""
        if self.job is None or self.job.begun is None:
            return 0.0
        return time.monotonic() - self.job.begun

    @property
    def is_late(self) -> bool:
        return self.timeout is not None and self.running_seconds > self.timeout

    def record(self) -> ToolCall:
        return ToolCall(
            self.name,
            self.arguments,
            self.result,
            self.error,
            self.seconds,
            self.usage,
            self.transcript,
        )


@dataclass(frozen=True)
class _Result:
    """What a call has returned, and the letter that tells it."""

    value: Any
    text: str


@dataclass(frozen=True)
class _Failure:
    """An error of a call: the name of its type and what it says."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class Serving:
    """Serves the calls of one cell.

    `serve` carries a call out, in one of the `workers`; `wake` is called when one is done. What
    the kernel says is not trusted: a letter that is not one is passed over, and a call gets the
    functions of `offers` only. More than `max_calls` are refused.
    """

    def __init__(
        self,
        serve: Serve,
        offers: Mapping[str, Offer],
        workers: Workers,
        *,
        max_calls: int,
        wake: Callable[[], None],
    ) -> None:
        self._cell = uuid.uuid4().hex
        self._serve = serve
        self._offers = offers
        self._workers = workers
        self._max_calls = max_calls
        self._wake = wake
        self._calls: dict[str, _Call] = {}
        self._running: dict[str, _Call] = {}
        self._done: deque[tuple[_Call, _Result | _Failure]] = deque()
        self._outcomes: dict[str, str] = {}  # what was answered and may be asked for again
        self._news: list[str] = []
        self._unknown: list[str] = []
        self._closed = ""
        self._silent_until = 0.0

    @property
    def marker(self) -> dict[str, str]:
        """What the request of the cell must hold in order that its calls come here."""
        return {SERVED: self._cell}

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(call.record() for call in self._calls.values())

    def take(self, prompt: str) -> None:
        """Take a letter of the kernel's: new calls, and which are not waited for any more."""
        try:
            letter = json.loads(prompt[len(MAGIC) :])
            if letter["cell"] != self._cell:
                return
            calls = [
                (str(call["id"]), str(call["name"]), _arguments(call["arguments"]))
                for call in letter["calls"]
            ]
            cancelled = [str(call_id) for call_id in letter["cancelled"]]
            waiting = dict.fromkeys(str(call_id) for call_id in letter["waiting"])
        except (KeyError, RecursionError, TypeError, ValueError):
            return
        for call_id, name, arguments in calls:
            self._begin(call_id, name, arguments)
        for call_id in cancelled:
            if (call := self._running.get(call_id)) is not None:
                self._give_up(call, "Cancelled", "nobody waits for it any more.")
        is_reminder = not calls and not cancelled
        if is_reminder:
            self._news += [call_id for call_id in waiting if call_id in self._outcomes]
            known = self._running.keys() | self._outcomes.keys()
            self._unknown += [call_id for call_id in waiting if call_id not in known]
        for call_id in [each for each in self._outcomes if each not in waiting]:
            del self._outcomes[call_id]

    def answer(self) -> str:
        """What is to be sent to the kernel now; empty if nothing is."""
        while self._done:
            call, outcome = self._done.popleft()
            if call.id in self._running:
                self._finish(call, outcome)
        for call in [call for call in self._running.values() if call.is_late]:
            said = f"{call.name}() took longer than its {call.timeout:g} s."
            self._give_up(call, "TimeoutError", said)
        if (not self._news and not self._unknown) or time.monotonic() < self._silent_until:
            return ""
        news = [each for each in dict.fromkeys(self._news) if each in self._outcomes]
        done = ", ".join(f"[{json.dumps(each)}, {self._outcomes[each]}]" for each in news)
        unknown, self._news, self._unknown = self._unknown, [], []
        return f'{MAGIC}{{"done": [{done}], "unknown": {json.dumps(unknown)}}}'

    def close(self, reason: str) -> None:
        """Give up every call, also those that are still to come."""
        if not self._closed:
            self._closed = reason
            self._silent_until = time.monotonic() + GRACE_SECONDS
            for call in list(self._running.values()):
                self._give_up(call, "Cancelled", reason)

    def _begin(self, call_id: str, name: str, arguments: Mapping[str, Any]) -> None:
        if call_id in self._calls:
            return
        if name not in self._offers:
            self._tell(call_id, _Failure("NameError", f"the host has no function {name!r}."))
        elif self._closed:
            self._tell(call_id, _Failure("Cancelled", self._closed))
        elif len(self._calls) >= self._max_calls:
            said = f"{name}() was not called: a cell may make {self._max_calls:,} calls in all."
            self._tell(call_id, _Failure("RuntimeError", said))
        else:
            call = _Call(call_id, name, arguments, self._offers[name].timeout)
            self._calls[call_id] = self._running[call_id] = call
            call.job = self._workers.submit(lambda: self._work(call))

    def _work(self, call: _Call) -> None:
        """Carry a call out, in a worker's thread."""
        outcome: _Result | _Failure
        _carried_out.call = call
        try:
            result = self._serve(call.name, call.arguments)
            outcome = _Result(result, json.dumps({"result": result}, allow_nan=False))
        except BaseException as error:  # whatever it is, the code in the kernel is to have it
            outcome = _Failure(type(error).__name__, _message(error))
        finally:
            del _carried_out.call
        self._done.append((call, outcome))
        self._wake()

    def _finish(self, call: _Call, outcome: _Result | _Failure) -> None:
        del self._running[call.id]
        call.seconds = call.running_seconds
        if isinstance(outcome, _Failure):
            call.error = str(outcome)
            self._tell(call.id, outcome)
            return
        call.result = outcome.value
        self._outcomes[call.id] = outcome.text
        self._news.append(call.id)

    def _give_up(self, call: _Call, kind: str, message: str) -> None:
        """Fail a call whose worker cannot be stopped: what it still does is not heard of."""
        self._finish(call, _Failure(kind, message))
        if call.job is not None:
            self._workers.give_up(call.job)

    def _tell(self, call_id: str, failure: _Failure) -> None:
        self._outcomes[call_id] = json.dumps({"error": [failure.kind, failure.message]})
        self._news.append(call_id)


def _arguments(arguments: Any) -> dict[str, Any]:
    """Raises TypeError if these are no arguments."""
    match arguments:
        case {"args": list(), "kwargs": dict(), **rest} if not rest:
            return dict(arguments)
    raise TypeError("no arguments")


def _message(error: BaseException) -> str:
    """What an error says, without the quotes that a KeyError puts around it."""
    if isinstance(error, KeyError) and len(error.args) == 1:
        return str(error.args[0])
    try:
        return str(error)
    except Exception:  # its own code says it
        return ""
