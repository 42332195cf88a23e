"""Snapshots of a real kernel's variables, restored into a fresh one."""

import json
import os
import threading

import pytest

from kernel_agent.kernel import Kernel
from kernel_agent.kernel.process import installed_kernels
from kernel_agent.kernel.snapshots import snapshot_keys

pytestmark = pytest.mark.slow

MB = 1_000_000  # bytes
ROOM = 100 * MB


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run.snapshots"


def stored(kernel, source, folder, key="step-1", **options):
    result = kernel.execute(source)
    assert result.status == "ok", result.outputs
    snapshot = kernel.snapshot(folder, key, **{"max_bytes": ROOM, **options})
    assert snapshot.reason == ""
    return snapshot


def restored(kernel, folder, key="step-1"):
    kernel.restart()
    back = kernel.restore(folder, key)
    assert back.reason == ""
    return back


def shown(kernel, expression):
    (output,) = kernel.execute(expression).outputs
    return output.get("data", {}).get("text/plain") or output["evalue"]


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


NOTEBOOK = """
import functools, random
import xml.etree.ElementTree
import numpy as np, pandas as pd
from math import sqrt
factor = 5
def times(x): return x * factor
@functools.lru_cache
def cached(x): return times(x)
class Base:
    def __init__(self, value): self.value = value
    def scaled(self): return times(self.value)
class Child(Base):
    def scaled(self): return super().scaled() + 1
child = Child(2)
double = lambda x: 2 * times(x)
def make_counter():
    count = 0
    def counter():
        nonlocal count
        count += 1
        return count
    return counter
counter = make_counter()
counter()
frame = pd.DataFrame({"n": np.arange(3), "word": list("abc")})
array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
_hidden = 1
"""


def test_code_and_data_come_back_in_a_fresh_kernel_and_work_there(kernel, folder):
    assert stored(kernel, NOTEBOOK, folder).skipped == {}
    back = restored(kernel, folder)
    assert back.failed == {}
    assert back.imports["np"] == "numpy"
    assert {"factor", "times", "Base", "child", "double", "frame", "array"} <= {*back.names}
    assert "_hidden" not in back.names
    expected = "(10, 10, 11, True, True, 20, 2)"
    tested = "isinstance(child, Child), isinstance(child, Base), double(2), counter()"
    assert shown(kernel, f"times(2), cached(2), child.scaled(), {tested}") == expected
    assert shown(kernel, "frame.n.sum(), ''.join(frame.word), array.flags.f_contiguous") == (
        "(np.int64(3), 'abc', True)"
    )
    assert shown(kernel, "array[1, 2], sqrt(4), xml.etree.ElementTree.Element('a').tag") == (
        "(np.float64(5.0), 2.0, 'a')"
    )


def test_restored_functions_see_what_later_cells_change(kernel, folder):
    stored(kernel, NOTEBOOK, folder)
    restored(kernel, folder)
    assert shown(kernel, "factor = 100\ntimes(2), double(2), child.scaled()") == "(200, 400, 201)"


def test_only_what_a_cell_does_is_reported_after_a_restore(kernel, folder):
    stored(kernel, "a = [1]; b = 2", folder)
    restored(kernel, folder)
    assert kernel.execute("b = 3").variables == {"b": "3"}


def test_one_object_under_many_names_stays_one(kernel, folder):
    source = "import pandas as pd\nframe = pd.DataFrame({'n': [1]}); same = frame; unit = ()\n"
    source += "tables = {'first': frame}; pair = [frame, unit]; chain = [pair]; left = []\n"
    source += "right = [left]; left.append(right); left.append(frame); itself = []\n"
    stored(kernel, source + "itself.append(itself); left.append('x' * 50_000)", folder)
    assert stored(kernel, "", folder, "step-2").written < 50_000
    assert restored(kernel, folder, "step-2").failed == {}
    same = "same is frame, tables['first'] is frame, pair[0] is frame, chain[0] is pair"
    circles = "left[0] is right, right[0] is left, left[1] is frame, itself[0] is itself"
    assert shown(kernel, f"all([{same}, {circles}])") == "True"


def test_a_change_in_place_is_written_and_what_is_unchanged_is_not(kernel, folder):
    source = "import numpy as np\na = np.zeros(250_000); b = np.ones(250_000); c = [b]"
    assert stored(kernel, source, folder).written > 4 * MB
    assert stored(kernel, "", folder, "step-2").written < 0.1 * MB
    assert 2 * MB < stored(kernel, "a[7] = 3", folder, "step-3").written < 2.1 * MB
    restored(kernel, folder, "step-3")
    assert shown(kernel, "a[7], c[0] is b") == "(np.float64(3.0), True)"
    assert stored(kernel, "", folder, "step-4").written < 0.1 * MB
    restored(kernel, folder, "step-2")
    assert shown(kernel, "a[7]") == "np.float64(0.0)"


