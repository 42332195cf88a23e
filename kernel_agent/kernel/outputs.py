"""The messages of a running cell become its outputs: the one place where wire and file differ."""

from __future__ import annotations

from collections import deque
from typing import Any

from kernel_agent.kernel.connection import KernelMessage
from kernel_agent.steps import Output

MAX_STREAM_CHARS = 10_000_000
"""How much of one stream is kept: half of it from its beginning, half from its end."""

OUTPUT_TYPES = frozenset(
    ("stream", "display_data", "execute_result", "error", "update_display_data", "clear_output")
)


class CellOutputs:
    """Collects the outputs of one cell, in order.

    Pieces of one stream that follow each other are one output. A display is updated in place by
    its id, `clear_output(wait=True)` clears when the next output comes: as nbclient does.
    """

    def __init__(self) -> None:
        self._outputs: list[_Stream | Output] = []
        self._displays: dict[str, list[Output]] = {}
        self._clear_next = False

    def add(self, message: KernelMessage) -> Output | None:
        """Take in an IOPub message; returns what is new in it to show, if anything.

        For a stream that is an output with the new text only.
        """
        content = message["content"]
        kind = message["header"]["msg_type"]
        if kind == "clear_output":
            if content.get("wait"):
                self._clear_next = True
            else:
                self.clear()
            return None
        if kind == "update_display_data":
            return self._update(content)
        if self._clear_next:
            self.clear()
        if kind == "stream":
            return self._add_stream(
                str(content.get("name", "stdout")), str(content.get("text", ""))
            )
        return self._add_output(_output(kind, content), content)

    def clear(self) -> None:
        self._outputs.clear()
        self._displays.clear()
        self._clear_next = False

    @property
    def has_error(self) -> bool:
        return any(isinstance(o, dict) and o["output_type"] == "error" for o in self._outputs)

    def add_error(self, reply: dict[str, Any]) -> Output:
        """Add the error that an execute_reply tells of.

        ipykernel sends none on IOPub for an ExceptionGroup.
        """
        error = _output("error", reply)
        self._outputs.append(error)
        return error

    def all(self) -> tuple[Output, ...]:
        """The outputs so far, as nbformat stores them."""
        return tuple(o.output() if isinstance(o, _Stream) else dict(o) for o in self._outputs)

    def _add_stream(self, name: str, text: str) -> Output | None:
        if not text:
            return None
        name = name if name in ("stdout", "stderr") else "stdout"
        last = self._outputs[-1] if self._outputs else None
        if not (isinstance(last, _Stream) and last.name == name):
            last = _Stream(name)
            self._outputs.append(last)
        last.write(text)
        return {"output_type": "stream", "name": name, "text": text}

    def _add_output(self, output: Output, content: dict[str, Any]) -> Output:
        display_id = content.get("transient", {}).get("display_id")
        if display_id:
            self._displays.setdefault(str(display_id), []).append(output)
        self._outputs.append(output)
        return output

    def _update(self, content: dict[str, Any]) -> Output | None:
        shown = self._displays.get(str(content.get("transient", {}).get("display_id")), [])
        for output in shown:
            output["data"] = _bundle(content.get("data"))
            output["metadata"] = dict(content.get("metadata") or {})
        return dict(shown[-1]) if shown else None


class _Stream:
    """The text of a stream in bounded memory: its beginning and its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_room = MAX_STREAM_CHARS // 2
        self._tail_size = 0
        self._dropped = 0

    def write(self, text: str) -> None:
        if self._head_room:
            self._head.append(text[: self._head_room])
            taken = len(self._head[-1])
            self._head_room -= taken
            text = text[taken:]
        if not text:
            return
        limit = MAX_STREAM_CHARS // 2
        self._tail.append(text[-limit:])
        self._dropped += max(0, len(text) - limit)
        self._tail_size += len(self._tail[-1])
        while self._tail_size - len(self._tail[0]) >= limit:
            self._tail_size -= len(self._tail[0])
            self._dropped += len(self._tail.popleft())

    def output(self) -> Output:
        head, tail = "".join(self._head), "".join(self._tail)
        if self._dropped:
            tail = f"\n… {self._dropped:,} characters were not kept …\n{tail}"
        return {"output_type": "stream", "name": self.name, "text": head + tail}


def _output(kind: str, content: dict[str, Any]) -> Output:
    if kind == "error":
        return {
            "output_type": "error",
            "ename": str(content.get("ename", "")),
            "evalue": str(content.get("evalue", "")),
            "traceback": [str(line) for line in content.get("traceback") or ()],
        }
    output: Output = {
        "output_type": kind,
        "data": _bundle(content.get("data")),
        "metadata": dict(content.get("metadata") or {}),
    }
    if kind == "execute_result":
        output["execution_count"] = content.get("execution_count")
    return output


def _bundle(data: Any) -> dict[str, Any]:
    """A MIME bundle as the format wants it: text, or JSON under a JSON type."""
    return {
        mime: value if isinstance(value, str) or mime.endswith("json") else str(value)
        for mime, value in (data or {}).items()
    }
