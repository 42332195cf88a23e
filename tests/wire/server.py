"""A local HTTP server that answers from a script and checks every request."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol, Self

from jsonschema import Draft202012Validator

from tests.wire.answers import Said

Body = dict[str, Any]


class Wire(Protocol):
    """One provider's format."""

    path: str
    """What goes behind the server's address in `api_base`."""

    def problems(
        self, path: str, headers: Mapping[str, str], body: Body, sent: list[Said]
    ) -> Iterator[str]:
        """What the documents do not allow in a request that follows the answers `sent`."""

    def is_streamed(self, path: str, body: Body) -> bool: ...

    def whole(self, said: Said, body: Body) -> Body: ...

    def events(self, said: Said, body: Body) -> Iterator[bytes]: ...

    def refusal(self, message: str) -> Body: ...


class WireServer:
    """Answers request after request; at the end of its block, what was refused is an error.

    `known` are the answers that the provider gave, whose signatures it takes back.
    """

    def __init__(self, wire: Wire, answers: Iterable[Said]) -> None:
        self.wire = copy.deepcopy(wire)  # it may remember what it said
        self.bodies: list[Body] = []
        self.known: list[Said] = []
        self.problems: list[str] = []
        self._answers = list(answers)
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}{self.wire.path}"

    def answer(self, path: str, headers: Mapping[str, str], body: Body) -> Said | None:
        """The next answer; None if the request is to be refused."""
        self.bodies.append(body)
        found = list(self.wire.problems(path, headers, body, self.known))
        if not self._answers:
            found.append("the script has ended")
        self.problems += [f"request {len(self.bodies)}: {problem}" for problem in found]
        if found:
            return None
        self.known.append(self._answers.pop(0))
        return self.known[-1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        assert not self.problems, "\n".join(self.problems)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: WireServer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests look at what is printed."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wire = self.owner.wire
        said = self.owner.answer(self.path, self.headers, body)
        if said is None:
            self._send(encoded(wire.refusal(self.owner.problems[-1])), status=400)
        elif wire.is_streamed(self.path, body):
            events = list(wire.events(said, body))
            events = events[: len(events) // 2] if said.is_cut else events
            self._send(b"".join(events), kind="text/event-stream")
        else:
            self._send(encoded(wire.whole(said, body)))

    def _send(self, payload: bytes, *, status: int = 200, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def event(value: Any, *, name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encoded(value) + b"\n\n"


def exact(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Body:
    """A JSON schema of an object with these keys and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def constant(value: Any) -> Body:
    return {"const": value}


def list_of(*schemas: Body) -> Body:
    """A list, not empty, whose items are told apart by their `type` or their keys."""
    return {"type": "array", "minItems": 1, "items": {"anyOf": list(schemas)}}


def violations(value: Any, schema: Body) -> Iterator[str]:
    """Where `value` is not as the schema has it."""
    for error in Draft202012Validator(schema).iter_errors(value):
        where = "/".join(map(str, error.absolute_path)) or "the body"
        yield f"{where}: {error.message[:300]}"
