"""Tools as clients declare them: names that have to change on the way, custom tools, namespaces, and what is no
tool.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.e2e_dialects import ask, calls_of, function, post, refused, sent, streamed, text_of, vendor_calls
from tests.support.gateway import Gateway
from tests.support.script import Call, Reply
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
ROME_CALL = '{"city":"Rome"}'
ROME: Json = {"city": "Rome"}


@pytest.mark.parametrize("name", ["file_search", "search", "web_search", "code_interpreter", "fn_search", "x" * 100])
@pytest.mark.parametrize("dialect", ["dashscope", "dashscope-responses", "vllm"])
async def test_a_name_the_upstream_would_misunderstand_is_renamed_on_the_way(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, name: str
) -> None:
    model, vendor = f"{dialect}/qwen-plus", dialect == "dashscope-responses"

    def call(body: Json) -> Reply:
        tool = body["tools"][0]
        return (
            vendor_calls(tool["name"], ROME_CALL)
            if vendor
            else Reply(pieces=[Call(tool["function"]["name"], [ROME_CALL])])
        )

    upstream.respond = call

    response = await ask(dialects, model=model, tools=[function(name)])

    tool = sent(upstream)["tools"][0]
    renamed = tool.get("function", tool)["name"]
    assert renamed != name
    assert len(renamed) <= 64
    assert calls_of(response) == [(name, ROME)]
    assert response["tools"][0]["name"] == name

    # The history speaks of the same name as the tools do.
    call_id = response["output"][0]["call_id"]
    output = {"type": "function_call_output", "call_id": call_id, "output": "sun"}
    await ask(dialects, model=model, tools=[function(name)], previous_response_id=response["id"], input=[output])
    assert renamed in json.dumps(sent(upstream)["input" if vendor else "messages"])


async def test_renamed_functions_do_not_meet(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.respond = lambda body: Reply(
        pieces=[Call(tool["function"]["name"], ["{}"], id=f"c{i}", index=i) for i, tool in enumerate(body["tools"])]
    )

    response = await ask(
        dialects, tools=[function("search"), function("fn_search"), function("fn_fn_search"), function("fn_other")]
    )

    assert [name for name, _ in calls_of(response)] == ["search", "fn_search", "fn_fn_search", "fn_other"]
    assert [tool["function"]["name"] for tool in sent(upstream)["tools"]][3] == "fn_other"


async def test_two_tools_of_one_name_are_refused(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    error = await refused(dialects, 400, tools=[function("weather"), function("weather")])

    assert error["param"] == "tools[1].name"
    assert not upstream.requests


@pytest.mark.parametrize("stream", [False, True])
async def test_a_custom_tool_gets_its_input_as_text(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    tool = {"type": "custom", "name": "run_sql", "description": "Runs SQL."}
    upstream.script(Reply(pieces=[Call("run_sql", ['{"input": "SELECT', ' \\"1\\";"}'], id="call_1")]))

    response = await ask(dialects, stream=stream, tools=[tool])

    item = response["output"][0]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "run_sql", 'SELECT "1";')
    assert response["tools"] == [tool]

    upstream.script(Reply.say("One."))
    output = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "1"}
    assert text_of(await ask(dialects, previous_response_id=response["id"], input=[output], tools=[tool])) == "One."
    assert json.loads(sent(upstream)["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {
        "input": 'SELECT "1";'
    }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("written", ["SELECT 1", '{"input": "SELECT 1"}', '{"query": "SELECT 1"}', '"SELECT 1"'])
async def test_a_custom_tool_gets_the_text_however_it_is_wrapped(
    dialects: Gateway, upstream: ScriptedUpstream, written: str, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Call("run_sql", [written[:4], written[4:]])]))

    response = await ask(dialects, stream=stream, tools=[{"type": "custom", "name": "run_sql"}])

    assert [item["input"] for item in response["output"]] == ["SELECT 1"]


async def test_a_custom_tool_without_its_input_fails(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("run_sql", ["{}"])]))

    judged = await streamed(dialects, tools=[{"type": "custom", "name": "run_sql"}])

    assert judged.types[-2:] == ["error", "response.failed"]
    assert judged.events[-1]["response"]["output"][0]["status"] == "incomplete"


NAMESPACE = {
    "type": "namespace",
    "name": "agents",
    "description": "Agents.",
    "tools": [function("spawn"), {"type": "custom", "name": "patch", "description": "Patches."}],
}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_namespace_is_flattened_on_the_way(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(
        Reply(
            pieces=[Call("agents__spawn", [ROME_CALL]), Call("agents__patch", ['{"input":"+"}'], id="call_2", index=1)]
        )
    )

    response = await ask(dialects, stream=stream, tools=[function("spawn"), NAMESPACE])

    assert [tool["function"]["name"] for tool in sent(upstream)["tools"]] == ["spawn", "agents__spawn", "agents__patch"]
    spawn, patch = response["output"]
    assert (spawn["type"], spawn["namespace"], spawn["name"]) == ("function_call", "agents", "spawn")
    assert (patch["type"], patch["namespace"], patch["name"], patch["input"]) == (
        "custom_tool_call",
        "agents",
        "patch",
        "+",
    )
    assert response["tools"][1] == NAMESPACE

    upstream.script(Reply.say("Done."))
    outputs = [
        {"type": "function_call_output", "call_id": "call_1", "output": "ok"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "ok"},
    ]
    await ask(
        dialects, store=False, input=[{"role": "user", "content": "Go"}, spawn, patch, *outputs], tools=[NAMESPACE]
    )
    assert [call["function"]["name"] for call in sent(upstream)["messages"][1]["tool_calls"]] == [
        "agents__spawn",
        "agents__patch",
    ]


async def test_a_namespace_holds_functions_only(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    error = await refused(dialects, 400, tools=[{"type": "namespace", "name": "a", "tools": [{"type": "web_search"}]}])

    assert (error["code"], error["param"]) == ("invalid_value", "tools[0].tools[0].type")
    assert not upstream.requests


async def test_the_echo_fills_in_what_a_function_leaves_out(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    response = await ask(dialects, tools=[{"type": "function", "name": "weather"}])

    assert response["tools"] == [
        {"type": "function", "name": "weather", "description": None, "parameters": None, "strict": None}
    ]
    assert sent(upstream)["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "function"}, "tools[0].name"),
        ({"type": "function", "name": "a b"}, "tools[0].name"),
        ({"type": "function", "name": "x" * 129}, "tools[0].name"),
        ({"type": "function", "name": "f", "parameters": []}, "tools[0].parameters"),
        ({"type": "function", "function": {"name": "f"}}, "tools[0].function"),
        ({"type": "function", "name": 5}, "tools[0].name"),
        ({"name": "f"}, "tools[0]"),
        ("function", "tools[0]"),
    ],
)
async def test_a_tool_that_is_none_is_refused(
    dialects: Gateway, upstream: ScriptedUpstream, tool: Any, param: str
) -> None:
    answer = await post(dialects, tools=[tool])

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert not upstream.requests
