"""The cells of a notebook as an export needs them: what each is for, and how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kernel_agent.errors import TranscriptError
from kernel_agent.steps import CellResult, CellStatus
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.cells import KEY
from kernel_agent.transcript.storable import storable_output

FAILED = ("error", "interrupted", "died", "running")


@dataclass(frozen=True)
class ReadCell:
    """A cell: `raw` as it lies on disk, `kind` what we wrote it for (`""`: somebody else did).

    `step` is its step's number. `result` is there for code; it is None for code that sets up, and
    `is_recorded` is False for code that was never executed.
    """

    raw: dict[str, Any]
    kind: str
    step: int | None
    source: str
    status: str
    result: CellResult | None = None

    @property
    def is_code(self) -> bool:
        return self.raw.get("cell_type") == "code"

    @property
    def is_setup(self) -> bool:
        return self.kind == "setup"

    @property
    def is_prelude(self) -> bool:
        """Whether it sets up a plain kernel like ours; other setups make the user's data."""
        return self.is_setup and self.raw.get("id") == "setup"

    @property
    def is_failed(self) -> bool:
        return self.is_code and self.status in FAILED

    @property
    def is_recorded(self) -> bool:
        return self.result is not None and self.result.execution_count is not None

    @property
    def is_aside(self) -> bool:
        """Whether it tells of the run and not of the analysis: reasoning, cuts, failed replies."""
        is_failed_reply = self.kind == "note" and self.step is not None
        return is_failed_reply or self.kind in ("reasoning", "cut")

    @property
    def name(self) -> str:
        """The name in a sentence: `"step 3"`, `"cell a1b2"`."""
        return f"step {self.step}" if self.step else f"cell {self.raw.get('id', '')}".rstrip()


@dataclass(frozen=True)
class ReadNotebook:
    """A notebook: its cells, its metadata, and the transcript that it holds."""

    path: Path
    cells: tuple[ReadCell, ...]
    metadata: dict[str, Any]
    minor: int
    transcript: Transcript

    @property
    def language(self) -> str:
        """The language of its code, in lower case."""
        for key, name in (("language_info", "name"), ("kernelspec", "language")):
            about = self.metadata.get(key)
            if isinstance(about, dict) and isinstance(about.get(name), str):
                return str(about[name]).lower()
        return "python"

    @property
    def is_ours(self) -> bool:
        return isinstance(self.metadata.get(KEY), dict)

    @property
    def cwd(self) -> Path:
        """The folder that the kernel worked in."""
        return self.transcript.cwd


def read(path: Path) -> ReadNotebook:
    """The notebook at `path`. Raises TranscriptError if there is none, or it is damaged."""
    transcript = Transcript.load(path)
    try:
        notebook = json.loads(path.read_bytes().decode("utf-8-sig"))
        cells = tuple(_read_cell(raw) for raw in notebook["cells"])
        metadata, minor = notebook["metadata"], notebook.get("nbformat_minor", 0)
    except OSError as error:
        raise TranscriptError(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = "is damaged, so it cannot be exported: `kernel-agent show` shows what is left"
        raise TranscriptError(path, f"{reason} ({error})") from error
    return ReadNotebook(path, cells, metadata, minor if isinstance(minor, int) else 0, transcript)


def joined(text: Any) -> str:
    """A text of a notebook, which may be a list of lines."""
    return "".join(text) if isinstance(text, list) else str(text)


def _read_cell(raw: dict[str, Any]) -> ReadCell:
    source, known = joined(raw.get("source", "")), raw.get("metadata", {}).get(KEY, {})
    known = known if isinstance(known, dict) else {}
    kind, step = known.get("kind", ""), known.get("step")
    outputs = tuple(storable_output(output) for output in raw.get("outputs") or ())
    status = known.get("status") or _status(outputs)
    result = None
    if raw.get("cell_type") == "code" and kind != "setup":
        count, seconds = raw.get("execution_count"), known.get("seconds")
        result = CellResult(
            source,
            next((one for one in get_args(CellStatus) if one == status), "ok"),
            outputs,
            count if isinstance(count, int) else None,
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        )
    return ReadCell(
        raw,
        kind if isinstance(kind, str) else "",
        step if isinstance(step, int) else None,
        source,
        status if isinstance(status, str) else "ok",
        result,
    )


def _status(outputs: tuple[dict[str, Any], ...]) -> str:
    return "error" if any(one["output_type"] == "error" for one in outputs) else "ok"
