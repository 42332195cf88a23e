"""Whether this machine wrote a notebook: a seal over its code, made with a key that stays here.

It is no signature of Jupyter's: to Jupyter a notebook that a model wrote stays untrusted.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from platformdirs import user_data_path

KEY_BYTES = 32


def digest(source: str) -> bytes:
    """What the seal takes of a code cell's `source`: made once a cell, so that a save is cheap."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()


def seal(run_id: str, digests: Iterable[bytes]) -> str | None:
    """The seal of a run and the `digests` of its code cells in order.

    The key is made if there is none yet; None if it cannot be made or read.
    """
    key = _key() or _new_key()
    return _seal(key, run_id, digests) if key else None


def is_sealed(found: object, run_id: str, digests: Iterable[bytes]) -> bool:
    """Whether `found` is the seal that this machine gives a run and its code."""
    key = _key()
    if not key or not isinstance(found, str):
        return False
    expected = _seal(key, run_id, digests)
    return hmac.compare_digest(found.encode("utf-8", "replace"), expected.encode())


def _seal(key: bytes, run_id: str, digests: Iterable[bytes]) -> str:
    run = digest(run_id)  # of one length, as the others: nothing can be moved between them
    return hmac.new(key, b"".join((run, *digests)), "sha256").hexdigest()


def _path() -> Path:
    return user_data_path("kernel-agent", appauthor=False) / "key"


def _key() -> bytes | None:
    with suppress(OSError):
        key = _path().read_bytes()
        return key if len(key) == KEY_BYTES else None
    return None


def _new_key() -> bytes | None:
    """A key, written where the next process finds it; what another one wrote first is taken."""
    path, key = _path(), os.urandom(KEY_BYTES)
    temporary = path.with_name(f".key.{os.urandom(4).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as file:  # noqa: PTH123 - a handle is no path
            file.write(key)
        try:
            temporary.rename(path) if os.name == "nt" else os.link(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()
    except OSError:
        return _key()
    return key
