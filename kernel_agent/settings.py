"""The settings of a run and the source of each: a flag, a variable, the config file, a default."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from kernel_agent.errors import SettingsError


@dataclass(frozen=True)
class Settings:
    """What a run is started with.

    `effort` is how long the model is to think, `window` the tokens that messages and reply may
    have together: None leaves both to the model. `fallback` names the models that are asked when
    the first stays down. `max_cost` is in USD, `max_seconds` and `cell_timeout` in seconds,
    `max_chars` in characters of one observation; None is no limit. `plan_every` counts steps, 0 is
    never. `sources` says for each of the others where it comes from: `"--model"`,
    `"KERNEL_AGENT_MODEL"`, `"…/config.toml line 3"` or `"default"`.
    """

    model: str | None = None
    fallback: tuple[str, ...] = ()
    api_base: str | None = None
    effort: str | None = None
    reply_format: str = "auto"
    window: int | None = None
    requests_per_minute: int | None = None
    kernel: str = "python3"
    folder: Path = Path("runs")
    max_steps: int = 20
    max_cost: float | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    cell_timeout: float = 120.0
    max_chars: int = 8000
    plan_every: int = 0
    prompts: Path | None = None
    instructions: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        """What to name in a message about the setting: its source, or the flag to set it with."""
        source = self.sources.get(name, "default")
        return flag(name) if source == "default" else source


EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""All that litellm knows; which of them a model takes, is found out when it is checked."""

REPLY_FORMATS = ("auto", "fence", "tools", "json")

NAMES = tuple(item.name for item in fields(Settings) if item.name != "sources")


def flag(name: str) -> str:
    """The flag of a setting: `"max_steps"` → `"--max-steps"`."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting: `"max_steps"` → `"KERNEL_AGENT_MAX_STEPS"`."""
    return f"KERNEL_AGENT_{name.upper()}"


def config_file() -> Path:
    """Where the user's config file is, whether it exists or not."""
    return user_config_path("kernel-agent") / "config.toml"


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], config_path: Path
) -> Settings:
    """The settings in force: a flag wins over a variable, that over the config file.

    `flags` maps names of settings to what was typed, None or an empty list where nothing was;
    empty variables count as not set; a missing config file is an empty one. Raises SettingsError
    for a value that is not allowed, an unknown key and a file that cannot be read, naming the
    source.
    """
    found = _read_config(config_path)
    found |= {
        name: (value, variable(name)) for name in NAMES if (value := environ.get(variable(name)))
    }
    found |= {name: (value, flag(name)) for name, value in flags.items() if value not in (None, [])}
    values = {name: _parse(name, value, source) for name, (value, source) in found.items()}
    sources = {name: found[name][1] if name in found else "default" for name in NAMES}
    return Settings(**values, sources=sources)


def _read_config(path: Path) -> dict[str, tuple[object, str]]:
    """The keys of the file, each with its value and its source."""
    try:
        text = path.read_text(encoding="utf-8")
        config = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Mend or delete it.") from error
    except tomllib.TOMLDecodeError as error:
        end = f"the end, line {len(text.splitlines())}"
        reason = str(error).replace("end of document", end)
        raise SettingsError(f"{path} is not valid TOML: {reason}. Mend or delete it.") from error
    found = {key: (value, f"{path} line {_line(text, key)}") for key, value in config.items()}
    for key, (_, source) in found.items():
        if key not in NAMES:
            nearest = get_close_matches(key, NAMES, n=1)
            meant = f"Did you mean {nearest[0]!r}? " if nearest else ""
            raise SettingsError(f"{source}: no setting {key!r}. {meant}Known: {', '.join(NAMES)}.")
    return found


def _line(text: str, key: str) -> int:
    """The line (from 1) on which `key` is set: tomllib does not tell."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    lines = text.splitlines()
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)


def _parse(name: str, value: object, source: str) -> Any:
    parser, allowed = _PARSERS[name]
    try:
        return parser(value)
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"{source}: {value!r} is not allowed. {name} is {allowed}.") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _texts(value: object) -> tuple[str, ...]:
    """A list, or a text with commas between; at least one."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ValueError
    return tuple(_text(item) for item in items)


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if (word := _text(value).lower()) not in words:
            raise ValueError
        return word

    return parse


def _folder(value: object) -> Path:
    try:
        return Path(_text(str(value) if isinstance(value, Path) else value)).expanduser()
    except RuntimeError as error:  # `~name` of a user who does not exist
        raise ValueError from error


def _count(value: object) -> int:
    if _count_or_none(value) == 0:
        raise ValueError
    return _count_or_none(value)


def _count_or_none(value: object) -> int:
    # bool is an int to Python, and `max_steps = true` a mistake to everybody else.
    if isinstance(value, bool) or not isinstance(value, int | str) or int(value) < 0:
        raise ValueError
    return int(value)


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    amount = float(value)
    if not (amount > 0 and math.isfinite(amount)):
        raise ValueError
    return amount


_PARSERS: dict[str, tuple[Callable[[object], Any], str]] = {
    "model": (_text, "the name of a model as litellm takes it, such as 'openai/gpt-5'"),
    "fallback": (_texts, "a list of names of models, in a variable with commas between"),
    "api_base": (_text, "the URL of a server, such as 'http://127.0.0.1:8000/v1'"),
    "effort": (_one_of(*EFFORTS), f"one of {', '.join(EFFORTS)}"),
    "reply_format": (_one_of(*REPLY_FORMATS), f"one of {', '.join(REPLY_FORMATS)}"),
    "window": (_count, "a whole number of tokens from 1"),
    "requests_per_minute": (_count, "a whole number from 1"),
    "kernel": (_text, "the name of an installed Jupyter kernel, such as 'python3'"),
    "folder": (_folder, "the path of a folder"),
    "max_steps": (_count, "a whole number from 1"),
    "max_cost": (_amount, "a number of USD above 0"),
    "max_tokens": (_count, "a whole number from 1"),
    "max_seconds": (_amount, "a number of seconds above 0"),
    "cell_timeout": (_amount, "a number of seconds above 0"),
    "max_chars": (_count, "a whole number from 1"),
    "plan_every": (_count_or_none, "a whole number from 0, which is never"),
    "prompts": (_folder, "the path of a folder"),
    "instructions": (_text, "a text"),
}
