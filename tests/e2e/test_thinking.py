"""Thinking: who is told what, where it comes from, where it goes, and that it never becomes the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.e2e_dialects import ask, function, post, refused, sent, streamed, text_of, thought_of, vendor_says
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Call, Piece, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
QUESTION = {"role": "user", "content": "Why?"}
_FIELDS = frozenset(
    {"enable_thinking", "thinking_budget", "preserve_thinking", "reasoning_effort", "reasoning", "chat_template_kwargs"}
)

ON: Json = {"enable_thinking": True}
OFF: Json = {"enable_thinking": False}


def effort(value: str) -> Json:
    return {"reasoning": {"effort": value}}


def template(**switches: bool) -> Json:
    return {"chat_template_kwargs": switches}


TOLD: list[tuple[str, Json, Json]] = [
    ("dashscope/qwen3.7-plus", {}, {"preserve_thinking": True}),
    ("dashscope/qwen3.7-plus", OFF, {"enable_thinking": False}),
    ("dashscope/qwen3.7-plus", ON, {"enable_thinking": True, "preserve_thinking": True}),
    ("dashscope/qwen3.7-plus", effort("none"), {"enable_thinking": False}),
    (
        "dashscope/qwen3.7-plus",
        effort("low"),
        {"enable_thinking": True, "preserve_thinking": True, "thinking_budget": 4096},
    ),
    (
        "dashscope/qwen3.7-plus",
        effort("max"),
        {"enable_thinking": True, "preserve_thinking": True, "thinking_budget": 262144},
    ),
    (
        "dashscope/qwen3.8-max",
        effort("minimal"),
        {"enable_thinking": True, "preserve_thinking": True, "reasoning_effort": "low"},
    ),
    (
        "dashscope/qwen3.8-max",
        effort("xhigh"),
        {"enable_thinking": True, "preserve_thinking": True, "reasoning_effort": "xhigh"},
    ),
    ("dashscope/qwen-plus", {}, {}),
    ("dashscope/qwen-plus", effort("high"), {"enable_thinking": True, "thinking_budget": 32768}),
    ("dashscope/qwen3-coder-plus", OFF, {}),
    ("vllm/qwen3-8b", {}, {}),
    ("vllm/qwen3-8b", OFF, template(enable_thinking=False)),
    ("vllm/qwen3-8b", effort("high"), template(enable_thinking=True)),
    ("sglang/qwen3-8b", effort("none"), template(enable_thinking=False)),
    ("sglang/qwen3.7-plus", ON, template(enable_thinking=True, preserve_thinking=True)),
    ("llamacpp/qwen3-8b", OFF, template(enable_thinking=False)),
    ("ollama/qwen3-8b", {}, {}),
    ("ollama/qwen3-8b", OFF, {"reasoning_effort": "none"}),
    ("ollama/qwen3-8b", ON, {"reasoning_effort": "medium"}),
    ("ollama/qwen3-8b", effort("max"), {"reasoning_effort": "high"}),
    ("openai/other", {}, {}),
    ("openai/other", OFF, {"reasoning_effort": "none"}),
    ("openai/other", effort("xhigh"), {"reasoning_effort": "xhigh"}),
    ("dashscope-responses/qwen3.7-plus", {}, {}),
    ("dashscope-responses/qwen3.7-plus", OFF, {"enable_thinking": False, "reasoning": {"effort": "none"}}),
    ("dashscope-responses/qwen3.7-plus", effort("high"), {"enable_thinking": True, "reasoning": {"effort": "high"}}),
]


@pytest.mark.parametrize(("model", "wish", "told"), TOLD)
async def test_each_upstream_is_told_in_its_own_way(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, wish: Json, told: Json
) -> None:
    upstream.script(vendor_says("Because.") if model.startswith("dashscope-responses") else Reply.say("Because."))

    await ask(dialects, model=model, **wish)

    assert {name: value for name, value in sent(upstream).items() if name in _FIELDS} == told


@pytest.mark.parametrize(
    ("wish", "shown"),
    [
        ({}, (True, None)),
        (ON, (True, None)),
        (OFF, (False, "none")),
        (effort("low"), (True, "low")),
        (effort("none"), (False, "none")),
        ({**ON, **effort("none")}, (False, "none")),  # the effort wins over the switch
        ({**OFF, **effort("high")}, (True, "high")),
        ({**OFF, "reasoning": {"effort": None, "summary": "auto"}}, (False, "none")),
        ({"reasoning": None, "enable_thinking": None}, (True, None)),
    ],
)
async def test_the_effective_values_are_echoed(
    dialects: Gateway, upstream: ScriptedUpstream, wish: Json, shown: tuple[bool, str]
) -> None:
    response = await ask(dialects, model="vllm/qwen3-8b", **wish)

    assert (response["enable_thinking"], response["reasoning"]["effort"]) == shown
    given: Json = wish.get("reasoning") or {}
    assert response["reasoning"]["summary"] == given.get("summary")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("model", "wish", "param"),
    [
        ("dashscope/qwen3-coder-plus", ON, "enable_thinking"),
        ("dashscope/qwen3-coder-plus", effort("high"), "reasoning.effort"),
        ("vllm/qwen3-235b-thinking", OFF, "enable_thinking"),
        ("vllm/qwen3-235b-thinking", effort("none"), "reasoning.effort"),
        ("vllm/qwen3-8b", effort("extreme"), "reasoning.effort"),
        ("vllm/qwen3-8b", {"enable_thinking": "yes"}, "enable_thinking"),
        ("vllm/qwen3-8b", {"reasoning": "high"}, "reasoning"),
        ("vllm/qwen3-8b", {"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ("vllm/qwen3-8b", {"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_model_cannot_do_is_refused(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, wish: Json, param: str, *, stream: bool
) -> None:
    error = await refused(dialects, 400, model=model, stream=stream, **wish)

    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert not upstream.requests


COMES: dict[str, list[Piece]] = {
    "reasoning_content": [Thought("First "), Thought("this."), Text("So "), Text("it is.")],
    "reasoning": [
        Thought("First ", field="reasoning"),
        Thought("this.", field="reasoning"),
        Text("So "),
        Text("it is."),
    ],
    "tags": [Text("<th"), Text("ink>\nFirst "), Text("this.\n</thi"), Text("nk>\n\nSo "), Text("it is.")],
    "unopened": [Text("First "), Text("this.\n"), Text("</think>"), Text("\n\nSo "), Text("it is.")],
    "unopened in one": [Text("First this.\n</think>\n\nSo it is.")],
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", COMES)
@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llamacpp", "ollama", "openai"])
async def test_thinking_never_becomes_the_answer(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, way: str, *, stream: bool
) -> None:
    # Models of their own: the gateway remembers of a server's model that its thinking comes in a field.
    model = "tagging" if way not in ("reasoning", "reasoning_content") else "qwen3-8b"
    upstream.script(Reply(pieces=COMES[way]))

    response = await ask(dialects, model=f"{dialect}/{model}", stream=stream, enable_thinking=True)

    assert (thought_of(response), text_of(response)) == ("First this.", "So it is.")
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]


@pytest.mark.parametrize("way", ["tags", "unopened"])
async def test_log_probabilities_stay_with_the_answer(dialects: Gateway, upstream: ScriptedUpstream, way: str) -> None:
    tokens = [piece.text for piece in COMES[way] if isinstance(piece, Text)]
    pieces = [Text(token, [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}]) for token in tokens]
    upstream.script(Reply(pieces=pieces))

    response = await ask(
        dialects, model="llamacpp/tagging", stream=True, enable_thinking=True, include=["message.output_text.logprobs"]
    )

    assert (thought_of(response), text_of(response)) == ("First this.", "So it is.")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["dashscope", "vllm", "sglang", "llamacpp", "ollama", "openai"])
async def test_tags_at_the_beginning_are_no_answer_of_a_server_that_separates_thinking_elsewhere(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, *, stream: bool
) -> None:
    upstream.script(
        Reply(pieces=COMES["reasoning_content"]),
        Reply(pieces=COMES["tags"]),
        Reply.say("</thi", "nk>\n\nSo ", "it is."),
    )

    await ask(dialects, model=f"{dialect}/qwen-plus", stream=stream)
    tagged = await ask(dialects, model=f"{dialect}/qwen-plus", stream=stream)
    lone = await ask(dialects, model=f"{dialect}/qwen-plus", stream=stream)

    assert (thought_of(tagged), text_of(tagged)) == ("First this.", "So it is.")
    assert text_of(lone) == "So it is."


@pytest.mark.parametrize("dialect", ["dashscope", "vllm", "sglang", "llamacpp", "ollama", "openai"])
async def test_thinking_that_comes_though_it_is_off_is_no_answer(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str
) -> None:
    """In the first plain answer as in every later one, whatever came between."""
    clean = Reply.say("It ", "is.")
    upstream.script(Reply(pieces=COMES["unopened"]), clean, clean, Reply(pieces=COMES["unopened"]))

    answers = [await ask(dialects, model=f"{dialect}/qwen-plus", **OFF) for _ in range(4)]

    assert [thought_of(answer) for answer in answers] == ["First this.", "", "", "First this."]
    assert [text_of(answer) for answer in answers] == ["So it is.", "It is.", "It is.", "So it is."]


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llamacpp", "ollama", "openai"])
async def test_a_stream_is_held_until_it_is_known_that_no_thinking_comes(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str
) -> None:
    clean, leak = Reply.say("It ", "is."), Reply(pieces=COMES["unopened"])
    upstream.script(leak, leak, clean, clean, leak, leak)

    streams = [await streamed(dialects, model=f"{dialect}/qwen3.8-max", **OFF) for _ in range(6)]

    ends = [judged.events[-1]["response"] for judged in streams]
    assert [text_of(end) for end in ends] == [
        "So it is.",
        "So it is.",
        "It is.",
        "It is.",
        "First this.\nSo it is.",
        "So it is.",
    ]
    assert [thought_of(end) for end in ends] == ["First this.", "First this.", "", "", "", "First this."]
    deltas = [sum(event["type"] == "response.output_text.delta" for event in judged.events) for judged in streams]
    assert (deltas[2], deltas[3]) == (1, 2)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wish", [OFF, effort("none")])
async def test_with_thinking_off_an_answer_in_the_wrong_field_is_the_message(
    dialects: Gateway, upstream: ScriptedUpstream, wish: Json, *, stream: bool
) -> None:
    upstream.script(
        Reply(pieces=[Thought("It "), Thought("is.")]),
        Reply(pieces=COMES["reasoning_content"]),
        Reply(pieces=[Thought("hm")]),
    )

    wrong = await ask(dialects, stream=stream, model="vllm/qwen3-8b", **wish)
    right = await ask(dialects, stream=stream, model="vllm/qwen3-8b", **wish)
    on = await ask(dialects, stream=stream, model="vllm/qwen3-8b", **ON)

    assert [item["type"] for item in wrong["output"]] == ["message"]
    assert text_of(wrong) == "It is."
    assert (thought_of(right), text_of(right)) == ("First this.", "So it is.")
    assert (thought_of(on), text_of(on)) == ("hm", "")


async def test_an_answer_streams_though_thinking_might_have_been_in_it(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    """The first answer shows that this server does not begin inside the thinking; from then on text need not wait."""
    upstream.script(Reply.say("It ", "is."), Reply.say("It ", "is."))

    first = await streamed(dialects, model="sglang/qwen3.6-plus")
    judged = await streamed(dialects, model="sglang/qwen3.6-plus")

    assert first.text == judged.text == "It is."

    assert [event["delta"] for event in judged.events if event["type"] == "response.output_text.delta"] == [
        "It ",
        "is.",
    ]


async def test_thinking_streams_as_summary_events(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=COMES["reasoning_content"]))

    judged = await streamed(dialects)

    assert judged.types[3:7] == [
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
    ]
    assert judged.events[-1]["response"]["output"][0]["summary"] == [{"type": "summary_text", "text": "First this."}]


async def test_a_setting_streams_it_as_text(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(Reply(pieces=COMES["reasoning_content"]), Reply.say("Yes."))
    with running_gateway(tmp_path, upstream.url, reasoning_events="text") as gateway:
        judged = await streamed(gateway, model="qwen3-8b")
        item = judged.events[-1]["response"]["output"][0]
        again = await ask(
            gateway, model="qwen3-8b", input=[QUESTION, *judged.events[-1]["response"]["output"], QUESTION]
        )

    assert "response.reasoning_text.delta" in judged.types
    assert not any("summary" in kind for kind in judged.types)
    assert (item["summary"], item["content"]) == ([], [{"type": "reasoning_text", "text": "First this."}])
    assert text_of(again) == "Yes."


def thoughts_sent(upstream: ScriptedUpstream) -> list[str | None]:
    """The thinking of each assistant message in the newest request."""
    messages = [message for message in sent(upstream)["messages"] if message["role"] == "assistant"]
    return [message.get("reasoning_content") or message.get("reasoning") for message in messages]


LOOP = [
    Reply(pieces=[Thought("I need it."), Call("weather")]),
    Reply(pieces=[Thought("Now I know."), Text("Sunny.")]),
    Reply.say("Yes."),
]


@pytest.mark.parametrize(
    ("model", "inside", "later"),
    [
        ("dashscope/qwen-plus", ["I need it."], [None, None]),
        ("dashscope/qwen3.7-plus", ["I need it."], ["I need it.", "Now I know."]),
        ("vllm/qwen3-8b", ["I need it."], [None, None]),
        ("vllm/qwen3.7-plus", ["I need it."], ["I need it.", "Now I know."]),
        ("llamacpp/qwen3-8b", ["I need it."], [None, None]),
        ("ollama/qwen3-8b", ["I need it."], [None, None]),
        ("openai/qwen3-8b", [None], [None, None]),
    ],
)
@pytest.mark.parametrize("chained", [True, False])
async def test_thinking_is_replayed_inside_tool_loops_and_later_only_where_the_family_wants_it(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, inside: list[str], later: list[str], *, chained: bool
) -> None:
    upstream.script(*LOOP)
    tools = [function("weather")]
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}

    first = await ask(dialects, model=model, tools=tools, input=[QUESTION], enable_thinking=True)
    second_input = [output] if chained else [QUESTION, *first["output"], output]
    link = {"previous_response_id": first["id"]} if chained else {}
    second = await ask(dialects, model=model, tools=tools, input=second_input, enable_thinking=True, **link)
    assert thoughts_sent(upstream) == inside

    third_input = [QUESTION] if chained else [*second_input, *second["output"], QUESTION]
    link = {"previous_response_id": second["id"]} if chained else {}
    await ask(dialects, model=model, tools=tools, input=third_input, enable_thinking=True, **link)
    assert thoughts_sent(upstream) == later
    assert not any("I need it" in str(message.get("content")) for message in sent(upstream)["messages"])


async def test_thinking_that_a_client_replays_as_tags_is_thinking(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    said = {"role": "assistant", "content": "<think>\nI know.\n</think>\n\nYes."}

    await ask(dialects, model="dashscope/qwen3.7-plus", input=[QUESTION, said, QUESTION])

    assistant = sent(upstream)["messages"][1]
    assert (assistant["reasoning_content"], assistant["content"]) == ("I know.", "Yes.")


SEALED: Json = {"store": False, "include": ["reasoning.encrypted_content"]}


async def sealed(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool, model: str = "dashscope/qwen3.7-plus"
) -> Json:
    """A reasoning item with sealed thinking and without the readable one, as clients that hide it send it back."""
    upstream.script(Reply(pieces=[Thought("The secret plan."), Text("Yes.")]))
    response = await ask(dialects, model=model, stream=stream, **SEALED)
    item = response["output"][0]
    assert "secret" not in item["encrypted_content"]
    return {**item, "summary": [], "content": None}


@pytest.mark.parametrize("stream", [False, True])
async def test_sealed_thinking_comes_back(dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool) -> None:
    item = await sealed(dialects, upstream, stream=stream)
    answer = await post(
        dialects,
        model="dashscope/qwen3.7-plus",
        input=[QUESTION, item, {"role": "assistant", "content": "Yes."}, QUESTION],
        **SEALED,
    )

    assert answer.status_code == 200
    assert "warning" not in answer.headers
    assert thoughts_sent(upstream) == ["The secret plan."]


async def test_without_the_wish_nothing_is_sealed(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Thought("Plan."), Text("Yes.")]))

    assert "encrypted_content" not in (await ask(dialects))["output"][0]


@pytest.mark.parametrize("blob", ["gAAAAABforeign", "", "gwr1.AAAA", "gwr1." + "A" * 200, "\x01"])
async def test_a_foreign_seal_is_left_out_with_a_warning(
    dialects: Gateway, upstream: ScriptedUpstream, blob: str
) -> None:
    item: Json = {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": blob}

    answer = await post(
        dialects,
        model="dashscope/qwen3.7-plus",
        input=[QUESTION, item, {"role": "assistant", "content": "Yes."}, QUESTION],
    )

    assert answer.status_code == 200, answer.text
    assert ("warning" in answer.headers) == bool(blob)
    assert thoughts_sent(upstream) == [None]


async def test_a_seal_opens_for_its_own_model_only(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    item = await sealed(dialects, upstream, stream=False)

    answer = await post(
        dialects,
        model="dashscope/qwen3.6-plus",
        input=[QUESTION, item, {"role": "assistant", "content": "Yes."}, QUESTION],
    )

    assert answer.status_code == 200
    assert "encrypted reasoning" in answer.headers["warning"]
    assert thoughts_sent(upstream) == [None]


async def test_a_seal_opens_for_its_own_project_only(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream.url, authentication="false") as gateway:
        upstream.script(Reply(pieces=[Thought("The secret plan."), Text("Yes.")]))
        item = (await ask(gateway, model="qwen3.7-plus", **SEALED))["output"][0]
        conversation: list[Json] = [
            QUESTION,
            {**item, "summary": []},
            {"role": "assistant", "content": "Yes."},
            QUESTION,
        ]
        async with gateway.http() as http:
            http.headers.pop("authorization")  # without a key one is another project
            answer = await http.post("/v1/responses", json={"model": "qwen3.7-plus", "input": conversation})

    assert answer.status_code == 200
    assert "encrypted reasoning" in answer.headers["warning"]
    assert thoughts_sent(upstream) == [None]
