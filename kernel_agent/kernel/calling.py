"""Runs inside the kernel: functions of the host, which the code calls like its own.

Shipped as text after the modules it imports, into a module of its own.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import atexit
import builtins
import functools
import inspect
import linecache
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython import get_ipython

if TYPE_CHECKING:
    from kernel_agent.border.codec import decode, encode
    from kernel_agent.kernel.courier import Call, Courier, outcome_of
else:
    from kernel_agent_border import decode, encode
    from kernel_agent_courier import Call, Courier, outcome_of

SERVED = "kernel_agent_serves"  # the key of a request that says: calls of this cell are answered
PLACE = "<call of the host>"
NOT_AS_BUILTIN = ("StopIteration", "StopAsyncIteration")  # would end a loop instead of failing


class ToolFailure(Exception):
    """A function of the host has raised an error of a type that is not known here."""


def _value(outcome: dict[str, Any]) -> Any:
    """What the function has returned; raises what it has raised."""
    if "error" in outcome:
        raise _error(*outcome["error"])
    return decode(outcome["result"], folder=_offered.folder, mapped=True)


def _error(name: str, message: str) -> Exception:
    """An error of that type name: a builtin one, or one of our own that is called so."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and name not in NOT_AS_BUILTIN:
        try:
            return kind(message)
        except TypeError:  # it wants more than a message
            pass
    return _failure(name)(message)


@functools.lru_cache(1000)
def _failure(name: str) -> type[ToolFailure]:
    return ToolFailure if name == "ToolFailure" else type(name, (ToolFailure,), {})


def _function(name: str, stub: str) -> Callable[..., Any]:
    """A function with the signature and the docstring of `stub` that the host carries out."""
    pattern, is_async = _pattern(name, stub)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(pattern).parameters.values()
    places = [parameter.name for parameter in parameters if parameter.kind in positional]

    def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        pattern(*args, **kwargs)  # raises what Python raises for arguments that do not fit
        named = [*places, *(f"args[{n}]" for n in range(len(places), len(args)))]

        def encoded(arg: Any, place: str) -> Any:
            return encode(arg, folder=_offered.folder, name=place)

        return {
            "args": [encoded(arg, place) for arg, place in zip(args, named, strict=False)],
            "kwargs": {key: encoded(arg, key) for key, arg in kwargs.items()},
        }

    @_brief
    def call(*args: Any, **kwargs: Any) -> Any:
        (begun,) = _call(name, [arguments(args, kwargs)])
        return _value(outcome_of(begun))

    @_brief_async
    async def acall(*args: Any, **kwargs: Any) -> Any:
        """The same in async code: the event loop goes on meanwhile."""
        (begun,) = _call(name, [arguments(args, kwargs)])
        return _value(await asyncio.wrap_future(begun))

    @_brief
    def call_all(items: list[Any], return_exceptions: bool, fixed: dict[str, Any]) -> list[Any]:
        begun = _call(name, [arguments((item,), fixed) for item in items])
        outcomes = _outcomes(begun)
        if return_exceptions:
            return [_value_or_error(outcome) for outcome in outcomes]
        return [_value(outcome) for outcome in outcomes]

    def map(items: Iterable[Any], /, *, return_exceptions: bool = False, **fixed: Any) -> list[Any]:
        """Calls it for each item at once, and gives the results in the order of the items.

        The item is the first argument; `fixed` are given to every call. The first error is
        raised once all calls are done, or with `return_exceptions` stands in its result's place.
        """
        return call_all(list(items), return_exceptions, fixed)  # type: ignore[no-any-return]

    function: Any = functools.wraps(pattern)(acall if is_async else call)
    function.acall, function.map = acall, _placed(map)
    return function  # type: ignore[no-any-return]


def _placed(function: Any) -> Any:
    """`function`, in tracebacks as at a place without source, which is none of the user's."""
    function.__code__ = function.__code__.replace(co_filename=PLACE)
    return function


