"""The record of a run: its entries in memory, and the notebook that holds them on disk.

`record` is the transcript itself. `cells` turns entries into notebook cells and `reading` turns
them back; `notebook` is the file; the others are what these stand on.
"""

from kernel_agent.transcript.notebook import new_path
from kernel_agent.transcript.record import Transcript

__all__ = ["Transcript", "new_path"]
