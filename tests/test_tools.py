"""Tools as values: what callables become, what the model is shown, how a call is served."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import datetime
import enum
import functools
import inspect
import json
import math
import os.path
import threading
import warnings
import xml.etree.ElementTree
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.border.codec import decode, encode
from kernel_agent.errors import KernelAgentError, ToolError
from kernel_agent.kernel.serving import Offer
from kernel_agent.steps import CellResult, Reply, Step
from kernel_agent.tools import Tool, Toolbox, as_tool, kernel_source, output_reader, tool
from kernel_agent.tools.stubs import docstring_source

LIMIT = 10

pytestmark = pytest.mark.filterwarnings("ignore:Tool .* has no docstring")


def search(query: str, top: int = 5) -> list[dict]:
    """Search the web.

    Args:
        query (str): what to
            look for
        top: how many results

    Returns:
        list of dicts: title and url

    Raises:
        ValueError: if the query is empty
    """
    return [{"query": query, "top": top}]


def call(box: Toolbox, name: str, *args: Any, folder: Path | None = None, **kwargs: Any) -> Any:
    """What a cell gets that calls the tool."""
    arguments = {
        "args": [encode(one, folder=folder) for one in args],
        "kwargs": {key: encode(one, folder=folder) for key, one in kwargs.items()},
    }
    result = box.serve(name, json.loads(json.dumps(arguments)), folder=folder)
    return decode(json.loads(json.dumps(result)), folder=folder)


def line(value: Any) -> str:
    return as_tool(value).stub.partition("\n")[0]


def refused(make: Callable[[], Any]) -> str:
    with pytest.raises(ToolError) as caught:
        make()
    assert isinstance(caught.value, KernelAgentError)
    return str(caught.value)


# What the model is shown


def test_a_function_becomes_its_def_line_and_a_compact_docstring():
    assert (
        as_tool(search).stub
        == '''\
def search(query: str, top: int = 5) -> list[dict]:
    """Search the web.

    query: what to look for
    top: how many results
    Returns: list of dicts: title and url
    Raises ValueError: if the query is empty
    """'''
    )


NUMPY = """Search the web.

More about it.

Parameters
----------
query : str
    what to look for
top : int, optional
    how many

Returns
-------
list
    the hits

Notes
-----
Be nice.

Examples
--------
>>> search("x")
"""
SPHINX = """Search the web.

More about it.

:param query: what to look for
:type query: str
:param top: how many
:returns: the hits
:raises ValueError: if it is empty
"""
GOOGLE = """Search the web.

More about it.

Args:
    query (str): what to look for
    top: how many

Note:
    Be nice.

Returns:
    the hits
