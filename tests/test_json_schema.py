"""The tools as JSON schemas, for models that call them natively."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, Literal, Optional

import pytest

from kernel_agent.tools import Tool, as_tool, tool
from kernel_agent.tools.json_schema import LONGEST_DESCRIPTION, json_tools

LIST = {"type": "array", "items": {"type": "string"}}
NULL = {"type": "null"}


def search(
    query: str,
    n: int = 5,
    kinds: list[Literal["news", "paper"]] | None = None,
    *,
    since: Optional[date] = None,  # noqa: UP045 - users write it
) -> list[dict]:
    """Search the web.

    One page of results.

    Args:
        query (str): What to look for,
            in any language.
        n: How many results.

    Returns:
        Title and address of each.
    """
    return []


def schemas(*tools: Any, language: str = "python") -> list[dict[str, Any]]:
    return [one["function"] for one in json_tools(map(as_tool, tools), language)]


def properties(call: Callable[..., Any]) -> dict[str, Any]:
    return schemas(call)[1]["parameters"]["properties"]


def test_a_tool_is_described_by_its_stub() -> None:
    assert schemas(search)[1] == {
        "name": "search",
        "description": "Search the web.\n\nOne page of results.\n\n"
        "Returns list[dict]: Title and address of each.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {
                    "type": "string",
                    "description": "What to look for, in any language.",
                },
                "n": {"type": "integer", "description": "How many results. Default: 5."},
                "kinds": {
                    "type": "array",
                    "items": {"type": "string", "enum": ["news", "paper"]},
                },
                "since": {"type": "string"},
            },
            "required": ["query"],
        },
    }


def test_a_result_without_a_word_is_told_by_its_type() -> None:
    def ids(month: int) -> list[str]:
        """The ids of a month."""
        return []

    assert schemas(ids)[1]["description"] == "The ids of a month.\n\nReturns list[str]."


@pytest.mark.parametrize("language", ["python", "r", "bash"])
def test_the_tool_for_code_comes_first_and_is_named_like_the_language(language: str) -> None:
    [code, *others] = schemas(search, language=language)
    assert code["name"] == language
    assert code["parameters"]["required"] == ["code"]
    assert len(others) == (language == "python")  # only Python has the user's tools


KINDS: list[tuple[str, Any]] = [
    ("str", {"type": "string"}),
    ("float", {"type": "number"}),
    ("bool", {"type": "boolean"}),
    ("list[str]", LIST),
    ("tuple[str, ...]", LIST),
    ("Sequence[str]", LIST),
    ("list[list[str]]", {"type": "array", "items": LIST}),
    ("dict", {"type": "object"}),
    ("dict[str, int]", {"type": "object"}),
    ("typing.List[str]", LIST),
    ("'str'", {"type": "string"}),
    ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
    ("Literal[1, 'b', None]", {"anyOf": [
        {"type": "integer", "enum": [1]}, {"type": "string", "enum": ["b"]}, NULL]}),
    ("Literal[True]", {"type": "boolean"}),
    ("str | None", {"anyOf": [{"type": "string"}, NULL]}),
    ("Optional[list[str]]", {"anyOf": [LIST, NULL]}),
    ("Union[int, str, int]", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    ("Annotated[str, 'x']", {"type": "string"}),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "schema"), KINDS, ids=[kind for kind, _ in KINDS])
def test_a_type_has_its_schema(annotation: str, schema: Any) -> None:
    one = Tool("f", f'def f(x: {annotation}):\n    """Do it."""', print)
    assert properties(one)["x"] == schema


@pytest.mark.parametrize("annotation", ["Any", "DataFrame", "list", "x.y[0]", "(1).real", "'a b'"])
def test_of_an_unknown_type_anything_may_be_given_and_everything_has_a_type(
    annotation: str,
) -> None:
    one = Tool("f", f"def f(x: {annotation}, y): ...", print)
    for schema in properties(one).values():
        assert all(untyped(part) is False for part in parts(schema))


def test_none_as_the_default_means_that_it_may_be_left_out() -> None:
    one = Tool("f", "def f(x: str | None = None, y: int | None = 5): ...", print)
    assert properties(one) == {
        "x": {"type": "string"},
        "y": {"anyOf": [{"type": "integer"}, NULL], "description": "Default: 5."},
    }
    assert schemas(one)[1]["parameters"]["required"] == []


@pytest.mark.parametrize(
    "stub",
    [
        "def f(*values): ...",
        "def f(x, /): ...",
        "async def f(x): ...",
        "def f(größe): ...",
        f"def f({'x' * 65}): ...",
    ],
)
def test_what_json_cannot_call_is_left_to_code(stub: str) -> None:
    assert len(schemas(Tool("f", stub, print))) == 1


def test_a_tool_named_like_the_language_is_left_to_code() -> None:
    assert len(schemas(Tool("python", "def python(code): ...", print))) == 1


def test_a_tool_without_a_docstring_has_its_name_for_a_description() -> None:
    with pytest.warns(UserWarning, match="no docstring"):
        one = tool(name="f")(lambda x: x)
    assert schemas(one)[1]["description"] == "f"


def test_a_long_description_is_cut_where_providers_refuse_it() -> None:
    one = Tool("f", f'def f():\n    """{"a" * 5000}"""', print)
    assert len(schemas(one)[1]["description"]) == LONGEST_DESCRIPTION


def test_the_same_tools_give_the_same_bytes_in_their_order() -> None:
    first, second = (json.dumps(schemas(search, print_all)) for _ in range(2))
    assert first == second
    assert [one["name"] for one in schemas(print_all, search)] == ["python", "print_all", "search"]


def test_only_keywords_that_every_provider_knows_are_used() -> None:
    known = {"type", "properties", "required", "description", "enum", "items", "anyOf"}
    for one in schemas(search, print_all):
        for part in parts(one["parameters"]):
            assert set(part) <= known
            assert not untyped(part)


def print_all(values: Iterable[Any], how: dict[str, Any] | None = None, **more: Any) -> None:
    """Print them."""


def untyped(schema: dict[str, Any]) -> bool:
    return ("type" in schema) == ("anyOf" in schema) or (
        schema.get("type") == "array" and "items" not in schema
    )


def parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema, and those in it."""
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    inner += [schema["items"]] if "items" in schema else []
    return [schema, *(part for one in inner for part in parts(one))]
