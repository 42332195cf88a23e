"""A run of thirty steps in which everything happens that can: the record that others are tried on.

`python -m tests.thirty_steps FOLDER` writes it there and prints its path.
"""

import sys
from pathlib import Path

from kernel_agent import Agent, ScriptedModel

PROGRESS = """\
import sys, time
for i in range(11):
    sys.stderr.write(f"\\r{i * 10}%|{'#' * i:<10}| {i}/10 [00:0{i % 10}<00:00, {90 + i}.00it/s]")
    sys.stderr.flush()
    time.sleep(0.01)
sys.stderr.write("\\n")"""

FIGURE = """\
import matplotlib.pyplot as plt
fig, ax = plt.subplots(figsize=(4, 3))
ax.plot(range({n}), [i * i for i in range({n})])
ax.set(title="Squares", xlabel="number", ylabel="square")
plt.show()"""

CELLS = [
    "import pandas as pd\nnumbers = list(range(10))\nnumbers",
    "table = pd.DataFrame({'n': numbers, 'square': [n * n for n in numbers]})\ntable",
    "table.describe()",
    "mean = table['sqare'].mean()",  # an error
    "mean = table['square'].mean()\nmean",
    PROGRESS,
    FIGURE.format(n=10),
    "half = 1\n1 / 0",  # an error that leaves a variable
    "half + 1",
    "import time\nkept = 0\nwhile True:\n    kept += 1\n    time.sleep(0.01)",  # is interrupted
    "kept > 0",
    "object()",  # an address in memory
    "import tempfile\nfolder = tempfile.mkdtemp()\nprint(folder)",
    "%%time\ntotal = sum(range(1000))",
    "print('out')\nprint('err', file=sys.stderr)\nprint('out again')",
    "import os\nos._exit(3)",  # the kernel dies
    "numbers[:3], 'half' in dir()",
    "half",  # an error: it was lost
    "half = 2\nhalf",
    FIGURE.format(n=20),
    "from IPython.display import HTML, display\ndisplay(HTML('<b>bold</b>'))",
    "class Point:\n    def __init__(self, x):\n        self.x = x\npoint = Point(3)\npoint.x",
    "def twice(n):\n    return 2 * n\ntwice(point.x)",
    "squares = {n: n * n for n in numbers}\nsquares",
    "!echo from the shell",
    "await __import__('asyncio').sleep(0.01)\n'awaited'",
    "try:\n    {}['key']\nexcept KeyError as error:\n    print('caught', error)",
    "with open('written.txt', 'w') as file:\n    file.write('seven')",
    "result = round(mean + twice(half), 3)\nresult",
    "final_answer(result)",
]
ANSWER = 32.5


def replies() -> list[str]:
    """What the model says, one reply a cell."""
    return [f"Step {n}.\n```python\n{cell}\n```" for n, cell in enumerate(CELLS, 1)]


def record(folder: Path) -> Path:
    """Does the run, its notebook and its files in `folder`; returns the notebook's path."""
    model, path = ScriptedModel(replies()), folder / "thirty.ipynb"
    with Agent(model, cwd=folder, cell_timeout=2.0, max_steps=40) as agent:
        done = agent.run("Take thirty steps through everything that can happen.", out=path)
    assert done.answer == ANSWER, done.outcome
    return path


if __name__ == "__main__":
    sys.stdout.write(f"{record(Path(sys.argv[1]))}\n")
