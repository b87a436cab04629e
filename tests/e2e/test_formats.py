"""`text.format`: enforced by the upstream where it can, held by the gateway where it cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.e2e_dialects import (
    DIALECTS,
    ask,
    calls_of,
    function,
    refused,
    sent,
    streamed,
    text_of,
    thought_of,
    vendor_says,
)
from tests.support.gateway import Gateway
from tests.support.script import Call, Raw, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
SCHEMA: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
AS_SCHEMA: Json = {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}
AS_OBJECT: Json = {"format": {"type": "json_object"}}
GOOD = '{"city":"Rome"}'
WRONG = '{"town":"Rome"}'
VENDOR = "dashscope-responses"


def says(model: str, *texts: str) -> Reply:
    return vendor_says(*texts) if model.startswith(VENDOR) else Reply.say(*texts)


def instructions(upstream: ScriptedUpstream) -> str:
    """What the newest request tells the model."""
    body = sent(upstream)
    first = body.get("messages", [{}])[0]
    return body.get("instructions") or (first["content"] if first.get("role") == "system" else "")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["dashscope", "vllm", "sglang", "ollama", "llamacpp", "openai"])
async def test_a_schema_goes_to_servers_that_enforce_it(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, *, stream: bool
) -> None:
    upstream.script(Reply.say('{"city":', '"Rome"}'))

    response = await ask(dialects, model=f"{dialect}/qwen3.7-plus", stream=stream, text=AS_SCHEMA)

    assert text_of(response) == GOOD
    expected = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    assert sent(upstream)["response_format"] == expected
    assert response["text"] == {"format": {**AS_SCHEMA["format"], "description": None}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["dashscope/qwen3.6-plus", "dashscope/qwen-plus"])
async def test_dashscope_gets_json_mode_for_models_without_schemas(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, *, stream: bool
) -> None:
    upstream.script(Reply.say(GOOD))

    response = await ask(dialects, model=model, stream=stream, text=AS_SCHEMA)

    assert text_of(response) == GOOD
    assert sent(upstream)["response_format"] == {"type": "json_object"}
    assert '"city"' in instructions(upstream)
    assert "json" in instructions(upstream).lower()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_vendors_responses_face_is_told_in_words(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(vendor_says(GOOD))

    response = await ask(dialects, model=f"{VENDOR}/qwen3.7-plus", stream=stream, text=AS_SCHEMA)

    assert text_of(response) == GOOD
    assert not sent(upstream).keys() & {"text", "response_format"}
    assert '"city"' in instructions(upstream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_json_mode(dialects: Gateway, upstream: ScriptedUpstream, dialect: str, *, stream: bool) -> None:
    model = f"{dialect}/qwen-plus"
    upstream.script(says(model, '{"a":1}'))

    response = await ask(dialects, model=model, stream=stream, text=AS_OBJECT)

    assert text_of(response) == '{"a":1}'
    assert response["text"] == AS_OBJECT
    assert "json" in instructions(upstream).lower()
    assert sent(upstream).get("response_format") == (None if dialect == VENDOR else {"type": "json_object"})


EMULATED = ["dashscope/qwen3.6-plus", f"{VENDOR}/qwen3.7-plus"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", EMULATED)
@pytest.mark.parametrize(
    "written", [f"```json\n{GOOD}\n```", f"Here you are:\n{GOOD}\nAnything else?", f"\n\n{GOOD}\n"]
)
async def test_wrapped_json_is_unwrapped(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, written: str, *, stream: bool
) -> None:
    upstream.script(says(model, *(written[at : at + 7] for at in range(0, len(written), 7))))

    response = await ask(dialects, model=model, stream=stream, text=AS_SCHEMA)

    assert json.loads(text_of(response)) == {"city": "Rome"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", EMULATED)
@pytest.mark.parametrize("wrong", [WRONG, "I do not know.", '{"city":', ""])
async def test_a_wrong_answer_is_asked_for_again(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, wrong: str, *, stream: bool
) -> None:
    upstream.script(
        says(model, wrong) if wrong or model.startswith(VENDOR) else Reply(pieces=[Text("")]), says(model, GOOD)
    )

    response = await ask(dialects, model=model, stream=stream, text=AS_SCHEMA)

    assert text_of(response) == GOOD
    assert "Your last answer was refused" in instructions(upstream)
    assert response["usage"]["total_tokens"] == 26


@pytest.mark.parametrize("model", EMULATED)
@pytest.mark.parametrize("wanted", [AS_SCHEMA, AS_OBJECT])
async def test_wrong_twice_fails_the_plain_answer(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, wanted: Json
) -> None:
    upstream.script(says(model, "No."), says(model, "[]"))

    error = await refused(dialects, 502, model=model, text=wanted)

    assert error["type"] == "server_error"
    assert "text.format" in error["message"]


@pytest.mark.parametrize("model", EMULATED)
async def test_wrong_twice_fails_the_stream(dialects: Gateway, upstream: ScriptedUpstream, model: str) -> None:
    upstream.script(says(model, WRONG), says(model, WRONG))

    judged = await streamed(dialects, model=model, text=AS_SCHEMA)

    assert judged.types[-2:] == ["error", "response.failed"]
    assert judged.text == ""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["ollama", "llamacpp"])
@pytest.mark.parametrize(
    "written",
    [f"```json\n{GOOD}\n```", f"Sure:\n{GOOD}", f"The {{city}}?\n</think>\n\n{GOOD}", f"{GOOD}}}", f"{GOOD}\n{GOOD}"],
)
async def test_a_server_that_ignores_the_format_is_not_believed(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, written: str, *, stream: bool
) -> None:
    """Ollama's cloud and MLX models take the schema and write what they like."""
    upstream.script(Reply.say(*(written[at : at + 5] for at in range(0, len(written), 5))))

    response = await ask(dialects, model=f"{dialect}/other", stream=stream, text=AS_SCHEMA)

    assert sent(upstream)["response_format"]["type"] == "json_schema"
    assert text_of(response) == GOOD


