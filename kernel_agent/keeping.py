"""Saves the transcript of a run that goes on, elsewhere if it cannot be saved where it was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kernel_agent.errors import TranscriptError
from kernel_agent.events import Listener, TranscriptMoved
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.paths import free_path


def keep(transcript: Transcript, save: Callable[[], None], tell: Listener) -> None:
    """Call `save`, which changes `transcript` and saves it.

    If its file cannot be written any more (the disk is full, another program has changed it), the
    whole transcript goes to a new file beside it, or else into the folder for temporary files.

    Raises TranscriptError if it cannot be saved there either; the transcript has all it was given.
    """
    try:
        save()
    except TranscriptError as error:
        path = transcript.path
        if path is None:
            raise
        for folder in (path.parent, Path(tempfile.gettempdir())):
            with suppress(TranscriptError):
                transcript.path = free_path(folder / path.name)
                transcript.save()
                tell(TranscriptMoved(transcript.path, error.reason))
                return
        transcript.path = path
        raise
