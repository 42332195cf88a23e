"""Chooses the form in which a run is given on, and writes it, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from kernel_agent.errors import SettingsError, TranscriptError
from kernel_agent.exporting.cleaning import clean
from kernel_agent.exporting.markdown import markdown
from kernel_agent.exporting.pages import page
from kernel_agent.exporting.reading import ReadNotebook, read
from kernel_agent.exporting.script import script, suffix
from kernel_agent.transcript.whole_file import Identity, write_whole

FORMATS = ("html", "markdown", "script", "clean")


def export(
    notebook: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    force: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the run in `notebook` in another form; returns the path of the new file.

    `to` is `"html"` (a page, by nbconvert), `"markdown"` (with its figures in a folder beside it),
    `"script"` (the code that worked), or `"clean"` (a notebook without failed attempts; this
    executes the code, and `tell` gets lines on how it goes). Without `out` the file lies beside
    the notebook; only with `force` one that exists is replaced.

    Raises SettingsError for an unknown form or a missing package, TranscriptError if the notebook
    cannot be read, has no such form, or the file exists, and KernelStartError.
    """
    if to not in FORMATS:
        raise SettingsError(f"--to: {to!r} is not known. Known: {', '.join(FORMATS)}.")
    found = read(Path(notebook))
    place = Path(out) if out is not None else _place(found, to)
    folder = place.with_name(f"{place.stem}_files")
    _check_free(found, place, force=force)
    if to == "markdown":
        _check_free(found, folder, force=force)
    files: dict[Path, bytes] = {}
    match to:
        case "html":
            files[place] = page(found).encode()
        case "markdown":
            text, figures = markdown(found, folder.name)
            files |= {folder / name: content for name, content in figures.items()}
            files[place] = text.encode()
        case "script":
            files[place] = script(found, place).encode()
        case "clean":
            files[place] = _json(clean(found, place, tell=tell))
    for path, content in files.items():
        _write(path, content, force=force)
    return place


def _place(notebook: ReadNotebook, to: str) -> Path:
    endings = {"html": ".html", "markdown": ".md", "clean": ".clean.ipynb"}
    return notebook.path.with_name(notebook.path.stem + (endings.get(to) or suffix(notebook)))


def _check_free(notebook: ReadNotebook, place: Path, *, force: bool) -> None:
    if place.exists() and place.samefile(notebook.path):
        raise TranscriptError(place, "is the run itself, which is not replaced. Choose another")
    if os.path.lexists(place) and not force:
        raise _exists(place)


def _exists(place: Path) -> TranscriptError:
    reason = "exists, and no file is overwritten. Choose another --out, or add --force"
    return TranscriptError(place, reason)


def _json(notebook: dict[str, object]) -> bytes:
    """As nbformat writes it."""
    text = json.dumps(
        notebook, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": ")
    )
    return f"{text}\n".encode()


def _write(path: Path, content: bytes, *, force: bool) -> None:
    try:
        there = Identity.of(path.stat()) if force and path.exists() else None
        write_whole(path, [content], known=there)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise TranscriptError(path, f"cannot be written: {error.strerror or error}") from error