"""


@pytest.mark.parametrize(
    ("docstring", "lines"),
    [
        (NUMPY, ["Returns (list): the hits", "Notes: Be nice.", "Example:", '    >>> search("x")']),
        (SPHINX, ["Returns: the hits", "Raises ValueError: if it is empty"]),
        (GOOGLE, ["Note: Be nice.", "Returns: the hits"]),
    ],
    ids=["numpy", "sphinx", "google"],
)
def test_a_docstring_of_any_form_is_set_again_with_nothing_lost(docstring, lines):
    def search(query, top: int = 1): ...

    search.__doc__ = docstring
    shown = inspect.cleandoc(ast.get_docstring(ast.parse(as_tool(search).stub).body[0]))
    head = ["Search the web.", "", "More about it.", ""]
    parameters = ["query (str): what to look for", "top: how many"]
    assert shown.splitlines() == [*head, *parameters, *lines]


def test_a_docstring_in_no_form_stays_as_it_is():
    def look():
        """Look: it is
        here, or there."""

    assert as_tool(look).stub.endswith('"""Look: it is\n    here, or there.\n    """')


def test_parameters_that_were_bound_are_not_described():
    bound = functools.partial(search, "cats")
    assert "query: " not in as_tool(bound).stub
    assert line(bound) == "def search(top: int = 5) -> list[dict]:"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(TypedDict, total=False):
    city: str


@dataclasses.dataclass
class Span:
    first: int
    last: int | None = None


class Model(pydantic.BaseModel):
    name: str
    tags: list[str] = []


def test_types_are_written_as_a_person_would():
    def f(  # noqa: PLR0917
        a: list[dict[str, int]],
        b: int | None,
        c: Literal["a", "b", 3],
        d: datetime.date,
        e: Callable[[int], str] | None,
        f: Annotated[int, "of something"],
        g: tuple[int, ...],
        h: Color,
        i: Missing,  # noqa: F821
        j: Any,
        k: None,
        /,
        l: "not an expression",  # noqa: F722, E741
        *rest: int,
        **more,
    ) -> set[Path]: ...

    assert line(f) == (
        'def f(a: list[dict[str, int]], b: int | None, c: Literal["a", "b", 3], d: date, '
        "e: Callable[[int], str] | None, f: int, g: tuple[int, ...], "
        'h: Literal["red", "blue"], i: Missing, j: Any, k: None, /, l, *rest: int, **more) '
        "-> set[Path]:"
    )


def test_defaults_are_written_where_they_are_literals():
    odd = object()

    def f(a="x", /, *, b=1.5, c=(1, 2), d=None, e=odd, f=math.inf, g=Color.RED, h="x" * 200): ...

    assert line(f) == ('def f(a="x", /, *, b=1.5, c=(1, 2), d=None, e=..., f=..., g="red", h=...):')


def test_classes_that_the_kernel_lacks_are_described_as_dicts():
    def f(place: Place, spans: list[Span], model: Model | None = None): ...

    stub = as_tool(f).stub
    assert "Place: a dict {city?: str}" in stub
    assert "Span: a dict {first: int, last?: int | None}" in stub
    assert "Model: a dict {name: str, tags?: list[str]}" in stub


ODD = st.text(alphabet="\"\\\n a\t'\x1b", max_size=20)


@given(st.one_of(st.text(max_size=60), ODD).filter(str.strip))
def test_every_docstring_is_read_back_from_the_source_as_it_was(text):
    source = f"def f():\n{docstring_source(text)}"
    read = ast.parse(source).body[0].body[0].value.value
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()
    lines = [line if line.strip() else "" for line in clean.split("\n")]
    assert inspect.cleandoc(read) == inspect.cleandoc("\n".join(lines))


def test_a_missing_docstring_is_a_warning_that_names_the_tool():
    def bare(): ...

    with pytest.warns(UserWarning, match="'bare' has no docstring"):
        as_tool(bare)


# Whatever can be called


class Greeter:
    """Greets people."""

    def __init__(self):
        self.set_up = 0
        self.closed = 0
        self.fails = False

    def setup(self):
        self.set_up += 1
        if self.fails:
            self.fails = False
            raise OSError("not ready")

    def forward(self, name: str) -> str:
        return f"Hello {name}, {self.set_up}"

    def close(self):
        self.closed += 1

    def method(self, name: str) -> str:
        """Greet."""
        return name


class WebSearch2:
    def __call__(self, query: str) -> str:
        """Search."""
        return query


def greet(name: str) -> str:
    """Greet."""
    return f"Hi {name}"


async def wait(seconds: float = 0) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return threading.current_thread().name


def test_whatever_can_be_called_is_a_tool():
    box = Toolbox(
        [
            search,
            tool(name="root")(math.sqrt),
            tool(name="double")(lambda x: 2 * x),
            tool(name="few")(functools.partial(search, top=1)),
            Greeter().method,
            WebSearch2(),
            functools.cache(greet),
            wait,
        ]
    )
    assert call(box, "search", "x") == [{"query": "x", "top": 5}]
    assert call(box, "root", 9) == 3
    assert call(box, "double", 4) == 8
    assert call(box, "few", "x") == [{"query": "x", "top": 1}]
    assert call(box, "method", "Ann") == "Ann"
    assert call(box, "web_search2", "x") == "x"
    assert call(box, "greet", "Bo") == "Hi Bo"
    assert call(box, "wait") == "kernel-agent-tools"
    box.close()


def test_an_instance_is_set_up_once_before_its_first_call_and_closed_once():
    greeter = Greeter()
    box = Toolbox([greeter])
    assert (greeter.set_up, line(greeter)) == (0, "def greeter(name: str) -> str:")
    assert [call(box, "greeter", "Ann") for _ in range(2)] == ["Hello Ann, 1"] * 2
    box.close()
    box.close()
    assert greeter.closed == 1


def test_a_setup_that_fails_is_tried_again_by_the_next_call():
    greeter = Greeter()
    greeter.fails = True
    box = Toolbox([greeter])
    with pytest.raises(OSError, match="not ready"):
        call(box, "greeter", "Ann")
    assert call(box, "greeter", "Ann") == "Hello Ann, 2"


def test_a_tool_that_cannot_be_closed_does_not_keep_the_others_open():
    class Stuck(Greeter):
        def close(self):
            raise OSError("stuck")

    greeter = Greeter()
    box = Toolbox([Stuck(), greeter])
    with pytest.warns(UserWarning, match="'stuck' could not be closed"):
        box.close()
    assert greeter.closed == 1


def test_a_tool_is_still_a_function_of_the_users():
    @tool(timeout=3)
    def add(a, b=1):
        """Add."""
        return a + b

    assert (add.name, add.timeout, add.where) == ("add", 3, "host")
    assert add(1, b=5) == 6
    assert as_tool(add) is add


def test_one_function_can_be_two_tools():
    one, two = tool(name="one")(search), tool(name="two", timeout=None)(search)
    assert (one.name, two.name, two.timeout) == ("one", "two", None)


class Stock:
    def look(self, isbn): ...


def generate():
    yield 1


def with_callback(items: list, key: Callable[[int], int]): ...


def unnamed_arguments(*args, **kwargs): ...


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: as_tool(lambda x: x), ["<lambda>", "tool(name="]),
        (lambda: as_tool(Greeter), ["class", "instance"]),
        (lambda: as_tool(3), ["cannot be called"]),
        (lambda: as_tool(len), ["'len'", "needs this name itself"]),
        (lambda: tool(name="final_answer")(search), ["needs this name itself"]),
        (lambda: tool(name="class")(search), ["cannot be the name"]),
        (lambda: tool(name="a b")(search), ["cannot be the name"]),
        (lambda: tool(name="_x")(search), ["IPython"]),
        (lambda: tool(name="newest")(max), ["signature", "Wrap it"]),
        (lambda: as_tool(Stock.look), ["'self'", "tool(instance.method)"]),
        (lambda: as_tool(generate), ["one by one", "list"]),
        (lambda: as_tool(with_callback), ["'key'", "function cannot leave the kernel"]),
        (lambda: tool(timeout=0)(search), ["timeout is 0"]),
        (lambda: tool(where="moon")(search), ["'moon'"]),
        (lambda: tool(name="other")(as_tool(search)), ["tool already"]),
        (lambda: Toolbox([search, search]), ["2 tools have this name"]),
        (lambda: Tool("f", "def g(): ...", search), ["def f("]),
        (lambda: Tool("f", "def f(:", search), ["no Python"]),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_a_reason(make, words):
    message = refused(make)
    assert all(word in message for word in words), message


def test_any_number_of_arguments_without_annotation_is_fine():
    assert line(unnamed_arguments) == "def unnamed_arguments(*args, **kwargs):"


# Serving


def typed(
    count: int,
    kind: Literal["a", "b"] = "a",
    when: datetime.date | None = None,
    span: Span | None = None,
    *,
    items: Iterable[int] = (),
    odd: Missing = None,  # noqa: F821
) -> str:
    """Show what came."""
    return repr((count, kind, when, span, items, odd))


def test_arguments_are_converted_by_the_annotations():
    box = Toolbox([typed])
    shown = call(
        box, "typed", "5", "b", when="2024-01-02", span={"first": "1"}, items=("1", 2), odd=[1]
    )
    when, span = datetime.date(2024, 1, 2), Span(1)
    assert shown == repr((5, "b", when, span, [1, 2], [1]))


def test_arguments_that_do_not_fit_are_named_with_what_was_given_and_what_is_allowed():
    box = Toolbox([typed])
    with pytest.raises(TypeError) as caught:
        call(box, "typed", "five", "c", span={"first": "x"})
    assert str(caught.value) == (
        "typed(): count is 'five' (str). Input should be a valid integer, unable to parse string "
        "as an integer.\n"
        "kind is 'c' (str). Input should be 'a' or 'b'.\n"
        "span['first'] is 'x' (str). Input should be a valid integer, unable to parse string as "
        "an integer.\n"
        f"It is {line(typed).removeprefix('def ').rstrip(':')}"
    )


def test_a_call_that_does_not_fit_the_signature_says_what_it_is():
    box = Toolbox([search])
    with pytest.raises(TypeError, match=r"missing a required argument: 'query'.*It is search\("):
        call(box, "search", top=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'limit'"):
        call(box, "search", "x", limit=3)


def test_arguments_reach_parameters_of_every_kind():
    def f(a, /, b, *rest: int, c=3, **more: float):
        """Show."""
        return repr((a, b, rest, c, more))

    box = Toolbox([f])
    assert call(box, "f", 1, b=2) == "(1, 2, (), 3, {})"
    assert call(box, "f", 1, 2, "3", c=4, d="5") == "(1, 2, (3,), 4, {'d': 5.0})"
    with pytest.raises(TypeError, match="d is 'x'"):
        call(box, "f", 1, 2, d="x")


def test_lists_that_are_called_iterables_can_be_gone_through_twice():
    def twice(a: Iterable[int], b: Iterable[int] | None = None, c: Iterable = ()):
        """Show."""
        return [[*values, *values] for values in (a, b, c)]

    box = Toolbox([twice])
    assert call(box, "twice", ["1"], [2], [3]) == [[1, 1], [2, 2], [3, 3]]


def test_a_wrapper_that_takes_places_only_gets_places():
    @functools.wraps(search)
    def wrapped(*args):
        return search(*args)

    assert call(Toolbox([wrapped]), "search", "x", "3") == [{"query": "x", "top": 3}]


def test_positional_arguments_of_a_tool_made_by_hand_go_by_the_names_of_its_stub():
    by_hand = Tool("look", "def look(isbn: str, depth: int = 1):\n    ...", lambda **k: k)
    assert call(Toolbox([by_hand]), "look", "x", 2) == {"isbn": "x", "depth": 2}


def test_errors_of_a_tool_pass_as_they_are():
    def fail():
        """Fail."""
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        call(Toolbox([fail]), "fail")


def test_a_result_that_cannot_be_given_is_an_error_that_says_so():
    def lock():
        """Get a lock."""
        return {"a": [threading.Lock()]}

    with pytest.raises(ToolError, match=r"what lock\(\) returned\['a'\]\[0\]"):
        call(Toolbox([lock]), "lock")


def test_an_unknown_tool_is_an_error_that_lists_those_that_there_are():
    with pytest.raises(ToolError, match=r"no such tool\. There are: search"):
        call(Toolbox([search]), "find")


def test_large_values_lie_in_files(tmp_path):
    def echo(value: bytes) -> bytes:
        """Give it back."""
        return value

    content = bytes(200_000)
    assert call(Toolbox([echo]), "echo", content, folder=tmp_path) == content
    assert list(tmp_path.iterdir())


def test_coroutines_of_many_threads_run_together_on_one_loop():
    async def meet() -> int:
        """Wait for the other."""
        nonlocal here
        here += 1
        if here == 2:
            both.set()
        await both.wait()
        return threading.get_ident()

    here, both = 0, asyncio.Event()
    with Toolbox([meet]) as box:
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(call(box, "meet"))) for _ in range(2)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(10)
    assert len(found) == 2
    assert found[0] == found[1]


def test_a_coroutine_is_cancelled_at_its_timeout():
    ended = threading.Event()

    @tool(timeout=0.01)
    async def hang():
        """Hang."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with Toolbox([hang]) as box, pytest.raises(TimeoutError, match=r"hang\(\) has not ended"):
        call(box, "hang")
    assert ended.wait(5)


