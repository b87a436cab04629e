"""Providers in order: which are used, what failing means, and what never leaves."""

from __future__ import annotations

import gzip
import logging
from typing import Any

import pytest

from app.discovery import constants
from app.settings import ConfigurationError, Settings, load
from app.tools.search import base
from app.tools.search.base import Providers, Query, Result, SearchFailed, WebProvider, accounts
from tests.support.site import Answer, Site
from tests.tools.search.conftest import Engines

_QUERY = Query(text="a secret question")
_FOUND = Answer.json(
    {  # what Serper says and what Tavily says, in one
        "organic": [{"title": "T", "link": "https://a.org/", "snippet": "s"}],
        "results": [{"title": "T", "url": "https://a.org/", "content": "s"}],
    }
)
_RESULTS = [Result("T", "https://a.org/", "s")]


def _names(**settings: object) -> list[str]:
    found = constants("app.tools.search", "PROVIDER", WebProvider)
    return [account.name for account in accounts(Settings.model_validate(settings), found)]


def test_searxng_comes_first_then_every_provider_with_a_key() -> None:
    assert _names() == []
    assert _names(jina_api_key="k", brave_api_key="k", searxng_url="http://searx") == ["searxng", "brave", "jina"]


def test_the_settings_say_the_order() -> None:
    keys = {"jina_api_key": "k", "brave_api_key": "k", "exa_api_key": "k"}
    assert _names(search_providers=["jina", "brave"], **keys) == ["jina", "brave"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search_providers": ["brave"]}, "brave_api_key"),
        ({"search_providers": ["searxng"]}, "searxng_url"),
        ({"searxng_url": "searx:8080"}, "searxng_url"),
        ({"searxng_url": "http://searx:99999"}, "searxng_url"),
        ({"brave_api_key": "k", "search_base_urls": {"brave": "ftp://brave"}}, "search_base_urls"),
        ({"search_base_urls": {"brav": "http://brave"}}, r"search_base_urls\.brav"),
    ],
)
def test_a_provider_that_cannot_be_used_is_a_mistake(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(**settings)


_BROKEN = {
    "a wrong key": Answer.text("no", status=401),
    "too many requests": Answer.text("slow down", status=429),
    "an error": Answer.text("oops", status=500),
    "a redirect": Answer.redirect("/found"),
    "a login page": Answer.html("<p>Log in to the network</p>"),
    "half an answer": Answer(b'{"organic": ['),
    "another shape": Answer.json({"organic": "none"}),
    "no object": Answer.json([1]),
    "deep nesting": Answer(b'{"organic": ' + b"[" * 100_000),
    "no UTF-8": Answer(b'{"organic": [{"title": "\xff"}]}'),
    "no gzip": Answer(b"not gzip", headers={"content-encoding": "gzip"}),
    "another encoding": Answer(b"x", headers={"content-encoding": "br"}),
    "an endless body": Answer.endless(),
    "a bomb": Answer.gzip_bomb(64 * 1024 * 1024),
    "no results": Answer.json({"organic": []}),
}


@pytest.mark.parametrize("broken", _BROKEN)
async def test_the_next_one_is_asked(broken: str, site: Site, engines: Engines) -> None:
    site.pages |= {"/a/search": _BROKEN[broken], "/b/search": _FOUND, "/found": _FOUND}
    assert list(await engines({"serper": site.url("/a"), "tavily": site.url("/b")}).search(_QUERY)) == _RESULTS
    assert site.paths == ["/a/search", "/b/search"]


@pytest.mark.parametrize("silent", [Answer.never(), Answer.drip(b" ")], ids=["silent", "drips"])
async def test_a_slow_one_is_given_up(
    silent: Answer, site: Site, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_ANSWER_SECONDS", 0.2)
    site.pages |= {"/a/search": silent, "/b/search": _FOUND}
    assert list(await engines({"tavily": site.url("/a"), "serper": site.url("/b")}).search(_QUERY)) == _RESULTS


async def test_one_that_cannot_be_reached(site: Site, engines: Engines) -> None:
    site.pages["/search"] = _FOUND
    assert list(await engines({"tavily": "http://127.0.0.1:9", "serper": site.origin}).search(_QUERY)) == _RESULTS


async def test_a_compressed_answer(site: Site, engines: Engines) -> None:
    site.pages["/search"] = Answer(gzip.compress(_FOUND.body), headers={"content-encoding": "gzip"})
    assert list(await engines({"serper": site.origin}).search(_QUERY)) == _RESULTS


async def test_one_that_failed_rests(site: Site, engines: Engines) -> None:
    now = 1000.0
    site.pages |= {"/a/search": Answer.text("", status=503), "/b/search": _FOUND}
    providers = engines({"tavily": site.url("/a"), "serper": site.url("/b")}, clock=lambda: now)

    await providers.search(_QUERY)
    now += 29
    await providers.search(_QUERY)
    assert site.paths == ["/a/search", "/b/search", "/b/search"]

    now += 2
    await providers.search(_QUERY)
    assert site.paths[3:] == ["/a/search", "/b/search"]


async def test_the_only_one_never_rests(site: Site, engines: Engines) -> None:
    site.pages["/search"] = Answer.text("", status=503)
    providers = engines({"serper": site.origin})
    with pytest.raises(SearchFailed):
        await providers.search(_QUERY)
    site.pages["/search"] = _FOUND
    assert list(await providers.search(_QUERY)) == _RESULTS


async def test_a_query_that_is_refused_does_not_stop_others(site: Site, engines: Engines) -> None:
    site.pages |= {"/a/search": Answer.text("query too long", status=422), "/b/search": _FOUND}
    providers = engines({"tavily": site.url("/a"), "serper": site.url("/b")})
    await providers.search(_QUERY)
    await providers.search(_QUERY)
    assert site.paths == ["/a/search", "/b/search"] * 2


async def test_nothing_found_anywhere_is_no_failure(site: Site, engines: Engines) -> None:
    site.pages |= {"/a/search": Answer.text("", status=500), "/b/search": Answer.json({})}
    assert list(await engines({"tavily": site.url("/a"), "serper": site.url("/b")}).search(_QUERY)) == []


async def test_neither_keys_nor_queries_are_told(
    site: Site, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site.pages["*"] = lambda visit: Answer.text(f"bad key {visit.headers}", status=401)
    providers = engines({"tavily": site.origin, "brave": site.origin, "searxng": "http://127.0.0.1:9"})
    with pytest.raises(SearchFailed) as failure:
        await providers.search(_QUERY)
    told = f"{failure.value!r} {failure.value} {caplog.text}"
    assert "status 401" in told
    assert "key-of" not in told
    assert "secret" not in told


async def test_a_key_that_cannot_be_sent_is_not_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    found = constants("app.tools.search", "PROVIDER", WebProvider)
    settings = Settings.model_validate({"tavily_api_key": "schlüssel", "search_base_urls": {"tavily": site.origin}})
    with pytest.raises(SearchFailed, match="ASCII") as failure:
        await Providers(settings, found).search(_QUERY)
    assert "schl" not in f"{failure.value!r} {caplog.text}"


async def test_no_connection_is_opened_before_the_first_search(site: Site) -> None:
    settings = Settings(searxng_url=site.origin)
    providers = Providers(settings, constants("app.tools.search", "PROVIDER", WebProvider))
    assert providers.names == ("searxng",)
    await providers.aclose()
    assert site.connections == 0
