"""Every image engine against its API's shapes: what is asked, byte by byte, and what is made of the answer."""

from __future__ import annotations

import base64
from collections.abc import Generator
from urllib.parse import parse_qs, urlsplit

import pytest

from app.settings import Settings
from app.tools.images.base import FoundImage, ImageQuery, Sample, image_providers, lens_providers
from app.tools.search.base import SearchFailed
from tests.support.site import Answer, Site, Visit, serving_site
from tests.tools.images.stage import settings

CAT = "https://img.example/cat.jpg"
PAGE = "https://example.com/cats"
SMALL = "https://img.example/small.jpg"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    """The search services, and the web."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving_site() as running:
        yield running


async def ask(chosen: Settings, query: ImageQuery) -> list[FoundImage]:
    """One question to the engines for words."""
    engines = image_providers(chosen)
    try:
        return list(await engines.search(query))
    finally:
        await engines.aclose()


async def look(chosen: Settings, sample: Sample) -> list[FoundImage]:
    """One question to the engines for images."""
    engines = lens_providers(chosen)
    try:
        return list(await engines.search(sample))
    finally:
        await engines.aclose()


def only(site: Site) -> Visit:
    """The one request there was."""
    [visit] = site.visits
    return visit


async def test_searxng(site: Site) -> None:
    def result(title: str, score: float, **more: object) -> dict[str, object]:
        return {
            "title": title,
            "url": PAGE,
            "img_src": CAT,
            "thumbnail_src": SMALL,
            "score": score,
            "template": "images.html",
            **more,
        }

    site.pages["/search"] = Answer.json(
        {
            "query": "猫",
            "results": [
                result("worse", 0.5, resolution="1024\u00d7768"),
                result("best", 2.0, resolution="800 x 600 (96 dpi)", thumbnail_src=None, thumbnail=SMALL),
                result("no size", 0.4, resolution="large"),
                {"title": "a page", "url": PAGE, "content": "text", "score": 9.0},
            ],
            "unresponsive_engines": [["flickr", "timeout"]],
        }
    )
    found = await ask(settings(searxng_url=site.origin), ImageQuery("猫", 30))
    visit = only(site)
    assert visit.method == "GET"
    assert parse_qs(urlsplit(visit.path).query) == {
        "q": ["猫"],
        "format": ["json"],
        "categories": ["images"],
        "safesearch": ["1"],
    }
    assert found == [
        FoundImage(CAT, "best", PAGE, SMALL, 800, 600),
        FoundImage(CAT, "worse", PAGE, SMALL, 1024, 768),
        FoundImage(CAT, "no size", PAGE, SMALL),
    ]


async def test_searxng_whose_engines_all_fail_has_failed(site: Site) -> None:
    site.pages["/search"] = Answer.json({"results": [], "unresponsive_engines": [["flickr", "timeout"]]})
    with pytest.raises(SearchFailed, match="flickr: timeout"):
        await ask(settings(searxng_url=site.origin), ImageQuery("cat", 10))


async def test_serper(site: Site) -> None:
    image = {
        "title": "A cat",
        "imageUrl": CAT,
        "imageWidth": 1200,
        "imageHeight": 900,
        "thumbnailUrl": SMALL,
        "source": "Example",
        "link": PAGE,
        "position": 1,
    }
    site.pages["/images"] = Answer.json({"searchParameters": {"q": "cat"}, "images": [image]})
    found = await ask(settings(serper_api_key="k1", search_base_urls={"serper": site.origin}), ImageQuery("cat", 30))
    visit = only(site)
    assert (visit.method, visit.json, visit.headers["x-api-key"]) == ("POST", {"q": "cat", "num": 30}, "k1")
    assert found == [FoundImage(CAT, "A cat", PAGE, SMALL, 1200, 900)]


async def test_brave(site: Site) -> None:
    image = {
        "type": "image_result",
        "title": "Cats &amp; dogs",
        "url": PAGE,
        "source": "example.com",
        "thumbnail": {"src": SMALL, "width": 200, "height": 150},
        "properties": {"url": CAT, "placeholder": "https://img.example/p.jpg", "width": 1200, "height": 900},
    }
    site.pages["/res/v1/images/search"] = Answer.json({"type": "images", "results": [image, {"title": "nothing"}]})
    found = await ask(settings(brave_api_key="k2", search_base_urls={"brave": site.origin}), ImageQuery("cat", 30))
    visit = only(site)
    assert parse_qs(urlsplit(visit.path).query) == {"q": ["cat"], "count": ["30"], "safesearch": ["strict"]}
    assert (visit.method, visit.headers["x-subscription-token"]) == ("GET", "k2")
    assert found == [FoundImage(CAT, "Cats & dogs", PAGE, SMALL, 1200, 900), FoundImage("", "nothing")]


async def test_bocha(site: Site) -> None:
    image = {"contentUrl": CAT, "hostPageUrl": PAGE, "thumbnailUrl": SMALL, "name": None, "width": 1200, "height": 900}
    pages = {"value": [{"id": "1", "name": "猫的图片", "url": PAGE, "snippet": "…"}]}
    site.pages["/v1/web-search"] = Answer.json({"code": 200, "data": {"webPages": pages, "images": {"value": [image]}}})
    found = await ask(settings(bocha_api_key="k3", search_base_urls={"bocha": site.origin}), ImageQuery("猫", 80))
    visit = only(site)
    assert (visit.method, visit.json, visit.headers["authorization"]) == (
        "POST",
        {"query": "猫", "count": 50},
        "Bearer k3",
    )
    assert found == [FoundImage(CAT, "猫的图片", PAGE, SMALL, 1200, 900)]


async def test_bocha_tells_of_a_failure_with_status_200(site: Site) -> None:
    site.pages["/v1/web-search"] = Answer.json({"code": "403", "message": "insufficient balance"})
    with pytest.raises(SearchFailed):
        await ask(settings(bocha_api_key="k3", search_base_urls={"bocha": site.origin}), ImageQuery("cat", 10))


async def test_serper_lens(site: Site) -> None:
    whole = {"title": "The same cat", "source": "Example", "link": PAGE, "imageUrl": CAT, "thumbnailUrl": SMALL}
    site.pages["/lens"] = Answer.json(
        {"organic": [whole, {"title": "Known by its thumbnail", "link": PAGE, "thumbnailUrl": SMALL}]}
    )
    found = await look(
        settings(serper_api_key="k1", search_base_urls={"serper": site.origin}), Sample(b"jpeg", CAT, 24)
    )
    visit = only(site)
    assert (visit.method, visit.json, visit.headers["x-api-key"]) == ("POST", {"url": CAT}, "k1")
    assert found == [
        FoundImage(CAT, "The same cat", PAGE, SMALL),
        FoundImage(SMALL, "Known by its thumbnail", PAGE, SMALL),
    ]


async def test_serper_lens_is_not_asked_about_an_image_without_an_address(site: Site) -> None:
    assert (
        await look(settings(serper_api_key="k1", search_base_urls={"serper": site.origin}), Sample(b"jpeg", None, 24))
        == []
    )
    assert site.visits == []


async def test_google_vision(site: Site) -> None:
    web = {
        "webEntities": [{"entityId": "/m/01yrx", "score": 0.9, "description": "Cat"}],
        "fullMatchingImages": [{"url": CAT}],
        "visuallySimilarImages": [{"url": "https://img.example/other.jpg"}],
        "pagesWithMatchingImages": [
            {"url": PAGE, "pageTitle": "Cats", "partialMatchingImages": [{"url": "https://img.example/part.jpg"}]},
            {"url": f"{PAGE}/2", "fullMatchingImages": [{"url": CAT}]},
        ],
        "bestGuessLabels": [{"label": "tabby cat", "languageCode": "en"}],
    }
    site.pages["/v1/images:annotate"] = Answer.json({"responses": [{"webDetection": web}]})
    chosen = settings(google_vision_api_key="k4", search_base_urls={"google_vision": site.origin})
    found = await look(chosen, Sample(b"jpeg", None, 24))
    visit = only(site)
    content = base64.b64encode(b"jpeg").decode()
    assert visit.json == {
        "requests": [{"image": {"content": content}, "features": [{"type": "WEB_DETECTION", "maxResults": 24}]}]
    }
    assert (visit.method, visit.headers["x-goog-api-key"]) == ("POST", "k4")
    assert found == [
        FoundImage(CAT, "tabby cat", f"{PAGE}/2"),
        FoundImage("https://img.example/part.jpg", "Cats", PAGE),
        FoundImage(CAT, "tabby cat"),
        FoundImage("https://img.example/other.jpg", "tabby cat"),
    ]


async def test_google_vision_tells_of_a_failure_with_status_200(site: Site) -> None:
    site.pages["/v1/images:annotate"] = Answer.json(
        {"responses": [{"error": {"code": 3, "message": "Bad image data."}}]}
    )
    chosen = settings(google_vision_api_key="k4", search_base_urls={"google_vision": site.origin})
    with pytest.raises(SearchFailed, match="code 3"):
        await look(chosen, Sample(b"jpeg", None, 24))


def test_engines_are_those_with_an_address_or_a_key_in_the_order_of_the_settings() -> None:
    everything = settings(
        searxng_url="http://searx.example",
        serper_api_key="k",
        brave_api_key="k",
        bocha_api_key="k",
        tavily_api_key="k",
        exa_api_key="k",
    )
    assert image_providers(everything).names == ("searxng", "brave", "serper", "bocha")
    chosen = everything.model_copy(update={"search_providers": ("tavily", "bocha", "searxng")})
    assert image_providers(chosen).names == ("bocha", "searxng")
    assert lens_providers(chosen).names == ()
    assert lens_providers(everything).names == ("serper",)
