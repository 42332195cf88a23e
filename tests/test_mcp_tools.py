"""Tools of MCP servers: real servers, started here, over stdio and HTTP."""

from __future__ import annotations

import ast
import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from kernel_agent.errors import McpServerError, SettingsError
from kernel_agent.mcp_client.results import MAX_TEXT, McpToolFailure
from kernel_agent.mcp_client.schema_stubs import stub_of
from kernel_agent.mcp_client.servers import as_servers, mcp_config
from kernel_agent.mcp_client.tools import McpTools, mcp_tools
from kernel_agent.tools.tool import Tool

pytestmark = pytest.mark.slow

SERVERS = Path(__file__).parent / "mcp_servers"
OFFICIAL = {"command": sys.executable, "args": [str(SERVERS / "official.py")]}
SECRET = "sesame-1234"
DOT = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
        "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
    )
).decode()
RESULTS = {
    "text": {"content": [{"type": "text", "text": "one"}]},
    "nothing": {"content": []},
    "several": {"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    "value": {"content": [{"type": "text", "text": "{}"}], "structuredContent": {"n": [1, None]}},
    "page": {"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "a page"}}]},
    "file": {"content": [{"type": "resource", "resource": {"uri": "file:///b", "blob": "AAEC"}}]},
    "sound": {"content": [{"type": "audio", "data": "AAEC", "mimeType": "audio/wav"}]},
    "image": {"content": [{"type": "image", "data": DOT, "mimeType": "image/png"}]},
    "broken_image": {"content": [{"type": "image", "data": "AAEC", "mimeType": "image/png"}]},
    "flood": {"content": [{"type": "text", "text": "x" * (MAX_TEXT + 1000)}]},
    "bad": {"content": [{"type": "text", "text": "out of paper"}], "isError": True},
}


def raw(tmp_path: Path, name: str = "raw", **plan: Any) -> dict[str, Any]:
    """A server in plain Python that says what the plan says."""
    tools = [{"name": one, "inputSchema": {"type": "object"}} for one in RESULTS]
    plan = {"tools": tools, "results": RESULTS} | plan
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(plan))
    arguments = [str(SERVERS / "raw.py"), str(file)]
    return {"name": name, "command": sys.executable, "args": arguments, "env": {"TOKEN": SECRET}}


def named(tools: McpTools, name: str) -> Tool:
    return next(tool for tool in tools.tools if tool.name == name)


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not has_ended(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def official() -> Iterator[McpTools]:
    with mcp_tools([OFFICIAL], timeout=30) as tools:
        yield tools


@pytest.fixture(scope="module")
def rude(tmp_path_factory: pytest.TempPathFactory) -> Iterator[McpTools]:
    with mcp_tools([raw(tmp_path_factory.mktemp("rude"))], timeout=30) as tools:
        yield tools


def test_an_official_servers_tools_have_stubs_as_a_person_would_write_them(official):
    assert named(official, "add").stub.startswith("def add(a: int, b: int = 1) -> int:\n")
    assert named(official, "search").stub == (
        "def search(query: str, options: dict | None = None) -> list[dict]:\n"
        '    """Find things by their words.\n\n'
        "    options: Keys: limit?: int, kind?: Literal['book', 'song'].\n"
        "    Returns: Keys of each: title: str, score: float.\n"
        '    """'
    )


def test_calls_give_values_and_take_arguments_by_place_or_name(official):
    add = named(official, "add").call
    assert (add(2), add(2, 3), add(a=2, b=5)) == (3, 5, 7)
    found = named(official, "search").call("x", options={"limit": 1})
    assert found == [{"title": "x 0", "score": 1.0}]
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        add()


@pytest.mark.parametrize(
    ("tool", "value"),
    [
        ("text", "one"),
        ("nothing", None),
        ("several", ["one", "two"]),
        ("value", {"n": [1, None]}),
        ("page", "a page"),
        ("file", b"\0\1\2"),
        ("sound", b"\0\1\2"),
        ("broken_image", b"\0\1\2"),
    ],
)
def test_each_kind_of_content_is_a_value(rude, tool, value):
    assert named(rude, tool).call() == value


def test_an_image_is_a_pil_image(rude):
    assert named(rude, "image").call().size == (1, 1)


def test_a_flood_of_text_is_shortened_in_the_middle(rude):
    text = named(rude, "flood").call()
    assert len(text) < MAX_TEXT + 100
    assert "1,000 characters left out" in text


def test_a_failure_of_the_tool_is_raised_with_its_text(official, rude):
    with pytest.raises(McpToolFailure, match="out of paper"):
        named(rude, "bad").call()
    with pytest.raises(McpToolFailure, match="valid integer"):
        named(official, "add").call("many")


def test_threads_call_at_the_same_time(official):
    add = named(official, "add").call
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(add, range(100))) == list(range(1, 101))


def test_optional_arguments_that_are_not_given_are_not_sent(tmp_path):
    schema = {
        "type": "object",
        "properties": {
            "class": {"type": "string"},
            "top-k": {"type": "integer"},
            "after": {"type": ["string", "null"]},
        },
        "required": ["class"],
    }
    plan = {"tools": [{"name": "find", "inputSchema": schema}], "results": {}}
    with mcp_tools([raw(tmp_path, **plan)]) as tools:
        find = named(tools, "find")
        assert find.stub.startswith(
            "def find(class_: str, top_k: int | None = None, after: str | None = None):"
        )
    stub = stub_of("find", "", schema)
    assert stub.arguments((), {"class_": "a", "top_k": None, "after": None}) == {
        "class": "a",
        "after": None,
    }


def test_names_that_two_servers_share_get_the_servers_name(tmp_path):
    servers = [raw(tmp_path, "first shop"), raw(tmp_path, "second")]
    with mcp_tools(servers) as tools:
        names = [tool.name for tool in tools.tools]
        assert "first_shop_text" in names and "second_text" in names and "text" not in names


def test_a_name_that_code_needs_itself_gets_the_servers_name(tmp_path):
    tools = [{"name": name, "inputSchema": {}} for name in ("print", "get-page", "3d", "class")]
    with mcp_tools([raw(tmp_path, "shop", tools=tools)]) as found:
        names = [tool.name for tool in found.tools][:4]
    assert names == ["shop_print", "get_page", "shop_3d", "class_"]


def test_the_server_sees_the_safe_variables_and_its_own_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with mcp_tools([raw(tmp_path)]) as tools:
        names = json.loads(named(tools, "env").call())
    assert {"PATH", "TOKEN"} <= set(names)
    assert "OPENAI_API_KEY" not in names


def test_the_end_of_a_server_is_told_with_its_exit_and_the_next_call_starts_it_again(tmp_path):
    with mcp_tools([raw(tmp_path, "shop")]) as tools:
        with pytest.raises(McpServerError) as caught:
            named(tools, "die").call()
        assert "'shop'" in str(caught.value) and "exit code 3" in str(caught.value)
        assert "I cannot go on" in str(caught.value)
        assert named(tools, "text").call() == "one"


def test_a_server_that_does_not_start_again_is_an_error_of_each_call(tmp_path):
    with mcp_tools([raw(tmp_path, "shop")]) as tools:
        raw(tmp_path, "shop", exit="no licence")
        for name in ("die", "text", "text"):
            with pytest.raises(McpServerError, match="exit code" if name == "die" else "licence"):
                named(tools, name).call()
        raw(tmp_path, "shop")
        assert named(tools, "text").call() == "one"


def test_no_secret_is_in_an_error_or_a_repr(tmp_path):
    with mcp_tools([raw(tmp_path)]) as tools:
        for name, error in (("die", McpServerError), ("bad_words", McpToolFailure)):
            with pytest.raises(error) as caught:
                named(tools, name).call()
            assert SECRET not in str(caught.value) and "***" in str(caught.value)
        assert SECRET not in repr(tools) + repr(tools.tools) + repr(as_servers([raw(tmp_path)]))


def test_a_slow_call_ends_at_its_timeout(tmp_path):
    said = r"'hang' did not answer within 0\.2 s"
    with mcp_tools([raw(tmp_path)], timeout=0.2) as tools, pytest.raises(TimeoutError, match=said):
        named(tools, "hang").call()


def test_a_server_that_starts_too_slowly_is_told_with_its_last_words(tmp_path):
    with pytest.raises(McpServerError, match=r"(?s)within 1\.5 s.*still loading"):
        mcp_tools([raw(tmp_path, slow=True)], start_timeout=1.5)


def test_if_one_server_does_not_start_none_is_left_running(tmp_path):
    before = set(children())
    with pytest.raises(McpServerError, match=r"(?s)'two'.*exit code 4.*no licence"):
        mcp_tools([raw(tmp_path, "one"), raw(tmp_path, "two", exit="no licence")])
    assert set(children()) <= before
    with pytest.raises(McpServerError, match=r"cannot be reached: .*No such file"):
        mcp_tools([{"command": "/no/such/server"}])


def children() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(") ")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(folder.name))
    return found


