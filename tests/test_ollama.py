"""Tests of Ollama's context window, through the real litellm against a fake of its API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kernel_agent.errors import ModelError
from kernel_agent.model import LiteLLM
from kernel_agent.model.ollama import MOST, UNKNOWN
from kernel_agent.model.waiting import GivenUpError
from tests.local_model import ignore

# pydantic's word to litellm, which silences it except where pytest listens.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    pytest.mark.filterwarnings("ignore:Item"),
]

MESSAGES = [{"role": "user", "content": "Hello"}]


class Ollama:
    """What the fake was asked for: `shown` models, and the `options` of each reply."""

    def __init__(self, facts: dict[str, Any] | None) -> None:
        self.facts = facts
        self.url = ""
        self.asked = threading.Event()
        self.may_tell = threading.Event()
        self.may_tell.set()
        self.shown: list[dict[str, Any]] = []
        self.options: list[dict[str, Any]] = []


@contextmanager
def ollama(facts: dict[str, Any] | None) -> Iterator[Ollama]:
    """An Ollama that tells `facts` of every model, or does not know it."""
    fake = Ollama(facts)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/show":
                # litellm asks too, with `name`, for what it wants to know itself.
                fake.shown += [body] if "model" in body else []
                fake.asked.set()
                fake.may_tell.wait(5)
                self._send(404 if fake.facts is None else 200, fake.facts or {"error": "unknown"})
                return
            fake.options.append(body["options"])
            head = {"model": body["model"], "created_at": "2025-01-01T00:00:00Z"}
            counts = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 2}
            if body.get("stream"):
                said = head | self._said("Hello.") | {"done": False}
                self._send(200, said, head | self._said("") | counts)
            else:
                self._send(200, head | self._said("Hello.") | counts)

        def _said(self, text: str) -> dict[str, Any]:
            if self.path == "/api/chat":
                return {"message": {"role": "assistant", "content": text}}
            return {"response": text}

        def _send(self, status: int, *lines: dict[str, Any]) -> None:
            payload = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def made_for(length: int, **more: Any) -> dict[str, Any]:
    info = {"general.architecture": "qwen3", "qwen3.context_length": length}
    return {"model_info": info, "capabilities": ["completion"], **more}


@pytest.mark.parametrize("provider", ["ollama", "ollama_chat"])
@pytest.mark.parametrize(
    ("facts", "options", "expected"),
    [
        (made_for(8192), {}, 8192),
        (made_for(262_144), {}, MOST),
        (made_for(262_144, parameters='stop "x"\nnum_ctx    65536'), {}, 65_536),
        (made_for(8192), {"num_ctx": 2048}, 2048),
        (made_for(8192), {"window": 100_000, "num_ctx": 2048}, 100_000),
        (None, {}, UNKNOWN),
        ({"model_info": None}, {}, UNKNOWN),
    ],
)
def test_the_window_is_noticed_and_set_in_each_request(
    facts: dict[str, Any] | None, options: dict[str, Any], expected: int, provider: str
) -> None:
    with ollama(facts) as server:
        model = LiteLLM(f"{provider}/qwen3:8b", api_base=server.url, **options)
        assert model.window == expected
        replies = [model.complete(MESSAGES), model.complete(MESSAGES, ignore)]
    assert [reply.text for reply in replies] == ["Hello.", "Hello."]
    assert [sent["num_ctx"] for sent in server.options] == [expected, expected]


def test_a_server_that_tells_is_asked_once_and_by_the_models_own_name() -> None:
    with ollama(made_for(8192)) as server:
        model = LiteLLM("ollama_chat/qwen3:8b", api_base=f"{server.url}/api/chat")
        assert (model.window, model.window) == (8192, 8192)
    assert server.shown == [{"model": "qwen3:8b"}]


def test_the_environment_says_where_the_server_is_and_no_proxy_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ollama(made_for(8192, capabilities=["vision"])) as server:
        monkeypatch.setenv("OLLAMA_API_BASE", server.url)
        assert LiteLLM("ollama/llava").window == 8192
        assert LiteLLM("ollama/llava").takes_images


def test_without_a_server_a_window_is_assumed() -> None:
    model = LiteLLM("ollama/qwen3", api_base="http://127.0.0.1:9")
    assert model.window == UNKNOWN
    assert not model.takes_images


def test_who_gives_up_does_not_wait_for_what_the_server_tells() -> None:
    raised: list[BaseException] = []
    with ollama(made_for(8192)) as server:
        server.may_tell.clear()
        model = LiteLLM("ollama_chat/qwen3:8b", api_base=server.url)

        def ask() -> None:
            try:
                model.complete(MESSAGES)
            except ModelError as error:
                raised.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        assert server.asked.wait(5)
        assert thread.ident is not None
        model.cancel(thread.ident)
        thread.join(1)  # what the server tells is waited for longer
        assert not thread.is_alive()
        server.may_tell.set()
    assert isinstance(raised[0], GivenUpError)
    assert server.options == []


@pytest.mark.parametrize("length", ["9" * 5000, "-1"])
def test_a_length_that_cannot_be_is_none(length: str) -> None:
    with ollama({"parameters": f"num_ctx {length}"}) as server:
        assert LiteLLM("ollama/qwen3", api_base=server.url).window == UNKNOWN
