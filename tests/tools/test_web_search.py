"""`web_search` from the request's entry to what the model reads, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping

import msgspec
import pytest

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import OpenPageAction, SearchAction, UrlSource, WebSearchCall
from app.settings import Settings
from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.tool import Missing, Tool, ToolFailure, ToolServices, UrlCitation
from app.tools.web_search import TOOL
from tests.support.site import Answer, Site, Visit, serving_site
from tests.tools.search.sessions import Sources, action_of, build, call_of, found, open_session, query_of, urls_of


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    """The search service, and the web."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving_site() as running:
        yield running


@pytest.fixture
async def tool(site: Site) -> AsyncGenerator[Tool]:
    """Configured with SearXNG, at the site."""
    built = build(searxng_url=site.origin)
    yield built
    await built.aclose()


def test_without_a_provider_it_names_the_setting() -> None:
    built = TOOL.build(ToolServices(settings=Settings(), fetcher=GuardedFetcher(), files=None))
    assert isinstance(built, Missing)
    assert built.setting == "GATEWAY_SEARXNG_URL"
    assert "GATEWAY_TAVILY_API_KEY" in built.reason


async def test_a_search(site: Site, tool: Tool) -> None:
    site.pages["/search"] = Answer.json(
        {
            "results": [
                {
                    "url": "https://a.org/1",
                    "title": "One\n two",
                    "content": " first ",
                    "score": 2,
                    "publishedDate": "2026-11-01",
                },
                {"url": "https://a.org/2", "title": None, "content": None, "score": 1},
            ]
        }
    )
    cite = Sources()
    session = await open_session(tool, cite=cite)
    call = call_of({"queries": ["qwen 3.7"]})

    assert session.item(call) == WebSearchCall("", "in_progress", SearchAction("qwen 3.7", ("qwen 3.7",)))
    outcome = await session.run(call)

    assert outcome.item == WebSearchCall(
        "",
        "completed",
        SearchAction("qwen 3.7", ("qwen 3.7",), (UrlSource("https://a.org/1"), UrlSource("https://a.org/2"))),
    )
    assert outcome.text == (
        "Cite what you use by its number in brackets, like [1].\n\n"
        "[1] One two\nhttps://a.org/1\n(2026-11-01) first\n\n"
        "[2] https://a.org/2\nhttps://a.org/2\n"
    )
    assert cite.cited == [UrlCitation("https://a.org/1", "One two"), UrlCitation("https://a.org/2", "https://a.org/2")]


async def test_several_queries_are_one_list(site: Site, tool: Tool) -> None:
    def answer(visit: Visit) -> Answer:
        if query_of(visit) == "a":
            return found("https://one.org/", "https://both.org/page?utm_source=x&id=1")
        return found("http://www.both.org/page/?id=1#part", "https://two.org/")

    site.pages["/search"] = answer
    outcome = await (await open_session(tool)).run(call_of({"queries": ["a", "b", "a"]}))
    assert action_of(outcome).queries == ("a", "b")
    assert urls_of(outcome) == ["https://both.org/page?utm_source=x&id=1", "https://one.org/", "https://two.org/"]
    assert len(site.visits) == 2


async def test_the_queries_that_were_answered_are_used(site: Site, tool: Tool) -> None:
    site.pages["/search"] = lambda visit: (
        Answer.text("", status=422) if query_of(visit) == "bad" else found("https://a.org/")
    )
    outcome = await (await open_session(tool)).run(call_of({"queries": ["good", "bad"]}))
    assert urls_of(outcome) == ["https://a.org/"]
    assert "could not be searched: bad" in outcome.text


async def test_no_results(site: Site, tool: Tool) -> None:
    site.pages["/search"] = found()
    outcome = await (await open_session(tool)).run(call_of({"queries": ["a"]}))
    assert outcome.text == "Nothing was found."
    assert action_of(outcome).sources == ()


async def test_everything_is_down(site: Site, tool: Tool) -> None:
    site.pages["/search"] = Answer.text("internal detail", status=500)
    with pytest.raises(ToolFailure, match="not available right now") as failure:
        await (await open_session(tool)).run(call_of({"queries": ["a", "b"]}))
    assert "internal" not in str(failure.value)


