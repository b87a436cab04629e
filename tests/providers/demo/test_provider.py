"""The demo upstream through its port: what it says, calls, counts and remembers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Text, TurnFinished
from app.protocol.messages import Assistant, Call, FunctionTool, ImagePart, Message, TextPart, ToolResult, User
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import (
    ForcedCall,
    JsonObject,
    JsonSchema,
    ModelCall,
    Provider,
    Sampling,
    Thinking,
    UpstreamError,
)
from app.providers.demo.provider import PROVIDER, DemoProvider
from app.providers.facts import facts
from app.settings import Upstream

DEMO = DemoProvider(pause=0)
QUIET = Thinking(enabled=False)


def function(name: str, description: str | None = None, **schema: Any) -> FunctionTool:
    return FunctionTool(name, description, msgspec.Raw(json.dumps({"type": "object", **schema}).encode()))


WEATHER = function(
    "get_weather",
    "Get the current weather for a city",
    properties={"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}, "note": {"type": "string"}},
    required=["city", "unit"],
    additionalProperties=False,
)
TIME = function("current_time", "The time of day in a city", properties={"city": {"type": "string"}}, required=["city"])


def asking(*messages: Message | str, **fields: Any) -> ModelCall:
    fields.setdefault("thinking", QUIET)
    return ModelCall(
        model="demo",
        messages=[User(message) if isinstance(message, str) else message for message in messages],
        **fields,
    )


async def deltas(call: ModelCall) -> list[Delta]:
    async with aclosing(DEMO.stream(call)) as batches:
        return [delta async for batch in batches for delta in batch]


def said(received: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in received if isinstance(delta, Text))


def thought(received: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in received if isinstance(delta, Reasoning))


def called(received: Sequence[Delta]) -> list[tuple[str, str, Any]]:
    """Id, name and arguments of each call."""
    arguments: dict[int, str] = {}
    for delta in received:
        if isinstance(delta, CallArguments):
            arguments[delta.index] = arguments.get(delta.index, "") + delta.fragment
    return [
        (delta.call_id, delta.name, json.loads(arguments[delta.index]))
        for delta in received
        if isinstance(delta, CallOpened)
    ]


def finish(received: Sequence[Delta]) -> str:
    last = received[-1]
    assert isinstance(last, TurnFinished)
    return last.reason


def usage(received: Sequence[Delta]) -> TokenUsage:
    return next(delta for delta in received if isinstance(delta, TokenUsage))


async def test_every_answer_says_that_it_is_a_simulation() -> None:
    received = await deltas(asking("Hello there"))

    assert said(received) == "This is the demo model: a simulation, no Qwen model is behind it. You said: “Hello there”"
    assert finish(received) == "stop"
    assert len(received) > 10, "small pieces"


async def test_the_same_question_has_the_same_answer() -> None:
    assert await deltas(asking("Hello", tools=[WEATHER])) == await deltas(asking("Hello", tools=[WEATHER]))


@pytest.mark.parametrize(
    ("thinking", "thinks"),
    [(Thinking(), True), (Thinking(enabled=True), True), (QUIET, False), (Thinking(effort="none"), False)],
)
async def test_it_thinks_unless_told_not_to(thinking: Thinking, *, thinks: bool) -> None:
    received = await deltas(asking("Hello", thinking=thinking))

    assert bool(thought(received)) is thinks
    assert (usage(received).reasoning_tokens > 0) is thinks
    assert said(received)


async def test_four_bytes_are_one_token() -> None:
    call = asking("你好", system="Be brief.", thinking=Thinking(), tools=[WEATHER])
    received = await deltas(call)

    read = (
        len(b"Be brief.")
        + len(DEMO.encode_messages(call.messages, reasoning=True))
        + len(msgspec.json.encode([WEATHER]))
    )
    thinking = len(thought(received).encode())
    written = thinking + len(said(received).encode())
    assert usage(received) == TokenUsage(
        -(-read // 4), -(-written // 4), -(-read // 4) + -(-written // 4), reasoning_tokens=-(-thinking // 4)
    )


@pytest.mark.parametrize("text", ["Hello there, how are you?", "你好，世界。今天怎么样？"])
@pytest.mark.parametrize("thinking", [QUIET, Thinking()])
@pytest.mark.parametrize("limit", [1, 16, 25])
async def test_the_token_limit_cuts_the_answer(text: str, thinking: Thinking, limit: int) -> None:
    whole = await deltas(asking(text, thinking=thinking))
    received = await deltas(asking(text, thinking=thinking, sampling=Sampling(max_output_tokens=limit)))

    assert finish(received) == "length"
    assert usage(received).output_tokens in {limit - 1, limit}, "a character that does not fit is left out whole"
    assert (thought(whole) + said(whole)).startswith(thought(received) + said(received))


async def test_a_limit_that_suffices_cuts_nothing() -> None:
    whole = await deltas(asking("Hello"))

    assert await deltas(asking("Hello", sampling=Sampling(max_output_tokens=usage(whole).output_tokens))) == whole


async def test_it_calls_the_function_that_was_asked_for() -> None:
    received = await deltas(asking("What is the weather in Paris, in fahrenheit?", tools=[TIME, WEATHER]))

    assert called(received) == [("call_demo_0", "get_weather", {"city": "Paris", "unit": "fahrenheit"})]
    assert (said(received), finish(received)) == ("", "tool_calls")


async def test_chinese_words_find_a_function_too() -> None:
    weather = function("lookup", "查询城市天气", properties={"q": {"type": "string"}}, required=["q"])

    received = await deltas(asking("北京天气怎么样？", tools=[TIME, weather]))

    assert [name for _, name, _ in called(received)] == ["lookup"]


async def test_small_talk_calls_nothing() -> None:
    received = await deltas(asking("Tell me a story for my children", tools=[WEATHER, TIME]))

    assert called(received) == []
    assert said(received)


async def test_two_functions_are_called_at_once_where_that_is_allowed() -> None:
    both = asking("Tell me the weather and the time in Paris", tools=[WEATHER, TIME])
    one = msgspec.structs.replace(both, parallel_tool_calls=False)

    assert [(call_id, name) for call_id, name, _ in called(await deltas(both))] == [
        ("call_demo_0", "get_weather"),
        ("call_demo_1", "current_time"),
    ]
    assert len(called(await deltas(one))) == 1


async def test_a_forced_function_is_called_whatever_was_said() -> None:
    named = await deltas(asking("Hello", tools=[WEATHER, TIME], forced_call=ForcedCall("current_time")))
    free = await deltas(asking("Hello", tools=[WEATHER, TIME], forced_call=ForcedCall()))

    assert [name for _, name, _ in called(named)] == ["current_time"]
    assert len(called(free)) == 1


async def test_it_answers_from_the_results() -> None:
    calls = (Call("call_demo_0", "get_weather", "{}"), Call("call_demo_1", "current_time", "{}"))
    turn = [
        User("What is the weather?"),
        Assistant("", calls=calls),
        ToolResult("call_demo_0", "21 °C"),
        ToolResult("call_demo_1", "noon"),
    ]

    received = await deltas(asking(*turn, tools=[WEATHER, TIME]))

    assert said(received).endswith("get_weather returned: 21 °C current_time returned: noon")
    assert finish(received) == "stop"


async def test_a_later_call_has_another_id() -> None:
    turn = [
        User("What is the weather in Paris?"),
        Assistant("", calls=(Call("call_demo_0", "get_weather", "{}"),)),
        ToolResult("call_demo_0", "21"),
    ]

    received = await deltas(asking(*turn, "And the weather in Rome?", tools=[WEATHER]))

    assert called(received) == [("call_demo_1", "get_weather", {"city": "Rome", "unit": "celsius"})]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What's my name?", "Your name is Ada."),
        ("我叫什么？", "Your name is Ada."),
        ("What did I say before?", "Before, you said: “I like tea.”"),
    ],
)
async def test_it_remembers_the_conversation(question: str, answer: str) -> None:
    history = [
        User("Hi, my name is Ada."),
        Assistant("Hello."),
        User("I like tea."),
        Assistant("Noted.", reasoning="Tea."),
    ]
    prefix = DEMO.encode_messages(history, reasoning=False)

    assert said(await deltas(asking(question, prefix=prefix))).endswith(answer)
    assert not said(await deltas(asking(question))).endswith(answer), "without the history it cannot know"


def test_reasoning_is_kept_in_the_history_only_when_wanted() -> None:
    history = [User("Hi"), Assistant("Hello.", reasoning="A greeting.")]

    assert b"A greeting." in DEMO.encode_messages(history, reasoning=True)
    assert b"A greeting." not in DEMO.encode_messages(history, reasoning=False)


async def test_it_counts_the_images() -> None:
    image = ImagePart("data:image/png;base64,AA==")

    received = await deltas(asking(User((TextPart("Look"), image, image))))

    assert said(received).endswith("You said: “Look” You sent 2 images.")


async def test_a_json_object_says_that_it_is_a_simulation() -> None:
    answer = json.loads(said(await deltas(asking("Hello", format=JsonObject()))))

    assert answer == {"model": "demo", "simulated": True, "answer": "You said: “Hello”"}


SCHEMAS: dict[str, dict[str, Any]] = {
    "strings": {
        "type": "object",
        "properties": {
            "free": {"type": "string"},
            "long": {"type": "string", "minLength": 200},
            "short": {"type": "string", "maxLength": 3},
            "date": {"type": "string", "format": "date"},
            "mail": {"type": "string", "format": "email"},
            "handle": {"type": "string", "pattern": "^@[a-zA-Z0-9_]+$"},
            "plate": {"type": "string", "pattern": r"^[A-Z]{1,3}-\d{2,4}(?:E|H)?$"},
            "code": {"type": "string", "pattern": r"^(cat|dog)\.[^a-z]x*$", "minLength": 6},
            "const": {"const": "fixed"},
        },
        "required": ["free", "long", "short", "date", "mail", "handle", "plate", "code", "const"],
        "additionalProperties": False,
    },
    "numbers": {
        "type": "object",
        "properties": {
            "age": {"type": "integer", "minimum": 18, "maximum": 30},
            "negative": {"type": "number", "maximum": -5},
            "open": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "even": {"type": "integer", "multipleOf": 2, "minimum": 7},
            "yes": {"type": "boolean"},
            "nothing": {"type": "null"},
            "optional": {"type": ["null", "integer"]},
        },
        "required": ["age", "negative", "open", "even", "yes", "nothing", "optional"],
    },
    "arrays": {
        "type": "array",
        "minItems": 3,
        "uniqueItems": True,
        "items": {"type": "string", "enum": ["red", "green", "blue"]},
    },
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
    "recursive": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["value", "next", "children"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    "combined": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {
                "properties": {"b": {"oneOf": [{"type": "string", "maxLength": 4}, {"type": "integer"}]}},
                "required": ["b"],
            },
        ]
    },
    "anything": {},
}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("text", ["", "I am 20 years old, not 99.5", "从北京到上海 \U0001f600"])
async def test_structured_answers_and_arguments_obey_their_schema(name: str, text: str) -> None:
    schema = SCHEMAS[name]
    raw = msgspec.Raw(json.dumps(schema).encode())

    answer = said(await deltas(asking(text, format=JsonSchema("answer", raw))))
    arguments = called(
        await deltas(asking(text, tools=[FunctionTool("f", parameters=raw)], forced_call=ForcedCall("f")))
    )[0][2]

    jsonschema_rs.validate(schema, json.loads(answer))
    jsonschema_rs.validate(schema, arguments)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/missing"},
        {"type": "object", "required": 7},
        {"type": "string", "minLength": 10**12},
        {"type": "array", "minItems": 10**12},
        {"$ref": "#"},
        {
            "$defs": {f"n{i}": {"allOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(50)} | {"n50": {}},
            "$ref": "#/$defs/n0",
        },
        {
            "$defs": {
                "n": {"required": list("abcdefgh"), "properties": {k: {"$ref": "#/$defs/n"} for k in "abcdefgh"}}
            },
            "$ref": "#/$defs/n",
        },
    ],
    ids=["reference", "required", "long", "many", "circle", "doubling", "explosion"],
)
async def test_a_schema_that_cannot_be_followed_is_refused(schema: dict[str, Any]) -> None:
    raw = msgspec.Raw(json.dumps(schema).encode())

    with pytest.raises(UpstreamError) as caught:
        await deltas(asking("Hello", tools=[FunctionTool("f", parameters=raw)], forced_call=ForcedCall("f")))

    assert (caught.value.status, caught.value.param, caught.value.retryable) == (400, "tools", False)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^a{100000000}$"])
async def test_a_hostile_pattern_does_no_harm(pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}

    received = await deltas(
        asking("a" * 64 + "!", format=JsonSchema("answer", msgspec.Raw(json.dumps(schema).encode())))
    )

    assert isinstance(json.loads(said(received)), str)


async def test_a_structured_answer_takes_its_words_from_the_user_and_says_so() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "year": {"type": "integer"}},
        "required": ["city", "year"],
    }

    received = await deltas(
        asking("I moved to Berlin in 2019", format=JsonSchema("move", msgspec.Raw(json.dumps(schema).encode())))
    )

    assert json.loads(said(received)) == {"city": "simulated: Berlin", "year": 2019}


async def test_it_is_built_from_its_settings_and_lists_its_model() -> None:
    provider: Provider = PROVIDER.build(
        Upstream.model_validate({"name": "sample", "base_url": "demo:", "dialect": "demo"}), facts
    )

    assert (PROVIDER.dialect, provider.name, provider.dialect) == ("demo", "sample", "demo")
    assert [model.id for model in await provider.models()] == ["demo"]
    assert provider.capabilities("demo").thinks
    await provider.aclose()
