"""Sampling, limits and labels: passed on in each dialect's words, echoed as they are in effect, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.e2e_dialects import ask, function, post, refused, sent, streamed, text_of, vendor_says
from tests.support.gateway import Gateway
from tests.support.script import Call, Reply, Text
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
WISHES: Json = {
    "temperature": 0.5,
    "top_p": 0.25,
    "max_output_tokens": 100,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "repetition_penalty": 1.5,
    "top_k": 7,
    "min_p": 0.125,
    "seed": 42,
}
_BASE: Json = {"temperature": 0.5, "top_p": 0.25, "presence_penalty": 0.5, "seed": 42}
PASSED: dict[str, Json] = {
    "dashscope": {**_BASE, "max_tokens": 100, "top_k": 7, "repetition_penalty": 1.5},
    "dashscope-responses": {"temperature": 0.5, "top_p": 0.25, "max_output_tokens": 100},
    "vllm": {
        **_BASE,
        "max_tokens": 100,
        "frequency_penalty": -0.5,
        "top_k": 7,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
    },
    "sglang": {
        **_BASE,
        "max_tokens": 100,
        "frequency_penalty": -0.5,
        "top_k": 7,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
    },
    "ollama": {**_BASE, "max_tokens": 100, "frequency_penalty": -0.5},
    "llamacpp": {
        **_BASE,
        "max_tokens": 100,
        "frequency_penalty": -0.5,
        "top_k": 7,
        "min_p": 0.125,
        "repeat_penalty": 1.5,
    },
    "openai": {**_BASE, "max_completion_tokens": 100, "frequency_penalty": -0.5},
}
NOT_TAKEN: dict[str, tuple[str, ...]] = {
    "dashscope": ("frequency_penalty", "min_p"),
    "dashscope-responses": ("presence_penalty", "frequency_penalty", "repetition_penalty", "top_k", "min_p", "seed"),
    "ollama": ("repetition_penalty", "top_k", "min_p"),
    "openai": ("repetition_penalty", "top_k", "min_p"),
}
_NAMES = frozenset(WISHES) | {"max_tokens", "max_completion_tokens", "repeat_penalty"}


@pytest.mark.parametrize("dialect", PASSED)
async def test_each_dialect_gets_what_it_knows(dialects: Gateway, upstream: ScriptedUpstream, dialect: str) -> None:
    upstream.script(vendor_says("Yes.") if dialect == "dashscope-responses" else Reply.say("Yes."))

    taken = {name: value for name, value in WISHES.items() if name not in NOT_TAKEN.get(dialect, ())}
    response = await ask(dialects, model=f"{dialect}/qwen-plus", **taken)

    assert {name: value for name, value in sent(upstream).items() if name in _NAMES} == PASSED[dialect]
    shown = {"temperature", "top_p", "max_output_tokens", "presence_penalty", "frequency_penalty"} & taken.keys()
    assert {name: response[name] for name in shown} == {name: WISHES[name] for name in shown}


@pytest.mark.parametrize(
    ("dialect", "name"), [(dialect, name) for dialect, names in NOT_TAKEN.items() for name in names]
)
async def test_what_a_dialect_does_not_take_is_refused_by_name(dialects: Gateway, dialect: str, name: str) -> None:
    async with dialects.http() as http:
        body = {"model": f"{dialect}/qwen-plus", "input": "Hello!", name: WISHES[name]}
        answer = await http.post("/v1/responses", json=body)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", name)


NOTHING: Json = dict.fromkeys(WISHES)


async def test_nothing_is_sent_that_nobody_asked_for(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    response = await ask(dialects, **NOTHING)

    assert not sent(upstream).keys() & _NAMES
    assert (response["temperature"], response["top_p"], response["max_output_tokens"]) == (1.0, 1.0, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 1.99),
        ("top_p", 1),
        ("top_p", 0.01),
        ("max_output_tokens", 16),
        ("top_logprobs", 0),
        ("top_logprobs", 20),
        ("presence_penalty", -2),
        ("frequency_penalty", 2),
        ("seed", 0),
        ("top_k", 1),
        ("min_p", 0),
        ("min_p", 1),
        ("temperature", 1),
    ],
)
async def test_values_at_the_border_are_taken(
    dialects: Gateway, upstream: ScriptedUpstream, name: str, value: float
) -> None:
    await ask(dialects, stream=False, **{name: value})

    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2),
        ("temperature", -0.1),
        ("top_p", 0),
        ("top_p", 1.01),
        ("max_output_tokens", 15),
        ("max_output_tokens", 0),
        ("max_output_tokens", -1),
        ("max_output_tokens", 2**31),
        ("top_logprobs", 21),
        ("top_logprobs", -1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("repetition_penalty", 0),
        ("top_k", -1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("seed", -1),
        ("seed", 2**63),
        ("max_tool_calls", 0),
        ("temperature", 1e308),
        ("seed", 10**30),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_values_beyond_it_are_refused(
    dialects: Gateway, upstream: ScriptedUpstream, name: str, value: float, *, stream: bool
) -> None:
    error = await refused(dialects, 400, stream=stream, **{name: value})

    assert (error["type"], error["param"]) == ("invalid_request_error", name)
    assert error["code"]
    assert not upstream.requests


async def test_too_few_tokens_are_refused_in_the_apis_words(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    error = await refused(dialects, 400, max_output_tokens=10)

    assert error == {
        "message": (
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 10 instead."
        ),
        "type": "invalid_request_error",
        "param": "max_output_tokens",
        "code": "integer_below_min_value",
    }
    assert not upstream.requests


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_an_answer_that_was_cut_is_incomplete(
    dialects: Gateway, upstream: ScriptedUpstream, finish: str, reason: str, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Text("Once upon")], finish_reason=finish))

    response = await ask(dialects, stream=stream, max_output_tokens=16)

    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    assert text_of(response) == "Once upon"
    assert response["usage"]["total_tokens"] == 13

    # It can be continued.
    follow_up = await ask(dialects, previous_response_id=response["id"], input="Go on.")
    assert follow_up["status"] == "completed"
    assert [message["content"] for message in sent(upstream)["messages"]] == ["Hi", "Once upon", "Go on."]


def token(text: str) -> Json:
    rivals = [
        {"token": text, "logprob": -0.25, "bytes": list(text.encode())},
        {"token": "?", "logprob": -2.5, "bytes": [63]},
    ]
    return {"token": text, "logprob": -0.25, "bytes": list(text.encode()), "top_logprobs": rivals}


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities(dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool) -> None:
    upstream.script(Reply(pieces=[Text("Yes", [token("Yes")]), Text(", 你", [token(", "), token("你")])]))

    response = await ask(dialects, stream=stream, top_logprobs=2, include=["message.output_text.logprobs"])

    assert [entry["token"] for entry in response["output"][0]["content"][0]["logprobs"]] == ["Yes", ", ", "你"]
    assert response["output"][0]["content"][0]["logprobs"][2] == token("你")
    assert response["top_logprobs"] == 2
    assert (sent(upstream)["logprobs"], sent(upstream)["top_logprobs"]) == (True, 2)


async def test_log_probabilities_without_rivals(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    await ask(dialects, include=["message.output_text.logprobs"])
    assert (sent(upstream)["logprobs"], sent(upstream)["top_logprobs"]) == (True, 0)

    await ask(dialects)
    assert not sent(upstream).keys() & {"logprobs", "top_logprobs"}


LABELS: Json = {
    "metadata": {"order": "7", "空": "\x01"},
    "user": "user-1",
    "safety_identifier": "hash-1",
    "prompt_cache_key": "bucket-1",
    "instructions": "Be brief.",
    "max_tool_calls": 3,
    "truncation": "auto",
}


@pytest.mark.parametrize("stream", [False, True])
async def test_labels_are_echoed_and_stored(dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool) -> None:
    response = await ask(dialects, stream=stream, **LABELS)

    assert {name: response[name] for name in LABELS} == LABELS
    async with dialects.http() as http:
        assert (await http.get(f"/v1/responses/{response['id']}")).json() == response
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("vllm/other", {"user": "user-1"}),
        ("sglang/other", {"user": "user-1"}),
        ("dashscope/qwen-plus", {}),
        ("llamacpp/other", {}),
        ("openai/other", {"user": "user-1", "prompt_cache_key": "bucket-1"}),
    ],
)
async def test_labels_reach_those_who_know_them(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, known: Json
) -> None:
    await ask(dialects, model=model, **LABELS)

    assert {name: value for name, value in sent(upstream).items() if name in LABELS} == known


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metadata", {str(i): "x" for i in range(17)}),
        ("metadata", {"k" * 65: "x"}),
        ("metadata", {"k": "x" * 513}),
        ("metadata", {"k": 5}),
        ("metadata", []),
        ("metadata", "x"),
        ("user", "x" * 1025),
        ("user", 5),
        ("safety_identifier", "x" * 1025),
        ("truncation", "maybe"),
        ("prompt_cache_key", "x" * 1025),
        ("service_tier", "best"),
        ("include", ["everything"]),
        ("include", "all"),
        ("store", "yes"),
        ("stream_options", {"include_obfuscation": "no"}),
        ("instructions", ["Be brief."]),
        ("parallel_tool_calls", "no"),
    ],
)
async def test_labels_that_are_none_are_refused(
    dialects: Gateway, upstream: ScriptedUpstream, name: str, value: Any
) -> None:
    error = await refused(dialects, 400, **{name: value})

    assert error["param"].split(".")[0].split("[")[0] == name
    assert error["code"]
    assert not upstream.requests


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", {"id": "pmpt_1"}),
        ("moderation", {"model": "m"}),
        ("image", {}),
        ("context_management", [{"type": "compaction"}]),
        ("access_programs", []),
        ("prompt_cache_options", {}),
        ("background_options", {}),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    dialects: Gateway, upstream: ScriptedUpstream, name: str, value: Any
) -> None:
    error = await refused(dialects, 400, **{name: value})

    assert (error["type"], error["param"]) == ("invalid_request_error", name)
    assert name in error["message"]
    assert not upstream.requests


async def test_nulls_are_absence(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    names = [
        *WISHES,
        *LABELS,
        "tools",
        "tool_choice",
        "text",
        "reasoning",
        "include",
        "stream",
        "store",
        "previous_response_id",
        "background",
    ]
    names += [
        "conversation",
        "prompt",
        "context_management",
        "top_logprobs",
        "parallel_tool_calls",
        "service_tier",
        "stream_options",
    ]

    answer = await post(dialects, **dict.fromkeys(names))
    response = answer.json()

    assert response["status"] == "completed"
    assert response["metadata"] == {}
    assert sent(upstream).keys() == {"model", "messages", "stream"}


_MESSAGE = "This model's maximum context length is 100 tokens. However, you requested 200 tokens."
TOO_LONG = Reply.error(400, {"error": {"message": _MESSAGE, "type": "BadRequestError", "param": None, "code": 400}})


class TooLong:
    """An upstream whose window holds so many messages."""

    def __init__(self, window: int) -> None:
        self.window = window

    def __call__(self, body: Json) -> Reply:
        if len(body["messages"]) > self.window:
            return TOO_LONG
        return Reply.say("Fits.")


HISTORY = [{"role": role, "content": f"{role} {turn}"} for turn in range(8) for role in ("user", "assistant")] + [
    {"role": "user", "content": "Now?"}
]


@pytest.mark.parametrize("stream", [False, True])
async def test_truncation_auto_leaves_out_the_oldest(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.respond = TooLong(6)

    response = await ask(dialects, stream=stream, input=HISTORY, truncation="auto")

    assert text_of(response) == "Fits."
    contents = [message["content"] for message in sent(upstream)["messages"]]
    assert contents == [item["content"] for item in HISTORY][-len(contents) :]
    assert sent(upstream)["messages"][0]["role"] == "user"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_left_out_stays_out_of_a_second_try(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.respond = TooLong(6)
    upstream.script(TOO_LONG, TOO_LONG, Reply(pieces=[Call("nobody")]))

    response = await ask(dialects, stream=stream, input=HISTORY, tools=[function("weather")], truncation="auto")

    assert text_of(response) == "Fits."
    # the last one with a reminder
    assert [len(request.body["messages"]) for request in upstream.requests] == [17, 9, 5, 6]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_second_try_that_is_too_long_is_shortened_too(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Call("nobody")]), TOO_LONG, Reply.say("Fits."))

    response = await ask(dialects, stream=stream, input=HISTORY, tools=[function("weather")], truncation="auto")

    assert text_of(response) == "Fits."
    assert [len(request.body["messages"]) for request in upstream.requests] == [17, 18, 10]


async def test_the_images_of_a_result_are_not_all_that_is_left(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.respond = TooLong(1)
    call = {"type": "function_call", "call_id": "c", "name": "camera", "arguments": "{}"}
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    result = {"type": "function_call_output", "call_id": "c", "output": [image]}

    error = await refused(
        dialects, 400, input=[{"role": "user", "content": "What is there?"}, call, result], truncation="auto"
    )

    assert (error["code"], len(upstream.requests)) == ("context_length_exceeded", 1)


@pytest.mark.parametrize("truncation", [None, "disabled"])
@pytest.mark.parametrize("stream", [False, True])
async def test_without_it_what_is_too_long_is_refused(
    dialects: Gateway, upstream: ScriptedUpstream, truncation: str | None, *, stream: bool
) -> None:
    upstream.respond = TooLong(6)

    error = await refused(dialects, 400, stream=stream, input=HISTORY, truncation=truncation)

    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    assert len(upstream.requests) == 1


async def test_a_question_that_is_too_long_by_itself_is_refused(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.respond = TooLong(0)

    error = await refused(dialects, 400, input=HISTORY, truncation="auto")

    assert error["code"] == "context_length_exceeded"


async def test_the_limit_of_calls_to_hosted_tools_does_not_concern_functions(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    judged = await streamed(dialects, max_tool_calls=1)

    assert judged.events[0]["response"]["max_tool_calls"] == 1
    assert len(upstream.requests) == 1
