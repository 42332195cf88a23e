"""Fetches one page from the web: bounded, and from nowhere but the public internet."""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urljoin, urlsplit

from kernel_agent import __version__

MAX_BYTES = 5_000_000
MAX_REDIRECTS = 5
MAX_SECONDS = 60.0  # for all of it
SILENCE = 15.0  # seconds without a byte
AGENT = f"kernel-agent/{__version__}"
REDIRECTS = (301, 302, 303, 307, 308)
TEXTS = ("application/json", "application/xml", "application/xhtml+xml", "application/rss+xml")


class PageError(Exception):
    """A page that cannot be had; the text says which and why."""


@dataclass(frozen=True)
class Fetched:
    """What came from `url`, after redirects: its MIME type and its text."""

    url: str
    kind: str
    text: str

    def json(self) -> dict[str, Any]:
        """The JSON object that it is. Raises PageError if it is none."""
        try:
            value = json.loads(self.text)
        except ValueError as error:
            raise PageError(f"{self.url} gave no JSON: {error}.") from error
        if not isinstance(value, dict):
            raise PageError(f"{self.url} gave JSON that is no object.")
        return value


def fetch(
    url: str, *, parameters: Mapping[str, str] | None = None, allow_private: bool = False
) -> Fetched:
    """The text at `url`, following a few redirects.

    Without `allow_private` every address on the way must be a public one: what runs here can
    reach services of this machine and its network that a stranger must not.

    Raises PageError for another scheme, an address that is not public, a status of failure,
    what is no text (a PDF, a picture), and a page that is too large or too slow.
    """
    httpx = import_module("httpx")
    deadline = time.monotonic() + MAX_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        # A client for each: connections are kept by address, and another name may share it.
        # Proxies of the environment would resolve names anew, where nobody checks the address.
        with httpx.Client(timeout=SILENCE, trust_env=False) as client:
            try:
                request = _request(client, url, parameters, allow_private=allow_private)
                response = client.send(request, stream=True)
                try:
                    if response.status_code not in REDIRECTS:
                        return _read(response, url, deadline)
                    # Another page has parameters of its own.
                    url, parameters = urljoin(url, response.headers.get("location", "")), None
                finally:
                    response.close()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise PageError(f"{url} cannot be reached: {error}.") from error
    raise PageError(f"{url} comes after {MAX_REDIRECTS} redirects, and leads on. No more follow.")


def _request(
    client: Any, url: str, parameters: Mapping[str, str] | None, *, allow_private: bool
) -> Any:
    """A request to an address that was looked up once and checked: not looked up again."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise PageError(f"{url!r} is no URL: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PageError(f"{url!r} begins neither with http:// nor with https://.")
    request = client.build_request("GET", url, params=parameters, headers={"User-Agent": AGENT})
    host = request.url.raw_host.decode("ascii")
    address = _address(parts.hostname, host, port, allow_private=allow_private)
    named = request.headers["Host"]
    request.url = request.url.copy_with(host=address)
    request.headers["Host"] = named
    # The certificate is still that of the name.
    request.extensions = {**request.extensions, "sni_hostname": host}
    return request


def _address(name: str, host: str, port: int, *, allow_private: bool) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise PageError(f"there is no host {name!r}: {error}.") from error
    addresses = [str(one[4][0]).partition("%")[0] for one in found]
    for address in addresses:
        if not allow_private and not _is_public(address):
            raise PageError(f"{name!r} is {address}, which is not on the public internet.")
    return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if inner is not None:
        ip = inner
    # The prefix of NAT64, behind which any IPv4 address may stand.
    if ip.version == 6 and ip in ipaddress.ip_network("64:ff9b::/96"):
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast


def _read(response: Any, url: str, deadline: float) -> Fetched:
    if response.status_code != 200:
        raise PageError(f"{url} answered {response.status_code} {response.reason_phrase}.")
    kind = response.headers.get("content-type", "text/html").partition(";")[0].strip().lower()
    if not kind.startswith("text/") and kind not in TEXTS and not kind.endswith(("+json", "+xml")):
        raise PageError(f"{url} is no page but {kind}. Download it with code, and open it there.")
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > MAX_BYTES:
            raise PageError(f"{url} is larger than {MAX_BYTES:,} bytes.")
        if time.monotonic() > deadline:
            raise PageError(f"{url} was not there within {MAX_SECONDS:g} s.")
    if content[:5] == b"%PDF-" or b"\0" in content[:1000]:
        raise PageError(f"{url} says that it is {kind}, but it is no text.")
    return Fetched(url, kind, content.decode(_encoding(response, content), "replace"))


def _encoding(response: Any, content: bytearray) -> str:
    """The encoding that the answer or, in its head, the page names; else UTF-8."""
    named = response.charset_encoding
    if not named and (at := content[:2000].lower().find(b"charset=")) >= 0:
        named = content[at + 8 : at + 40].strip(b"\"' ").split(b'"')[0].decode("ascii", "replace")
    try:
        "".encode(named or "utf-8")
    except LookupError:
        return "utf-8"
    return named or "utf-8"
