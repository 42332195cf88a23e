"""What a run begins with: the transcript's system prompt and facts, the data, the task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from kernel_agent import __version__
from kernel_agent.data import give
from kernel_agent.errors import DataError, TranscriptError
from kernel_agent.kernel import Kernel
from kernel_agent.limits import Limits
from kernel_agent.model import Model, check_media, reply_format
from kernel_agent.observation import observe
from kernel_agent.prompts import Prompts
from kernel_agent.steps import Rebuilt, Task
from kernel_agent.tool_use import about_tools, stand_ins
from kernel_agent.tools import READER, Tool, kernel_source, takes_json
from kernel_agent.transcript import Transcript, new_path
from kernel_agent.transcript.paths import free_path, new_folder

PRELUDE = '''\
def final_answer(value):
    """Show the answer to the task."""
    from IPython.display import Markdown, display

    display(Markdown(value) if isinstance(value, str) else value)
'''

EXAMPLES = {
    "python": """\
import pandas as pd
orders = pd.read_csv("orders.csv")
by_month = orders.groupby(orders["date"].str[5:7].astype(int))["amount"].sum()
by_month""",
    "r": """\
orders <- read.csv("orders.csv")
by_month <- tapply(orders$amount, substr(orders$date, 6, 7), sum)
by_month""",
    "bash": """\
