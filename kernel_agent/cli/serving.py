"""Commands that serve others: `mcp`."""

# ruff: noqa: PLC0415 - every command imports what it needs: `--help` must not wait for it.

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from kernel_agent.cli.app import app
from kernel_agent.cli.options import (
    CellTimeout,
    Folder,
    KernelName,
    MaxChars,
    Packages,
    PythonPath,
    option,
    settings_of,
)
from kernel_agent.errors import SettingsError

if TYPE_CHECKING:
    from kernel_agent.kernel import Kernel
    from kernel_agent.managed_kernel import ManagedKernel

TOKEN = "KERNEL_AGENT_MCP_TOKEN"


@app.command()
def mcp(
    *,
    http: Annotated[
        str | None, option("PORT", "Serve HTTP on this machine's port, and not stdio.")
    ] = None,
    kernel: KernelName = None,
    python: PythonPath = None,
    packages: Packages = None,
    folder: Folder = None,
    cell_timeout: CellTimeout = None,
    max_chars: MaxChars = None,
) -> None:
    """Give an MCP client a kernel: it sends cells, each is kept in a notebook.

    The client may do with it all that you may. Over HTTP it must send the token that is printed,
    or that of KERNEL_AGENT_MCP_TOKEN.
    """
    settings = settings_of(locals())

    from kernel_agent import checks
    from kernel_agent.managed_kernel import ManagedKernel
    from kernel_agent.mcp_server import check_installed

    check_installed()
    checks.check_place(None, settings)
    if not python and not packages:
        checks.check_kernel(settings)

    def make_kernel() -> Kernel:
        from kernel_agent.kernel import Kernel

        return Kernel(
            settings.kernel,
            python=python,
            packages=packages or [],
            # Standard output is the client's.
            on_progress=lambda line: typer.echo(line, err=True),
        )

    managed = ManagedKernel(
        make_kernel,
        folder=settings.folder,
        client="an MCP client",
        timeout=settings.cell_timeout,
        max_chars=settings.max_chars,
    )
    if http is None:
        from kernel_agent.mcp_server import serve_stdio

        serve_stdio(managed)
    else:
        _serve_http(managed, http)


def _serve_http(managed: ManagedKernel, port: str) -> None:
    from secrets import token_urlsafe

    from kernel_agent.mcp_server import HOST, listen, serve_http

    if not port.isdecimal():
        raise SettingsError(f"--http: {port!r} is not allowed. PORT is a number from 0 to 65535.")
    token = os.environ.get(TOKEN) or token_urlsafe(24)
    with listen(int(port)) as listening:
        url = f"http://{HOST}:{listening.getsockname()[1]}/mcp"
        typer.echo(f"Serving {url}", err=True)
        if not os.environ.get(TOKEN):
            typer.echo(f"Clients send: Authorization: Bearer {token}", err=True)
        serve_http(managed, listening, token)
