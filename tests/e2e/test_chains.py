"""`previous_response_id`: what came before is there, all of it, from the instant it may be used."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall

from tests.e2e.streams import MODEL, Frames, Json, final, id_in, sent
from tests.support.gateway import Gateway
from tests.support.script import Call, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

UNKNOWN = "0190b7c2-3f4e-7abc-8def-0123456789ab"
ADD: FunctionToolParam = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}


async def test_a_turn_continues_the_conversation(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Thought("A greeting."), Text("Hello.")]), Reply.say("Ada."))
    first = await client.responses.create(model=MODEL, input="My name is Ada.")
    second = await client.responses.create(model=MODEL, input="Who am I?", previous_response_id=first.id)

    assert second.previous_response_id == first.id
    assert second.output_text == "Ada."
    assert [(message["role"], message["content"]) for message in sent(upstream)] == [
        ("user", "My name is Ada."),
        ("assistant", "Hello."),
        ("user", "Who am I?"),
    ]


async def test_two_children_of_one_parent_fork(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("1"), Reply.say("left answer"), Reply.say("right answer"), Reply.say("2"))
    root = await client.responses.create(model=MODEL, input="root")
    left = await client.responses.create(model=MODEL, input="left", previous_response_id=root.id)
    right = await client.responses.create(model=MODEL, input="right", previous_response_id=root.id)
    await client.responses.create(model=MODEL, input="more", previous_response_id=left.id)

    assert [message["content"] for message in upstream.requests[2].body["messages"]] == ["root", "1", "right"]
    assert [message["content"] for message in sent(upstream)] == ["root", "1", "left", "left answer", "more"]
    assert right.output_text == "right answer"


async def test_fifty_turns(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.respond = lambda body: Reply.say(f"answer to {body['messages'][-1]['content']}")
    previous = None
    for turn in range(50):
        response = await client.responses.create(model=MODEL, input=f"turn {turn}", previous_response_id=previous)
        previous = response.id

    assert previous is not None
    assert [message["content"] for message in sent(upstream)] == [
        text for turn in range(50) for text in (f"turn {turn}", f"answer to turn {turn}")
    ][:-1]
    items = [item async for item in client.responses.input_items.list(previous, limit=100, order="asc")]
    assert len(items) == 99
    assert len({item.id for item in items}) == 99


async def test_functions_over_three_turns(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(
        Reply(pieces=[Call("add", ['{"a":1}'], id="call_a"), Call("add", ['{"a":2}'], id="call_b", index=1)]),
        Reply.say("3"),
        Reply.say("Yes."),
    )
    first = await client.responses.create(model=MODEL, input="1+2?", tools=[ADD])
    calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    second = await client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[
            {"type": "function_call_output", "call_id": call.call_id, "output": call.arguments}
            for call in reversed(calls)
        ],
        tools=[ADD],
    )
    await client.responses.create(model=MODEL, input="Sure?", previous_response_id=second.id)

    user, assistant, *results, answer, question = sent(upstream)
    assert [call["function"]["arguments"] for call in assistant["tool_calls"]] == ['{"a":1}', '{"a":2}']
    assert [(message["role"], message["content"]) for message in results] == [("tool", '{"a":1}'), ("tool", '{"a":2}')]
    assert (user["content"], answer["content"], question["content"]) == ("1+2?", "3", "Sure?")


async def test_calls_and_results_have_to_match(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("add", id="call_a")]))
    first = await client.responses.create(model=MODEL, input="1+2?", tools=[ADD])

    with pytest.raises(openai.BadRequestError) as unanswered:
        await client.responses.create(model=MODEL, input="Well?", previous_response_id=first.id)
    with pytest.raises(openai.BadRequestError) as orphaned:
        await client.responses.create(
            model=MODEL,
            input=[{"type": "function_call_output", "call_id": "call_x", "output": "3"}],
            previous_response_id=first.id,
        )

    assert _error(unanswered.value) == {
        "message": "No tool output found for function call call_a.",
        "type": "invalid_request_error",
        "param": "input",
        "code": None,
    }
    assert _error(orphaned.value) == {
        "message": (
            "No tool call found for function call output with call_id call_x. No call before 'input[0]' waits for it."
        ),
        "type": "invalid_request_error",
        "param": "input[0].call_id",
        "code": None,
    }


CALL_OF_EACH_TURN = "call_0"
"""llama.cpp and others count anew in each answer."""


async def test_results_of_calls_with_one_id_all_reach_the_model(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    items: list[Any] = [{"role": "user", "content": "Add."}]
    for number in range(2):
        for kind, value in (
            ("function_call", {"name": "add", "arguments": f'{{"a":{number}}}'}),
            ("function_call_output", {"output": str(number)}),
        ):
            items.append({"type": kind, "call_id": CALL_OF_EACH_TURN, **value})
    items += [{**item, "call_id": "call_p"} for item in (items[1], items[3], items[2], items[4])]

    await client.responses.create(model=MODEL, input=items, tools=[ADD])

    calls = [
        [(one["id"], one["function"]["arguments"]) for one in message.get("tool_calls", ())]
        for message in sent(upstream)
    ]
    assert [one for one in calls if one] == [
        *([("call_0", '{"a":0}')], [("call_0", '{"a":1}')], [("call_p", '{"a":0}'), ("call_p_2", '{"a":1}')]),
    ]
    results = [(message["tool_call_id"], message["content"]) for message in sent(upstream) if message["role"] == "tool"]
    assert results == [("call_0", "0"), ("call_0", "1"), ("call_p", "0"), ("call_p_2", "1")]


@pytest.mark.parametrize("repeats", ["with ids", "without ids"])
async def test_a_whole_history_sent_along_is_read_once(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream, repeats: str
) -> None:
    upstream.script(Reply(pieces=[Call("add", ['{"a":1}'], id="call_a")]), Reply.say("1"), Reply.say("Yes."))
    first = await client.responses.create(model=MODEL, input="1?", tools=[ADD])
    (called,) = [item.to_dict() for item in first.output]
    if repeats == "without ids":
        del called["id"]
    result = {"type": "function_call_output", "call_id": "call_a", "output": "1"}
    history: Any = [called, result]
    second = await client.responses.create(model=MODEL, previous_response_id=first.id, input=history, tools=[ADD])
    question: Any = {"role": "user", "content": "Sure?"}
    await client.responses.create(model=MODEL, previous_response_id=second.id, input=[*history, question], tools=[ADD])

    assert [message["role"] for message in sent(upstream)] == ["user", "assistant", "tool", "assistant", "user"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_response_that_was_cut_in_a_call_can_be_continued(
    gateway: Gateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    cut = Reply(pieces=[Text("Let me see."), Call("add", ['{"a": 1'], id="call_cut")], finish_reason="length")
    upstream.script(cut, Reply.say("Fine."), Reply.say("Used."))
    async with gateway.http() as http:

        async def ask(**fields: Any) -> Json:
            answer = await http.post("/v1/responses", json={"model": MODEL, "tools": [ADD], **fields})
            assert answer.status_code == 200, answer.text
            body: Json = final(answer.content) if fields.get("stream") else answer.json()
            return body

        made = await ask(input="1+2?", stream=stream)
        await ask(input="Go on.", previous_response_id=made["id"])
        assert [(one["role"], one["content"]) for one in sent(upstream)[1:]] == [
            ("assistant", "Let me see."),
            ("user", "Go on."),
        ]
        result = {"type": "function_call_output", "call_id": made["output"][-1]["call_id"], "output": "cut"}
        await ask(input=[result], previous_response_id=made["id"])

    assert made["status"] == "incomplete"
    _, assistant, answered = sent(upstream)
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"malformed_arguments": '{"a": 1'}
    assert answered["content"].endswith("\ncut")
    assert "not a JSON object" in answered["content"]


@pytest.mark.parametrize("given", [UNKNOWN, f"resp_{UNKNOWN}", "resp_68a1", "no id at all", ""])
async def test_an_unknown_parent(client: openai.AsyncOpenAI, upstream: ScriptedUpstream, given: str) -> None:
    assert await _refusal(client, given) == _not_found(given)
    assert not upstream.requests


async def test_a_parent_that_was_not_stored(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    unstored = await client.responses.create(model=MODEL, input="Hi", store=False)

    assert unstored.to_dict()["store"] is False
    assert await _refusal(client, unstored.id) == _not_found(unstored.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(unstored.id)
    assert len(upstream.requests) == 1


async def test_a_deleted_parent(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    deleted = await client.responses.create(model=MODEL, input="Hi")
    await client.responses.delete(deleted.id)

    assert await _refusal(client, deleted.id) == _not_found(deleted.id)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("used_before", [True, False])
async def test_a_deleted_ancestor_is_named(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream, used_before: bool
) -> None:
    root = await client.responses.create(model=MODEL, input="root")
    child = await client.responses.create(model=MODEL, input="child", previous_response_id=root.id)
    if used_before:
        await client.responses.create(model=MODEL, input="grandchild", previous_response_id=child.id)
    await client.responses.delete(root.id)

    error = await _refusal(client, child.id)

    assert (error["code"], error["param"], error["type"]) == (
        "previous_response_not_found",
        "previous_response_id",
        "invalid_request_error",
    )
    assert f"'{root.id}'" in str(error["message"])
    assert "was deleted" in str(error["message"])
    assert (await client.responses.retrieve(child.id)).output_text == "Hello there."
    assert len(upstream.requests) == 2 + used_before


@pytest.mark.parametrize("stream", [True, False])
async def test_the_id_works_the_instant_it_is_seen(gateway: Gateway, upstream: ScriptedUpstream, stream: bool) -> None:
    async with gateway.http() as http:
        for turn in range(10):
            made = await _id_at_the_end(http, f"turn {turn}", stream=stream)
            read = await http.get(f"/v1/responses/{made}")
            child = await http.post(
                "/v1/responses", json={"model": MODEL, "input": "and?", "previous_response_id": made}
            )

            assert (read.status_code, read.json()["status"]) == (200, "completed")
            assert child.status_code == 200
            assert [message["content"] for message in sent(upstream)] == [f"turn {turn}", "Hello there.", "and?"]


async def _id_at_the_end(http: httpx.AsyncClient, text: str, *, stream: bool) -> str:
    """A new response's id, as soon as its terminal event has arrived: the stream is not read to its end."""
    request = {"model": MODEL, "input": text, "stream": stream}
    if not stream:
        return str((await http.post("/v1/responses", json=request)).json()["id"])
    async with http.stream("POST", "/v1/responses", json=request) as answer:
        return id_in(await Frames(answer).until("response.completed"))


async def _refusal(client: openai.AsyncOpenAI, previous: str) -> dict[str, object]:
    """How a continuation is refused; the same whether it would be streamed or not."""
    with pytest.raises(openai.BadRequestError) as plain:
        await client.responses.create(model=MODEL, input="?", previous_response_id=previous)
    with pytest.raises(openai.BadRequestError) as streamed:
        await client.responses.create(model=MODEL, input="?", previous_response_id=previous, stream=True)
    assert _error(plain.value) == _error(streamed.value)
    return _error(plain.value)


def _error(refused: openai.APIStatusError) -> dict[str, object]:
    error: dict[str, object] = refused.response.json()["error"]
    return error


def _not_found(given: str) -> dict[str, object]:
    return {
        "message": f"Previous response with id '{given}' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
