"""What `GET /v1/responses/{id}` answers, however it is asked: a response, events, or an error that says what to do."""

from __future__ import annotations

import pytest

from tests.e2e.background.test_background import BACKGROUND, STREAMED, until
from tests.e2e.streams import MODEL, Json, id_in, replay, split
from tests.support.gateway import Gateway
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

_NUMBER = [
    ("0", 1),
    ("%203", 4),
    ("-1", 0),
    ("1&starting_after=4", 5),
]


@pytest.mark.parametrize(("number", "first"), _NUMBER)
async def test_ways_to_write_a_number(gateway: Gateway, upstream: ScriptedUpstream, number: str, first: int) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Hello")]))
    async with gateway.http() as http:
        stream = (await http.post("/v1/responses", json=STREAMED)).content
        answer = await http.get(f"/v1/responses/{id_in(stream)}?stream=true&starting_after={number}")
    assert answer.status_code == 200, answer.text
    assert answer.content == b"".join(split(stream)[first:])


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=true&starting_after=%d", "starting_after"),
        ("stream=true&starting_after=2147483647", "starting_after"),
        ("stream=true&starting_after=99999999999", "starting_after"),
        ("stream=true&starting_after=-2", "starting_after"),
        ("stream=true&starting_after=abc", "starting_after"),
        ("stream=true&starting_after=1.5", "starting_after"),
        ("stream=true&starting_after=", "starting_after"),
        ("stream=true&starting_after=null", "starting_after"),
        ("stream=maybe", "stream"),
        ("stream=", "stream"),
        ("stream=true&include_obfuscation=maybe", "include_obfuscation"),
    ],
)
@pytest.mark.parametrize("background", [False, True])
async def test_every_way_to_ask_for_events_has_an_answer(
    gateway: Gateway, upstream: ScriptedUpstream, query: str, param: str, *, background: bool
) -> None:
    upstream.script(Reply.say("Hello"))
    async with gateway.http() as http:
        stream = (await http.post("/v1/responses", json={**STREAMED, "background": background})).content
        count = len(split(stream))
        query = query % count if "%d" in query else query
        refused = await http.get(f"/v1/responses/{id_in(stream)}?{query}")
        seen = await replay(http, id_in(stream), starting_after=count - 1)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"], error["param"]) == (
        400,
        "invalid_request_error",
        "invalid_value",
        param,
    )
    assert param in error["message"]
    assert seen == b""


async def test_who_saw_too_much_is_told_the_last_number(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("Hello"))
    async with gateway.http() as http:
        stream = (await http.post("/v1/responses", json=STREAMED)).content
        refused = await http.get(f"/v1/responses/{id_in(stream)}?stream=true&starting_after=500")
    last = len(split(stream)) - 1
    message = f"Invalid 'starting_after': the last event of this response has the number {last}, but got 500."
    assert refused.json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("name", "value"),
    [("accept", "application/json"), ("accept", "text/html"), ("accept", ""), ("last-event-id", "4")],
)
async def test_headers_decide_nothing(gateway: Gateway, upstream: ScriptedUpstream, name: str, value: str) -> None:
    """Official clients accept JSON and ask for events in the query. No frame has an `id`, so there is no last one."""
    headers = {name: value}
    more = "include[]=file_search_call.results&include_obfuscation=false"
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Hello")]))
    async with gateway.http() as http:
        stream = (await http.post("/v1/responses", json=STREAMED)).content
        path = f"/v1/responses/{id_in(stream)}"
        plain = await http.get(path, headers=headers)
        events = await http.get(f"{path}?stream=true&{more}", headers=headers)
    assert plain.headers["content-type"] == "application/json"
    assert events.headers["content-type"].startswith("text/event-stream")
    assert events.content == stream


@pytest.mark.parametrize("ended", [False, True])
async def test_one_without_events_says_so(gateway: Gateway, upstream: ScriptedUpstream, *, ended: bool) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("Hello")]))
    async with gateway.http() as http:
        made: Json = (await http.post("/v1/responses", json=BACKGROUND)).json()
        await gate.reached()
        if ended:
            gate.open()
            await until(http, made["id"], "completed")
        path = f"/v1/responses/{made['id']}"
        refused = [await http.get(path + query) for query in ("?stream=true", "?stream=true&starting_after=0")]
        polled = await http.get(f"/v1/responses/{made['id']}?starting_after=3&include[]=reasoning.encrypted_content")
        if not ended:
            gate.open()
            await until(http, made["id"], "completed")
    for answer in refused:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", "stream")
        assert "get it without 'stream'" in error["message"]
    assert polled.json()["status"] == ("completed" if ended else "in_progress")


async def test_a_foreground_response_has_events_however_it_was_made(gateway: Gateway) -> None:
    async with gateway.http() as http:
        plain = (await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})).json()
        assert split(await replay(http, plain["id"]))[1:] == split(await replay(http, plain["id"], starting_after=0))


@pytest.mark.parametrize(
    ("method", "tail", "allowed"),
    [
        ("HEAD", "", "GET, DELETE"),
        ("PUT", "?stream=true", "GET, DELETE"),
        ("GET", "/cancel", "POST"),
        ("DELETE", "/cancel", "POST"),
    ],
)
async def test_other_methods_are_refused(gateway: Gateway, method: str, tail: str, allowed: str) -> None:
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})).json()
        answer = await http.request(method, f"/v1/responses/{made['id']}{tail}")
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_deleting_one_that_runs_says_what_to_do(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("Hello")]))
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json=BACKGROUND)).json()["id"]
        await gate.reached()
        refused = await http.delete(f"/v1/responses/{made}")
        headers = {"content-type": "application/json"}
        cancelled = await http.post(f"/v1/responses/{made}/cancel", content=b"not JSON", headers=headers)
        deleted = await http.delete(f"/v1/responses/{made}")
        gone = [await http.get(f"/v1/responses/{made}{query}") for query in ("", "?stream=true")] + [
            await http.post(f"/v1/responses/{made}/cancel")
        ]
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (409, "response_in_progress", "response_id")
    assert "can be cancelled" in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert (cancelled.json()["status"], deleted.status_code) == ("cancelled", 200)
    assert [answer.status_code for answer in gone] == [404] * 3
    assert {answer.json()["error"]["code"] for answer in gone} == {"response_not_found"}
