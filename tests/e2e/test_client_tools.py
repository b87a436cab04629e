"""Tools that the client runs, with the official client: plain and streamed, in a chain and with a history of the
client's own.
"""

from __future__ import annotations

from typing import Any, cast

import openai
import pytest
from openai.types.responses import Response, ResponseInputParam, ToolParam

from tests.e2e.streams import MODEL, Json, final, replay, sent
from tests.support.gateway import Gateway
from tests.support.script import Call, Reply
from tests.support.upstream import ScriptedUpstream

TOOLS: list[ToolParam] = [
    {"type": "local_shell"},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "apply_patch"},
    {"type": "tool_search", "execution": "client"},
]
CALLS = Reply(
    pieces=[
        Call("local_shell", ['{"command": ["l', 's"]}'], id="c1"),
        Call("shell", ['{"commands": ["pwd", ', '"date"], "timeout_ms": 5}'], id="c2", index=1),
        Call("apply_patch", ['{"type": "update_file", "path": "p", ', '"diff": "@@\\n-a\\n+b"}'], id="c3", index=2),
        Call("tool_search", ['{"paths": ["crm"]}'], id="c4", index=3),
    ]
)
CRM: Json = {"type": "function", "name": "find_customer", "description": "Finds one.", "parameters": {"type": "object"}}
PRINTED: list[Json] = [
    {"stdout": "/\n", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}},
    {"stdout": "", "stderr": "no", "outcome": {"type": "timeout"}},
]
OUTPUTS: list[Json] = [
    {"type": "local_shell_call_output", "call_id": "c1", "output": "a"},
    {"type": "shell_call_output", "call_id": "c2", "output": PRINTED, "max_output_length": None},
    {"type": "apply_patch_call_output", "call_id": "c3", "status": "failed", "output": "No file."},
    {"type": "tool_search_output", "call_id": "c4", "execution": "client", "status": "completed", "tools": [CRM]},
]
READ = ["a", "/\nExit code: 0\n\nstderr:\nno\nThe command ran out of time.", "Status: failed\nNo file."]
ASKED: ResponseInputParam = [{"type": "message", "role": "user", "content": "Go"}]


async def create(client: openai.AsyncOpenAI, *, stream: bool, **fields: Any) -> Response:
    """The response, as the answer or as the stream's helper has it."""
    if not stream:
        return cast("Response", await client.responses.create(model=MODEL, tools=TOOLS, **fields))
    async with client.responses.stream(model=MODEL, tools=TOOLS, **fields) as events:
        async for _ in events:
            pass
        return await events.get_final_response()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chained", [False, True])
async def test_calls_come_as_items_and_their_outputs_are_read(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream, *, stream: bool, chained: bool
) -> None:
    upstream.script(CALLS, Reply.say("Done."))
    first = await create(client, stream=stream, input=ASKED, store=chained)

    local, shell, patch, search = first.output
    assert local.type == "local_shell_call"
    assert (local.action.command, local.action.env, local.status) == (["ls"], {}, "completed")
    assert shell.type == "shell_call"
    assert (shell.action.commands, shell.action.timeout_ms, shell.call_id) == (["pwd", "date"], 5, "c2")
    assert patch.type == "apply_patch_call"
    assert patch.operation.model_dump() == {"type": "update_file", "path": "p", "diff": "@@\n-a\n+b"}
    assert search.type == "tool_search_call"
    assert (search.arguments, search.execution) == ({"paths": ["crm"]}, "client")
    assert [tool.to_dict() for tool in first.tools] == TOOLS

    own: list[Any] = [] if chained else [*ASKED, *(item.to_dict() for item in first.output)]
    previous: Json = {"previous_response_id": first.id} if chained else {"store": False}
    second = await create(client, stream=stream, input=[*own, *OUTPUTS], **previous)

    assert second.output_text == "Done."
    user, assistant, *results = sent(upstream)
    assert (user["content"], [call["id"] for call in assistant["tool_calls"]]) == ("Go", ["c1", "c2", "c3", "c4"])
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in assistant["tool_calls"]] == [
        ("local_shell", '{"command":["ls"]}'),
        ("shell", '{"commands":["pwd","date"],"timeout_ms":5}'),
        ("apply_patch", '{"type":"update_file","path":"p","diff":"@@\\n-a\\n+b"}'),
        ("tool_search", '{"paths":["crm"]}'),
    ]
    assert [result["content"] for result in results[:3]] == READ
    assert "find_customer: Finds one." in results[3]["content"]
    assert [tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]][-1] == "find_customer"


