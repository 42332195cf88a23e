"""Notebooks that are damaged: what can be used is used, what cannot is named, nothing is silent."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.errors import TranscriptError
from kernel_agent.steps import (
    CellResult,
    Note,
    Observation,
    Outcome,
    Reply,
    RequestedCall,
    Step,
    Task,
    Usage,
    UserCell,
)
from kernel_agent.transcript import Problem, Transcript
from tests.examples import examples

PNG = "iVBORw0KGgo="
IMAGE = {"output_type": "display_data", "data": {"image/png": PNG}, "metadata": {}}
PRINTED = {"output_type": "stream", "name": "stdout", "text": "ä\nb\n"}
TASK = Task("A task", "prompt", ("data:x",), "set_up()")
FIRST = Step(
    Reply(
        "I look.\n```python\nfirst()\n```",
        "hm",
        "stop",
        Usage(1, 2, 3, 4, 0.5, 1.5),
        (RequestedCall("c1", "python", '{"code": "first()"}', {"sign": "x"}),),
        ({"type": "thinking", "signature": "y"},),
        "other/model",
    ),
    "said",
    "I look.",
    CellResult(
        "first()", "ok", (PRINTED, IMAGE), 1, 0.5, 1.7e9, "", {"x": "int"}, "interrupt", ("a", None)
    ),
    Observation("seen", (f"data:image/png;base64,{PNG}",)),
)
UNUSABLE = Step(Reply("", finish_reason=None), "", "", None, Observation("No code."))
LAST = Step(Reply("r"), "r", "", CellResult("last()", "error"), Observation("o"))
ANSWER = Step(Reply("Done."), "Done.", "Done.")


def sample(path: Path) -> bytes:
    """A transcript with everything in it; its last step is running."""
    transcript = Transcript(
        "system", path=path, prelude="prelude()", about={"model": {"name": "m"}}
    )
    for entry in (TASK, FIRST, UNUSABLE, Note("told"), ANSWER):
        transcript.add(entry)
    transcript.finish(Outcome("answered", "max_steps"))
    for entry in (TASK, LAST):
        transcript.add(entry)
    transcript.begin(Step(Reply("r"), "r", "hm", CellResult("pending()")))
    document = json.loads(path.read_bytes())
    mine = {"cell_type": "code", "id": "mine", "metadata": {}, "source": "mine()", "outputs": []}
    document["cells"].insert(5, mine | {"execution_count": 3})
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return sample(tmp_path_factory.mktemp("sample") / "run.ipynb")


def edited(good: bytes, path: Path, edit: Callable[[Any], object]) -> Transcript:
    """The sample after `edit` of its JSON, loaded."""
    document = json.loads(good)
    edit(document)
    path.write_bytes(json.dumps(document, indent=2).encode())
    return Transcript.load(path)


def known(document: Any, index: int) -> Any:
    return document["cells"][index]["metadata"]["kernel_agent"]


def index_of(document: Any, name: str) -> int:
    return [cell["id"] for cell in document["cells"]].index(name)


def is_code(cell: Any) -> bool:
    return isinstance(cell, dict) and cell.get("cell_type") == "code"


def source_of(cell: Any) -> str | None:
    match cell.get("source"):
        case str() as text:
            return text
        case list() as lines if all(isinstance(line, str) for line in lines):
            return "".join(lines)
        case float() as number if not math.isfinite(number):
            return repr(number)  # as Jupyter has it
    return None


def check(path: Path) -> None:
    """Loading `path` is a TranscriptError, or gives a transcript that has lost nothing silently."""
    file = path.read_bytes()
    try:
        loaded = Transcript.load(path)
    except TranscriptError:
        return
    loaded.messages()
    str((loaded.answer, loaded.outcomes, loaded.usage, loaded.cwd, loaded.pending))
    assert all(str(problem) for problem in loaded.problems)
    with suppress(ValueError, RecursionError):
        document = json.loads(file.decode("utf-8-sig"))
        _check_cells(loaded, document)
    before = path.read_bytes()
    try:
        loaded.add(TASK)
    except TranscriptError as error:
        assert "new place" in str(error)
        assert path.read_bytes() == before
        loaded.path = path.with_name(f"{path.stem}-2.ipynb")
        loaded.path.unlink(missing_ok=True)
        loaded.save()
    assert TASK in Transcript.load(loaded.path or path).entries


def _check_cells(loaded: Transcript, document: Any) -> None:
    """Each code cell is an entry's, the pending one, the setup, or named."""
    sources = [loaded.pending.result.source] if loaded.pending and loaded.pending.result else []
    for entry in loaded.entries:
        match entry:
            case Task(setup=setup):
                sources.append(setup)
            case Step(result=CellResult(source=source)) | UserCell(result=CellResult(source)):
                sources.append(source)
    setup = loaded._notebook.setup.loaded
    sources += [setup["source"]] if setup else []
    named = {problem.cell for problem in loaded.problems}
    for index, cell in enumerate(document["cells"]):
        name = cell.get("id") if isinstance(cell, dict) else None
        name = name if isinstance(name, str) and name else f"cell {index + 1}"
        if name in named or not is_code(cell):
            assert name in named or isinstance(cell, dict)
            continue
        source = source_of(cell)
        assert source in sources, name
        sources.remove(source)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places(item, (*path, key))
    return found


