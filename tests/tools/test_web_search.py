"""`web_search` from the request's entry to what the model reads, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, cast

import msgspec
import pytest

from app.protocol.errors import InvalidRequest
from app.protocol.hosted import HostedCall, OpenPageAction, SearchAction, UrlSource, WebSearchCall
from app.protocol.messages import ImagePart
from app.settings import Settings
from app.tools._fetch import GuardedFetcher
from app.tools.base import Missing, Source, Tool, ToolContext, ToolFailure, ToolOutcome, ToolSession, UrlCitation, Workshop
from app.tools.web_search import TOOL
from tests.support.search import HOW_TO_INSTALL, Searx
from tests.support.site import Answer, Site, Visit, serving_site

Open = Callable[..., Any]


class _Sources:
    """Numbers them, as the engine does."""

    def __init__(self) -> None:
        self.cited: list[Source] = []

    def __call__(self, source: Source) -> int:
        if source not in self.cited:
            self.cited.append(source)
        return self.cited.index(source) + 1


async def _ask(question: str, *, images: object = (), max_tokens: int = 1000) -> str:
    raise AssertionError("a web search does not ask the model")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    """The search service, and the web."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving_site() as running:
        yield running


@pytest.fixture
async def tool(site: Site) -> AsyncGenerator[Tool]:
    """Configured with SearXNG, at the site."""
    built = _build(searxng_url=site.origin)
    yield built
    await built.aclose()


def _build(**settings: object) -> Tool:
    fetcher = GuardedFetcher(allow=("127.0.0.1",), robots=False)
    built = TOOL.build(Workshop(settings=Settings.model_validate(settings), fetcher=fetcher, files=None))
    assert not isinstance(built, Missing)
    return built


async def _open(tool: Tool, cite: _Sources | None = None, **entry: object) -> ToolSession:
    request = tool.configure(msgspec.Raw(msgspec.json.encode({"type": "web_search", **entry})), "tools[0]")
    images: tuple[ImagePart, ...] = ()
    context = ToolContext(
        project_id="p",
        response_id="r",
        model="qwen",
        images=images,
        include=frozenset(),
        note=None,
        ask=_ask,
        cite=cite or _Sources(),
    )
    return await request.open(context)


def _call(arguments: object, name: str = "web_search") -> HostedCall:
    return HostedCall("call_1", name, arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode())


def _action(outcome: ToolOutcome) -> SearchAction:
    assert isinstance(outcome.item, WebSearchCall)
    assert outcome.item.status == "completed"
    assert isinstance(outcome.item.action, SearchAction)
    return outcome.item.action


def _found(*urls: str, text: str = "text") -> Answer:
    return Answer.json({"results": [{"url": url, "title": f"About {url}", "content": text, "score": -i} for i, url in enumerate(urls)]})


def _asked(visit: Visit) -> str:
    from urllib.parse import parse_qs

    return parse_qs(visit.path.partition("?")[2])["q"][0]


def _urls(outcome: ToolOutcome) -> list[str]:
    sources = _action(outcome).sources
    assert sources is not msgspec.UNSET
    return [source.url for source in cast("tuple[UrlSource, ...]", sources)]


def test_without_a_provider_it_names_the_setting() -> None:
    built = TOOL.build(Workshop(settings=Settings(), fetcher=GuardedFetcher(), files=None))
    assert isinstance(built, Missing)
    assert built.setting == "GATEWAY_SEARXNG_URL"
    assert "GATEWAY_TAVILY_API_KEY" in built.reason


async def test_a_search(site: Site, tool: Tool) -> None:
    site.pages["/search"] = Answer.json(
        {
            "results": [
                {"url": "https://a.org/1", "title": "One\n two", "content": " first ", "score": 2, "publishedDate": "2026-11-01"},
                {"url": "https://a.org/2", "title": None, "content": None, "score": 1},
            ]
        }
    )
    cite = _Sources()
    session = await _open(tool, cite)
    call = _call({"queries": ["qwen 3.7"]})

    assert session.item(call) == WebSearchCall("", "in_progress", SearchAction("qwen 3.7", ("qwen 3.7",)))
    outcome = await session.run(call)

    assert outcome.item == WebSearchCall(
        "", "completed", SearchAction("qwen 3.7", ("qwen 3.7",), (UrlSource("https://a.org/1"), UrlSource("https://a.org/2")))
    )
    assert outcome.text == (
        "Cite what you use by its number in brackets, like [1].\n\n"
        "[1] One two\nhttps://a.org/1\n(2026-11-01) first\n\n"
        "[2] https://a.org/2\nhttps://a.org/2\n"
    )
    assert cite.cited == [UrlCitation("https://a.org/1", "One two"), UrlCitation("https://a.org/2", "https://a.org/2")]


