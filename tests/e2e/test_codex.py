"""Codex CLI as it was seen: two developer messages, a namespace, a tool that is not served, nothing stored, ids of its
own making.
"""

from __future__ import annotations

import pytest

from tests.e2e.clients import CITY, PERSON, ask, json_schema, text_of
from tests.e2e.streams import MODEL, Json, final, sent
from tests.support.gateway import Gateway
from tests.support.script import Call, Reply, Thought
from tests.support.upstream import ScriptedUpstream
from tests.support.websockets import socket

pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)

AGENT = "codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm (codex_exec; 0.169.0)"
SESSION = "01a2049c-15e2-7741-b4c2-488ffc09cb8d"
SHELL: Json = {
    "type": "function",
    "name": "exec_command",
    "description": "Runs a command.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"cmd": {"type": "string"}},
        "required": ["cmd"],
        "additionalProperties": False,
    },
}
NAMESPACE: Json = {
    "type": "namespace",
    "name": "multi_agent_v1",
    "description": "Tools for spawning and managing sub-agents.",
    "tools": [{"type": "function", "name": "wait_agent", "description": "Wait.", "strict": False, "parameters": CITY}],
}
COMMON: Json = {
    "tools": [SHELL, NAMESPACE, {"type": "web_search", "external_web_access": True}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": SESSION,
    "client_metadata": {"session_id": SESSION, "x-codex-turn-metadata": '{"sandbox":"none"}'},
}


def said(role: str, text: str, number: int) -> Json:
    """A message as Codex writes it."""
    return {
        "type": "message",
        "id": f"msg_01a2049c-148c-7872-857a-03dbaa72cb{number:02}",
        "role": role,
        "content": [{"type": "input_text", "text": text}],
    }


def opening() -> list[Json]:
    """What every conversation begins with."""
    return [
        said("developer", "You are a coding agent.", 1),
        said("developer", "Sandbox: none.", 2),
        said("user", "<environment_context>…</environment_context>", 3),
        said("user", "Please run it", 4),
    ]


async def test_a_tool_loop(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(
        Reply(pieces=[Thought("Run it."), Call("exec_command", ['{"cmd": "echo', ' hi"}'])]), Reply.say("It says hi.")
    )
    items = opening()
    first = await ask(gateway, AGENT, {**COMMON, "input": items})
    thought, call = first["output"]
    result = {
        "type": "function_call_output",
        "id": "fco_01a2049c-1751-7b71-aa37-65a07e63a99e",
        "call_id": call["call_id"],
        "output": "Chunk ID: c2f857\nhi\n",
    }
    second = await ask(gateway, AGENT, {**COMMON, "input": [*items, {**thought, "content": None}, call, result]})

    system, *rest = sent(upstream)
    assert system == {"role": "system", "content": "You are a coding agent.\n\nSandbox: none."}
    assert [message["role"] for message in rest] == ["user", "user", "assistant", "tool"]
    assert (rest[2]["reasoning"], rest[3]["content"]) == ("Run it.", "Chunk ID: c2f857\nhi\n")
    assert text_of(second) == "It says hi."


async def test_a_tool_that_is_not_served_is_left_out_and_said_to_be(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async with gateway.http() as http:
        body: Json = {"model": MODEL, "input": opening(), **COMMON}
        answer = await http.post("/v1/responses", json=body, headers={"user-agent": AGENT})
        refused = await http.post("/v1/responses", json=body, headers={"user-agent": "curl/8"})
        forced = await http.post(
            "/v1/responses", json={**body, "tool_choice": {"type": "web_search"}}, headers={"user-agent": AGENT}
        )

    assert "web_search" in answer.headers["warning"]
    assert [tool["type"] for tool in final(answer.content)["tools"]] == ["function", "namespace"]
    assert [tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]] == [
        "exec_command",
        "multi_agent_v1__wait_agent",
    ]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools[2].type")
    assert (forced.status_code, forced.json()["error"]["param"]) == (400, "tool_choice")
    assert len(upstream.requests) == 1


async def test_a_call_into_the_namespace_and_back(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("multi_agent_v1__wait_agent", ['{"city":"x"}'])]), Reply.say("Done."))
    items = opening()
    first = await ask(gateway, AGENT, {**COMMON, "input": items})
    call = first["output"][-1]
    result = {
        "type": "function_call_output",
        "id": "fco_01a2049c-1751-7b71-aa37-65a07e63a99e",
        "call_id": "call_1",
        "output": "ok",
    }
    await ask(gateway, AGENT, {**COMMON, "input": [*items, call, result]})

    assert (call["namespace"], call["name"]) == ("multi_agent_v1", "wait_agent")
    assert sent(upstream)[-2]["tool_calls"][0]["function"]["name"] == "multi_agent_v1__wait_agent"


