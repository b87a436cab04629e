"""`web_search` with a real search server, Debian's searx, whose engines are scripted."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from app.tools.ports.tool import ToolFailure
from tests.support.search import HOW_TO_INSTALL, Searx
from tests.support.site import Answer, Site, serving_site
from tests.tools.search.sessions import build, call_of, open_session, query_of, urls_of

pytestmark = pytest.mark.skipif(not Searx.is_installed(), reason=HOW_TO_INSTALL)


@pytest.fixture(scope="module")
def sources() -> Generator[Site]:
    with serving_site() as running:
        yield running


@pytest.fixture(scope="module")
def searx(sources: Site) -> Generator[Searx]:
    addresses = {name: f"{sources.url(f'/{name}')}?q={{query}}" for name in ("one", "two")}
    with Searx(addresses) as server:
        yield server


@pytest.fixture(autouse=True)
def documents(sources: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    west_lake = {"url": "https://a.cn/xihu", "title": "西湖", "summary": "西湖位于浙江省杭州市。"}
    fuji = {"url": "https://b.org/fuji", "title": "Mount Fuji", "summary": "3776 m"}
    sources.reset()
    sources.pages |= {
        "/one": Answer.json({"documents": [fuji, west_lake]}),
        "/two": Answer.json({"documents": [west_lake]}),
    }


async def test_results_of_all_engines(searx: Searx, sources: Site) -> None:
    tool = build(searxng_url=searx.url)
    outcome = await (await open_session(tool)).run(call_of({"queries": ["杭州 西湖"]}))
    await tool.aclose()
    assert urls_of(outcome) == ["https://a.cn/xihu", "https://b.org/fuji"]  # found by two, found by one
    assert "[1] 西湖\nhttps://a.cn/xihu\n西湖位于浙江省杭州市。" in outcome.text
    assert {query_of(visit) for visit in sources.visits} == {"杭州 西湖"}


async def test_domains_and_freshness(searx: Searx, sources: Site) -> None:
    tool = build(searxng_url=searx.url)
    outcome = await (await open_session(tool, {"filters": {"allowed_domains": ["b.org"]}})).run(
        call_of({"queries": ["mountain"]})
    )
    assert urls_of(outcome) == ["https://b.org/fuji"]
    assert {query_of(visit) for visit in sources.visits} == {"mountain site:b.org"}
    outcome = await (await open_session(tool, {"freshness": "week"})).run(call_of({"queries": ["mountain"]}))
    await tool.aclose()
    assert outcome.text == "Nothing was found."  # such engines know no dates, and searx does not ask them


@pytest.mark.parametrize("query", ["!!g lake", ":xx lake", "!one lake", "<1 lake", "? lake"])
async def test_words_are_no_commands(query: str, searx: Searx, sources: Site) -> None:
    tool = build(searxng_url=searx.url)
    await (await open_session(tool)).run(call_of({"queries": [query]}))
    await tool.aclose()
    assert {visit.path.partition("?")[0] for visit in sources.visits} == {"/one", "/two"}
    assert all(query_of(visit).endswith("lake") for visit in sources.visits)


async def test_engines_that_are_down(searx: Searx, sources: Site, caplog: pytest.LogCaptureFixture) -> None:
    sources.pages = {"*": Answer.text("", status=500)}
    tool = build(searxng_url=searx.url)
    with pytest.raises(ToolFailure):
        await (await open_session(tool)).run(call_of({"queries": ["lake"]}))
    await tool.aclose()
    assert "none of its engines answers" in caplog.text
