"""Recorded calls: what is kept of them, and how they answer when their cells run again."""

from __future__ import annotations

import datetime
import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kernel_agent.border.codec import TAG, decode, encode
from kernel_agent.border.files import NAME
from kernel_agent.call_files import keep_files
from kernel_agent.call_record import RecordedCalls, recorded_error
from kernel_agent.errors import KernelAgentError, ReplayMismatchError, TranscriptError
from kernel_agent.kernel import Kernel
from kernel_agent.steps import ToolCall
from kernel_agent.tools import Toolbox, tool

BIG = bytes(range(256)) * 1_000


def made(*args: Any, folder: Path | None = None, **kwargs: Any) -> dict[str, Any]:
    """Encoded arguments, as a cell sends them."""
    arguments = {
        "args": [encode(one, folder=folder) for one in args],
        "kwargs": {key: encode(one, folder=folder) for key, one in kwargs.items()},
    }
    sent: dict[str, Any] = json.loads(json.dumps(arguments))
    return sent


def recorded(result: Any, *args: Any, name: str = "search", **kwargs: Any) -> ToolCall:
    return ToolCall(name, made(*args, **kwargs), encode(result, folder=None))


def record(*calls: ToolCall, **options: Any) -> RecordedCalls:
    return RecordedCalls([("step-1", calls)], path="run.ipynb", **options)


def server(*calls: ToolCall, folder: Path | None = None, **options: Any):
    return record(*calls, **options).serve_for("step-1", folder=folder)


def mismatch(serve, name: str, arguments: dict[str, Any]) -> str:
    with pytest.raises(ReplayMismatchError) as caught:
        serve(name, arguments)
    return str(caught.value)


def test_calls_are_answered_in_order_where_their_arguments_are_equal():
    serve = server(recorded(1, "a"), recorded(2, "a"), recorded(3, "b", top=2))
    assert serve("search", made("b", top=2)) == 3
    assert [serve("search", made("a")) for _ in range(2)] == [1, 2]


