"""Which tools there are, who runs each for which model, and what is said when one cannot run."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from app.discovery import constants
from app.engine.hosted.catalog import Catalog
from app.protocol.wire.errors import InvalidRequest
from app.tools.ports.tool import Missing, ToolSpec
from tests.engine.hosting import Engine, ScriptedTool, calls, catalog, say

ECHO = {"type": "x_echo"}
MISSING = Missing("GATEWAY_ECHO_URL", "Set it to an echo.")


def configured(of: Catalog, model: str = "qwen3-8b", kind: str = "x_echo") -> Any:
    return of.configure(kind, model, msgspec.Raw(b'{"type":"x_echo"}'), "tools[3]")


def refusal(of: Catalog, model: str = "qwen3-8b") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        configured(of, model)
    return raised.value


def test_a_tool_that_is_off_is_refused_by_name_and_setting() -> None:
    error = refusal(catalog(ScriptedTool(), modes={"x_echo": {"mode": "off"}}))
    assert (error.code, error.param) == ("unsupported_tool", "tools[3].type")
    assert "'x_echo'" in error.message
    assert "GATEWAY_TOOLS__X_ECHO__MODE" in error.message


def test_a_tool_that_cannot_run_names_the_missing_setting() -> None:
    error = refusal(catalog(ScriptedTool(), modes={"x_echo": {"mode": "gateway"}}, missing=MISSING))
    assert (error.code, error.param) == ("unsupported_tool", "tools[3].type")
    assert "GATEWAY_ECHO_URL" in error.message
    assert "Set it to an echo." in error.message


def test_a_tool_that_cannot_run_here_may_run_at_the_upstream() -> None:
    entry = configured(catalog(ScriptedTool(), missing=MISSING))
    assert (entry.request, entry.missing, bytes(entry.echo)) == (None, MISSING, b'{"type":"x_echo"}')


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("qwen3-max", "native"),
        ("qwen3-8b", "off"),
        ("qwen-plus", "gateway"),
        ("Qwen3-8b", "gateway"),
        ("qwen3-maxi", "off"),
    ],
)
def test_the_mode_goes_by_model_an_exact_name_first(model: str, mode: str) -> None:
    modes = {"x_echo": {"mode": "gateway", "models": {"qwen3-*": "off", "qwen3-max": "native"}}}
    assert catalog(ScriptedTool(), modes=modes).mode("x_echo", model) == mode


def test_other_spellings_are_the_same_tool() -> None:
    tool = ScriptedTool()
    tool.aliases = ("x_echo_preview",)
    found = catalog(tool)
    assert found.serves("x_echo_preview")
    assert not found.serves("x_other")
    entry = configured(found, kind="x_echo_preview")
    assert (entry.type, entry.alias) == ("x_echo", "x_echo_preview")


def test_every_tool_is_listed_with_an_example_and_what_is_missing() -> None:
    listed = json.loads(
        msgspec.json.encode(catalog(ScriptedTool(), modes={"x_echo": {"price": 0.5, "currency": "EUR"}}).list())
    )
    assert listed == [
        {
            "type": "x_echo",
            "object": "tool",
            "description": "Does x_echo.",
            "mode": "auto",
            "available": True,
            "setting": None,
            "reason": None,
            "price": {"amount": 0.5, "currency": "EUR", "note": "setting"},
            "native_price": None,
            "example": {"type": "x_echo"},
            "details": None,
        }
    ]
    (missing,) = catalog(ScriptedTool(), missing=MISSING).list()
    assert (missing.available, missing.setting, missing.reason) == (False, "GATEWAY_ECHO_URL", "Set it to an echo.")
    (off,) = catalog(ScriptedTool(), modes={"x_echo": {"mode": "off"}}).list()
    assert (off.available, off.mode) == (False, "off")


@pytest.mark.parametrize("spec", constants("app.tools", "TOOL", ToolSpec).values(), ids=lambda spec: spec.type)
def test_every_tool_has_a_price(spec: ToolSpec) -> None:
    price = Catalog([spec], {}, {}).price(spec.type)
    assert price is not None
    assert price.amount >= 0
    assert re.fullmatch("[A-Z]{3}", price.currency)


async def test_closing_frees_what_the_tools_hold() -> None:
    tool = ScriptedTool()
    await catalog(tool).aclose()
    assert tool.closed == 1
    await catalog(ScriptedTool(), missing=MISSING).aclose()


@pytest.mark.parametrize(
    "offered", [catalog(ScriptedTool(), modes={"x_echo": {"mode": "off"}}), catalog(ScriptedTool(), missing=MISSING)]
)
async def test_a_client_that_always_sends_tools_gets_its_answer_and_a_warning(offered: Catalog) -> None:
    engine = Engine(say("Hi."), offered=offered)
    async with engine.running(lenient=True, tools=[ECHO]) as run:
        await run.whole()
    assert run.warnings == ("tool 'x_echo' is not served and was left out",)
    assert engine.provider.calls[0].tools == ()


async def test_a_wrong_entry_is_refused_also_for_a_lenient_client() -> None:
    class Strict(ScriptedTool):
        def configure(self, raw: msgspec.Raw, place: str) -> Any:
            raise InvalidRequest("No.", param=f"{place}.depth")

    with pytest.raises(InvalidRequest, match="No"):
        await Engine(tools=[Strict()]).plain(lenient=True, tools=[ECHO])


async def test_a_tool_twice_is_refused_but_not_under_two_labels() -> None:
    tool = ScriptedTool()
    with pytest.raises(InvalidRequest, match="twice"):
        await Engine(tools=[tool]).plain(tools=[ECHO, ECHO])
    engine = Engine(say("Hi."), tools=[tool])
    await engine.plain(tools=[{**ECHO, "label": "a"}, {**ECHO, "label": "b"}])
    assert len(tool.contexts) == 2


@pytest.mark.parametrize("name", ["web_search", "file_search", "knowledge_search", "mcp__a__b", "tool__new", "search"])
async def test_a_function_named_like_a_built_in_tool_goes_by_another_name_and_back(name: str) -> None:
    tool = ScriptedTool("x_tool", name)
    engine = Engine(calls((name, "built-in"), (f"fn_{name}", {})), tools=[tool])
    body = await engine.plain(tools=[{"type": "x_tool"}, {"type": "function", "name": name, "parameters": {}}])
    hosted, function = body["output"]
    assert (hosted["type"], hosted["arguments"]) == ("x_tool_call", "built-in")
    assert (function["type"], function["name"]) == ("function_call", name)
    assert {offered.name for offered in engine.provider.calls[0].tools} == {name, f"fn_{name}"}
