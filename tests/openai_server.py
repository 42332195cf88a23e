"""A local server that speaks OpenAI's chat completions API from a script, faults included.

    with OpenAIServer(["Hello.", Status(429, retry_after=0), Answer("Bye.")]) as server:
        LiteLLM("openai/any", api_base=server.url, api_key="sk-test")

By hand: `python -m tests.openai_server '["first reply", "second reply"]'` prints its URL.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

MALFORMED = b'{"id": "broken", "choi'


@dataclass(frozen=True)
class Answer:
    """A reply that arrives whole. `usage=False`: the server tells no token counts.

    `pieces`: how many events a streamed text is split into (fewer if it is shorter than that).
    """

    text: str
    reasoning: str = ""
    finish_reason: str | None = "stop"
    usage: bool = True
    prompt_tokens: int = 100
    completion_tokens: int = 20
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    pieces: int = 5


@dataclass(frozen=True)
class Status:
    """An HTTP error with OpenAI's error body; `retry_after` becomes the header, word for word.

    `retry_after_ms` is the header in milliseconds.
    """

    code: int
    message: str = "The server says no."
    error_code: str | None = None
    retry_after: str | float | None = None
    retry_after_ms: str | float | None = None


@dataclass(frozen=True)
class CutConnection:
    """The text breaks off. With `politely` the stream ends as if it were complete."""

    text: str = "This text breaks off in the middle of"
    politely: bool = False


@dataclass(frozen=True)
class MalformedChunk:
    """After the text, bytes that are no JSON where JSON should be."""

    text: str = "So far"


@dataclass(frozen=True)
class EmptyChoices:
    """A well-formed answer whose `choices` are empty."""


@dataclass(frozen=True)
class StreamError:
    """After the text, an error object within the stream (a plain status 500 if not streaming)."""

    text: str = "So far"
    message: str = "The server is overloaded."


@dataclass(frozen=True)
class Stall:
    """The first piece of the text, then silence until the client hangs up or the server closes."""

    text: str = "Wait for it"


@dataclass(frozen=True)
class Trickle:
    """The first piece of the text, then keep-alives until the client hangs up or the server closes.

    These are comments of the stream, or blanks before an answer that is not streamed.
    """

    text: str = ""


@dataclass(frozen=True)
class NoGoodbye:
    """A streamed answer that is complete, after which the connection stays open and silent."""

    text: str = "Done."


@dataclass(frozen=True)
class Raw:
    """Whatever a broken server may send: `body` word for word, streamed or not."""

    body: bytes
    content_type: str = "text/event-stream"


Script = (
    str
    | Answer
    | Status
    | CutConnection
    | MalformedChunk
    | EmptyChoices
    | StreamError
    | Stall
    | Trickle
    | NoGoodbye
    | Raw
)


@dataclass(frozen=True)
class Request:
    """What the server was sent; `time` is when, in seconds since the epoch."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    time: float = field(default_factory=time.time)


