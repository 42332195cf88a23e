"""`kernel-agent mcp`, driven by the official client over stdio and HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import mcp
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

from kernel_agent.errors import SettingsError
from kernel_agent.managed_kernel import ManagedKernel
from kernel_agent.mcp_server import listen
from kernel_agent.transcript import Transcript

pytestmark = pytest.mark.slow  # other programs are started for each of them

COMMAND = "import kernel_agent.cli.serving; from kernel_agent.cli import main; main()"
SECONDS = 60.0  # no test takes as long


def arguments(folder: Path, *more: str) -> list[str]:
    return ["-c", COMMAND, "mcp", "--folder", str(folder), *more]


@asynccontextmanager
async def opened(transport: Any):
    async with transport as streams:
        if hasattr(mcp, "Client"):

            @asynccontextmanager
            async def entered():
                yield streams

            async with mcp.Client(entered()) as client:
                yield client
        else:
            async with mcp.ClientSession(*streams[:2]) as client:
                await client.initialize()
                yield client


@asynccontextmanager
async def stdio(folder: Path, *more: str, env: dict[str, str] | None = None):
    parameters = StdioServerParameters(
        command=sys.executable,
        args=arguments(folder, *more),
        env={**os.environ, **(env or {})},
    )
    async with asyncio.timeout(SECONDS), opened(stdio_client(parameters)) as client:
        yield client


async def call(client: Any, name: str, **given: Any) -> list[dict[str, Any]]:
    result = (await client.call_tool(name, given)).model_dump(by_alias=True, mode="json")
    if result.get("isError"):
        raise RuntimeError(result["content"][0]["text"])
    return result["content"]


async def text(client: Any, name: str, **given: Any) -> str:
    return "\n".join(item["text"] for item in await call(client, name, **given) if "text" in item)


def notebook(folder: Path) -> Transcript:
    [path] = folder.glob("*.ipynb")
    return Transcript.load(path)


def test_a_client_works_in_one_namespace_and_every_cell_is_in_a_notebook(tmp_path):
    async def work() -> None:
        async with stdio(tmp_path) as client:
            assert "no notebook yet" in await text(client, "transcript")
            assert list(tmp_path.iterdir()) == []
            first = await text(client, "execute", source="x = 6")
            assert first == "[cell 1]\n(no output)\nVariables: x: 6"
            assert "36" in await text(client, "execute", source="print(x ** 2)")
            assert "ZeroDivisionError" in await text(client, "execute", source="1 / 0")
            assert await text(client, "variables") == "x: 6"
            told = await text(client, "transcript")
            assert str(tmp_path) in told
            assert re.search(r"3\. \[error, \d+\.\d s\] 1 / 0", told)
            await text(client, "restart")
            assert "NameError" in await text(client, "execute", source="x")

    asyncio.run(work())
    steps = notebook(tmp_path).steps
    assert [step.result.source for step in steps] == ["x = 6", "print(x ** 2)", "1 / 0", "x"]
    assert [step.result.status for step in steps] == ["ok", "ok", "error", "error"]


def test_outputs_are_bounded_figures_are_images_and_the_rest_can_be_read(tmp_path):
    figure = (
        "from IPython.display import display, Image\n"
        "import base64\n"
        "display(Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR4"
        "2mNk+A8AAQUBAScY42YAAAAASUVORK5CYII='), format='png'))"
    )

    async def work() -> None:
        async with stdio(tmp_path, "--max-chars", "1000") as client:
            shown = await text(client, "execute", source="print('y' * 50_000)")
            assert len(shown) < 2000 and "left out" in shown
            assert (await text(client, "read_output", cell=1, start=40_000, end=40_010)) == (
                "yyyyyyyyyy\n[characters 40000 to 40010 of 50000]"
            )
            with pytest.raises(RuntimeError, match="read_output"):
                await text(client, "read_output", cell=9)
            said, image = await call(client, "execute", source=figure)
            assert "[figure 1×1, attached]" in said["text"]
            assert (image["type"], image["mimeType"]) == ("image", "image/png")

    asyncio.run(work())


def test_a_cell_is_interrupted_by_its_timeout_by_the_client_and_by_a_client_that_gives_up(tmp_path):
    forever = "import threading\nprint('begun', flush=True)\nthreading.Event().wait()"

    async def work() -> None:
        async with stdio(tmp_path) as client:
            assert "0.5 s" in await text(client, "execute", source=forever, timeout=0.5)
            running = asyncio.create_task(text(client, "execute", source=forever))
            while await text(client, "interrupt") != "Interrupted.":
                await asyncio.sleep(0.01)
            assert "interrupted" in await running
            given_up = asyncio.create_task(text(client, "execute", source=forever))
            while not running_cell(tmp_path):
                await asyncio.sleep(0.01)
            given_up.cancel()
            if hasattr(mcp, "Client"):  # an earlier client does not tell the server
                assert "2" in await text(client, "execute", source="1 + 1")
            else:
                await text(client, "interrupt")

    asyncio.run(work())
    assert [step.result.status for step in notebook(tmp_path).steps][:3] == ["interrupted"] * 3


def running_cell(folder: Path) -> bool:
    """Whether the third cell is on disk with what it has printed."""
    pending = notebook(folder).pending
    return pending is not None and bool(pending.result.outputs)


def test_a_cell_that_ends_the_kernel_is_told_and_the_next_finds_a_fresh_one(tmp_path):
    async def work() -> None:
        async with stdio(tmp_path) as client:
            told = await text(client, "execute", source="import os; os._exit(3)")
            assert "restarted" in told
            assert "2" in await text(client, "execute", source="1 + 1")

    asyncio.run(work())
    assert [step.result.status for step in notebook(tmp_path).steps] == ["died", "ok"]


def pid_of_kernel(folder: Path) -> int:
    [step] = notebook(folder).steps
    return int(re.search(r"\d+", step.result.outputs[0]["text"])[0])


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 20
    while (stat := Path(f"/proc/{pid}/stat")).exists():
        try:
            if stat.read_text().rpartition(") ")[2][0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.01)


def test_when_the_client_hangs_up_in_the_middle_of_a_cell_the_kernel_ends(tmp_path):
    async def work() -> int:
        async with stdio(tmp_path) as client:
            await text(client, "execute", source="import os; print(os.getpid())")
            pid = pid_of_kernel(tmp_path)
            running = asyncio.create_task(text(client, "execute", source="while True: pass"))
            while notebook(tmp_path).pending is None:
                await asyncio.sleep(0.01)
        assert running.done() or running.cancel()
        return pid

    wait_until_ended(asyncio.run(work()))


def start(folder: Path, *more: str, token: str = "") -> tuple[subprocess.Popen[str], list[str]]:
    """A server over HTTP, and the lines that it says until it serves."""
    environ = {**os.environ, **({"KERNEL_AGENT_MCP_TOKEN": token} if token else {})}
    server = subprocess.Popen(
        [sys.executable, *arguments(folder, "--http", "0", *more)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )
    return server, [server.stderr.readline() for _ in range(1 if token else 2)]


@asynccontextmanager
async def http(url: str, headers: dict[str, str]):
    async with (
        asyncio.timeout(SECONDS),
        create_mcp_http_client(headers=headers) as web,
        opened(streamable_http_client(url, http_client=web)) as client,
    ):
        yield client


def test_clients_over_http_share_the_kernel_and_need_the_token(tmp_path):
    server, (serving, said) = start(tmp_path)
    url = serving.split()[-1]
    name, _, value = said.partition(": ")[2].partition(": ")

    async def work() -> None:
        async with http(url, {name: value.strip()}) as first:
            await text(first, "execute", source="import os; y = 1; print(os.getpid())")
        async with http(url, {name: value.strip()}) as second:
            assert await text(second, "variables") == "y: 1"
        for headers in ({}, {name: "Bearer wrong"}):
            with pytest.raises(BaseException) as caught:  # a group, in some versions
                async with http(url, headers) as nobody:
                    await text(nobody, "variables")
            assert not isinstance(caught.value, TimeoutError)

    try:
        asyncio.run(work())
        pid = pid_of_kernel(tmp_path)
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        wait_until_ended(pid)
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 143


def test_the_token_can_be_chosen_and_is_not_printed_then(tmp_path):
    server, [serving] = start(tmp_path, token="sesame-1234")

    async def work() -> None:
        async with http(serving.split()[-1], {"Authorization": "Bearer sesame-1234"}) as client:
            assert await text(client, "variables") == "There are no variables."

    try:
        asyncio.run(work())
    finally:
        server.terminate()
        _, rest = server.communicate(timeout=20)
    assert "sesame" not in rest


def test_a_terminated_server_over_stdio_ends_with_its_kernel(tmp_path):
    messages = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
        '"capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n'
        '{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"execute",'
        '"arguments":{"source":"import os; print(os.getpid())"}}}\n'
    )
    server = subprocess.Popen(
        [sys.executable, *arguments(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        server.stdin.write(messages)
        server.stdin.flush()
        assert '"id":1' in server.stdout.readline()
        assert '"id":2' in server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        wait_until_ended(pid_of_kernel(tmp_path))
    finally:
        server.kill()
        _, errors = server.communicate()
    assert server.returncode == 143
    assert errors == ""


def test_a_kernel_that_does_not_start_is_told_to_the_client(tmp_path):
    async def work() -> None:
        async with stdio(tmp_path, "--python", "/no/such/python") as client:
            with pytest.raises(RuntimeError, match="/no/such/python"):
                await text(client, "execute", source="1")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--http", "nothing"], "--http: 'nothing' is not allowed"),
        (["--kernel", "klingon"], "no kernel 'klingon' is installed"),
        (["--cell-timeout", "0"], "--cell-timeout"),
    ],
)
def test_a_bad_option_is_told_before_anything_starts(tmp_path, more, reason):
    done = subprocess.run(
        [sys.executable, *arguments(tmp_path, *more)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert reason in done.stderr and done.stdout == ""


def test_a_port_that_is_taken_is_an_error_of_the_option():
    with listen(0) as taken, pytest.raises(SettingsError, match="cannot be had"):
        listen(taken.getsockname()[1])


def test_a_kernel_that_was_not_needed_is_never_started(tmp_path):
    def make() -> Any:
        raise AssertionError("it was made")

    kernel = ManagedKernel(make, folder=tmp_path, client="nobody")
    assert (kernel.variables(), kernel.cells(), kernel.path) == ({}, [], None)
    kernel.close()
