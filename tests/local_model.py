"""A LiteLLM that asks the scripted server on this machine."""

from __future__ import annotations

from typing import Any

from kernel_agent.events import Event, Listener
from kernel_agent.model import LiteLLM
from kernel_agent.steps import Reply, user_message
from tests.openai_server import OpenAIServer, Script

KEY = "sk-test-0123456789abcdef"
MESSAGES = [
    {"role": "system", "content": "Be short."},
    user_message("Grüße", ("data:image/png;base64,iVBORw0KGgo=",)),
]


def ignore(event: Event) -> None:
    """A listener that wants the reply streamed and nothing more."""


def local_model(server: OpenAIServer, name: str = "openai/local", **options: Any) -> LiteLLM:
    return LiteLLM(name, **{"api_base": server.url, "api_key": KEY, **options})


def complete(answer: Script, listener: Listener | None = None, **options: Any) -> Reply:
    with OpenAIServer([answer]) as server:
        return local_model(server, retries=0, **options).complete(MESSAGES, listener)