EXEC: Json = {
    "type": "custom",
    "name": "exec",
    "description": "Runs.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
LITE: Json = {
    "type": "additional_tools",
    "role": "developer",
    "tools": [{"type": "namespace", "name": "functions", "tools": [EXEC, SHELL]}, {"type": "image_generation"}],
}


async def test_its_tools_may_come_as_an_item(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """For the models it knows by name it sends them so, first in every request, and no `tools`."""
    upstream.script(Reply(pieces=[Call("functions__exec_command", ['{"cmd": "ls"}'])]), Reply.say("Done."))
    items = [LITE, *opening()]
    rest = {name: value for name, value in COMMON.items() if name != "tools"}
    first = await ask(gateway, AGENT, {**rest, "input": items})
    call = first["output"][-1]
    result = {
        "type": "function_call_output",
        "id": "fco_01a2049c-1751-7b71-aa37-65a07e63a99e",
        "call_id": call["call_id"],
        "output": "a",
    }
    second = await ask(gateway, AGENT, {**rest, "input": [*items, call, result]})

    assert [tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]] == [
        "functions__exec",
        "functions__exec_command",
    ]
    assert (call["namespace"], call["name"], call["arguments"]) == ("functions", "exec_command", '{"cmd": "ls"}')
    assert (text_of(second), second["tools"]) == ("Done.", [])


async def test_its_search_for_tools(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    search: Json = {"type": "tool_search", "execution": "client", "description": "Searches apps.", "parameters": CITY}
    upstream.script(
        Reply(pieces=[Call("tool_search", ['{"city": "x"}'])]),
        Reply(pieces=[Call("multi_agent_v1__wait_agent", ["{}"])]),
    )
    items = opening()
    first = await ask(gateway, AGENT, {**COMMON, "tools": [SHELL, search], "input": items})
    call = first["output"][-1]
    inner = [{**NAMESPACE["tools"][0], "defer_loading": True}]
    found = {
        "type": "tool_search_output",
        "call_id": call["call_id"],
        "status": "completed",
        "execution": "client",
        "tools": [{**NAMESPACE, "tools": inner}],
    }
    second = await ask(gateway, AGENT, {**COMMON, "tools": [SHELL, search], "input": [*items, call, found]})

    assert (call["type"], call["execution"], call["arguments"]) == ("tool_search_call", "client", {"city": "x"})
    assert (second["output"][-1]["namespace"], second["output"][-1]["name"]) == ("multi_agent_v1", "wait_agent")


async def test_an_output_schema(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say('{"name": "Ada", "age": 36}'))
    text = json_schema(PERSON, name="codex_output_schema", strict=True)
    response = await ask(gateway, AGENT, {**COMMON, "input": opening(), "text": text})

    assert text_of(response) == '{"name": "Ada", "age": 36}'
    assert response["text"]["format"]["name"] == "codex_output_schema"


async def test_over_websocket(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """It opens the connection ahead, warms it up, and sends only what is new."""
    upstream.script(Reply(pieces=[Call("exec_command", ['{"cmd": "ls"}'])]), Reply.say("Done."))
    beta = "responses_websockets=2026-02-06"
    async with socket(gateway, MODEL, user_agent=AGENT, openai_beta=beta) as ws:
        warm = await ws.answer(**COMMON, input=[], generate=False)
        first = await ws.answer(**COMMON, input=opening(), previous_response_id=warm["id"])
        result = {"type": "function_call_output", "call_id": first["output"][-1]["call_id"], "output": "a"}
        second = await ws.answer(**COMMON, input=[result], previous_response_id=first["id"])

    assert text_of(second) == "Done."
    assert [message["role"] for message in sent(upstream)][-2:] == ["assistant", "tool"]