async def test_the_stream_holds_and_replays_byte_for_byte(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(CALLS)
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": "Go", "tools": TOOLS, "stream": True})
        response = final(answer.content)
        again = await replay(http, response["id"])

    assert again == answer.content
    assert [item["type"] for item in response["output"]] == [
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "tool_search_call",
    ]


async def test_their_items_are_listed_as_the_client_knows_them(
    gateway: Gateway, client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    upstream.script(CALLS, Reply.say("Done."))
    first = await client.responses.create(model=MODEL, tools=TOOLS, input="Go")
    added: Json = {"type": "additional_tools", "role": "developer", "tools": [{**CRM, "name": "g"}]}
    image: Json = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGk="}
    items: list[Any] = [*OUTPUTS, added, image]
    second = await client.responses.create(model=MODEL, tools=TOOLS, input=items, previous_response_id=first.id)

    listed = (await client.responses.input_items.list(second.id, order="asc")).data
    assert [item.type for item in listed] == [
        "message",
        *(item.type for item in first.output),
        *(item["type"] for item in OUTPUTS),
        "additional_tools",
        "image_generation_call",
    ]
    shell = next(item for item in listed if item.type == "shell_call_output")
    assert [one.model_dump(exclude_none=True) for one in shell.output] == PRINTED
    assert shell.status == "completed"
    async with gateway.http() as http:
        raw = (await http.get(f"/v1/responses/{second.id}/input_items", params={"order": "asc"})).json()["data"]
    assert raw[5] == {**OUTPUTS[0], "id": raw[5]["id"], "status": "completed"}
    assert raw[9] == {**added, "id": raw[9]["id"]}


async def test_short_forms_are_listed_in_full(gateway: Gateway) -> None:
    items: list[Json] = [
        {"type": "local_shell_call", "call_id": "c1", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c1", "output": "a"},
        {"type": "tool_search_call", "call_id": "c2", "arguments": {}},
        {"type": "tool_search_output", "call_id": "c2", "tools": []},
    ]
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json={"model": MODEL, "input": items})).json()
        listed = (await http.get(f"/v1/responses/{made['id']}/input_items", params={"order": "asc"})).json()["data"]

    assert listed[0]["action"] == {"type": "exec", "command": ["ls"], "env": {}}
    assert [(item["status"], item.get("execution")) for item in listed] == [
        ("completed", None),
        ("completed", None),
        ("completed", "client"),
        ("completed", "client"),
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [("shell", '{"commands": ["rm', "incomplete"), ("apply_patch", '{"type": "create_file", "pa', "in_progress")],
)
@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
async def test_a_call_that_was_cut_is_not_complete(
    gateway: Gateway, upstream: ScriptedUpstream, name: str, arguments: str, status: str, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Call(name, [arguments])], finish_reason="length"))
    async with gateway.http() as http:
        answer = await http.post(
            "/v1/responses", json={"model": MODEL, "input": "Go", "tools": TOOLS, "stream": stream}
        )
    response = final(answer.content) if stream else answer.json()
    assert (response["output"][0]["status"], response["status"]) == (status, "incomplete")


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "shell", "environment": {"type": "container_auto"}}, "tools[0].environment.type"),
        ({"type": "tool_search"}, "tools[0].execution"),
        ({"type": "computer"}, "tools[0].type"),
    ],
)
@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
async def test_what_only_a_vendor_runs_is_refused(
    gateway: Gateway, upstream: ScriptedUpstream, tool: Json, param: str
) -> None:
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": "Go", "tools": [tool]})
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (
        400,
        "unsupported_tool",
        param,
    )
    assert not upstream.requests


def brought(count: int, *, by: int) -> list[Json]:
    """Items by which a client adds tools: `by` of them, with `count` functions each that no other one has."""
    names = [[f"f{item}_{number}" for number in range(count)] for item in range(by)]
    return [
        {"type": "additional_tools", "tools": [{"type": "function", "name": name} for name in some]} for some in names
    ]


@pytest.mark.parametrize(
    "items", [brought(257, by=1), brought(100, by=3), brought(1, by=1) * 4097], ids=["one", "some", "again"]
)
@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
async def test_items_bring_no_more_tools_than_a_request_may_have(
    gateway: Gateway, upstream: ScriptedUpstream, items: list[Json]
) -> None:
    async with gateway.http() as http:
        answer = await http.post(
            "/v1/responses", json={"model": MODEL, "input": [*items, {"role": "user", "content": "Go"}]}
        )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "too_large")
    assert error["param"] in {"tools", "input[0].tools"}
    assert not upstream.requests


@pytest.mark.parametrize("number", ["1" + "0" * 5000, "1" + "0" * 40], ids=["huge", "large"])
@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
async def test_an_odd_number_in_an_output_is_no_failure_of_the_gateway(gateway: Gateway, number: str) -> None:
    item = f'{{"type":"apply_patch_call_output","call_id":"c1","status":"completed","output":{number}}}'
    body = f'{{"model":"{MODEL}","input":[{{"role":"user","content":"Go"}},{item}]}}'
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("input[1]")
