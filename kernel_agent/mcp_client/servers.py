"""Which MCP servers there are: a command, a URL, or a file in the form that MCP clients share."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kernel_agent.errors import SettingsError

FORM = (
    'A server is {"command": …, "args": […], "env": {…}}, {"url": …, "headers": {…}}, a URL, '
    "or the path of a file with `mcpServers`."
)
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_SHORTEST_SECRET = 4  # characters: taking out every "1" would leave nothing to read


@dataclass(frozen=True)
class Server:
    """An MCP server: a `command` to start, or the `url` of one that runs.

    `named` says that a person chose the name. What may hold secrets is in no repr.
    """

    name: str
    named: bool = False
    command: str = ""
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def without_secrets(self, text: str) -> str:
        """`text` with every value of `env` and `headers`, and the URL's own, taken out."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _secrets(self) -> set[str]:
        address = urlsplit(self.url)
        found = {*self.env.values(), *self.headers.values(), address.query, address.password or ""}
        # `Authorization: Bearer abc`: a server may quote the last word alone.
        found |= {word for value in self.headers.values() for word in value.split()}
        found |= {value for pair in address.query.split("&") if (value := pair.partition("=")[2])}
        return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}


def mcp_config(path: str | Path) -> list[dict[str, Any]]:
    """The servers of a file in the form that MCP clients share: `{"mcpServers": {name: …}}`.

    `${NAME}` and `${NAME:-default}` stand for environment variables; one that is `disabled` is
    left out. Raises SettingsError for a file that cannot be read or a variable that is not set.
    """
    try:
        found = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"MCP servers: {str(path)!r} cannot be read: {error}.") from error
    servers = found.get("mcpServers") if isinstance(found, dict) else None
    if not isinstance(servers, dict) or not all(isinstance(one, dict) for one in servers.values()):
        raise SettingsError(
            f"MCP servers: {str(path)!r} has no object `mcpServers` of servers by name. "
            'It looks like {"mcpServers": {"files": {"command": "…", "args": ["…"]}}}.'
        )
    return [
        {**_expanded(server, f"{path}: server {name!r}"), "name": name}
        for name, server in servers.items()
        if not server.get("disabled")
    ]


def as_servers(servers: Sequence[Mapping[str, Any] | str]) -> list[Server]:
    """Each as a `Server`; no two have the same name. Raises SettingsError for a bad one."""
    found: list[Server] = []
    for given in servers:
        if isinstance(given, str) and not _is_url(given):
            found += [_server(one) for one in mcp_config(given)]
        else:
            found.append(_server({"url": given} if isinstance(given, str) else given))
    taken: set[str] = set()
    for index, server in enumerate(found):
        name, number = server.name, 1
        while name in taken:
            number += 1
            name = f"{server.name}-{number}"
        taken.add(name)
        found[index] = replace(server, name=name)
    return found


def _server(given: Mapping[str, Any]) -> Server:
    url, command = given.get("url"), given.get("command")
    if bool(url) == bool(command) or not isinstance(url or command, str):
        raise SettingsError(f"MCP server with {sorted(given)}: {FORM}")
    name = str(given.get("name") or "")
    if url and not _is_url(url):
        raise SettingsError(f"MCP server {name!r}: its URL begins neither with http nor https.")
    if given.get("type") == "sse":
        reason = "its transport is 'sse', which MCP has given up. Use its streamable HTTP URL."
        raise SettingsError(f"MCP server {name!r}: {reason}")
    # Of a command that nobody has named only the program: arguments may be secrets.
    own = (urlsplit(url).hostname or "server") if url else Path(str(command)).stem
    try:
        return Server(
            name=name or own,
            named=bool(name),
            command=command or "",
            args=tuple(map(str, given.get("args") or ())),
            env={str(key): str(value) for key, value in (given.get("env") or {}).items()},
            cwd=given.get("cwd"),
            url=url or "",
            headers={str(key): str(value) for key, value in (given.get("headers") or {}).items()},
        )
    except (AttributeError, TypeError):
        # `from None`: the value may be a secret.
        reason = "`args` is a list, `env` and `headers` are objects"
        raise SettingsError(f"MCP server {name or own!r}: {reason}. {FORM}") from None


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _expanded(value: Any, where: str) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _variable(found, where), value)
        case list():
            return [_expanded(one, where) for one in value]
        case dict():
            return {key: _expanded(one, where) for key, one in value.items()}
    return value


def _variable(found: re.Match[str], where: str) -> str:
    value = os.environ.get(found[1], found[2])
    if value is None:
        raise SettingsError(
            f"MCP servers: {where} uses ${{{found[1]}}}, and no such variable is set."
        )
    return value
