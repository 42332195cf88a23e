"""What a model thought before it replied, as Markdown: collapsed and dimmed."""

from __future__ import annotations

from kernel_agent.drafts import drafts_in
from kernel_agent.steps import Reply
from kernel_agent.transcript.markdown import literal

# Opacity dims text and code on any background, and JupyterLab's sanitiser lets it through.
_FRAME = '<details style="opacity: 0.6"><summary>Reasoning</summary>\n\n{}\n\n</details>'


def reasoning_text(reply: Reply) -> str:
    """The reasoning of `reply`, from beside its text and from the drafts in it; empty if none.

    It is shown as it was written: nothing in it is Markdown or HTML.
    """
    found = "\n\n".join(filter(str.strip, (reply.reasoning, *drafts_in(reply.text))))
    return _FRAME.format(literal(found)) if found else ""
