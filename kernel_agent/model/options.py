"""The options of a `LiteLLM` that are not sent to the provider."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from kernel_agent.errors import SettingsError
from kernel_agent.steps import Format

FORMATS = ("auto", *get_args(Format))


@dataclass(frozen=True)
class Options:
    """The options with their defaults; what each means, `LiteLLM` says."""

    retries: int = 6
    timeout: float = 600.0
    deadline: float = 1800.0
    stall: float = 120.0
    requests_per_minute: int | None = None
    reply_format: str = "auto"
    window: int | None = None
    exact_usage: bool = False

    def changed(self) -> dict[str, Any]:
        """Those that are not as they are by default, by name."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    def check(self) -> None:
        """Raises SettingsError for a value that means nothing."""
        if self.reply_format not in FORMATS:
            allowed = ", ".join(FORMATS)
            raise SettingsError(
                f"`reply_format` is {self.reply_format!r}. Allowed: {allowed}. "
                "`auto` chooses by what is known of the model."
            )
        if not _is_whole(self.retries) or self.retries < 0:
            raise SettingsError(f"`retries` is {self.retries!r}. Give a whole number from 0.")
        for name in ("timeout", "deadline", "stall"):
            seconds = getattr(self, name)
            is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not is_number or not 0 < seconds < 10**9:  # a queue cannot wait for ever
                raise SettingsError(f"`{name}` is {seconds!r}. Give seconds, more than 0.")
        for name in ("requests_per_minute", "window"):
            count = getattr(self, name)
            if count is not None and (not _is_whole(count) or count < 1):
                raise SettingsError(f"`{name}` is {count!r}. Give a whole number from 1, or None.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
