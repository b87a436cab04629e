"""Tools that the client runs: offered as functions, refused where only a vendor could run them, and brought by the
conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.engine.request.toolset import Toolset
from app.protocol.messages import FunctionTool
from app.protocol.recovery.client_tools import CLIENT_TOOLS, CallTarget
from app.protocol.wire.errors import InvalidRequest
from app.providers.base import Capabilities, ForcedCall, Thinking
from tests.engine.hosting import Engine, ScriptedTool, calls, read, results, say
from tests.engine.offering import Json, built, names

SEARCH: Json = {"type": "tool_search", "execution": "client"}
SHELL: Json = {"type": "shell", "environment": {"type": "local"}}
F: Json = {"type": "function", "name": "f", "description": "Does f.", "parameters": {"type": "object"}}
LATER: Json = {**F, "name": "later", "description": "Comes later.", "defer_loading": True}
CRM: Json = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [LATER, {**F, "name": "now"}]}
USER: Json = {"type": "message", "role": "user", "content": "Hi"}
RESTARTS = [pytest.param(Engine.stay, id="cached"), pytest.param(Engine.restart, id="restarted")]


def described(tools: Toolset) -> str:
    return next(function.description or "" for function in tools.functions if function.name == "tool_search")


# --- On offer
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "local_shell"},
        {"type": "shell"},
        {"type": "shell", "environment": None},
        {"type": "shell", "environment": {"type": "local", "skills": []}, "allowed_callers": ["direct"]},
        {"type": "apply_patch"},
        SEARCH,
    ],
)
def test_each_is_a_function_with_arguments_and_is_echoed_as_sent(tool: Json) -> None:
    tools, kind = built(tool), CLIENT_TOOLS[tool["type"]]
    assert tools.functions == (FunctionTool(kind.type, kind.description, kind.parameters),)
    assert tools.targets == {kind.type: CallTarget(kind.type, tool=kind)}
    assert [json.loads(bytes(shown)) for shown in tools.echo] == [tool]


def test_skills_of_a_local_shell_are_told() -> None:
    skill = {"name": "pdf", "description": "Makes documents.", "path": "/skills/pdf"}
    (shell,) = built({"type": "shell", "environment": {"type": "local", "skills": [skill]}}).functions
    assert "- pdf (/skills/pdf): Makes documents." in (shell.description or "")


def test_a_search_is_described_by_the_client() -> None:
    schema = {"type": "object", "properties": {"query": {"type": "string"}}}
    (search,) = built({**SEARCH, "description": "Finds apps.", "parameters": schema}).functions
    assert (search.description, json.loads(bytes(search.parameters))) == ("Finds apps.", schema)


@pytest.mark.parametrize(
    ("tool", "param", "code"),
    [
        ({"type": "shell", "environment": {"type": "container_auto"}}, "tools[0].environment.type", "unsupported_tool"),
        (
            {"type": "shell", "environment": {"type": "container_reference", "id": "c"}},
            "tools[0].environment.type",
            "unsupported_tool",
        ),
        ({"type": "shell", "environment": "local"}, "tools[0].environment", "invalid_type"),
        ({"type": "shell", "allowed_callers": ["programmatic"]}, "tools[0].allowed_callers", "unsupported_value"),
        ({"type": "shell", "container": "c"}, "tools[0].container", "unknown_parameter"),
        ({"type": "local_shell", "command": ["ls"]}, "tools[0].command", "unknown_parameter"),
        ({"type": "apply_patch", "allowed_callers": []}, "tools[0].allowed_callers", "unsupported_value"),
        ({"type": "tool_search"}, "tools[0].execution", "unsupported_tool"),
        ({"type": "tool_search", "execution": "server"}, "tools[0].execution", "unsupported_tool"),
        ({"type": "tool_search", "execution": "client", "parameters": [1]}, "tools[0].parameters", "invalid_type"),
        ({"type": "computer"}, "tools[0].type", "unsupported_tool"),
        ({"type": "image_generation"}, "tools[0].type", "unsupported_tool"),
    ],
)
def test_what_cannot_be_run_by_the_client_is_refused_by_name(tool: Json, param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        built(tool)
    assert (raised.value.param, raised.value.code) == (param, code)


def test_for_a_lenient_client_what_only_a_vendor_runs_is_left_out() -> None:
    tools = built(
        F, {"type": "tool_search"}, {"type": "shell", "environment": {"type": "container_auto"}}, LATER, lenient=True
    )
    assert (names(tools), tools.left_out, len(tools.echo)) == (["f", "later"], ("tool_search", "shell"), 2)


def test_a_function_of_the_same_name_is_refused() -> None:
    with pytest.raises(InvalidRequest) as raised:
        built({**F, "name": "shell"}, SHELL)
    assert raised.value.param == "tools[1].name"


@pytest.mark.parametrize(
    ("choice", "offered", "forced"),
    [
        ({"type": "shell"}, ["shell"], ForcedCall("shell")),
        ({"type": "apply_patch"}, ["apply_patch"], ForcedCall("apply_patch")),
        ({"type": "local_shell"}, ["local_shell"], ForcedCall("local_shell")),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "shell"}, {"type": "function", "name": "f"}]},
            ["f", "shell"],
            None,
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "apply_patch"}]},
            ["apply_patch"],
            ForcedCall(),
        ),
    ],
)
def test_a_choice_names_them_by_their_type(choice: object, offered: list[str], forced: ForcedCall | None) -> None:
    tools = built(F, SHELL, {"type": "apply_patch"}, {"type": "local_shell"}, choice=choice)
    assert (names(tools), tools.forced) == (offered, forced)


def test_a_function_of_that_name_is_not_what_the_choice_means() -> None:
    with pytest.raises(InvalidRequest) as raised:
        built({**F, "name": "shell"}, choice={"type": "shell"})
    assert (raised.value.param, raised.value.code) == ("tool_choice", "invalid_value")


# --- Deferred
# ----------------------------------------------------------------------------------------------------------------------


def test_deferred_functions_are_told_of_and_not_offered() -> None:
    tools = built(F, LATER, CRM, SEARCH)
    assert names(tools) == ["f", "crm__now", "tool_search"]
    assert tools.targets.keys() == {"f", "crm__now", "tool_search"}
    assert described(tools).endswith("What there is:\n- later: Comes later.\n- crm: Customers.")
    assert len(tools.echo) == 4


def test_a_whole_namespace_may_be_deferred_and_custom_tools_too() -> None:
    space = {**CRM, "tools": [{**F, "name": "now"}], "defer_loading": True}
    tools = built(SEARCH, space, {"type": "custom", "name": "edit", "defer_loading": True})
    assert names(tools) == ["tool_search"]
    assert described(tools).endswith("\n- crm: Customers.\n- edit")


def test_without_a_search_nothing_is_deferred() -> None:
    assert names(built(LATER, CRM)) == ["later", "crm__later", "crm__now"]
    assert names(built(LATER, {**F, "name": "tool_search"})) == ["later", "tool_search"]


# --- Brought by the conversation
# -----------------------------------------------------------------------------------------------------


def added(*tools: Json) -> Json:
    return {"type": "additional_tools", "role": "developer", "tools": list(tools)}


def found(call_id: str | None, *tools: Json) -> Json:
    return {
        "type": "tool_search_output",
        "call_id": call_id,
        "execution": "client",
        "status": "completed",
        "tools": list(tools),
    }


def searched(call_id: str | None = "c1") -> Json:
    return {"type": "tool_search_call", "call_id": call_id, "execution": "client", "arguments": {"paths": ["crm"]}}


def offered(engine: Engine, at: int = -1) -> list[str]:
    return [tool.name for tool in engine.provider.calls[at].tools]


async def test_additional_tools_are_on_offer_and_not_echoed() -> None:
    engine = Engine(calls(("ns__g", {"a": 1})))
    items = [added({"type": "namespace", "name": "ns", "tools": [{**F, "name": "g"}]}, SHELL), USER]
    body = await engine.plain(input=items, tools=[F])
    assert offered(engine) == ["f", "ns__g", "shell"]
    assert [tool["name"] for tool in body["tools"]] == ["f"]
    call = body["output"][0]
    assert (call["type"], call["namespace"], call["name"]) == ("function_call", "ns", "g")
    assert [message["type"] for message in read(engine.provider.calls[0])] == ["user"]


async def test_a_demand_for_one_of_them_switches_thinking_off_as_any_other() -> None:
    engine = Engine(calls("f"), can=Capabilities(thinks=True, can_think=True, forced_calls_while_thinking=False))
    body = await engine.plain(input=[added(F), USER], tool_choice={"type": "function", "name": "f"})
    (call,) = engine.provider.calls
    assert (call.thinking, call.forced_call) == (Thinking(enabled=False), ForcedCall("f"))
    assert body["output"][0]["name"] == "f"


@pytest.mark.parametrize("between", RESTARTS)
async def test_in_a_chain_they_stay_on_offer_and_the_last_of_a_name_counts(between: Callable[[Engine], None]) -> None:
    engine = Engine(say("1"), say("2"), say("3"))
    first = await engine.plain(input=[added(F, SHELL), USER])
    between(engine)
    second = await engine.plain(input=[added({**F, "description": "New."}), USER], previous_response_id=first["id"])
    between(engine)
    await engine.plain(previous_response_id=second["id"], tools=[{**F, "name": "h"}])
    assert [offered(engine, at) for at in range(3)] == [["f", "shell"], ["f", "shell"], ["h", "f", "shell"]]
    assert engine.provider.calls[2].tools[1].description == "New."


async def test_a_choice_may_allow_some_of_them() -> None:
    engine = Engine(say("Hi."))
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    await engine.plain(input=[added(F, SHELL), USER], tool_choice=choice)
    assert offered(engine) == ["f"]
    with pytest.raises(InvalidRequest) as raised:
        await engine.plain(input=[USER], tool_choice=choice)
    assert raised.value.param == "tool_choice"


@pytest.mark.parametrize("choice", ["required", {"type": "shell"}])
async def test_a_demand_for_one_of_them_is_no_mistake(choice: object) -> None:
    engine = Engine(calls(("shell", {"commands": ["ls"]})), calls(("shell", {"commands": ["ls"]})))
    first = await engine.plain(input=[added(SHELL), USER], tool_choice=choice)
    call = first["output"][0]
    output = {
        "type": "shell_call_output",
        "call_id": call["call_id"],
        "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "timeout"}}],
    }
    second = await engine.plain(input=[output], previous_response_id=first["id"], tool_choice=choice)
    assert [body["output"][0]["type"] for body in (first, second)] == ["shell_call", "shell_call"]
    with pytest.raises(InvalidRequest):
        await engine.plain(input=[added(), USER], tool_choice={"type": "shell"})


async def test_built_in_tools_may_be_among_them() -> None:
    tool = ScriptedTool()
    engine = Engine(calls(("echo", {"a": 1})), say("Done."), calls(("echo", {"a": 2})), say("Done."), tools=[tool])
    first = await engine.stream(input=[added({"type": "x_echo"}, F), USER])
    assert [item["type"] for item in first.events[-1]["response"]["output"]] == ["x_tool_call", "message"]
    assert offered(engine, 0) == ["f", "echo"]
    await engine.stream(previous_response_id=first.events[-1]["response"]["id"])
    assert [call.arguments for call in tool.calls] == ['{"a": 1}', '{"a": 2}']
    assert tool.closed == 2


async def test_what_they_name_wrongly_is_refused_in_its_place() -> None:
    for tool, param in (
        ({"type": "computer"}, "input[1].tools[1].type"),
        ({"type": "function"}, "input[1].tools[1].name"),
    ):
        with pytest.raises(InvalidRequest) as raised:
            await Engine().plain(input=[USER, added(F, tool)])
        assert raised.value.param == param
    with pytest.raises(InvalidRequest) as raised:
        await Engine().plain(input=[{"type": "additional_tools", "tools": {}}, USER])
    assert raised.value.param == "input[0].tools"
    with pytest.raises(InvalidRequest) as raised:
        await Engine(limits={"tools": 1}).plain(input=[added(F, SHELL), USER])
    assert raised.value.param == "input[0].tools"


async def test_for_a_lenient_client_what_is_not_served_is_left_out_of_them() -> None:
    engine = Engine(say("Hi."))
    async with engine.running(lenient=True, input=[added({"type": "image_generation"}, F), USER]) as run:
        await run.whole()
    assert offered(engine) == ["f"]
    assert run.warnings == ("tool 'image_generation' is not served and was left out",)


async def test_what_a_search_finds_can_be_called() -> None:
    engine = Engine(calls(("tool_search", {"paths": ["crm"]})), calls(("crm__later", {})), say("Done."))
    first = await engine.plain(tools=[SEARCH, CRM], store=False)
    (search,) = first["output"]
    assert (search["type"], search["execution"], search["arguments"]) == (
        "tool_search_call",
        "client",
        {"paths": ["crm"]},
    )
    assert offered(engine) == ["tool_search", "crm__now"]
    items = [USER, search, found(search["call_id"], {**CRM, "tools": [LATER]})]
    second = await engine.plain(tools=[SEARCH, CRM], input=items, store=False)
    assert offered(engine) == ["tool_search", "crm__now", "crm__later"]
    assert results(engine.provider.calls[1]) == [
        "These functions can be called from now on:\n- crm__later: Comes later."
    ]
    assert (second["output"][0]["namespace"], second["output"][0]["name"]) == ("crm", "later")


async def test_a_search_that_found_a_name_means_the_definition_that_was_deferred() -> None:
    engine = Engine(say("Hi."))
    later: Json = {**LATER, "parameters": {"type": "object", "properties": {"a": {}}}}
    await engine.plain(
        tools=[SEARCH, later], input=[USER, searched(), found("c1", {"type": "function", "name": "later"})]
    )
    assert offered(engine) == ["tool_search", "later"]
    assert json.loads(bytes(engine.provider.calls[0].tools[1].parameters)) == later["parameters"]


@pytest.mark.parametrize("between", RESTARTS)
async def test_what_was_found_stays_on_offer_in_a_chain(between: Callable[[Engine], None]) -> None:
    engine = Engine(calls(("tool_search", {})), say("Found."), say("Done."))
    first = await engine.plain(tools=[SEARCH, LATER])
    second = await engine.plain(
        tools=[SEARCH, LATER], input=[found(first["output"][0]["call_id"], LATER)], previous_response_id=first["id"]
    )
    between(engine)
    await engine.plain(tools=[SEARCH, LATER], previous_response_id=second["id"])
    assert [offered(engine, at) for at in range(3)] == [
        ["tool_search"],
        ["tool_search", "later"],
        ["tool_search", "later"],
    ]


async def test_what_a_server_has_searched_for_by_itself_is_on_offer_too() -> None:
    engine = Engine(say("Hi."))
    await engine.plain(
        tools=[], input=[USER, searched(None), found(None, F), {"type": "message", "role": "user", "content": "And?"}]
    )
    assert offered(engine) == ["f"]
    assert [message["type"] for message in read(engine.provider.calls[0])] == ["user", "user"]


async def test_a_search_that_found_nothing_says_so() -> None:
    engine = Engine(say("Hi."))
    await engine.plain(tools=[SEARCH], input=[USER, searched(), found("c1")])
    assert results(engine.provider.calls[0]) == ["No tools were found."]


@pytest.mark.parametrize("between", RESTARTS)
@pytest.mark.parametrize("turn", [["echo", ("shell", {"commands": ["ls"]})], [("shell", {"commands": ["ls"]}), "echo"]])
async def test_beside_a_built_in_tool_the_client_is_waited_for(
    between: Callable[[Engine], None], turn: list[Any]
) -> None:
    engine = Engine(calls(*turn), say("Done."), tools=[ScriptedTool()])
    tools = [{"type": "x_echo"}, SHELL]
    first = (await engine.stream(tools=tools)).events[-1]["response"]
    assert {item["type"] for item in first["output"]} == {"x_tool_call", "shell_call"}
    between(engine)
    (call,) = [item for item in first["output"] if item["type"] == "shell_call"]
    output = {"type": "shell_call_output", "call_id": call["call_id"], "output": "a"}
    await engine.plain(tools=tools, input=[output], previous_response_id=first["id"])
    asked, *results_ = read(engine.provider.calls[1])[1:]
    assert sorted(one["name"] for one in asked["calls"]) == ["echo", "shell"]
    assert [one["type"] for one in results_] == ["tool", "tool"]


async def test_a_call_that_the_model_wrote_into_its_text_is_one_of_them_too() -> None:
    engine = Engine(say('<tool_call>\n{"name": "shell", "arguments": {"commands": ["ls"]}}\n</tool_call>'))
    (item,) = await engine.output(tools=[SHELL])
    assert (item["type"], item["action"]["commands"]) == ("shell_call", ["ls"])


async def test_an_item_may_be_referred_to() -> None:
    engine = Engine(calls(("apply_patch", {"type": "delete_file", "path": "p"})), say("Done."))
    first = await engine.plain(tools=[{"type": "apply_patch"}])
    call = first["output"][0]
    items = [
        USER,
        {"type": "item_reference", "id": call["id"]},
        {"type": "apply_patch_call_output", "call_id": call["call_id"], "status": "completed"},
    ]
    await engine.plain(input=items)
    assert results(engine.provider.calls[1]) == ["Status: completed"]
