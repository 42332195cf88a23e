"""Loading litellm: late, once, in the background if wanted, without network and without a word."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
import threading
import warnings
from contextlib import suppress
from typing import Any

_loading = threading.Lock()


def litellm_module() -> Any:
    """The litellm module. The first call takes seconds; others wait for it."""
    with _loading:
        return _load()


def prepare_litellm() -> None:
    """Start loading in a thread that holds up nobody, not even the end of the program."""
    threading.Thread(target=_prepare, name="load-litellm", daemon=True).start()


def _prepare() -> None:
    # What fails here fails again where litellm is needed, or fails because the program ends.
    with suppress(Exception):
        litellm_module()


@functools.cache
def _load() -> Any:
    # Else it asks the network for a price list and reads `.env` files into our environment.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.disable_streaming_logging = True
    # Else a stream that repeats a piece a hundred times, say a line of a table, becomes an error.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize
    # Else it downloads a tokenizer for some models when it counts tokens.
    litellm.disable_hf_tokenizer_download = True
    # Said once in the midst of a run: litellm puts usage of another kind into OpenAI's responses.
    about = r"Pydantic serializer warnings:\n.*ResponseAPIUsage"
    warnings.filterwarnings("ignore", about, category=UserWarning)
    importlib.import_module("openai.resources.chat.completions")  # it waits until the first request
    # Of what a model says in the Responses API litellm reads the `text`, which refusals have not.
    said: Any = importlib.import_module("openai.types.responses")
    said.ResponseOutputRefusal.text = property(lambda part: part.refusal)
    # It imports hundreds of modules with its first reply: this one is made up, without network.
    list(litellm.completion("openai/none", [], mock_response="none", stream=True))
    return litellm
