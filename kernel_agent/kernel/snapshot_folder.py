"""Runs inside the kernel: a folder of snapshots, on disk whole or not at all.

    <folder>/objects/<hash>.pkl   a pickle under the SHA-256 of its bytes, written once
    <folder>/<key>.json           a snapshot's manifest, which names its pickles; written last

A manifest and the pickles that it names are never changed, so a process that is killed at any
moment leaves the earlier snapshots as they were. Small pickles stand in the manifest itself. Only
one kernel may write to a folder at a time; while it does, the folder may hold the newest snapshot
beyond its bound. Shipped as text before `snapshot`; it needs the standard library alone.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pickle import PickleBuffer
from typing import Any, BinaryIO

FORMAT = 1
INLINE = 2_000  # bytes of a pickle that stands in the manifest: each file of its own costs a sync
IN_MEMORY = 1_000_000  # bytes of a pickle that are held until it is known whether they are new
PIECE = 16_000_000  # bytes that are hashed at once: between pieces an interrupt is heard
ENTRY = 300  # bytes that an entry takes in the manifest, about
TEMPORARY = ("snapshot-", ".tmp")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HASH = re.compile(r"[0-9a-f]{64}")

Entry = dict[str, Any]
"""A pickle in a manifest: `hash`, `bytes`, and `data` (base64) if it has no file of its own."""


class TooLarge(Exception):
    """A pickle does not fit into the room that is left."""


class TooSlow(Exception):
    """A pickle was not complete in time."""


class Sink:
    """A file for a pickler: hashes what is written, and keeps it if `keeps` or if it is short.

    `write` raises TooLarge beyond `room` bytes, TooSlow after `deadline` (monotonic seconds).
    """

    def __init__(self, folder: Path, *, keeps: bool, room: int, deadline: float) -> None:
        self.size = 0
        self.is_whole = True
        self._folder = folder
        self._keeps = keeps
        self._room = room
        self._deadline = deadline
        self._hash = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._file: Any = None

    def write(self, data: Any) -> int:
        # A buffer comes as it lies in memory, of any number of dimensions: it is not copied.
        view = data.raw() if type(data) is PickleBuffer else memoryview(data)
        if self.size + view.nbytes > self._room:
            raise TooLarge
        for start in range(0, view.nbytes, PIECE):
            if time.monotonic() > self._deadline:
                raise TooSlow
            self._take(view[start : start + PIECE])
        return int(view.nbytes)

    def digest(self) -> str:
        return self._hash.hexdigest()

    def content(self) -> bytes:
        return b"".join(self._pieces)

    def save(self, path: Path) -> None:
        """Give what was written the name `path`."""
        self._open()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        Path(self._file.name).replace(path)

    def close(self) -> None:
        """Remove what was not saved."""
        if self._file is not None:
            self._file.close()
            with suppress(FileNotFoundError):
                Path(self._file.name).unlink()

    def _take(self, piece: memoryview) -> None:
        self._hash.update(piece)
        self.size += piece.nbytes
        if self._file is not None:
            self._file.write(piece)
        elif self.is_whole and (self._keeps or self.size <= IN_MEMORY):
            self._pieces.append(bytes(piece))
            if self.size > IN_MEMORY:
                self._open()
        else:
            self._pieces.clear()
            self.is_whole = False

    def _open(self) -> None:
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
                dir=self._folder, prefix=TEMPORARY[0], suffix=TEMPORARY[1], delete=False
            )
            self._file.writelines(self._pieces)
            self._pieces.clear()


class Folder:
    """The snapshots in the folder `path`, which is made if it is not there."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.written = 0
        self._objects = self._path / "objects"
        self._objects.mkdir(parents=True, exist_ok=True)
        self._manifests: dict[str, tuple[int, int, dict[str, int]]] = {}
        self._users: Counter[str] = Counter()
        self._total = 0
        for file in self._path.glob("*.json"):
            if _KEY.fullmatch(file.stem):
                self._enter(file.stem)

    def is_at(self, path: str) -> bool:
        """Whether it is the folder `path`, and still there."""
        return self._path == Path(path) and self._objects.is_dir()

    def keep(
        self, dump: Callable[[Sink], None], *, known: str | None, room: int, deadline: float
    ) -> Entry:
        """The entry of what `dump` writes into a sink, which is stored unless it already is.

        `known` is the hash that it had last. A large pickle that has one is only hashed at first,
        and made once more if it has changed. Raises what `Sink.write` and `dump` raise.
        """
        for keeps in (known is None, True):
            sink = Sink(self._objects, keeps=keeps, room=room, deadline=deadline)
            try:
                dump(sink)
                entry: Entry = {"hash": sink.digest(), "bytes": sink.size}
                if sink.size <= INLINE:
                    return {**entry, "data": base64.b64encode(sink.content()).decode()}
                if self.has(entry):
                    return entry
                if sink.is_whole:
                    sink.save(self._object(entry["hash"]))
                    self.written += sink.size
                    return entry
            finally:
                sink.close()
        raise AssertionError("a sink that keeps is whole")

    def has(self, entry: Entry) -> bool:
        """Whether the pickle of `entry` is there."""
        if "data" in entry:
            return True
        with suppress(OSError):
            return bool(self._object(entry["hash"]).stat().st_size == entry["bytes"])
        return False

    def write(self, key: str, manifest: dict[str, Any], *, max_bytes: int) -> None:
        """Write the snapshot `key`; the oldest others go until the folder has `max_bytes`.

        `manifest["pickles"]` are the entries of all pickles that it needs.
        """
        path = self._manifest(key)
        number = max((number for number, _, _ in self._manifests.values()), default=0) + 1
        text = json.dumps({**manifest, "format": FORMAT, "number": number})
        sink = Sink(self._path, keeps=True, room=len(text), deadline=time.monotonic() + 60)
        try:
            sink.write(text.encode("ascii"))
            if self.written:
                _sync_folder(self._objects)  # what the manifest names must be there before it
            sink.save(path)
        finally:
            sink.close()
        self.written += len(text)
        self._forget(key)
        self._count(key, number, len(text), manifest["pickles"])
        for old in sorted(self._manifests, key=lambda key: self._manifests[key][0])[:-1]:
            if self._total <= max_bytes:
                break
            _sync_folder(self._path)  # the new one must be there before an old one goes
            self._manifest(old).unlink(missing_ok=True)
            self._forget(old)
        self._tidy()

    def read(self, key: str) -> dict[str, Any]:
        """The manifest of the snapshot `key`. Raises ValueError if there is none of this format."""
        try:
            with self._manifest(key).open(encoding="utf-8") as file:
                manifest = json.load(file)
        except FileNotFoundError:
            raise ValueError(f"There is no snapshot {key!r}.") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ValueError(f"The snapshot {key!r} is not of format {FORMAT}.")
        return manifest

    def open(self, entry: Entry) -> BinaryIO:
        """The pickle of `entry`, checked. Raises ValueError if it is damaged or gone."""
        if "data" in entry:
            file: BinaryIO = io.BytesIO(base64.b64decode(entry["data"]))
        else:
            try:
                file = self._object(entry["hash"]).open("rb")
            except FileNotFoundError:
                raise ValueError("Its file is gone.") from None
        found = hashlib.sha256()
        while piece := file.read(IN_MEMORY):
            found.update(piece)
        if found.hexdigest() == entry["hash"]:
            file.seek(0)
            return file
        file.close()
        if "data" not in entry:
            self._object(entry["hash"]).unlink()  # or the same value would never be stored again
        raise ValueError("Its file is damaged.")

    def _object(self, name: str) -> Path:
        if not _HASH.fullmatch(name):
            raise ValueError(f"{name!r:.80} is not the name of a pickle.")
        return self._objects / f"{name}.pkl"

    def _manifest(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r:.80} is not the name of a snapshot.")
        return self._path / f"{key}.json"

    def _enter(self, key: str) -> None:
        """Count what an earlier kernel has written; what cannot be read is the oldest."""
        size = self._manifest(key).stat().st_size
        try:
            manifest = self.read(key)
            self._count(key, int(manifest["number"]), size, manifest["pickles"])
        except (ValueError, KeyError, TypeError):
            self._count(key, 0, size, [])

    def _count(self, key: str, number: int, size: int, entries: list[Entry]) -> None:
        sizes = {entry["hash"]: entry["bytes"] for entry in entries if "data" not in entry}
        self._manifests[key] = number, size, sizes
        self._total += size + sum(sizes[name] for name in sizes if not self._users[name])
        self._users.update(sizes.keys())

    def _forget(self, key: str) -> None:
        _, size, sizes = self._manifests.pop(key, (0, 0, {}))
        self._users.subtract(sizes.keys())
        self._total -= size + sum(sizes[name] for name in sizes if not self._users[name])

    def _tidy(self) -> None:
        """Remove pickles that no manifest names, and what killed processes have left."""
        begin, end = TEMPORARY
        for file in [*self._objects.iterdir(), *self._path.glob(f"{begin}*{end}")]:
            name, ending = file.stem, file.suffix
            unused = ending == ".pkl" and _HASH.fullmatch(name) and not self._users[name]
            if unused or (ending == end and name.startswith(begin)):
                with suppress(OSError):
                    file.unlink()


def _sync_folder(path: Path) -> None:
    """Have the names in a folder on disk, where a folder can be opened."""
    with suppress(OSError):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
