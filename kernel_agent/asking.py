"""Asks a model in a thread of its own, so that the asking can be given up at any moment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from kernel_agent.events import Event, Listener
from kernel_agent.model import JsonTool, Model
from kernel_agent.steps import Message, Reply


class Interrupted(Exception):
    """The user asked to stop while the model was being asked."""


class Asking:
    """One request to `model` with `messages`; `streams` if someone wants to see it come in.

    `tools` are those that the model may call natively.
    """

    def __init__(
        self,
        model: Model,
        messages: Sequence[Message],
        *,
        streams: bool,
        tools: Sequence[JsonTool] = (),
    ) -> None:
        self._model = model
        self._messages = messages
        self._tools = tools
        self._streams = streams
        # A SimpleQueue, because its put may be called from a signal handler.
        self._inbox: SimpleQueue[Event | Reply | BaseException] = SimpleQueue()
        self._given_up = False
        self._thread = threading.Thread(target=self._ask, name="kernel-agent-model", daemon=True)

    def reply(self, listener: Listener) -> Reply:
        """Wait for the reply; `listener` gets the events of the model in this thread.

        Raises Interrupted once `interrupt` is called, and whatever the model raises.
        """
        self._thread.start()
        while True:
            match self._inbox.get():
                case Reply() as reply:
                    return reply
                case BaseException() as error:
                    raise error
                case event:
                    listener(event)

    def interrupt(self) -> None:
        """Give the request up: at once where the model can, else at the reply's next piece."""
        self._given_up = True
        self._inbox.put(Interrupted())
        cancel = getattr(self._model, "cancel", None)
        if callable(cancel) and self._thread.ident is not None:
            cancel(self._thread.ident)

    def _ask(self) -> None:
        listener = self._pass if self._streams else None
        # A model that is given no tools need not know of them.
        options: dict[str, Any] = {"tools": self._tools} if self._tools else {}
        try:
            if self._given_up:
                return
            self._inbox.put(self._model.complete(self._messages, listener, **options))
        except BaseException as error:  # whatever it is, it belongs to the thread that asked
            self._inbox.put(error)

    def _pass(self, event: Event) -> None:
        if self._given_up:
            raise Interrupted
        self._inbox.put(event)
