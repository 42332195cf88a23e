"""Built-in tools for the web, off unless asked for: search, pages, Wikipedia."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from kernel_agent.errors import SettingsError
from kernel_agent.page_fetching import Fetched, PageError, fetch
from kernel_agent.tools.tool import Tool, as_tool

MAX_CHARS = 20_000  # of a page that are given unless more are asked for
WIKIPEDIA = "https://en.wikipedia.org/w/api.php"
EXTRA = "pip install 'kernel-agent[web]'"


def web_search_tool(*, searcher: Callable[[], Any] | None = None) -> Tool:
    """The tool `web_search`, by ddgs. `searcher` makes what searches, ddgs's own if None."""
    make: Callable[[], Any] = searcher or _library("ddgs", "web_search").DDGS

    def web_search(query: str, max_results: int = 10) -> list[dict[str, str]]:
        """Search the web.

        Args:
            query: the words to look for
            max_results: results at most, up to 50

        Returns:
            Dicts with title, url and text, the best first; none if nothing was found.
        """
        try:
            found = make().text(query, max_results=max(1, min(max_results, 50)))
        except Exception as error:
            # Its errors share no base that all versions have; finding nothing is one of them.
            if "No results" in str(error):
                return []
            raise PageError(f"the search for {query!r} failed: {error}") from error
        names = {"title": "title", "url": "href", "text": "body"}
        return [{ours: str(one.get(its, "")) for ours, its in names.items()} for one in found]

    return as_tool(web_search)


def visit_webpage_tool(*, allow_private: bool = False) -> Tool:
    """The tool `visit_webpage`. `allow_private` lets it reach addresses of the local network."""
    markdownify = _library("markdownify", "visit_webpage").markdownify
    _library("httpx", "visit_webpage")

    def visit_webpage(url: str, max_chars: int = MAX_CHARS) -> str:
        """Read a web page as Markdown.

        Args:
            url: its address, beginning with http:// or https://
            max_chars: characters at most; of a longer page the beginning is given

        Returns:
            The page's text, with links and tables.
        """
        return _shortened(
            _markdown(fetch(url, allow_private=allow_private), markdownify), max_chars
        )

    return as_tool(visit_webpage)


def wikipedia_tool(*, api: str = WIKIPEDIA, allow_private: bool = False) -> Tool:
    """The tool `wikipedia`, by the public API at `api`."""
    _library("httpx", "wikipedia")

    def ask(**parameters: str) -> dict[str, Any]:
        parameters = {"format": "json", "formatversion": "2", **parameters}
        answer = fetch(api, parameters=parameters, allow_private=allow_private).json()
        query = answer.get("query")
        return query if isinstance(query, dict) else {}

    def page(title: str) -> dict[str, Any] | None:
        pages = ask(action="query", prop="extracts", explaintext="1", redirects="1", titles=title)
        found = pages.get("pages") or [{}]
        return found[0] if found[0].get("extract") else None

    def wikipedia(title_or_query: str) -> str:
        """Read an article of Wikipedia.

        Args:
            title_or_query: its title, or words to find it by

        Returns:
            The title and the article's text; titles that are near, if there are others.
        """
        hits = ask(action="query", list="search", srlimit="5", srsearch=title_or_query)
        titles = [str(hit["title"]) for hit in hits.get("search", ())]
        found = page(title_or_query) or (page(titles[0]) if titles else None)
        if found is None:
            raise PageError(f"Wikipedia has no article for {title_or_query!r}. Try other words.")
        others = [title for title in titles if title != found["title"]]
        near = f"\n\nNear: {', '.join(others)}" if others else ""
        return f"# {found['title']}\n\n{_shortened(found['extract'], MAX_CHARS)}{near}"

    return as_tool(wikipedia)


def _library(name: str, tool: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise SettingsError(
            f"The tool {tool!r} needs the package `{name}`, which is not installed. "
            f"It comes with an extra: {EXTRA}."
        ) from error


def _markdown(page: Fetched, markdownify: Callable[..., str]) -> str:
    if page.kind in ("text/html", "application/xhtml+xml"):
        # markdownify takes their tags out, and would leave their texts.
        source = re.sub(r"(?is)<(script|style|noscript|svg)\b.*?(?:</\1\s*>|\Z)", "", page.text)
        return re.sub(r"\n{3,}", "\n\n", markdownify(source, heading_style="ATX")).strip()
    return page.text.strip()


def _shortened(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    return f"{text[: max(max_chars, 0)]}\n[characters 0 to {max_chars} of {len(text)}]"
