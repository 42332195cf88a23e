"""The context window of a model that Ollama serves: its default is small, and nobody is told.

Without `num_ctx` Ollama gives every model 4,096 tokens or so, and drops the oldest messages,
the system prompt among them, without an error.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kernel_agent.model.waiting import Waiting

PREFIXES = ("ollama/", "ollama_chat/")

MOST = 32_768
"""The most tokens to ask for unless the user says more: all of them take memory at once."""

UNKNOWN = 16_384
"""The tokens to ask for where the server does not tell: room for a run; Ollama itself lowers it
to what the model was made for."""

_TIMEOUT = 3.0
_PATH = re.compile(r"/api/\w+/*\Z")
_NUM_CTX = re.compile(r"^num_ctx\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Served:
    """What a server tells of a model: the window it should have, and what the model can do."""

    window: int
    capabilities: frozenset[str]


def is_ollama(name: str) -> bool:
    """Whether a model with this name is Ollama's."""
    return name.startswith(PREFIXES)


def served(name: str, params: Mapping[str, Any], waiting: Waiting | None = None) -> Served | None:
    """What the server that `params` lead to tells of the model `name`; None if it does not.

    It is asked at `api_base`, else where `OLLAMA_API_BASE` says, else on this machine, never
    through a proxy and for a few seconds at most, and not past the deadline of `waiting`, which is
    that of a request: once it is cancelled, GivenUpError is raised. The window is the `num_ctx` of
    the model's own Modelfile, else the length that the model was made for, at most `MOST`.
    """
    if waiting is None:
        return _told(name, params)
    source = object()
    tell = partial(waiting.put, source)

    def ask() -> None:
        facts = None
        try:
            facts = _told(name, params)
        finally:
            tell(facts)

    threading.Thread(target=ask, name="kernel-agent-ollama", daemon=True).start()
    facts: Served | None = waiting.get(source, until=waiting.deadline)
    return facts


def _told(name: str, params: Mapping[str, Any]) -> Served | None:
    httpx: Any = importlib.import_module("httpx")
    given = params.get("api_base")
    base = given or os.environ.get("OLLAMA_API_BASE") or "http://127.0.0.1:11434"
    # As litellm does: the key of the environment is not for a server that is named here.
    key = params.get("api_key") or ("" if given else os.environ.get("OLLAMA_API_KEY"))
    try:
        answer = httpx.post(
            _PATH.sub("", str(base).rstrip("/")) + "/api/show",
            json={"model": name.partition("/")[2]},
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_TIMEOUT,
            trust_env=False,
        )
        facts = answer.raise_for_status().json()
        return _read(facts) if isinstance(facts, dict) else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError):
        return None  # the request itself will say what is wrong


def _read(facts: Mapping[str, Any]) -> Served:
    info, capabilities = facts.get("model_info"), facts.get("capabilities")
    lengths = [
        length
        for key, length in (info if isinstance(info, dict) else {}).items()
        if key.endswith(".context_length") and isinstance(length, int) and length > 0
    ]
    own = _NUM_CTX.search(str(facts.get("parameters") or ""))
    window = int(own[1]) if own else min(MOST, *lengths) if lengths else UNKNOWN
    names = capabilities if isinstance(capabilities, list) else []
    return Served(window, frozenset(map(str, names)))
