"""The official client for Node."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.javascript import run_javascript
from tests.support.script import Call, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream


def _run(gateway: Gateway, source: str) -> Any:
    return run_javascript(source, base_url=f"{gateway.base_url}/v1", key=gateway.key)


def test_a_conversation(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    said = _run(
        gateway,
        """
        const first = await client.responses.create({ model: "qwen3-8b", input: "My name is Ada." });
        const second = await client.responses.create({
          model: "qwen3-8b", input: "Who am I?", previous_response_id: first.id,
        });
        const read = await client.responses.retrieve(second.id);
        const items = [];
        for await (const item of client.responses.inputItems.list(second.id, { order: "asc", limit: 1 })) {
          items.push(item.content[0].text);
        }
        await client.responses.delete(first.id);
        const gone = await client.responses.retrieve(first.id).catch((error) => [error.status, error.code]);
        const broken = await client.responses
          .create({ model: "qwen3-8b", input: "?", previous_response_id: second.id })
          .catch((error) => [error.status, error.code, error.param]);
        const models = [];
        for await (const model of client.models.list()) models.push(model.id);
        const same = read.id === second.id;
        console.log(JSON.stringify({ text: read.output_text, same, items, gone, broken, models }));
        """,
    )

    assert said == {
        "text": "Hello there.",
        "same": True,
        "items": ["My name is Ada.", "Hello there.", "Who am I?"],
        "gone": [404, "response_not_found"],
        "broken": [400, "previous_response_not_found", "previous_response_id"],
        "models": ["qwen3-8b"],
    }
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
def test_streams(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    reply = Reply(pieces=[Thought("Hm."), Text("Sunny, "), Text("\u2028I think.")])
    upstream.script(reply, reply)

    said = _run(
        gateway,
        """
        const raw = [];
        const stream = await client.responses.create({ model: "qwen3-8b", input: "Hi", stream: true });
        for await (const event of stream) raw.push(event);
        const helper = client.responses.stream({ model: "qwen3-8b", input: "Hi" });
        let deltas = "";
        helper.on("response.output_text.delta", (event) => { deltas += event.delta; });
        const final = await helper.finalResponse();
        const replayed = [];
        const replay = client.responses.stream({ response_id: final.id, starting_after: 4 });
        for await (const event of replay) replayed.push(event);
        const stored = [];
        for await (const event of await client.responses.retrieve(final.id, { stream: true })) stored.push(event);
        console.log(JSON.stringify({
          kinds: raw.map((event) => event.type), deltas, text: final.output_text, usage: final.usage.total_tokens,
          replayed: replayed.map((event) => event.sequence_number), stored: stored.length,
        }));
        """,
    )

    count = len(said["kinds"])
    assert (said["kinds"][0], said["kinds"][-1]) == ("response.created", "response.completed")
    assert said["deltas"] == said["text"] == "Sunny, \u2028I think."
    assert said["usage"] == 13
    assert said["stored"] == count
    assert said["replayed"] == list(range(5, count))


@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
def test_functions(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    calls = Reply(
        pieces=[
            Call("weather", ['{"city":', '"Rome"}'], id="call_a"),
            Call("weather", ['{"city":"Oslo"}'], id="call_b", index=1),
        ]
    )
    upstream.script(calls, Reply.say("Warm and cold."), calls)

    said = _run(
        gateway,
        """
        const tools = [{
          type: "function", name: "weather", strict: true,
          parameters: {
            type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false,
          },
        }];
        const first = await client.responses.create({ model: "qwen3-8b", input: "Weather?", tools });
        const calls = first.output.filter((item) => item.type === "function_call");
        const second = await client.responses.create({
          model: "qwen3-8b", tools, previous_response_id: first.id,
          input: calls.map((call) => ({
            type: "function_call_output", call_id: call.call_id,
            output: `weather of ${JSON.parse(call.arguments).city}`,
          })),
        });
        const helper = client.responses.stream({ model: "qwen3-8b", input: "Weather?", tools });
        const final = await helper.finalResponse();
        const streamed = final.output.map((item) => [item.call_id, item.arguments, item.status]);
        console.log(JSON.stringify({ text: second.output_text, streamed }));
        """,
    )

    assert said["text"] == "Warm and cold."
    assert said["streamed"] == [["call_a", '{"city":"Rome"}', "completed"], ["call_b", '{"city":"Oslo"}', "completed"]]
    assert [message["content"] for message in upstream.requests[1].body["messages"][-2:]] == [
        "weather of Rome",
        "weather of Oslo",
    ]
