"""Input items: listed in pages, referred to by id, sent again."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import ResponseInputItemParam, ResponseInputParam

from app.protocol.wire.ids import locate
from tests.e2e.streams import MODEL, Frames, Json, id_in, sent
from tests.support.gateway import Gateway
from tests.support.script import Call, Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

SEVEN: ResponseInputParam = [{"role": "user", "content": f"item {number}"} for number in range(7)]


async def test_pages_in_both_orders(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json={"model": MODEL, "input": SEVEN})).json()["id"]

        async def page(**query: str | int) -> Json:
            answer = await http.get(f"/v1/responses/{made}/input_items", params=query)
            assert answer.status_code == 200, answer.text
            body: Json = answer.json()
            assert body["object"] == "list"
            listed = [entry["id"] for entry in body["data"]] or [None]
            assert (body["first_id"], body["last_id"]) == (listed[0], listed[-1])
            return body

        newest_first = await page()
        everything = (await page(order="asc"))["data"]
        ids = [entry["id"] for entry in everything]
        pages: list[tuple[dict[str, str | int], list[int], bool]] = [
            ({"order": "asc", "limit": 3}, [0, 1, 2], True),
            ({"order": "asc", "limit": 3, "after": ids[2]}, [3, 4, 5], True),
            ({"order": "asc", "limit": 3, "after": ids[5]}, [6], False),
            ({"order": "asc", "after": ids[6]}, [], False),
            ({"order": "asc", "limit": 2, "before": ids[5]}, [3, 4], True),
            ({"order": "asc", "before": ids[2]}, [0, 1], False),
            ({"order": "asc", "after": ids[1], "before": ids[4]}, [2, 3], False),
            ({"limit": 2}, [6, 5], True),
            ({"limit": 2, "after": ids[5]}, [4, 3], True),
            ({"limit": 5, "after": ids[4]}, [3, 2, 1, 0], False),
            ({"limit": 2, "before": ids[1]}, [3, 2], True),
            ({"order": "asc", "limit": 7}, [0, 1, 2, 3, 4, 5, 6], False),
        ]

        assert newest_first["data"] == everything[::-1]
        assert [entry["content"][0]["text"] for entry in everything] == [f"item {number}" for number in range(7)]
        for query, expected, has_more in pages:
            body = await page(**query)
            assert ([ids.index(entry["id"]) for entry in body["data"]], body["has_more"]) == (expected, has_more), query
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "msg_unknown"}, {"before": "msg_unknown"}]
)
async def test_impossible_pages(gateway: Gateway, upstream: ScriptedUpstream, query: dict[str, Any]) -> None:
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json={"model": MODEL, "input": SEVEN})).json()["id"]
        refused = await http.get(f"/v1/responses/{made}/input_items", params=query)

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == next(iter(query))
    assert len(upstream.requests) == 1


async def test_the_pager_gets_the_whole_conversation(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Hello.")]))
    first = await client.responses.create(model=MODEL, input=SEVEN)
    second = await client.responses.create(model=MODEL, input="last", previous_response_id=first.id)

    asked = await client.responses.input_items.list(second.id, limit=2, order="asc")
    items = [item async for item in asked]

    assert [item.type for item in items] == ["message"] * 7 + ["reasoning", "message", "message"]
    assert [item.id for item in items[7:9]] == [item.id for item in first.output]
    assert len({item.id for item in items}) == 10
    assert len(upstream.requests) == 2


async def test_items_are_listed_in_full(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    items: ResponseInputParam = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}],
        },
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "3"},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "Sure?"},
    ]
    made = await client.responses.create(model="qwen3.7-plus", input=items)

    # The client validates each against the SDK's type.
    listed = [item async for item in client.responses.input_items.list(made.id, order="asc")]

    assert [item.type for item in listed] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
        "message",
        "message",
    ]
    assert len(upstream.requests) == 1


async def test_references_are_resolved_in_place(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("A haiku.")]))
    first = await client.responses.create(model=MODEL, input="Write.")
    asked = (await client.responses.input_items.list(first.id)).data[0].id
    answered = first.output[1].id
    assert asked is not None
    assert answered is not None
    without_type: Any = {"id": answered}
    items: ResponseInputParam = [
        {"type": "item_reference", "id": asked},
        {"type": "item_reference", "id": answered},
        {"role": "user", "content": "Shorter."},
    ]

    for reference in (items[1], without_type):
        await client.responses.create(model=MODEL, input=[items[0], reference, items[2]])

        assert [message["content"] for message in sent(upstream)] == ["Write.", "A haiku.", "Shorter."]


async def test_an_id_of_the_clients_own_making_can_be_referred_to(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    own: ResponseInputItemParam = {
        "type": "message",
        "role": "user",
        "id": "msg_client-made 中",
        "content": [{"type": "input_text", "text": "Remember me."}],
    }  # pyright: ignore[reportAssignmentType] - the SDK's type has no id, yet Codex sends one
    await client.responses.create(model=MODEL, input=[own])
    reference: ResponseInputItemParam = {"type": "item_reference", "id": "msg_client-made 中"}
    await client.responses.create(model=MODEL, input=[reference, {"role": "user", "content": "Well?"}])

    assert [message["content"] for message in sent(upstream)] == ["Remember me.", "Well?"]


async def test_an_item_with_an_id_of_null_has_the_id_of_its_place(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Rust clients write the field without a value: the id is listed, pages begin after it, and it can be
    referred to.
    """
    items = [
        {"type": "message", "id": None, "role": "user", "content": "Add."},
        {"role": "user", "content": 'say "id" here', "id": None},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "id": None, "call_id": "c", "output": "1"},
    ]
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json={"model": MODEL, "input": items})).json()["id"]
        pages = f"/v1/responses/{made}/input_items"
        listed = (await http.get(pages, params={"order": "asc"})).json()["data"]
        after = (await http.get(pages, params={"order": "asc", "after": listed[1]["id"]})).json()["data"]
        references = [{"type": "item_reference", "id": entry["id"]} for entry in (listed[1], *listed[2:])]
        again = (
            await http.post(
                "/v1/responses", json={"model": MODEL, "input": [*references, {"role": "user", "content": "?"}]}
            )
        ).json()
        kept = (await http.get(f"/v1/responses/{again['id']}/input_items", params={"order": "asc"})).json()["data"]

    places = [locate(entry["id"]) for entry in listed]
    assert [(place.output, place.position) for place in places if place] == [(False, position) for position in range(4)]
    assert [entry["id"].split("_")[0] for entry in listed] == ["msg", "msg", "fc", "fco"]
    assert after == listed[2:]
    assert [message["role"] for message in sent(upstream)] == ["user", "assistant", "tool", "user"]
    assert kept[:3] == listed[1:]  # what was referred to keeps its own id
    assert kept[3]["id"] not in {entry["id"] for entry in listed}


