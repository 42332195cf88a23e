"""The words the model is told: template files, rendered with strict variables."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta

from kernel_agent.errors import PromptError
from kernel_agent.shipped import shipped


class Prompts:
    """The prompt files that ship with the package, or a user's own in their place.

    `folder` may hold any of them (`system.md`, `task.md`, `observation.md`, …); those that it
    lacks are taken from the package. The files are Jinja templates, and may include others of the
    folder.

    Raises PromptError if the folder does not exist, and for a file in it that is no template or
    that nothing would use.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folders = [shipped("prompts")]
        if folder is not None:
            if not folder.is_dir():
                raise PromptError(folder, "there is no such folder.")
            folders.insert(0, folder)
        self._loader = jinja2.FileSystemLoader(folders)
        self._environment = jinja2.Environment(
            loader=self._loader,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,  # or the line after an `include` would join its last one
            autoescape=False,  # the result is text for a model, not HTML
        )
        if folder is not None:
            self._check_names(folder)

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
            raise _syntax_error(error, file) from error
        except jinja2.TemplateError as error:
            raise PromptError(file, f"{error}.") from error

    def _check_names(self, folder: Path) -> None:
        """A misnamed file would be passed over in silence, and the package's own be used."""
        known = sorted(path.name for path in shipped("prompts").glob("*.md"))
        own = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".md")
        included = {name for file in own for name in self._included(file)}
        for file in own:
            if file not in known and file not in included:
                nearest = get_close_matches(file.lower(), known, n=1)
                meant = f"Did you mean {nearest[0]!r}? " if nearest else ""
                reason = f"no prompt has this name, and no file in {str(folder)!r} includes it."
                raise PromptError(file, f"{reason} {meant}Known: {', '.join(known)}.")

    def _included(self, file: str) -> Iterator[str | None]:
        """The names of the files that `file` includes; None for one that is only found out late."""
        try:
            source, _, _ = self._loader.get_source(self._environment, file)
            yield from meta.find_referenced_templates(self._environment.parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise _syntax_error(error, file) from error
        except UnicodeDecodeError as error:
            raise PromptError(file, f"it is not UTF-8 text: {error}.") from error


def _syntax_error(error: jinja2.TemplateSyntaxError, file: str) -> PromptError:
    # An included file's name is the error's own; `parse` does not know any.
    return PromptError(error.name or file, f"line {error.lineno}: {error.message}.")
