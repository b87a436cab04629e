"""Requests as the clients of `docs/clients.md` were seen to send them, replayed word for word where the words matter.

Each client has habits of its own: missing types, explicit nulls, empty objects, references instead of history, tools
nobody asked for.
"""

from __future__ import annotations

import pytest

from tests.e2e.clients import ASKED, CALLS, LOOP, PERSON, STRICT_CITY, SUNNY, WEATHER, ask, json_schema, text_of
from tests.e2e.streams import MODEL, Json, sent
from tests.support.gateway import Gateway
from tests.support.judge import judge
from tests.support.script import Call, Reply
from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)


@pytest.mark.parametrize("stream", [True, False])
async def test_openai_agents_replays_everything(gateway: Gateway, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.script(CALLS, SUNNY)
    tools = [{**WEATHER, "parameters": {**STRICT_CITY, "title": "get_weather_args"}, "strict": True}]
    common: Json = {"include": [], "tools": tools, "instructions": "Use tools.", "stream": stream}
    question = {"content": ASKED, "role": "user"}
    first = await ask(gateway, "Agents/Python 0.24.0", {**common, "input": [question]})
    result = {"call_id": "call_1", "output": "sunny", "type": "function_call_output"}
    second = await ask(gateway, "Agents/Python 0.24.0", {**common, "input": [question, *first["output"], result]})

    assert sent(upstream) == [{"role": "system", "content": "Use tools."}, *LOOP]
    assert text_of(second) == "It is sunny."


async def test_openai_agents_sends_results_only(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(CALLS, SUNNY)
    first = await ask(
        gateway,
        "Agents/Python 0.24.0",
        {"include": [], "tools": [WEATHER], "input": [{"content": ASKED, "role": "user"}]},
    )
    result = {"call_id": "call_1", "output": "sunny", "type": "function_call_output"}
    await ask(
        gateway,
        "Agents/Python 0.24.0",
        {"include": [], "tools": [WEATHER], "previous_response_id": first["id"], "input": [result]},
    )

    assert sent(upstream) == LOOP


async def test_openai_agents_without_storing(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(CALLS, SUNNY)
    common: Json = {
        "include": ["reasoning.encrypted_content"],
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "store": False,
        "tools": [WEATHER],
    }
    question = {"content": ASKED, "role": "user"}
    first = await ask(gateway, "Agents/Python 0.24.0", {**common, "tool_choice": "required", "input": [question]})
    result = {"call_id": "call_1", "output": "sunny", "type": "function_call_output"}
    await ask(gateway, "Agents/Python 0.24.0", {**common, "input": [question, *first["output"], result]})

    assert first["output"][0]["encrypted_content"]
    assert [message for message in sent(upstream) if message["role"] != "system"] == LOOP


async def test_openai_agents_for_node(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(CALLS, SUNNY)
    tools = [
        {**WEATHER, "parameters": {"$schema": "http://json-schema.org/draft-07/schema#", **STRICT_CITY}, "strict": True}
    ]
    question = {"role": "user", "content": ASKED}
    common: Json = {"include": [], "tools": tools, "stream": False}
    first = await ask(gateway, "Agents/JavaScript 0.20.0", {**common, "input": [question]})
    result = {"type": "function_call_output", "call_id": "call_1", "output": "sunny", "status": "completed"}
    await ask(gateway, "Agents/JavaScript 0.20.0", {**common, "input": [question, *first["output"], result]})

    assert sent(upstream) == LOOP
    assert all(item["status"] == "completed" for item in first["output"])


async def test_langchain_replays_text_without_id_and_status(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    items: list[Json] = [
        {"content": "Be short", "role": "system", "type": "message"},
        {"content": "My name is Bob", "role": "user", "type": "message"},
        {
            "id": "rs_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b",
            "summary": [],
            "type": "reasoning",
            "status": "completed",
        },
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "Hi Bob", "annotations": []}],
            "role": "assistant",
        },
        {"content": "What is my name?", "role": "user", "type": "message"},
    ]
    await ask(gateway, "OpenAI/Python 3.54.0", {"input": items})

    assert [(message["role"], message["content"]) for message in sent(upstream)] == [
        ("system", "Be short"),
        ("user", "My name is Bob"),
        ("assistant", "Hi Bob"),
        ("user", "What is my name?"),
    ]


async def test_langchain_forces_a_function_for_structured_output(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(CALLS)
    choice = {"type": "function", "name": "get_weather"}
    body: Json = {
        "input": [{"content": "hello", "role": "user", "type": "message"}],
        "tools": [WEATHER],
        "tool_choice": choice,
    }
    response = await ask(gateway, "OpenAI/Python 3.54.0", {**body, "parallel_tool_calls": False})

    assert upstream.requests[-1].body["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert response["tool_choice"] == choice
    assert response["output"][-1]["arguments"] == '{"city":"Paris"}'


async def test_langchain_for_node_sends_nothing_as_null_and_empty(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(SUNNY)
    tool = {**WEATHER, "strict": None}
    body: Json = {
        "input": [{"type": "message", "role": "user", "content": ASKED}],
        "tools": [tool],
        "text": {},
        "stream": False,
    }
    response = await ask(gateway, "langchainjs-openai/1.0.0", body)

    assert response["text"] == {"format": {"type": "text"}}
    assert response["tools"] == [tool]
    assert "response_format" not in upstream.requests[-1].body


@pytest.mark.parametrize("stream", [True, False])
async def test_the_ai_sdk_refers_to_what_was_said(gateway: Gateway, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.script(CALLS, SUNNY, Reply.say("You are welcome."))
    agent = "ai/7.0.173 ai-sdk-openai/4.0.118"
    tool = {
        **WEATHER,
        "parameters": {"$schema": "http://json-schema.org/draft-07/schema#", **STRICT_CITY},
        "strict": False,
    }
    common: Json = {"tools": [tool], "tool_choice": "auto", "stream": stream}
    items: list[Json] = [{"role": "user", "content": [{"type": "input_text", "text": ASKED}]}]
    first = await ask(gateway, agent, {**common, "input": items})
    items += [
        {"type": "item_reference", "id": first["output"][0]["id"]},
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ]
    second = await ask(gateway, agent, {**common, "input": items})
    loop = sent(upstream)
    items += [{"type": "item_reference", "id": item["id"]} for item in second["output"]]
    await ask(
        gateway,
        agent,
        {**common, "input": [*items, {"role": "user", "content": [{"type": "input_text", "text": "thanks"}]}]},
    )

    assert loop == LOOP
    assert [message["content"] for message in sent(upstream)] == [ASKED, "", "sunny", "It is sunny.", "thanks"]


async def test_ai_sdk_open_responses_replays_items_with_types_everywhere(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(CALLS, SUNNY, Reply.say("You are welcome."))
    agent = "ai-sdk/open-responses/2.0.36"
    question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASKED}]}
    first = await ask(gateway, agent, {"input": [question], "tools": [WEATHER], "tool_choice": "auto"})
    thought, call = first["output"]
    replayed = [
        {"type": "reasoning", "summary": thought["summary"], "id": thought["id"]},
        {
            "type": "function_call",
            "id": call["id"],
            "call_id": call["call_id"],
            "name": call["name"],
            "arguments": call["arguments"],
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ]
    await ask(gateway, agent, {"input": [question, *replayed], "tools": [WEATHER], "tool_choice": "auto"})
    loop = sent(upstream)
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}]}
    await ask(gateway, agent, {"input": [question, *replayed, said, {**question, "content": "thanks"}]})

    assert loop == LOOP
    assert sent(upstream)[-2]["content"] == "It is sunny."


async def test_pydantic_ai_replays_thinking_as_tagged_text(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    items = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": "<think>\nLook it up.\n</think>"},
        {"name": "get_weather", "arguments": '{"city":"Paris"}', "call_id": "call_1", "type": "function_call"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ]
    await ask(
        gateway, "pydantic-ai/2.68.0", {"input": items, "tools": [{**WEATHER, "strict": True}], "tool_choice": "auto"}
    )

    assert sent(upstream) == LOOP


async def test_pydantic_ai_requires_its_result_function(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("final_result", ['{"name":"Ada","age":36}'])]))
    tool = {
        "type": "function",
        "name": "final_result",
        "parameters": PERSON,
        "description": "The final response",
        "strict": True,
    }
    body: Json = {
        "input": [{"role": "user", "content": "Who?"}],
        "tools": [tool],
        "tool_choice": "required",
        "stream": True,
    }
    response = await ask(gateway, "pydantic-ai/2.68.0", body)

    assert upstream.requests[-1].body["tool_choice"] == "required"
    assert response["output"][-1]["name"] == "final_result"


async def test_qwen_code_replays_thinking_as_a_message_of_its_own(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    parts = [
        {"type": "input_text", "text": "<system-reminder>\nToday.\n</system-reminder>\n"},
        {"type": "input_text", "text": "run it"},
    ]
    items = [
        {"type": "message", "role": "user", "content": parts},
        {"type": "message", "role": "assistant", "content": "Let me think."},
        {"type": "message", "role": "assistant", "content": "Done."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What did I say?"}]},
    ]
    body: Json = {
        "instructions": "You are Qwen Code.",
        "input": items,
        "tools": [WEATHER],
        "stream": True,
        "prompt_cache_key": "qwen-code:12ecd563-3794-44a2-aa37-2cbf38af4ea6",
        "store": False,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "max_output_tokens": 32768,
    }
    response = await ask(gateway, "QwenCode/0.24.4 (linux; x64)", body)

    said = [(message["role"], message["content"]) for message in sent(upstream)]
    assert said[2:] == [("assistant", "Let me think."), ("assistant", "Done."), ("user", "What did I say?")]
    assert response["prompt_cache_key"] == body["prompt_cache_key"]


async def test_opencode_keeps_thinking_sealed(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(CALLS, SUNNY)
    common: Json = {
        "max_output_tokens": 32000,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "ses_dfb5e0a30ffeei6clC5ctkIgio",
        "tools": [WEATHER],
        "tool_choice": "auto",
        "stream": True,
    }
    items: list[Json] = [
        {"role": "developer", "content": "You are opencode."},
        {"role": "user", "content": [{"type": "input_text", "text": ASKED}]},
    ]
    first = await ask(gateway, "opencode/1.18.33", {**common, "input": items})
    sealed = first["output"][0]["encrypted_content"]
    items += [
        {"type": "reasoning", "encrypted_content": sealed, "summary": []},
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ]
    await ask(gateway, "opencode/1.18.33", {**common, "input": items})

    assert sent(upstream) == [{"role": "system", "content": "You are opencode."}, *LOOP]


@pytest.mark.parametrize("stream", [True, False])
async def test_llm_asks_for_a_schema_that_is_not_strict(
    gateway: Gateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.script(Reply.say('{"name": "Ada",', ' "age": 36}'))
    schema = {"type": "object", "properties": PERSON["properties"], "required": ["name", "age"]}
    body: Json = {
        "stream": stream,
        "include": ["reasoning.encrypted_content"],
        "input": [{"role": "user", "content": "Ada"}],
        "reasoning": {"summary": "auto"},
        "store": False,
        "text": json_schema(schema, name="output", strict=False),
    }
    response = await ask(gateway, "OpenAI/Python 3.54.0", body)

    assert text_of(response) == '{"name": "Ada", "age": 36}'
    assert response["reasoning"]["summary"] == "auto"


async def test_llama_index_sends_null_for_what_it_does_not_mean(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    unset = ("include", "instructions", "max_output_tokens", "metadata", "previous_response_id", "user")
    body: Json = {"input": "Hi", "store": False, "stream": False, "temperature": 0.1, "tools": [], "top_p": 1.0}
    response = await ask(
        gateway,
        "OpenAI/Python 2.54.0",
        {**body, "tool_choice": "none", "truncation": "disabled", **dict.fromkeys(unset)},
    )

    assert (response["metadata"], response["instructions"], response["temperature"]) == ({}, None, 0.1)
    assert sent(upstream) == [{"role": "user", "content": "Hi"}]


async def test_null_is_absence_everywhere(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Every optional parameter of the SDK's type, and the extras of Open Responses and Qwen, as null."""
    names = [
        "access_programs",
        "background",
        "background_options",
        "client_metadata",
        "context_management",
        "conversation",
        "enable_thinking",
        "frequency_penalty",
        "image",
        "include",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "min_p",
        "moderation",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "repetition_penalty",
        "safety_identifier",
        "seed",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ]
    item = {"type": "message", "id": None, "role": "user", "content": "Hi", "status": None, "phase": None}
    bare = await ask(gateway, "OpenAI/Python 3.54.0", {"input": [{"role": "user", "content": "Hi"}]})
    nulls = await ask(gateway, "OpenAI/Python 3.54.0", {"input": [item], **dict.fromkeys(names)})

    own = {"id", "created_at", "completed_at", "output"}
    assert {name: value for name, value in nulls.items() if name not in own} == {
        name: value for name, value in bare.items() if name not in own
    }
    assert upstream.requests[0].body == upstream.requests[1].body


@pytest.mark.parametrize("earlier", [True, False])
async def test_semantic_kernel_repeats_the_question_beside_the_results(
    gateway: Gateway, upstream: ScriptedUpstream, earlier: bool
) -> None:
    agent = "AsyncOpenAI/Python 3.54.0"
    again = Reply(pieces=[Call("get_weather", ['{"city":"Rome"}'], id="call_2")])
    common: Json = {
        "instructions": None,
        "metadata": {},
        "store": True,
        "text": {},
        "tools": [WEATHER],
        "stream": False,
    }
    question = {"role": "user", "content": [{"type": "input_text", "text": ASKED}]}
    previous = None
    if earlier:
        previous = (await ask(gateway, agent, {**common, "previous_response_id": None, "input": [question]}))["id"]
    before = [*sent(upstream), {"role": "assistant", "content": "Hello there."}] if earlier else []
    upstream.script(CALLS, again, SUNNY)
    first = await ask(gateway, agent, {**common, "previous_response_id": previous, "input": [question]})
    results = [{"type": "function_call_output", "output": "sunny", "call_id": "call_1"}]
    second = await ask(gateway, agent, {**common, "previous_response_id": first["id"], "input": [question, *results]})
    once = sent(upstream)
    results.append({"type": "function_call_output", "output": "rain", "call_id": "call_2"})
    third = await ask(gateway, agent, {**common, "previous_response_id": second["id"], "input": [question, *results]})

    assert once == [*before, *LOOP]
    assert [message["role"] for message in sent(upstream)[len(before) :]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
    ]
    assert text_of(third) == "It is sunny."


async def test_what_the_user_adds_beside_the_results_is_kept(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(CALLS, SUNNY)
    first = await ask(gateway, "AsyncOpenAI/Python 3.54.0", {"input": ASKED, "tools": [WEATHER]})
    items = [
        {"role": "user", "content": "Be brief."},
        {"type": "function_call_output", "output": "sunny", "call_id": "call_1"},
    ]
    await ask(
        gateway, "AsyncOpenAI/Python 3.54.0", {"input": items, "previous_response_id": first["id"], "tools": [WEATHER]}
    )

    assert [(message["role"], message["content"]) for message in sent(upstream)] == [
        ("user", ASKED),
        ("assistant", ""),
        ("tool", "sunny"),
        ("user", "Be brief."),
    ]


async def test_litellm_replays_dumped_items(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(SUNNY)
    first = await ask(gateway, "litellm/1.106.2", {"input": ASKED})
    thought, message = first["output"]
    dumped = [{**thought, "content": None, "encrypted_content": None}, {**message, "phase": None}]
    items = [{"role": "user", "content": ASKED}, *dumped, {"role": "user", "content": "thanks"}]
    await ask(gateway, "litellm/1.106.2", {"input": items})

    assert [message["content"] for message in sent(upstream)] == [ASKED, "It is sunny.", "thanks"]


async def test_thinking_is_streamed_where_every_client_shows_it(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(SUNNY)
    async with gateway.http() as http:
        answer = await http.post(
            "/v1/responses", json={"model": MODEL, "input": ASKED, "stream": True}, headers={"accept": "*/*"}
        )

    shown = [
        event["delta"]
        for event in judge(answer.content).events
        if event["type"] == "response.reasoning_summary_text.delta"
    ]
    assert shown == ["Sun."]
