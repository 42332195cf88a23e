"""nbclient's own test notebooks through nbclient and through our kernel, cell by cell.

`python -m tests.conformance.nbclient_notebooks` downloads nbclient's source distribution with pip
into a folder that is removed afterwards. With ipywidgets installed the notebooks with widgets do
what they are meant to. Exit code 1 if there is a difference that the list here does not explain.
"""

from __future__ import annotations

import argparse
import copy
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from kernel_agent.kernel import Kernel

SECONDS = 30

SKIPPED = {
    "Parallel Execute A": "waits for a second notebook that runs at the same time",
    "Parallel Execute B": "waits for a second notebook that runs at the same time",
    "Interrupt": "is about who gets an interrupt; its cell ends in no other way",
}

EXPLAINED = {
    "Autokill": "the kernel kills itself: nbclient raises, ours is a result with status died",
    "Output": "what is printed inside an Output widget goes into the widget's state in nbclient; "
    "with us it is the cell's output, which the model and a reader of the notebook see",
    "Clear Output": "clear_output inside an Output widget clears that widget in nbclient",
    "update-display-id": "an update of another cell's display changes that cell in nbclient; with "
    "us that cell is on disk and was shown by then, and the update is an output where it is made",
    "Skip Execution with Cell Tag": "the tag skip-execution is nbclient's, not the kernel's",
    "Check History in Memory": "nbclient keeps IPython's history in memory; we switch it off",
}

Outputs = list[dict[str, Any]]


def download(folder: Path) -> Path:
    """The folder with the notebooks of nbclient's newest source distribution."""
    options = ["--quiet", "--no-binary", ":all:", "--no-deps", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, "nbclient"], check=True)
    (archive,) = folder.glob("nbclient-*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    (found,) = folder.glob("nbclient-*/tests/files")
    return found


def theirs(notebook: Any, folder: Path) -> list[Outputs] | str:
    """The outputs of each code cell by nbclient; or what it raised."""
    notebook = copy.deepcopy(notebook)
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=SECONDS, allow_errors=True, resources=where)
    try:
        client.execute(stderr=subprocess.DEVNULL)
    except (DeadKernelError, CellTimeoutError) as error:
        return type(error).__name__
    return [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"]


def ours(notebook: Any, folder: Path) -> list[Outputs] | str:
    """The outputs of each code cell by our kernel; or that it died."""
    found = []
    with Kernel(cwd=folder) as kernel:
        for cell in notebook.cells:
            if cell["cell_type"] != "code":
                continue
            if not cell["source"].strip():
                found.append([])  # nbclient does not execute an empty cell
                continue
            result = kernel.execute(cell["source"], timeout=SECONDS)
            if result.status == "died":
                return result.reason
            found.append(list(result.outputs))
    return found


def plain(outputs: list[Outputs] | str) -> Any:
    """`outputs` without what differs from run to run: addresses, times, ids, counts, colours."""
    text = re.sub(r"0x[0-9a-f]+|ipykernel_\d+/\d+|[0-9a-f]{32}", "…", repr(jsonable(outputs)))
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "…", text)


def jsonable(value: Any) -> Any:
    """Dictionaries in one order, and no error that was only printed: nbclient has none."""
    if isinstance(value, dict):
        return {key: jsonable(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [
            jsonable(item)
            for item in value
            if not (isinstance(item, dict) and item.get("traceback") == [])
        ]
    return value


def report(name: str, our: list[Outputs] | str, their: list[Outputs] | str) -> bool:
    """Print how a notebook went; whether it is equal or explained."""
    if plain(our) == plain(their):
        print(f"equal      {name}")
        return True
    reason = EXPLAINED.get(name)
    print(f"{'explained' if reason else 'DIFFERENT':<10} {name}{f': {reason}' if reason else ''}")
    if reason is None:
        print(f"  ours:   {plain(our)[:2000]}\n  theirs: {plain(their)[:2000]}")
    return reason is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these notebooks")
    names = parser.parse_args().names
    well = True
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(download(Path(folder)).glob("*.ipynb")):
            if names and path.stem not in names:
                continue
            if path.stem in SKIPPED:
                print(f"skipped    {path.stem}: {SKIPPED[path.stem]}")
                continue
            notebook = nbformat.read(path, as_version=4)
            our, their = ours(notebook, path.parent), theirs(notebook, path.parent)
            well = report(path.stem, our, their) and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
