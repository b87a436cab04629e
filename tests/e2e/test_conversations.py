"""Conversations: `/v1/conversations`, and responses that read and continue them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall

from tests.e2e.streams import MODEL, Json, final, sent
from tests.support.gateway import Gateway
from tests.support.script import Call, Cut, Reply, Text
from tests.support.upstream import ScriptedUpstream

UNKNOWN = "conv_" + "0" * 48
FUNCTION: FunctionToolParam = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}


def said(text: str, **fields: Any) -> Json:
    """A message of the user."""
    return {"role": "user", "content": text, **fields}


async def texts(http: httpx.AsyncClient, conversation: str) -> list[str]:
    """What the conversation's messages say, oldest first."""
    answer = await http.get(f"/v1/conversations/{conversation}/items", params={"order": "asc", "limit": 100})
    return [item["content"][0]["text"] for item in answer.json()["data"] if item["type"] == "message"]


async def respond(http: httpx.AsyncClient, conversation: str, **fields: Any) -> httpx.Response:
    """A turn of the conversation."""
    return await http.post(
        "/v1/responses", json={"model": MODEL, "conversation": conversation, "input": "Hi", **fields}
    )


@pytest.fixture
async def http(gateway: Gateway) -> AsyncGenerator[httpx.AsyncClient]:
    async with gateway.http() as client:
        yield client


@pytest.fixture
async def conversation(http: httpx.AsyncClient) -> str:
    """An empty one."""
    return (await http.post("/v1/conversations")).json()["id"]


# --- The resource


async def test_a_conversation_is_made_read_changed_and_deleted(client: openai.AsyncOpenAI) -> None:
    made = await client.conversations.create(items=[said("Hello.")], metadata={"topic": "demo", "team": "a"})  # type: ignore[list-item]
    assert (made.object, made.id[:5], len(made.id), made.created_at > 1_700_000_000) == (
        "conversation",
        "conv_",
        53,
        True,
    )
    assert await client.conversations.retrieve(made.id) == made

    changed = await client.conversations.update(made.id, metadata={"team": "b", "more": ""})
    assert changed.metadata == {"topic": "demo", "team": "b", "more": ""}
    assert (await client.conversations.retrieve(made.id)).metadata == changed.metadata
    assert (await client.conversations.update(made.id, metadata=None)).metadata == {}

    gone = await client.conversations.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "conversation.deleted")
    for call in (client.conversations.retrieve, client.conversations.delete, client.conversations.items.list):
        with pytest.raises(openai.NotFoundError) as refused:
            await call(made.id)
        assert (refused.value.code, refused.value.param) == ("conversation_not_found", "conversation_id")


def test_the_synchronous_client(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    with gateway.sync_client() as client:
        made = client.conversations.create()
        assert made.metadata == {}
        added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "One."}])
        assert client.conversations.items.retrieve(added.first_id, conversation_id=made.id) == added.data[0]
        client.responses.create(model=MODEL, input="Two.", conversation=made.id)
        assert len([*client.conversations.items.list(made.id, limit=1)]) == 3
        assert client.conversations.items.delete(added.first_id, conversation_id=made.id).id == made.id
        assert client.conversations.delete(made.id).deleted
    assert [message["content"] for message in sent(upstream)] == ["One.", "Two."]


