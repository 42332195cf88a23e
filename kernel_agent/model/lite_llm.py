"""Any model that litellm knows, as a `Model`."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Self, cast

from kernel_agent.closing import BlockWatch
from kernel_agent.errors import ModelError, ModelUnavailableError
from kernel_agent.events import Listener
from kernel_agent.model.checking import check_askable
from kernel_agent.model.counting import (
    charge,
    count_tokens,
    counted,
    paid_until,
    price_of,
    used_for,
)
from kernel_agent.model.known import Kind, best_format, known_to_take, known_window
from kernel_agent.model.media_parts import check_media
from kernel_agent.model.ollama import UNKNOWN, Served, is_ollama, served
from kernel_agent.model.options import Options
from kernel_agent.model.pacing import Pace
from kernel_agent.model.protocol import JsonTool
from kernel_agent.model.receiving import received
from kernel_agent.model.replies import ReplyReader
from kernel_agent.model.requests import build
from kernel_agent.model.retrying import until_it_passes, until_it_says_something
from kernel_agent.model.sending import streamed, whole
from kernel_agent.model.waiting import GivenUpError, Waiting
from kernel_agent.model.waits import Waits
from kernel_agent.model_errors import NO_KEY
from kernel_agent.model_loading import litellm_module, prepare_litellm
from kernel_agent.model_secrets import public
from kernel_agent.steps import Format, Message, Reply, Usage

CONNECT_TIMEOUT = 10.0
"""Longest wait for a connection, in seconds: who cannot be reached is found out soon."""

_PLAIN = (str, int, float, Mapping, list, tuple, type(None))
_DRAFT_START = re.compile(r"<think(?:ing)?>")


class LiteLLM:
    """Any model that litellm knows, by a name such as `"anthropic/claude-sonnet-4-5"`.

    `retries` are the further tries when the provider is overloaded or cannot be reached: six ride
    out a limit that is counted per minute. Seconds: `timeout` is the longest silence of the
    provider, `deadline` the longest time for one reply in all, tries and the waits between them,
    and `stall` the longest silence within a streamed reply, keep-alives not counted.
    Of `requests_per_minute` retries are a part, and so are the requests of all who share this
    object.

    `reply_format` is how the model is to write code: `"fence"`, `"tools"`, `"json"`, or `"auto"`
    for what litellm's knowledge of it suggests. `window` is how many tokens it holds, if litellm
    does not know or less is wanted; a model of Ollama's is given so many.

    A streamed reply ends where the model begins to make up an output of its code; its tokens are
    then counted here. `exact_usage` waits for the provider's own figures, and pays for the rest.

    `params` go to `litellm.completion` as they are: `api_base`, `api_key`, `temperature`, ...

    Raises SettingsError for an option with a bad value.
    """

    def __init__(
        self,
        name: str,
        *,
        retries: int = Options.retries,
        timeout: float = Options.timeout,
        deadline: float = Options.deadline,
        stall: float = Options.stall,
        requests_per_minute: int | None = Options.requests_per_minute,
        reply_format: str = Options.reply_format,
        window: int | None = Options.window,
        exact_usage: bool = Options.exact_usage,
        **params: Any,
    ) -> None:
        self.name = name
        self._options = Options(
            retries,
            timeout,
            deadline,
            stall,
            requests_per_minute,
            reply_format,
            window,
            exact_usage,
        )
        self._options.check()
        self._params = params
        if name.startswith("openai/") and params.get("api_base") and not _has_openai_key(params):
            # A server of the user's own seldom wants a key, but litellm wants one to send.
            self._params = params | {"api_key": NO_KEY}
        self._pace = Pace(requests_per_minute) if requests_per_minute else None
        self._waits = Waits()
        self._served: Served | None = None
        self._may_think_aloud = True

    def __reduce__(self) -> Any:
        # Locks and what goes on in this process stay here.
        return partial(type(self), self.name, **self._options.changed(), **self._params), ()

    def prepare(self) -> None:
        """Start loading litellm in the background and return at once; `complete` waits for it."""
        prepare_litellm()

    def check(self) -> None:
        """Find out, without asking the provider, what would make every request fail.

        Waits for litellm to be loaded. Raises ModelError for a name that leads to no provider and
        for a `reasoning_effort` that the model does not take, and ModelAuthenticationError if the
        provider wants a key and there is none.
        """
        check_askable(self.name, self._params)

    @property
    def takes_images(self) -> bool:
        """Whether the model is known to take images. Waits for litellm to be loaded."""
        return self.takes("image")

    def takes(self, kind: Kind) -> bool:
        """Whether the model is known to take images, audio or video. Waits for litellm."""
        if kind == "image" and is_ollama(self.name) and (facts := self._ollama()):
            return "vision" in facts.capabilities
        return known_to_take(self.name, kind)

    @property
    def reply_format(self) -> Format:
        """How the model is to write code. Waits for litellm if that is for it to say."""
        chosen = self._options.reply_format
        return best_format(self.name) if chosen == "auto" else cast("Format", chosen)

    @property
    def window(self) -> int | None:
        """How many tokens the model holds; None if that is not known. Waits for litellm.

        For a model of Ollama's it is the `num_ctx` that is sent: the `window` option, else the
        `num_ctx` among the parameters, else what the server tells.
        """
        if self._options.window is not None:
            return self._options.window
        if not is_ollama(self.name):
            return known_window(self.name)
        if isinstance(own := self._params.get("num_ctx"), int):
            return own
        facts = self._ollama()
        return facts.window if facts else UNKNOWN

    def price(self, usage: Usage) -> float | None:
        """What the tokens of `usage` cost in USD; None if that is not known. Waits for litellm."""
        return price_of(self.name, usage)

    def check_media(self, mimes: Sequence[str]) -> None:
        """Raises ModelError for the first of these MIME types that the model does not take.

        Images are refused only where it is known that they are: see `takes_images`.
        """
        unfit = [mime for mime in mimes if not self.takes(cast("Kind", mime.partition("/")[0]))]
        check_media(self.name, unfit)

    def count(self, messages: Sequence[Message], tools: Sequence[JsonTool] = ()) -> int:
        """The tokens of a request, by litellm's count for this model. Asks nobody."""
        return count_tokens(self.name, messages, tools)

    def about(self) -> dict[str, Any]:
        parameters = {**self._options.changed(), **self._params}
        # An object is nothing that this model could be made again with.
        kept = {name: value for name, value in parameters.items() if isinstance(value, _PLAIN)}
        return {"name": self.name, "parameters": public(kept)}

    def with_options(self, **options: Any) -> Self:
        """The same model with other options; `cancel` and the requests per minute are shared."""
        kept = {**self._options.changed(), **self._params}
        other = type(self)(self.name, **{**kept, **options})
        if options.get("requests_per_minute", each := self._options.requests_per_minute) == each:
            other._pace = self._pace
        other._waits = self._waits
        if not {"api_base", "api_key"} & set(options):
            other._served = self._served
        return other

    def cancel(self, thread: int) -> None:
        """End the request of the thread with this `ident` at once, whatever it waits for.

        There `complete` closes the connection and raises GivenUpError. May be called from any
        thread and from a signal handler; does nothing if that thread asks for nothing.
        """
        self._waits.cancel(thread)

    def complete(
        self,
        messages: Sequence[Message],
        listener: Listener | None = None,
        *,
        tools: Sequence[JsonTool] = (),
    ) -> Reply:
        """The model's reply; see `Model.complete`.

        Usage is the provider's, or litellm's count where the provider tells none, together with
        that of empty replies, which are asked again twice, and what had come of replies that broke
        off; `model_seconds` is the whole time, failed tries and waits included.

        Raises ModelUnavailableError after the last try, and without another try
        ModelAuthenticationError, ContextWindowExceededError and, for the rest, ModelError. What
        was paid for in vain until then is the error's `usage`.
        """
        paid: list[Usage] = []
        with self._waits.begun(Waiting(self.name, seconds=self._options.deadline)) as waiting:
            # Loading takes seconds, of which the provider knows nothing.
            litellm_module()
            waiting.deadline = time.monotonic() + waiting.seconds
            ask = partial(self._ask, waiting, messages, listener, tools, paid)
            retries, started = self._options.retries, time.monotonic()
            tries = partial(
                until_it_passes, ask, retries=retries, waiting=waiting, listener=listener
            )
            try:
                reply = until_it_says_something(tries, listener=listener)
            except ModelError as error:
                charge(error, sum(paid, Usage()))
                raise
        seconds = time.monotonic() - started
        return replace(reply, usage=replace(sum(paid, Usage()), model_seconds=seconds))

    def _ask(
        self,
        waiting: Waiting,
        messages: Sequence[Message],
        listener: Listener | None,
        tools: Sequence[JsonTool],
        paid: list[Usage],
    ) -> Reply:
        """One try; what it costs is added to `paid`, whether there is a reply or not."""
        if self._pace:
            self._pace.hold(waiting, listener)
        request = self._request(messages, tools)
        reader = ReplyReader(listener, name=self.name, tools=tools, request=request)
        is_cut = False
        send = partial(streamed if listener else whole, self.name, self._params, request)
        try:
            with closing(received(send, waiting, stall=self._options.stall)) as items:
                if listener:
                    is_cut = self._read(items, reader, watch=self._watch(tools))
                else:
                    reader.whole(*items)
        except GivenUpError:
            raise
        except ModelError as error:
            paid.append(paid_until(error))
            if reader.has_begun:
                paid.append(self._usage(messages, reader, is_whole=False))
            raise
        usage = self._usage(messages, reader, is_whole=not is_cut)
        paid.append(usage)
        text = reader.text
        if reader.odd and not text.strip() and not reader.calls:
            odd = "; ".join(reader.odd)
            raise ModelUnavailableError(self.name, f"its reply is in no documented form: {odd}.")
        if not is_cut and self._may_think_aloud:
            self._may_think_aloud = "</think" in text and not _DRAFT_START.search(text)
        return Reply(
            text,
            reader.reasoning,
            "stop" if is_cut else reader.finish_reason,
            usage,
            reader.calls,
            reader.signed,
        )

    def _usage(self, messages: Sequence[Message], reader: ReplyReader, *, is_whole: bool) -> Usage:
        """What the provider told of a whole reply, else our own count."""
        if is_whole:
            return used_for(self.name, messages, reader)
        return counted(self.name, messages, reader.text, reader.reasoning, reader.calls)

    def _watch(self, tools: Sequence[JsonTool]) -> BlockWatch | None:
        """What says when a streamed reply may be closed; None where it has to come whole."""
        if tools or self._options.exact_usage or self.reply_format != "fence":
            return None
        return BlockWatch(drafts=self._may_think_aloud)

    def _read(self, chunks: Iterator[Any], reader: ReplyReader, watch: BlockWatch | None) -> bool:
        """Read a stream; whether it may be closed before its end."""
        for chunk in chunks:
            text = reader.add(chunk)
            if watch and watch.feed(text):
                return True
        return False

    def _request(self, messages: Sequence[Message], tools: Sequence[JsonTool]) -> dict[str, Any]:
        """The arguments of `litellm.completion`."""
        params = self._params
        if is_ollama(self.name):
            params = params | {"num_ctx": self.window}
        request = build(
            self.name, messages, tools=tools, reply_format=self.reply_format, params=params
        )
        silence = self._options.timeout
        connect = min(silence, CONNECT_TIMEOUT)
        return request | {
            "timeout": importlib.import_module("httpx").Timeout(silence, connect=connect)
        }

    def _ollama(self) -> Served | None:
        """What Ollama tells of the model; asked until it has told it once."""
        if self._served is None:
            self._served = served(self.name, self._params, self._waits.current)
        return self._served


def _has_openai_key(params: Mapping[str, Any]) -> bool:
    return bool(params.get("api_key") or os.environ.get("OPENAI_API_KEY"))
