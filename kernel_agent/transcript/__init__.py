"""The record of a run: its entries in memory, and the notebook that holds them on disk.

`record` is the transcript itself. `cells` turns entries into notebook cells and `reading` turns
them back; `notebook` writes the file and `loading` reads it, of which `layout` finds the parts;
the others are what these stand on.
"""

from kernel_agent.transcript.notebook import read_notebook
from kernel_agent.transcript.paths import free_path, new_path
from kernel_agent.transcript.reading import Problem
from kernel_agent.transcript.record import Transcript

__all__ = ["Problem", "Transcript", "free_path", "new_path", "read_notebook"]
