"""The official client for Node: background responses that are left, resumed, read and cancelled on another replica."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.e2e.background.pairs import Replicas
from tests.support.javascript import run_javascript
from tests.support.script import Call, Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

_COMMON = """
const reader = new OpenAI({ baseURL: "%s/v1", apiKey: process.env.TEST_API_KEY, maxRetries: 0 });
const request = { model: "qwen3-8b", input: "Hi", background: true };
const ended = async (id) => {
  for (;;) {
    const found = await reader.responses.retrieve(id);
    if (found.status !== "queued" && found.status !== "in_progress") return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
const take = async (stream, until) => {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (until?.(event)) break;
  }
  return events;
};
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const isText = (event) => event.type === "response.output_text.delta";
"""


async def _run(places: Replicas, source: str) -> Any:
    here, there = places
    script = _COMMON % there.base_url + source
    return await asyncio.to_thread(run_javascript, script, base_url=f"{here.base_url}/v1", key=here.key)


async def test_a_stream_is_left_and_resumed_elsewhere(places: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("One "), Text("two "), gate, Text("three"), Call("f")]))
    async with asyncio.TaskGroup() as group:
        said = group.create_task(
            _run(
                places,
                """
                const parameters = { type: "object", properties: {} };
                const tools = [{ type: "function", name: "f", parameters, strict: false }];
                const seen = await take(await client.responses.create({ ...request, tools, stream: true }), isText);
                const id = seen[0].response.id, last = seen.at(-1).sequence_number;
                const resumed = await reader.responses.retrieve(id, { stream: true, starting_after: last });
                const helped = reader.responses.stream({ response_id: id, starting_after: last });
                const [rest, filtered] = await Promise.all([take(resumed), take(helped)]);
                const final = await helped.finalResponse(), stored = await reader.responses.retrieve(id);
                const whole = await take(await client.responses.retrieve(id, { stream: true }));
                console.log(JSON.stringify({
                  begun: seen.slice(0, 3).map((event) => [event.type, event.response.status]),
                  whole: same([...seen, ...rest], whole),
                  filtered: filtered[0].sequence_number - last,
                  stored: same(final.output.map((item) => item.id), stored.output.map((item) => item.id)),
                  final: [final.status, final.background, final.output_text, final.usage.total_tokens],
                }));
                """,
            )
        )
        await gate.reached()
        gate.open()

    assert said.result() == {
        "begun": [
            ["response.created", "queued"],
            ["response.queued", "queued"],
            ["response.in_progress", "in_progress"],
        ],
        "whole": True,
        "filtered": 1,
        "stored": True,
        "final": ["completed", True, "One two three", 13],
    }


async def test_it_is_polled_parsed_and_refused_streams(places: Replicas, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say('{"name":"Ada"}'), Reply(pieces=[Thought("Hm."), Text('{"name":'), Text('"Ada"}')]))

    said = await _run(
        places,
        """
        const properties = { name: { type: "string" } };
        const schema = { type: "object", properties, required: ["name"], additionalProperties: false };
        const text = { format: { type: "json_schema", name: "person", strict: true, schema } };
        const queued = await client.responses.parse({ ...request, text });
        const polled = await ended(queued.id);
        const refused = await reader.responses
          .stream({ response_id: queued.id }).finalResponse().catch((error) => [error.status, error.code, error.param]);
        const { data, response } = await client.responses.create({ ...request, text, stream: true }).withResponse();
        const left = await take(data, (event) => event.type === "response.queued");
        const id = left[0].response.id;
        const final = await reader.responses.stream({ response_id: id, starting_after: 1, text }).finalResponse();
        console.log(JSON.stringify({
          queued: [queued.status, queued.output_text, queued.output_parsed],
          polled: JSON.parse(polled.output_text), refused,
          type: response.headers.get("content-type"), parsed: final.output_text,
        }));
        """,
    )

    assert said == {
        "queued": ["queued", "", None],
        "polled": {"name": "Ada"},
        "refused": [400, "invalid_value", "stream"],
        "type": "text/event-stream; charset=utf-8",
        "parsed": '{"name":"Ada"}',
    }


async def test_it_is_cancelled_elsewhere_and_survives_an_abort(places: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    cut = Reply(pieces=[Thought("Hm."), Text("Half an answer"), gate])
    upstream.script(cut, Reply(pieces=[Thought("Hm."), Text("Hello")]))

    said = await _run(
        places,
        """
        const events = [];
        for await (const event of await client.responses.create({ ...request, stream: true })) {
          events.push(event);
          if (isText(event)) await reader.responses.cancel(events[0].response.id);
        }
        const last = events.at(-1), again = await client.responses.cancel(last.response.id);
        const helped = await reader.responses.stream({ response_id: last.response.id }).finalResponse();
        const controller = new AbortController();
        let id;
        const { signal } = controller;
        for await (const event of await client.responses.create({ ...request, stream: true }, { signal })) {
          id ??= event.response.id;
          controller.abort();
        }
        console.log(JSON.stringify({
          last: [last.type, last.response.status], helped: helped.status,
          again: [again.status, again.output[1].content[0].text],
          aborted: (await ended(id)).output_text,
        }));
        """,
    )

    assert said == {
        "last": ["response.incomplete", "cancelled"],
        "again": ["cancelled", "Half an answer"],
        "helped": "cancelled",
        "aborted": "Hello",
    }