async def test_several_queries_are_one_list(site: Site, tool: Tool) -> None:
    def answer(visit: Visit) -> Answer:
        if _asked(visit) == "a":
            return _found("https://one.org/", "https://both.org/page?utm_source=x&id=1")
        return _found("http://www.both.org/page/?id=1#part", "https://two.org/")

    site.pages["/search"] = answer
    outcome = await (await _open(tool)).run(_call({"queries": ["a", "b", "a"]}))
    assert _action(outcome).queries == ("a", "b")
    assert _urls(outcome) == ["https://both.org/page?utm_source=x&id=1", "https://one.org/", "https://two.org/"]
    assert len(site.visits) == 2


async def test_the_queries_that_were_answered_are_used(site: Site, tool: Tool) -> None:
    site.pages["/search"] = lambda visit: Answer.text("", status=422) if _asked(visit) == "bad" else _found("https://a.org/")
    outcome = await (await _open(tool)).run(_call({"queries": ["good", "bad"]}))
    assert _urls(outcome) == ["https://a.org/"]
    assert "could not be searched: bad" in outcome.text


async def test_no_results(site: Site, tool: Tool) -> None:
    site.pages["/search"] = _found()
    outcome = await (await _open(tool)).run(_call({"queries": ["a"]}))
    assert outcome.text == "Nothing was found."
    assert _action(outcome).sources == ()


async def test_everything_is_down(site: Site, tool: Tool) -> None:
    site.pages["/search"] = Answer.text("internal detail", status=500)
    with pytest.raises(ToolFailure, match="not available right now") as failure:
        await (await _open(tool)).run(_call({"queries": ["a", "b"]}))
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
async def test_however_the_arguments_are_written(arguments: str, queries: tuple[str, ...], site: Site, tool: Tool) -> None:
    site.pages["/search"] = _found("https://a.org/")
    session = await _open(tool)
    item = session.item(_call(arguments))
    assert isinstance(item, WebSearchCall)
    assert item.action == SearchAction(queries[0] if queries else "", queries)
    if queries:
        assert _action(await session.run(_call(arguments))).queries == queries
    else:
        with pytest.raises(ToolFailure, match="queries"):
            await session.run(_call(arguments))


