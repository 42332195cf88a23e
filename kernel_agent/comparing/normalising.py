"""Takes out of a text what differs between two executions of the same code and means nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_agent.errors import SettingsError
from kernel_agent.terminal import plain_text

SHIPPED_RULES = Path(__file__).with_name("normalising.toml")


@dataclass(frozen=True)
class Rule:
    """What `pattern` finds is replaced by `replace` (as `re.sub` takes it); `name` says what."""

    name: str
    pattern: re.Pattern[str]
    replace: str


def load_rules(extension: Path | None = None) -> tuple[Rule, ...]:
    """The shipped rules, and those of the TOML file `extension` behind them.

    A rule of the same name takes the place of the shipped one. Raises SettingsError if the file
    cannot be read, or for a rule that is none.
    """
    rules = {rule.name: rule for rule in _read(SHIPPED_RULES)}
    if extension is not None:
        rules |= {rule.name: rule for rule in _read(extension)}
    return tuple(rules.values())


def compile_ignored(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """The regular expressions of what is to be dropped. Raises SettingsError."""
    return tuple(_compiled(pattern, f"--ignore: {pattern!r}") for pattern in patterns)


def without(text: str, ignored: Sequence[re.Pattern[str]]) -> str:
    """`text` without anything that one of the patterns finds."""
    for pattern in ignored:
        text = pattern.sub("", text)
    return text


def normalised(text: str, rules: Sequence[Rule]) -> str:
    """`text` as a terminal shows it, without blanks at line ends, and with every rule applied."""
    text = "\n".join(line.rstrip(" \t") for line in plain_text(text).split("\n"))
    for rule in rules:
        text = rule.pattern.sub(rule.replace, text)
    return text


def _read(file: Path) -> Iterable[Rule]:
    place = f"--rules {str(file)!r}"
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{place}: cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise SettingsError(f"{place}: is not TOML: {error}.") from error
    rules = found.pop("rule", [])
    if found or not isinstance(rules, list):
        raise SettingsError(f"{place}: holds something else than tables [[rule]].")
    return [_rule(number, data, place) for number, data in enumerate(rules, 1)]


def _rule(number: int, data: Any, place: str) -> Rule:
    match data:
        case {"name": str(name), "pattern": str(pattern), "replace": str(replace), **rest} if (
            not rest
        ):
            which = f"{place}: rule {name!r}"
            compiled = _compiled(pattern, which)
            try:
                compiled.sub(replace, "")
            except (re.error, IndexError) as error:
                raise SettingsError(f"{which}: its `replace` cannot be used: {error}.") from error
            return Rule(name, compiled, replace)
    raise SettingsError(
        f"{place}: rule {number} must have `name`, `pattern` and `replace`, all text, alone."
    )


def _compiled(pattern: str, which: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise SettingsError(f"{which} is no regular expression: {error}.") from error
