"""Everything that goes wrong for the user, as one tree of exceptions.

    KernelAgentError
    ├── KernelError
    │   ├── KernelStartError
    │   ├── KernelBusyError
    │   └── DeadKernelError
    ├── ModelError
    │   ├── ModelUnavailableError
    │   ├── ModelAuthenticationError
    │   └── ContextWindowExceededError
    ├── DataError
    ├── PromptError
    ├── ToolError
    ├── McpServerError
    ├── TranscriptError
    │   └── ReplayMismatchError
    └── SettingsError

A message says what happened, to which thing, why, and what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class KernelAgentError(Exception):
    """The root: catch this to catch all of ours."""

    def __reduce__(self) -> Any:
        # Constructors take other things than the message: to another process it goes whole.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[KernelAgentError], args: tuple[Any, ...], facts: dict[str, Any]) -> Any:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class KernelError(KernelAgentError):
    """A kernel could not do what was asked."""


class KernelStartError(KernelError):
    """A kernel did not start. `kernel_name` and `reason` say which and why."""

    def __init__(self, kernel_name: str, reason: str) -> None:
        super().__init__(f"Kernel {kernel_name!r} did not start: {reason}")
        self.kernel_name = kernel_name
        self.reason = reason


class KernelBusyError(KernelError):
    """A kernel of somebody else executes other code. `kernel_name` says which.

    `seconds` is how long it has been busy, as far as is known: at least so long.
    """

    def __init__(self, kernel_name: str, seconds: float, reason: str) -> None:
        super().__init__(
            f"Kernel {kernel_name!r} has been busy for at least {seconds:.1f} s: {reason} "
            "Try again when it is free."
        )
        self.kernel_name = kernel_name
        self.seconds = seconds
        self.reason = reason


class DeadKernelError(KernelError):
    """A method was called on a kernel that is not running."""


class ModelError(KernelAgentError):
    """A model gave no reply. `model` is its name."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"Model {model!r}: {reason}")
        self.model = model
        self.reason = reason


class ModelUnavailableError(ModelError):
    """The model cannot be reached or is overloaded: worth another try.

    `retry_after` is the wait that the provider asked for, in seconds, or None.
    """

    def __init__(self, model: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(model, reason)
        self.retry_after = retry_after


class ModelAuthenticationError(ModelError):
    """The key is missing, wrong, or not allowed to use this model."""


class ContextWindowExceededError(ModelError):
    """The messages are longer than the model's context window."""


class DataError(KernelAgentError):
    """Data that cannot be given to the kernel. `name` says which."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Data {name!r}: {reason}")
        self.name = name
        self.reason = reason


class PromptError(KernelAgentError):
    """A prompt file cannot be rendered. `file` says which."""

    def __init__(self, file: str | Path, reason: str) -> None:
        super().__init__(f"Prompt {str(file)!r}: {reason}")
        self.file = str(file)
        self.reason = reason


class ToolError(KernelAgentError):
    """A function that cannot be a tool, or a tool that cannot do its part. `name` says which."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Tool {name!r}: {reason}")
        self.name = name
        self.reason = reason


class McpServerError(KernelAgentError):
    """An MCP server cannot be used. `server` is its name."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"MCP server {server!r}: {reason}")
        self.server = server
        self.reason = reason


class TranscriptError(KernelAgentError):
    """A transcript cannot be read or written. `path` says which."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"Transcript {str(path)!r}: {reason}")
        self.path = Path(path)
        self.reason = reason


class ReplayMismatchError(TranscriptError):
    """A cell that is executed again calls a tool otherwise than the record at `path` has it.

    `step` names the cell (`"step-3"`); `difference` is the first thing that differs.
    """

    def __init__(self, path: str | Path, step: str, difference: str) -> None:
        super().__init__(path, f"{step}: {difference}")
        self.step = step
        self.difference = difference


class SettingsError(KernelAgentError):
    """A flag, variable or file has a bad value: the message says which and what is allowed."""
