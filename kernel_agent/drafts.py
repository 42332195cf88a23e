"""What of a reply does not count: its drafts, and what follows an output that it made up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from kernel_agent.blocks import Block, find_blocks
from kernel_agent.calls import called
from kernel_agent.syntax import parse

_NAMES = r"(?:seed:)?(?:think|thinking|reasoning|scratchpad)"
_CLOSING = rf"[<\[]/{_NAMES}[>\]]"
_DRAFT = re.compile(
    rf"""(?P<open>
        ^[ \t]*+(?:assistant:[ \t]*+)?[<\[]{_NAMES}[>\]]
      | ◁think▷ | <\|begin_of_thought\|>
      | (?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|> | \Aanalysis(?=(?-i:[A-Z]))
      | <\|channel>thought\b
    )
  | (?P<close>
        (?<!`){_CLOSING} | {_CLOSING}(?!`)
      | ◁/think▷ | <\|end_of_thought\|> | <channel\|> | assistantfinal(?=(?-i:[A-Z])|\W)
      | <\|end\|>\s*<\|start\|>assistant(?=(?:<\|channel\|>)?[^<\n]*[ ]to=)
      | (?:<\|end\|>\s*)?(?:<\|start\|>assistant)?<\|channel\|>(?:final|commentary)<\|message\|>
    )""",
    re.M | re.X | re.I,
)
"""Where a draft begins and ends: tags, tokens of single models, channels of gpt-oss and Gemma."""
_SOMETHING = re.compile(r"\S")

_OUTPUT = (
    r"(?:observation|(?:(?:code|console|execution|program)[ ])?output|execution[ ](?:result|log))s?"
)
MADE_UP = re.compile(
    rf"""^[ \t]*+(?:
      (?:\[/?INS\w*\]?:?[ \t]*+)?(?:assistant:[ \t]*+)*[*_#> \t]*+
        (?:{_OUTPUT}(?:[ ]\d+)?|stdout|user|human|ausgabe|salida|sortie|saída|вывод
          |输出(?:结果)?|(?:运行|执行)结果|观察(?:结果)?|出力|実行結果|출력)[*_ \t]*[:：](?!:)
    | (?:\#+[ \t]*{_OUTPUT}|(?P<bold>\*\*|__){_OUTPUT}(?P=bold))[ \t]*$
    | \#+[ \t]*(?:instruction|input|user|human)[ \t]*:
    | \[/?(?:{_OUTPUT}|out|results?|inst|users?)\]
    | <(?:observation|[\w-]*(?:output|results?)|tool_response|stdout|user|human)\b[^>\n]*>
    | (?:the[ ])?output(?:[ ]of[ ]the[ ]\w+)?(?:[ ](?:is|was))?:[ \t]*$
    | Out(?:[ ]?\[\d+\]:|:[ \t]*$) | stderr:[ \t]*$ | \(no[ ]output\)[ \t]*$
    | \[figure[ ]\d+×\d+[^\]\n]*\]
    | Variables:[ ]\w+:[ ] | …[ ][\d,]+[ ]characters\b | Traceback[ ]\(most[ ]recent
    | \[step[ ]\d+[ ]of[ ]\d+[\]:]
    | (?:`{{3,}}|~{{3,}})[ \t]*(?:output|stdout|result|observation|execution_result)\b
    )
  | (?<=`{{3}})(?:assistant|user)[ \t]*$
  | (?<![^`]`)(?:
      <\|(?:im_start|start_header_id|user|observation|im_end|eot_id|end
        |(?:end|start)_of_turn(?:_token)?)\|>
    | <start_of_turn> | <｜User｜> | </s>\s*\[INST\]
    )""",
    re.X | re.M | re.I,
)
"""Where an output or a turn begins that only somebody else can have written.

`Assistant:` alone is none: the model speaks on, and nothing was made up yet.
"""


def without_drafts(text: str, language: str) -> str:
    """`text` without what models think aloud: closed, never closed, or never opened drafts."""
    return _joined(text, _kept(text, language))


def drafts_in(text: str, language: str = "python") -> list[str]:
    """What `without_drafts` takes out of `text`, without the tags."""
    kept = _kept(text, language)
    ends = [0, *(end for _, end in kept)]
    starts = [*(start for start, _ in kept), len(text)]
    found = (_DRAFT.sub("", text[a:b]).strip() for a, b in zip(ends, starts, strict=True))
    return [draft for draft in found if draft]


def _kept(text: str, language: str) -> list[tuple[int, int]]:
    """Where the parts of `text` are that are no drafts."""
    tags = list(_DRAFT.finditer(text))
    if not tags or is_json(text):
        return [(0, len(text))]
    literal = {
        tag.start()
        for block in find_blocks(text, language)
        for tag in _DRAFT.finditer(text, block.start, block.end)
        if block.closed and (_is_code(block) or _is_call(block))
    }
    kept: list[tuple[int, int]] = []
    position = 0
    opened = closed = acted = False
    for tag in tags:
        if tag.start() in literal:
            continue
        if opened:
            if tag["close"]:
                position, opened, closed = tag.end(), False, True
            continue
        kept.append((position, tag.start()))
        position, opened = tag.end(), bool(tag["open"])
        if tag["close"]:
            # Once code has been answered by an output, a second closing tag is only litter.
            acted = acted or (closed and _has_acted(_joined(text, kept), language))
            if not acted and (not closed or _SOMETHING.search(text, position)):
                kept.clear()
            closed = True
    if not opened:
        kept.append((position, len(text)))
    return kept


def made_up_start(text: str, blocks: list[Block]) -> int | None:
    """Where the first made-up output or turn after code begins; code and quotes hold none.

    `blocks` are the text's. A bare block counts as code only where there is no other.
    """
    code = [block for block in blocks if block.kind in {"own", "call"}]
    code = code or [block for block in blocks if block.kind == "bare"]
    if not code:
        return None
    start = code[0].end
    for block in blocks:
        if block.kind in {"output", "stray"} or block.start < start:
            continue
        if marker := MADE_UP.search(text, start, block.start):
            return marker.start()
        start = block.end
    marker = MADE_UP.search(text, start)
    return marker.start() if marker else None


def is_json(text: str) -> bool:
    """Whether the whole text is JSON; raw line ends in its strings are borne with."""
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _joined(text: str, parts: Iterable[tuple[int, int]]) -> str:
    return "".join(text[start:end] for start, end in parts)


def _has_acted(text: str, language: str) -> bool:
    return made_up_start(text, find_blocks(text, language)) is not None


def _is_code(block: Block) -> bool:
    return block.kind in {"own", "bare"} and parse(block.source) is not None


def _is_call(block: Block) -> bool:
    return is_json(block.source) or (block.kind == "call" and bool(called(block.source)))