class OpenAIServer:
    """Serves `answers` in order on 127.0.0.1; `requests` are those that came, in order.

    When the script has ended it answers with status 400, which no client tries again.
    """

    def __init__(self, answers: Iterable[Script]) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.hung_up = threading.Event()
        """Set when a client has closed its connection before it had all."""
        self._lock = threading.Lock()
        server = self

        class Handler(_Handler):
            script = server

        self._http = _QuietServer(("127.0.0.1", 0), Handler)
        # A poll interval of 10 ms: closing does not cost each test half a second.
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """What goes into `api_base`."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def next_answer(self, request: Request) -> Script:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
        if number > len(self.answers):
            return Status(400, f"The script has ended: it had {len(self.answers)} answers.")
        return self.answers[number - 1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients hang up, as some tests want them to.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    script: OpenAIServer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests look at what is printed."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(self.path, dict(self.headers.items()), body)
        answer = self.script.next_answer(request)
        if isinstance(answer, str):
            answer = Answer(answer)
        if isinstance(answer, Status):
            self._refuse(answer)
        elif isinstance(answer, Raw):
            self._send(answer.body, content_type=answer.content_type)
        elif body.get("stream"):
            self._stream(answer, body)
        else:
            self._whole(answer, body)

    def _refuse(self, status: Status) -> None:
        error = {"message": status.message, "type": "error", "code": status.error_code}
        payload = _json({"error": error})
        self._send(
            payload,
            status=status.code,
            headers={"Retry-After": status.retry_after, "retry-after-ms": status.retry_after_ms},
        )

    def _whole(self, answer: Script, body: dict[str, Any]) -> None:
        match answer:
            case Answer():
                self._send(_json(_completion(answer, body)))
            case EmptyChoices():
                self._send(_json(_completion(Answer(""), body) | {"choices": []}))
            case MalformedChunk():
                self._send(MALFORMED)
            case StreamError(message=message):
                self._refuse(Status(500, message))
            case CutConnection(text):
                payload = _json(_completion(Answer(text), body))
                self._send(payload[: len(payload) // 2], length=len(payload))
                self.close_connection = True
            case Stall() | NoGoodbye():
                self._stall()
            case Trickle():
                self._send(b"", length=1_000_000)
                self._trickle(b" \n")

    def _send(
        self,
        payload: bytes,
        *,
        status: int = 200,
        headers: Mapping[str, str | float | None] | None = None,
        length: int | None = None,
        content_type: str = "application/json",
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value is not None:
                self.send_header(name, str(value))
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length or len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _stream(self, answer: Script, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in _events(answer, body):
                self._send_event(event)
        except ConnectionError:  # the client did not wait for all of it
            self.script.hung_up.set()
            self.close_connection = True
            return
        match answer:
            case CutConnection(politely=False):
                self.close_connection = True
            case Stall() | NoGoodbye():
                self._stall()
            case Trickle():
                self._trickle(b"10\r\n: keep-alive...\n\r\n")
            case _:
                self.wfile.write(b"0\r\n\r\n")

    def _send_event(self, payload: bytes) -> None:
        event = b"data: " + payload + b"\n\n"
        # Cut within the first multi-byte character: clients must not decode piece by piece.
        cut = next((i + 1 for i, byte in enumerate(event) if byte > 127), 0)
        for part in filter(None, (event[:cut], event[cut:])):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    def _trickle(self, keep_alive: bytes) -> None:
        self.close_connection = True
        try:
            while not self.script.closing.wait(0.005):
                self.wfile.write(keep_alive)
        except ConnectionError:
            self.script.hung_up.set()

    def _stall(self) -> None:
        self.close_connection = True
        self.connection.settimeout(0.01)
        while not self.script.closing.is_set():
            try:
                is_there = bool(self.connection.recv(1, socket.MSG_PEEK))
            except TimeoutError:
                continue
            except ConnectionError:  # it had not read all that it was sent
                is_there = False
            if not is_there:
                self.script.hung_up.set()
                return


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _pieces(text: str, count: int) -> list[str]:
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _completion(answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    completion = _head(body) | {"object": "chat.completion", "choices": [choice]}
    return completion | ({"usage": _usage(answer)} if answer.usage else {})


def _events(answer: Script, body: dict[str, Any]) -> Iterator[bytes]:
    """What a stream sends, event by event."""
    count = getattr(answer, "pieces", 5)
    for piece in _pieces(getattr(answer, "reasoning", ""), count):
        yield _delta(body, reasoning_content=piece)
    for piece in _pieces(getattr(answer, "text", ""), count):
        yield _delta(body, content=piece)
    match answer:
        case CutConnection() | Stall() | Trickle():
            return
        case NoGoodbye():
            yield _chunk(body, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
            return
        case MalformedChunk():
            yield MALFORMED
        case StreamError(message=message):
            yield _json({"error": {"message": message}})
        case EmptyChoices():
            yield _chunk(body, [])
        case Answer():
            yield _chunk(body, [{"index": 0, "delta": {}, "finish_reason": answer.finish_reason}])
            if answer.usage and (body.get("stream_options") or {}).get("include_usage"):
                yield _chunk(body, [], usage=_usage(answer))
    yield b"[DONE]"


def _delta(body: dict[str, Any], **delta: str) -> bytes:
    delta = {"role": "assistant", **delta}
    return _chunk(body, [{"index": 0, "delta": delta, "finish_reason": None}])


def _chunk(body: dict[str, Any], choices: list[dict[str, Any]], **more: Any) -> bytes:
    return _json(_head(body) | {"object": "chat.completion.chunk", "choices": choices} | more)


def _head(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "created": 1700000000, "model": body.get("model")}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
    }


def main(replies: str) -> None:
    """Serve a JSON list of `replies` until Ctrl-C."""
    with OpenAIServer(json.loads(replies)) as server:
        print(server.url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main(sys.argv[1])
