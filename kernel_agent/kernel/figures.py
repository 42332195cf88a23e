"""Runs inside the kernel: no matplotlib figure is lost, however it was made.

Shipped as text after `inside`. Jupyter shows figures of pyplot under its own backend. Two ways of
making them show nothing there: `Figure()` without pyplot has no image form, and after
`matplotlib.use("Agg")` figures are drawn and forgotten.
"""

import importlib
import sys
from typing import Any

from IPython import get_ipython
from IPython.core.pylabtools import print_figure

DRAWN_ONLY = frozenset(("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"))


def show_drawn() -> None:
    """Show and close the open figures of a backend that only draws, as Jupyter's own does."""
    if sys.modules["matplotlib.pyplot"].get_backend().lower() in DRAWN_ONLY:
        # It takes a while to import: only those wait for it who need it.
        importlib.import_module("matplotlib_inline.backend_inline").show(close=True)


def watch_pyplot(pyplot: Any) -> None:
    """Let `pyplot.show()`, and each cell's end, show the figures of such backends too."""
    show = pyplot.show

    def show_all(*args: Any, **options: Any) -> None:
        if pyplot.get_backend().lower() in DRAWN_ONLY:
            show_drawn()
        else:
            show(*args, **options)

    pyplot.show = show_all
    get_ipython().events.register("post_execute", show_drawn)


def install() -> None:
    inside = sys.modules["kernel_agent_inside"]
    sys.meta_path.insert(0, inside.AfterImport("matplotlib.pyplot", watch_pyplot))
    formatter = get_ipython().display_formatter.formatters["image/png"]
    formatter.for_type_by_name(
        "matplotlib.figure", "Figure", lambda figure: print_figure(figure, base64=True)
    )


install()
