"""The files of a running kernel: where they lie, and who removes them whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

LONGEST_FOLDER = 75  # bytes: a Unix socket's path has 104 at most, and 26 come after the folder
ROOM = 16_384  # bytes that a runtime folder must have room for

# Waits for the end of its standard input, which comes when the agent is gone, even by SIGKILL; then
# ends the kernel's process group and what was started in other sessions, and removes the kernel's
# files. A kernel that was being launched just then is waited for: ipykernel itself does not always
# notice that its parent is gone.
GUARD = """
while read -r line; do said=$line; done
[ "$said" = done ] && exit
tries=$TRIES
until [ -s "$1/pid" ] || [ $tries = 0 ]; do sleep 0.1; tries=$((tries - 1)); done
[ -s "$1/pid" ] && kill -s KILL -- "-$(cat "$1/pid")" 2>/dev/null
for environ in $(grep -lsF "KERNEL_AGENT_RUNTIME=$1" /proc/[0-9]*/environ); do
    process=${environ#/proc/}
    kill -s KILL "${process%/environ}" 2>/dev/null
done
rm -rf -- "$@"
"""


def runtime_places() -> list[str]:
    """The folders where the files of a running kernel may go, the best first."""
    places = [os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), tempfile.gettempdir()]
    return [place for place in places if place] + ([] if os.name == "nt" else ["/tmp"])


def new_runtime_folder(places: Sequence[str]) -> Path:
    """A new private folder in one of `places`: its path short enough for sockets, with room.

    Raises OSError that says of each place why it will not do.
    """
    refused = {}
    for place in places:
        if os.name != "nt" and len(os.fsencode(place)) > LONGEST_FOLDER:
            refused[place] = "the path is too long for sockets"
            continue
        try:
            return _new_folder(place)
        except OSError as error:
            refused[place] = error.strerror or str(error)
    reasons = "; ".join(f"{place!r}: {why}" for place, why in refused.items())
    raise OSError(f"There is no place for its sockets: {reasons}. Set TMPDIR to a usable folder")


def _new_folder(place: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kernel-agent-", dir=place))
    try:
        _check_room(folder)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _check_room(folder: Path) -> None:
    """Raises OSError if nothing can be written there: on a full disk a new folder may still fit."""
    probe = folder / f"room-{uuid.uuid4()}"
    try:
        probe.write_bytes(bytes(ROOM))
    finally:
        probe.unlink(missing_ok=True)


def connection_file_path(folder: Path) -> Path:
    """Where the connection file goes: where others find the kernel, else into its own `folder`."""
    runtime = Path(jupyter_runtime_dir())
    name = f"kernel-{uuid.uuid4()}.json"
    try:
        # Here `jupyter console --existing` and editors look.
        runtime.mkdir(parents=True, exist_ok=True)
        _check_room(runtime)
    except OSError:
        return folder / name
    return runtime / name


def start_guard(*paths: Path, has_kernel: bool = True) -> subprocess.Popen[bytes]:
    """Start the small shell that cleans up after this process, should it be killed.

    `has_kernel` says whether a kernel is launched whose files these are.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "kernel-agent-guard", *map(str, paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath, "TRIES": "50" if has_kernel else "0"},
        start_new_session=True,  # Ctrl-C in the agent's terminal is not meant for it
    )
