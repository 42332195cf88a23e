"""Shows the first request of a run, as `--show-prompt` prints it."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

Section = tuple[str, str]
"""What stands over a text, and the text."""


def show_request(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    tokens: int | None,
    *,
    as_json: bool,
) -> None:
    """Print it on standard output: word for word in a pipe, in a terminal without its commands.

    `tokens` is None where nobody can count them.
    """
    if as_json:
        whole = {"messages": [*messages], "tools": [*tools], "tokens": tokens}
        typer.echo(json.dumps(whole, ensure_ascii=False))
        return
    shown = [*map(_message, messages)]
    if tools:
        shown.append(("tools", "\n".join(json.dumps(it, ensure_ascii=False) for it in tools)))
    counted = "tokens unknown" if tokens is None else f"{tokens:,} tokens"
    if sys.stdout.isatty():
        _print_styled(shown, counted)
        return
    for title, text in shown:
        typer.echo(f"── {title} ──\n{text}\n")
    typer.echo(f"── {counted} ──")


def _print_styled(shown: Sequence[Section], counted: str) -> None:
    from rich.console import Console
    from rich.rule import Rule
    from rich.text import Text

    from kernel_agent.rendering import safe_text

    console = Console()
    for title, text in shown:
        console.print(Rule(Text(title, style="bold cyan"), align="left", style="bright_black"))
        console.print(Text(safe_text(text)), "", sep="\n")
    console.print(Rule(Text(counted, style="dim"), align="left", style="bright_black"))


def _message(message: Mapping[str, Any]) -> Section:
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [*_parts(content)]
    return str(message["role"]), "\n".join(parts)


def _parts(content: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The texts as they are, a line for each picture, recording or film."""
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                yield text
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                yield _media(url)
            case {"type": "input_audio", "input_audio": {"data": str(data), "format": form}}:
                yield _media(f"data:audio/{form};base64,{data}")
            case {"type": "file", "file": {"file_data": str(url)}}:
                yield _media(url)
            case _:
                yield json.dumps(part, ensure_ascii=False)


def _media(url: str) -> str:
    found = re.match(r"data:([^;,]*)[^,]*,", url)
    if not found:
        return f"[{url}]"
    encoded = url[found.end() :]
    size = len(encoded) * 3 // 4 - encoded[-2:].count("=")
    return f"[{found[1]}, {size:,} bytes]"
