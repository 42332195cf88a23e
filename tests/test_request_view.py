"""What `--show-prompt` prints: the messages word for word, media as a line each, the tokens."""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any

import pytest

from kernel_agent.cli.request_view import show_request

PNG = "data:image/png;base64," + base64.b64encode(b"x" * 1001).decode()
PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": PNG}},
    {"type": "input_audio", "input_audio": {"data": "eHh4", "format": "wav"}},
    {"type": "file", "file": {"file_data": "data:video/mp4;base64,eHg="}},
]
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "You are [bold]brief[/].  \n\n# Rules"},
    {"role": "user", "content": PARTS},
]
TOOLS = [{"type": "function", "function": {"name": "python"}}]


def test_in_a_pipe_every_message_is_shown_word_for_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_request(MESSAGES, TOOLS, 1234, as_json=False)
    assert capsys.readouterr().out == (
        "── system ──\nYou are [bold]brief[/].  \n\n# Rules\n\n"
        "── user ──\nWhat is this?\n"
        "[image/png, 1,001 bytes]\n[audio/wav, 3 bytes]\n[video/mp4, 2 bytes]\n\n"
        '── tools ──\n{"type": "function", "function": {"name": "python"}}\n\n'
        "── 1,234 tokens ──\n"
    )


def test_without_tools_and_without_a_count_nothing_is_made_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_request(MESSAGES[:1], (), None, as_json=False)
    text = capsys.readouterr().out
    assert "tools" not in text
    assert text.endswith("── tokens unknown ──\n")


def test_as_json_it_is_one_value_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    show_request(MESSAGES, TOOLS, 1234, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"messages": MESSAGES, "tools": TOOLS, "tokens": 1234}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_in_a_terminal_nothing_that_it_would_obey_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pty

    ours, theirs = pty.openpty()
    hostile = [{"role": "user", "content": "a\x1b]0;title\x07b [bold]c[/]"}]
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        show_request(hostile, (), 7, as_json=False)
        terminal.flush()
        shown = ""
        while "tokens" not in shown:  # it comes in pieces
            shown += os.read(ours, 4096).decode()
    monkeypatch.undo()
    os.close(ours)
    assert "ab [bold]c[/]" in shown
    assert "title" not in shown
    assert "user" in shown
    assert "7 tokens" in shown
