"""The setup cell: what makes a plain Jupyter kernel like the one that the run had."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from kernel_agent.transcript.body import LEAD
from kernel_agent.transcript.cells import Cell, code_cell

CHDIR = """\
import os

_notebook_folder = globals().get("_notebook_folder", os.getcwd())  # stays when this runs again
os.chdir(os.path.join(_notebook_folder, {folder!r}))
"""
_CHDIR = re.compile(
    r"import os\n\n_notebook_folder = .*\nos\.chdir\(os\.path\.join\(_notebook_folder, (.+)\)\)\n"
)


@dataclass(frozen=True)
class Setup:
    """`prelude` is source to be run, `cwd` the folder that the kernel works in.

    A cell that was loaded is kept: `raw` is what it is on disk, behind `lead`, as long as
    the way from the notebook to `cwd` is `way`.
    """

    prelude: str = ""
    cwd: Path | None = None
    loaded: Cell | None = None
    lead: bytes = LEAD
    raw: bytes = b""
    way: str = "."

    @classmethod
    def read(cls, cell: Cell, lead: bytes, raw: bytes, folder: Path) -> Setup:
        """The setup in a `cell` whose notebook lies in `folder`; its `source` is one text.

        `raw` is the cell on disk and `lead` what stands before it.
        """
        source = cell["source"]
        if (chdir := _CHDIR.match(source)) and (way := _text(chdir[1])) is not None:
            prelude = source[chdir.end() :].removeprefix("\n")
        else:
            way, prelude = ".", source
        return cls(prelude, (folder / way).resolve(), cell, lead, raw, way)

    def is_as_loaded(self, folder: Path) -> bool:
        """Whether the loaded cell does for a notebook in `folder`."""
        return self.loaded is not None and _way_to(self.cwd, folder) == self.way

    def cell(self, folder: Path) -> Cell | None:
        """The cell for a notebook in `folder`; None if there is nothing to do."""
        cell = setup_cell(self.prelude, self.cwd, folder)
        return self.loaded | {"source": cell["source"]} if cell and self.loaded else cell


def setup_cell(prelude: str, cwd: Path | None, folder: Path) -> Cell | None:
    """The cell that makes a plain Jupyter kernel like ours: in `cwd`, and with `prelude` run.

    Jupyter starts a kernel in the notebook's `folder`. None if there is nothing to do.
    """
    parts = [prelude] if prelude else []
    if (way := _way_to(cwd, folder)) != ".":
        parts.insert(0, CHDIR.format(folder=way))
    if not parts:
        return None
    cell = code_cell("setup", "\n".join(parts), {"kind": "setup"})
    cell["metadata"]["jupyter"] = {"source_hidden": True}
    return cell


def _way_to(cwd: Path | None, folder: Path) -> str:
    """The way from `folder` to `cwd`: relative, so that both can be moved together."""
    if cwd is None:
        return "."
    try:
        return PurePath(os.path.relpath(cwd.resolve(), folder.resolve())).as_posix()
    except ValueError:  # two drives of Windows
        return cwd.resolve().as_posix()


def _text(literal: str) -> str | None:
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, str) and "\0" not in value else None