odd_values = st.sampled_from(
    [None, -1, 0, 10**400, 1.5, float("nan"), True, "odd", "", [], {}, [None], {"a": 1}, ["a", 1]]
)
kinds = st.sampled_from(["replace", "remove", "double", "swap", "move"])


@examples(300)
@given(data=st.data())
def test_values_changed_at_random_never_give_a_traceback_and_lose_nothing_silently(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    document = json.loads(good)
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(places(document)))
        inner = document
        for key in way[:-1]:
            inner = inner[key]
        change, key = data.draw(kinds), way[-1]
        if change == "replace" or (change in ("double", "swap") and not isinstance(inner, list)):
            inner[key] = copy.deepcopy(data.draw(odd_values))  # no example may change it
        elif change == "remove":
            del inner[key]
        elif change == "double":
            inner.insert(data.draw(st.integers(0, len(inner))), copy.deepcopy(inner[key]))
        elif change == "swap":
            other = data.draw(st.integers(0, len(inner) - 1))
            inner[key], inner[other] = inner[other], inner[key]
        else:
            other_way = data.draw(st.sampled_from(places(document)))
            value = document
            for step in other_way:
                value = value[step]
            inner[key] = copy.deepcopy(value)
        if not places(document):
            break
    path = tmp_path_factory.getbasetemp() / "values.ipynb"
    path.write_text(json.dumps(document), encoding="utf-8")
    check(path)


@examples(300)
@given(data=st.data())
def test_bytes_changed_at_random_never_give_a_traceback_and_lose_nothing_silently(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(file) - 1, 0)))
        length = data.draw(st.integers(0, 300))
        match data.draw(st.sampled_from(["flip", "set", "cut off", "cut out", "double"])):
            case "flip":
                file[at : at + 1] = bytes([file[at] ^ (1 << data.draw(st.integers(0, 7)))])
            case "set":
                file[at : at + 1] = data.draw(st.sampled_from([b'"', b"{", b"]", b",", b"\xff"]))
            case "cut off":
                del file[at:]
            case "cut out":
                del file[at : at + length]
            case "double":
                file[at:at] = file[at : at + length]
        if not file:
            break
    path = tmp_path_factory.getbasetemp() / "bytes.ipynb"
    path.write_bytes(file)
    check(path)


