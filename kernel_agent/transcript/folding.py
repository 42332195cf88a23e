"""What is not part of an analysis, but of its making, as Markdown: collapsed and dimmed."""

from __future__ import annotations

from kernel_agent.drafts import drafts_in
from kernel_agent.steps import Reply
from kernel_agent.transcript.markdown import literal

# Opacity dims text and code on any background, and JupyterLab's sanitiser lets it through.
_FRAME = '<details style="opacity: 0.6"><summary>{}</summary>\n\n{}\n\n</details>'


def folded(title: str, text: str) -> str:
    """`text` below a `title` that opens it, shown as it was written: as no Markdown or HTML."""
    return _FRAME.format(title, literal(text))


def reasoning_text(reply: Reply) -> str:
    """The reasoning of `reply`, from beside its text and from the drafts in it; empty if none."""
    found = "\n\n".join(filter(str.strip, (reply.reasoning, *drafts_in(reply.text))))
    return folded("Reasoning", found) if found else ""
