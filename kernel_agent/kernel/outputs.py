"""The messages of a running cell become its outputs: the one place where wire and file differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kernel_agent.kernel.bounded import MAX_CHARS, BoundedOutputs, Shown
from kernel_agent.kernel.connection import KernelMessage
from kernel_agent.kernel.fitting import MARK, fitted, marked, shortened
from kernel_agent.steps import Output

OUTPUT_TYPES = frozenset(
    ("stream", "display_data", "execute_result", "error", "update_display_data", "clear_output")
)


class CellOutputs:
    """Collects the outputs of one cell, in order and in bounded memory (see `bounded`).

    Pieces of one stream that follow each other are one output. A display is updated in place by
    its id, `clear_output(wait=True)` clears when the next output comes: as nbclient does. The
    outputs of an earlier cell are returned and saved by then, so an update of a display of
    theirs is an output of the cell that made it, with the display's id in its metadata under
    `["kernel_agent"]["updates"]`.

    What comes late, from a thread or a task of an earlier cell, is an output of its own: text
    begins with a line that says so, a display has it in its metadata under
    `["kernel_agent"]["late"]`.
    """

    def __init__(self) -> None:
        self._outputs = BoundedOutputs()
        self._clear_next = False

    def add(self, message: KernelMessage, *, late: str = "") -> Output | None:
        """Take in an IOPub message; returns what is new in it to show, if anything.

        For a stream that is an output with the new text only. `late` names the earlier cell that
        the message belongs to.
        """
        content = message["content"]
        kind = message["header"]["msg_type"]
        if unread := message.get("unread"):
            kind, content = "display_data", _unread(kind, unread)
        if kind == "clear_output":
            if not late:  # what an earlier cell wants cleared is not here
                self._clear(wait=bool(content.get("wait")))
            return None
        if self._clear_next and kind != "update_display_data":
            self._clear(wait=False)
        match kind:
            case "update_display_data":
                return self._update(content, late)
            case "stream" if "not_kept" in content:  # around it comes more than is kept
                self._outputs.miss(int(content["not_kept"]))
                return None
            case "stream":
                name, text = content.get("name", "stdout"), content.get("text", "")
                return self._write(str(name), str(text), late)
            case "error" if late:
                return self._write("stderr", "\n".join(_error(content)["traceback"]) + "\n", late)
            case "error":
                return self.add_error(content)
        return self._show(kind, content, late)

    @property
    def is_flooded(self) -> bool:
        """Whether something had to be left out."""
        return self._outputs.is_flooded

    @property
    def has_error(self) -> bool:
        return self._outputs.has_error

    def add_error(self, reply: dict[str, Any]) -> Output:
        """Add the error that an execute_reply tells of.

        ipykernel sends none on IOPub for an ExceptionGroup.
        """
        error = _error(reply)
        self._outputs.append(error)
        return error

    def all(self) -> tuple[Output, ...]:
        """The outputs so far, as nbformat stores them."""
        return self._outputs.all()

    def _clear(self, *, wait: bool) -> None:
        self._clear_next = wait
        if not wait:
            self._outputs = BoundedOutputs()

    def _write(self, name: str, text: str, late: str) -> Output | None:
        if not text:
            return None
        name = name if name in ("stdout", "stderr") else "stdout"
        self._outputs.write(name, text, f"[late output of {late}]\n" if late else "")
        return {"output_type": "stream", "name": name, "text": text}

    def _show(self, kind: str, content: dict[str, Any], late: str, **facts: str) -> Output:
        facts |= {"late": late} if late else {}
        output = _display("display_data" if late else kind, content, MAX_CHARS // 2, **facts)
        display_id = _display_id(content)
        self._replace(self._outputs.displays(display_id), content)
        self._outputs.append(output, display_id)
        return output

    def _update(self, content: dict[str, Any], late: str) -> Output | None:
        display_id = _display_id(content)
        shown = self._outputs.displays(display_id)
        if shown:
            self._replace(shown, content)
            return dict(shown[-1].output)
        if self._clear_next:
            self._clear(wait=False)
        return self._show("display_data", content, late, updates=display_id)

    def _replace(self, shown: Iterable[Shown], content: dict[str, Any]) -> None:
        for entry in shown:
            known = entry.output["metadata"].get(MARK, {})
            facts = {name: known[name] for name in ("late", "updates") if name in known}
            room = self._outputs.room(entry)
            new = _display(entry.output["output_type"], content, room, **facts)
            self._outputs.replace(entry, {**entry.output, **new})


def _display_id(content: dict[str, Any]) -> str:
    return str((content.get("transient") or {}).get("display_id") or "")


def _error(content: dict[str, Any]) -> Output:
    room = MAX_CHARS // 8  # ename, evalue and the traceback fit into half of the bound
    traceback = [str(line) for line in content.get("traceback") or ()]
    if sum(map(len, traceback)) > room:
        traceback = shortened("\n".join(traceback), room).split("\n")
    return {
        "output_type": "error",
        "ename": shortened(str(content.get("ename", "")), room),
        "evalue": shortened(str(content.get("evalue", "")), room),
        "traceback": traceback,
    }


def _display(kind: str, content: dict[str, Any], room: int, **facts: Any) -> Output:
    metadata = dict(content.get("metadata") or {})
    metadata = marked(metadata, **facts) if facts else metadata
    data, metadata = fitted(_bundle(content.get("data")), metadata, room)
    output: Output = {"output_type": kind, "data": data, "metadata": metadata}
    if kind == "execute_result" and "execution_count" in content:
        output["execution_count"] = content["execution_count"]
    return output


def _unread(kind: str, size: int) -> dict[str, Any]:
    """The content of a display that stands for a message too large to be read."""
    text = f"[{kind} message of {size:,} bytes: too long to be kept]"
    return {"data": {"text/plain": text}, "metadata": marked({}, not_kept={"bytes": size})}


def _bundle(data: Any) -> dict[str, Any]:
    """A MIME bundle as the format wants it: text, or JSON under a JSON type."""
    return {
        mime: value if isinstance(value, str) or mime.endswith("json") else str(value)
        for mime, value in (data or {}).items()
    }
