"""What the tests that replay clients share: a tool loop, the two ends of it, and how a request is sent."""

from __future__ import annotations

from typing import Any

from tests.e2e.streams import MODEL, Json, final
from tests.support.gateway import Gateway
from tests.support.script import Call, Reply, Text, Thought

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STRICT_CITY = {**CITY, "additionalProperties": False}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "name": "get_weather", "description": "Get the weather of a city", "parameters": CITY}
ASKED = "Weather in Paris?"
CALLS = Reply(pieces=[Thought("Look it up."), Call("get_weather", ['{"city":', '"Paris"}'])])
SUNNY = Reply(pieces=[Thought("Sun."), Text("It is "), Text("sunny.")])
LOOP = [
    {"role": "user", "content": ASKED},
    {
        "role": "assistant",
        "content": "",
        "reasoning": "Look it up.",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
]
"""A tool loop as the upstream has to see it before its last turn, however the client says it."""


async def ask(gateway: Gateway, agent: str, body: Json) -> Json:
    """The response to a client's request; a stream has to hold against the judge."""
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json={"model": MODEL, **body}, headers={"user-agent": agent})
    assert answer.status_code == 200, answer.text
    whole: Json = final(answer.content) if body.get("stream") else answer.json()
    assert whole["status"] == "completed"
    return whole


def text_of(response: Json) -> str:
    """What the assistant said."""
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def json_schema(schema: Json, **rest: Any) -> Json:
    """`text` with a schema."""
    return {"format": {"type": "json_schema", "schema": schema, **rest}}
