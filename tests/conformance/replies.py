"""Reads recorded replies of many models and compares the code found with what people found.

`python -m tests.conformance.replies FILE.jsonl`: each line has `id`, `text`, `protocol` (the form:
fence, tag, json, unfenced, none), `category` (the shape) and `human` (`code`: the blocks to run,
`confidence`, `why`). Only lines whose confidence is `clear` count; of the others it is told what
became of them, so that a person can judge. The exit code is 1 if a form falls short.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kernel_agent.closing import BlockWatch
from kernel_agent.reply import RunCode, read_reply
from kernel_agent.steps import Reply

LEAST = {"fence": 0.98, "none": 0.98, "unfenced": 0.98, "tag": 0.9, "json": 0.9}


def main(path: Path) -> int:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    forms: Counter[tuple[str, bool]] = Counter()
    shapes: Counter[tuple[str, bool]] = Counter()
    for line in lines:
        if line["human"]["confidence"] != "clear":
            continue
        right = _is_right(line)
        forms[line["protocol"], right] += 1
        shapes[line["category"], right] += 1
    print("\n".join(_table("form", forms)))
    print("\n".join(_table("shape", shapes)))
    for line in lines:
        if line["human"]["confidence"] != "clear":
            print(f"{line['id']} ({line['human']['confidence']}): {_told(line)}")
        elif not _is_right(line):
            print(f"{line['id']} DIFFERS: {_told(line)}")
    changed = [line["id"] for line in lines if _closing_changes(line["text"])]
    closed = sum(_closed(line["text"]) is not None for line in lines)
    print(f"closed while streaming: {closed}; with other code than the whole: {changed or 'none'}")
    return int(bool(changed) or any(_share(forms, form) < LEAST[form] for form, _ in forms))


def _is_right(line: dict) -> bool:
    action = read_reply(Reply(line["text"]))
    found = action.source if isinstance(action, RunCode) else ""
    return _norm(found) in {_norm(glue.join(line["human"]["code"])) for glue in ("\n", "\n\n")}


def _norm(source: str) -> str:
    source = source.replace("\r\n", "\n").strip("\n")
    return "\n".join(line.rstrip() for line in source.split("\n")).strip()


def _told(line: dict) -> str:
    action = read_reply(Reply(line["text"]))
    found = getattr(action, "source", None) or getattr(action, "reason", "")
    kind = type(action).__name__
    return f"{kind} {found[:60]!r} [{line['category']}: {line['human']['why']}]"


def _closed(text: str) -> str | None:
    """What of a reply is kept if its stream is closed, or None if it runs to its end."""
    watch = BlockWatch(drafts="</think>" in text)
    for start in range(0, len(text), 4):
        if watch.feed(text[start : start + 4]):
            return watch.text
    return None


def _closing_changes(text: str) -> bool:
    kept = _closed(text)
    return kept is not None and _source(kept) != _source(text)


def _source(text: str) -> str | None:
    return getattr(read_reply(Reply(text)), "source", None)


def _share(counts: Counter[tuple[str, bool]], name: str) -> float:
    return counts[name, True] / (counts[name, True] + counts[name, False])


def _table(title: str, counts: Counter[tuple[str, bool]]) -> Iterator[str]:
    yield f"{title}: right of all"
    for name in sorted({name for name, _ in counts}):
        right = counts[name, True]
        yield f"  {right:4} of {right + counts[name, False]:4}  {name}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
