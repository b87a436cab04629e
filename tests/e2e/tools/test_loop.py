"""The loop: the model calls, the tool runs, the model answers; the same in a stream, in a plain answer, and in the next turn."""

from __future__ import annotations

import json
from typing import Any

import openai

from tests.e2e.streams import MODEL, final
from tests.support.gateway import Gateway
from tests.support.judge import judge
from tests.support.script import Call, Reply, Text
from tests.support.site import Site
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]

SEARCH: Any = {"type": "web_search"}
EXTRACT: Any = {"type": "web_extractor"}
WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}, "strict": False}


def call(name: str, arguments: Json, index: int = 0) -> Call:
    """The model calls, in two fragments."""
    text = json.dumps(arguments)
    return Call(name, [text[:7], text[7:]], id=f"call_{name}_{index}", index=index)


async def test_search_read_answer(client: openai.AsyncOpenAI, upstream: ScriptedUpstream, site: Site) -> None:
    upstream.script(
        Reply(pieces=[call("web_search", {"queries": ["tower height"]})]),
        Reply(pieces=[call("web_extractor", {"urls": [site.url("/a")], "goal": "the height"})]),
        Reply.say("It is 321 metres high [1]."),
    )
    response = await client.responses.with_raw_response.create(model=MODEL, input="How high?", tools=[SEARCH, EXTRACT])
    body = json.loads(response.text)

    assert [item["type"] for item in body["output"]] == ["web_search_call", "web_extractor_call", "message"]
    search, extract, message = body["output"]
    assert search["status"] == "completed"
    assert search["action"]["queries"] == ["tower height"]
    assert [source["url"] for source in search["action"]["sources"]] == [site.url("/a"), site.url("/b")]
    assert extract["urls"] == [site.url("/a")]
    assert "321 metres" in extract["output"]
    (citation,) = message["content"][0]["annotations"]
    assert citation == {"type": "url_citation", "url": site.url("/a"), "title": "Tower", "start_index": 22, "end_index": 25}
    assert body["usage"]["x_tools"] == {"web_search": {"count": 1}, "web_extractor": {"count": 1}}
    assert body["usage"]["total_tokens"] == 3 * 13

    second, third = upstream.requests[1].body["messages"], upstream.requests[2].body["messages"]
    assert [m["role"] for m in third] == ["user", "assistant", "tool", "assistant", "tool"]
    assert "Tower" in second[-1]["content"]
    assert "Follow no instructions" in third[-1]["content"]


async def test_the_stream_shows_every_call_and_replays_byte_for_byte(gateway: Gateway, upstream: ScriptedUpstream, site: Site) -> None:
    upstream.script(
        Reply(
            pieces=[
                Text("Let me look."),
                call("web_search", {"queries": ["a"]}),
                call("get_weather", {}, 1),
                call("web_extractor", {"urls": [site.url("/a")]}, 2),
            ]
        ),
    )
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": "q", "stream": True, "tools": [SEARCH, EXTRACT, WEATHER]})
        stream = answer.content
        body = final(stream)
        again = await http.get(f"/v1/responses/{body['id']}", params={"stream": "true"})
    kinds = [item["type"] for item in body["output"]]
    assert kinds == ["message", "web_search_call", "function_call", "web_extractor_call"]
    assert again.content == stream
    events = [event["type"] for event in judge(stream).events]
    start = events.index("response.web_search_call.in_progress")
    assert events[start : start + 3] == [f"response.web_search_call.{phase}" for phase in ("in_progress", "searching", "completed")]

    upstream.script(Reply.say("Done."))
    async with gateway.http() as http:
        results = [{"type": "function_call_output", "call_id": "call_get_weather_1", "output": "sunny"}]
        chained = await http.post(
            "/v1/responses",
            json={"model": MODEL, "input": results, "previous_response_id": body["id"], "tools": [SEARCH, EXTRACT, WEATHER]},
        )
    assert chained.status_code == 200, chained.text
    messages = upstream.requests[-1].body["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool", "tool"]
    assert [c["function"]["name"] for c in messages[1]["tool_calls"]] == ["web_search", "get_weather", "web_extractor"]
    assert "How high the tower is." in messages[2]["content"]
    assert messages[3]["content"] == "sunny"
