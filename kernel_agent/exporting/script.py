"""A run as a script: the code that worked, what the model thought as comments."""

from __future__ import annotations

import ast
import os
from pathlib import Path, PurePath

from kernel_agent.errors import TranscriptError
from kernel_agent.exporting.failures import as_python, needed, read, remedies
from kernel_agent.exporting.reading import ReadCell, ReadNotebook
from kernel_agent.terminal import plain_text

FINAL_ANSWER = '''\
def final_answer(value):
    """Print the answer to the task."""
    print(value)'''
WAIT = """\
import asyncio

_wait = asyncio.new_event_loop().run_until_complete"""
CHDIR = """\
import os

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), {way!r}))  # where the data are"""
COMMENTS = {
    **dict.fromkeys(["javascript", "typescript", "java", "scala", "kotlin", "rust", "go"], "//"),
    **dict.fromkeys(["c++", "c", "c#", "swift", "php"], "//"),
    **dict.fromkeys(["haskell", "sql", "lua", "ada", "elm"], "--"),
    **dict.fromkeys(["octave", "matlab", "latex", "prolog", "erlang"], "%"),
    **dict.fromkeys(["clojure", "scheme", "lisp", "common lisp", "racket"], ";"),
}
SUFFIXES = {"python": ".py", "r": ".r", "bash": ".sh", "julia": ".jl", "ruby": ".rb"}


def suffix(notebook: ReadNotebook) -> str:
    """How the name of a script in the notebook's language ends: `".py"`."""
    about = notebook.metadata.get("language_info")
    own = about.get("file_extension") if isinstance(about, dict) else None
    if isinstance(own, str) and own.startswith(".") and own[1:].isalnum():
        return own
    return SUFFIXES.get(notebook.language, ".txt")


def script(notebook: ReadNotebook, out: Path) -> str:
    """The text of the script that is to be written to `out`.

    A failed attempt is left out, but for lines before the failing one that bind a name which a
    later cell reads. Raises TranscriptError for code that no script can hold.
    """
    sign = COMMENTS.get(notebook.language, "#")
    is_python = notebook.language == "python"
    kept = needed(notebook.cells) if is_python else {}
    parts: list[str] = []
    codes: list[str] = []
    thought = ""
    for index, cell in enumerate(notebook.cells):
        if cell.kind == "thought":
            thought = _comment(cell.source, sign)
        elif not cell.is_code:
            if not cell.is_aside:
                parts.append(_comment(cell.source, sign))
        elif (code := _code(cell, kept.get(index, 0))) and not cell.is_prelude:
            plain = _plain(notebook, cell, code) if is_python else code
            parts.append(f"{thought}\n{plain}" if thought else plain)
            codes.append(code)
        thought = thought if cell.kind == "thought" else ""
    head = _head(notebook, codes, parts, out) if is_python else [_shell(notebook, sign)]
    return "\n\n".join(part for part in [*head, *parts] if part.strip()) + "\n"


def _code(cell: ReadCell, form: int) -> str:
    if not cell.is_failed:
        return cell.source.rstrip()
    return remedies(cell)[form - 1] if form else ""


def _head(notebook: ReadNotebook, codes: list[str], parts: list[str], out: Path) -> list[str]:
    """What comes first: how to run it, and what the code takes as given."""
    wanted = read(codes)
    script_text = "\n".join(parts)
    about = [_comment(f"From the run in {notebook.path.name}.", "#")]
    if "get_ipython()" in script_text:
        about.insert(0, f"# run with: ipython {plain_text(out.name)}")
    future = [line for part in parts for line in part.splitlines() if _is_future(line)]
    for index, part in enumerate(parts):
        lines = part.splitlines()
        parts[index] = "\n".join(line for line in lines if not _is_future(line))
    head = ["\n".join(about), "\n".join(dict.fromkeys(future))]
    head.append(CHDIR.format(way=_way(out.parent, notebook.cwd)))
    if "display" in wanted:
        head.append("from IPython.display import display")
    if "_wait(" in script_text:
        head.append(WAIT)
    if "final_answer" in wanted:
        head.append(FINAL_ANSWER)
    return head


def _is_future(line: str) -> bool:
    return line.startswith("from __future__ import ")


def _shell(notebook: ReadNotebook, sign: str) -> str:
    where = f"Run it in {notebook.cwd.name or notebook.cwd}, where it ran."
    return _comment(f"From the run in {notebook.path.name}. {where}", sign)


def _way(folder: Path, cwd: Path) -> str:
    """The way from `folder` to `cwd`: relative, so that both can be moved together."""
    try:
        return PurePath(os.path.relpath(cwd.resolve(), folder.resolve())).as_posix()
    except ValueError:  # two drives of Windows
        return cwd.resolve().as_posix()


def _comment(text: str, sign: str) -> str:
    return "\n".join(f"{sign} {line}".rstrip() for line in plain_text(text).strip().splitlines())


def _plain(notebook: ReadNotebook, cell: ReadCell, code: str) -> str:
    """A cell's code as a script can have it: magics as calls, top-level `await` as a call, too."""
    python = as_python(code)
    if python is None:
        reason = f"{cell.name} is no Python, so no script can be made of it"
        raise TranscriptError(notebook.path, reason)
    finder = _Awaits()
    finder.visit(python.tree)
    if finder.impossible:
        reason = f"{cell.name} has `async for` or `async with` outside a function: no script can"
        raise TranscriptError(notebook.path, reason)
    text = "\n".join(python.lines).encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    edits: list[tuple[int, int, bytes]] = []
    for node in finder.found:
        start = starts[node.lineno - 1] + node.col_offset
        inner = starts[node.value.lineno - 1] + node.value.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        edits += [(start, inner, b"_wait("), (end, end, b")")]
    # From the last one back: what stands before it keeps its place.
    for start, end, piece in sorted(edits, reverse=True):
        text = text[:start] + piece + text[end:]
    return text.decode().rstrip()


class _Awaits(ast.NodeVisitor):
    """Finds each `await` outside of functions."""

    def __init__(self) -> None:
        self.found: list[ast.Await] = []
        self.impossible = False

    def visit_Await(self, node: ast.Await) -> None:
        self.found.append(node)
        self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        match node:
            case ast.AsyncFunctionDef() | ast.FunctionDef() | ast.Lambda():
                return
            case ast.AsyncFor() | ast.AsyncWith() | ast.comprehension(is_async=1):
                self.impossible = True
        super().generic_visit(node)
