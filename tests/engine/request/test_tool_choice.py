"""`tool_choice` over built-in tools: what is on offer, what is demanded, and of whom."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.engine.request.toolset import Toolset, build
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import McpListTools
from app.providers.base import Capabilities, ForcedCall
from tests.engine.hosting import Engine, ScriptedTool, catalog, say

Json = dict[str, Any]

F: Json = {"type": "function", "name": "f"}
SEARCH: Json = {"type": "web_search_preview"}
CODE: Json = {"type": "code_interpreter"}
DB: Json = {"type": "mcp", "label": "db"}
SHOP: Json = {"type": "mcp", "label": "shop"}


def offered() -> Any:
    search = ScriptedTool("web_search", "web_search", "web_search_open")
    search.aliases = ("web_search_preview",)
    return catalog(search, ScriptedTool("code_interpreter"), ScriptedTool("mcp", "mcp__db__drop", "mcp__db__list"))


def built(choice: object) -> Toolset:
    tools = [msgspec.Raw(json.dumps(tool).encode()) for tool in (F, SEARCH, CODE, DB, SHOP)]
    return build(tools, msgspec.Raw(json.dumps(choice).encode()), offered(), "m", lenient=False)


@pytest.mark.parametrize(
    ("choice", "functions", "hosted", "forced"),
    [
        ("auto", ["f"], ["web_search", "code_interpreter", "mcp:db", "mcp:shop"], None),
        ("none", [], [], None),
        ("required", ["f"], ["web_search", "code_interpreter", "mcp:db", "mcp:shop"], ForcedCall()),
        ({"type": "function", "name": "f"}, ["f"], [], ForcedCall("f")),
        ({"type": "code_interpreter"}, [], ["code_interpreter"], ForcedCall("code_interpreter")),
        ({"type": "web_search"}, [], ["web_search"], ForcedCall()),  # it has two functions
        ({"type": "web_search_preview"}, [], ["web_search"], ForcedCall()),
        ({"type": "mcp", "server_label": "db"}, [], ["mcp:db"], ForcedCall()),
        ({"type": "mcp", "server_label": "db", "name": "drop"}, [], ["mcp:db"], ForcedCall("mcp__db__drop")),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}, F]}, ["f"], ["web_search"], None),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp", "server_label": "shop"}, CODE]},
            [],
            ["code_interpreter", "mcp:shop"],
            ForcedCall(),
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, [], [], None),
    ],
)
def test_what_is_on_offer_and_demanded(
    choice: object, functions: list[str], hosted: list[str], forced: ForcedCall | None
) -> None:
    tools = built(choice)
    assert [function.name for function in tools.functions] == functions
    assert [entry.key for entry in tools.hosted] == hosted
    assert tools.forced == forced
    assert len(tools.echo) == 5


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "file_search"},
        {"type": "mcp", "server_label": "other"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "image_search"}]},
    ],
)
def test_a_tool_that_is_not_there_cannot_be_chosen(choice: object) -> None:
    with pytest.raises(InvalidRequest) as raised:
        built(choice)
    assert (raised.value.param, raised.value.code) == ("tool_choice", "unsupported_tool")


def test_a_list_of_allowed_tools_is_in_no_other() -> None:
    with pytest.raises(InvalidRequest) as raised:
        built({"type": "allowed_tools", "mode": "auto", "tools": [F, {"type": "allowed_tools"}]})
    assert (raised.value.param, raised.value.code) == ("tool_choice.tools[1].type", "invalid_value")


def test_a_choice_names_no_more_tools_than_a_request_could_need() -> None:
    with pytest.raises(InvalidRequest) as raised:
        built({"type": "allowed_tools", "mode": "auto", "tools": [F] * 1025})
    assert (raised.value.param, raised.value.code) == ("tool_choice.tools", "too_large")


async def test_without_a_choice_of_tools_none_is_opened() -> None:
    tool = ScriptedTool()
    engine = Engine(say("Hi."), tools=[tool])
    body = await engine.plain(tools=[{"type": "x_echo"}], tool_choice="none")
    assert (body["output"][0]["content"][0]["text"], tool.contexts, engine.provider.calls[0].tools) == ("Hi.", [], ())
    assert body["tools"] == [{"type": "x_echo"}]


async def test_a_demanded_tool_that_its_server_does_not_offer_is_refused() -> None:
    engine = Engine(tools=[ScriptedTool("mcp", "mcp__db__list")])
    with pytest.raises(InvalidRequest) as raised:
        await engine.plain(tools=[DB], tool_choice={"type": "mcp", "server_label": "db", "name": "drop"})
    assert raised.value.param == "tool_choice"


async def test_a_demand_that_a_silent_server_makes_void_is_dropped() -> None:
    server = ScriptedTool("mcp")
    server.functions = []
    server.announcements = [McpListTools("", "db", (), "It is down.")]
    engine = Engine(say("I cannot."), tools=[server], can=Capabilities(forced_calls=frozenset()))
    output = await engine.output(
        tools=[{**DB, "server_label": "db", "server_url": "https://db.example"}], tool_choice="required"
    )
    assert [item["type"] for item in output] == ["mcp_list_tools", "message"]
    assert output[0]["error"] == "It is down."
