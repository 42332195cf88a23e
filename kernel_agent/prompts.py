"""The words the model is told: template files, rendered with strict variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from kernel_agent.errors import PromptError
from kernel_agent.shipped import shipped


class Prompts:
    """The prompt files that ship with the package, or a user's own in their place.

    `folder` may hold any of the files `system.md`, `task.md`, `observation.md`; those that it
    lacks are taken from the package. The files are Jinja templates.

    Raises PromptError if the folder does not exist.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folders = [shipped("prompts")]
        if folder is not None:
            if not folder.is_dir():
                raise PromptError(folder, "there is no such folder.")
            folders.insert(0, folder)
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folders),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # the result is text for a model, not HTML
        )

    def render(self, name: str, **variables: Any) -> str:
        """The text of prompt `name` (a file's name without `.md`), without blank lines around it.

        Raises PromptError for a variable that the file uses and nobody gave, and for a file
        that is no template: the message names the file and the line.
        """
        file = f"{name}.md"
        try:
            return self._environment.get_template(file).render(variables).lstrip("\n").rstrip()
        except jinja2.UndefinedError as error:
            known = ", ".join(sorted(variables))
            raise PromptError(file, f"{error.message}. It may use: {known}.") from error
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(file, f"line {error.lineno}: {error.message}.") from error
        except jinja2.TemplateError as error:
            raise PromptError(file, f"{error}.") from error
