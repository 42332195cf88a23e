"""Asks a model in a thread of its own, so that the asking can be given up at any moment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from kernel_agent.events import Event, Listener
from kernel_agent.model import Model
from kernel_agent.steps import Message, Reply


class Interrupted(Exception):
    """The user asked to stop while the model was being asked."""


class Asking:
    """One request to `model` with `messages`; `streams` if someone wants to see it come in."""

    def __init__(self, model: Model, messages: Sequence[Message], *, streams: bool) -> None:
        self._model = model
        self._messages = messages
        self._streams = streams
        # A SimpleQueue, because its put may be called from a signal handler.
        self._inbox: SimpleQueue[Event | Reply | BaseException] = SimpleQueue()
        self._given_up = False

    def reply(self, listener: Listener) -> Reply:
        """Wait for the reply; `listener` gets the events of the model in this thread.

        Raises Interrupted once `interrupt` is called, and whatever the model raises.
        """
        threading.Thread(target=self._ask, name="kernel-agent-model", daemon=True).start()
        while True:
            match self._inbox.get():
                case Reply() as reply:
                    return reply
                case BaseException() as error:
                    raise error
                case event:
                    listener(event)

    def interrupt(self) -> None:
        """Give the request up; a reply that is streaming in is closed at its next piece."""
        self._given_up = True
        self._inbox.put(Interrupted())

    def _ask(self) -> None:
        try:
            self._inbox.put(
                self._model.complete(self._messages, self._pass if self._streams else None)
            )
        except BaseException as error:  # whatever it is, it belongs to the thread that asked
            self._inbox.put(error)

    def _pass(self, event: Event) -> None:
        if self._given_up:
            raise Interrupted
        self._inbox.put(event)
