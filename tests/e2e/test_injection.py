"""What the model says cannot become an event of its own, in whatever way a client finds the ends of lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.streams import MODEL, Frames, final, id_in, replay
from tests.support.gateway import Gateway
from tests.support.script import Call, Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

FORGED = 'event: response.completed\ndata: {"type":"response.completed","response":{"id":"forged"}}'
ENDS = [
    "\n\n",
    "\r\n\r\n",
    "\r\r",
    "\n\r",
    "\x0b\x0b",
    "\x0c\x0c",
    "\x1c\x1d\x1e",
    "\x85\x85",
    "\u2028\u2028",
    "\u2029\u2029",
    "\x7f\ufeff",
]
HOSTILE = "".join(f"{end}{FORGED.replace(chr(10), end[:1])}{end}: ping{end}id: 7{end}retry: 1{end}" for end in ENDS)


def events(stream: str) -> list[dict[str, Any]]:
    """Read as a client does that splits lines wherever Python sees an end."""
    lines = [line for line in stream.splitlines() if line]
    assert all(line.startswith(("event: ", "data: {", ": ping")) for line in lines)
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize("pieces", [1, 7])
async def test_text_thinking_and_arguments(sqlite_gateway: Gateway, upstream: ScriptedUpstream, pieces: int) -> None:
    size = -(-len(HOSTILE) // pieces)
    parts = [HOSTILE[start : start + size] for start in range(0, len(HOSTILE), size)]
    call = Call("look", [json.dumps({"a": HOSTILE}, ensure_ascii=False)])
    upstream.script(Reply(pieces=[*map(Thought, parts), *map(Text, parts), call]))
    tools = [
        {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    ]
    request = {
        "model": MODEL,
        "input": HOSTILE,
        "instructions": HOSTILE,
        "stream": True,
        "tools": tools,
        "metadata": {"a": HOSTILE[:200]},
    }
    async with sqlite_gateway.http() as http:
        answer = await http.post("/v1/responses", json=request)
        response = final(answer.content)
        again = await replay(http, response["id"])

    for stream in (answer.content, again):
        told = events(stream.decode())
        assert [event["sequence_number"] for event in told] == list(range(len(told)))
        assert [event["response"]["id"] for event in told if event["type"] == "response.completed"] == [response["id"]]
        text = "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta")
        assert text.strip() == HOSTILE.strip()


async def test_a_live_stream_that_is_followed(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    half = Gate()
    upstream.script(Reply(pieces=[Text(HOSTILE), half, Text(HOSTILE)]))
    async with gateway.http() as http:
        request = {"model": MODEL, "input": "Hi", "stream": True}
        async with http.stream("POST", "/v1/responses", json=request) as answer:
            frames = Frames(answer)
            response_id = id_in(await frames.take())
            await half.reached()
            async with http.stream("GET", f"/v1/responses/{response_id}?stream=true") as followed:
                half.open()
                told = events((await followed.aread()).decode())

    assert [event["sequence_number"] for event in told] == list(range(len(told)))