awk -F, 'NR > 1 { s[substr($1, 6, 2)] += $2 } END { for (m in s) print m, s[m] }' orders.csv""",
}
NO_PREVIEW = "a file that is there. This kernel gives no preview of it, so look into it first."
LANGUAGES = {"python": "Python", "r": "R", "bash": "Bash"}


def system_prompt(
    model: Model,
    kernel: Kernel,
    prompts: Prompts,
    *,
    limits: Limits,
    cell_timeout: float,
    max_chars: int,
    instructions: str,
    tools: Sequence[Tool] = (),
) -> str:
    """What the model is told first of all, for the format that it replies in.

    The kernel must have been started. `cell_timeout` is what the model is told of it (seconds),
    `max_chars` how much it is shown of a cell's output, `instructions` text of the user's, `tools`
    what the code can call.
    """
    there = kernel.report("packages()") or {"python": "", "packages": []}
    language = kernel.language or "python"
    form = reply_format(model)
    others = [tool for tool in tools if tool.name != READER]
    native = [tool for tool in others if form == "tools" and takes_json(tool, language)]
    return prompts.render(
        "system",
        reply_format=form,
        language=language,
        language_name=LANGUAGES.get(language, language),
        example=EXAMPLES.get(language, "…"),
        python=there["python"],
        packages=there["packages"],
        images=model.takes_images,
        max_steps=limits.max_steps,
        cell_timeout=f"{cell_timeout:g}",
        max_chars=f"{max_chars:,}",
        budget=limits.told(),
        tools=[one.stub for one in others if one not in native],
        native_tools=[one.name for one in native],
        can_read_outputs=any(one.name == READER for one in tools) and language == "python",
        instructions=instructions,
    )


def begin(
    system: str,
    model: Model,
    kernel: Kernel,
    *,
    path: Path,
    limits: Limits,
    facts: Mapping[str, Any],
    tools: Sequence[Tool] = (),
    notebook: Path | None = None,
) -> Transcript:
    """The transcript of a new run, not saved yet; the kernel must have been started.

    `system` is its system prompt. `facts` are further ones for the metadata, `tools` what the
    code can call. With `notebook` it begins with the cells of that notebook of the user's.
    """
    about = {
        "version": __version__,
        "model": model.about(),
        "kernel": {
            "name": kernel.name,
            "version": kernel.info.get("implementation_version", ""),
            "isolation": "none",
            "packages": list(kernel.packages),
        },
        "limits": limits.about(),
        "tools": about_tools(tools),
        "reply_format": reply_format(model),
        **facts,
        "kernelspec": kernel.kernelspec,
        "language_info": kernel.info.get("language_info", {}),
    }
    is_python = (kernel.language or "python") == "python"
    prelude = "\n\n".join([PRELUDE, stand_ins(tools)]).rstrip() if is_python else ""
    if notebook is not None:
        return Transcript.continuing(
            notebook, system, path=path, cwd=kernel.cwd, prelude=prelude, about=about
        )
    return Transcript(system, path=path, cwd=kernel.cwd, prelude=prelude, about=about)


def check_model(model: Model, images: Sequence[str] = ()) -> None:
    """Raises ModelError if the model says that it cannot be asked, or takes none of `images`.

    Those are data URLs of images, audio or video.
    """
    if callable(check := getattr(model, "check", None)):
        check()
    kinds = {url.removeprefix("data:").partition(";")[0] for url in images}
    check_media(model, sorted(kinds))


@dataclass(frozen=True)
class Given:
    """What goes with a task: variables for the code, data files, and media as data URLs."""

    data: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ()
    images: tuple[str, ...] = ()


def take_on(
    text: str,
    given: Given,
    *,
    transcript: Transcript,
    kernel: Kernel,
    prompts: Prompts,
    rebuilt: Rebuilt | None = None,
    notebook: str = "",
    tools: Sequence[Tool] = (),
    wanted: str = "",
) -> Task:
    """Give the kernel what was `given`, and make the task that the model is sent.

    `rebuilt` is what the model is to know of the kernel's state, `notebook` the text of the
    user's notebook, `tools` those of which some may run in the kernel, `wanted`
    what the answer must be.

    Raises DataError if the kernel cannot read a value that it is given, or is no Python kernel.
    """
    data, files = given.data, given.files
    if data and kernel.language != "python":
        reason = f"variables go to Python only, and kernel {kernel.name!r} is none. Give a file."
        raise DataError(", ".join(data), reason)
    setup = _give(data, transcript, kernel) if data else ""
    if not transcript.tasks and (source := kernel_source(tools)):
        run_setup(kernel, source, "the tools that run in the kernel")
        setup = f"{source}\n\n{setup}".rstrip()
    prompt = prompts.render(
        "task",
        task=text.strip(),
        is_follow_up=bool(transcript.tasks),
        rebuilt=rebuilt,
        notebook=notebook,
        is_attached=not kernel.is_ours,
        wanted=wanted,
        files=kernel.previews("files", files) or [f"{file}: {NO_PREVIEW}" for file in files],
        variables=kernel.previews("variables", list(data)),
    )
    return Task(text, prompt, given.images, setup)


def data_file(file: str | Path, cwd: Path) -> str:
    """The path of a data file as code that works in `cwd` finds it: as given where it can be.

    Raises DataError if there is no such file.
    """
    path = Path(file)
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "there is no such file"
        raise DataError(str(file), f"{why}. The path is relative to {str(Path.cwd())!r}.")
    if path.is_absolute() or cwd == Path.cwd():
        return str(path)
    absolute = path.absolute()
    return str(absolute.relative_to(cwd) if absolute.is_relative_to(cwd) else absolute)


def notebook_path(
    task: str, *, folder: Path, out: str | Path | None, user_notebook: Path | None = None
) -> Path:
    """Where the notebook of a new run goes: `out`, or a name in `folder` made from the task.

    If it begins with a `user_notebook`: `out`, which may be that file, or a new name beside it.

    Raises TranscriptError if `out` exists.
    """
    if user_notebook is not None and out is None:
        return free_path(user_notebook)
    if out is None:
        return new_path(folder, task, date.today())
    if user_notebook is not None and Path(out).exists() and user_notebook.samefile(out):
        return Path(out)
    if os.path.lexists(out):
        raise TranscriptError(out, "it exists, and no file is overwritten. Choose another name.")
    return Path(out)


def _give(data: Mapping[str, Any], transcript: Transcript, kernel: Kernel) -> str:
    """Make the variables in the kernel; returns the source that did it."""
    path = transcript.path or kernel.cwd / "run.ipynb"
    number = f"-{len(transcript.tasks) + 1}" if transcript.tasks else ""
    folder = new_folder(path.with_name(f"{path.stem}-data{number}").absolute())
    try:
        given = give(data, folder=folder, cwd=kernel.cwd)
    finally:
        with suppress(OSError):  # where no value needs a file, none is there
            folder.rmdir()
    run_setup(kernel, given.source, ", ".join(data))
    return given.source


def run_setup(kernel: Kernel, source: str, what: str) -> None:
    """Execute what a task begins with. Raises DataError, which names `what` it is, if it fails."""
    result = kernel.execute(source, counted=False)
    if result.status != "ok":
        said = observe(result, max_chars=1000).text
        raise DataError(what, f"the kernel could not read it:\n{said}")
