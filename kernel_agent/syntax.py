"""What can be told of Python source without running it; IPython's magics are legal in it."""

from __future__ import annotations

import ast
import builtins
import functools
import re
import warnings
from collections.abc import Iterator


def parse(source: str) -> ast.Module | None:
    """The syntax tree of a cell, its magics replaced by `pass`; None if it is not Python."""
    if source.lstrip().startswith("%%"):
        return ast.Module([ast.Pass()], [])
    return _tree(source) or _tree(_MAGIC.sub(_as_pass, source))


def acts(tree: ast.Module) -> bool:
    """Whether the code does anything but name or calculate a value."""
    return any(
        isinstance(node, _ACTING) or (isinstance(node, ast.AnnAssign) and node.value is not None)
        for node in ast.walk(tree)
    )


def is_clearly_python(text: str) -> bool:
    """Whether no prose, number or formula can be meant: `Total: 42` is valid Python, too."""
    tree = parse(text)
    if tree is None:
        return False
    nodes = list(ast.walk(tree))
    known = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    known |= {*dir(builtins), "display", "final_answer"}
    for node in nodes:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef():
                return True
            case ast.For() | ast.While() | ast.With() | ast.Try() | ast.AsyncFunctionDef():
                return True
            case ast.Call(func=ast.Attribute()):
                return True
            case ast.Call(func=ast.Name(id=name)) if name in known:
                return True
    return False


def outside_strings(pattern: str, text: str, start: int = 0) -> Iterator[re.Match[str]]:
    """The matches of `pattern` in Python code from `start` on that no string or comment holds."""
    for match in _or_string(pattern).finditer(text, start):
        if match["found"] is not None:
            yield match


_STRING = r"""
    (?:'{3}[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*+(?:'{3}|\Z))
  | (?:"{3}[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+(?:"{3}|\Z))
  | (?:'(?:[^'\\\n]|\\.)*+'?) | (?:"(?:[^"\\\n]|\\.)*+"?)
  | \#[^\n]*+
"""
_MAGIC = re.compile(
    r"^(?P<indent>[ \t]*+)(?:[%!?].*|[\w., \t]+=[ \t]*[%!].*|[\w.%*]+\?{1,2}[ \t]*)$", re.M
)
_ACTING = (
    *(ast.Call, ast.Assign, ast.AugAssign, ast.NamedExpr, ast.Import, ast.ImportFrom, ast.Pass),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.AsyncFor, ast.While),
    *(ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Delete, ast.Raise, ast.Assert, ast.Match),
)


def _as_pass(line: re.Match[str]) -> str:
    return line["indent"] + "pass"


def _tree(source: str) -> ast.Module | None:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = compile(source, "<cell>", "exec", flags)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    assert isinstance(tree, ast.Module)
    return tree


@functools.cache
def _or_string(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?s:{_STRING})|(?P<found>(?-x:{pattern}))", re.M | re.X | re.I)
