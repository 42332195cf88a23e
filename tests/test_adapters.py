"""Tools of LangChain, smolagents and Gradio, made with the real libraries."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Literal

import pytest

from kernel_agent.adapters import adapted, space_tool
from kernel_agent.errors import ToolError


def test_what_is_no_tool_of_theirs_is_left_alone():
    class Tool:
        name = "x"

    for value in (print, Tool(), 3, "search", None):
        assert adapted(value) is None


def test_none_of_the_libraries_is_imported_for_it():
    program = (
        "import sys\n"
        "from kernel_agent.adapters import adapted\n"
        "adapted(print)\n"
        "names = ('langchain_core', 'smolagents', 'gradio_client', 'gradio')\n"
        "sys.exit(any(name in sys.modules for name in names))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_a_langchain_tool_has_its_types_and_can_be_called():
    tools = pytest.importorskip("langchain_core.tools")

    @tools.tool
    def search(query: str, kind: Literal["book", "song"] = "book", top: int | None = None) -> str:
        """Search the shop."""
        return f"{query} {kind} {top}"

    tool = adapted(search)
    assert tool.stub == (
        "def search(query: str, kind: Literal['book', 'song'] = 'book', "
        'top: int | None = None):\n    """Search the shop."""'
    )
    assert (tool.call("a"), tool.call("a", top=2)) == ("a book None", "a book 2")


def test_a_langchain_tool_that_has_only_a_coroutine_can_be_called():
    tools = pytest.importorskip("langchain_core.tools")

    @tools.tool
    async def later(query: str) -> str:
        """Search later."""
        return query.upper()

    assert adapted(later).call("a") == "A"


def test_a_class_of_langchain_with_a_name_that_is_no_identifier_gets_one():
    tools = pytest.importorskip("langchain_core.tools")

    class Wiki(tools.BaseTool):
        name: str = "wiki-search"
        description: str = "Look it up."

        def _run(self, title: str) -> dict[str, Any]:
            return {"title": title}

    tool = adapted(Wiki())
    assert tool.name == "wiki_search"
    assert tool.call(title="Rain") == {"title": "Rain"}


@pytest.mark.slow
def test_a_smolagents_tool_is_set_up_once_and_called():
    smolagents = pytest.importorskip("smolagents")

    class Count(smolagents.Tool):
        name = "count"
        description = "Count the words."
        inputs = {  # noqa: RUF012 - as smolagents wants it
            "text": {"type": "string", "description": "what to count in"},
            "top": {"type": "integer", "description": "at most", "nullable": True},
            "picture": {"type": "image", "description": "a picture", "nullable": True},
        }
        output_type = "integer"
        set_ups = 0

        def setup(self):
            self.set_ups += 1
            self.is_initialized = True

        def forward(self, text, top=None, picture=None):
            return min(len(text.split()), top or 99)

    value = Count()
    tool = adapted(value)
    assert tool.stub == (
        "def count(text: str, top: int | None = None, picture: Any = None) -> int:\n"
        '    """Count the words.\n\n'
        "    text: what to count in\n    top: at most\n    picture: a picture\n"
        '    """'
    )
    assert (tool.call("a b c"), tool.call("a b c", top=2)) == (3, 2)
    assert value.set_ups == 1


@pytest.mark.slow
def test_a_smolagents_function_tool_is_called():
    smolagents = pytest.importorskip("smolagents")

    @smolagents.tool
    def double(number: int) -> int:
        """Double a number.

        Args:
            number: the number
        """
        return 2 * number

    assert adapted(double).call(4) == 8


@pytest.mark.slow
def test_an_endpoint_of_a_gradio_app_is_a_tool():
    gradio = pytest.importorskip("gradio")
    pytest.importorskip("gradio_client")

    def greet(name: str, times: float = 2) -> str:
        return " ".join([f"Hello {name}"] * int(times))

    with gradio.Blocks() as app:
        name, times, shown = gradio.Textbox(), gradio.Number(2), gradio.Textbox()
        gradio.Button().click(greet, [name, times], shown, api_name="greet")
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, show_error=True)
    try:
        tool = space_tool(url, api_name="greet")
        assert tool.stub.startswith("def greet(name: str")
        assert tool.call("you", times=1) == "Hello you"
        assert tool.call("you") == "Hello you Hello you"
        with pytest.raises(ToolError, match=r"no endpoint '/paint'\. It has: /greet"):
            space_tool(url, api_name="/paint")
    finally:
        app.close()


@pytest.mark.slow
def test_an_app_that_cannot_be_reached_is_an_error_that_names_it():
    pytest.importorskip("gradio_client")
    with pytest.raises(ToolError, match=r"127\.0\.0\.1:9/' cannot be reached"):
        space_tool("http://127.0.0.1:9/", api_name="greet")
