"""What differs between two runs as one HTML page: side by side, figures too, without scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from html import escape
from itertools import zip_longest

from kernel_agent.differences.differing import Change, Diff, Pair, Side
from kernel_agent.differences.placing import Placed
from kernel_agent.terminal import plain_text

MAX_LINES = 2_000  # of one text; a browser shows no more in a reasonable time
STYLE = """
:root { color-scheme: light dark; --line: #8886; --gone: #ffd7d5; --new: #ccffd8; }
@media (prefers-color-scheme: dark) { :root { --gone: #67060c; --new: #033a16; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 90rem;
  padding: 0 1rem; }
header, section { margin-bottom: 1.2rem; }
.row { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; border-top: 1px solid var(--line);
  padding-top: .6rem; margin: 0 0 .4rem; } h3 { font-size: .85rem; opacity: .7; margin: .5rem 0; }
pre { font: 13px/1.4 ui-monospace, monospace; margin: 0; padding: .4rem .6rem;
  border: 1px solid var(--line); border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
pre:empty { border: 0; } del, ins { text-decoration: none; display: block; }
del { background: var(--gone); } ins { background: var(--new); }
img { max-width: 100%; background: #fff; } .same { opacity: .6; } .fork { font-weight: bold; }
""".strip()


def diff_page(diff: Diff, *, title: str, summary: str, fork: str) -> str:
    """`diff` as an HTML page of its own, for a browser.

    `title`, `summary` and `fork` (where a fork left its parent, if there is one) are plain text.
    All that comes from the notebooks is shown as text or as an image; the page's policy lets a
    browser run and fetch nothing.
    """
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<header>\n<h1>{_text(title)}</h1>\n<p>{_text(summary)}</p>",
        f'<p class="fork">{_text(fork)}</p>' if fork else "",
        _row(_about(diff.left), _about(diff.right)),
        "</header>",
        *_sections(diff),
        "</body>\n</html>\n",
    ]
    return "\n".join(filter(None, parts))


def _about(side: Side) -> str:
    usage = side.usage
    cost = "unknown" if usage.cost is None else f"${usage.cost:.4f}"
    facts = {
        "file": str(side.path or ""),
        "model": side.model,
        "steps": str(side.steps),
        "tokens": f"{usage.tokens:,}",
        "cost": cost,
        "seconds of model and kernel": f"{usage.model_seconds:.1f} + {usage.kernel_seconds:.1f}",
        "outcome": str(side.outcome or "unfinished"),
    }
    lines = "\n".join(f"{name}: {_text(fact)}" for name, fact in facts.items())
    return f"<pre>{lines}</pre>"


def _sections(diff: Diff) -> Iterator[str]:
    for index, pair in enumerate(diff.pairs):
        yield from _section(pair)
        if index == diff.fork_at:
            yield '<p class="fork">⑂ Here the fork left.</p>'
    for change in diff.changes:
        yield f"<section>\n<h2>{_text(change.what)}</h2>"
        yield f"{_row(*_marked(change))}\n</section>"


def _section(pair: Pair) -> Iterator[str]:
    names = (_text(item.name) if item else "–" for item in (pair.left, pair.right))
    yield '<section class="same">' if not pair.changes else "<section>"
    yield _row(*(f"<h2>{name}</h2>" for name in names))
    changes = {change.what: change for change in pair.changes}
    if changes:
        for change in pair.changes:
            if not change.what.startswith("figure "):
                yield f"<h3>{_text(change.what)}</h3>\n{_row(*_marked(change))}"
        yield from _figures(pair.left, pair.right)
    else:
        yield "<p>same</p>"
    yield "</section>"


def _figures(left: Placed | None, right: Placed | None) -> Iterator[str]:
    both = (item.figures if item else () for item in (left, right))
    for one, other in zip_longest(*both, fillvalue=""):
        yield _row(_image(one), _image(other))


def _image(url: str) -> str:
    return f'<div><img src="{escape(url)}" alt="figure"></div>' if url else "<div></div>"


def _marked(change: Change) -> tuple[str, str]:
    """Both texts, with the lines marked that the other does not have."""
    left, right = _lines(change.left), _lines(change.right)
    shown: tuple[list[str], list[str]] = ([], [])
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for how, start, end, other_start, other_end in matcher.get_opcodes():
        shown[0].append(_block(left[start:end], "" if how == "equal" else "del"))
        shown[1].append(_block(right[other_start:other_end], "" if how == "equal" else "ins"))
    first, second = ("".join(blocks).removesuffix("\n") for blocks in shown)
    return f"<pre>{first}</pre>", f"<pre>{second}</pre>"


def _lines(text: str) -> list[str]:
    lines = plain_text(text).splitlines()
    more = len(lines) - MAX_LINES
    return [*lines[:MAX_LINES], f"… {more:,} more lines"] if more > 0 else lines


def _block(lines: Sequence[str], tag: str) -> str:
    if not lines:
        return ""
    text = "\n".join(escape(line) for line in lines)
    # A block ends its line by itself.
    return f"<{tag}>{text}</{tag}>" if tag else f"{text}\n"


def _row(left: str, right: str) -> str:
    return f'<div class="row">\n{left}\n{right}\n</div>'


def _text(text: str) -> str:
    return escape(plain_text(text))
