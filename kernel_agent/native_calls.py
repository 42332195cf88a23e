"""Native tool calls become the source of a cell, and the text that stands for them."""

from __future__ import annotations

import json
import keyword
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kernel_agent.blocks import find_blocks
from kernel_agent.calls import called
from kernel_agent.steps import RequestedCall
from kernel_agent.syntax import is_clearly_python

WIDTH = 88  # characters; a longer call is broken into lines
ANSWER = "final_answer"


class UnusableCall(ValueError):
    """A call of which no code can be made: what is wrong with it, in one sentence."""


def source_of(
    calls: Sequence[RequestedCall], *, language: str = "python", tools: Collection[str] = ()
) -> str:
    """The cell that does what `calls` ask for, in their order.

    A call of the tool that is named like `language` is its code as it stands, a call of one of
    `tools` (functions in the kernel, which only Python has) a line of code that shows its result.

    Raises UnusableCall for a call of something else, and for arguments that cannot be read.
    """
    sources = [
        _source(call, language, tools, is_last=number == len(calls))
        for number, call in enumerate(calls, 1)
    ]
    if len(sources) > 1 and any(source.lstrip().startswith("%%") for source in sources):
        # It would make its own of what comes after it, or stand in the middle of a cell.
        raise UnusableCall("A cell that begins with %% cannot be run together with other calls.")
    return "\n\n".join(sources)


def with_calls(said: str, calls: Sequence[RequestedCall]) -> str:
    """What stands for a reply where only text can: `said`, and the calls as blocks of code."""
    return "\n\n".join(filter(None, (said, *map(_block, calls))))


def sent_back(arguments: str) -> str:
    """The JSON text of a call's arguments, as they are; made valid where a provider refuses it."""
    try:
        if isinstance(json.loads(arguments, parse_constant=_refuse), dict):
            return arguments
    except (ValueError, RecursionError):
        pass
    read = read_arguments(arguments)
    return json.dumps({"unreadable": arguments} if read is None else read)


def read_arguments(arguments: str) -> dict[str, Any] | None:
    """Arguments as an object; None if they are none. Raw line ends in strings are borne with."""
    if not arguments.strip():
        return {}
    try:
        value = json.loads(arguments, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def unfenced(source: str, language: str) -> str:
    """What one fence holds if it is all that there is; anything else as it stands."""
    if not source.lstrip().startswith(("```", "~~~")):
        return source
    match find_blocks(source.strip(), language):
        case [block] if block.closed and block.kind in ("own", "bare"):
            is_all = (block.start, block.end) == (0, len(source.strip()))
            return block.source if is_all else source
    return source


def _source(call: RequestedCall, language: str, tools: Collection[str], *, is_last: bool) -> str:
    name = call.name.rpartition(".")[2]  # `functions.python`, as some models write
    is_python = language == "python"
    if name not in tools and name.lower() == language:
        return _code(call, language)
    if is_python and name == ANSWER:
        return f"{ANSWER}({_rendered(_only_value(call), 0, WIDTH - len(ANSWER) - 2)})"
    if is_python and name in tools:
        arguments = read_arguments(call.arguments)
        if arguments is None:
            raise UnusableCall(f"The arguments of {name!r} are no JSON object.")
        shown = _call(name, arguments)
        return shown if is_last else f"display({shown})"
    if is_python and (source := called(_as_json(call))):
        return source  # `execute_python` and the like
    raise UnusableCall(f"There is no tool {call.name!r}.")


def _code(call: RequestedCall, language: str) -> str:
    source = _code_in(call.arguments, language)
    if source is None:
        raise UnusableCall(f"The arguments of {call.name!r} are no JSON object with the code.")
    if not source.strip():
        raise UnusableCall(f"The call of {call.name!r} held no code.")
    return unfenced(source, language)


def _code_in(arguments: str, language: str) -> str | None:
    """The code in the arguments: a string of theirs, or they themselves if that is clear."""
    read = read_arguments(arguments)
    if read is not None:
        source = read.get("code", read.get("source", "" if not read else None))
        return source if isinstance(source, str) else None
    text = arguments.strip()
    if text.startswith('"'):
        try:
            text = json.loads(text, strict=False)
        except ValueError:
            return None
    is_code = language == "python" and not text.startswith(("{", "["))
    return text if is_code and is_clearly_python(text) else None


def _only_value(call: RequestedCall) -> Any:
    arguments = read_arguments(call.arguments)
    if arguments is None or len(arguments) != 1:
        raise UnusableCall(f"{ANSWER} takes one value.")
    return next(iter(arguments.values()))


def _as_json(call: RequestedCall) -> str:
    return json.dumps({"name": call.name, "arguments": call.arguments})


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    """The call of a function, in as many lines as it needs."""
    odd = {key: value for key, value in arguments.items() if not _is_keyword(key)}
    given = [f"{key}={value!r}" for key, value in arguments.items() if key not in odd]
    given += [f"**{odd!r}"] if odd else []
    line = f"{name}({', '.join(given)})"
    if len(line) <= WIDTH:
        return line
    broken = [
        f"    {key}={_rendered(value, 4, WIDTH - len(key) - 6)},"
        for key, value in arguments.items()
        if key not in odd
    ]
    broken += [f"    **{_rendered(odd, 4, WIDTH - 7)},"] if odd else []
    return "\n".join([f"{name}(", *broken, ")"])


def _rendered(value: Any, indent: int, room: int) -> str:
    """A JSON value as a literal, broken into lines if it has over `room` characters."""
    line, inner = repr(value), " " * (indent + 4)
    if len(line) <= room:
        return line
    below = WIDTH - indent - 5
    match value:
        case str() if len(lines := value.splitlines(keepends=True)) > 1:
            return _bracketed("(", [f"{inner}{part!r}" for part in lines], ")", indent)
        case list() if value:
            items = [f"{inner}{_rendered(item, indent + 4, below)}," for item in value]
            return _bracketed("[", items, "]", indent)
        case dict() if value:
            items = [
                f"{inner}{key!r}: {_rendered(item, indent + 4, below - len(repr(key)) - 2)},"
                for key, item in value.items()
            ]
            return _bracketed("{", items, "}", indent)
    return line


def _bracketed(opening: str, lines: Sequence[str], closing: str, indent: int) -> str:
    return "\n".join([opening, *lines, " " * indent + closing])


def _is_keyword(key: str) -> bool:
    """Whether a key can stand before `=` in a call: Python's parser must not change it."""
    is_name = key.isidentifier() and not keyword.iskeyword(key)
    return is_name and unicodedata.is_normalized("NFKC", key)


def _block(call: RequestedCall) -> str:
    arguments = read_arguments(call.arguments)
    match arguments:
        case {"code": str() as source} if len(arguments or ()) == 1:
            return f"```{call.name}\n{source}\n```"
        case None:
            return f"```text\n{call.name}({call.arguments})\n```"
    return f"```python\n{_call(call.name, arguments)}\n```"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
