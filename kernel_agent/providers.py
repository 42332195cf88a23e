"""Finding a model where none is set: by the keys in the environment and by a local Ollama."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from kernel_agent.errors import SettingsError

OLLAMA = "127.0.0.1:11434"
OLLAMA_TIMEOUT = 0.3  # seconds: a local server answers in a few milliseconds


@dataclass(frozen=True)
class Provider:
    """A provider of models: the variables that may hold its key, and the model used by default."""

    name: str
    variables: tuple[str, ...]
    model: str


PROVIDERS = (
    Provider("OpenAI", ("OPENAI_API_KEY",), "openai/gpt-6.1-sol"),
    Provider("Anthropic", ("ANTHROPIC_API_KEY",), "anthropic/claude-sonnet-5-5"),
    Provider("Google", ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "gemini/gemini-pro-latest"),
    Provider("Mistral", ("MISTRAL_API_KEY",), "mistral/mistral-large-latest"),
    Provider("Groq", ("GROQ_API_KEY",), "groq/openai/gpt-oss-120b"),
    Provider("DeepSeek", ("DEEPSEEK_API_KEY",), "deepseek/deepseek-v4-pro"),
    Provider("OpenRouter", ("OPENROUTER_API_KEY",), "openrouter/openai/gpt-oss-120b"),
    Provider("xAI", ("XAI_API_KEY",), "xai/grok-4.7"),
    Provider("Cerebras", ("CEREBRAS_API_KEY",), "cerebras/gpt-oss-120b"),
    Provider("Moonshot", ("MOONSHOT_API_KEY",), "moonshot/kimi-k3"),
)


@dataclass(frozen=True)
class Choice:
    """A model that can be used, and `why`: `"OPENAI_API_KEY is set"`."""

    model: str
    why: str


def find_model(environ: Mapping[str, str], *, ollama: str = OLLAMA) -> Choice:
    """The one model that can be used without asking.

    Asks nobody but `ollama` (`host:port`, on this machine). Raises SettingsError if there is no
    choice or more than one, with what to type.
    """
    match find_choices(environ, ollama=ollama):
        case [choice]:
            return choice
        case []:
            keys = ", ".join(provider.variables[0] for provider in PROVIDERS)
            raise SettingsError(
                "No model is set, and none was found: no provider's key is in the environment and "
                f"no Ollama with a model answers at {ollama}. Type --model NAME (any name that "
                f"litellm takes), or set KERNEL_AGENT_MODEL, or one of {keys}. "
                "`kernel-agent demo` needs no model."
            )
        case choices:
            listed = "".join(f"\n  --model {choice.model}   ({choice.why})" for choice in choices)
            raise SettingsError(
                "No model is set, and there is more than one choice. Type one of these, or set "
                f"KERNEL_AGENT_MODEL:{listed}"
            )


def find_choices(environ: Mapping[str, str], *, ollama: str = OLLAMA) -> list[Choice]:
    """Every model that could be used: one for each provider with a key, one of Ollama's."""
    choices = [
        Choice(provider.model, f"{key} is set")
        for provider in PROVIDERS
        for key in keys_set(environ, provider)[:1]
    ]
    if model := ollama_model(ollama):
        choices.append(Choice(f"ollama_chat/{model}", f"Ollama answers at {ollama}"))
    return choices


def keys_set(environ: Mapping[str, str], provider: Provider) -> list[str]:
    """The names of the provider's variables that hold something."""
    return [name for name in provider.variables if environ.get(name, "").strip()]


def ollama_model(address: str = OLLAMA) -> str | None:
    """The largest chat model of the Ollama server at `host:port`, None if there is none."""
    # Not urllib: it would send a request for this very machine through the user's HTTP proxy.
    connection = HTTPConnection(address, timeout=OLLAMA_TIMEOUT)
    try:
        connection.request("GET", "/api/tags")
        models = json.loads(connection.getresponse().read())["models"]
        chat = {model["name"]: model.get("size", 0) for model in models if _chats(model)}
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return None  # nothing listens there, or something that is not Ollama
    finally:
        connection.close()
    return max(chat, key=chat.__getitem__, default=None)


def _chats(model: dict[str, object]) -> bool:
    """Whether it is a model to talk with: Ollama lists those that only embed text as well."""
    about = f"{model['name']} {model.get('details')}".lower()
    return "embed" not in about and "bert" not in about