@pytest.mark.parametrize("wanted", [AS_SCHEMA, AS_OBJECT])
async def test_a_promise_is_believed_once_it_was_kept_and_until_it_is_broken(
    dialects: Gateway, upstream: ScriptedUpstream, wanted: Json
) -> None:
    model, bad = "sglang/other", '{"city":'
    upstream.script(Reply.say(GOOD), Reply.say('{"city":', '"Rome"}'), Reply.say(bad), Reply.say(bad), Reply.say(GOOD))

    first = await streamed(dialects, model=model, text=wanted)
    assert first.types.count("response.output_text.delta") == 1
    believed = await streamed(dialects, model=model, text=wanted)
    assert believed.types.count("response.output_text.delta") == 2
    broken = await streamed(dialects, model=model, text=wanted)
    again = await streamed(dialects, model=model, text=wanted)

    assert (broken.text, broken.types[-2:]) == (bad, ["error", "response.failed"])
    assert "text.format" in broken.events[-1]["response"]["error"]["message"]
    assert (again.text, again.types[-1]) == (GOOD, "response.completed")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wanted", [AS_SCHEMA, AS_OBJECT])
@pytest.mark.parametrize("model", ["vllm/other", "dashscope/qwen3.6-plus"])
async def test_a_refusal_needs_no_format(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, wanted: Json, *, stream: bool
) -> None:
    refusing: Json = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    ending: Json = {"index": 0, "finish_reason": "stop"}
    chunk = json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [{**ending, "delta": refusing}]})
    whole: Json = {"id": "c", "object": "chat.completion", "choices": [{**ending, "message": refusing}]}
    upstream.script(Reply(pieces=[Raw(f"data: {chunk}\n\ndata: [DONE]\n\n".encode())]) if stream else Reply.json(whole))

    response = await ask(dialects, model=model, stream=stream, text=wanted)

    assert response["status"] == "completed"
    assert response["output"][-1]["content"] == [{"type": "refusal", "refusal": "I cannot help with that."}]


async def test_a_plain_answer_that_is_wrong_is_asked_for_again_where_it_was_enforced(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply.say(WRONG), Reply.say(GOOD))

    assert text_of(await ask(dialects, model="vllm/other", text=AS_SCHEMA)) == GOOD


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["vllm/other", "dashscope/qwen3.6-plus"])
async def test_json_in_the_thinking_is_the_answer(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Thought(GOOD)]))

    response = await ask(dialects, model=model, stream=stream, text=AS_SCHEMA)

    assert text_of(response) == GOOD


