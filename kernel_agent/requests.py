"""What a run asks its model for: the messages, the tools, room for them, and a way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from kernel_agent.asking import Asking, Interrupted
from kernel_agent.errors import ContextWindowExceededError
from kernel_agent.events import Event, ReplyText, RoomMade
from kernel_agent.keeping import keep
from kernel_agent.making_room import make_room
from kernel_agent.model import JsonTool, Model, window
from kernel_agent.prompts import Prompts
from kernel_agent.steps import Message, Note, Reply
from kernel_agent.telling import Telling
from kernel_agent.transcript import Transcript

_NO_MORE_ROOM = (
    "Nothing more can be left out: give it less at once, or take a model with a larger window."
)


class Requests:
    """Asks `model` for replies to transcripts; `stopped` tells whether the user has had enough.

    `tools` are those that it may call natively; they must be the same all along a run.
    `language` is the kernel's.
    """

    def __init__(
        self, model: Model, prompts: Prompts, tell: Telling, stopped: Callable[[], bool]
    ) -> None:
        self.model = model
        self.tools: Sequence[JsonTool] = ()
        self.language = "python"
        self._prompts = prompts
        self._tell = tell
        self._stopped = stopped
        self._asking: Asking | None = None

    def interrupt(self) -> None:
        """Give up what is being asked."""
        if (asking := self._asking) is not None:
            asking.interrupt()

    def reply(self, transcript: Transcript, asked: str = "", *, sums_up: bool = True) -> Reply:
        """The model's reply to `transcript`, or to what is `asked` after it.

        While the model says that its window does not hold the messages, room is made; see
        `make_room`.

        Raises Interrupted, and whatever the model raises.
        """
        more = [Note(asked)] if asked else []
        while True:
            try:
                return self._ask(transcript, transcript.messages(*more))
            except ContextWindowExceededError as error:
                if not self.make_room(transcript, refused=True, sums_up=sums_up):
                    reason = f"{error.reason} {_NO_MORE_ROOM}"
                    raise ContextWindowExceededError(error.model, reason) from None

    def make_room(
        self, transcript: Transcript, *, refused: bool = False, sums_up: bool = True
    ) -> bool:
        """Cut what the model is shown if its window will not hold it; whether that was done.

        `refused` says that the model has refused the messages, `sums_up` that it may be asked for
        a summary of what is left out. Raises as `reply` does.
        """
        cut = make_room(
            transcript.entries,
            system=transcript.system,
            window=window(self.model),
            reply_format=transcript.reply_format,
            prompts=self._prompts,
            ask=partial(self._ask, transcript, is_shown=False) if sums_up else None,
            language=self.language,
            refused=refused,
        )
        if cut is None:
            return False
        keep(transcript, partial(transcript.add, cut), self._tell)
        self._tell(RoomMade(cut, transcript.usage))
        return True

    def _ask(
        self, transcript: Transcript, messages: Sequence[Message], *, is_shown: bool = True
    ) -> Reply:
        asking = Asking(self.model, messages, streams=bool(self._tell), tools=self.tools)
        self._asking = asking
        try:
            if self._stopped():  # between two steps, when there was nothing to be stopped
                raise Interrupted
            reply = asking.reply(self._tell if is_shown else self._tell_but_text)
        finally:
            self._asking = None
        return self._named(reply, transcript)

    def _named(self, reply: Reply, transcript: Transcript) -> Reply:
        """`reply` with the name of its model, unless that is the one that the run is known by."""
        name = reply.model or self.model.name
        own = transcript.facts("model").get("name", name)
        return replace(reply, model="" if name == own else name)

    def _tell_but_text(self, event: Event) -> None:
        if not isinstance(event, ReplyText):
            self._tell(event)
