"""Whose model it is: what a provider takes in a request beyond plain messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from kernel_agent.model.protocol import JsonTool
from kernel_agent.model_loading import litellm_module

_CLAUDE_HOSTS = {"anthropic", "azure_ai", "bedrock", "databricks", "openrouter", "vertex_ai"}
_GEMINI_HOSTS = {"gemini", "vertex_ai", "vertex_ai_beta"}
# Those whose documents want it back: DeepSeek and Moonshot refuse calls without it, z.ai, Ollama
# and vLLM take it. Others refuse it as an unknown key (Groq), or litellm leaves it out anyway.
_TAKE_REASONING = {"deepseek", "hosted_vllm", "moonshot", "ollama_chat", "zai"}
_NEED_REASONING = {"deepseek", "moonshot"}
# What begins the `format` of a detail in which each maker's reasoning is kept by OpenRouter.
_MAKERS = {"anthropic": "anthropic", "google": "google", "openai": "openai", "x-ai": "xai"}


@dataclass(frozen=True)
class Peer:
    """A model, by litellm's names: `provider` (`"bedrock"`) and `model` (`"anthropic.claude-…"`).

    Both are empty where litellm knows no such provider; asking the model says so.
    """

    name: str
    provider: str = ""
    model: str = ""

    @classmethod
    def of(cls, name: str, params: Mapping[str, Any] | None = None) -> Self:
        """The peer with the `name`; `params` are those of the request."""
        known = params or {}
        # litellm raises its own BadRequestError, and it will again when it is asked.
        with suppress(Exception):
            model, provider, *_ = litellm_module().get_llm_provider(
                name,
                custom_llm_provider=known.get("custom_llm_provider"),
                api_base=known.get("api_base"),
            )
            return cls(name, provider, model)
        return cls(name)

    @property
    def is_claude(self) -> bool:
        on_host = self.provider in _CLAUDE_HOSTS and "claude" in self.model.lower()
        return self.provider == "anthropic" or on_host

    @property
    def is_gemini(self) -> bool:
        return self.provider == "gemini" or (
            self.provider in _GEMINI_HOSTS and "gemini" in self.model.lower()
        )

    @property
    def takes_cache_markers(self) -> bool:
        """Whether it caches only what is marked, and takes the marks."""
        if self.provider == "bedrock":  # older models there refuse them
            return self.is_claude and bool(self.info("supports_prompt_caching"))
        return self.is_claude and self.provider != "databricks"

    @property
    def takes_reasoning(self) -> bool:
        """Whether `reasoning_content` may go back."""
        return self.provider in _TAKE_REASONING

    @property
    def takes_plain_reasoning(self) -> bool:
        """Whether OpenRouter may have it as `reasoning`: of makers who sign none."""
        return self.provider == "openrouter" and not self.maker

    @property
    def needs_reasoning(self) -> bool:
        """Whether a message with calls is refused without `reasoning_content`."""
        return self.provider in _NEED_REASONING and bool(self.info("supports_reasoning"))

    @property
    def maker(self) -> str:
        """Who made a model that OpenRouter offers, by the name that it gives their reasoning."""
        if self.provider != "openrouter":
            return ""
        return _MAKERS.get(self.model.partition("/")[0], "")

    def takes_detail(self, format: str | None) -> bool:
        """Whether OpenRouter can hand a detail of this format to this model."""
        if self.provider != "openrouter":
            return False
        if not self.maker:
            return not (format or "").startswith(tuple(_MAKERS.values()))
        return (format or "").startswith(self.maker)

    def thinks(self, params: Mapping[str, Any]) -> bool:
        """Whether it is a Claude model that will think in a request with these parameters."""
        if not self.is_claude:
            return False
        match params.get("thinking"), params.get("reasoning_effort"):
            case {"type": "disabled"}, _:
                return False
            case {"type": _}, _:
                return True
            case _, None:
                return bool(self.info("thinking_always_on"))
            case _, effort:
                return bool(effort != "none")

    def thinks_by_budget(self, params: Mapping[str, Any]) -> bool:
        """Whether it is a Claude model that will begin each turn with its thinking.

        Newer ones decide themselves whether to think.
        """
        return self.thinks(params) and not self.info("supports_adaptive_thinking")

    def asks_responses(self, tools: Sequence[JsonTool], params: Mapping[str, Any]) -> bool:
        """Whether litellm asks OpenAI's Responses API, which takes reasoning back, in its place."""
        if self.provider not in ("openai", "azure"):
            return False
        with suppress(Exception):  # litellm's own affair, which may have moved
            about, _ = litellm_module().main.responses_api_bridge_check(
                model=self.model,
                custom_llm_provider=self.provider,
                tools=list(tools) or None,
                reasoning_effort=params.get("reasoning_effort"),
                api_base=params.get("base_url") or params.get("api_base"),
            )
            return bool(about.get("mode") == "responses")
        return False

    @property
    def is_known(self) -> bool:
        """Whether litellm's list has the model at all."""
        return bool(self._facts)

    def info(self, key: str) -> Any:
        """A fact of litellm's list; None where it does not know the model."""
        return self._facts.get(key)

    @cached_property
    def _facts(self) -> Mapping[str, Any]:
        litellm = litellm_module()
        if self.provider.startswith("ollama"):  # else litellm asks a server for it
            return litellm.model_cost.get(self.name) or {}
        with suppress(Exception):  # litellm raises a bare Exception for a model it does not know
            return dict(litellm.get_model_info(self.name))
        return {}
