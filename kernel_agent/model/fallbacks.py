"""Several models as one: when one stays down, the next is asked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kernel_agent.errors import ModelUnavailableError
from kernel_agent.events import Listener, ModelChanged
from kernel_agent.model.function_model import as_model
from kernel_agent.model.protocol import JsonTool, Model, check_media, price, reply_format, window
from kernel_agent.steps import Format, Message, Reply, Usage

TRY_FIRST_AGAIN = 600.0
"""How long a fallback is kept before the first model is asked again, in seconds."""

_TRIED_AGAIN = f"after {TRY_FIRST_AGAIN:,.0f} s it is asked again."
_WORDS = {"image": "[figure]", "audio": "[audio]", "video": "[video]"}
_DATA_URL = re.compile(r"data:(image|audio|video)/")


class Fallbacks:
    """`models`, of which the first is asked, and the others in order while it is down.

    Each is a model, or a name or function as `as_model` takes them. A model is down when it
    raises ModelUnavailableError, after all its own tries; what else one raises passes through,
    since it is for the user to mend (a key) or for the run (messages that are too long). The one
    that answered is kept until it is down itself, or until `TRY_FIRST_AGAIN` seconds have passed:
    then the first is asked again, with one try and no wait. The listener hears of each change
    before the model is asked; what was streamed before it is void.

    `name` is the first's; a reply of another names it in `Reply.model`.
    """

    def __init__(
        self, models: Sequence[Model | str | Callable[[list[Message]], str | Reply]]
    ) -> None:
        if not models:
            raise ValueError("Fallbacks need at least one model")
        self._given = tuple(as_model(model) for model in models)
        self.name = self._given[0].name
        self._as_asked: tuple[Model, ...] = ()
        self._current = 0
        self._first_failed = 0.0

    def prepare(self) -> None:
        """Start loading what the models need, in the background."""
        for model in self._given:
            if callable(prepare := getattr(model, "prepare", None)):
                prepare()

    def check(self) -> None:
        """Find out what would make every request to one of the models fail; raises what it does."""
        for model in self._given:
            if callable(check := getattr(model, "check", None)):
                check()

    def cancel(self, thread: int) -> None:
        """End what `thread` asks of any of the models; see `LiteLLM.cancel`."""
        for model in self._given:
            if callable(cancel := getattr(model, "cancel", None)):
                cancel(thread)

    @property
    def takes_images(self) -> bool:
        """Whether the first takes images. The others are told where one was if they take none."""
        return self._given[0].takes_images

    def takes(self, kind: str) -> bool:
        """Whether the first takes `"image"`, `"audio"` or `"video"`."""
        return _takes(self._given[0], kind)

    def check_media(self, mimes: Sequence[str]) -> None:
        """Raises ModelError for the first of these MIME types that the first does not take."""
        check_media(self._given[0], mimes)

    @property
    def reply_format(self) -> Format:
        """The format that all have, else fences: what one has written the others must read."""
        formats = {reply_format(model) for model in self._given}
        return formats.pop() if len(formats) == 1 else "fence"

    @property
    def window(self) -> int | None:
        """The smallest window that is known: messages have to fit whoever is asked."""
        return min((size for model in self._given if (size := window(model))), default=None)

    def price(self, usage: Usage) -> float | None:
        """What the tokens of `usage` would cost with the model that is asked next, in USD."""
        return price(self._given[self._current], usage)

    def about(self) -> dict[str, Any]:
        """The first's facts; `fallbacks` are those of the others."""
        first, *others = self._given
        return {**first.about(), "fallbacks": [other.about() for other in others]}

    def complete(
        self,
        messages: Sequence[Message],
        listener: Listener | None = None,
        *,
        tools: Sequence[JsonTool] = (),
    ) -> Reply:
        """The reply of the first model that is not down; see `Model.complete`.

        Raises ModelUnavailableError, with the reasons of all, if every one is down, and at once
        whatever else a model raises. A reply's `model_seconds` are all that it took.
        """
        members, started = self._members(), time.monotonic()
        failures: list[ModelUnavailableError] = []
        asked = self._current
        for number in self._order():
            model = members[number]
            if number != asked and listener:
                why = failures[-1].reason if failures else _TRIED_AGAIN
                listener(ModelChanged(model.name, why))
            is_second_chance = number == 0 and self._current != 0
            asked = number
            try:
                reply = (_with_options(model, retries=0) if is_second_chance else model).complete(
                    messages if number == 0 else _without_unfit(messages, model),
                    listener,
                    tools=tools,
                )
            except ModelUnavailableError as error:
                failures.append(error)
                if number == 0:
                    self._first_failed = time.monotonic()
                continue
            self._current = number
            seconds = time.monotonic() - started
            usage = replace(reply.usage, model_seconds=seconds)
            return replace(reply, usage=usage, model=model.name if number else "")
        self._current = 0
        raise self._all_down(failures)

    def _order(self) -> list[int]:
        """The numbers of the models in the order in which they are asked."""
        current = self._current
        is_time = time.monotonic() - self._first_failed >= TRY_FIRST_AGAIN
        order = [0, current] if is_time else [current, 0]
        return list(dict.fromkeys([*order, *range(len(self._given))]))

    def _members(self) -> tuple[Model, ...]:
        """The models as they are asked: one that would write otherwise writes as all do."""
        if not self._as_asked:
            common = self.reply_format
            self._as_asked = tuple(
                model
                if reply_format(model) == common
                else _with_options(model, reply_format=common)
                for model in self._given
            )
        return self._as_asked

    def _all_down(self, failures: list[ModelUnavailableError]) -> ModelUnavailableError:
        if len(failures) == 1:
            return failures[0]
        others = " ".join(str(error) for error in failures[1:])
        first = failures[0]
        reason = f"{first.reason} The others are down too. {others}"
        if first.model != self.name:
            reason = f"all are down. {first} {others}"
        return ModelUnavailableError(self.name, reason, first.retry_after)


def _with_options(model: Model, **options: Any) -> Model:
    """`model` with these options, if it has any."""
    change = getattr(model, "with_options", None)
    changed: Model = change(**options) if callable(change) else model
    return changed


def _takes(model: Model, kind: str) -> bool:
    takes = getattr(model, "takes", None)
    return bool(takes(kind)) if callable(takes) else kind == "image" and model.takes_images


def _without_unfit(messages: Sequence[Message], model: Model) -> Sequence[Message]:
    """`messages` with a word in place of each image, audio or video that `model` does not take."""
    kinds = {
        kind
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if (kind := _kind(part))
    }
    unfit = {kind for kind in kinds if not _takes(model, kind)}
    return [_with_words(message, unfit) for message in messages] if unfit else messages


def _with_words(message: Message, unfit: set[str]) -> Message:
    if not isinstance(message.get("content"), list):
        return message
    parts = [
        {"type": "text", "text": _WORDS[kind]} if (kind := _kind(part)) in unfit else part
        for part in message["content"]
    ]
    return {**message, "content": parts}


def _kind(part: Mapping[str, Any]) -> str:
    """What a part of a message is beside text: `"image"`, `"audio"`, `"video"`; else nothing."""
    match part:
        case {"type": "input_audio"}:
            return "audio"
        case {"image_url": {"url": str() as url}}:
            default = "image"
        case {"video_url": {"url": str() as url}}:
            default = "video"
        case {"file": {"file_data": str() as url}}:
            default = ""
        case _:
            return ""
    found = _DATA_URL.match(url)
    return found[1] if found else default
