"""What the model is sent: a function of the system prompt and the entries, and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kernel_agent.native_calls import sent_back, with_calls
from kernel_agent.steps import Entry, Message, RequestedCall, Step, user_message
from kernel_agent.transcript.shortening import as_cut

TOGETHER = "It ran together with the next call: what came out of both is shown there."
NOT_RUN = "It was not run: the task had ended."
REFUSED = "It was not run: the result of the last call says why."
FIGURES = "What the last cell showed:"


def messages_of(system: str, entries: Iterable[Entry], *, native: bool = False) -> list[Message]:
    """The messages of a run so far: the same entries give the same bytes.

    Messages of the user that follow each other become one, for strict chat templates. With
    `native`, tool calls and reasoning are sent as such; else everything is text, and calls are
    shown as blocks of code. After a cut, what was before it is shown as it says.
    """
    messages: list[Message] = [{"role": "system", "content": system}]
    for entry in as_cut(entries, can_read="read_output" in system):
        for message in _messages(entry, native=native):
            if message["role"] == messages[-1]["role"] == "user":
                messages[-1] = _merged(messages[-1], message)
            else:
                messages.append(message)
    return messages


def _messages(entry: Entry, *, native: bool) -> Iterable[Message]:
    match entry:
        case Step() if native:
            return _native_messages(entry)
        case Step():
            return _text_messages(entry)
    return entry.messages()


def _text_messages(step: Step) -> Iterator[Message]:
    yield {"role": "assistant", "content": with_calls(step.said, step.reply.calls)}
    if step.observation:
        yield step.observation.message()


def _native_messages(step: Step) -> Iterator[Message]:
    """The reply with its reasoning and its calls, and an answer to each call."""
    reply, seen = step.reply, step.observation
    # Beside calls an empty text is none, for some providers refuse it.
    content = None if reply.calls and not step.said else step.said
    said: Message = {"role": "assistant", "content": content}
    if reply.calls:
        said["tool_calls"] = [_sent_back(call) for call in reply.calls]
    if reply.reasoning:
        said["reasoning_content"] = reply.reasoning
    if reply.signed:
        said["thinking_blocks"] = [_in_order(block) for block in reply.signed]
    yield said
    if not reply.calls:
        if seen:
            yield seen.message()
        return
    others = NOT_RUN if seen is None else TOGETHER if step.result else REFUSED
    for call in reply.calls[:-1]:
        yield _result(call, others)
    yield _result(reply.calls[-1], seen.text if seen else NOT_RUN)
    if seen and seen.images:
        yield user_message(FIGURES, seen.images)


def _sent_back(call: RequestedCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": sent_back(call.arguments)}
    return {**_in_order(call.extra), "id": call.id, "type": "function", "function": function}


def _in_order(value: Mapping[str, Any]) -> dict[str, Any]:
    """JSON with its keys in the order that they have on disk: loaded, it gives the same bytes."""
    ordered: dict[str, Any] = json.loads(json.dumps(value, sort_keys=True))
    return ordered


def _result(call: RequestedCall, text: str) -> Message:
    return {"role": "tool", "tool_call_id": call.id, "content": text}


def _merged(first: Message, second: Message) -> Message:
    """Two messages of the user as one: their texts, a blank line between, then their images."""
    texts: list[str] = []
    others: list[dict[str, Any]] = []
    for message in (first, second):
        match message["content"]:
            case str() as text:
                texts.append(text)
            case [{"text": text}, *parts]:
                texts.append(text)
                others += parts
    text = "\n\n".join(texts)
    if not others:
        return user_message(text)
    return {"role": "user", "content": [{"type": "text", "text": text}, *others]}
