"""A tool as a value, and how any callable becomes one."""

from __future__ import annotations

import builtins
import functools
import inspect
import keyword
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, overload

from kernel_agent.errors import ToolError
from kernel_agent.tools.shipping import shippable_source
from kernel_agent.tools.stubs import check_stub, function_of, make_stub

Where = Literal["host", "kernel"]
"""Where a tool runs: in the user's process, or as source in the kernel beside the code."""

TIMEOUT = 120.0
"""Seconds that one call of a tool may take unless it says otherwise."""

_TAKEN = frozenset([*dir(builtins), "final_answer", "get_ipython", "display", "In", "Out"])
_TAKEN_TOO = frozenset(["exit", "quit"])  # added by `site`, which may not have been imported
_HOW_TO_NAME = 'Name it: tool(name="…")(function).'


@dataclass(frozen=True)
class Tool:
    """A function that the code in the kernel can call.

    `stub` is Python source of a `def` with its docstring: what the model is shown, and what the
    function in the kernel has its signature and help from. `call` is the host's function, which
    gets Python values. `timeout` is in seconds, for one call; None means no bound. `source` is
    what runs in the kernel if that is `where` the tool runs. `close` is called once when the
    tool is not needed any more.

    Raises ToolError for a name, stub or timeout that cannot be.
    """

    name: str
    stub: str
    call: Callable[..., Any]
    where: Where = "host"
    timeout: float | None = TIMEOUT
    source: str = ""
    close: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_stub(self.name, self.stub)
        if self.where not in ("host", "kernel"):
            raise ToolError(self.name, f'where is {self.where!r}. It must be "host" or "kernel".')
        if self.timeout is not None and not self.timeout > 0:
            raise ToolError(self.name, f"timeout is {self.timeout!r}. It must be above 0, or None.")
        if (self.where == "kernel") != bool(self.source.strip()):
            raise ToolError(
                self.name, "source is for the tools that run in the kernel, all of them."
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here, as if it had not been made a tool."""
        return self.call(*args, **kwargs)


def check_name(name: str) -> None:
    """Raises ToolError unless a function in the kernel can have this name."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ToolError(name, f"this cannot be the name of a function. {_HOW_TO_NAME}")
    if name.startswith("_"):
        raise ToolError(name, f"names with _ in front are IPython's. {_HOW_TO_NAME}")
    if name in _TAKEN or name in _TAKEN_TOO:
        raise ToolError(name, f"the code in the kernel needs this name itself. {_HOW_TO_NAME}")


@overload
def tool(value: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, timeout: float | None = TIMEOUT, where: Where = "host"
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    value: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = TIMEOUT,
    where: Where = "host",
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a callable, as a decorator (`@tool`, `@tool(timeout=10)`) or by a call.

    `name` is the tool's name in the kernel, the callable's own if None. `timeout` is in seconds,
    for one call; None means no bound. With `where="kernel"` the function's source runs in the
    kernel: then it may use builtins and modules only.

    Raises ToolError if it cannot be a tool, see `as_tool`.
    """
    if value is not None:
        return as_tool(value)
    return lambda value: _make(value, name=name, timeout=timeout, where=where)


def as_tool(value: Any) -> Tool:
    """The tool that `value` is, or that is made of it.

    Any callable will do: a function, a coroutine function, a bound method, a `functools.partial`,
    a builtin with a signature, an instance with `__call__` or `forward`, whose `setup()` (if it
    has one) is called once before its first call and whose `close()` at the end. Its signature
    and its docstring (in Google, NumPy or Sphinx form) become the stub.

    Raises ToolError: it has no name or one that cannot be, or a signature that nobody can call.
    Warns if it has no docstring.
    """
    return value if isinstance(value, Tool) else _make(value)


def _make(
    value: Any,
    *,
    name: str | None = None,
    timeout: float | None = TIMEOUT,
    where: Where = "host",
) -> Tool:
    named = name or _name(value)
    if isinstance(value, Tool):
        raise ToolError(named, "it is a tool already: give the function itself to `tool(…)`.")
    call, close = _call_and_close(value, named)
    check_name(named)
    _refuse_method(named, call)
    function = function_of(call)
    docstring = function.__doc__ or (type(value).__doc__ if _is_instance(value) else None)
    source = shippable_source(named, value, tool) if where == "kernel" else ""
    is_async = where == "kernel" and inspect.iscoroutinefunction(function)
    stub = make_stub(named, call, docstring=docstring, is_async=is_async)
    return Tool(named, stub, call, where, timeout, source, close)


def _name(value: Any) -> str:
    if isinstance(value, functools.partial):
        return _name(value.func)
    if _is_instance(value):
        own = getattr(value, "name", None) or getattr(value, "__name__", None)
        return own if isinstance(own, str) else _snake_case(type(value).__name__)
    name = getattr(value, "__name__", "")
    if name == "<lambda>":
        raise ToolError(name, f"a lambda has no name. {_HOW_TO_NAME}")
    return str(name) or _snake_case(type(value).__name__)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _is_instance(value: Any) -> bool:
    """Whether it is an object of a class of the user's, and no function of any kind."""
    is_function = inspect.isroutine(value) or isinstance(value, functools.partial | type)
    return not is_function and not hasattr(value, "__wrapped__")


def _call_and_close(value: Any, name: str) -> tuple[Callable[..., Any], Callable[[], None] | None]:
    """What is called for `value`, and what when it is not needed any more."""
    if isinstance(value, type):
        raise ToolError(name, "it is a class. Give an instance of it, or a function.")
    if not _is_instance(value):
        return value, None
    call = getattr(value, "forward", None) or (value.__call__ if callable(value) else None)
    if not callable(call):
        kind = type(value).__qualname__
        raise ToolError(name, f"a {kind} cannot be called: it has neither __call__ nor forward.")
    setup, close = getattr(value, "setup", None), getattr(value, "close", None)
    if callable(setup):
        call = _after_setup(setup, call)
    return call, close if callable(close) else None


def _after_setup(setup: Callable[[], Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, with `setup` called once before its first call; if that fails, the next tries."""
    lock = threading.Lock()
    is_set_up = False

    @functools.wraps(call)
    def set_up_and_call(*args: Any, **kwargs: Any) -> Any:
        nonlocal is_set_up
        with lock:
            if not is_set_up:
                setup()
                is_set_up = True
        return call(*args, **kwargs)

    return set_up_and_call


def _refuse_method(name: str, call: Callable[..., Any]) -> None:
    """A function in a class body gets no instance: nobody could give its `self`."""
    owner = getattr(call, "__qualname__", "").rpartition(".")[0].rpartition(".")[2]
    if not inspect.isfunction(call) or owner in ("", "<locals>"):
        return
    if next(iter(inspect.signature(call).parameters), "") in ("self", "cls"):
        raise ToolError(
            name,
            "its first parameter 'self' has no value, for it is a method in its class. "
            "Give the method of an instance: tool(instance.method).",
        )