@pytest.mark.parametrize(
    ("arguments", "queries"),
    [
        ('{"queries": ["a", " b\\n c "]}', ("a", "b c")),
        ('{"queries": "a"}', ("a",)),
        ('{"query": "a"}', ("a",)),
        ('{"query": ["a", 3, null, "b"]}', ("a", "b")),
        ('["a", "b"]', ("a", "b")),
        ('"a"', ("a",)),
        ("who is it", ("who is it",)),
        ('{"queries": ["1", "2", "3", "4", "5", "6"]}', ("1", "2", "3", "4", "5")),
        ('{"queries": ["' + "x" * 5000 + '"]}', ("x" * 1000,)),
        ("", ()),
        ('{"queries": ["a', ()),
        ('{"queries": {"a": 1}}', ()),
        ("[" * 5000, ()),
        ("3", ()),
    ],
)
async def test_however_the_arguments_are_written(
    arguments: str, queries: tuple[str, ...], site: Site, tool: Tool
) -> None:
    site.pages["/search"] = found("https://a.org/")
    session = await open_session(tool)
    item = session.item(call_of(arguments))
    assert isinstance(item, WebSearchCall)
    assert item.action == SearchAction(queries[0] if queries else "", queries)
    if queries:
        assert action_of(await session.run(call_of(arguments))).queries == queries
    else:
        with pytest.raises(ToolFailure, match="queries"):
            await session.run(call_of(arguments))


async def test_only_allowed_domains(site: Site, tool: Tool) -> None:
    wanted = ["https://example.com/a", "https://docs.example.com/b", "https://xn--bcher-kva.example/c"]
    site.pages["/search"] = found(
        "https://evil.org/",
        "https://notexample.com/",
        "https://example.com.evil.org/",
        "https://example.com@evil.org/",
        "https://evil.org\\@example.com/",
        "ftp://example.com/",
        "javascript:alert(1)//example.com",
        "https:///example.com",
        "https://exa mple.com/",
        "https://[example.com/",
        f"https://example.com/{'x' * 3000}",
        *wanted,
    )
    session = await open_session(tool, {"filters": {"allowed_domains": ["Example.com.", "bücher.example"]}})
    assert urls_of(await session.run(call_of({"queries": ["q"]}))) == wanted
    assert query_of(site.visits[0]) == "q (site:example.com OR site:xn--bcher-kva.example)"


@pytest.mark.parametrize(("size", "results", "longest"), [("low", 5, 600), ("medium", 8, 1500), ("high", 15, 2799)])
async def test_how_much_is_read(size: str, results: int, longest: int, site: Site, tool: Tool) -> None:
    site.pages["/search"] = found(*(f"https://a.org/{i}" for i in range(30)), text="汉" * 5000)
    outcome = await (await open_session(tool, {"search_context_size": size})).run(call_of({"queries": ["q"]}))
    assert len(urls_of(outcome)) == results
    texts = [line for line in outcome.text.splitlines() if line.startswith("汉")]
    assert {len(text.removesuffix("…").encode()) for text in texts} == {longest}
    assert len(outcome.text.encode()) < Settings().limits.tool_output_bytes


async def test_language_place_and_freshness_reach_the_provider_and_the_model(site: Site) -> None:
    site.pages["/search"] = Answer.json({})
    tool = build(serper_api_key="k", search_base_urls={"serper": site.origin})
    place = {"type": "approximate", "country": "de", "city": "Köln", "region": "NRW", "timezone": "Europe/Berlin"}
    session = await open_session(
        tool, {"user_location": place, "freshness": "oneMonth", "filters": {"allowed_domains": ["a.org"]}}
    )
    for text in ("天气", "天気は", "날씨", "weather"):
        await session.run(call_of({"queries": [text]}))
    await tool.aclose()

    bodies = [msgspec.json.decode(visit.body) for visit in site.visits]
    assert [body.get("hl") for body in bodies] == ["zh-cn", "ja", "ko", None]
    assert {(body["gl"], body["tbs"]) for body in bodies} == {("de", "qdr:m")}
    description = session.functions[0].description or ""
    assert "Köln, NRW, DE, time zone Europe/Berlin" in description
    assert "a.org" in description


