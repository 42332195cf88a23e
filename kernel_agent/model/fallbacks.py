"""Several models as one: when one stays down, the next is asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kernel_agent.errors import ModelError, ModelUnavailableError
from kernel_agent.events import Listener, ModelChanged
from kernel_agent.model.counting import charge, paid_until
from kernel_agent.model.function_model import as_model
from kernel_agent.model.media_parts import without_media
from kernel_agent.model.protocol import JsonTool, Model, check_media, price, reply_format, window
from kernel_agent.model.waiting import Waiting
from kernel_agent.model.waits import Waits
from kernel_agent.steps import Format, Message, Reply, Usage

TRY_FIRST_AGAIN = 600.0
"""How long a fallback is kept before the first model is asked again, in seconds."""

_TRIED_AGAIN = f"after {TRY_FIRST_AGAIN:,.0f} s it is asked again."


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
        self._waits = Waits()

    def __reduce__(self) -> Any:
        # Who is down here and now is found out anew.
        return type(self), (self._given,)

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
        self._waits.cancel(thread)  # between two models, too
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
        whatever else a model raises. A reply's usage is that of all who were asked, and its
        `model_seconds` are all that it took; an error's `usage` is what all were paid in vain.
        """
        started = time.monotonic()
        failures: list[ModelUnavailableError] = []
        with self._waits.begun(Waiting(self.name, seconds=math.inf)) as waiting:
            for number, model in self._in_turn(failures, listener):
                fit = messages if number == 0 else without_media(messages, partial(_takes, model))
                try:
                    waiting.check()
                    reply = model.complete(fit, listener, tools=tools)
                except ModelUnavailableError as error:
                    failures.append(error)
                    if number == 0:
                        self._first_failed = time.monotonic()
                    continue
                except ModelError as error:
                    charge(error, sum(map(paid_until, failures), paid_until(error)))
                    raise
                self._current = number
                usage = sum(map(paid_until, failures), reply.usage)
                usage = replace(usage, model_seconds=time.monotonic() - started)
                return replace(reply, usage=usage, model=model.name if number else "")
        self._current = 0
        raise self._all_down(failures)

    def _in_turn(
        self, failures: Sequence[ModelUnavailableError], listener: Listener | None
    ) -> Iterator[tuple[int, Model]]:
        """The models, by number, as they are asked; the `listener` hears of each change before."""
        members = self._members()
        current = asked = self._current  # another thread may change it
        for number in self._order(current):
            model = members[number]
            if number != asked and listener:
                why = failures[-1].reason if failures else _TRIED_AGAIN
                listener(ModelChanged(model.name, why))
            asked = number
            yield number, _with_options(model, retries=0) if number == 0 != current else model

    def _order(self, current: int) -> list[int]:
        """The numbers of the models in the order in which they are asked."""
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
        error = ModelUnavailableError(self.name, reason, first.retry_after)
        charge(error, sum(map(paid_until, failures), Usage()))
        return error


def _with_options(model: Model, **options: Any) -> Model:
    """`model` with these options, if it has any."""
    change = getattr(model, "with_options", None)
    changed: Model = change(**options) if callable(change) else model
    return changed


def _takes(model: Model, kind: str) -> bool:
    takes = getattr(model, "takes", None)
    return bool(takes(kind)) if callable(takes) else kind == "image" and model.takes_images
