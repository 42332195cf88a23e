"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from errno import ENOTDIR
from pathlib import Path


def write_whole(path: Path, pieces: Iterable[bytes], *, new: bool) -> None:
    """Write `pieces` to `path`; whoever reads it, and whenever power fails, finds all or nothing.

    With `new` the file must not exist yet; else it is replaced, keeping its permissions. A
    symbolic link is followed. Missing folders are made. What a killed process leaves behind is
    called `.<name>.<random>.tmp`. Raises FileExistsError or another OSError, the old file intact.
    """
    target = Path(os.path.realpath(path))
    _make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _put_new(temporary, target)
            _sync_folder(target.parent)
        else:
            # Its name is there already: whether the old or the new one, it leads to a whole file.
            _replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


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