def test_closing_ends_coroutines_that_still_run():
    started = threading.Event()

    @tool(timeout=None)
    async def hang():
        """Hang."""
        started.set()
        await asyncio.Event().wait()

    box = Toolbox([hang])
    errors: list[BaseException] = []

    def run():
        try:
            call(box, "hang")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    box.close()
    thread.join(10)
    assert len(errors) == 1
    with pytest.raises(RuntimeError, match="closed"):
        call(box, "hang")


def test_offers_and_prompt_hold_the_stubs():
    @tool(where="kernel")
    def area(radius: float) -> float:
        """Give the area."""
        return math.pi * radius**2

    box = Toolbox([tool(timeout=7)(search), area])
    assert box.stubs() == {"search": Offer(as_tool(search).stub, 7)}
    assert box.prompt() == f"{as_tool(search).stub}\n\n{area.stub}"
    assert Toolbox([]).prompt() == ""
    with pytest.raises(ToolError, match="no such tool"):
        call(box, "area", 1)


# Tools that ship to the kernel


@tool(where="kernel")
def parse(text: str, kind: type = xml.etree.ElementTree.Element) -> list[str]:
    """Parse."""
    root = xml.etree.ElementTree.fromstring(text)
    names = [os.path.normpath(child.tag) for child in root]
    return names if names else parse(f"<a>{text}</a>")