def test_a_circle_of_which_one_can_no_more_be_stored_loses_only_what_needs_that_one(kernel, folder):
    stored(kernel, "left, right = [1], [2]; left.append(right); right.append(left)", folder)
    snapshot = stored(kernel, "right = (n for n in left)", folder, "step-2")
    assert [*snapshot.skipped] == ["right"]
    assert "left" in snapshot.stored
    restored(kernel, folder, "step-2")
    assert shown(kernel, "left[1][0], left[1][1] is left") == "(2, True)"


def test_random_numbers_go_on_and_the_working_folder_is_the_same(kernel, folder, tmp_path):
    source = f"import os, random, numpy as np\nos.chdir({str(tmp_path)!r}); random.seed(1)"
    stored(kernel, source, folder)
    numbers = "random.random(), np.random.random(), os.getcwd()"
    before = shown(kernel, numbers)
    restored(kernel, folder)
    assert shown(kernel, numbers) == before


def test_what_cannot_be_stored_is_named_with_the_reason_and_with_what_needs_it(kernel, folder):
    source = "import threading\nlines = (n for n in [1]); file = open(__import__('os').devnull)\n"
    source += "lock = threading.Lock(); holder = {'lock': lock}; fine = 1\n"
    source += "class Bad:\n    def __reduce__(self): print(2); raise SystemExit('no')\nbad = Bad()"
    snapshot = stored(kernel, source, folder)
    assert snapshot.skipped == {
        "lines": "TypeError: cannot pickle 'generator' object",
        "file": "TypeError: cannot pickle an open file",
        "lock": "TypeError: cannot pickle '_thread.lock' object",
        "holder": "It refers to 'lock', which is not stored.",
        "bad": "SystemExit: no",
    }
    assert {"fine", "Bad"} == {*snapshot.stored}
    assert kernel.execute("").outputs == ()


def test_the_folder_keeps_its_bound_the_oldest_goes_first(kernel, folder):
    source = "import numpy as np\na = np.full(125_000, 0.0)"
    for number in range(5):
        stored(kernel, source, folder, f"step-{number}", max_bytes=3.5 * MB)
        source = "a += 1"
    assert snapshot_keys(folder) == {"step-2", "step-3", "step-4"}
    assert size_of(folder) <= 3.5 * MB
    large = stored(kernel, "large = np.zeros(500_000)", folder, "step-5", max_bytes=3.5 * MB)
    assert large.skipped == {"large": "It does not fit into the 3.5 MB of all snapshots."}
    assert large.stored["a"] > MB


def test_a_kernel_killed_while_it_writes_leaves_the_earlier_snapshot_whole(kernel, folder):
    source = "import os, signal, numpy as np\na = np.zeros(250_000)\nclass Deadly:\n"
    source += "    def __reduce__(self): os.kill(os.getpid(), signal.SIGKILL)\n"
    stored(kernel, source, folder)
    kernel.execute("a[0] = 1; box = [np.ones(500_000), Deadly()]")
    snapshot = kernel.snapshot(folder, "step-2", max_bytes=ROOM)
    assert "The kernel died" in snapshot.reason
    assert list(folder.rglob("*.tmp"))  # it was in the middle
    assert snapshot_keys(folder) == {"step-1"}
    restored(kernel, folder)
    assert shown(kernel, "a[0]") == "np.float64(0.0)"
    stored(kernel, "", folder, "step-2")
    assert not list(folder.rglob("*.tmp"))


def interrupt_at(kernel, gate):
    """Interrupt the kernel once the file `gate` is there."""

    def wait():
        while not gate.exists() and kernel.is_alive:
            threading.Event().wait(0.01)
        kernel.interrupt()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


ENDLESS = """
import pathlib, time
def last_for_ever(gate):
    pathlib.Path(gate).touch()
    while True: time.sleep(0.01)
class Endless:
    def __reduce__(self): last_for_ever({saving!r})
class Late:
    def __reduce__(self): return last_for_ever, ({loading!r},)
"""


def test_an_interrupted_snapshot_is_not_there_and_the_kernel_goes_on(kernel, folder, tmp_path):
    gate = tmp_path / "gate"
    source = ENDLESS.format(saving=str(gate), loading="")
    kernel.execute(source + "import numpy as np\na = [np.ones(500_000), Endless()]")
    waiting = interrupt_at(kernel, gate)
    snapshot = kernel.snapshot(folder, "step-1", max_bytes=ROOM)
    waiting.join()
    assert snapshot.reason == "It was interrupted."
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    result = kernel.execute("len(a)")
    assert [output["output_type"] for output in result.outputs] == ["execute_result"]