@pytest.mark.parametrize(
    "model", ["vllm/qwen3-8b", "dashscope/qwen3.6-plus", "sglang/qwen3-8b", "llamacpp/qwen3-8b", "ollama/qwen3-8b"]
)
async def test_thinking_is_off_by_default(dialects: Gateway, upstream: ScriptedUpstream, model: str) -> None:
    upstream.script(Reply.say(GOOD))

    response = await ask(dialects, model=model, text=AS_SCHEMA)

    assert (response["enable_thinking"], response["reasoning"]["effort"]) == (False, "none")
    body = sent(upstream)
    switch = body.get("chat_template_kwargs", body)
    assert switch.get("enable_thinking") is False or body.get("reasoning_effort") == "none"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["vllm/qwen3-8b", "dashscope/qwen3.7-plus"])
async def test_thinking_is_kept_when_it_was_asked_for(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text(f"So: {GOOD}")]))

    response = await ask(dialects, model=model, stream=stream, text=AS_SCHEMA, reasoning={"effort": "high"})

    assert (text_of(response), thought_of(response)) == (GOOD, "Hm.")
    assert response["enable_thinking"] is True
    assert "response_format" not in sent(upstream)
    assert '"city"' in instructions(upstream)


async def test_a_call_needs_no_format(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("I look."), Call("weather")]))

    response = await ask(
        dialects, stream=True, model="dashscope/qwen3.6-plus", text=AS_SCHEMA, tools=[function("weather")]
    )

    assert calls_of(response) == [("weather", {})]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["vllm/other", "dashscope/qwen3.6-plus"])
async def test_an_answer_cut_by_its_length_is_incomplete_not_wrong(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Text('{"city":')], finish_reason="length"))

    response = await ask(dialects, stream=stream, model=model, text=AS_SCHEMA, max_output_tokens=16)

    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert text_of(response) == '{"city":'


@pytest.mark.parametrize("wanted", [None, {}, {"format": None}, {"format": {"type": "text"}}, {"verbosity": "low"}])
async def test_plain_text_needs_no_format(dialects: Gateway, upstream: ScriptedUpstream, wanted: Json | None) -> None:
    response = await ask(dialects, text=wanted)

    assert response["text"]["format"] == {"type": "text"}
    assert "response_format" not in sent(upstream)


def schema(value: Any, **fields: Any) -> Json:
    return {"format": {"type": "json_schema", "name": "place", "schema": value, **fields}}


@pytest.mark.parametrize(
    ("wanted", "code", "param"),
    [
        ({"format": {"type": "json_schema", "schema": SCHEMA}}, "missing_required_parameter", "text.format.name"),
        ({"format": {"type": "json_schema", "name": "a"}}, "missing_required_parameter", "text.format.schema"),
        (
            {"format": {"type": "json_schema", "name": "a", "schema": None}},
            "missing_required_parameter",
            "text.format.schema",
        ),
        ({"format": {"type": "xml"}}, "invalid_value", "text.format.type"),
        ({"format": "json"}, "invalid_type", "text.format"),
        ({"verbosity": "loud"}, "invalid_value", "text.verbosity"),
        ("json", "invalid_type", "text"),
        (schema([]), "invalid_json_schema", "text.format.schema"),
        (schema("x"), "invalid_json_schema", "text.format.schema"),
        (schema({"type": "town"}), "invalid_json_schema", "text.format.schema"),
        (schema({"$ref": "http://127.0.0.1:1/schema"}), "invalid_json_schema", "text.format.schema"),
        (schema({"$ref": "#/$defs/none"}), "invalid_json_schema", "text.format.schema"),
        (schema({"type": "string", "pattern": "("}), "invalid_json_schema", "text.format.schema"),
        (schema(SCHEMA, strict="yes"), "invalid_type", "text.format.strict"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_format_that_is_none_is_refused(
    dialects: Gateway, upstream: ScriptedUpstream, wanted: Any, code: str, param: str, *, stream: bool
) -> None:
    error = await refused(dialects, 400, stream=stream, text=wanted)

    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert not upstream.requests