@tool(where="kernel")
async def load(path: Path) -> Any:
    """Load."""
    # comments stay
    return json.loads(path.read_text())


def test_the_source_for_the_kernel_runs_by_itself():
    source = kernel_source([parse, load, as_tool(search)])
    assert "@tool" not in source
    assert "# comments stay" in source
    assert source.startswith("from pathlib import Path\nfrom typing import Any\nimport json\n")
    names: dict[str, Any] = {}
    exec(source, names)
    assert names["parse"]("<b><c/></b>") == ["c"]
    assert "search" not in names
    assert kernel_source([as_tool(search)]) == ""


def test_a_coroutine_function_in_the_kernel_is_shown_as_one():
    assert load.stub.startswith("async def load(path: Path) -> Any:")


def uses_globals(x):
    """Use."""
    return [LIMIT + search(y) for y in x]


def test_a_function_that_needs_its_module_does_not_ship():
    message = refused(lambda: tool(where="kernel")(uses_globals))
    assert "'LIMIT', 'search'" in message


def test_closures_decorated_functions_and_others_do_not_ship():
    outer = 3

    def closure(x):
        """Close."""
        return x + outer

    @functools.lru_cache
    def cached(x):
        """Cache."""

    ship = tool(where="kernel")
    assert "'outer' around it" in refused(lambda: ship(closure))
    assert "made with `def`" in refused(lambda: ship(cached))
    assert "@functools.lru_cache" in refused(lambda: ship(cached.__wrapped__))
    assert "made with `def`" in refused(lambda: ship(math.sqrt))
    renamed = tool(where="kernel", name="other")
    assert "keeps the name" in refused(lambda: renamed(uses_globals))


