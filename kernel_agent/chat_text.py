"""Messages in the form that a model in this process takes: for its chat template, or as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from kernel_agent.steps import Message


def chat_form(tokenizer: Any, messages: Sequence[Message]) -> list[Message]:
    """`messages` in the first form that the chat template of transformers' `tokenizer` takes.

    As they are, with their texts alone; else with neighbours of the same role merged; else with
    the system prompt before the first user message too.

    Raises TemplateError if it takes none.
    """
    plain = [{"role": m["role"], "content": _text(m)} for m in messages]
    merged = _merged(plain)
    system = [m["content"].strip() for m in plain if m["role"] == "system"]
    refusal: TemplateError | None = None
    for form in (plain, merged, _merged(_without_system(merged))):
        try:
            text = tokenizer.apply_chat_template(form, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            refusal = error
            continue
        # Some templates leave out a system prompt without a word.
        if all(part in text for part in system):
            return form
    raise refusal or TemplateError("it leaves out the system prompt")


def plain_text(messages: Sequence[Message]) -> str:
    """The text of `messages` for a model without a chat template.

    Each begins with a line that says whose it is: `System:`, `User:`, `Assistant:`.
    """
    turns = [f"{message['role'].capitalize()}:\n{_text(message)}" for message in messages]
    return "\n\n".join([*turns, "Assistant:\n"])


def _text(message: Message) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n\n".join(part.get("text", "(an image)") for part in content)


def _merged(messages: Sequence[Message]) -> list[Message]:
    """`messages` with neighbours of the same role as one."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            text = f"{merged[-1]['content']}\n\n{message['content']}"
            merged[-1] = {"role": message["role"], "content": text}
        else:
            merged.append(message)
    return merged


def _without_system(messages: Sequence[Message]) -> list[Message]:
    return [m | {"role": "user"} if m["role"] == "system" else m for m in messages]
