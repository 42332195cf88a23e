"""A pytest plugin for smolagents' own tests: records what its executor was asked and what it gave.

It runs where smolagents is installed and kernel_agent is not. Each call of `evaluate_python_code`
(`LocalPythonExecutor.__call__` goes through it) becomes a line of JSON in the file that
`$SMOLAGENTS_RECORD` names, and so does the outcome of each test.
"""

import functools
import inspect
import json
import os
import re
import textwrap
from pathlib import Path

INTERNAL = ("_print_outputs", "_operations_count", "__name__")


def describe(value):
    """What can be compared in another process: a literal, an array's or table's text, or a type."""
    import ast  # the source of this function is executed by itself, too

    try:
        text = repr(value)
        if type(value).__module__.partition(".")[0] in ("numpy", "pandas"):
            return {"text": text}
        if ast.literal_eval(text) == value:
            return {"literal": text}
    except Exception:  # what a value's own `__repr__` may raise
        pass
    return {"type": type(value).__name__}


def definition(name, value):
    """Source that gives `value` this name, or None if there is none."""
    described = describe(value)
    if "literal" in described:
        return f"{name} = {described['literal']}"
    if getattr(value, "__module__", None) == "math":
        return f"from math import {name}"
    try:
        source = textwrap.dedent(inspect.getsource(value))
    except (TypeError, OSError):
        return None
    return source if getattr(value, "__name__", None) == name else None


class Recorder:
    def __init__(self, path):
        self.lines = path.open("w", encoding="utf-8", buffering=1)

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.write(test=_name(report.nodeid), outcome=report.outcome)

    def write(self, **line):
        self.lines.write(json.dumps(line) + "\n")

    def recording(self, original):
        @functools.wraps(original)
        def evaluate_python_code(*args, **kwargs):
            call = inspect.signature(original).bind(*args, **kwargs).arguments
            call["state"] = state = {} if call.get("state") is None else call["state"]
            given = {
                **(call.get("static_tools") or {}),
                **(call.get("custom_tools") or {}),
                **state,
            }
            words = set(re.findall(r"(?<![\w.])[^\W\d]\w*", call["code"])) - set(INTERNAL)
            needs = {name: definition(name, given[name]) for name in words & given.keys()}
            error = result = None
            try:
                answer = original(**call)
                result = describe(answer[0])
                return answer
            except BaseException as raised:
                error = f"{type(raised).__name__}: {raised}"
                raise
            finally:
                test = _name(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])
                printed = str(state.get("_print_outputs", ""))
                after = {name: describe(state[name]) for name in words & state.keys()}
                self.write(
                    test=test,
                    code=call["code"],
                    needs=needs,
                    error=error,
                    result=result,
                    printed=printed,
                    variables=after,
                )

        return evaluate_python_code


def pytest_configure(config):
    import smolagents.local_python_executor as executor

    recorder = Recorder(Path(os.environ["SMOLAGENTS_RECORD"]))
    config.pluginmanager.register(recorder)
    # The tests are not imported yet: they will import this one.
    executor.evaluate_python_code = recorder.recording(executor.evaluate_python_code)


def _name(nodeid):
    return nodeid.partition("::")[2]
