"""`web_search`: searches the web by words, and reads single pages.

`app/tools/search/options.py` describes the options of a request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from sys import getsizeof
from typing import Any, cast

import msgspec

from app.discovery import constants
from app.documents.base import UnreadableDocument
from app.fairness import Busy
from app.protocol.messages import FunctionTool
from app.protocol.wire.hosted import HostedCall, HostedItem, OpenPageAction, SearchAction, UrlSource, WebSearchCall
from app.shortening import beginning
from app.tools.fetch import page_text
from app.tools.fetch.cache import Recent
from app.tools.ports.fetcher import FetchRefused
from app.tools.ports.tool import (
    Missing,
    Price,
    Tool,
    ToolContext,
    ToolFailure,
    ToolOutcome,
    ToolRequest,
    ToolServices,
    ToolSession,
    ToolSpec,
    UrlCitation,
)
from app.tools.search.base import Providers, Query, Result, SearchFailed, WebProvider
from app.tools.search.options import Options, parse_options
from app.tools.search.queries import MOST_QUERIES, decoded, queries_of
from app.tools.search.results import is_allowed, merged, tidied

_SEARCH = "web_search"
_OPEN = "web_search_open"
_RECENT_BYTES = 2 * 1024 * 1024
_RECENT_SECONDS = 300.0
"""Search results are public, so tenants share the cache."""
_PAGE_SECONDS = 20.0
_PAGE_TYPES = ("text/*", "application/xhtml+xml", "application/pdf", "application/json", "application/xml")
_NATIVE = msgspec.Raw(b'{"type":"web_search"}')
_QUERIES = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_QUERIES}


def _schema(name: str, value: Mapping[str, object]) -> msgspec.Raw:
    return msgspec.Raw(
        msgspec.json.encode(
            {"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False}
        )
    )


_SEARCH_SCHEMA = _schema("queries", _QUERIES)
_OPEN_SCHEMA = _schema("url", {"type": "string"})
# Scripts that identify a language; others are shared by many.
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
)


class _WebSearch:
    """Implements `app.tools.ports.tool.Tool`."""

    def __init__(self, services: ToolServices, providers: Providers[Query, Result]) -> None:
        self.fetcher = services.fetcher
        self.page_bytes = services.settings.limits.fetch_bytes
        self._providers = providers
        self._recent = Recent[tuple[Result, ...]](weight=_RECENT_BYTES, seconds=_RECENT_SECONDS)

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        options, echo = parse_options(raw, place)
        return ToolRequest(
            open=partial(self._open, options),
            echo=echo,
            names=(_SEARCH, _OPEN) if options.opens_pages else (_SEARCH,),
            native=_NATIVE if options.is_plain else None,
        )

    async def find(self, query: Query) -> tuple[Result, ...]:
        """The allowed results of one query, best first. Raises SearchFailed."""
        key = msgspec.json.encode(query).decode()
        known = self._recent.get(key)
        if known is not None:
            return known
        results = tidied(await self._providers.search(query), query)
        if results:  # empty results are not cached
            self._recent.put(key, results, _memory(key, results))
        return results

    async def aclose(self) -> None:
        await self._providers.aclose()

    async def _open(self, options: Options, context: ToolContext) -> ToolSession:
        return _Session(self, options, context)


def _memory(key: str, results: Sequence[Result]) -> int:
    """Bytes that a search takes: a single character beyond the BMP makes a text four times as large."""
    return getsizeof(key) + sum(getsizeof(one) + sum(map(getsizeof, msgspec.structs.astuple(one))) for one in results)


class _Session:
    """Implements `app.tools.ports.tool.ToolSession`."""

    def __init__(self, tool: _WebSearch, options: Options, context: ToolContext) -> None:
        self._tool = tool
        self._options = options
        self._context = context
        self.functions: Sequence[FunctionTool] = _functions(options)
        self.announcements: Sequence[HostedItem] = ()
        self.note: str | None = None

    def item(self, call: HostedCall) -> HostedItem:
        if call.name == _OPEN:
            return WebSearchCall("", "in_progress", OpenPageAction(_url(call.arguments) or None))
        queries = queries_of(call.arguments)
        return WebSearchCall("", "in_progress", SearchAction(queries[0] if queries else "", queries))

    def may_repeat(self, call: HostedCall) -> bool:
        del call
        return True

    async def run(self, call: HostedCall) -> ToolOutcome:
        return await (
            self._open_page(_url(call.arguments)) if call.name == _OPEN else self._search(queries_of(call.arguments))
        )

    async def aclose(self) -> None:
        """Nothing to release."""

    async def _search(self, queries: tuple[str, ...]) -> ToolOutcome:
        if not queries:
            raise ToolFailure('There is nothing to search for. Call it with {"queries": ["…"]}.')
        async with asyncio.TaskGroup() as group:
            searches = [group.create_task(self._find(text)) for text in queries]
        rankings = [search.result() for search in searches]
        answered = [ranking for ranking in rankings if ranking is not None]
        if not answered:
            raise ToolFailure("The web search is not available right now. Answer without it, and say so.")
        found = merged(answered, self._options.size.results)
        unanswered = [text for text, ranking in zip(queries, rankings, strict=True) if ranking is None]
        action = SearchAction(queries[0], queries, tuple(UrlSource(page.url) for page in found))
        return ToolOutcome(text=self._told(found, unanswered), item=WebSearchCall("", "completed", action))

    async def _find(self, text: str) -> tuple[Result, ...] | None:
        """None: no provider answers."""
        options = self._options
        query = Query(
            text=text,
            limit=options.size.results,
            chars=options.size.each,
            allowed_domains=options.domains,
            language=next((language for language, script in _SCRIPTS if script.search(text)), None),
            country=options.country,
            freshness=options.freshness,
        )
        try:
            return await self._tool.find(query)
        except SearchFailed:  # each provider's failure is in the log
            return None

    def _told(self, found: Sequence[Result], unanswered: Sequence[str]) -> str:
        parts = ["Cite what you use by its number in brackets, like [1]." if found else "Nothing was found."]
        for page in found:
            number = self._context.cite(UrlCitation(page.url, page.title))
            date = f"({page.published}) " if page.published else ""
            parts.append(f"[{number}] {page.title}\n{page.url}\n{date}{page.content or page.snippet}")
        if unanswered:
            parts.append(f"These queries could not be searched: {'; '.join(unanswered)}")
        return "\n\n".join(parts)

    async def _open_page(self, url: str) -> ToolOutcome:
        self._check_domain(url)
        project = self._context.project_id
        try:
            page = await self._tool.fetcher.on_behalf(project).get(
                url, limit=self._tool.page_bytes, seconds=_PAGE_SECONDS, accept=_PAGE_TYPES
            )
            self._check_domain(page.url)
            read = await page_text.article(page, project)
        except (FetchRefused, UnreadableDocument, Busy) as error:
            raise ToolFailure(str(error)) from error
        title = " ".join(read.title.split()) or page.url
        number = self._context.cite(UrlCitation(page.url, title))
        shown = beginning(read.text, self._options.size.page, "…")
        text = f"Cite it as [{number}].\n\n[{number}] {title}\n{page.url}\n\n{shown}"
        return ToolOutcome(text=text, item=WebSearchCall("", "completed", OpenPageAction(url)))

    def _check_domain(self, url: str) -> None:
        if not is_allowed(url, self._options.domains):
            sites = f" on {', '.join(self._options.domains)}" if self._options.domains else ""
            raise ToolFailure(f"Only http and https pages{sites} can be opened.")


def _functions(options: Options) -> tuple[FunctionTool, ...]:
    hints = [f"Today is {datetime.now(UTC):%Y-%m-%d}."]
    if options.place:
        hints.append(f"The user is here: {options.place}. Name the place in queries about what is near.")
    if options.domains:
        hints.append(f"Only these sites are searched: {', '.join(options.domains)}.")
    description = (
        f"Search the web for what is recent or not known for certain. Several queries at once only for several "
        f"aspects. {' '.join(hints)}"
    )
    search = FunctionTool(_SEARCH, description, _SEARCH_SCHEMA)
    if not options.opens_pages:
        return (search,)
    reading = "Read one page whole, for example one that a search has found and whose excerpt does not say enough."
    return search, FunctionTool(_OPEN, reading, _OPEN_SCHEMA)


def _url(arguments: str) -> str:
    """The address of a call; "" if there is none."""
    value = decoded(arguments)
    if isinstance(value, dict):
        value = cast("dict[str, Any]", value).get("url")
    return value.strip() if isinstance(value, str) else ""


def _build(services: ToolServices) -> Tool | Missing:
    providers = Providers(services.settings, constants("app.tools.search", "PROVIDER", WebProvider))
    if not providers.names:
        return Missing(
            "GATEWAY_SEARXNG_URL",
            "Set it to the address of a SearXNG server, or set the key of a search service: GATEWAY_TAVILY_API_KEY, "
            "GATEWAY_BRAVE_API_KEY, GATEWAY_SERPER_API_KEY, GATEWAY_BOCHA_API_KEY, GATEWAY_EXA_API_KEY or "
            "GATEWAY_JINA_API_KEY.",
        )
    return _WebSearch(services, providers)


TOOL = ToolSpec(
    type="web_search",
    aliases=("web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
    build=_build,
    example=msgspec.Raw(b'{"type":"web_search"}'),
    description="Searches the web and reads pages; the answer cites its sources.",
    price=Price(0.0, note="SearXNG; keyed providers charge by their own list"),
)
