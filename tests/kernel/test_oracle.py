"""nbclient, which executes notebooks for Jupyter's own tools, and our kernel give equal outputs.

Where they differ on purpose (order, late outputs, figures, an update of another cell's display)
there is a test in `test_whole_outputs`; one more difference is here: an error that IPython only
prints, and for which it sends no message of its own, is an error output with us.
"""

import subprocess

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NOTEBOOKS = {
    "text": ["print('a')\nprint('b', end='')", "x = 6 * 7\nx", "print(x)\nx + 1", "x;"],
    "rich": [
        "from IPython.display import HTML, JSON, Markdown, SVG, display\nHTML('<b>x</b>')",
        "display(Markdown('*a*'), {'b': 1}, JSON({'c': [1, 2]}), metadata={'isolated': True})",
        "import pandas as pd\npd.DataFrame({'a': [1, 2]})",
    ],
    "figures": [
        "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1))\nplt.plot([1, 2]);",
        "fig, ax = plt.subplots(figsize=(1, 1))\nax.plot([2, 1])\nplt.show()\nprint('shown')",
    ],
    "displays by id": [
        "h = display('one', display_id='1')\ndisplay('two', display_id='2')\nh.update('three')",
        "a = display('x', display_id='same')\nb = display('y', display_id='same')",
    ],
    "cleared": [
        "from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('kept')",
        "print('gone')\nclear_output(wait=True)\nprint('kept')",
        "print('kept')\nclear_output(wait=True)",
        "for n in range(5):\n    clear_output(wait=True)\n    display(n)",
    ],
    "errors": [
        "print('before')\n1 / 0",
        "raise ValueError('é' * 10)",
        "def f(:",
        "import sys\nsys.exit(3)",
        "%no_such_magic",
    ],
    "magics": ["%%capture kept\nprint('hidden')", "kept.stdout", "%pwd", "!echo from the shell"],
    "late": ["import asyncio", "await asyncio.sleep(0)\nprint('after the await')"],
}


def nbclient_outputs(sources, folder):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=60, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(stderr=subprocess.DEVNULL)
    return [cell["outputs"] for cell in notebook.cells]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_the_outputs_that_nbclient_gives_it(kernel, name, tmp_path):
    kernel.restart()
    kernel.execute(f"import os; os.chdir({str(tmp_path)!r})", counted=False)
    ours = [list(kernel.execute(source, timeout=60).outputs) for source in NOTEBOOKS[name]]
    theirs = nbclient_outputs(NOTEBOOKS[name], tmp_path)
    assert [list(filter(is_told_of, outputs)) for outputs in ours] == theirs


def is_told_of(output):
    return output["output_type"] != "error" or output["traceback"]
