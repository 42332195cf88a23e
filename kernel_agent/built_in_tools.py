"""The tools that come with the package, off unless they are asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kernel_agent.errors import SettingsError
from kernel_agent.tools import Tool
from kernel_agent.web_tools import visit_webpage_tool, web_search_tool, wikipedia_tool

ASK_USER = '''\
def ask_user(question: str) -> str:
    """Ask the user a question, and return what was typed."""
    return input(question.rstrip() + " ")
'''


def built_in(names: Sequence[str]) -> list[Tool]:
    """The built-in tools of these names.

    Raises SettingsError for an unknown name, and for a tool whose library is missing.
    """
    for name in names:
        if name not in BUILT_IN:
            known = ", ".join(sorted(BUILT_IN))
            raise SettingsError(f"There is no built-in tool {name!r}. Known: {known}.")
    return [BUILT_IN[name]() for name in names]


def ask_user_tool() -> Tool:
    """The tool `ask_user`: it runs in the kernel, so that its answers are kept as any input is."""
    stub = ASK_USER[: ASK_USER.index("    return")]
    return Tool("ask_user", stub, input, where="kernel", source=ASK_USER)


BUILT_IN: dict[str, Callable[[], Tool]] = {
    "ask_user": ask_user_tool,
    "visit_webpage": visit_webpage_tool,
    "web_search": web_search_tool,
    "wikipedia": wikipedia_tool,
}
"""The tools by name, each with what makes it."""
