"""The web tools, against a server of this machine: the internet is never asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("httpx")
pytest.importorskip("markdownify")

from kernel_agent import page_fetching, web_tools
from kernel_agent.built_in_tools import built_in
from kernel_agent.errors import SettingsError
from kernel_agent.page_fetching import PageError, fetch
from kernel_agent.web_tools import visit_webpage_tool, web_search_tool, wikipedia_tool

PAGE = """<html><head><title>T</title><style>p {color: red}</style><script>evil()</script></head>
<body><h1>Rain</h1><p>It <b>rains</b>.</p><a href="/more">more</a>
<table><tr><th>month</th><th>mm</th></tr><tr><td>May</td><td>3</td></tr></table></body></html>"""
ARTICLES = {"Rain": "Rain is water.", "Snow": "Snow is cold."}


class Site(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self):
        self.server.asked.append(self.headers["Host"])
        parts = urlsplit(self.path)
        match parts.path:
            case "/page":
                self.answer("text/html; charset=utf-8", PAGE.encode())
            case "/latin":
                self.answer("text/html; charset=iso-8859-1", "<p>déjà</p>".encode("latin-1"))
            case "/plain":
                self.answer("text/plain", b"just text")
            case "/pdf":
                self.answer("application/pdf", b"%PDF-1.7")
            case "/liar":
                self.answer("text/html", b"%PDF-1.7")
            case "/flood":
                self.flood()
            case "/there":
                self.redirect("/page")
            case "/loop":
                self.redirect("/loop")
            case "/out":
                self.redirect("http://169.254.169.254/latest/meta-data/")
            case "/file":
                self.redirect("file:///etc/passwd")
            case "/api":
                self.api({key: value[0] for key, value in parse_qs(parts.query).items()})
            case _:
                self.send_error(404)

    def answer(self, kind: str, content: bytes):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def redirect(self, place: str):
        self.send_response(302)
        self.send_header("Location", place)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def flood(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 100_000)
        except OSError:
            self.close_connection = True

    def api(self, asked: dict[str, str]):
        if asked.get("list") == "search":
            words = asked["srsearch"].lower().split()
            found = [t for t, text in ARTICLES.items() if any(w in text.lower() for w in words)]
            query: dict[str, Any] = {"search": [{"title": title} for title in found]}
        else:
            title = asked["titles"]
            page = {"title": title, "extract": ARTICLES.get(title, "")}
            query = {"pages": [page if title in ARTICLES else {"title": title, "missing": True}]}
        self.answer("application/json", json.dumps({"query": query}).encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def visit(url: str, **options: Any) -> str:
    return visit_webpage_tool(allow_private=True).call(url, **options)


def test_a_page_is_markdown_without_its_scripts(site):
    text = visit(f"{site}/page")
    assert "# Rain" in text and "It **rains**." in text and "[more](/more)" in text
    assert "| May | 3 |" in text
    assert "evil" not in text and "color" not in text


def test_a_long_page_is_shortened_and_says_so(site):
    assert visit(f"{site}/plain", max_chars=4) == "just\n[characters 0 to 4 of 9]"


def test_the_pages_own_encoding_is_used(site):
    assert visit(f"{site}/latin") == "déjà"


def test_redirects_are_followed_within_bounds(site):
    assert "# Rain" in visit(f"{site}/there")
    with pytest.raises(PageError, match="after 5 redirects"):
        visit(f"{site}/loop")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nothing", "answered 404"),
        ("/pdf", "no page but application/pdf"),
        ("/liar", "it is no text"),
        ("/file", "begins neither with http"),
    ],
)
def test_what_is_no_page_is_an_error_that_says_why(site, path, reason):
    with pytest.raises(PageError, match=reason):
        visit(site + path)


def test_a_flood_ends_while_it_comes(site, monkeypatch):
    monkeypatch.setattr(page_fetching, "MAX_BYTES", 300_000)
    with pytest.raises(PageError, match="larger than 300,000 bytes"):
        visit(f"{site}/flood")


def test_a_page_that_trickles_for_ever_ends(site, monkeypatch):
    monkeypatch.setattr(page_fetching, "MAX_SECONDS", -1.0)
    with pytest.raises(PageError, match="was not there within"):
        visit(f"{site}/plain")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "224.0.0.1",
    ],
)
def test_no_address_that_is_not_public_is_asked(server, host):
    before = len(server.asked)
    with pytest.raises(PageError, match="not on the public internet"):
        fetch(f"http://{host}:{server.server_port}/page")
    assert len(server.asked) == before


def test_a_redirect_to_an_address_that_is_not_public_is_not_followed(site, monkeypatch):
    own = page_fetching._is_public
    monkeypatch.setattr(
        page_fetching, "_is_public", lambda address: address == "127.0.0.1" or own(address)
    )
    with pytest.raises(PageError, match=r"169\.254\.169\.254.*not on the public"):
        fetch(f"{site}/out")


def test_a_name_is_looked_up_once_and_asked_for_by_its_name(server, monkeypatch):
    looked_up = []

    def look_up(host, port, *more, **options):
        looked_up.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(page_fetching.socket, "getaddrinfo", look_up)
    fetch(f"http://weather.example:{server.server_port}/page", allow_private=True)
    assert [host for host in looked_up if host == "weather.example"] == ["weather.example"]
    assert server.asked[-1] == f"weather.example:{server.server_port}"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.example", "a.example", "http://"])
def test_other_schemes_are_refused(url):
    with pytest.raises(PageError, match="begins neither"):
        fetch(url)


def test_wikipedia_gives_the_article_of_a_title_or_of_words(site):
    wikipedia = wikipedia_tool(api=f"{site}/api", allow_private=True).call
    assert wikipedia("Rain") == "# Rain\n\nRain is water."
    assert wikipedia("cold water") == "# Rain\n\nRain is water.\n\nNear: Snow"
    with pytest.raises(PageError, match="no article for 'xyzzy'"):
        wikipedia("xyzzy")


class Searcher:
    """Stands for ddgs, which has no server but the internet's."""

    def text(self, query, max_results):
        if query == "nothing":
            raise RuntimeError("No results found.")
        if query == "limit":
            raise RuntimeError("202 Ratelimit")
        return [{"title": query, "href": "https://a.example", "body": "b"}] * max_results


def test_a_search_gives_titles_and_addresses():
    search = web_search_tool(searcher=Searcher).call
    assert (
        search("rain", max_results=2)
        == [{"title": "rain", "url": "https://a.example", "text": "b"}] * 2
    )
    assert len(search("rain", max_results=1000)) == 50
    assert search("nothing") == []
    with pytest.raises(PageError, match="'limit' failed: 202"):
        search("limit")


def test_the_searcher_of_the_library_has_the_method_that_is_used():
    ddgs = pytest.importorskip("ddgs")
    assert callable(ddgs.DDGS().text)
    assert web_search_tool().stub.startswith("def web_search(query: str, max_results: int = 10)")


def test_an_unknown_name_is_told_with_the_known_ones():
    assert [tool.name for tool in built_in(["wikipedia", "visit_webpage"])] == [
        "wikipedia",
        "visit_webpage",
    ]
    with pytest.raises(SettingsError, match=r"'google'.*visit_webpage, web_search, wikipedia"):
        built_in(["google"])


def test_a_missing_library_is_told_with_its_extra(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(web_tools, "import_module", missing)
    with pytest.raises(SettingsError, match=r"'wikipedia' needs .*httpx.*kernel-agent\[web\]"):
        built_in(["wikipedia"])
