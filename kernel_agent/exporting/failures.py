"""What is kept of a cell that failed: nothing, the lines before the failing one, or all, caught."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel_agent.exporting.reading import ReadCell
from kernel_agent.terminal import plain_text

LEFT_OUT = 0
_LINE = re.compile(r"Cell In ?\[(\d+)\], line (\d+)")
_TIMED = """\
import signal


def _stop(number, frame):
    raise KeyboardInterrupt


_before = signal.signal(signal.SIGALRM, _stop)
signal.setitimer(signal.ITIMER_REAL, {seconds:.3g})  # this was interrupted after so many seconds
try:
{body}
except KeyboardInterrupt:
    pass
finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, _before)"""


@dataclass(frozen=True)
class Python:
    """A cell as Python: its statements, their source, and where they begin in `text`."""

    tree: ast.Module
    lines: tuple[str, ...]

    def source(self, statements: Sequence[ast.stmt]) -> str:
        """The source of neighbouring statements, with the comments between them."""
        if not statements:
            return ""
        end = statements[-1].end_lineno or 0
        return "\n".join(self.lines[_first_line(statements[0]) - 1 : end])


def as_python(source: str) -> Python | None:
    """A cell as Python, its magics as calls of `get_ipython()`; None if it is no Python."""
    tree, text = _tree(source), source
    if tree is None:
        # It takes a moment to import: only cells with magics wait for it.
        from IPython.core.inputtransformer2 import TransformerManager  # noqa: PLC0415

        try:
            text = TransformerManager().transform_cell(source)
        except (SyntaxError, ValueError):
            return None
        tree = _tree(text)
    return Python(tree, tuple(text.splitlines())) if tree else None


def remedies(cell: ReadCell) -> tuple[str, ...]:
    """Sources that raise nothing and do what the failed cell did, or some of it; the best last.

    First what comes before the failing statement, then the whole up to it with the error caught.
    Empty if nothing of it can have had an effect that lasts.
    """
    python, result = as_python(cell.source), cell.result
    if python is None or result is None or cell.status not in ("error", "interrupted"):
        return ()
    line = _failing_line(cell)
    statements = python.tree.body
    first = next((n for n, one in enumerate(statements) if line and _has(one, line)), 0)
    failing = [one for one in statements[first:] if not line or _has(one, line)]
    head = python.source(statements[:first])
    body = _indented(python, failing)
    if cell.status == "interrupted":
        caught = _TIMED.format(seconds=max(result.seconds, 0.1), body=body)
    else:
        caught = f"try:\n{body}\nexcept {_error_name(cell)}:\n    pass  # it failed here"
    whole = f"{head}\n\n{caught}" if head else caught
    return (head, whole) if head else (whole,)


def needed(cells: Sequence[ReadCell]) -> dict[int, int]:
    """For each failed cell, by its index, what is kept of it as far as its source can tell.

    The lines before the failing one (1) if a later cell reads a name that they bind, until the
    kernel ended, else nothing (0).
    """
    kept: dict[int, int] = {}
    for index, cell in enumerate(cells):
        if not cell.is_failed:
            continue
        kept[index] = LEFT_OUT
        forms = remedies(cell)
        later = _until_death(cells[index + 1 :])
        if forms and bound([forms[0]]) & read([one.source for one in later]):
            kept[index] = LEFT_OUT + (len(forms) > 1)
    return kept


def bound(sources: Iterable[str]) -> set[str]:
    """The names that the sources give a value in the kernel's namespace."""
    return {name for source in sources for one in _statements(source) for name in _names(one)[0]}


def read(sources: Iterable[str]) -> set[str]:
    """The names that the sources read before they give them a value themselves."""
    wanted: set[str] = set()
    known: set[str] = set()
    for source in sources:
        for statement in _statements(source):
            binds, reads = _names(statement)
            wanted |= reads - known
            known |= binds
    return wanted


def _until_death(cells: Iterable[ReadCell]) -> Iterable[ReadCell]:
    for cell in cells:
        if cell.status == "died":
            return
        if cell.is_code and not cell.is_failed:
            yield cell


def _statements(source: str) -> list[ast.stmt]:
    python = as_python(source)
    return python.tree.body if python else []


def _names(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """The global names that a statement binds, and those that it reads."""
    try:
        table = symtable.symtable(ast.unparse(statement), "<cell>", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return set(), {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    binds, reads = _of_table(table)
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        reads.add(statement.target.id)
    return binds, reads


def _of_table(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    binds: set[str] = set()
    reads: set[str] = set()
    top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if not (top or symbol.is_global()):
            continue
        if symbol.is_assigned() or symbol.is_imported():
            binds.add(symbol.get_name())
        if symbol.is_referenced():
            reads.add(symbol.get_name())
    for child in table.get_children():
        below = _of_table(child)
        binds |= below[0]
        reads |= below[1]
    return binds, reads


def _tree(source: str) -> ast.Module | None:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        tree = compile(source, "<cell>", "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if isinstance(tree, ast.Module) else None


def _failing_line(cell: ReadCell) -> int | None:
    """The line of the cell that the error's traceback names; None if it names none."""
    if cell.result is None:
        return None
    for output in cell.result.outputs:
        text = plain_text("\n".join(output.get("traceback") or ()))
        for count, line in _LINE.findall(text):
            if cell.result.execution_count in (None, int(count)):
                return int(line)
    return None


def _has(statement: ast.stmt, line: int) -> bool:
    return _first_line(statement) <= line <= (statement.end_lineno or 0)


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(one.lineno for one in decorators)])


def _indented(python: Python, statements: Sequence[ast.stmt]) -> str:
    spans = any(
        isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno != node.lineno
        for statement in statements
        for node in ast.walk(statement)
    )
    # Blanks before the lines of a long string would become part of it.
    source = (
        "\n".join(ast.unparse(one) for one in statements) if spans else python.source(statements)
    )
    return textwrap.indent(source, "    ")


def _error_name(cell: ReadCell) -> str:
    outputs = cell.result.outputs if cell.result else ()
    names = [output.get("ename", "") for output in outputs if output["output_type"] == "error"]
    kind = getattr(builtins, names[-1], None) if names else None
    known = isinstance(kind, type) and issubclass(kind, BaseException)
    return str(names[-1]) if known else "Exception"
