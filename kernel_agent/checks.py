"""What the commands check before anything is started or written.

Each raises SettingsError that says which argument or setting is bad, why, and what to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from kernel_agent.errors import PromptError, SettingsError
from kernel_agent.kernel.process import installed_kernels
from kernel_agent.prompts import Prompts
from kernel_agent.providers import Choice, find_model
from kernel_agent.settings import Settings


def task_text(task: str) -> str:
    """The task as it was typed, or from standard input for `-`."""
    text = task
    if task == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SettingsError(f"TASK: standard input is not UTF-8 text: {error}.") from error
    if not text.strip():
        raise SettingsError("TASK is empty. Say in words what is to be done.")
    return text.strip()


def check_data(files: list[Path], flag: str = "--data") -> None:
    """Every file of `flag` must be there."""
    for file in files:
        if file.is_dir():
            raise SettingsError(f"{flag}: {str(file)!r} is a folder. Name the files in it.")
        if not file.is_file():
            raise SettingsError(f"{flag}: there is no file {str(file)!r}. Check the path.")
        if not os.access(file, os.R_OK):
            raise SettingsError(f"{flag}: {str(file)!r} may not be read. Check its permissions.")


def check_media(media: Mapping[str, list[Path]]) -> None:
    """Every file of `--image`, `--audio` and `--video` must be there."""
    for kind, files in media.items():
        check_data(files, f"--{kind.removesuffix('s')}")


def check_belongs_to_task(
    text: str | None, files: list[Path], media: Mapping[str, list[Path]]
) -> None:
    """Files are given with a task: a run that goes on without one has nobody to show them to."""
    if text is None and (files or media):
        given = "--data" if files else f"--{next(iter(media)).removesuffix('s')}"
        raise SettingsError(f"{given}: files belong to a task. Say in words what to do with them.")


def check_file(notebook: Path) -> None:
    """The notebook that a command looks at must be there."""
    if not notebook.is_file():
        raise SettingsError(f"NOTEBOOK: there is no file {str(notebook)!r}. Check the path.")


def check_notebook(notebook: Path | None, *, in_place: bool, out: Path | None) -> None:
    """The notebook to work on in must be there, and where the new cells go be clear."""
    if notebook is None and in_place:
        raise SettingsError("--in-place: there is no --notebook to write into. Name one.")
    if in_place and out:
        raise SettingsError("--in-place and --out exclude each other. Leave one of them out.")
    if notebook is not None and not notebook.is_file():
        raise SettingsError(f"--notebook: there is no file {str(notebook)!r}. Check the path.")


def check_kernel(settings: Settings) -> None:
    """The kernel must be installed."""
    installed = installed_kernels()
    if settings.kernel not in installed:
        raise SettingsError(
            f"{settings.source('kernel')}: no kernel {settings.kernel!r} is installed. "
            f"Installed: {', '.join(installed) or 'none'}. `jupyter kernelspec list` shows them."
        )


def check_prompts(settings: Settings) -> None:
    """The folder of prompt files, if one is set, must be there and hold none that is misnamed."""
    if settings.prompts is None:
        return
    source, folder = settings.source("prompts"), str(settings.prompts)
    if not settings.prompts.is_dir():
        raise SettingsError(f"{source}: there is no folder {folder!r}. Check the path.")
    try:
        Prompts(settings.prompts)
    except PromptError as error:
        raise SettingsError(f"{source}: {error}") from error


def check_place(out: Path | None, settings: Settings) -> None:
    """Where the notebook is to go must be free, and its folder be there or possible to make."""
    if out and out.suffix != ".ipynb":
        raise SettingsError(f"--out: {str(out)!r} is not the name of a notebook. End it in .ipynb.")
    if out and (out.exists() or out.is_symlink()):
        raise SettingsError(
            f"--out: {str(out)!r} exists, and no notebook is overwritten. Choose another name."
        )
    source, folder = ("--out", out.parent) if out else (settings.source("folder"), settings.folder)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise SettingsError(f"{source}: {str(there)!r} is not a folder. Choose another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SettingsError(f"{source}: folder {str(there)!r} may not be written. Choose another.")


def model_choice(settings: Settings) -> Choice:
    """The model that is set, or the one that is found."""
    if settings.model:
        return Choice(settings.model, settings.source("model"))
    if settings.api_base:
        raise SettingsError(
            f"{settings.source('api_base')}: a server is set, but no model. "
            "Say which: --model openai/NAME for a server that speaks OpenAI's protocol."
        )
    return find_model(os.environ)
