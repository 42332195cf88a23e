"""The tools of one agent: offered to a kernel, told to the model, and called for the code."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from kernel_agent.border.codec import NotTransferable, decode, encode
from kernel_agent.errors import ToolError
from kernel_agent.kernel.serving import Offer
from kernel_agent.tools.checking import Checker
from kernel_agent.tools.event_loop import EventLoop
from kernel_agent.tools.shipping import joined_sources
from kernel_agent.tools.tool import Tool, as_tool


class Toolbox:
    """Tools by their names; `tools` may be any callables, see `as_tool`.

    `close` it when no cell will call a tool any more, or use it as a context manager.

    Raises ToolError if one cannot be a tool, or two have the same name.
    """

    def __init__(self, tools: Iterable[Any] = ()) -> None:
        self.tools: tuple[Tool, ...] = tuple(map(as_tool, tools))
        counts = Counter(one.name for one in self.tools)
        for name, count in counts.items():
            if count > 1:
                reason = f'{count} tools have this name. Name them: tool(name="…")(function).'
                raise ToolError(name, reason)
        self._served = {one.name: one for one in self.tools if one.where == "host"}
        self._checkers: dict[str, Checker] = {}
        self._loop = EventLoop()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def stubs(self) -> dict[str, Offer]:
        """What `Kernel.offer` takes: the tools that run here, by name."""
        return {name: Offer(one.stub, one.timeout) for name, one in self._served.items()}

    def prompt(self) -> str:
        """The stubs of all tools, for the system prompt; empty without tools."""
        return "\n\n".join(one.stub for one in self.tools)

    def serve(self, name: str, arguments: Mapping[str, Any], *, folder: Path | None) -> Any:
        """Call tool `name` with encoded `arguments`; returns its encoded result.

        Large values lie in `folder` as files. May be called in many threads at once.

        Raises TypeError if the arguments do not fit the signature, ToolError if there is no such
        tool or its result cannot be given to the kernel, and whatever the tool raises.
        """
        tool = self._served.get(name)
        if tool is None:
            known = f"There are: {', '.join(self._served)}." if self._served else "There is none."
            raise ToolError(name, f"there is no such tool. {known}")
        if name not in self._checkers:
            self._checkers[name] = Checker(tool)
        given = [decode(one, folder=folder) for one in arguments["args"]]
        named = {key: decode(one, folder=folder) for key, one in arguments["kwargs"].items()}
        args, kwargs = self._checkers[name].check(given, named)
        result = tool.call(*args, **kwargs)
        if inspect.isawaitable(result):
            result = self._loop.run(result, name=name, timeout=tool.timeout)
        shown = f"what {name}() returned"
        try:
            return encode(result, folder=folder, name=shown)
        except NotTransferable as error:
            raise ToolError(name, f"it has run, but {error}") from error

    def close(self) -> None:
        """End what still runs on the event loop and close the tools. Again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.close()
        for one in self.tools:
            if one.close is None:
                continue
            try:
                one.close()
            except Exception as error:  # the others are to be closed, too
                warnings.warn(f"Tool {one.name!r} could not be closed: {error!r}", stacklevel=2)


def kernel_source(tools: Iterable[Tool]) -> str:
    """What a setup cell runs, so that the kernel has the tools that run there; may be empty."""
    return joined_sources([one.source for one in tools if one.where == "kernel"])
