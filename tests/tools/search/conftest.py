"""A search service on a loopback port, and how it is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator

import pytest

from app.discovery import constants
from app.settings import SearchProvider, Settings
from app.tools.search.base import Providers, Query, Result, WebProvider
from tests.support.site import Site, serving_site

Engines = Callable[..., Providers[Query, Result]]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    """Answers what the test says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving_site() as running:
        yield running


@pytest.fixture
async def engines() -> AsyncGenerator[Engines]:
    """Makes the configured providers, all of them with a key; `clock` as in `Providers`."""
    opened: list[Providers[Query, Result]] = []

    def make(addresses: dict[SearchProvider, str], **how: Callable[[], float]) -> Providers[Query, Result]:
        keys = {f"{name}_api_key": f"key-of-{name}" for name in addresses if name != "searxng"}
        searxng = {"searxng_url": addresses["searxng"]} if "searxng" in addresses else {}
        settings = Settings.model_validate(
            {"search_providers": tuple(addresses), "search_base_urls": addresses, **keys, **searxng}
        )
        opened.append(Providers(settings, constants("app.tools.search", "PROVIDER", WebProvider), **how))
        return opened[-1]

    yield make
    for providers in opened:
        await providers.aclose()