async def test_what_was_asked_a_moment_ago_is_not_asked_again(site: Site, tool: Tool) -> None:
    site.pages["/search"] = found("https://a.org/")
    first, second = await open_session(tool), await open_session(tool)
    assert await first.run(call_of({"queries": ["q"]})) == await second.run(call_of({"queries": ["q"]}))
    assert len(site.visits) == 1

    for options in ({"freshness": "day"}, {"search_context_size": "high"}, {"filters": {"allowed_domains": ["a.org"]}}):
        await (await open_session(tool, options)).run(call_of({"queries": ["q"]}))
    assert len(site.visits) == 4


async def test_what_was_asked_takes_a_bounded_amount_of_memory(site: Site, tool: Tool) -> None:
    """One rocket in a text of 1,000 characters, and each takes four bytes: 2 MiB are full after 52 searches."""
    page = {"url": "https://a.org/", "title": "A", "content": f"\N{ROCKET}{'a' * 999}"}
    site.pages["/search"] = Answer.json({"results": [page] * 10})
    session = await open_session(tool, {"search_context_size": "high"})
    for number in (*range(60), *reversed(range(60))):
        await session.run(call_of({"queries": [f"q{number}"]}))
    assert 60 + 8 <= len(site.visits) <= 60 + 15


async def test_a_page_is_opened(site: Site, tool: Tool) -> None:
    site.pages["/story"] = Answer.html(f"<p>{'The lake is 9.8 metres deep at its deepest. ' * 5}</p>", title="The lake")
    cite = Sources()
    session = await open_session(tool, cite=cite)
    call = call_of({"url": site.url("/story")}, "web_search_open")

    assert session.item(call) == WebSearchCall("", "in_progress", OpenPageAction(site.url("/story")))
    outcome = await session.run(call)

    assert outcome.item == WebSearchCall("", "completed", OpenPageAction(site.url("/story")))
    assert "9.8 metres deep" in outcome.text
    assert outcome.text.startswith(f"Cite it as [1].\n\n[1] The lake\n{site.url('/story')}\n\n")
    assert cite.cited == [UrlCitation(site.url("/story"), "The lake")]


@pytest.mark.parametrize(
    "arguments",
    ["", "{}", '{"url": ["https://a.org/"]}', '{"url": "file:///etc/passwd"}', '{"url": "https://a.org\\\\@b.org/"}'],
)
async def test_what_is_no_page_is_not_opened(arguments: str, tool: Tool) -> None:
    session = await open_session(tool)
    call = call_of(arguments, "web_search_open")
    assert isinstance(session.item(call), WebSearchCall)
    with pytest.raises(ToolFailure):
        await session.run(call)


async def test_pages_elsewhere_are_not_opened_when_domains_are_given(site: Site, tool: Tool) -> None:
    session = await open_session(tool, {"filters": {"allowed_domains": ["example.com"]}})
    with pytest.raises(ToolFailure, match=r"on example\.com"):
        await session.run(call_of({"url": site.url("/story")}, "web_search_open"))
    assert site.visits == []


async def test_a_redirect_does_not_lead_out_of_the_domains(site: Site) -> None:
    with serving_site(host="127.0.0.2") as elsewhere:
        elsewhere.pages["/"] = Answer.html("<p>secret</p>")
        site.pages["/out"] = Answer.redirect(elsewhere.url("/", host="127.0.0.2"))
        fetcher = GuardedFetcher(allow=("127.0.0.0/8",), robots=False)
        tool = TOOL.build(ToolServices(settings=Settings(searxng_url=site.origin), fetcher=fetcher, files=None))
        assert not isinstance(tool, Missing)
        session = await open_session(tool, {"filters": {"allowed_domains": ["127.0.0.1"]}})
        with pytest.raises(ToolFailure, match=r"on 127\.0\.0\.1"):
            await session.run(call_of({"url": site.url("/out")}, "web_search_open"))


