"""Answers on their way out: kept beside the notebook, and read as the values that they were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernel_agent.border import files
from kernel_agent.border.codec import INLINE_BYTES, TAG, decode
from kernel_agent.border.files import UnreadableValue
from kernel_agent.call_files import provide
from kernel_agent.steps import ANSWER_MIME, CellResult, Output

MAX_BYTES = 200_000_000
"""How many bytes of files one answer may have beside the notebook."""

MAX_DEPTH = 20  # of JSON in the notebook, which cuts what lies much deeper


def keep(result: CellResult, *, source: Path | None, notebook: Path | None) -> CellResult:
    """`result` with the files of its answer beside the `notebook`, in `<its name>-answer/`.

    `source` is the folder where the kernel has put them. Without a notebook the answer holds
    them itself. Only the answer that counts is kept, the last one of a cell that succeeded; of
    others, and of what is too large, cannot be read or written, the text remains and says so.
    """
    last = result.answer if result.status == "ok" else None
    outputs = tuple(
        _kept(output, source, notebook) if output is last else _without_value(output)
        for output in result.outputs
    )
    return replace(result, outputs=outputs)


def decoded(output: Output, *, folder: Path | None) -> Any:
    """The value that an output of `final_answer` carries: its text if the value is not there.

    `folder` is the notebook's. Nothing is unpickled.
    """
    match output["data"].get(ANSWER_MIME):
        case {"value": value}:
            return value
        case {"shown": str(mime), "text": str(text)}:
            return _picture(output["data"].get(mime), text)
        case {"encoded": encoded, "text": str(text), **others}:
            try:
                return decode(encoded, folder=_beside(folder, others.get("folder")))
            except UnreadableValue:
                return text
        case {"text": text}:
            return text
    return None


def _beside(folder: Path | None, name: object) -> Path | None:
    """The folder `name` in `folder`; None for other names: no files elsewhere are read."""
    if folder is None or not isinstance(name, str) or name in ("", "..") or Path(name).name != name:
        return None
    return folder / name


def _picture(data: Any, text: str) -> Any:
    try:
        return decode({TAG: "image", "data": "".join(str(data).split())}, folder=None)
    except UnreadableValue:
        return text


def _kept(output: Output, source: Path | None, notebook: Path | None) -> Output:
    payload = output["data"][ANSWER_MIME]
    if not isinstance(payload, dict) or "encoded" not in payload:
        return output
    encoded = payload["encoded"]
    try:
        contents = _contents(encoded, source)
        if notebook is None:
            encoded = provide(encoded, sidecar=source, folder=None)
            return _with(output, payload | {"encoded": encoded})
        sidecar = notebook.with_name(f"{notebook.stem}-answer")
        encoded = _stored(encoded, contents, sidecar)
    # ValueError: UnreadableValue, LeftOutError, and what is no JSON.
    except (OSError, ValueError, RecursionError) as error:
        text = f"{payload.get('text', '')}\n[Only this text of the answer is kept: {error}]"
        return _with(output, {"text": text})
    where = {"folder": sidecar.name} if any(_tagged_files(encoded)) else {}
    return _with(output, payload | {"encoded": encoded} | where)


def _stored(encoded: Any, contents: Mapping[str, bytes | bytearray], sidecar: Path) -> Any:
    """`encoded` with its files in the `sidecar`, itself there if it is long or deep."""
    text = json.dumps(encoded, allow_nan=False).encode()
    if len(text) > INLINE_BYTES or not _is_flat(encoded):
        name = _written(text, "json", sidecar)
        encoded = {TAG: "json", "file": name, "bytes": len(text)}
    for name, content in contents.items():
        if not (sidecar / name).is_file():
            _written(content, name.rpartition(".")[2], sidecar)
    return encoded


def _without_value(output: Output) -> Output:
    match output.get("data"):
        case {**forms} if isinstance(payload := forms.get(ANSWER_MIME), dict):
            return _with(output, {key: payload[key] for key in payload if key != "encoded"})
    return output


def _with(output: Output, payload: Mapping[str, Any]) -> Output:
    return output | {"data": output["data"] | {ANSWER_MIME: dict(payload)}}


def _contents(encoded: Any, source: Path | None) -> dict[str, bytes | bytearray]:
    """What is in the files of an encoded value, by name.

    Raises ValueError if one cannot be read, or they are too large together.
    """
    contents: dict[str, bytes | bytearray] = {}
    left = list(_tagged_files(encoded))
    room = MAX_BYTES
    while left:
        tagged = left.pop()
        name, suffix = tagged["file"], str(tagged["file"]).rpartition(".")[2]
        path = files.path_of(source, name, suffix)
        if path.name in contents:
            continue
        if path.is_file() and path.stat().st_size > room:
            raise ValueError(f"the value has more than {MAX_BYTES:,} bytes.")
        contents[path.name] = files.read(source, name, suffix)
        room -= len(contents[path.name])
        if tagged[TAG] == "json":  # it may name files in turn
            left += _tagged_files(json.loads(contents[path.name]))
    return contents


def _tagged_files(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _tagged_files(item)
    elif isinstance(value, dict):
        if TAG in value and "file" in value:
            yield value
        else:
            yield from _tagged_files(list(value.values()))


def _is_flat(encoded: Any, depth: int = MAX_DEPTH) -> bool:
    if not isinstance(encoded, (list, dict)):
        return True
    items = encoded.values() if isinstance(encoded, dict) else encoded
    return depth > 0 and all(_is_flat(item, depth - 1) for item in items)


def _written(content: bytes | bytearray, suffix: str, sidecar: Path) -> str:
    sidecar.mkdir(parents=True, exist_ok=True)
    return files.write(sidecar, suffix, lambda file: file.write(content))
