"""Function calls as they come from upstreams, and the items and events they become."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.e2e_dialects import (
    ask,
    calls_of,
    function,
    refused,
    sent,
    streamed,
    text_of,
    thought_of,
    vendor_calls,
)
from tests.support.gateway import Gateway
from tests.support.script import Call, Piece, Raw, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
TOOLS = [function("weather"), function("clock")]
ROME: Json = {"city": "Rome"}


def chunk(*calls: Json) -> Raw:
    """A chunk with pieces of calls, as some server writes it."""
    return Raw(f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'tool_calls': list(calls)}}]})}\n\n".encode())


def fragment(text: str, index: int | None = 0, **fields: Any) -> Json:
    where: Json = {} if index is None else {"index": index}
    return {**where, "function": {"arguments": text}, **fields}


def opening(name: str, index: int | None = 0, *, arguments: str = "", **fields: Any) -> Json:
    where: Json = {} if index is None else {"index": index}
    return {**where, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


ROME_CALL = '{"city":"Rome"}'
ONE: list[tuple[str, Json]] = [("weather", ROME)]
TWO: list[tuple[str, Json]] = [("weather", ROME), ("clock", {})]
SHAPES: dict[str, tuple[Sequence[Piece], Sequence[tuple[str, Any]]]] = {
    "fragments": ([Call("weather", ['{"ci', 'ty":"Ro', 'me"}'])], ONE),
    "whole in one chunk": ([chunk(opening("weather", arguments=ROME_CALL, id="call_1"))], ONE),
    "parallel": ([Call("weather", [ROME_CALL]), Call("clock", ["{}"], id="call_2", index=1)], TWO),
    "parallel in one chunk": (
        [chunk(opening("weather", arguments=ROME_CALL, id="a"), opening("clock", 1, arguments="{}", id="b"))],
        TWO,
    ),
    "interleaved": (
        [
            chunk(opening("weather", id="a"), opening("clock", 1, id="b")),
            chunk(fragment('{"city"')),
            chunk(fragment("{", 1)),
            chunk(fragment(':"Rome"}'), fragment("}", 1)),
        ],
        TWO,
    ),
    "without ids": ([chunk(opening("weather", arguments=ROME_CALL)), chunk(opening("clock", 1, arguments="{}"))], TWO),
    "without indexes": (
        [chunk(opening("weather", None, arguments=ROME_CALL, id="a")), chunk(opening("clock", None, id="b"))],
        TWO,
    ),
    "all numbered 0": (
        [chunk(opening("weather", arguments=ROME_CALL, id="a")), chunk(opening("clock", arguments="{}", id="b"))],
        TWO,
    ),
    "empty id and name later": (
        [
            chunk(opening("weather", id="a")),
            chunk({"index": 0, "id": "", "function": {"name": "", "arguments": '{"city":'}}),
            chunk({"index": 0, "id": None, "function": {"name": None, "arguments": '"Rome"}'}}),
        ],
        ONE,
    ),
    "no arguments": ([chunk(opening("clock", id="a"))], [("clock", {})]),
    "text between its pieces": (
        [chunk(opening("weather", id="a")), chunk(fragment('{"city":')), Text("Wait."), chunk(fragment('"Rome"}'))],
        ONE,
    ),
    "thinking between its pieces": (
        [chunk(opening("weather", id="a")), chunk(fragment('{"ci')), Thought("Hm."), chunk(fragment('ty":"Rome"}'))],
        ONE,
    ),
    "arguments told again whole": (
        [chunk(opening("weather", id="a")), chunk(fragment('{"city":"Ro')), chunk(fragment(ROME_CALL))],
        ONE,
    ),
    "encoded twice": ([Call("weather", ['"{\\"city\\":', ' \\"Rome\\"}"'])], ONE),
    "null": ([Call("clock", ["null"])], [("clock", {})]),
    "raw line breaks": ([Call("weather", ['{"city": "Ro\n', 'me"}'])], [("weather", {"city": "Ro\nme"})]),
    "a brace too many": ([Call("weather", [ROME_CALL, "}"])], ONE),
    "after text and thinking": ([Thought("Hm."), Text("I look."), Call("weather", [ROME_CALL])], ONE),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_streams_every_shape(dialects: Gateway, upstream: ScriptedUpstream, shape: str) -> None:
    pieces, expected = SHAPES[shape]
    # A piece of the usual kind, so that the reply has its usual end.
    upstream.script(Reply(pieces=[Text(""), *pieces], finish_reason="tool_calls"))

    judged = await streamed(dialects, tools=TOOLS)

    response = judged.events[-1]["response"]
    assert response["status"] == "completed"
    assert calls_of(response) == expected
    call_ids = [item["call_id"] for item in response["output"] if item["type"] == "function_call"]
    assert all(call_ids)
    assert len(set(call_ids)) == len(call_ids)


async def test_fragments_are_passed_on_as_they_come(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("weather", ['{"ci', 'ty":"Ro', 'me"}'], id="call_of_the_server")]))

    judged = await streamed(dialects, tools=TOOLS)

    deltas = [event["delta"] for event in judged.events if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(deltas) == ROME_CALL
    # a function call, as the next line says
    assert judged.response.output[0].call_id == "call_of_the_server"  # type: ignore[union-attr]
    assert "response.output_text.delta" not in judged.types


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_plain_and_streamed(dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool) -> None:
    upstream.script(
        Reply(
            pieces=[
                Thought("Hm."),
                Text("I look."),
                Call("weather", [ROME_CALL]),
                Call("clock", ["{}"], id="c2", index=1),
            ]
        )
    )

    response = await ask(dialects, stream=stream, tools=TOOLS)

    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert (calls_of(response), text_of(response), thought_of(response)) == (TWO, "I look.", "Hm.")
    assert response["usage"]["total_tokens"] == 13
    assert [tool["function"]["name"] for tool in sent(upstream)["tools"]] == ["weather", "clock"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_the_vendors_responses_face(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(vendor_calls("weather", ROME_CALL))

    response = await ask(dialects, stream=stream, model="dashscope-responses/qwen3.7-plus", tools=TOOLS)

    assert calls_of(response) == ONE


@pytest.mark.parametrize("stream", [False, True])
async def test_only_one_call_where_calls_are_not_parallel(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Call("weather", [ROME_CALL]), Call("clock", ["{}"], id="call_2", index=1)]))

    response = await ask(dialects, stream=stream, tools=TOOLS, parallel_tool_calls=False)

    assert calls_of(response) == ONE
    assert response["parallel_tool_calls"] is False
    assert sent(upstream)["parallel_tool_calls"] is False


WRITTEN = {
    "json block": '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    "xml block": "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>",
    "bare json": '{"name": "weather", "arguments": {"city": "Rome"}}',
    "without opening tag": "<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>",
    "unclosed": "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</function>\n</tool_call>",
    "list": '<tools>[{"type": "function", "function": {"name": "weather", "parameters": {"city": "Rome"}}}]</tools>',
    "python": "<tool_call>weather(city='Rome')</tool_call>",
    "bare list": '[{"name": "weather", "arguments": {"city": "Rome"}}]',
    "fenced json": '```json\n{"name": "weather", "arguments": {"city": "Rome"}}\n```',
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", WRITTEN)
async def test_a_call_written_as_text_is_a_call(
    dialects: Gateway, upstream: ScriptedUpstream, form: str, *, stream: bool
) -> None:
    written = WRITTEN[form]
    upstream.script(Reply.say(*(written[at : at + 5] for at in range(0, len(written), 5))))

    response = await ask(dialects, stream=stream, tools=TOOLS)

    assert calls_of(response) == ONE
    assert text_of(response) == ""


async def test_text_before_a_written_call_stays(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("I look. <tool", '_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'))

    judged = await streamed(dialects, tools=TOOLS)

    response = judged.events[-1]["response"]
    assert calls_of(response) == ONE
    assert judged.text.strip() == "I look."
    assert "tool_call>" not in judged.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_written_into_the_thinking_is_a_call(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Thought("I need it. "), Thought(WRITTEN["json block"])]))

    response = await ask(dialects, stream=stream, tools=TOOLS)

    assert calls_of(response) == ONE
    assert text_of(response) == ""


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_drafted_in_the_thinking_is_none_beside_an_answer(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Thought(f"I could write {WRITTEN['json block']} but I know it."), Text("Sunny.")]))

    response = await ask(dialects, stream=stream, tools=TOOLS)

    assert (calls_of(response), text_of(response)) == ([], "Sunny.")


@pytest.mark.parametrize("stream", [False, True])
async def test_values_in_tags_have_the_types_of_the_schema(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    properties: Json = {
        "zip": {"type": "string"},
        "ok": {"type": "boolean"},
        "tags": {"type": "array"},
        "n": {"type": ["integer", "null"]},
    }
    tool: Json = {"type": "function", "name": "save", "parameters": {"type": "object", "properties": properties}}
    given = {"zip": "94103", "ok": "True", "tags": "['a']", "n": "None"}
    tags = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in given.items())
    upstream.script(Reply.say(f"<tool_call>\n<function=save>\n{tags}</function>\n</tool_call>"))

    response = await ask(dialects, stream=stream, tools=[tool])

    assert calls_of(response) == [("save", {"zip": "94103", "ok": True, "tags": ["a"], "n": None})]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_in_a_format_is_no_call_though_it_looks_like_one(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    said = WRITTEN["bare json"]
    upstream.script(Reply.say(said[:9], said[9:]))

    response = await ask(dialects, stream=stream, tools=TOOLS, text={"format": {"type": "json_object"}})

    assert (calls_of(response), text_of(response)) == ([], said)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_in_a_code_fence_is_shown_as_it_is(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    said = f"Write:\n```xml\n{WRITTEN['json block']}\n```\nThat calls it."
    upstream.script(Reply.say(*(said[at : at + 5] for at in range(0, len(said), 5))))

    response = await ask(dialects, stream=stream, tools=TOOLS)

    assert (calls_of(response), text_of(response)) == ([], said)


async def test_words_about_calls_are_words(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    said = 'Write <tool_call>{"name": "unknown", "arguments": {}}</tool_call> to call.'
    upstream.script(Reply.say(said))

    judged = await streamed(dialects, tools=TOOLS)

    assert judged.text == said


async def test_a_written_call_is_text_where_no_function_is_on_offer(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply.say(WRITTEN["json block"]))

    response = await ask(dialects)

    assert text_of(response) == WRITTEN["json block"]


async def test_logprobs_do_not_hide_a_written_call(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    pieces = ["<tool_call>", '{"name": "weather", "arguments": {"city": "Rome"}}', "</tool_call>"]
    upstream.script(
        Reply(
            pieces=[
                Text(piece, [{"token": piece, "logprob": -0.1, "bytes": None, "top_logprobs": []}]) for piece in pieces
            ]
        )
    )

    response = await ask(dialects, stream=True, tools=TOOLS, include=["message.output_text.logprobs"])

    assert calls_of(response) == ONE
    assert text_of(response) == ""


@pytest.mark.parametrize("arguments", ['{"city":', "Rome", '{"city": "Rome"} trailing'])
async def test_arguments_that_are_no_json_fail_the_stream(
    dialects: Gateway, upstream: ScriptedUpstream, arguments: str
) -> None:
    upstream.script(Reply(pieces=[Text("I look."), Call("weather", [arguments])]))

    judged = await streamed(dialects, tools=TOOLS)

    response = judged.events[-1]["response"]
    assert judged.types[-2:] == ["error", "response.failed"]
    assert response["error"]["code"] == "server_error"
    assert "weather" in response["error"]["message"]
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


async def test_arguments_that_stay_no_json_fail_the_plain_answer(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    broken = Reply(pieces=[Call("weather", ['{"city":'])])
    upstream.script(broken, broken)

    error = await refused(dialects, 502, tools=TOOLS)

    assert error["type"] == "server_error"
    assert "weather" in error["message"]


async def test_an_answer_cut_by_its_length_keeps_the_call_as_incomplete(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply(pieces=[Call("weather", ['{"city":'])], finish_reason="length"))

    judged = await streamed(dialects, tools=TOOLS, max_output_tokens=16)

    response = judged.events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"


async def test_calls_meet_their_results_in_a_full_replay(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(
        Reply(
            pieces=[Thought("I need both."), Call("weather", [ROME_CALL]), Call("clock", ["{}"], id="call_2", index=1)]
        )
    )
    upstream.script(Reply.say("Sunny at noon."))
    question = {"role": "user", "content": "How is Rome?"}
    first = await ask(dialects, store=False, input=[question], tools=TOOLS)
    results = [
        {"type": "function_call_output", "call_id": call, "output": say}
        for call, say in (("call_2", "noon"), ("call_1", "sun"))
    ]

    second = await ask(dialects, store=False, input=[question, *first["output"], *results], tools=TOOLS)

    assert text_of(second) == "Sunny at noon."
    user, assistant, *outputs = sent(upstream)["messages"]
    assert user == question
    assert assistant["reasoning"] == "I need both."
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_1", "call_2"]
    assert [(message["role"], message["tool_call_id"], message["content"]) for message in outputs] == [
        ("tool", "call_1", "sun"),
        ("tool", "call_2", "noon"),
    ]


async def test_a_chain_of_tool_turns(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    previous: Json = {}
    for number in range(3):
        upstream.script(Reply(pieces=[Call("weather", [ROME_CALL], id=f"call_{number}")]))
        output = {"type": "function_call_output", "call_id": f"call_{number - 1}", "output": f"sun {number}"}
        previous = await ask(
            dialects, stream=True, tools=TOOLS, input=[output] if number else "How is Rome?", **previous
        )
        previous = {"previous_response_id": previous["id"]}
    upstream.script(Reply.say("Sunny."))
    output = {"type": "function_call_output", "call_id": "call_2", "output": "sun 3"}

    last = await ask(dialects, input=[output], **previous)

    assert text_of(last) == "Sunny."
    assert [message["role"] for message in sent(upstream)["messages"]] == ["user", *["assistant", "tool"] * 3]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_repeats_its_ids_loses_no_call_and_no_result(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    said = [Call("weather", [ROME_CALL], id="same"), Call("clock", ["{}"], id="same", index=1)]
    chain: Json = {"input": "How is Rome?"}
    seen: list[str] = []
    for turn in range(2):
        upstream.script(Reply(pieces=said))
        response = await ask(dialects, stream=stream, tools=TOOLS, **chain)
        assert calls_of(response) == TWO
        call_ids = [item["call_id"] for item in response["output"]]
        outputs = [{"type": "function_call_output", "call_id": one, "output": f"{turn} {one}"} for one in call_ids]
        chain = {"previous_response_id": response["id"], "input": outputs}
        seen += call_ids
    assert len(set(seen)) == 4

    await ask(dialects, tools=TOOLS, **chain)

    results = [message["content"] for message in sent(upstream)["messages"] if message["role"] == "tool"]
    assert results == [f"{number // 2} {one}" for number, one in enumerate(seen)]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unanswered_call_is_refused_in_the_apis_words(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    call = {"type": "function_call", "call_id": "call_x", "name": "weather", "arguments": "{}"}

    error = await refused(dialects, 400, stream=stream, input=[call, {"role": "user", "content": "Well?"}])

    assert error["message"] == "No tool output found for function call call_x. Nothing answers 'input[0]'."
    assert error["param"] == "input[0].call_id"
    assert not upstream.requests


async def test_an_unanswered_call_of_the_chain_is_refused(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("weather", ["{}"], id="call_y")]))
    first = await ask(dialects, tools=TOOLS)

    error = await refused(dialects, 400, previous_response_id=first["id"], input="Well?")

    assert error["message"] == "No tool output found for function call call_y."


async def test_an_orphan_result_is_refused_in_the_apis_words(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    output = {"type": "function_call_output", "call_id": "call_z", "output": "sun"}

    error = await refused(dialects, 400, input=[{"role": "user", "content": "Hi"}, output])

    assert (
        error["message"]
        == "No tool call found for function call output with call_id call_z. No call before 'input[1]' waits for it."
    )
    assert error["param"] == "input[1].call_id"
    assert not upstream.requests
