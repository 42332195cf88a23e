"""Executes a case with CPython alone: the case as JSON on stdin, what came of it on stdout."""

import ast
import contextlib
import io
import json
import sys

from smolagents_recorder import describe  # a script: its own folder is where modules are found


def outcome(case):
    """The `error`, the text `printed`, the `result` and the `variables` of a case."""
    names = {"__name__": "__main__"}
    for source in filter(None, case["needs"].values()):
        exec(source, names)
    error, result = "", None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            result = _execute(case["code"], names)
        except Exception as raised:
            error = type(raised).__name__
    return {
        "error": error,
        "printed": printed.getvalue(),
        "result": describe(result),
        "variables": {name: describe(names.get(name)) for name in case["variables"]},
    }


def _execute(code, names):
    """Execute the code; its last expression's value, as a cell would show it."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "case", "exec"), names)
    return eval(compile(ast.Expression(last.value), "case", "eval"), names) if last else None


if __name__ == "__main__":
    json.dump(outcome(json.load(sys.stdin)), sys.stdout)