def test_concurrent_calls_each_get_their_own_result():
    serve = server(*(recorded(n * n, n) for n in range(200)))
    results: dict[int, int] = {}

    def ask(numbers):
        for n in numbers:
            results[n] = serve("search", made(n))

    threads = [threading.Thread(target=ask, args=(range(199 - k, -1, -8),)) for k in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(10)
    assert results == {n: n * n for n in range(200)}


def test_each_execution_of_a_cell_is_answered_from_the_beginning():
    calls = record(recorded(1, "a"))
    for _ in range(2):
        assert calls.serve_for("step-1", folder=None)("search", made("a")) == 1


def test_a_mismatch_shows_the_nearest_recorded_call_and_what_differs():
    calls = record(recorded(1, "london", top=5), recorded(2, {"city": "paris", "n": [1, 2]}, top=5))
    serve = calls.serve_for("step-1", folder=None)
    message = mismatch(serve, "search", made({"city": "paros", "n": [1]}, top=5))
    assert message == (
        "Transcript 'run.ipynb': step-1: "
        'search({"city": "paros", "n": [1]}, top=5) is not in the record. The nearest recorded '
        'one (call 2 of 2) is search({"city": "paris", "n": [1, 2]}, top=5).\n'
        '  args[0][\'city\']: was "paris", is "paros"\n'
        "  args[0]['n'][1]: was 2, is nothing"
    )
    (error,) = calls.mismatches
    assert isinstance(error, TranscriptError)
    assert (error.step, error.path) == ("step-1", Path("run.ipynb"))
    assert serve("search", made("london", top=5)) == 1  # a mismatch uses no recorded call up


def test_a_long_argument_is_shown_where_it_begins_to_differ():
    text = "x" * 5_000
    message = mismatch(server(recorded(1, f"{text}old")), "search", made(f"{text}new"))
    assert "xxxold" in message
    assert "xxxnew" in message
    assert len(message) < 700


def test_true_is_not_one():
    assert "was 1, is true" in mismatch(server(recorded(0, 1)), "search", made(True))


def test_a_call_too_many_and_a_cell_without_calls_are_told_apart():
    serve = server(recorded(1, "a"))
    serve("search", made("a"))
    assert "one call more than the 1 of 'search'" in mismatch(serve, "search", made("a"))
    assert "no call in this cell" in mismatch(server(), "search", made("a"))
    other = mismatch(server(recorded(1, "a", name="find")), "search", made("a"))
    assert 'The nearest recorded one (call 1 of 1) is find("a").' in other


@pytest.mark.parametrize(
    ("error", "kind", "name", "message"),
    [
        ("ValueError: a: b", ValueError, "ValueError", "a: b"),
        ("KeyError: x", KeyError, "KeyError", "x"),
        ("UnicodeDecodeError: bad", UnicodeDecodeError, "UnicodeDecodeError", "bad"),
        ("FileNotFoundError: [Errno 2] no", OSError, "FileNotFoundError", "[Errno 2] no"),
        ("ExceptionGroup: two (2 sub-exceptions)", Exception, "ExceptionGroup", "two (2 sub-"),
        ("KeyboardInterrupt: ", Exception, "KeyboardInterrupt", ""),
        ("RateLimited: wait", Exception, "RateLimited", "wait"),
        ("ValueError", ValueError, "ValueError", ""),
        ("what is this", Exception, "Exception", "what is this"),
    ],
)
def test_recorded_errors_are_raised_again_by_their_names(error, kind, name, message):
    serve = server(ToolCall("search", made("a"), error=error))
    with pytest.raises(kind) as caught:
        serve("search", made("a"))
    assert type(caught.value).__name__ == name
    assert str(caught.value).startswith(message)
    assert isinstance(recorded_error(error), Exception)


def test_a_call_that_had_no_answer_waits_until_its_cell_is_over():
    cancelled = ToolCall("search", made("a"), error="Cancelled: the cell was stopped.", seconds=99)
    calls = record(cancelled)
    serve = calls.serve_for("step-1", folder=None)
    errors: list[Exception] = []

    def ask():
        try:
            serve("search", made("a"))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    calls.close()
    thread.join(10)
    assert [type(error).__name__ for error in errors] == ["Cancelled"]


# Large values


def kept_call(tmp_path: Path, **options: Any):
    source, sidecar = tmp_path / "border", tmp_path / "run.files"
    source.mkdir()
    arguments = made(BIG, {"deep": [BIG, "text" * 50_000]}, top=5, folder=source)
    call = ToolCall("search", arguments, encode([list(range(20_000)), BIG], folder=source))
    return (
        call,
        source,
        sidecar,
        keep_files(call, source=source, sidecar=sidecar, **{"max_bytes": 10_000_000, **options}),
    )


def test_large_values_are_kept_beside_the_notebook_and_given_again(tmp_path):
    call, _, sidecar, kept = kept_call(tmp_path)
    assert kept.left_out == ()
    assert kept.bytes == sum(file.stat().st_size for file in sidecar.iterdir())
    assert len(json.dumps(kept.call.arguments)) < 2_000
    for again in (tmp_path / "again", None):  # a kernel with a folder, one without
        if again:
            again.mkdir()
        arguments = made(BIG, {"deep": [BIG, "text" * 50_000]}, top=5, folder=again)
        result = server(kept.call, sidecar=sidecar, folder=again)("search", arguments)
        assert decode(result, folder=again) == [list(range(20_000)), BIG]
    second = keep_files(
        call, source=tmp_path / "border", sidecar=sidecar, max_bytes=0
    )  # they are there: that needs no room
    assert (second.bytes, second.left_out) == (0, ())


def test_what_does_not_fit_is_named_as_left_out_and_its_call_is_still_known(tmp_path):
    _, _, sidecar, kept = kept_call(tmp_path, max_bytes=300_000)
    assert kept.bytes <= 300_000
    assert len(kept.left_out) == 2
    assert all("'search' is not in the record" in one for one in kept.left_out)
    again = tmp_path / "again"
    again.mkdir()
    arguments = made(BIG, {"deep": [BIG, "text" * 50_000]}, top=5, folder=again)
    serve = server(kept.call, sidecar=sidecar, folder=again)
    assert "has no recorded result" in mismatch(serve, "search", arguments)


def test_long_values_without_files_do_not_swell_the_notebook(tmp_path):
    call = recorded("y" * 200_000, "x" * 200_000, list(range(50_000)))
    kept = keep_files(call, source=None, sidecar=tmp_path / "files", max_bytes=10_000_000)
    assert len(json.dumps([kept.call.arguments, kept.call.result])) < 1_000
    serve = server(kept.call, sidecar=tmp_path / "files")
    assert serve("search", made("x" * 200_000, list(range(50_000)))) == "y" * 200_000


def test_small_calls_stay_as_they_are_and_make_no_folder(tmp_path):
    call = recorded([1, {"a": datetime.date(2024, 1, 2)}], "a", b={1: 2})
    kept = keep_files(call, source=None, sidecar=tmp_path / "files", max_bytes=10)
    assert (kept.call, kept.bytes, kept.left_out) == (call, 0, ())
    assert not list(tmp_path.iterdir())


def test_nothing_but_the_values_own_files_is_ever_copied(tmp_path):
    source, sidecar = tmp_path / "border", tmp_path / "files"
    source.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = f"{'a' * 40}.bin"
    (source / link).symlink_to(secret)
    other = f"{'b' * 40}.bin"
    (source / other).write_text("not what the name says")
    names = ["../secret", str(secret), link, other, f"{'c' * 40}.bin", 3, None, "x.bin"]
    for name in names:
        arguments = {"args": [{TAG: "bytes", "file": name}], "kwargs": {}}
        call = ToolCall("search", arguments)
        kept = keep_files(call, source=source, sidecar=sidecar, max_bytes=10**6)
        assert len(kept.left_out) == 1, name
        assert kept.call.arguments["args"][0][TAG] == "left out"
    assert not sidecar.exists() or not list(sidecar.iterdir())
    with pytest.raises(ReplayMismatchError):
        hostile = replace(recorded(1, "a"), result={TAG: "bytes", "file": "../secret"})
        server(hostile, sidecar=source, folder=tmp_path)("search", made("a"))


def test_values_nested_too_deep_are_left_out(tmp_path):
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    kept = keep_files(ToolCall("search", made(), deep), source=None, sidecar=tmp_path, max_bytes=10)
    assert kept.call.result[TAG] == "left out"
    while deep:  # without the interpreter's own recursion
        deep = deep.pop()


def test_names_of_files_are_those_that_the_border_gives(tmp_path):
    _, _, sidecar, _ = kept_call(tmp_path)
    assert all(NAME.fullmatch(file.name) for file in sidecar.iterdir())


# With a kernel


@tool
def squares(numbers: list[int], big: bool = False) -> Any:
    """Square numbers."""
    if not numbers:
        raise LookupError("there are no numbers")
    return BIG if big else [n * n for n in numbers]


CELL = """\
import threading
found = [squares([n]) for n in range(3)]
results = squares.map([["4"], [5]])
big = squares([1], big=True)
try:
    squares([])
except LookupError as error:
    said = f"{type(error).__name__}: {error}"
print(found, results, len(big), said)
try:
    squares("x")
except TypeError as error:
    print(error)
"""
WAS = (
    "[[0], [1], [4]] [[16], [25]] 256000 LookupError: there are no numbers\n"
    "squares(): numbers is 'x' (str). Input should be a valid list.\n"
    "It is squares(numbers: list[int], big: bool = False) -> Any\n"
)


def output(result) -> str:
    return "".join(one.get("text", "") for one in result.outputs)


def test_a_cell_that_calls_tools_does_the_same_again_without_them(tmp_path):
    sidecar = tmp_path / "run.files"
    with Toolbox([squares]) as box, Kernel() as kernel:
        kernel.offer(box.stubs())
        live = kernel.execute(CELL, serve=partial(box.serve, folder=kernel.border_folder))
        assert (live.status, output(live)) == ("ok", WAS)
        kept = [
            keep_files(one, source=kernel.border_folder, sidecar=sidecar, max_bytes=10**6)
            for one in live.tool_calls
        ]
        calls = record(*(one.call for one in kept), sidecar=sidecar)
        kernel.restart()
        serve = calls.serve_for("step-1", folder=kernel.border_folder)
        again = kernel.execute(CELL, serve=serve)
        assert (again.status, output(again)) == ("ok", WAS)
        other = kernel.execute("squares([7])", serve=calls.serve_for("step-1", folder=None))
    assert other.status == "error"
    assert "ReplayMismatchError" in str(other.outputs)
    assert issubclass(ReplayMismatchError, KernelAgentError)
