"""Finds out, without asking the provider, what would make every request to a model fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernel_agent.errors import ModelError
from kernel_agent.model.known import takes_effort
from kernel_agent.model_errors import model_error, no_key_error
from kernel_agent.model_loading import litellm_module


def check_askable(name: str, params: Mapping[str, Any]) -> None:
    """Find out whether the model `name` can be asked with `params`. Waits for litellm.

    Raises ModelError for a name that leads to no provider and for a `reasoning_effort` that the
    model does not take, and ModelAuthenticationError if the provider wants a key and there is none.
    """
    litellm = litellm_module()
    try:
        litellm.get_llm_provider(name, api_base=params.get("api_base"))
    except Exception as error:
        # `from None`: litellm's chain of exceptions may hold the key.
        raise model_error(name, params, error) from None
    missing = litellm.validate_environment(name)["missing_keys"]
    # Where more than a key is missing (Bedrock, Vertex) there are other ways to log in.
    if missing and not params.get("api_key") and all(key.endswith("_API_KEY") for key in missing):
        raise no_key_error(name, missing)
    effort = params.get("reasoning_effort")
    if effort is not None and not takes_effort(name):
        reason = f"it takes no `reasoning_effort`, but {effort!r} was given. Leave it out."
        raise ModelError(name, reason)
