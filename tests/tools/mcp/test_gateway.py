"""MCP servers through the gateway: the official client on one side, a scripted model and a real server on the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest
from openai.types.responses.response_output_item import McpApprovalRequest, McpCall, McpListTools

from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import judge
from tests.support.mcp_server import McpServer, serving_mcp
from tests.support.script import Call, Reply
from tests.support.upstream import ScriptedUpstream

MODEL = "qwen3-8b"
SECRETS = ("s3cret-t0ken-123456", "another-s3cret-7890", "hidden-in-the-url")


@pytest.fixture(scope="module")
def running() -> Generator[McpServer]:
    with serving_mcp() as server:
        yield server


@pytest.fixture
def server(running: McpServer) -> McpServer:
    running.reset()
    return running


@pytest.fixture(scope="module")
def gateway(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    directory = tmp_path_factory.mktemp("mcp-gateway")
    with running_gateway(directory, upstream_server.url, fetch_allow='["127.0.0.1"]', log_level="debug") as running:
        yield running


def entry(server: McpServer, **fields: Any) -> Any:
    return {"type": "mcp", "server_label": "shop", "server_url": server.url(), "require_approval": "never", **fields}


def adding(**numbers: int) -> Reply:
    return Reply(pieces=[Call("mcp__shop__add", [json.dumps(numbers)])])


async def test_a_round_in_the_answer_and_the_next_turn(
    gateway: Gateway, upstream: ScriptedUpstream, server: McpServer
) -> None:
    upstream.script(adding(a=1, b=2), Reply.say("It is 3."), adding(a=3, b=4), Reply.say("It is 7."))
    async with gateway.client() as client:
        first = await client.responses.create(model=MODEL, input="1 + 2?", tools=[entry(server)])
        listed, call, message = first.output
        assert isinstance(listed, McpListTools)
        assert isinstance(call, McpCall)
        assert (call.name, call.output, call.status) == ("add", "3", "completed")
        assert message.type == "message"
        assert first.output_text == "It is 3."
        second = await client.responses.create(
            model=MODEL, input="3 + 4?", previous_response_id=first.id, tools=[entry(server)]
        )
        assert [item.type for item in second.output] == ["mcp_call", "message"]
    assert server.methods.count("tools/list") == 1
    read = [message for message in upstream.requests[-1].body["messages"] if message["role"] == "tool"]
    assert "3" in read[0]["content"]


async def test_a_stream_holds_against_the_judge(
    gateway: Gateway, upstream: ScriptedUpstream, server: McpServer
) -> None:
    upstream.script(
        Reply(pieces=[Call("mcp__shop__add", ['{"a":1,', '"b":2}']), Call("mcp__shop__fail", id="call_2", index=1)]),
        Reply.say("Done."),
    )
    async with gateway.http() as http:
        answer = await http.post(
            "/v1/responses", json={"model": MODEL, "input": "go", "stream": True, "tools": [entry(server)]}
        )
    judged = judge(answer.content)
    assert [item["type"] for item in judged.events[-1]["response"]["output"]] == [
        "mcp_list_tools",
        "mcp_call",
        "mcp_call",
        "message",
    ]
    assert "response.mcp_call.failed" in judged.types


async def test_the_approval_round_trip(gateway: Gateway, upstream: ScriptedUpstream, server: McpServer) -> None:
    upstream.script(adding(a=1, b=2))
    asking = entry(server, require_approval="always")
    async with gateway.client() as client:
        first = await client.responses.create(model=MODEL, input="1 + 2?", tools=[asking])
        request = first.output[-1]
        assert isinstance(request, McpApprovalRequest)
        assert (request.name, json.loads(request.arguments)) == ("add", {"a": 1, "b": 2})
        approval: Any = [{"type": "mcp_approval_response", "approve": True, "approval_request_id": request.id}]
        upstream.script(Reply.json({"count": 99, "tokens": []}), Reply.say("It is 3."))
        counted = await client.responses.input_tokens.count(
            model=MODEL, previous_response_id=first.id, tools=[asking], input=approval
        )
        assert counted.input_tokens == 99
        assert "tools/call" not in server.methods
        second = await client.responses.create(
            model=MODEL, previous_response_id=first.id, tools=[asking], input=approval
        )
    call, _ = second.output
    assert isinstance(call, McpCall)
    assert (call.output, call.approval_request_id) == ("3", request.id)
    assert second.output_text == "It is 3."


def sink(server: McpServer) -> None:
    server.status = 500


def drop_the_tool(server: McpServer) -> None:
    del server.tools["add"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("context", ["stored", "sent", "sent without the list"])
@pytest.mark.parametrize("break_it", [sink, drop_the_tool])
async def test_an_approved_call_that_cannot_be_made_is_a_failed_item(
    gateway: Gateway,
    upstream: ScriptedUpstream,
    server: McpServer,
    break_it: Callable[[McpServer], None],
    context: str,
    stream: bool,
) -> None:
    upstream.script(adding(a=1, b=2), Reply.say("It did not work."))
    asked: dict[str, Any] = {
        "model": MODEL,
        "tools": [entry(server, require_approval="always")],
        "store": context == "stored",
    }
    async with gateway.http() as http:
        first = (await http.post("/v1/responses", json={**asked, "input": "1 + 2?"})).json()
        kept = [item for item in first["output"] if context == "sent" or item["type"] != "mcp_list_tools"]
        approval = {"type": "mcp_approval_response", "approve": True, "approval_request_id": first["output"][-1]["id"]}
        history = [{"role": "user", "content": "1 + 2?"}, *kept, approval]
        before = (
            {"previous_response_id": first["id"], "input": [approval]} if context == "stored" else {"input": history}
        )
        break_it(server)
        answer = await http.post("/v1/responses", json={**asked, **before, "stream": stream})
    assert answer.status_code == 200
    second = judge(answer.content).events[-1]["response"] if stream else answer.json()
    call, message = second["output"][-2:]
    assert (call["type"], call["name"], call["status"]) == ("mcp_call", "add", "failed")
    assert call["error"]
    assert call["approval_request_id"] == approval["approval_request_id"]
    assert "output" not in call
    assert message["content"][0]["text"] == "It did not work."
    assert second["status"] == "completed"
    assert "MCP server" in upstream.requests[-1].body["messages"][-1]["content"] or break_it is drop_the_tool


async def test_a_list_that_the_client_sends_is_not_asked_for(
    gateway: Gateway, upstream: ScriptedUpstream, server: McpServer
) -> None:
    upstream.script(adding(a=1, b=2), Reply.say("It is 3."), Reply.say("Yes."))
    numbers = {"type": "object", "properties": {"a": {"type": "number"}}}
    tools: list[Any] = [
        {"name": "add", "description": None, "annotations": None, "input_schema": numbers},
        {"name": "hidden", "input_schema": numbers},
        {"name": "broken", "input_schema": {"type": "object", "properties": 5}},
        {"name": 5, "input_schema": {}},
        "no tool",
    ]
    item: dict[str, Any] = {
        "type": "mcp_list_tools",
        "id": "mcpl_theirs",
        "server_label": "shop",
        "tools": tools,
        "error": None,
    }
    wanted = {"model": MODEL, "tools": [entry(server, allowed_tools=["add", "broken"])]}
    async with gateway.http() as http:
        first = (
            await http.post("/v1/responses", json={**wanted, "input": [item, {"role": "user", "content": "1 + 2?"}]})
        ).json()
        assert [one["type"] for one in first["output"]] == ["mcp_call", "message"]
        later = {**wanted, "tools": [entry(server)], "input": "Sure?", "previous_response_id": first["id"]}
        second = (await http.post("/v1/responses", json=later)).json()
    assert [one["type"] for one in second["output"]] == ["message"]
    assert "tools/list" not in server.methods
    offered = [[tool["function"] for tool in request.body["tools"]] for request in upstream.requests]
    assert [function["name"] for function in offered[0]] == ["mcp__shop__add"]
    assert offered[0][0]["parameters"]["properties"] == numbers["properties"]
    assert [function["name"] for function in offered[-1]] == ["mcp__shop__add", "mcp__shop__hidden"]


@pytest.mark.parametrize(
    "changes",
    [
        {"server_label": "other"},
        {"server_label": None},
        {"error": "down"},
        {"tools": []},
        {"tools": "many"},
        {"tools": [{"name": "x"}]},
    ],
)
async def test_a_list_that_says_nothing_of_the_server_is_no_list(
    gateway: Gateway, upstream: ScriptedUpstream, server: McpServer, changes: dict[str, Any]
) -> None:
    upstream.script(Reply.say("Well."))
    tools = [{"name": "forged", "input_schema": {"type": "object"}}]
    item = {"type": "mcp_list_tools", "id": "mcpl_theirs", "server_label": "shop", "tools": tools, **changes}
    asked = {"model": MODEL, "input": [item, {"role": "user", "content": "?"}], "tools": [entry(server)]}
    async with gateway.http() as http:
        answer = (await http.post("/v1/responses", json=asked)).json()
    assert [one["type"] for one in answer["output"]] == ["mcp_list_tools", "message"]
    assert server.methods.count("tools/list") == 1
    assert "forged" not in json.dumps(upstream.requests[0].body["tools"])


async def test_a_client_that_keeps_its_context_lists_the_tools_once(
    gateway: Gateway, upstream: ScriptedUpstream, server: McpServer
) -> None:
    upstream.script(adding(a=1, b=2), Reply.say("It is 3."), Reply.say("Yes."))
    asked = {"model": MODEL, "tools": [entry(server)], "store": False}
    async with gateway.http() as http:
        first = (await http.post("/v1/responses", json={**asked, "input": "1 + 2?"})).json()
        history = [{"role": "user", "content": "1 + 2?"}, *first["output"], {"role": "user", "content": "Sure?"}]
        second = (await http.post("/v1/responses", json={**asked, "input": history})).json()
    assert [one["type"] for one in second["output"]] == ["message"]
    assert server.methods.count("tools/list") == 1
    offered = [sorted(tool["function"]["name"] for tool in request.body["tools"]) for request in upstream.requests]
    assert offered[0] == offered[-1]


async def test_a_refused_call_is_not_made(gateway: Gateway, upstream: ScriptedUpstream, server: McpServer) -> None:
    upstream.script(adding(a=1, b=2), Reply.say("As you wish."))
    asking = entry(server, require_approval="always")
    async with gateway.client() as client:
        first = await client.responses.create(model=MODEL, input="1 + 2?", tools=[asking])
        second = await client.responses.create(
            model=MODEL,
            previous_response_id=first.id,
            tools=[asking],
            input=[
                {"type": "mcp_approval_response", "approve": False, "approval_request_id": first.output[-1].id or ""}
            ],
        )
    assert second.output_text == "As you wish."
    assert "tools/call" not in server.methods


async def test_a_server_that_is_down_costs_its_tools_only(
    gateway: Gateway, upstream: ScriptedUpstream, server: McpServer
) -> None:
    server.status = 503
    upstream.script(Reply.say("I cannot look."))
    async with gateway.client() as client:
        response = await client.responses.create(model=MODEL, input="1 + 2?", tools=[entry(server)])
    listed = response.output[0]
    assert isinstance(listed, McpListTools)
    assert listed.error
    assert response.output_text == "I cannot look."


async def test_two_servers_are_told_apart(gateway: Gateway, upstream: ScriptedUpstream, server: McpServer) -> None:
    upstream.script(
        Reply(
            pieces=[
                Call("mcp__one__add", ['{"a":1,"b":1}']),
                Call("mcp__two__add", ['{"a":2,"b":2}'], id="call_2", index=1),
            ]
        ),
        Reply.say("Done."),
    )
    tools = [entry(server, server_label="one"), entry(server, server_label="two", server_url=server.url("sse"))]
    async with gateway.client() as client:
        response = await client.responses.create(model=MODEL, input="go", tools=tools)
    calls = [item for item in response.output if isinstance(item, McpCall)]
    assert [(call.server_label, call.output) for call in calls] == [("one", "2"), ("two", "4")]


async def test_secrets_are_neither_stored_nor_shown_nor_logged(
    gateway: Gateway, upstream: ScriptedUpstream, server: McpServer
) -> None:
    token, key, ticket = SECRETS
    server.token = token
    upstream.script(Reply(pieces=[Call("mcp__shop__whoami")]), Reply.say("Hm."))
    fields = {"authorization": token, "headers": {"X-Api-Key": key}, "server_url": f"{server.url()}?ticket={ticket}"}
    async with gateway.http() as http:
        answer = await http.post(
            "/v1/responses", json={"model": MODEL, "input": "who am I?", "tools": [entry(server, **fields)]}
        )
        assert answer.status_code == 200, answer.text
        stored = await http.get(f"/v1/responses/{answer.json()['id']}")
        refused = await http.post(
            "/v1/responses", json={"model": MODEL, "input": "x", "tools": [entry(server, **fields, server_label="")]}
        )
        assert refused.status_code == 400
    files = b"".join(path.read_bytes() for path in gateway.log_file.parent.iterdir() if path.is_file())
    for secret in SECRETS:
        assert secret not in answer.text + stored.text + refused.text
        assert secret.encode() not in files


async def test_an_unserved_field_is_refused_by_name(
    gateway: Gateway, upstream: ScriptedUpstream, server: McpServer
) -> None:
    async with gateway.http() as http:
        answer = await http.post(
            "/v1/responses",
            json={"model": MODEL, "input": "x", "tools": [entry(server, connector_id="connector_gmail")]},
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tools[0].connector_id"
    assert upstream.requests == []