def test_closing_ends_the_server_what_it_has_started_and_calls_that_wait(tmp_path):
    tools = mcp_tools([raw(tmp_path)])
    child = int(named(tools, "child").call())
    before = children()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(named(tools, "hang").call)
        while not waiting.running():
            threading.Event().wait(0.01)
        tools.close()
        with pytest.raises(McpServerError):
            waiting.result(10)
    wait_until_ended(child)
    assert len(children()) == len(before) - 1
    with pytest.raises(McpServerError, match="closed"):
        named(tools, "text").call()
    tools.close()


def test_a_program_that_forgets_to_close_leaves_no_process(tmp_path):
    program = (
        "import json, sys\n"
        "from kernel_agent.mcp_client.tools import mcp_tools\n"
        "tools = mcp_tools([json.loads(sys.argv[1])])\n"
        "print(next(t for t in tools.tools if t.name == 'child').call())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(raw(tmp_path))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wait_until_ended(int(done.stdout))


@pytest.fixture
def http_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVERS / "official.py"), str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/mcp", server
    server.kill()
    server.wait()


def test_a_server_is_reached_by_its_url_and_missed_when_it_is_gone(http_server):
    url, process = http_server
    server = {"url": f"{url}?key={SECRET}", "headers": {"Authorization": f"Bearer {SECRET}2"}}
    with mcp_tools([server], timeout=10) as tools:
        assert named(tools, "add").call(3) == 4
        process.kill()
        process.wait()
        for _ in range(2):
            with pytest.raises((McpServerError, TimeoutError)) as caught:
                named(tools, "add").call(3)
            assert SECRET not in str(caught.value)
    with pytest.raises(McpServerError, match="cannot be reached") as error:
        mcp_tools([server], start_timeout=10)
    assert SECRET not in str(error.value)


