"""A run given on in another form: a page, a text, a script, a notebook without failed attempts.

`formats` chooses and writes. `pages` and `markdown` show a run, `script` and `cleaning` keep what
it did; `failures` knows what to do with a cell that failed, `reading` reads the cells.
"""

from kernel_agent.exporting.formats import FORMATS, export

__all__ = ["FORMATS", "export"]