async def test_items_are_added_listed_read_and_removed(client: openai.AsyncOpenAI) -> None:
    items = client.conversations.items
    made = await client.conversations.create()
    added = await items.create(
        made.id,
        items=[
            {"type": "message", "role": "user", "content": "What is 1 + 1?"},
            {"type": "reasoning", "id": "rs_own", "summary": [{"type": "summary_text", "text": "Easy."}]},
            {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "2"},
            {"role": "assistant", "content": "Two."},
        ],
        include=["reasoning.encrypted_content"],
    )
    ids = [str(item.id) for item in added.data]
    assert (added.object, added.has_more, added.first_id, added.last_id) == ("list", False, ids[0], ids[-1])
    assert [one.split("_")[0] for one in ids] == ["msg", "rs", "fc", "fco", "msg"]
    assert len(set(ids)) == 5

    first = await items.list(made.id, limit=2)
    assert ([item.id for item in first.data], first.has_more) == (ids[:2:-1], True)
    second = await items.list(made.id, limit=2, after=first.data[-1].id or "")
    assert ([item.id for item in second.data], second.has_more) == ([ids[2], ids[1]], True)
    assert [item.id async for item in items.list(made.id, limit=2, order="asc")] == ids
    assert await items.retrieve(ids[0], conversation_id=made.id, include=["file_search_call.results"]) == added.data[0]

    assert (await items.delete(ids[1], conversation_id=made.id)).id == made.id
    assert [item.id async for item in items.list(made.id, order="asc")] == [ids[0], *ids[2:]]
    for call in (items.retrieve, items.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            await call(ids[1], conversation_id=made.id)
        assert refused.value.code == "item_not_found"


BAD: list[tuple[Json, str]] = [
    ({"items": [said("x")] * 21}, "items"),
    ({"items": "x"}, "items"),
    ({"items": ["x"]}, "items[0]"),
    ({"items": [{"type": "computer_call"}]}, "items[0].type"),
    ({"items": [said("x"), {"type": "message", "role": "nobody", "content": "x"}]}, "items[1].role"),
    ({"items": [{"type": "function_call", "name": "f"}]}, "items[0].call_id"),
    ({"items": [{"type": "function_call_output", "output": "x"}]}, "items[0].call_id"),
    ({"items": [{"role": "user", "content": 5}]}, "items[0].content"),
    ({"items": [{"type": "mcp_call", "id": "mcp_1"}]}, "items[0]"),
    ({"items": [{"type": "item_reference", "id": "msg_nobody"}]}, "input"),
    ({"items": [said("x", id="msg_1"), said("y", id="msg_1")]}, "items"),
    ({"items": [said("x", id="m" * 129)]}, "items[0].id"),
    ({"items": [said("x", id="a/b")]}, "items[0].id"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ({"metadata": {"k" * 65: "x"}}, "metadata"),
    ({"metadata": {"k": "v" * 513}}, "metadata"),
    ({"metadata": {"k": 1}}, "metadata"),
    ({"nonsense": 1}, "nonsense"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
async def test_bad_input_is_refused_by_name(http: httpx.AsyncClient, conversation: str, body: Json, param: str) -> None:
    path = f"/v1/conversations/{conversation}"
    answers = [await http.post("/v1/conversations", json=body)]
    if "items" in body:
        answers.append(await http.post(f"{path}/items", json=body))
    if "metadata" in body:
        answers.append(await http.post(path, json=body))
    for answer in answers:
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"].startswith(param), error
        assert error["code"] or "not found" in error["message"]
    assert await texts(http, conversation) == []


async def test_short_forms_and_nulls_are_accepted(http: httpx.AsyncClient, conversation: str) -> None:
    short: list[Json] = [
        {"type": None, "id": None, "status": None, "role": "user", "content": "One."},
        {"type": "message", "id": "", "role": "user", "content": [{"type": "input_text", "text": "Two."}]},
        {"type": "web_search_call", "id": "ws_1", "status": 5, "action": None},
    ]
    added = await http.post(f"/v1/conversations/{conversation}/items", json={"items": short})
    assert added.status_code == 200, added.text
    assert [item["type"] for item in added.json()["data"]] == ["message", "message", "web_search_call"]
    assert await texts(http, conversation) == ["One.", "Two."]


async def test_queries_that_are_refused(http: httpx.AsyncClient, conversation: str) -> None:
    for name, value in (
        ("limit", "0"),
        ("limit", "101"),
        ("order", "up"),
        ("after", "msg_nobody"),
        ("after", "x" * 257),
    ):
        answer = await http.get(f"/v1/conversations/{conversation}/items", params={name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name), value
    bodies: list[Json] = [{}, {"items": []}]
    for body in bodies:
        answer = await http.post(f"/v1/conversations/{conversation}/items", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "items")
    assert (await http.post(f"/v1/conversations/{conversation}", json={})).json()["error"]["param"] == "metadata"


async def test_metadata_is_limited_with_what_there_is(http: httpx.AsyncClient) -> None:
    made = (await http.post("/v1/conversations", json={"metadata": {str(n): "" for n in range(16)}})).json()
    refused = await http.post(f"/v1/conversations/{made['id']}", json={"metadata": {"0": "x", "16": "x"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "metadata")
    assert (await http.get(f"/v1/conversations/{made['id']}")).json() == made


async def test_an_id_that_the_conversation_has_is_refused(http: httpx.AsyncClient, conversation: str) -> None:
    path = f"/v1/conversations/{conversation}/items"
    added = (await http.post(path, json={"items": [said("One.", id="msg_own")]})).json()
    assert added["first_id"] == "msg_own"
    again = await http.post(path, json={"items": [said("Two."), said("Three.", id="msg_own")]})
    assert (again.status_code, "msg_own" in again.json()["error"]["message"]) == (400, True)
    assert await texts(http, conversation) == ["One."]


@pytest.mark.usefixtures("upstream")
async def test_a_reference_adds_the_item_of_a_response(http: httpx.AsyncClient, conversation: str) -> None:
    made = (await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})).json()
    reference = {"type": "item_reference", "id": made["output"][0]["id"]}
    added = await http.post(f"/v1/conversations/{conversation}/items", json={"items": [reference]})
    assert added.json()["first_id"] == made["output"][0]["id"]
    assert await texts(http, conversation) == ["Hello there."]


async def test_strangers_see_nothing(gateway: Gateway, http: httpx.AsyncClient, command: Callable[..., str]) -> None:
    """Byte for byte the answer that an id gets which nobody has."""
    made = (await http.post("/v1/conversations", json={"items": [said("Secret.", id="msg_own")]})).json()["id"]
    key = command("keys", "create", "--project", "strangers").strip()
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=gateway.base_url, headers=headers) as stranger:
        for method, path, body in (
            ("GET", "/v1/conversations/{}", None),
            ("POST", "/v1/conversations/{}", {"metadata": {"a": "b"}}),
            ("DELETE", "/v1/conversations/{}", None),
            ("GET", "/v1/conversations/{}/items", None),
            ("POST", "/v1/conversations/{}/items", {"items": [said("Mine.")]}),
            ("GET", "/v1/conversations/{}/items/msg_own", None),
            ("DELETE", "/v1/conversations/{}/items/msg_own", None),
            ("POST", "/v1/responses", {"model": MODEL, "input": "?", "conversation": "{}"}),
            ("POST", "/v1/responses", {"model": MODEL, "input": "?", "conversation": "{}", "store": False}),
            ("POST", "/v1/responses", {"model": MODEL, "input": "?", "conversation": "{}", "background": True}),
        ):
            foreign, unknown = [await _ask(stranger, method, path, body, one) for one in (made, UNKNOWN)]
            assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "conversation_not_found"), path
            assert foreign.content.replace(made.encode(), UNKNOWN.encode()) == unknown.content
    assert await texts(http, made) == ["Secret."]


async def _ask(http: httpx.AsyncClient, method: str, path: str, body: Json | None, name: str) -> httpx.Response:
    filled = None if body is None else {key: name if value == "{}" else value for key, value in body.items()}
    return await http.request(method, path.format(name), json=filled)


# --- Turns


async def test_turns_of_a_conversation(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    made = await client.conversations.create(items=[{"role": "user", "content": "My name is Ada."}])
    upstream.script(Reply.say("Hello Ada."), Reply.say("Ada, you said."))
    first = await client.responses.create(model=MODEL, input="Hi.", conversation=made.id)
    second = await client.responses.create(model=MODEL, input="Who am I?", conversation={"id": made.id})
    listed = [item async for item in client.conversations.items.list(made.id, order="asc", limit=2)]

    assert first.conversation is not None
    assert second.conversation is not None
    assert first.conversation.id == second.conversation.id == made.id
    assert [message["content"] for message in sent(upstream)] == ["My name is Ada.", "Hi.", "Hello Ada.", "Who am I?"]
    assert [item.id for item in listed[2::2]] == [first.output[0].id, second.output[0].id]
    assert len(listed) == 5
    assert (await client.responses.retrieve(second.id)).conversation == second.conversation


async def test_a_streamed_turn(http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream) -> None:
    """It is in the conversation when its end is seen."""
    for number in range(3):
        stream = (await respond(http, conversation, input=f"Turn {number}.", stream=True)).content
        assert final(stream)["conversation"] == {"id": conversation}
        assert await texts(http, conversation) == [
            text for one in range(number + 1) for text in (f"Turn {one}.", "Hello there.")
        ]
    assert len(sent(upstream)) == 5


async def test_functions(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    made = await client.conversations.create()
    upstream.script(Reply(pieces=[Call("add", ['{"a":', "1}"])]), Reply.say("Two."), Reply.say("Yes."))
    create = partial(client.responses.create, model=MODEL, conversation=made.id, tools=[FUNCTION], stream=False)
    call = (await create(input="1 + 1?")).output[0]
    assert isinstance(call, ResponseFunctionToolCall)
    with pytest.raises(openai.BadRequestError, match="No tool output found"):
        await create(input="Well?")
    answer: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "2"}]
    await create(input=answer)
    await create(input="Sure?")

    roles = [message["role"] for message in sent(upstream)]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    kinds = [item.type async for item in client.conversations.items.list(made.id, order="asc")]
    assert kinds == ["message", "function_call", "function_call_output", "message", "message", "message"]


async def test_what_is_not_stored_adds_nothing(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    await respond(http, conversation, input="One.")
    await respond(http, conversation, input="Two.", store=False)
    assert [message["content"] for message in sent(upstream)] == ["One.", "Hello there.", "Two."]
    assert await texts(http, conversation) == ["One.", "Hello there."]


async def test_items_that_are_sent_again_stand_once(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    made = (await respond(http, conversation, input=[said("One.", id="msg_own")])).json()
    more = [said("Two.", id="msg_own"), said("Three.", id="a/b"), said("Four.", id="x"), said("Five.", id="x")]
    await respond(http, conversation, input=[*made["output"], *more])
    texts = ["One.", "Hello there.", "Two.", "Three.", "Four.", "Five."]
    assert [message["content"] for message in sent(upstream)] == texts
    listed = (await http.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"})).json()["data"]
    assert [item["content"][0]["text"] for item in listed] == [*texts, "Hello there."]
    assert len({item["id"] for item in listed}) == 7
    for item in listed:
        assert (await http.get(f"/v1/conversations/{conversation}/items/{item['id']}")).json() == item


async def test_a_removed_item_is_not_read(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    made = (await respond(http, conversation, input="One.")).json()
    await http.delete(f"/v1/conversations/{conversation}/items/{made['output'][0]['id']}")
    await http.post(f"/v1/conversations/{conversation}/items", json={"items": [said("Between.")]})
    await respond(http, conversation, input="Two.")
    assert [message["content"] for message in sent(upstream)] == ["One.", "Between.", "Two."]


async def test_responses_outlive_their_conversation_and_items_their_response(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    made = (await respond(http, conversation, input="One.")).json()["id"]
    await http.delete(f"/v1/responses/{made}")
    assert await texts(http, conversation) == ["One.", "Hello there."]
    kept = (await respond(http, conversation, input="Two.")).json()["id"]
    assert len(sent(upstream)) == 3

    await http.delete(f"/v1/conversations/{conversation}")
    assert (await http.get(f"/v1/responses/{kept}")).json()["conversation"] == {"id": conversation}
    assert (await http.get(f"/v1/responses/{kept}/input_items")).json()["data"][0]["content"][0]["text"] == "Two."
    refused = await http.post("/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": kept})
    assert (refused.status_code, conversation in refused.json()["error"]["message"]) == (400, True)


async def test_a_bad_conversation_is_refused(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    values: list[Any] = [5, [], {}, {"id": 5}, {"id": "conv_1", "more": 1}]
    for value in values:
        refused = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "conversation": value})
        assert (refused.status_code, refused.json()["error"]["param"].split(".")[0]) == (400, "conversation"), value
    body = {"model": MODEL, "input": "Hi", "conversation": UNKNOWN, "previous_response_id": "0" * 32}
    error = (await http.post("/v1/responses", json=body)).json()["error"]
    assert error == {
        "message": "Mutually exclusive parameters: Ensure you are only providing one of: 'previous_response_id' or "
        "'conversation'.",
        "type": "invalid_request_error",
        "param": "conversation",
        "code": "mutually_exclusive_parameters",
    }
    for stream in (False, True):
        unknown = await respond(http, UNKNOWN, stream=stream)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "conversation_not_found")
    assert not upstream.requests


async def test_a_stream_that_fails_adds_what_there_is(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    """Its input; not half an answer, and no call that nobody will answer."""
    upstream.script(Reply(pieces=[Text("Half an "), Cut()]), Reply(pieces=[Call("add"), Text(""), Cut()]))
    for number in range(2):
        stream = (await respond(http, conversation, input=f"{number}.", stream=True, tools=[FUNCTION])).content
        assert b"event: response.failed" in stream
    assert await texts(http, conversation) == ["0.", "1."]
    assert (await respond(http, conversation, input="Well?")).status_code == 200
    assert [message["content"] for message in sent(upstream)] == ["0.", "1.", "Well?"]


async def test_a_plain_answer_that_fails_adds_nothing(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply.error(400, {"error": {"message": "No.", "code": "bad"}}))
    assert (await respond(http, conversation)).status_code == 400
    assert await texts(http, conversation) == []
    assert (await respond(http, conversation)).status_code == 200