@pytest.mark.parametrize("options", [{"external_web_access": False}, {"indexed_web_access": True}])
async def test_without_live_pages_only_searching_is_offered(options: Mapping[str, bool], tool: Tool) -> None:
    request = tool.configure(msgspec.Raw(msgspec.json.encode({"type": "web_search", **options})), "tools[0]")
    assert request.names == ("web_search",)
    assert [function.name for function in (await open_session(tool, options)).functions] == ["web_search"]


def _configured(tool: Tool, entry: Mapping[str, object]) -> tuple[dict[str, object], bool]:
    request = tool.configure(msgspec.Raw(msgspec.json.encode(entry)), "tools[2]")
    return msgspec.json.decode(request.echo, type=dict[str, object]), request.native == msgspec.Raw(
        b'{"type":"web_search"}'
    )


async def test_the_echo_shows_what_is_in_effect(tool: Tool) -> None:
    plain = {"filters": None, "search_context_size": "medium", "user_location": None}
    assert _configured(tool, {"type": "web_search"}) == ({"type": "web_search", **plain}, True)
    nulls = {
        "filters": None,
        "search_context_size": None,
        "user_location": None,
        "external_web_access": None,
        "freshness": None,
    }
    assert _configured(tool, {"type": "web_search_preview", **nulls})[1]
    assert _configured(
        tool, {"type": "web_search", "external_web_access": True, "search_content_types": ["text", "image"]}
    ) == (
        {"type": "web_search", **plain, "external_web_access": True, "search_content_types": ["text"]},
        True,
    )
    echo, native = _configured(
        tool, {"type": "web_search", "filters": {"allowed_domains": ["A.org"]}, "freshness": "oneDay"}
    )
    assert echo["filters"] == {"allowed_domains": ["a.org"]}
    assert echo["freshness"] == "day"
    assert not native


@pytest.mark.parametrize(
    "options",
    [
        {"user_location": {"country": "CN"}},
        {"user_location": {"city": "X"}},
        {"freshness": "day"},
        {"external_web_access": False},
    ],
)
async def test_what_the_vendor_cannot_do_stays_here(options: Mapping[str, object], tool: Tool) -> None:
    assert not _configured(tool, {"type": "web_search", **options})[1]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_results": 3}, "tools[2].max_results"),
        ({"filters": {"blocked": []}}, "tools[2].filters.blocked"),
        ({"filters": {"allowed_domains": ["https://a.org"]}}, "tools[2].filters.allowed_domains[0]"),
        ({"filters": {"allowed_domains": ["a.org", "a.org/path"]}}, "tools[2].filters.allowed_domains[1]"),
        ({"filters": {"allowed_domains": ["*.org"]}}, "tools[2].filters.allowed_domains[0]"),
        ({"filters": {"allowed_domains": ["a..org"]}}, "tools[2].filters.allowed_domains[0]"),
        ({"filters": {"allowed_domains": ["a.org) OR (x.org"]}}, "tools[2].filters.allowed_domains[0]"),
        ({"filters": {"allowed_domains": ["a.org"] * 101}}, "tools[2].filters.allowed_domains"),
        ({"search_context_size": "huge"}, "tools[2].search_context_size"),
        ({"freshness": "decade"}, "tools[2].freshness"),
        ({"user_location": {"country": "Germany"}}, "tools[2].user_location.country"),
        ({"user_location": {"city": "x" * 200}}, "tools[2].user_location"),
        ({"user_location": {"city": "a\nb"}}, "tools[2].user_location"),
        ({"user_location": {"type": "exact"}}, "tools[2].user_location.type"),
        ({"external_web_access": "no"}, "tools[2].external_web_access"),
    ],
)
async def test_a_mistake_is_named(options: Mapping[str, object], param: str, tool: Tool) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        _configured(tool, {"type": "web_search", **options})
    assert refusal.value.param == param


def test_the_example_works(site: Site) -> None:
    assert build(searxng_url=site.origin).configure(TOOL.example, "tools[0]").names == ("web_search", "web_search_open")
