"""Who runs a tool: this gateway or the upstream, by setting, by what the upstream can, and by the vendor's own
rules.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.engine.hosted.catalog import Entry
from app.engine.hosted.native import UpstreamConditions, native_entries
from app.protocol.deltas import NativeItem, Text, TurnFinished
from app.protocol.wire import hosted as h
from app.protocol.wire.errors import InvalidRequest
from app.providers.base import Capabilities, NativeConditions
from app.settings import ToolMode
from app.tools.ports.tool import Missing, ToolRequest
from tests.engine.hosting import USAGE, Engine, ScriptedTool, calls, catalog, say, texts

RAW = msgspec.Raw(b'{"type":"web_search"}')
HERE = Capabilities()
VENDOR = Capabilities(
    native_tools={
        "web_search": NativeConditions(),
        "web_extractor": NativeConditions(together_with="web_search"),
        "code_interpreter": NativeConditions(thinking=True),
    }
)


async def _never(_context: object) -> Any:
    raise AssertionError


def entry(kind: str = "web_search", mode: ToolMode = "auto", *, plain: bool = True) -> Entry:
    return Entry(kind, kind, mode, "tools[0]", RAW, ToolRequest(_never, RAW, native=RAW if plain else None))


def where(
    can: Capabilities = VENDOR, *, thinks: bool = True, demanded: bool = False, limited: bool = False
) -> UpstreamConditions:
    return UpstreamConditions(can, thinks, demanded, limited)


def chosen(*entries: Entry, at: UpstreamConditions) -> list[str]:
    return list(native_entries(entries, at))


def test_auto_takes_the_upstreams_own_tool_where_there_is_one() -> None:
    assert chosen(entry(), at=where()) == ["web_search"]
    assert chosen(entry(), at=where(HERE)) == []
    assert chosen(entry(mode="gateway"), at=where()) == []


@pytest.mark.parametrize(
    ("entries", "at"),
    [
        ([entry(plain=False)], where()),
        ([entry("image_search")], where()),
        ([entry("web_extractor")], where()),
        ([entry("web_extractor"), entry(mode="gateway")], where()),
        ([entry("code_interpreter")], where(thinks=False)),
        ([entry()], where(demanded=True)),
        ([entry()], where(limited=True)),
    ],
)
def test_what_the_vendors_rules_forbid_runs_here(entries: list[Entry], at: UpstreamConditions) -> None:
    assert chosen(*entries, at=at) == []
    strict = [msgspec.structs.replace(one, mode="native") if one.mode == "auto" else one for one in entries]
    with pytest.raises(InvalidRequest) as raised:
        native_entries(strict, at)
    assert (raised.value.code, raised.value.param) == ("unsupported_tool", "tools[0].type")


def test_an_extractor_goes_with_a_search() -> None:
    assert chosen(entry("web_extractor"), entry(), at=where()) == ["web_extractor", "web_search"]


async def test_what_the_upstream_runs_is_forwarded_and_shown_in_our_grammar() -> None:
    begun = h.WebSearchCall("ws_up", "in_progress", h.SearchAction("q", ("q",)))
    ended = h.WebSearchCall("ws_up", "completed", h.SearchAction("q", ("q",), (h.UrlSource("https://a.example"),)))
    turn = [[NativeItem(begun, done=False), NativeItem(ended, done=True), Text("So."), USAGE, TurnFinished("stop")]]
    tool = ScriptedTool("web_search")
    tool.native = msgspec.Raw(b'{"type":"web_search","from":"us"}')
    engine = Engine(turn, tools=[tool], can=VENDOR)
    judged = await engine.stream(tools=[{"type": "web_search"}])
    search, message = judged.events[-1]["response"]["output"]
    assert search["id"] != "ws_up"
    assert search["action"]["sources"] == [{"type": "url", "url": "https://a.example"}]
    assert texts([message]) == ["So."]
    phases = [kind.rpartition(".")[2] for kind in judged.types if "web_search_call" in kind]
    assert phases == ["in_progress", "searching", "completed"]
    (call,) = engine.provider.calls
    assert ([json.loads(bytes(raw)) for raw in call.native_tools], call.tools) == (
        [{"type": "web_search", "from": "us"}],
        (),
    )
    assert not tool.contexts
    assert judged.events[-1]["response"]["usage"]["x_tools"] == {"web_search": {"count": 1}}


async def test_tools_of_both_kinds_go_together() -> None:
    native = ScriptedTool("web_search")
    native.native = RAW
    engine = Engine(calls("echo"), say("So."), tools=[native, ScriptedTool()], can=VENDOR)
    await engine.plain(tools=[{"type": "web_search"}, {"type": "x_echo"}])
    assert [(len(call.native_tools), [tool.name for tool in call.tools]) for call in engine.provider.calls] == [
        (1, ["echo"])
    ] * 2


async def test_a_tool_that_can_run_nowhere_is_refused_when_the_upstream_is_known() -> None:
    missing = catalog(ScriptedTool("web_search"), missing=Missing("GATEWAY_SEARXNG_URL", "Set it."))
    with pytest.raises(InvalidRequest, match="GATEWAY_SEARXNG_URL") as raised:
        await Engine(offered=missing).plain(tools=[{"type": "web_search"}])
    assert (raised.value.code, raised.value.param) == ("unsupported_tool", "tools[0].type")
    engine = Engine(say("So."), offered=missing, can=VENDOR)
    await engine.plain(tools=[{"type": "web_search"}])
    assert len(engine.provider.calls[0].native_tools) == 1
