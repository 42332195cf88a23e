"""What `kernel-agent doctor` finds out: what is installed, set, reachable, and what is missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import shorten

from kernel_agent import __version__
from kernel_agent.errors import SettingsError
from kernel_agent.kernel.process import installed_kernels
from kernel_agent.providers import OLLAMA, PROVIDERS, find_model, keys_set, ollama_model
from kernel_agent.settings import NAMES, Settings, config_file, load_settings, variable

PACKAGES = ("litellm", "jupyter_client", "ipykernel", "nbformat", "rich", "typer")
DATA_PACKAGES = ("pandas", "numpy", "matplotlib", "openpyxl", "pyarrow", "vega_datasets")


def examine(environ: Mapping[str, str]) -> Iterator[str]:
    """The lines of the report. Keys are named, their values never told."""
    problems: list[str] = []
    yield f"kernel-agent {__version__} · Python {platform.python_version()} · {platform.system()}"
    yield ""
    yield "Packages"
    yield from _packages(PACKAGES, problems, "pip install --upgrade kernel-agent")
    yield ""
    yield "Data packages"
    yield from _packages(DATA_PACKAGES, problems, "pip install 'kernel-agent[data]'")
    yield ""
    settings = yield from _settings(environ, problems)
    yield ""
    yield from _model(settings, environ, problems)
    yield ""
    yield from _kernels(settings, problems)
    yield ""
    yield from _folder(settings.folder, problems)
    yield ""
    yield "To do" if problems else "Nothing is missing."
    yield from (f"  - {problem}" for problem in problems)


def _packages(names: tuple[str, ...], problems: list[str], cure: str) -> Iterator[str]:
    missing = []
    for name in names:
        try:
            yield f"  {name:<16}{version(name)}"
        except PackageNotFoundError:
            missing.append(name)
            yield f"  {name:<16}missing"
    if missing:
        problems.append(f"{', '.join(missing)} missing: {cure}")


def _settings(environ: Mapping[str, str], problems: list[str]) -> Generator[str, None, Settings]:
    path = config_file()
    yield f"Settings ({path}{'' if path.exists() else ', which does not exist'})"
    try:
        settings = load_settings({}, environ, path)
    except SettingsError as error:
        problems.append(str(error))
        yield f"  {error}"
        return Settings()
    for name in NAMES:
        yield f"  {name:<20}{_shown(getattr(settings, name)):<24}{settings.sources[name]}"
    for name in sorted(environ):
        if name.startswith("KERNEL_AGENT_") and name not in map(variable, NAMES):
            problems.append(f"{name} is set, but there is no such setting")
    return settings


def _shown(value: object) -> str:
    """A setting's value in a line."""
    match value:
        case None | "" | ():
            return "not set"
        case tuple():
            return ", ".join(map(str, value))
    return shorten(str(value), 60, placeholder=" …")


def _model(settings: Settings, environ: Mapping[str, str], problems: list[str]) -> Iterator[str]:
    yield "Model"
    keys = [key for provider in PROVIDERS for key in keys_set(environ, provider)]
    yield f"  keys set        {', '.join(keys) or 'none'}"
    local = ollama_model()
    yield f"  Ollama          {f'{local} at {OLLAMA}' if local else f'no answer at {OLLAMA}'}"
    if settings.model:
        yield f"  would be used   {settings.model} ({settings.sources['model']})"
        return
    try:
        choice = find_model(environ)
    except SettingsError as error:
        problems.append(str(error))
        yield "  would be used   none"
    else:
        yield f"  would be used   {choice.model} ({choice.why})"


def _kernels(settings: Settings, problems: list[str]) -> Iterator[str]:
    yield "Kernels"
    installed = installed_kernels()
    for name, place in installed.items():
        yield f"  {name:<16}{place}"
    if settings.kernel not in installed:
        yield f"  {settings.kernel:<16}missing"
        problems.append(
            f"the kernel {settings.kernel!r} is not installed; {settings.source('kernel')} sets it"
        )


def _folder(folder: Path, problems: list[str]) -> Iterator[str]:
    yield "Notebooks"
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        yield f"  {folder.absolute()} (can be written)"
    else:
        yield f"  {folder.absolute()} (cannot be written)"
        problems.append(f"{str(there)!r} cannot be written: choose another place with --folder")