def _brief(function: Callable[..., Any]) -> Any:
    """`function` with a traceback, if it fails, that ends where it is called."""

    @functools.wraps(function)
    def brief(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as raised:
            error = raised.with_traceback(None)
        raise error from None

    return _placed(brief)


def _brief_async(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    async def brief(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except Exception as raised:
            error = raised.with_traceback(None)
        raise error from None

    return _placed(brief)


def _outcomes(begun: list[Call]) -> list[dict[str, Any]]:
    try:
        return [outcome_of(call) for call in begun]
    except BaseException:
        for call in begun:
            call.cancel()
        raise


def _value_or_error(outcome: dict[str, Any]) -> Any:
    try:
        return _value(outcome)
    except Exception as error:
        return error


def _pattern(name: str, stub: str) -> tuple[Callable[..., Any], bool]:
    """The function that a stub defines, with nothing but its docstring in it."""
    file = f"<{name}, on the host>"
    tree = ast.parse(stub)
    (definition,) = (node for node in tree.body if hasattr(node, "decorator_list"))
    assert isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef))
    is_async = isinstance(definition, ast.AsyncFunctionDef)
    has_docstring = ast.get_docstring(definition) is not None
    definition.body = definition.body[:1] if has_docstring else [ast.Pass()]
    definition.decorator_list = []
    fields = {key: getattr(definition, key) for key in ast.FunctionDef._fields}
    plain = ast.FunctionDef(**fields, lineno=1, col_offset=0)
    tree.body = [plain]
    annotations = __future__.annotations.compiler_flag
    code = compile(ast.fix_missing_locations(tree), file, "exec", annotations, dont_inherit=True)
    namespace: dict[str, Any] = {"__name__": "host"}
    exec(code, namespace)
    linecache.cache[file] = (len(stub), None, stub.splitlines(keepends=True), file)
    return namespace[name], is_async


class Offered:
    """What the code is offered: the functions, who carries their calls, where large values go."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.courier: Courier | None = None
        self._functions: dict[str, Any] = {}

    def replace(self, functions: dict[str, Any]) -> None:
        names = get_ipython().user_ns
        for name, function in self._functions.items():
            if names.get(name) is function:
                del names[name]
        self._functions = functions
        self.provide()

    def has(self, value: Any) -> bool:
        """Whether `value` is one of the functions: it belongs to the run, not to the code."""
        return any(function is value for function in self._functions.values())

    def provide(self) -> None:
        """Functions that the code has deleted are there again, those it has replaced are not."""
        for name, function in self._functions.items():
            get_ipython().user_ns.setdefault(name, function)

    def open(self) -> None:
        if self.courier is None:
            kernel, events = get_ipython().kernel, get_ipython().events
            self.courier = Courier(kernel)
            kernel._input_request = self.courier.ask
            events.register("pre_execute", self._begin_cell)
            events.register("post_execute", self._end_cell)
            atexit.register(self.courier.close)

    def close(self) -> None:
        if self.courier is not None:
            kernel, events = get_ipython().kernel, get_ipython().events
            del kernel._input_request
            events.unregister("pre_execute", self._begin_cell)
            events.unregister("post_execute", self._end_cell)
            atexit.unregister(self.courier.close)
            self.courier.close()
            self.courier = None

    def _begin_cell(self) -> None:
        # A subshell executes too, while a cell runs in the main thread.
        if threading.current_thread() is threading.main_thread() and self.courier is not None:
            self.provide()
            content = get_ipython().kernel.get_parent("shell").get("content", {})
            self.courier.begin_cell(content.get(SERVED, ""))

    def _end_cell(self) -> None:
        if threading.current_thread() is threading.main_thread() and self.courier is not None:
            self.courier.begin_cell("")


_offered: Offered = globals().get("_offered") or Offered()


def is_offered(value: Any) -> bool:
    """Whether `value` is a function of the host that the code is offered."""
    return _offered.has(value)


def install(stubs: dict[str, str], folder: str | None) -> None:
    """Give the code the functions of `stubs`, in place of those of before; large values go there.

    What the code itself has put under such a name is left alone.
    """
    _offered.folder = Path(folder) if folder else None
    _offered.replace({name: _function(name, stub) for name, stub in stubs.items()})
    if stubs:
        _offered.open()
    else:
        _offered.close()


def offer(stubs: dict[str, str], folder: str | None) -> str:
    """Install them; why that did not work, empty if it did."""
    try:
        install(stubs, folder)
    except Exception as error:  # the default of a parameter may be any expression
        return f"{type(error).__name__}: {error}"
    return ""


def is_shared(folder: str, token: str) -> bool:
    """Whether the host's `folder` is here too, with the `token` in it; writes it back."""
    try:
        if Path(folder, "of-host").read_text(encoding="ascii") != token:
            return False
        Path(folder, "of-kernel").write_text(token, encoding="ascii")
    except OSError:
        return False
    return True


def _call(name: str, arguments: list[dict[str, Any]]) -> list[Call]:
    if _offered.courier is None:
        raise RuntimeError(f"{name}() was taken away: nobody answers its calls any more.")
    return _offered.courier.call(name, arguments)