def test_a_file_that_is_cut_off_anywhere_gives_its_whole_cells_and_says_what_is_lost(
    good: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "cut.ipynb"
    whole = len(json.loads(good)["cells"])
    most = 0
    for at in range(0, len(good), 97):
        path.write_bytes(good[:at])
        try:
            loaded = Transcript.load(path)
        except TranscriptError as error:
            assert at < 20, error
            continue
        cut = loaded.problems[0].reason
        assert "breaks off" in cut
        has_metadata = at >= good.index(b'"nbformat"') - len(b",\n ")
        assert has_metadata or "system prompt" in loaded.problems[1].reason
        assert loaded.system == ("system" if has_metadata else "")
        count = int(cut.split("after ")[1].split()[0])
        most = max(most, count)
        with pytest.raises(TranscriptError, match="Set `path` to a new place"):
            loaded.add(LAST)
        assert path.read_bytes() == good[:at]
        check(path)
    assert most == whole


DAMAGE: dict[str, tuple[Callable[[Any], object], str]] = {
    "no reply": (
        lambda d: known(d, index_of(d, "step-1")).pop("reply"),
        "step-1: its reply is missing. It is taken as a cell of the user's.",
    ),
    "an odd status": (
        lambda d: known(d, index_of(d, "step-1")).update(status="odd"),
        "step-1: its 'status' is 'odd', not one of ok, error, interrupted, died, running.",
    ),
    "no text of a task": (
        lambda d: known(d, 0).pop("text"),
        "task-1: it has no 'text'.",
    ),
    "a copied cell": (
        lambda d: d["cells"].append(
            copy.deepcopy(d["cells"][index_of(d, "step-1")]) | {"id": "copied"}
        ),
        "copied: it is a copy of step 1. It is taken as a cell of the user's.",
    ),
    "a task that was removed": (
        lambda d: d["cells"].pop(0),
        "task-1-setup: it is the setup of task 1, which is not there or has one. "
        "It is taken as a cell of the user's.",
    ),
    "a cell that is none": (
        lambda d: d["cells"].insert(0, 3),
        "cell 1: is of type int, no cell. It is passed over.",
    ),
    "a copied task": (
        lambda d: d["cells"].append(copy.deepcopy(d["cells"][0]) | {"id": "copied"}),
        "copied: it is a copy of task 1. It is passed over.",
    ),
    "a reply that was of no use, without it": (
        lambda d: known(d, index_of(d, "step-2")).pop("reply"),
        "step-2: its reply is missing. It is passed over.",
    ),
    "a requested call without a name": (
        lambda d: known(d, index_of(d, "step-1"))["calls"][0].pop("name"),
        "step-1: requested call 1 has no name.",
    ),
    "a requested call without arguments": (
        lambda d: known(d, index_of(d, "step-1"))["calls"][0].pop("arguments"),
        "step-1: it has no 'arguments'.",
    ),
    "a signed block that is none": (
        lambda d: known(d, index_of(d, "step-1")).update(signed=["x"]),
        "step-1: a signed block is of type str.",
    ),
    "seconds that no number holds": (
        lambda d: known(d, index_of(d, "step-1")).update(seconds=10**400),
        "step-1: its 'seconds' is of type int, not float.",
    ),
    "no metadata of ours": (
        lambda d: d["metadata"].pop("kernel_agent"),
        "its metadata have no 'kernel_agent': the system prompt of the run is lost.",
    ),
    "code that was made text": (
        lambda d: d["cells"][index_of(d, "step-1")].update(cell_type="markdown"),
        "step-1: it is no code cell any more: its code counts as not executed.",
    ),
    "no step's number": (
        lambda d: known(d, index_of(d, "step-4")).update(step=None),
        "step-4: its step is None, no number. It is taken as a cell of the user's.",
    ),
    "a newer format": (
        lambda d: d["metadata"]["kernel_agent"].update(format=2),
        "it has format 2, this version reads format 1: another version of kernel_agent wrote it.",
    ),
}


@pytest.mark.parametrize(("edit", "named"), DAMAGE.values(), ids=DAMAGE)
def test_what_cannot_be_used_is_named(
    good: bytes, tmp_path: Path, edit: Callable[[Any], object], named: str
) -> None:
    loaded = edited(good, tmp_path / "run.ipynb", edit)
    assert named in list(map(str, loaded.problems))
    check(tmp_path / "run.ipynb")


def test_a_whole_number_of_seconds_is_as_good_as_any(good: bytes, tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        known(document, index_of(document, "step-1")).update(seconds=2)

    loaded = edited(good, tmp_path / "run.ipynb", edit)
    assert loaded.problems == ()
    assert loaded.usage.kernel_seconds == 2.0


def test_the_sample_is_whole(good: bytes, tmp_path: Path) -> None:
    loaded = edited(good, tmp_path / "run.ipynb", lambda document: None)
    steps = (FIRST, UNUSABLE, ANSWER, LAST)
    assert (loaded.problems, loaded.steps, loaded.tasks) == ((), steps, (TASK, TASK))
    assert not loaded.is_foreign


def test_a_damaged_cell_stays_byte_for_byte_when_it_is_saved_in_place(
    good: bytes, tmp_path: Path
) -> None:
    def edit(document: Any) -> None:
        known(document, index_of(document, "step-1")).update(reply=3, usage=[], observation=None)
        document["cells"][3]["outputs"] = [None, {"text": 1}]

    path = tmp_path / "run.ipynb"
    loaded = edited(good, path, edit)
    assert loaded.problems
    before = path.read_bytes()
    loaded.add(LAST)
    kept = before[: before.index(b'"id": "step-5-thought"')]
    assert path.read_bytes().startswith(kept[: kept.rindex(b"{")].rstrip(b" \n,"))
    assert loaded.problems[0] in Transcript.load(path).problems


@pytest.mark.parametrize("cut", [True, False])
def test_what_would_lose_something_is_saved_only_in_a_new_place(
    good: bytes, tmp_path: Path, cut: bool
) -> None:
    path = tmp_path / "run.ipynb"
    newer = good.replace(b'"format": 1', b'"format": 2')
    path.write_bytes(good[: len(good) // 2] if cut else newer)
    before = path.read_bytes()
    loaded = Transcript.load(path)
    with pytest.raises(TranscriptError, match="Set `path` to a new place and save"):
        loaded.add(LAST)
    assert path.read_bytes() == before
    loaded.path = tmp_path / "new.ipynb"
    loaded.save()
    assert Transcript.load(tmp_path / "new.ipynb").entries == loaded.entries


def test_bytes_that_are_no_text_are_named_and_stay(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    path.write_bytes(good.replace(b"mine()", b"mine(\xff)"))
    loaded = Transcript.load(path)
    reason = "it holds bytes that are no UTF-8; they are read as U+FFFD."
    assert loaded.problems == (Problem("mine", reason),)
    loaded.add(LAST)
    assert b"mine(\xff)" in path.read_bytes()


def test_cleared_outputs_and_edited_sources_are_read_as_they_are(
    good: bytes, tmp_path: Path
) -> None:
    def edit(document: Any) -> None:
        for cell in document["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
                cell["source"] = ["edited()"]

    loaded = edited(good, tmp_path / "run.ipynb", edit)
    assert loaded.problems == ()
    assert loaded.steps[0].result is not None
    assert loaded.steps[0].result.source == "edited()"
    assert loaded.steps[0].observation == Observation("seen")
