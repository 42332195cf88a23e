"""Runs inside the kernel: gives the namespace back what a snapshot holds.

Shipped as text after `snapshot_folder` and `snapshot_pickling`.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel_agent.kernel.snapshot_folder import Entry, Folder
    from kernel_agent.kernel.snapshot_pickling import NAMESPACE, Unpickler, reason, versions
else:
    from kernel_agent_snapshot_pickling import NAMESPACE, Unpickler, reason, versions


class Loading:
    """One snapshot on its way back: what is `restored`, what has `failed` and why."""

    def __init__(self, folder: Folder, manifest: dict[str, Any], namespace: dict[str, Any]) -> None:
        self.restored: list[str] = []
        self.failed: dict[str, str] = {}
        self.imports: dict[str, str] = {}
        self._folder = folder
        self._manifest = manifest
        self._namespace = namespace
        self._values: dict[str, Any] = {NAMESPACE: namespace}
        self._entries = {
            name: entry for entry in manifest["pickles"] for name in entry.get("names", ())
        }

    def run(self) -> None:
        """The folder and the modules first: loading may need them, and the code before the data."""
        self._try("the folder", self._change_folder)
        sys.path += [each for each in self._manifest["path"] if each not in sys.path]
        for name, module in self._manifest["imports"].items():
            self._try(name, partial(self._import, name, module))
        for module in self._manifest["submodules"]:
            if module not in sys.modules and module.partition(".")[0] in sys.modules:
                self._try(module, partial(importlib.import_module, module))
        for name in sorted(self._entries, key=lambda name: not self._entries[name].get("code")):
            self._try(name, partial(self._set, name, name))
        for name, first in self._manifest["aliases"].items():
            if first in self._entries:
                self._try(name, partial(self._set, name, first))
        for name, entry in self._manifest["random"].items():
            self._try(name, partial(self._seed, name, entry))

    def value(self, name: str) -> Any:
        """The value of a variable, by the name under which it is stored."""
        if name in self._values:
            return self._values[name]
        if name in self.failed:
            raise ValueError(self.failed[name])
        entry = self._entries[name]
        try:
            values = self._load(entry)
        except (Exception, SystemExit) as error:
            self.failed.update(dict.fromkeys(entry["names"], self._why(error)))
            raise
        self._values.update(zip(entry["names"], values, strict=True))
        return self._values[name]

    def _referred(self, name: str) -> Any:
        try:
            return self.value(name)
        except (Exception, SystemExit) as error:
            raise ValueError(f"It refers to {name!r}, which could not be restored.") from error

    def _try(self, name: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except (Exception, SystemExit) as error:
            self.failed.setdefault(name, self._why(error))

    def _set(self, name: str, first: str) -> None:
        self._namespace[name] = self.value(first)
        self.restored.append(name)

    def _load(self, entry: Entry) -> Any:
        with self._folder.open(entry) as file:
            return Unpickler(file, self._referred).load()

    def _change_folder(self) -> None:
        if (folder := self._manifest["folder"]) and folder != working_folder():
            os.chdir(folder)

    def _import(self, name: str, module: str) -> None:
        self._namespace[name] = importlib.import_module(module)
        self.imports[name] = module

    def _seed(self, name: str, entry: Entry) -> None:
        if name == "random":
            random.setstate(self._load(entry))
        else:
            importlib.import_module("numpy.random").set_state(self._load(entry))

    def _why(self, error: BaseException) -> str:
        """With the packages that are not the same any more: they are the usual cause."""
        was = self._manifest["packages"]
        now = versions([package for package in was if package in sys.modules], ())
        other = [
            f"{name} was {was[name]}, is {now[name]}" for name in now if was[name] != now[name]
        ]
        return f"{reason(error)} ({', '.join(other)})" if other else reason(error)


def working_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return ""
