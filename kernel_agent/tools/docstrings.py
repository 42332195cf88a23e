"""Reads a docstring in Google, NumPy or Sphinx form and sets it again in one compact form."""

from __future__ import annotations

import inspect
from collections.abc import Collection

import docstring_parser
from docstring_parser import google, numpydoc, rest
from docstring_parser.common import (
    DocstringExample,
    DocstringMeta,
    DocstringParam,
    DocstringRaises,
    DocstringReturns,
)

from kernel_agent.tools.annotations import is_expression

_MORE_SECTIONS = "Note Notes Warning Warnings Tip Important References See_Also".split()
_GOOGLE = google.GoogleParser(  # sections that it does not know would be lost without a word
    [
        *google.DEFAULT_SECTIONS,
        *(
            google.Section(title.replace("_", " "), title.lower(), google.SectionType.SINGULAR)
            for title in _MORE_SECTIONS
        ),
    ]
)


def compact(docstring: str, *, parameters: Collection[str], typed: Collection[str]) -> str:
    """The docstring as the model is shown it: summary, details, a line for each parameter, …

    `parameters` are the names that the signature has; others are left out, unless it takes any
    (`"**"` is among them). Those in `typed` have an annotation, so that a type in the docstring
    is left out where it is one that could stand there. A docstring in no known form stays as it is.
    """
    text = inspect.cleandoc(docstring)
    read = _read(text)
    if read is None:
        return text
    summary, details = _line(read.short_description or ""), (read.long_description or "").strip()
    is_one = bool(details) and not read.blank_after_short_description
    blocks = [f"{summary}\n{details}"] if is_one else [summary, details]
    lines: list[str] = []
    for meta in read.meta:
        match meta:
            case DocstringParam(arg_name=name) if not _is_there(name, parameters):
                continue
            case DocstringExample():
                example = "\n".join(filter(None, (meta.snippet, meta.description)))
                lines += ["Example:", *(f"    {line}" for line in example.splitlines())]
            case _:
                lines.append(_meta_line(meta, typed))
    return "\n\n".join(block for block in [*blocks, "\n".join(lines)] if block)


def _read(text: str) -> docstring_parser.Docstring | None:
    """The docstring in the form that finds most in it; None if it cannot be read in any."""
    found = []
    for parse in (_GOOGLE.parse, numpydoc.parse, rest.parse):
        try:
            found.append(parse(text))
        except docstring_parser.ParseError:
            continue
    return max(found, key=lambda one: len(one.meta), default=None)


def _is_there(name: str, parameters: Collection[str]) -> bool:
    return name.lstrip("*") in parameters or "**" in parameters


def _meta_line(meta: DocstringMeta, typed: Collection[str]) -> str:
    said = _line(meta.description or "")
    match meta:
        case DocstringParam(arg_name=name, type_name=kind):
            head = _with_kind(name, kind, is_typed=name.lstrip("*") in typed)
        case DocstringReturns(is_generator=yields, type_name=kind):
            head = _with_kind("Yields" if yields else "Returns", kind, is_typed="return" in typed)
        case DocstringRaises(type_name=kind):
            head = f"Raises {kind}" if kind else "Raises"
        case _:
            head = " ".join(meta.args[:1]).replace("_", " ").capitalize()
    return f"{head}: {said}" if said else head


def _with_kind(head: str, kind: str | None, *, is_typed: bool) -> str:
    """Types of the signature are not said twice; what is said in words ("list of dicts") is."""
    if not kind or (is_typed and is_expression(kind)):
        return head
    return f"{head} ({kind})"


def _line(text: str) -> str:
    return " ".join(text.split())
