"""Background requests as the clients of `docs/clients.md` were seen to send them, and how they come back."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.background.pairs import Replicas
from tests.e2e.background.test_background import until
from tests.e2e.clients import ASKED, CALLS, LOOP, PERSON, STRICT_CITY, SUNNY, WEATHER, json_schema, text_of
from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay, sent, split
from tests.support.judge import judge
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

AGENT_FRAMEWORK: Json = {
    "model": MODEL,
    "stream": False,
    "background": True,
    "include": ["reasoning.encrypted_content"],
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASKED}]}],
    "instructions": "Be short.",
    "tools": [{**WEATHER, "strict": None}],
}


async def _leave(http: httpx.AsyncClient, request: Json, gate: Gate, agent: str) -> bytes:
    """The stream up to its first piece of text, where the client goes away."""
    async with http.stream("POST", "/v1/responses", json=request, headers={"user-agent": agent}) as answer:
        seen = await Frames(answer).until("response.output_text.delta")
    await gate.reached()
    gate.open()
    return seen


async def test_agent_framework_polls_and_goes_on_with_results(places: Replicas, upstream: ScriptedUpstream) -> None:
    """Its continuation token is the response's id; `previous_response_id` is that of the response it has polled."""
    upstream.script(CALLS, SUNNY)
    agent = {"user-agent": "AsyncOpenAI/Python 3.57.0 agent-framework-python/1.23.0"}
    async with places[0].http() as first, places[1].http() as second:
        queued = (await first.post("/v1/responses", json=AGENT_FRAMEWORK, headers=agent)).json()
        called = await until(second, queued["id"], "completed")
        result = {"type": "function_call_output", "call_id": called["output"][-1]["call_id"], "output": "sunny"}
        more = {**AGENT_FRAMEWORK, "input": [result], "previous_response_id": called["id"]}
        again = (await second.post("/v1/responses", json=more, headers=agent)).json()
        ended = await until(first, again["id"], "completed")
    assert queued["status"] == "queued"
    assert called["output"][0]["encrypted_content"]
    assert sent(upstream) == [{"role": "system", "content": "Be short."}, *LOOP]
    assert text_of(ended) == "It is sunny."


async def test_agent_framework_resumes_from_the_beginning(places: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("It is "), gate, Text("sunny.")]))
    async with places[0].http() as first, places[1].http() as second:
        seen = await _leave(first, {**AGENT_FRAMEWORK, "stream": True}, gate, "AsyncOpenAI/Python 3.57.0")
        stream = await replay(second, id_in(seen))
    assert stream.startswith(seen)
    assert judge(stream).text == "It is sunny."


async def test_pydantic_ai_resumes_by_number_with_include(places: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("It is "), gate, Text("sunny.")]))
    request = {"model": MODEL, "stream": True, "background": True, "input": [{"role": "user", "content": ASKED}]}
    include = {"include[]": ["code_interpreter_call.outputs", "web_search_call.action.sources"]}
    async with places[0].http() as first, places[1].http() as second:
        seen = await _leave(first, request, gate, "pydantic-ai/2.68.0")
        query = {"starting_after": len(split(seen)) - 1, "stream": "true", **include}
        rest = (await second.get(f"/v1/responses/{id_in(seen)}", params=query)).content
        polled = (await second.get(f"/v1/responses/{id_in(seen)}", params={"stream": "false", **include})).json()
    assert judge(seen + rest).text == "It is sunny."
    assert polled == final(seen + rest)


@pytest.mark.parametrize(
    ("agent", "extra"),
    [
        ("Agents/Python 0.24.0", {"include": [], "tools": []}),
        ("Agents/JavaScript 0.20.0", {"include": [], "tools": []}),
        ("AsyncOpenAI/Python 3.57.0", {"text": json_schema(PERSON, name="P", strict=True)}),
        ("langchainjs-openai/1.0.0", {"text": {}, "tools": [{**WEATHER, "parameters": STRICT_CITY, "strict": None}]}),
        ("ai/7.0.173 ai-sdk-openai/4.0.118", {"tool_choice": "auto", "tools": [{**WEATHER, "strict": False}]}),
        ("ai-sdk/open-responses/2.0.36", {"tool_choice": "auto", "tools": [WEATHER]}),
    ],
)
async def test_clients_that_read_streams(places: Replicas, upstream: ScriptedUpstream, agent: str, extra: Json) -> None:
    """openai-agents, LangChain and the AI SDK pass `background` on and read the stream to its end."""
    said = '{"name":"Ada","age":36}'
    upstream.script(Reply(pieces=[Thought("Hm."), Text(said[:9]), Text(said[9:])]))
    request = {
        "model": MODEL,
        "background": True,
        "stream": True,
        "input": [{"role": "user", "content": ASKED}],
        **extra,
    }
    async with places[0].http() as first, places[1].http() as second:
        stream = (await first.post("/v1/responses", json=request, headers={"user-agent": agent})).content
        stored = (await second.get(f"/v1/responses/{id_in(stream)}")).json()
    assert judge(stream).text == said
    assert stored == final(stream)


async def test_agno_sends_results_in_the_background_too(places: Replicas, upstream: ScriptedUpstream) -> None:
    upstream.script(CALLS, SUNNY)
    """It sends its history, although it stores responses, and an empty `reasoning`."""
    question = {"role": "user", "content": ASKED}
    request: Json = {
        "model": MODEL,
        "background": True,
        "store": True,
        "reasoning": {},
        "tools": [WEATHER],
        "input": [question],
    }
    async with places[0].http() as first, places[1].http() as second:
        called = await until(second, (await first.post("/v1/responses", json=request)).json()["id"], "completed")
        output = [item for item in called["output"] if item["type"] == "function_call"]
        result = {"type": "function_call_output", "call_id": output[0]["call_id"], "output": "sunny"}
        more = {**request, "input": [question, *output, result]}
        ended = await until(second, (await first.post("/v1/responses", json=more)).json()["id"], "completed")
    assert text_of(ended) == "It is sunny."
    assert [message["role"] for message in sent(upstream)] == ["user", "assistant", "tool"]