def test_the_file_that_clients_share_is_read_with_its_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", SECRET)
    file = tmp_path / "mcp.json"
    servers = {
        "files": {"command": "npx", "args": ["-y", "${DIR:-.}"], "env": {"KEY": "${SHOP_KEY}"}},
        "web": {"type": "http", "url": "https://a.example/mcp"},
        "off": {"command": "x", "disabled": True},
    }
    file.write_text(json.dumps({"mcpServers": servers}))
    files, web = as_servers([str(file)])
    assert (files.name, files.args, files.env) == ("files", ("-y", "."), {"KEY": SECRET})
    assert (web.name, web.url) == ("web", "https://a.example/mcp")
    monkeypatch.delenv("SHOP_KEY")
    with pytest.raises(SettingsError, match=r"'files' uses \$\{SHOP_KEY\}"):
        mcp_config(file)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"command": "a", "url": "https://a.example"},
        {"url": "ftp://a.example"},
        {"url": "https://a.example", "type": "sse"},
        {"command": "a", "env": ["KEY=sesame-1234"]},
        "no-such-file.json",
    ],
)
def test_a_bad_server_is_refused_without_its_secrets(bad):
    with pytest.raises(SettingsError) as caught:
        as_servers([bad])
    assert SECRET not in str(caught.value)


TYPES = [
    ({"type": "string"}, "str"),
    ({"type": "array", "items": {"type": "number"}}, "list[float]"),
    ({"type": ["integer", "null"]}, "int | None"),
    ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "str | None"),
    ({"enum": ["a", "b"]}, "Literal['a', 'b']"),
    ({"const": 3}, "Literal[3]"),
    ({"enum": [f"choice {n}" for n in range(99)]}, "str"),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, "dict[str, int]"),
    ({"$ref": "#/$defs/Point"}, "dict"),
    ({"$ref": "#/$defs/Loop"}, "Any"),
    ({"$ref": "https://a.example/schema"}, "Any"),
    ({"type": "quantum"}, "Any"),
    (True, "Any"),
]


@pytest.mark.parametrize(("schema", "annotation"), TYPES)
def test_a_schema_is_an_annotation(schema, annotation):
    points = {
        "Point": {"type": "object", "properties": {"x": {"type": "integer"}}},
        "Loop": {"$ref": "#/$defs/Loop"},
    }
    root = {"type": "object", "properties": {"a": schema}, "required": ["a"], "$defs": points}
    assert stub_of("f", "", root).source.startswith(f"def f(a: {annotation}):")


@pytest.mark.parametrize(
    "schema", [None, [], {"type": "string"}, {"properties": 3}, {"properties": {"a": "int"}}]
)
def test_a_schema_of_no_use_leads_to_a_function_that_takes_anything(schema):
    stub = stub_of("f", "It does.", schema)
    assert stub.problem
    assert stub.source == 'def f(**more: Any):\n    """It does."""'
    assert stub.arguments((), {"a": 1}) == {"a": 1}


def test_a_bad_schema_is_a_warning_that_names_server_and_tool(tmp_path):
    tools = [{"name": "odd", "inputSchema": {"type": "object", "properties": {"a": "int"}}}]
    with pytest.warns(UserWarning, match="server 'shop': the schema of 'odd'"):
        found = mcp_tools([raw(tmp_path, "shop", tools=tools)])
    found.close()


@pytest.mark.parametrize(
    "text", ['"""\nimport os\n"""', "\\", '"', "\x1b[31mred\x00", "a\n\n  b", "é\u2028x", "'''" * 9]
)
def test_no_description_gets_out_of_its_docstring(text):
    schema = {"properties": {"a": {"description": text, "default": text}}}
    stub = stub_of("f", text, schema)
    [function] = ast.parse(stub.source).body
    assert isinstance(function, ast.FunctionDef)
    assert [type(line) for line in function.body] == [ast.Expr]
    assert ast.literal_eval(function.args.defaults[0]) == text
