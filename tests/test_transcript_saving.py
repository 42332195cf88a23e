"""Saving: the whole new notebook or the whole old one, whatever happens."""

from __future__ import annotations

import os
import random
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

from kernel_agent.errors import TranscriptError
from kernel_agent.steps import CellResult, Observation, Reply, Step, Task
from kernel_agent.transcript import Transcript, layout
from kernel_agent.transcript.whole_file import Identity, write_whole

TASK = Task("A task", "prompt")
STEP = Step(Reply("r"), "r", "", CellResult("x = 1"), Observation("seen"))


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The system refuses to write more, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_missing_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "run.ipynb"
    transcript = Transcript("s", path=path)
    transcript.add(TASK)
    transcript.add(STEP)
    assert names(path.parent) == ["run.ipynb"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_fresh_file_obeys_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        Transcript("s", path=tmp_path / "run.ipynb").save()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.ipynb").stat().st_mode) == mode


def test_permissions_of_the_file_are_kept(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "run.ipynb")
    transcript.save()
    (tmp_path / "run.ipynb").chmod(0o640)
    transcript.add(TASK)
    assert stat.S_IMODE((tmp_path / "run.ipynb").stat().st_mode) == 0o640


def test_a_symbolic_link_is_followed_to_where_the_notebook_lies(tmp_path: Path) -> None:
    link, target = tmp_path / "link.ipynb", tmp_path / "elsewhere" / "run.ipynb"
    link.symlink_to(target)
    transcript = Transcript("s", path=link)
    transcript.add(TASK)
    transcript.add(STEP)
    assert link.is_symlink()
    assert Transcript.load(target).entries == (TASK, STEP)


@pytest.mark.parametrize("content", [b"", b"mine", None])
def test_a_file_of_someone_else_is_never_overwritten(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.ipynb"
    if content is None:
        Transcript("another run", path=path).save()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    transcript = Transcript("s", path=path)
    for _ in range(2):
        with pytest.raises(TranscriptError, match="exists and was not begun") as caught:
            transcript.add(TASK)
        assert caught.value.path == path
    assert path.read_bytes() == before
    assert names(tmp_path) == ["run.ipynb"]


def test_after_a_failed_save_another_path_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    transcript = Transcript("s", path=tmp_path / "file" / "run.ipynb")
    with pytest.raises(TranscriptError, match=r"cannot be saved: .*file' is no folder"):
        transcript.add(TASK)
    transcript.path = tmp_path / "run.ipynb"
    transcript.save()
    assert Transcript.load(tmp_path / "run.ipynb").entries == (TASK,)


def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path)
    transcript.add(TASK)
    before = path.read_bytes()
    with (
        files_no_longer_than(len(before) // 2),
        pytest.raises(TranscriptError, match="cannot be saved: File too large"),
    ):
        transcript.add(STEP)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["run.ipynb"]
    transcript.save()
    assert Transcript.load(path).entries == (TASK, STEP)


def test_a_file_that_was_removed_meanwhile_is_written_again(tmp_path: Path) -> None:
    transcript = Transcript("s", path=tmp_path / "runs" / "run.ipynb")
    transcript.add(TASK)
    (tmp_path / "runs" / "run.ipynb").unlink()
    (tmp_path / "runs").rmdir()
    transcript.add(STEP)
    assert Transcript.load(tmp_path / "runs" / "run.ipynb").entries == (TASK, STEP)


def test_a_transcript_without_a_path_writes_nothing(tmp_path: Path) -> None:
    transcript = Transcript("s", cwd=tmp_path)
    transcript.add(TASK)
    transcript.begin(STEP)
    transcript.show([])
    transcript.add(STEP)
    transcript.save()
    assert names(tmp_path) == []


def test_writing_to_a_folder_is_an_os_error(tmp_path: Path) -> None:
    for known in (None, Identity.of(tmp_path.stat())):
        with pytest.raises(OSError, match=str(tmp_path)):
            write_whole(tmp_path, [b"x"], known=known)


SAVE_FOREVER = """
import sys
from pathlib import Path
from kernel_agent.steps import CellResult, Observation, Reply, Step, Task
from kernel_agent.transcript import Transcript, layout

output = {"output_type": "stream", "name": "stdout", "text": "line\\n" * 2000}
step = Step(Reply("r"), "r", "t", CellResult("x", outputs=(output,)), Observation("o"))
transcript = Transcript("s", path=Path(sys.argv[1]))
transcript.add(Task("t", "p"))
while True:
    print(flush=True)
    transcript.begin(step)
    transcript.show([output])
    transcript.add(step)
"""


def test_a_process_that_is_killed_while_it_saves_leaves_a_valid_notebook(tmp_path: Path) -> None:
    moments = random.Random(7)
    for number in range(10):
        path = tmp_path / str(number) / "run.ipynb"
        command = [sys.executable, "-c", SAVE_FOREVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            rounds = moments.randrange(1, 12)
            for _ in range(rounds):
                process.stdout.readline()
            try:
                process.wait(moments.uniform(0, 0.01))
            except subprocess.TimeoutExpired:
                process.kill()
        assert process.returncode == -signal.SIGKILL
        nbformat.validate(nbformat.read(path, 4))
        assert len(Transcript.load(path).entries) >= rounds
        left = [name for name in names(path.parent) if name != "run.ipynb"]
        assert all(name.startswith(".run.ipynb.") and name.endswith(".tmp") for name in left)


CHANGED = r"was changed by another program .* Set `path` to a new place and save again"


def in_place(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def by_another_file(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def by_another_transcript(path: Path) -> None:
    Transcript.load(path).add(TASK)


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize("change", [in_place, by_another_file, by_another_transcript])
def test_a_file_that_somebody_else_has_changed_is_left_as_it_is(
    tmp_path: Path, change: Callable[[Path], None], is_loaded: bool
) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path)
    transcript.add(TASK)
    if is_loaded:
        transcript = Transcript.load(path)
    change(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(TranscriptError, match=CHANGED):
            transcript.add(STEP)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["run.ipynb"]
    transcript.path = tmp_path / "new.ipynb"
    transcript.save()
    assert Transcript.load(tmp_path / "new.ipynb").entries == (TASK, STEP, STEP)


def test_two_transcripts_that_write_the_same_path_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    Transcript("s", path=path).save()
    one, other = Transcript.load(path), Transcript.load(path)
    one.add(TASK)
    with pytest.raises(TranscriptError, match=CHANGED):
        other.add(STEP)
    one.add(STEP)
    assert Transcript.load(path).entries == (TASK, STEP)


def test_a_file_that_may_not_be_written_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path)
    transcript.add(TASK)
    path.chmod(0o444)
    with pytest.raises(TranscriptError, match="is read-only"):
        transcript.add(STEP)
    assert Transcript.load(path).entries == (TASK,)
    assert names(tmp_path) == ["run.ipynb"]
    path.chmod(0o644)
    transcript.save()
    assert Transcript.load(path).entries == (TASK, STEP)


def test_a_file_that_another_process_has_open_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path)
    transcript.add(TASK)
    with path.open("rb") as reader:
        before = path.read_bytes()
        transcript.add(STEP)
        assert reader.read() == before
    assert Transcript.load(path).entries == (TASK, STEP)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_leaves_the_last_good_file(
    small_disk: Path, tmp_path: Path
) -> None:
    path = small_disk / "run.ipynb"
    transcript = Transcript("s", path=path)
    transcript.add(TASK)
    before = path.read_bytes()
    output = {"output_type": "stream", "name": "stdout", "text": "x" * 500_000}
    step = Step(Reply("r"), "r", "", CellResult("x", outputs=(output,)), Observation("seen"))
    with pytest.raises(TranscriptError, match="cannot be saved: No space left on device"):
        transcript.add(step)
    assert path.read_bytes() == before
    assert names(small_disk) == ["run.ipynb"]
    transcript.path = tmp_path / "run.ipynb"
    transcript.save()
    assert Transcript.load(tmp_path / "run.ipynb").entries == (TASK, step)


def test_what_killed_processes_left_is_removed_once_it_is_surely_left(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left = [f".run.ipynb.{gone.pid}-0123abcd.tmp", ".run.ipynb.0123abcd.tmp"]
    kept = [
        f".run.ipynb.{os.getpid()}-0123abcd.tmp",  # may be written by another thread
        ".run.ipynb.89abcdef.tmp",  # fresh, of nobody knows whom
        f".other.ipynb.{gone.pid}-0123abcd.tmp",
        ".run.ipynb.mine.tmp",
    ]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    os.utime(tmp_path / left[1], (0, 0))
    os.utime(tmp_path / kept[3], (0, 0))
    Transcript("s", path=tmp_path / "run.ipynb").save()
    assert names(tmp_path) == sorted([*kept, "run.ipynb"])


def test_a_loaded_large_file_may_be_cut_off_by_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "LARGE", 10)
    path = tmp_path / "run.ipynb"
    transcript = Transcript("s", path=path)
    for entry in (TASK, STEP, STEP):
        transcript.add(entry)
    loaded = Transcript.load(path)
    before = path.read_bytes()
    path.write_bytes(b"")
    loaded.path = tmp_path / "new.ipynb"
    loaded.save()
    assert (tmp_path / "new.ipynb").read_bytes() == before
    assert names(tmp_path) == ["new.ipynb", "run.ipynb"]
