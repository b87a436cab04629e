"""The tool `mcp` and servers that attack: lists and streams without end, floods, bombs, answers that are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

from app.settings import Limits, Settings
from tests.support.site import Answer, Site, Visit, serving_site
from tests.tools.mcp_stage import call, listed, names, session
from tests.tools.raw_mcp import GOOD, GREETING, Speak, reply, speaking

_MALFORMED = "The answer of the MCP server 'shop' is malformed, truncated or too large."
_NOT_MCP = "The MCP server 'shop' does not answer as MCP servers do."
_SLOW = "The MCP server 'shop' takes too long."
_SHORT = Settings(fetch_allow=("127.0.0.1",), limits=Limits(tool_seconds=0.5))


@pytest.fixture
def site() -> Generator[Site]:
    with serving_site() as serving:
        yield serving


def always(answer: Answer) -> Speak:
    return lambda _, __: answer


def bytes_of(body: Callable[[str], bytes], kind: str = "application/json", **headers: str) -> Speak:
    """Answers with these bytes, made of the id of the request."""
    return lambda _, message: Answer(body(json.dumps(message["id"])), content_type=kind, headers=headers)


def events(*payloads: str) -> bytes:
    return "".join(f"event: message\ndata: {payload}\n\n" for payload in payloads).encode()


async def outcome_of(site: Site, speak: Speak, settings: Settings = _SHORT) -> str:
    async with session(speaking(site, tools_call=speak), settings=settings) as opened:
        outcome, item = await call(opened, "good")
        assert item.status in ("failed", "completed")
        return outcome.text


@pytest.mark.parametrize("cursor", ["same", 7, None])
async def test_a_list_that_never_ends_is_read_for_a_while(site: Site, cursor: object) -> None:
    pages: list[str] = []

    def page(_: Visit, message: Mapping[str, Any]) -> Answer:
        pages.append(message["method"])
        following = f"c{len(pages)}" if cursor is None else cursor
        return reply(message, {"tools": [{**GOOD, "name": f"t{len(pages)}"}], "nextCursor": following})

    async with session(speaking(site, tools_list=page)) as opened:
        assert "mcp__shop__t1" in names(opened)
        assert (listed(opened).error is not None) == (cursor is None)
    assert len(pages) <= 20


@pytest.mark.parametrize("cursor", [None, "", [], {}, False, 0])
async def test_a_cursor_that_says_nothing_ends_the_list(site: Site, cursor: Any) -> None:
    async with session(speaking(site, tools_list={"tools": [GOOD], "nextCursor": cursor})) as opened:
        assert (names(opened), listed(opened).error) == (["mcp__shop__good"], None)
    assert len([visit for visit in site.visits if b"tools/list" in visit.body]) == 1


async def test_pages_without_tools_are_not_turned_for_ever(site: Site) -> None:
    def page(_: Visit, message: Mapping[str, Any]) -> Answer:
        return reply(message, {"tools": [], "nextCursor": str(len(site.visits))})

    async with session(speaking(site, tools_list=page)) as opened:
        assert names(opened) == []
    assert len([visit for visit in site.visits if b"tools/list" in visit.body]) == 1


@pytest.mark.parametrize(
    "bomb",
    [
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        b"[" + b"[]," * 1_000_000 + b"[]]",
        b"[" + b"1," * 1_500_000 + b"1]",
        b'"' + b"\\ud83d" * 600_000 + b'"',
    ],
    ids=["deep objects", "deep lists", "many lists", "many numbers", "half characters"],
)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_a_bomb_of_json_is_refused_and_stops_nobody(site: Site, bomb: bytes, kind: str) -> None:
    def body(identity: str) -> bytes:
        told = b'{"jsonrpc":"2.0","id":' + identity.encode() + b',"result":{"structuredContent":' + bomb + b"}}"
        return told if kind == "application/json" else b"data: " + told + b"\n\n"

    text = await outcome_of(site, bytes_of(body, kind), Settings(fetch_allow=("127.0.0.1",)))
    assert text in (_MALFORMED, _NOT_MCP)


async def test_a_flood_of_notifications_is_given_up(site: Site) -> None:
    note = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}'
    flood = Answer(events(note) * 200, content_type="text/event-stream", repeat=0.0)
    text = await outcome_of(site, always(flood), Settings(fetch_allow=("127.0.0.1",)))
    assert text == _MALFORMED


async def test_notifications_before_the_answer_do_no_harm(site: Site) -> None:
    odd = ['{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"?","progress":"much"}}', "{}"]
    requests = [
        '{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}',
        '{"jsonrpc":"2.0","id":2,"method":"roots/list"}',
    ]

    def body(identity: str) -> bytes:
        done = f'{{"jsonrpc":"2.0","id":{identity},"result":{{"content":[{{"type":"text","text":"done"}}]}}}}'
        return b": hello\n\n" + events(odd[0], *requests, done)

    assert await outcome_of(site, bytes_of(body, "text/event-stream; charset=utf-8")) == "done"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer(silent=True), _SLOW),
        (Answer(events('{"jsonrpc":"2.0","id":"another","method":"x"}'), content_type="text/event-stream"), _MALFORMED),
        (Answer(b"", content_type="text/event-stream"), _MALFORMED),
        (Answer(b"\xff\xfe{}", content_type="application/json"), _NOT_MCP),
        (Answer(b"", content_type="application/json"), _NOT_MCP),
        (Answer(b"[]", content_type="application/json"), _NOT_MCP),
        (Answer.html("<h1>Bad gateway</h1>", status=502), "The MCP server 'shop' answers with HTTP status 502."),
        (Answer.html("<h1>Hello</h1>"), _NOT_MCP),
        (Answer.text("gone", status=410), "The MCP server 'shop' answers with HTTP status 410."),
        (Answer.json({"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "busy"}}, status=500), None),
        (Answer(b"no", 401, None, {"www-authenticate": "Bearer " + "x" * 5000, "set-cookie": "a=\x7f"}), None),
        (Answer.redirect("http://127.0.0.2:1/mcp", status=307), None),
        (Answer.redirect("http://169.254.169.254/latest/", status=308), None),
        (Answer.redirect("/mcp", status=307), None),
        (Answer.redirect("//:99999/", status=302), None),
    ],
)
async def test_an_answer_that_is_none_fails_the_call_with_a_sentence(
    site: Site, answer: Answer, sentence: str | None
) -> None:
    text = await outcome_of(site, always(answer))
    assert "'shop'" in text
    assert "Error" not in text.replace("answers with an error", "")
    if sentence is not None:
        assert text == sentence
    assert {visit.path for visit in site.visits} == {"/mcp"}


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_a_list_that_drips_is_not_waited_for(site: Site, kind: str) -> None:
    drip = Answer(b": \n\n", content_type=kind, repeat=0.01)
    async with session(speaking(site, tools_list=always(drip)), open_seconds=0.5) as opened:
        assert listed(opened).error == "The MCP server 'shop' takes too long to list its tools."


@pytest.mark.parametrize("version", ["1999-01-01", "DRAFT", 5, ["2025-03-26"]])
async def test_a_version_that_nobody_knows_is_said(site: Site, version: Any) -> None:
    async with session(speaking(site, initialize={**GREETING, "protocolVersion": version})) as opened:
        assert (
            listed(opened).error == "The MCP server 'shop' uses a protocol version that this gateway does not support."
        )


@pytest.mark.parametrize(
    "greeting", [{}, {"protocolVersion": None, "capabilities": None, "serverInfo": None}, {"serverInfo": "s", "x": 1}]
)
async def test_a_greeting_that_says_little_is_enough(site: Site, greeting: dict[str, Any]) -> None:
    async with session(speaking(site, initialize=greeting)) as opened:
        assert names(opened) == ["mcp__shop__good"]


@pytest.mark.parametrize("identity", ["", "x" * 5000, "with space", "caf\xe9", "\x7f"])
async def test_an_odd_session_id_is_not_sent_back(site: Site, identity: str) -> None:
    def greet(_: Visit, message: Mapping[str, Any]) -> Answer:
        answer = reply(message, GREETING)
        return Answer(answer.body, content_type=answer.content_type, headers={"mcp-session-id": identity})

    async with session(speaking(site, initialize=greet)) as opened:
        assert "'shop'" in (listed(opened).error or "'shop'")
    assert {visit.headers.get("mcp-session-id") for visit in site.visits} <= {None, identity}


async def test_a_stream_that_always_breaks_off_is_not_resumed_for_ever(site: Site) -> None:
    broken = Answer(b"id: 1\nretry: 0\ndata:\n\n", content_type="text/event-stream")
    url = speaking(site, tools_call=always(broken))
    posts = site.pages["/mcp"]
    site.pages["/mcp"] = lambda visit: broken if visit.method == "GET" else posts(visit) if callable(posts) else posts
    async with session(url) as opened:
        outcome, item = await call(opened, "good")
    assert (item.status, outcome.text) == ("failed", _MALFORMED)
    assert len([visit for visit in site.visits if visit.method == "GET"]) <= 20