def test_an_interrupted_restore_leaves_the_namespace_as_it_was(kernel, folder, tmp_path):
    gate = tmp_path / "gate"
    source = ENDLESS.format(saving="", loading=str(gate))
    stored(kernel, source + "early = [1]\nlate = Late()", folder)
    kernel.restart()
    waiting = interrupt_at(kernel, gate)
    back = kernel.restore(folder, "step-1")
    waiting.join()
    assert back.reason == "It was interrupted."
    assert shown(kernel, "{'early', 'Late', 'pathlib'} & {*dir()}") == "set()"


def test_what_takes_too_long_is_skipped_and_left_alone_for_a_while(kernel, folder):
    stored(kernel, "class Slow:\n    def __reduce__(self):\n        time.sleep(0.4)\n", folder)
    source = "import sys, time\nsys.modules['kernel_agent_snapshot_saving'].SECONDS = 0.3\n"
    source += "tries = []\nclass Slow:\n    def __reduce__(self):\n        tries.append(1)\n"
    source += "        time.sleep(0.4)\n        return Slow, ()\nslow = Slow()"
    assert "within the 0.3 s" in stored(kernel, source, folder, "step-2").skipped["slow"]
    assert [*stored(kernel, "", folder, "step-3").skipped] == ["slow"]
    assert shown(kernel, "len(tries)") == "1"


@pytest.mark.parametrize("missing", [["cloudpickle"], ["cloudpickle", "dill"]])
def test_without_cloudpickle_dill_is_taken_and_without_both_what_pickle_can(
    kernel, folder, missing
):
    if len(missing) == 1:
        pytest.importorskip("dill")
    kernel.restart()
    block = f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
    snapshot = stored(kernel, block + NOTEBOOK, folder)
    kernel.restart()
    kernel.execute(block)
    back = kernel.restore(folder, "step-1")
    assert back.failed == {}
    assert shown(kernel, "frame.n.sum(), array[1, 2]") == "(np.int64(3), np.float64(5.0))"
    if len(missing) == 1:
        assert shown(kernel, "factor = 7\ntimes(2), child.scaled(), counter()") == "(14, 15, 2)"
    else:
        why = "It is defined in the notebook: to store it, `pip install cloudpickle`."
        assert snapshot.skipped["times"] == snapshot.skipped["Base"] == why
        assert snapshot.skipped["child"] == "It refers to 'Child', which is not stored."


def test_a_damaged_pickle_fails_by_name_and_is_written_again(kernel, folder):
    source = "import numpy as np\na = np.zeros(1000); b = np.ones(1000); c = [a]; d = 1"
    stored(kernel, source, folder)
    manifest = json.loads((folder / "step-1.json").read_text())
    (name,) = [entry["hash"] for entry in manifest["pickles"] if entry.get("names") == ["a"]]
    path = folder / "objects" / f"{name}.pkl"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"x" + content[-8:])
    back = restored(kernel, folder)
    assert back.failed == {
        "a": "Its file is damaged.",
        "c": "It refers to 'a', which could not be restored.",
    }
    assert {*back.names} == {"b", "d"}
    stored(kernel, "a = np.zeros(1000)", folder, "step-2")
    assert path.read_bytes() == content


def test_names_that_lead_out_of_the_folder_are_refused(kernel, folder):
    stored(kernel, "a = list(range(5000))", folder)
    for key in ("../step-1", "/etc/passwd", "", ".hidden", "a/b"):
        assert "is not the name of a snapshot" in kernel.restore(folder, key).reason
        snapshot = kernel.snapshot(folder, key, max_bytes=ROOM)
        assert "is not the name of a snapshot" in snapshot.reason
    path = folder / "step-1.json"
    manifest = json.loads(path.read_text())
    manifest["pickles"][0]["hash"] = "../../" + "a" * 58
    path.write_text(json.dumps(manifest))
    assert "is not the name of a pickle" in restored(kernel, folder).failed["a"]


def test_a_snapshot_of_another_python_or_none_at_all_says_so(kernel, folder):
    stored(kernel, "a = 1; b = a", folder)
    path = folder / "step-1.json"
    path.write_text(path.read_text().replace('"python": "3.', '"python": "2.'))
    back = kernel.restore(folder, "step-1")
    assert back.names == ()
    assert "It was stored by Python 2." in back.failed["a"] == back.failed["b"]
    assert kernel.restore(folder, "step-9").reason == "There is no snapshot 'step-9'."


@pytest.mark.slow
@pytest.mark.skipif("ir" not in installed_kernels(), reason="needs IRkernel")
def test_a_kernel_that_is_not_python_has_no_snapshots(folder):
    with Kernel("ir") as kernel:
        assert kernel.snapshot(folder, "a", max_bytes=MB).reason == "It is no Python kernel."
    assert not folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_nobody_else_may_read_what_is_stored(kernel, folder):
    stored(kernel, "a = list(range(5000))", folder)
    assert {path.stat().st_mode & 0o077 for path in folder.rglob("*") if path.is_file()} == {0}
