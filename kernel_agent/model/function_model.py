"""Functions as models, and whatever else can be taken for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from kernel_agent.errors import KernelAgentError, ModelError
from kernel_agent.events import Listener, ReplyText
from kernel_agent.model.lite_llm import LiteLLM
from kernel_agent.model.protocol import JsonTool, Model
from kernel_agent.steps import Message, Reply, Usage


class _Function:
    """A function from messages to a reply, as a `Model`."""

    takes_images = False

    def __init__(self, function: Callable[[list[Message]], str | Reply]) -> None:
        self.name = getattr(function, "__name__", type(function).__name__)
        self._function = function

    def complete(
        self,
        messages: Sequence[Message],
        listener: Listener | None = None,
        *,
        tools: Sequence[JsonTool] = (),
    ) -> Reply:
        started = time.monotonic()
        try:
            reply = self._function(list(messages))
        except KernelAgentError:
            raise
        except Exception as error:
            reason = f"the function raised {type(error).__name__}: {error}"
            raise ModelError(self.name, reason) from error
        if isinstance(reply, str):
            seconds = time.monotonic() - started
            reply = Reply(reply, usage=Usage(cost=None, model_seconds=seconds))
        if not isinstance(reply, Reply):
            kind = type(reply).__name__
            reason = f"the function returned {kind}. Return the reply's text, or a Reply."
            raise ModelError(self.name, reason)
        if listener:
            listener(ReplyText(reply.text))
        return reply

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "parameters": {}}


def as_model(model: Model | str | Callable[[list[Message]], str | Reply]) -> Model:
    """`model` as a `Model`: a name becomes a `LiteLLM`, a model stays what it is.

    A function of the messages becomes a model that takes no images and has the function's name.
    If it returns text, the reply's time is measured and its cost is unknown; a `Reply` is
    passed on as it is. What it raises passes through.

    Raises TypeError for anything else.
    """
    if isinstance(model, str):
        return LiteLLM(model)
    if hasattr(model, "complete"):
        return cast("Model", model)
    if callable(model):
        return _Function(model)
    raise TypeError(f"{model!r} is no model: give a name, a function, or an object with `complete`")