async def test_only_allowed_domains(site: Site, tool: Tool) -> None:
    wanted = ["https://example.com/a", "https://docs.example.com/b", "https://xn--bcher-kva.example/c"]
    site.pages["/search"] = _found(
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
    session = await _open(tool, filters={"allowed_domains": ["Example.com.", "bücher.example"]})
    assert _urls(await session.run(_call({"queries": ["q"]}))) == wanted
    assert _asked(site.visits[0]) == "q (site:example.com OR site:xn--bcher-kva.example)"


@pytest.mark.parametrize(("size", "results", "longest"), [("low", 5, 600), ("medium", 8, 1500), ("high", 15, 2800)])
async def test_how_much_is_read(size: str, results: int, longest: int, site: Site, tool: Tool) -> None:
    site.pages["/search"] = _found(*(f"https://a.org/{i}" for i in range(30)), text="汉" * 5000)
    outcome = await (await _open(tool, search_context_size=size)).run(_call({"queries": ["q"]}))
    assert len(_urls(outcome)) == results
    texts = [line for line in outcome.text.splitlines() if line.startswith("汉")]
    assert {len(text.removesuffix("…").encode()) for text in texts} == {longest}
    assert len(outcome.text.encode()) < Settings().limits.tool_output_bytes


async def test_language_place_and_freshness_reach_the_provider_and_the_model(site: Site) -> None:
    site.pages["/search"] = Answer.json({})
    tool = _build(serper_api_key="k", search_base_urls={"serper": site.origin})
    place = {"type": "approximate", "country": "de", "city": "Köln", "region": "NRW", "timezone": "Europe/Berlin"}
    session = await _open(tool, user_location=place, freshness="oneMonth", filters={"allowed_domains": ["a.org"]})
    for text in ("天气", "天気は", "날씨", "weather"):
        await session.run(_call({"queries": [text]}))
    await tool.aclose()

    bodies = [msgspec.json.decode(visit.body) for visit in site.visits]
    assert [body.get("hl") for body in bodies] == ["zh-cn", "ja", "ko", None]
    assert {(body["gl"], body["tbs"]) for body in bodies} == {("de", "qdr:m")}
    description = session.functions[0].description or ""
    assert "Köln, NRW, DE, time zone Europe/Berlin" in description
    assert "a.org" in description


async def test_what_was_asked_a_moment_ago_is_not_asked_again(site: Site, tool: Tool) -> None:
    site.pages["/search"] = _found("https://a.org/")
    first, second = await _open(tool), await _open(tool)
    assert await first.run(_call({"queries": ["q"]})) == await second.run(_call({"queries": ["q"]}))
    assert len(site.visits) == 1

    for options in ({"freshness": "day"}, {"search_context_size": "high"}, {"filters": {"allowed_domains": ["a.org"]}}):
        await (await _open(tool, **options)).run(_call({"queries": ["q"]}))
    assert len(site.visits) == 4


async def test_a_page_is_opened(site: Site, tool: Tool) -> None:
    site.pages["/story"] = Answer.html(f"<p>{'The lake is 9.8 metres deep at its deepest. ' * 5}</p>", title="The lake")
    cite = _Sources()
    session = await _open(tool, cite)
    call = _call({"url": site.url("/story")}, "web_search_open")

    assert session.item(call) == WebSearchCall("", "in_progress", OpenPageAction(site.url("/story")))
    outcome = await session.run(call)

    assert outcome.item == WebSearchCall("", "completed", OpenPageAction(site.url("/story")))
    assert "9.8 metres deep" in outcome.text
    assert outcome.text.startswith(f"Cite it as [1].\n\n[1] The lake\n{site.url('/story')}\n\n")
    assert cite.cited == [UrlCitation(site.url("/story"), "The lake")]


@pytest.mark.parametrize(
    "arguments", ["", "{}", '{"url": ["https://a.org/"]}', '{"url": "file:///etc/passwd"}', '{"url": "https://a.org\\\\@b.org/"}']
)
async def test_what_is_no_page_is_not_opened(arguments: str, tool: Tool) -> None:
    session = await _open(tool)
    call = _call(arguments, "web_search_open")
    assert isinstance(session.item(call), WebSearchCall)
    with pytest.raises(ToolFailure):
        await session.run(call)


async def test_pages_elsewhere_are_not_opened_when_domains_are_given(site: Site, tool: Tool) -> None:
    session = await _open(tool, filters={"allowed_domains": ["example.com"]})
    with pytest.raises(ToolFailure, match=r"on example\.com"):
        await session.run(_call({"url": site.url("/story")}, "web_search_open"))
    assert site.visits == []


async def test_a_redirect_does_not_lead_out_of_the_domains(site: Site) -> None:
    with serving_site(host="127.0.0.2") as elsewhere:
        elsewhere.pages["/"] = Answer.html("<p>secret</p>")
        site.pages["/out"] = Answer.redirect(elsewhere.url("/", host="127.0.0.2"))
        fetcher = GuardedFetcher(allow=("127.0.0.0/8",), robots=False)
        tool = TOOL.build(Workshop(settings=Settings(searxng_url=site.origin), fetcher=fetcher, files=None))
        assert not isinstance(tool, Missing)
        session = await _open(tool, filters={"allowed_domains": ["127.0.0.1"]})
        with pytest.raises(ToolFailure, match=r"on 127\.0\.0\.1"):
            await session.run(_call({"url": site.url("/out")}, "web_search_open"))


@pytest.mark.parametrize("options", [{"external_web_access": False}, {"indexed_web_access": True}])
async def test_without_live_pages_only_searching_is_offered(options: Mapping[str, bool], tool: Tool) -> None:
    request = tool.configure(msgspec.Raw(msgspec.json.encode({"type": "web_search", **options})), "tools[0]")
    assert request.names == ("web_search",)
    assert [function.name for function in (await _open(tool, **options)).functions] == ["web_search"]


def _configured(tool: Tool, entry: Mapping[str, object]) -> tuple[dict[str, object], bool]:
    request = tool.configure(msgspec.Raw(msgspec.json.encode(entry)), "tools[2]")
    return msgspec.json.decode(request.echo, type=dict[str, object]), request.native == msgspec.Raw(b'{"type":"web_search"}')


async def test_the_echo_shows_what_is_in_effect(tool: Tool) -> None:
    plain = {"filters": None, "search_context_size": "medium", "user_location": None}
    assert _configured(tool, {"type": "web_search"}) == ({"type": "web_search", **plain}, True)
    nulls = {"filters": None, "search_context_size": None, "user_location": None, "external_web_access": None, "freshness": None}
    assert _configured(tool, {"type": "web_search_preview", **nulls})[1]
    assert _configured(tool, {"type": "web_search", "external_web_access": True, "search_content_types": ["text", "image"]}) == (
        {"type": "web_search", **plain, "external_web_access": True, "search_content_types": ["text"]},
        True,
    )
    echo, native = _configured(tool, {"type": "web_search", "filters": {"allowed_domains": ["A.org"]}, "freshness": "oneDay"})
    assert echo["filters"] == {"allowed_domains": ["a.org"]}
    assert echo["freshness"] == "day"
    assert not native


@pytest.mark.parametrize(
    "options", [{"user_location": {"country": "CN"}}, {"user_location": {"city": "X"}}, {"freshness": "day"}, {"external_web_access": False}]
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
    assert _build(searxng_url=site.origin).configure(TOOL.example, "tools[0]").names == ("web_search", "web_search_open")


@pytest.mark.skipif(not Searx.is_installed(), reason=HOW_TO_INSTALL)
class TestRealSearx:
    """Against Debian's searx, whose engines are the site."""

    @pytest.fixture(scope="class")
    def engines(self) -> Generator[Site]:
        with serving_site() as running:
            yield running

    @pytest.fixture(scope="class")
    def searx(self, engines: Site) -> Generator[Searx]:
        addresses = {name: f"{engines.url(f'/{name}')}?q={{query}}" for name in ("one", "two")}
        with Searx(addresses) as server:
            yield server

    @pytest.fixture(autouse=True)
    def documents(self, engines: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        west_lake = {"url": "https://a.cn/xihu", "title": "西湖", "summary": "西湖位于浙江省杭州市。"}
        fuji = {"url": "https://b.org/fuji", "title": "Mount Fuji", "summary": "3776 m"}
        engines.reset()
        engines.pages |= {"/one": Answer.json({"documents": [fuji, west_lake]}), "/two": Answer.json({"documents": [west_lake]})}

    async def test_results_of_all_engines(self, searx: Searx, engines: Site) -> None:
        tool = _build(searxng_url=searx.url)
        outcome = await (await _open(tool)).run(_call({"queries": ["杭州 西湖"]}))
        await tool.aclose()
        assert _urls(outcome) == ["https://a.cn/xihu", "https://b.org/fuji"]  # found by two, found by one
        assert "[1] 西湖\nhttps://a.cn/xihu\n西湖位于浙江省杭州市。" in outcome.text
        assert {_asked(visit) for visit in engines.visits} == {"杭州 西湖"}

    async def test_domains_and_freshness(self, searx: Searx, engines: Site) -> None:
        tool = _build(searxng_url=searx.url)
        outcome = await (await _open(tool, filters={"allowed_domains": ["b.org"]})).run(_call({"queries": ["mountain"]}))
        assert _urls(outcome) == ["https://b.org/fuji"]
        assert {_asked(visit) for visit in engines.visits} == {"mountain site:b.org"}
        outcome = await (await _open(tool, freshness="week")).run(_call({"queries": ["mountain"]}))
        await tool.aclose()
        assert outcome.text == "Nothing was found."  # such engines know no dates, and searx does not ask them

    @pytest.mark.parametrize("query", ["!!g lake", ":xx lake", "!one lake", "<1 lake", "? lake"])
    async def test_words_are_no_commands(self, query: str, searx: Searx, engines: Site) -> None:
        tool = _build(searxng_url=searx.url)
        await (await _open(tool)).run(_call({"queries": [query]}))
        await tool.aclose()
        assert {visit.path.partition("?")[0] for visit in engines.visits} == {"/one", "/two"}
        assert all(_asked(visit).endswith("lake") for visit in engines.visits)

    async def test_engines_that_are_down(self, searx: Searx, engines: Site, caplog: pytest.LogCaptureFixture) -> None:
        engines.pages = {"*": Answer.text("", status=500)}
        tool = _build(searxng_url=searx.url)
        with pytest.raises(ToolFailure):
            await (await _open(tool)).run(_call({"queries": ["lake"]}))
        await tool.aclose()
        assert "none of its engines answers" in caplog.text