# The built-in one


def step(*texts: str) -> Step:
    outputs = tuple({"output_type": "stream", "name": "stdout", "text": text} for text in texts)
    return Step(Reply("x"), "x", result=CellResult("x", outputs=outputs))


def test_read_output_pages_through_all_that_a_step_has_put_out():
    text = "".join(f"{n:09}\n" for n in range(5_000)).rstrip()
    box = Toolbox([output_reader(lambda: [step("short"), step(text)])])
    pages, start = [], 0
    while True:
        page = call(box, "read_output", 2, start)
        body, _, note = page.partition("\n[")
        pages.append(body)
        start += len(body)
        if not note:
            break
        assert note == f"characters {start - len(body)} to {start} of {len(text)}]"
    assert [len(page) for page in pages] == [20_000, 20_000, 9_999]
    assert "".join(pages) == text
    assert call(box, "read_output", step=1) == "short"
    assert call(box, "read_output", 2, 10, 19) == "000000001\n[characters 10 to 19 of 49999]"


def test_read_output_joins_outputs_and_leaves_terminal_codes_out():
    box = Toolbox([output_reader(lambda: [step("\x1b[31mred\x1b[0m\n", "two")])])
    assert call(box, "read_output", 1) == "red\ntwo"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3,), "no step 3 to read from. There are steps 1 to 2"),
        ((2,), "ran no code"),
        ((1, 9), "put out 5 characters"),
        ((1, 3, 1), "0 ≤ start ≤ end"),
    ],
)
def test_read_output_says_what_it_cannot_read(arguments, words):
    box = Toolbox([output_reader(lambda: [step("short"), Step(Reply("x"), "x")])])
    with pytest.raises(ValueError, match=words):
        call(box, "read_output", *arguments)


def test_known_good_tools_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_tool(search)
        output_reader(lambda: [])
