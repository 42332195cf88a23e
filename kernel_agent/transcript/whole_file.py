"""Writing a file whole or not at all, and noticing who else has written it."""

from __future__ import annotations

import os
import re
import stat
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOTDIR
from pathlib import Path
from typing import Self

STALE_SECONDS = 3600.0
MOST_AT_ONCE = 1000  # pieces; Linux takes 1,024

Raw = bytes | memoryview


class FileChangedError(OSError):
    """The file is not the one that was written or read last."""


class ReadOnlyError(OSError):
    """The owner's right to write has been taken from the file."""


@dataclass(frozen=True)
class Identity:
    """What tells a file from one that somebody else has put in its place, or has changed."""

    inode: int
    modified: int
    size: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        return cls(found.st_ino, found.st_mtime_ns, found.st_size)


def write_whole(path: Path, pieces: Iterable[Raw], *, known: Identity | None) -> Identity:
    """Write `pieces` to `path`; whoever reads it, and whenever power fails, finds all or nothing.

    `known` is the file that may be replaced, keeping its permissions; without it there must be
    none. A symbolic link is followed. Missing folders are made. What a killed process leaves
    behind is called `.<name>.<process>-<random>.tmp`. Returns what the file is known by now.

    Raises FileExistsError, FileChangedError, ReadOnlyError or another OSError, the old file intact.
    """
    target = Path(os.path.realpath(path))
    _check(target, known)
    _make_folder(target.parent)
    random = os.urandom(4).hex()
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{random}.tmp")
    try:
        with temporary.open("xb", buffering=0) as file:
            _write(file.fileno(), pieces)
            os.fsync(file.fileno())
        written = Identity.of(temporary.stat())
        if _check(target, known):
            # Its name is there already: whether the old or the new one, it leads to a whole file.
            _replace(temporary, target)
        else:
            _put_new(temporary, target)
            _sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()
    return written


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left when they wrote `path`, as far as that is sure."""
    target = Path(os.path.realpath(path))
    ours = re.compile(rf"\.{re.escape(target.name)}\.(?:(\d+)-)?[0-9a-f]{{8}}\.tmp")
    with suppress(OSError):
        for entry in os.scandir(target.parent):
            if not (name := ours.fullmatch(entry.name)):
                continue
            with suppress(OSError):
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age > STALE_SECONDS or (name[1] and not _is_alive(int(name[1]))):
                    Path(entry.path).unlink()


def _write(handle: int, pieces: Iterable[Raw]) -> None:
    """Write all pieces: many at once, which is quicker for the system than one by one."""
    left = deque(memoryview(piece) for piece in pieces if len(piece))
    while left:
        if hasattr(os, "writev"):
            written = os.writev(handle, [left[i] for i in range(min(len(left), MOST_AT_ONCE))])
        else:
            written = os.write(handle, left[0])
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]


def _check(target: Path, known: Identity | None) -> bool:
    """Whether `target` is there, being `known`. Raises OSError if it is there and is not."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return False
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{str(target)!r} is a folder")
    if known is None:
        raise FileExistsError(f"{str(target)!r} exists")
    if Identity.of(found) != known:
        raise FileChangedError(f"{str(target)!r} was changed by another program")
    if not found.st_mode & stat.S_IWUSR:
        raise ReadOnlyError(f"{str(target)!r} is read-only")
    return True


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there is no harmless way to ask
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(ENOTDIR, f"{str(folder)!r} is no folder") from error


def _put_new(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except (OSError, AttributeError, NotImplementedError):
        # Some filesystems have no links: take the name first, then fill it.
        target.open("xb").close()
        try:
            temporary.replace(target)
        except OSError:
            target.unlink()
            raise


def _replace(temporary: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))
    temporary.replace(target)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where folders can be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
