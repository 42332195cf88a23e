"""What the model is sent: a function of the system prompt and the entries, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from kernel_agent.steps import Entry, Message, user_message


def messages_of(system: str, entries: Iterable[Entry]) -> list[Message]:
    """The messages of a run so far: the same entries give the same bytes.

    Messages of the user that follow each other become one, for strict chat templates.
    """
    messages: list[Message] = [{"role": "system", "content": system}]
    for entry in entries:
        for message in entry.messages():
            if message["role"] == messages[-1]["role"] == "user":
                messages[-1] = _merged(messages[-1], message)
            else:
                messages.append(message)
    return messages


def _merged(first: Message, second: Message) -> Message:
    """Two messages of the user as one: their texts, a blank line between, then their images."""
    texts: list[str] = []
    images: list[str] = []
    for message in (first, second):
        match message["content"]:
            case str() as text:
                texts.append(text)
            case [{"text": text}, *parts]:
                texts.append(text)
                images += [part["image_url"]["url"] for part in parts]
    return user_message("\n\n".join(texts), tuple(images))
