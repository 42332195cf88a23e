"""What a run sends: `python -m tests.benchmarks.costs [--peer smolagents] [--peer autogen]`.

Runs twenty scripted steps and an answer in each of our formats, and a peer's in the same way (see
`scripted`), and prints of the prompts, that is of messages, tools and schemas:

- their characters in all, and beside the first peer's; their tokens in all, by litellm's count;
- served: which share of a prompt is the prefix of the one before, so that a provider has it in its
  cache: of the second prompt, of the median one, and of all from the second on;
- from: the first prompt from which on at least 0.95 of each are served;
- kept: which share of a prompt is found again in the next one, at its least. What is missing
  there from 1 was changed, and is read twice; what is missing from `served` may just be new.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from kernel_agent import LiteLLM
from tests.benchmarks.scripted import PEERS, SOURCES, Done, ours

MORE_SOURCES = {
    "8,000 chars": (
        "for i in range(200): print(f'{{i:>5}} {{{step} * i:>12}} abcdefghijklmnopqrst')"
    ),
    "errors": "def third(rows):\n    return rows[{step} + 3]\n\nrows = [{step}]\nthird(rows)",
}
SERVED = 0.95


@dataclass(frozen=True)
class Sent:
    """The prompts of a run."""

    characters: int
    tokens: int
    served: list[float]
    served_in_all: float
    kept: float

    @property
    def high_from(self) -> int | None:
        """The number of the prompt from which on `SERVED` of each are; None if there is none."""
        low = [number for number, share in enumerate(self.served, 2) if share < SERVED]
        first = max(low, default=1) + 1
        return first if first <= len(self.served) + 1 else None


def sent(done: Done) -> Sent:
    prompts = [_prompt(body) for body in done.bodies]
    same = [_prefix(*pair) for pair in itertools.pairwise(prompts)]
    model = LiteLLM("openai/gpt-5")
    tokens = [model.count(body["messages"], body.get("tools") or ()) for body in done.bodies]
    characters = sum(map(len, prompts))
    return Sent(
        characters,
        sum(tokens),
        [share / len(prompt) for share, prompt in zip(same, prompts[1:], strict=True)],
        sum(same) / sum(map(len, prompts[1:])),
        min(share / len(prompt) for share, prompt in zip(same, prompts, strict=False)),
    )


def _prompt(body: dict[str, Any]) -> str:
    """What a model reads of a request, in the order in which it does: tools, schema, messages."""
    fixed = [body[name] for name in ("tools", "response_format") if name in body]
    return ", ".join(json.dumps(part) for part in (*fixed, *body["messages"]))


def _prefix(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=list(PEERS), action="append", default=[])
    ways: dict[str, Callable[[str], Done]] = {
        f"ours, {form}": partial(ours, reply_format=form) for form in ("fence", "tools", "json")
    }
    peers = parser.parse_args().peer
    ways |= {name: PEERS[name] for name in peers}
    beside = f"× {peers[0]}" if peers else ""
    print(
        f"{'':<12} {'':<12} {'characters':>10} {beside:>12} {'tokens':>8}   "
        f"{'served: 2nd':>11} {'median':>6} {'in all':>6} {'from':>4} {'kept':>6}"
    )
    for kind, source in {**SOURCES, **MORE_SOURCES}.items():
        found = {name: sent(way(source)) for name, way in ways.items()}
        for name, it in found.items():
            ratio = f"{it.characters / found[peers[0]].characters:.2f}" if peers else ""
            print(
                f"{kind:<12} {name:<12} {it.characters:>10,} {ratio:>12} {it.tokens:>8,}   "
                f"{it.served[0]:>11.3f} {statistics.median(it.served):>6.3f} "
                f"{it.served_in_all:>6.3f} {it.high_from or '-':>4} {it.kept:>6.3f}"
            )


if __name__ == "__main__":
    main()
