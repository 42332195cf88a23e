"""Finding a model by keys and by a local Ollama, which real HTTP servers on this machine play."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from kernel_agent.errors import SettingsError
from kernel_agent.providers import PROVIDERS, find_model, ollama_model


@contextmanager
def tags_server(body: bytes) -> Iterator[str]:
    """Answers every GET with `body`; gives `host:port`."""

    class Tags(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/api/tags"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(body if found else b"")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Tags)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing listens: bound, so that nobody else takes it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def tags(*models: tuple[str, int]) -> bytes:
    return json.dumps({"models": [{"name": name, "size": size} for name, size in models]}).encode()


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_one_key_chooses_the_model_of_its_provider(provider, nobody) -> None:
    for name in provider.variables:
        choice = find_model({name: "secret-value"}, ollama=nobody)
        assert (choice.model, choice.why) == (provider.model, f"{name} is set")


def test_two_names_of_one_provider_are_one_choice(nobody) -> None:
    environ = {"GEMINI_API_KEY": "x", "GOOGLE_API_KEY": "x"}
    assert find_model(environ, ollama=nobody).model.startswith("gemini/")


def test_several_keys_are_listed_with_what_to_type_and_without_their_values(nobody) -> None:
    environ = {"OPENAI_API_KEY": "secret-value", "XAI_API_KEY": "secret-value"}
    with pytest.raises(SettingsError) as caught:
        find_model(environ, ollama=nobody)
    message = str(caught.value)
    assert "\n  --model openai/" in message
    assert "\n  --model xai/" in message
    assert "secret-value" not in message


def test_without_any_choice_the_ways_to_set_a_model_are_named(nobody) -> None:
    with pytest.raises(SettingsError) as caught:
        find_model({"OPENAI_API_KEY": " ", "HOME": "/"}, ollama=nobody)
    for words in ("--model NAME", "KERNEL_AGENT_MODEL", "ANTHROPIC_API_KEY", "demo", nobody):
        assert words in str(caught.value)


def test_a_local_ollama_is_a_choice_with_its_largest_chat_model(monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")  # a proxy must not be asked
    body = tags(("small:1b", 1), ("large:70b", 70), ("nomic-embed-text:latest", 99))
    with tags_server(body) as address:
        choice = find_model({}, ollama=address)
        assert choice.model == "ollama_chat/large:70b"
        assert address in choice.why
        with pytest.raises(SettingsError, match="more than one choice"):
            find_model({"OPENAI_API_KEY": "x"}, ollama=address)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"models": 3}', b'{"models": [{}]}', b'{"models": []}']
)
def test_a_server_that_is_no_ollama_or_has_no_model_is_no_choice(body: bytes) -> None:
    with tags_server(body) as address:
        assert ollama_model(address) is None


def test_a_server_that_never_answers_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ollama_model(f"127.0.0.1:{silent.getsockname()[1]}") is None


def test_every_default_model_is_one_that_litellm_lists(monkeypatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    for provider in PROVIDERS:
        name, company, _, _ = litellm.get_llm_provider(provider.model)
        assert provider.model == f"{company}/{name}"
        # litellm lists none of OpenRouter's models: they are those of all the others.
        listed = {provider.model, name} & set(litellm.model_cost)
        assert listed or company == "openrouter", provider
