"""`tool_choice`: what each dialect is told, and that it holds where the upstream cannot enforce it."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.support.e2e_dialects import (
    CHAT_DIALECTS,
    DIALECTS,
    ask,
    calls_of,
    function,
    refused,
    sent,
    streamed,
    text_of,
    vendor_calls,
    vendor_says,
)
from tests.support.gateway import Gateway
from tests.support.script import Call, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
TOOLS = [function("weather"), function("clock")]
NAMED = {"type": "function", "name": "clock"}
REQUIRED_NAMED = {"type": "function", "function": {"name": "clock"}}


def allowed(mode: str, *names: str) -> Json:
    return {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": name} for name in names]}


def offered(upstream: ScriptedUpstream, at: int = -1) -> list[str]:
    """The functions an upstream request offers."""
    return [tool.get("function", tool)["name"] for tool in sent(upstream, at).get("tools", ())]


def says(dialect: str, text: str) -> Reply:
    return vendor_says(text) if dialect == "dashscope-responses" else Reply.say(text)


def calls(dialect: str, name: str) -> Reply:
    return vendor_calls(name, "{}") if dialect == "dashscope-responses" else Reply(pieces=[Call(name, ["{}"])])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("choice", [None, "auto"])
async def test_auto_leaves_it_to_the_model(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, choice: str | None
) -> None:
    upstream.script(says(dialect, "No need."))

    response = await ask(dialects, model=f"{dialect}/qwen-plus", tools=TOOLS, tool_choice=choice)

    assert text_of(response) == "No need."
    assert response["tool_choice"] == "auto"
    assert offered(upstream) == ["weather", "clock"]
    assert sent(upstream).get("tool_choice") in (None, "auto")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_none_offers_no_functions(dialects: Gateway, upstream: ScriptedUpstream, dialect: str) -> None:
    upstream.script(says(dialect, "No need."))

    response = await ask(dialects, model=f"{dialect}/qwen-plus", tools=TOOLS, tool_choice="none")

    assert response["tool_choice"] == "none"
    assert [tool["name"] for tool in response["tools"]] == ["weather", "clock"]
    assert not sent(upstream).keys() & {"tools", "tool_choice"}


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ("dashscope", None),
        ("dashscope-responses", None),
        ("vllm", "required"),
        ("sglang", "required"),
        ("ollama", None),
        ("llamacpp", "required"),
        ("openai", "required"),
    ],
)
async def test_required_is_said_where_it_is_understood(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, told: str | None
) -> None:
    upstream.script(calls(dialect, "clock"))

    response = await ask(dialects, model=f"{dialect}/qwen-plus", tools=TOOLS, tool_choice="required")

    assert calls_of(response) == [("clock", {})]
    assert response["tool_choice"] == "required"
    assert sent(upstream).get("tool_choice") == told
    assert offered(upstream) == ["weather", "clock"]


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ("dashscope", REQUIRED_NAMED),
        ("dashscope-responses", "required"),
        ("vllm", REQUIRED_NAMED),
        ("sglang", REQUIRED_NAMED),
        ("ollama", None),
        ("llamacpp", "required"),
        ("openai", REQUIRED_NAMED),
    ],
)
async def test_a_named_function_is_the_only_one_on_offer(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, told: Any
) -> None:
    upstream.script(calls(dialect, "clock"))

    response = await ask(dialects, model=f"{dialect}/qwen-plus", tools=TOOLS, tool_choice=NAMED)

    assert calls_of(response) == [("clock", {})]
    assert response["tool_choice"] == NAMED
    assert [tool["name"] for tool in response["tools"]] == ["weather", "clock"]
    assert sent(upstream).get("tool_choice") == told
    assert offered(upstream) == ["clock"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_allowed_tools_are_the_only_ones_on_offer(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str
) -> None:
    upstream.script(says(dialect, "No need."))

    response = await ask(dialects, model=f"{dialect}/qwen-plus", tools=TOOLS, tool_choice=allowed("auto", "clock"))

    assert response["tool_choice"] == allowed("auto", "clock")
    assert [tool["name"] for tool in response["tools"]] == ["weather", "clock"]
    assert offered(upstream) == ["clock"]


async def test_one_of_the_allowed_tools_can_be_required(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("No."), Reply(pieces=[Call("clock")]))

    response = await ask(
        dialects,
        model="ollama/qwen-plus",
        tools=[*TOOLS, function("map")],
        tool_choice=allowed("required", "clock", "map"),
    )

    assert calls_of(response) == [("clock", {})]
    assert offered(upstream) == ["clock", "map"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_model_that_does_not_call_is_told_again(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, choice: Any, *, stream: bool
) -> None:
    upstream.script(says(dialect, "I would rather talk."), calls(dialect, "clock"))

    response = await ask(dialects, stream=stream, model=f"{dialect}/qwen-plus", tools=TOOLS, tool_choice=choice)

    assert calls_of(response) == [("clock", {})]
    assert text_of(response) == ""
    assert response["usage"]["total_tokens"] == 26
    second = sent(upstream)
    reminder = second["instructions"] if dialect == "dashscope-responses" else second["messages"][0]["content"]
    assert "must call" in reminder
    assert "Your last answer was refused" in reminder


@pytest.mark.parametrize("dialect", ["dashscope", "ollama", "vllm"])
async def test_a_model_that_refuses_twice_fails_the_plain_answer(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str
) -> None:
    upstream.script(Reply.say("No."), Reply.say("Still no."))

    error = await refused(dialects, 502, model=f"{dialect}/qwen-plus", tools=TOOLS, tool_choice="required")

    assert error["type"] == "server_error"
    assert "tool_choice" in error["message"]


async def test_a_model_that_refuses_twice_fails_the_stream(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("No.")]), Reply.say("Still no."))

    judged = await streamed(dialects, model="ollama/qwen-plus", tools=TOOLS, tool_choice="required")

    assert judged.types[-2:] == ["error", "response.failed"]
    assert judged.text == ""
    assert judged.response.usage is not None
    assert judged.response.usage.total_tokens == 26


async def test_words_before_a_forced_call_are_kept(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("I look."), Call("clock")]))

    judged = await streamed(dialects, tools=TOOLS, tool_choice="required")

    assert judged.text == "I look."
    assert calls_of(judged.events[-1]["response"]) == [("clock", {})]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_written_as_text_satisfies_a_forced_one(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply.say('{"name": "clock", "arguments": {}}'))

    response = await ask(dialects, stream=stream, model="ollama/qwen-plus", tools=TOOLS, tool_choice="required")

    assert calls_of(response) == [("clock", {})]


@pytest.mark.parametrize("choice", ["required", NAMED, allowed("required", "clock")])
async def test_dashscope_does_not_think_when_a_call_is_forced(
    dialects: Gateway, upstream: ScriptedUpstream, choice: Any
) -> None:
    upstream.script(Reply(pieces=[Call("clock")]))

    response = await ask(dialects, model="dashscope/qwen3.7-plus", tools=TOOLS, tool_choice=choice)

    assert sent(upstream)["enable_thinking"] is False
    assert response["enable_thinking"] is False
    assert response["reasoning"]["effort"] == "none"


async def test_dashscope_forces_in_words_when_thinking_was_asked_for(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("No.")]), Reply(pieces=[Thought("Well."), Call("clock")]))

    judged = await streamed(
        dialects, model="dashscope/qwen3.7-plus", tools=TOOLS, tool_choice=NAMED, enable_thinking=True
    )

    assert calls_of(judged.events[-1]["response"]) == [("clock", {})]
    assert judged.text == ""
    assert judged.events[-1]["response"]["enable_thinking"] is True
    for at in (0, 1):
        assert sent(upstream, at)["enable_thinking"] is True
        assert "tool_choice" not in sent(upstream, at)


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        ("required", []),
        (NAMED, [function("weather")]),
        (allowed("auto", "map"), TOOLS),
        (allowed("required"), TOOLS),
        ("always", TOOLS),
        (5, TOOLS),
        ([], TOOLS),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_choice_that_cannot_be_made_is_refused(
    dialects: Gateway, upstream: ScriptedUpstream, choice: Any, tools: list[Json], *, stream: bool
) -> None:
    error = await refused(dialects, 400, stream=stream, tools=tools, tool_choice=choice)

    assert (error["type"], error["param"]) == ("invalid_request_error", "tool_choice")
    assert not upstream.requests


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ({"name": "clock"}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.name"),
        ({"type": "function", "function": {"name": "clock"}}, "tool_choice.name"),
        ({"type": "function", "name": 5}, "tool_choice.name"),
        ({"type": "function", "name": "clock", "strict_": True}, "tool_choice.strict_"),
        ({"type": "allowed_tools", "mode": "sometimes", "tools": []}, "tool_choice.mode"),
        ({"type": "allowed_tools", "tools": [5]}, "tool_choice.tools[0]"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_choice_that_is_written_wrong_is_refused_with_the_place(
    dialects: Gateway, upstream: ScriptedUpstream, choice: Json, param: str, *, stream: bool
) -> None:
    error = await refused(dialects, 400, stream=stream, tools=TOOLS, tool_choice=choice)

    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert f"'{param}'" in error["message"]
    assert not upstream.requests


@pytest.mark.parametrize("dialect", CHAT_DIALECTS)
async def test_parallel_calls_are_said(dialects: Gateway, upstream: ScriptedUpstream, dialect: str) -> None:
    await ask(dialects, model=f"{dialect}/qwen-plus", tools=TOOLS)
    await ask(dialects, model=f"{dialect}/qwen-plus", tools=TOOLS, parallel_tool_calls=False)

    assert [sent(upstream, at)["parallel_tool_calls"] for at in (-2, -1)] == [True, False]


async def test_a_custom_tool_can_be_forced(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("run_sql", ['{"input":"SELECT 1"}'])]))

    response = await ask(
        dialects,
        tools=[*TOOLS, {"type": "custom", "name": "run_sql"}],
        tool_choice={"type": "custom", "name": "run_sql"},
    )

    assert response["output"][0]["input"] == "SELECT 1"
    assert offered(upstream) == ["run_sql"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_that_is_not_allowed_cannot_be_called(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    """The model may know it from the history."""
    upstream.script(Reply(pieces=[Call("weather")]), Reply(pieces=[Call("clock")]))

    response = await ask(dialects, stream=stream, tools=TOOLS, tool_choice=allowed("auto", "clock"))

    assert calls_of(response) == [("clock", {})]
    assert "'weather'" in sent(upstream)["messages"][0]["content"]


SPACE: Json = {"type": "namespace", "name": "ns", "description": "Jobs.", "tools": [function("status")]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("written", ["status", "ns.status", "ns/status", "functions.ns.status", "NS__Status"])
async def test_a_name_that_was_shortened_or_respelt_is_the_function_that_is_meant(
    dialects: Gateway, upstream: ScriptedUpstream, written: str, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Call(written, ['{"id":1}'])]))

    response = await ask(dialects, stream=stream, tools=[SPACE, *TOOLS])

    assert calls_of(response) == [("status", {"id": 1})]
    assert response["output"][0]["namespace"] == "ns"
    assert len(upstream.requests) == 1


async def test_the_official_client_gets_the_function_that_is_meant(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(*[Reply(pieces=[Call("ns.status", ['{"id":', "1}"])])] * 2)
    tools: Any = [SPACE]

    async with dialects.client() as client:
        plain = await client.responses.create(model="vllm/other", input="Hi", tools=tools)
        async with client.responses.stream(model="vllm/other", input="Hi", tools=tools) as events:
            final = await events.get_final_response()

    for item in (plain.output[0], final.output[0]):
        assert item.type == "function_call"
        assert (item.name, item.namespace, item.arguments) == ("status", "ns", '{"id":1}')


async def test_the_official_client_hears_of_a_function_that_there_is_not(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(*[Reply(pieces=[Text("I look."), Call("bogus")])] * 3)
    tools: Any = TOOLS
    seen: list[str] = []

    async def listen(client: openai.AsyncOpenAI) -> None:
        async with client.responses.stream(model="vllm/other", input="Hi", tools=tools) as events:
            async for event in events:
                seen.append(event.type)

    async with dialects.client() as client:
        with pytest.raises(openai.APIStatusError, match="'bogus'"):
            await client.with_options(max_retries=0).responses.create(model="vllm/other", input="Hi", tools=tools)
        with pytest.raises(openai.APIError, match="'bogus'"):
            await listen(client)

    assert "response.output_text.done" in seen
    assert not any("function_call" in kind for kind in seen)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tools", [TOOLS, []])
async def test_a_call_of_an_unknown_function_gets_a_second_try(
    dialects: Gateway, upstream: ScriptedUpstream, tools: list[Json], *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Call("weather_forecast")]), Reply.say("Sunny."))

    response = await ask(dialects, stream=stream, tools=tools)

    assert (text_of(response), calls_of(response)) == ("Sunny.", [])
    reminder = sent(upstream)["messages"][0]["content"]
    assert "'weather_forecast'" in reminder
    assert ("weather, clock" if tools else "no functions") in reminder


async def test_a_model_that_calls_what_there_is_not_twice_fails(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    unknown = Reply(pieces=[Call("weather_forecast")])
    upstream.script(unknown, unknown, unknown, unknown)

    error = await refused(dialects, 502, tools=TOOLS)
    judged = await streamed(dialects, tools=TOOLS)

    assert "'weather_forecast'" in error["message"]
    assert judged.types[-2:] == ["error", "response.failed"]
    failed = judged.events[-1]["response"]
    assert "'weather_forecast'" in failed["error"]["message"]
    assert calls_of(failed) == []


async def test_broken_arguments_get_a_second_try_while_nothing_is_shown(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply(pieces=[Call("clock", ['{"zone": '])]), Reply(pieces=[Call("clock", ['{"zone": "UTC"}'])]))

    response = await ask(dialects, tools=TOOLS)

    assert calls_of(response) == [("clock", {"zone": "UTC"})]
    assert len(response["output"]) == 1
    assert "'clock'" in sent(upstream)["messages"][0]["content"]


async def test_broken_arguments_that_were_streamed_fail_the_response(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply(pieces=[Call("clock", ['{"zone": '])]))

    judged = await streamed(dialects, tools=TOOLS)

    assert judged.types[-2:] == ["error", "response.failed"]
    assert "'clock'" in judged.events[-1]["response"]["error"]["message"]
