"""Replays the cases of smolagents' executor tests on our kernel.

`python -m tests.conformance.smolagents_cases` downloads smolagents' source distribution, runs its
executor tests in a virtual environment of their own with `smolagents_recorder`, and executes each
recorded case with `Kernel`. What a passed test approved is the expectation: error, printed text,
result, variables. Where the kernel differs, plain CPython must give what the kernel gives, and the
reason must stand below. Cases about smolagents' policies are set aside by rule, and listed.

Takes about two minutes and the network. Exit code: 0 if every disagreement is explained, else 1.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernel_agent.kernel import Kernel
from tests.conformance import smolagents_recorder

SMOLAGENTS = "smolagents-1.26.0"
TESTS = "tests/test_local_python_executor.py"
TIMEOUT = 30.0  # seconds that a case may take

POLICIES = {  # what its error says: it refuses what Python does
    "modules, functions or dunder names forbidden": r"Forbidden (access|call) to",
    "nothing but tools may be called": r"Forbidden function evaluation",
    "import not allowed": r"Import (of|from) \S+ is not allowed",
    "limit on operations, iterations or seconds": r"max number of|Maximum number|maximum execution",
    "name of a tool may not be assigned": r"erase the existing tool",
}
OF_THE_PROCESS = "__subclasses__()"  # which classes there are depends on what was imported

EXPLAINED = {  # test and how many calls into it: why the kernel, as CPython, differs
    ("test_classes", 1): "smolagents keeps the name of `except … as e` after the clause",
    ("test_exceptions", 1): "smolagents gives a missing argument no error",
    ("test_tuple_id", 1): "smolagents takes an undefined name for the most similar defined one",
    (
        "test_variable_args",
        1,
    ): "smolagents puts the values of named parameters into `*args` as well",
}

Case = dict[str, Any]
Outcome = dict[str, Any]
"""`error` (a type's name or ""), `printed`, and `result` and `variables` as `describe` says it."""


def record(folder: Path) -> list[Case]:
    """The cases of smolagents' executor tests, each with its test's `outcome` and its `number`."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    source = SMOLAGENTS.replace("-", "==")
    _run(folder, python, "-m", "pip", "download", "--no-deps", "--no-binary=smolagents", source)
    _run(folder, python, "-m", "tarfile", "-e", f"{SMOLAGENTS}.tar.gz", ".")
    _run(folder, python, "-m", "pip", "install", f"./{SMOLAGENTS}", "pytest", "numpy", "pandas")
    lines = folder / "record.jsonl"
    plugin = Path(smolagents_recorder.__file__)
    env = {**os.environ, "SMOLAGENTS_RECORD": str(lines), "PYTHONPATH": str(plugin.parent)}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # cases that list the folder should find it unchanged
    options = ["-q", "-p", "no:cacheprovider", "-p", plugin.stem, TESTS]
    # 1: some of its tests fail. Their cases are set aside: they have no expectation.
    _run(folder / SMOLAGENTS, python, "-m", "pytest", *options, env=env, fine=(0, 1))
    return read(lines)


def read(lines: Path) -> list[Case]:
    """The cases in a file that `smolagents_recorder` wrote."""
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    outcomes = {record["test"]: record["outcome"] for record in records if "outcome" in record}
    calls: Counter[str] = Counter()
    cases = []
    for case in (record for record in records if "code" in record):
        calls[case["test"]] += 1
        cases.append(case | {"outcome": outcomes[case["test"]], "number": calls[case["test"]]})
    return cases


def set_aside(case: Case) -> str:
    """The rule by which a case says nothing about Python, or ""."""
    if case["outcome"] != "passed":
        return "its own test does not pass here"
    for rule, pattern in POLICIES.items():
        if re.search(pattern, case["error"] or ""):
            return rule
    undefined = {name for name, source in case["needs"].items() if source is None}
    if undefined - set(dir(builtins)):
        return "needs a tool of smolagents, such as its `final_answer`"
    if OF_THE_PROCESS in case["code"]:
        return "asks for all classes in the process"
    return ""


def in_smolagents(case: Case) -> Outcome:
    error = ""
    if case["error"] is not None:
        # It wraps errors: "InterpreterError: ... due to: ValueError: ...".
        names = re.findall(r"\b[A-Z]\w+(?=: )", case["error"])
        error = next((name for name in names if hasattr(builtins, name)), "any")
    is_shown = isinstance(ast.parse(case["code"]).body[-1], ast.Expr) if not error else False
    # Its result may be that of an assignment or an `if`; a cell shows its last expression only.
    result = case["result"] if is_shown else {"literal": "None"}
    return {**case, "error": error, "result": result}


def in_kernel(kernel: Kernel, case: Case) -> Outcome:
    kernel.execute("%reset -f", counted=False)
    for source in filter(None, case["needs"].values()):
        kernel.execute(source)
    result = kernel.execute(case["code"], timeout=TIMEOUT)
    errors = [o["ename"] for o in result.outputs if o["output_type"] == "error"]
    results = [o["data"] for o in result.outputs if o["output_type"] == "execute_result"]
    return {
        "error": errors[-1] if errors else "" if result.status == "ok" else result.status,
        "printed": "".join(o["text"] for o in result.outputs if o.get("name") == "stdout"),
        "result": _as_described(results[0]["text/plain"] if results else "None"),
        "variables": _variables(kernel, list(case["variables"])),
    }


def in_python(case: Case) -> Outcome:
    script = Path(__file__).with_name("plain_python.py")
    done = subprocess.run(
        [sys.executable, script], input=json.dumps(case), text=True, capture_output=True, check=True
    )
    return dict(json.loads(done.stdout))


def differences(expected: Outcome, found: Outcome) -> Iterator[str]:
    for key in ("error", "printed", "result"):
        if not _same(expected[key], found[key]):
            yield f"{key}: {expected[key]!r} there, {found[key]!r} in the kernel"
    for name, value in expected["variables"].items():
        if not _same(value, here := found["variables"].get(name)):
            yield f"{name}: {value!r} there, {here!r} in the kernel"


def report(cases: list[Case], folder: Path) -> int:
    """Replay the cases in `folder`, print what agrees and what does not; returns the exit code."""
    aside = defaultdict(list)
    for case in cases:
        aside[set_aside(case)].append(case)
    replayed = aside.pop("", [])
    unlike: dict[bool, int] = {True: 0, False: 0}  # explained or not
    with Kernel(cwd=folder) as kernel:
        for case in replayed:
            found = in_kernel(kernel, case)
            if differs := list(differences(in_smolagents(case), found)):
                why = _explanation(case, found)
                unlike[bool(why)] += 1
                print(f"- {case['test']}, call {case['number']}: {why or 'NOT EXPLAINED'}")
                print("\n".join(f"    {line}" for line in differs))
    for rule, its in aside.items():
        print(f"set aside, {len(its):>3}: {rule}")
        print("    " + ", ".join(sorted({_name(case) for case in its})))
    agreed = len(replayed) - sum(unlike.values())
    print(f"{len(cases)} cases recorded, {len(replayed)} replayed, {agreed} agreed,")
    print(f"{unlike[True]} disagreements explained, {unlike[False]} not.")
    return 1 if unlike[False] or not replayed else 0


def _explanation(case: Case, found: Outcome) -> str:
    """Why the kernel differs; empty if it is not known, or if CPython differs from the kernel."""
    if list(differences(in_python(case), found)):
        return ""
    return EXPLAINED.get((_name(case), case["number"]), "")


def _variables(kernel: Kernel, names: list[str]) -> dict[str, Any]:
    describe = inspect.getsource(smolagents_recorder.describe)
    described = f"{{name: describe(globals().get(name)) for name in {names}}}"
    told = kernel.execute(f"{describe}\nprint(__import__('json').dumps({described}))")
    return dict(json.loads("".join(o["text"] for o in told.outputs if "text" in o) or "{}"))


def _as_described(text: str) -> dict[str, str]:
    try:
        ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return {"text": text}
    return {"literal": text}


def _same(expected: Any, found: Any) -> bool:
    match expected, found:
        case {"literal": there}, {"literal": here}:
            return bool(ast.literal_eval(there) == ast.literal_eval(here))
        case {"text": there}, {"text": here}:
            return _plain(there) == _plain(here)
        case {"type": _}, {"text": _}:
            return True  # shown, and that is all that is known of it
        case "any", str():
            return found != ""
    return bool(expected == found)


def _plain(text: str) -> str:
    return re.sub(r"\s+|0x[0-9a-fA-F]+", "", text)


def _name(case: Case) -> str:
    """The test without its class and parameters."""
    return str(case["test"]).partition("[")[0].rpartition("::")[2]


def _run(
    folder: Path,
    *command: str | Path,
    env: dict[str, str] | None = None,
    fine: tuple[int, ...] = (0,),
) -> None:
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, check=False)
    if done.returncode not in fine:
        words = " ".join(map(str, command))
        sys.exit(f"`{words}` failed:\n{done.stdout}{done.stderr}")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="smolagents-") as folder:
        return report(record(Path(folder)), Path(folder) / SMOLAGENTS)


if __name__ == "__main__":
    sys.exit(main())
