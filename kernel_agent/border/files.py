"""Large values as files of a folder that host and kernel share: named by what is in them.

Also runs inside the kernel, shipped as text. Whoever reads trusts neither names nor files: a name
must be one that `write` gives, the file a regular one of a bounded size, its content what the name
says.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

MAX_BYTES = 4_000_000_000  # of one value
SUFFIXES = ("arrow", "bin", "json", "npy", "png", "txt")
NAME = re.compile(rf"[0-9a-f]{{40}}\.(?:{'|'.join(SUFFIXES)})")


class UnreadableValue(ValueError):
    """A value that has come over the border is not what it should be: `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The value cannot be read: {reason}")
        self.reason = reason


class _Named(io.RawIOBase):
    """Writes into a file and learns from it what the file is to be called."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = _new_hash()

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._hash.update(piece)
        self._file.write(piece)
        return memoryview(piece).nbytes

    @property
    def digest(self) -> str:
        return str(self._hash.hexdigest())


def write(folder: Path, suffix: str, put: Callable[[BinaryIO], object]) -> str:
    """The name of a file in `folder` with what `put` writes; whole, or not there at all."""
    draft = folder / f"draft-{uuid.uuid4().hex}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            named = _Named(file)
            put(cast(BinaryIO, named))
        name = f"{named.digest}.{suffix}"
        draft.replace(folder / name)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return name


def read(folder: Path | None, name: object, suffix: str) -> bytearray:
    """What is in the file `name` of `folder`, which must be of this `suffix`.

    It is copied: a file that another process may cut short while it is mapped kills the reader.

    Raises UnreadableValue for any other name and for content that is not what the name says.
    """
    path = path_of(folder, name, suffix)
    with os.fdopen(_opened(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise UnreadableValue(f"the file {path.name!r} is larger than {MAX_BYTES:,} bytes.")
        content = bytearray(size)
        file.readinto(content)
    digest = _new_hash()
    digest.update(content)
    if digest.hexdigest() != path.stem:
        raise UnreadableValue(f"the file {path.name!r} holds something else than was written.")
    return content


def path_of(folder: Path | None, name: object, suffix: str) -> Path:
    """The path of the file `name` in `folder`, after a look at the name alone."""
    if folder is None:
        raise UnreadableValue("it lies in a file, and there is no folder for files.")
    if not isinstance(name, str) or not NAME.fullmatch(name) or not name.endswith("." + suffix):
        raise UnreadableValue(f"{str(name)[:80]!r} is no name of such a file.")
    return folder / name


def _opened(path: Path) -> int:
    """An open descriptor of a regular file: never of a link's target, a pipe or a device."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError as error:
        reason = f"its file {path.name!r} cannot be opened: {error.strerror}."
        raise UnreadableValue(reason) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableValue(f"{path.name!r} is no regular file.")
    return descriptor


def _new_hash() -> Any:
    return hashlib.blake2b(digest_size=20, usedforsecurity=False)
