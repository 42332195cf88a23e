"""Finds the folders that ship with the package: inside it in a wheel, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path


def shipped(kind: str) -> Path:
    """The folder `kind` (`"prompts"`, `"notebooks"`) of this installation.

    Raises FileNotFoundError if the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    places = (package / "shipped" / kind, package.parent / kind)
    for place in places:
        if place.is_dir():
            return place
    looked = " nor ".join(repr(str(place)) for place in places)
    raise FileNotFoundError(
        f"The shipped folder {kind!r} is missing: neither {looked} exists. "
        "Install kernel-agent again."
    )