@pytest.mark.parametrize("store", [True, False])
async def test_an_unknown_reference_is_refused(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream, store: bool
) -> None:
    item_id = "msg_68a1b2c3"
    if not store:
        unstored = await client.responses.create(model=MODEL, input="Hi", store=False)
        item_id = str(unstored.output[0].id)

    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(
            model=MODEL, input=[{"type": "item_reference", "id": item_id}, {"role": "user", "content": "?"}]
        )

    assert refused.value.response.json()["error"] == {
        "message": f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input.",
        "type": "invalid_request_error",
        "param": "input",
        "code": None,
    }
    assert len(upstream.requests) == (not store)


async def test_items_sent_again_are_not_said_twice(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("I will add."), Call("add", id="call_a")]))
    first = await client.responses.create(
        model=MODEL, input="1+2?", tools=[{"type": "function", "name": "add", "parameters": {}, "strict": False}]
    )
    echoed: Any = [item.to_dict() for item in first.output]
    asked: Any = [item.to_dict() for item in (await client.responses.input_items.list(first.id)).data]
    result: ResponseInputItemParam = {"type": "function_call_output", "call_id": "call_a", "output": "3"}

    second = await client.responses.create(model=MODEL, input=[*asked, *echoed, result], previous_response_id=first.id)

    assert [message["role"] for message in sent(upstream)] == ["user", "assistant", "tool"]
    items = [item async for item in client.responses.input_items.list(second.id, order="asc", limit=1)]
    assert [item.id for item in items[:3]] == [item["id"] for item in (*asked, *echoed)]
    assert len({item.id for item in items}) == len(items) == 4


async def test_an_item_referred_to_twice_is_listed_once(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    first = await client.responses.create(model=MODEL, input="Write.")
    reference: ResponseInputItemParam = {"type": "item_reference", "id": str(first.output[0].id)}
    second = await client.responses.create(
        model=MODEL, input=[reference, {"role": "user", "content": "Again."}, reference]
    )

    items = [item.id async for item in client.responses.input_items.list(second.id, order="asc", limit=1)]

    assert len(items) == len(set(items)) == 2
    assert [message["role"] for message in sent(upstream)] == ["assistant", "user", "assistant"]


async def test_the_input_of_a_running_response(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply.say("One."), Reply(pieces=[Text("Two"), gate, Text(".")]))
    async with gateway.http() as http:
        first = (await http.post("/v1/responses", json={"model": MODEL, "input": "1?"})).json()["id"]
        asked = {
            "model": MODEL,
            "input": [{"role": "user", "content": "2?"}],
            "previous_response_id": first,
            "stream": True,
        }
        async with http.stream("POST", "/v1/responses", json=asked) as answer:
            frames = Frames(answer)
            path = f"/v1/responses/{id_in(await frames.take())}/input_items"
            running = await http.get(path, params={"order": "asc"})
            page = await http.get(path, params={"limit": 1})
            gate.open()
            await frames.rest()
        ended = await http.get(path, params={"order": "asc"})

    assert running.status_code == 200
    assert [item["content"][0]["text"] for item in running.json()["data"]] == ["1?", "One.", "2?"]
    assert (page.json()["data"], page.json()["has_more"]) == (running.json()["data"][:1:-1], True)
    assert running.json() == ended.json()


async def test_the_input_of_a_running_response_that_is_not_stored(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Two"), gate, Text(".")]))
    asked = {"model": MODEL, "input": "?", "stream": True, "store": False}
    async with gateway.http() as http, http.stream("POST", "/v1/responses", json=asked) as answer:
        frames = Frames(answer)
        seen = await http.get(f"/v1/responses/{id_in(await frames.take())}/input_items")
        gate.open()
        await frames.rest()

    assert (seen.status_code, seen.json()["error"]["code"]) == (404, "response_not_found")
