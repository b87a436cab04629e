"""Every range, every refused parameter and every limit, by name."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.request.admission import Admitted
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import InputItem
from app.providers.base import JsonObject, JsonSchema, Sampling
from app.settings import Limits
from tests.engine.scripted import admitted

BOUNDS: list[tuple[str, list[float], list[float]]] = [
    ("temperature", [0, 0.7, 1.999], [-0.001, 2, 1e308]),
    ("top_p", [0.001, 1], [0, 1.001, -1]),
    ("presence_penalty", [-2, 0, 2], [-2.001, 2.001]),
    ("frequency_penalty", [-2, 0, 2], [-2.001, 2.001]),
    ("repetition_penalty", [0.001, 1.05, 10], [0, 10.001]),
    ("top_logprobs", [0, 20], [-1, 21]),
    ("max_output_tokens", [16, 2**31 - 1], [15, 0, -1, 2**31, 10**30]),
    ("max_tool_calls", [1, 2**31 - 1], [0, -1, 2**31]),
    ("top_k", [0, 20], [-1, 2**31]),
    ("min_p", [0, 0.05, 1], [-0.01, 1.01]),
    ("seed", [0, 2**63 - 1], [-1, 2**63]),
]


def refusal(*, limits: Limits | None = None, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        admitted(limits=limits, **fields)
    assert raised.value.status == 400
    return raised.value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, inside, _ in BOUNDS for value in inside])
def test_what_is_in_range_is_admitted(name: str, value: Any) -> None:
    assert getattr(admitted(**{name: value}).request, name) == value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, _, outside in BOUNDS for value in outside])
def test_what_is_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    error = refusal(**{name: value})
    assert error.param == name
    assert f"'{name}'" in error.message


def test_too_few_output_tokens_are_refused_in_the_words_of_the_api() -> None:
    error = refusal(max_output_tokens=10)
    assert (
        error.message
        == "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 10 instead."
    )
    assert error.code == "integer_below_min_value"


@pytest.mark.parametrize(
    "name",
    [
        "context_management",
        "prompt",
        "moderation",
        "access_programs",
        "image",
        "prompt_cache_options",
    ],
)
def test_parameters_that_are_not_served_are_refused_by_name(name: str) -> None:
    values: tuple[Any, ...] = ({"id": "x"}, "x", [], 0, False)
    for value in values:
        error = refusal(**{name: value})
        assert (error.param, error.code) == (name, "unsupported_parameter")
        assert f"'{name}'" in error.message
    nothing: dict[str, Any] = {name: None}
    assert isinstance(admitted(**nothing), Admitted)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    ],
)
def test_values_that_are_not_served_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.param, error.code) == (param, "unsupported_value")


@pytest.mark.parametrize(
    "fields",
    [
        {"background": False},
        {"reasoning": {"mode": "standard", "context": "auto"}},
        {"reasoning": {}},
        {"text": {}},
        {"text": {"format": {"type": "text"}}},
        {"service_tier": "auto"},
        {"truncation": "auto"},
        {"client_metadata": {"a": 1}},
        {"stream_options": {"include_obfuscation": False}},
        {"prompt_cache_retention": "24h"},
    ],
)
def test_what_asks_for_nothing_special_is_admitted(fields: dict[str, Any]) -> None:
    assert admitted(**fields).model == "m"


@pytest.mark.parametrize("name", ["model", "input"])
def test_model_and_input_are_demanded(name: str) -> None:
    nothing: dict[str, Any] = {name: None}
    error = refusal(**nothing)
    assert (error.message, error.code) == (f"Missing required parameter: '{name}'.", "missing_required_parameter")


@pytest.mark.parametrize("model", ["", "a" * 257, "a\nb", "a\x00"])
def test_an_impossible_model_name_is_refused(model: str) -> None:
    assert refusal(model=model).param == "model"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"user": "u" * 1025}, "user"),
        ({"safety_identifier": "u" * 1025}, "safety_identifier"),
        ({"prompt_cache_key": "u" * 1025}, "prompt_cache_key"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": "a"}] * 4}, "input"),
        ({"tools": [{"type": "function", "name": f"f{i}"} for i in range(3)]}, "tools"),
    ],
)
def test_sizes_are_limited(fields: dict[str, Any], param: str) -> None:
    assert refusal(limits=Limits(input_items=3, tools=2), **fields).param == param


def test_sizes_up_to_the_limit_are_admitted() -> None:
    metadata = {**{str(i): "" for i in range(15)}, "k" * 64: "v" * 512}
    items = [{"role": "user", "content": "a"}] * 3
    tools = [{"type": "function", "name": f"f{i}"} for i in range(2)]
    assert (
        admitted(limits=Limits(input_items=3, tools=2), metadata=metadata, input=items, tools=tools).request.metadata
        == metadata
    )


def test_a_string_is_one_user_message() -> None:
    (item,) = admitted(input='a"b').items
    assert item.fields == InputItem(type="message", role="user", content='a"b')
    assert bytes(item.raw) == b'{"type":"message","role":"user","content":[{"type":"input_text","text":"a\\"b"}]}'


def test_items_are_kept_as_sent_with_their_places() -> None:
    first, second = admitted(input=[{"role": "user", "content": "a", "x": 1}, {"id": "msg_1"}]).items
    assert (bytes(first.raw), first.place) == (b'{"role": "user", "content": "a", "x": 1}', "input[0]")
    assert (second.fields.type, second.fields.id, second.place) == ("item_reference", "msg_1", "input[1]")


def test_a_wrong_item_is_refused_with_its_place() -> None:
    assert refusal(input=[{"role": "user", "content": "a"}, {"content": 5}]).param == "input[1].content"


SHOT = {
    "type": "computer_call_output",
    "call_id": "c",
    "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,AA"},
}


@pytest.mark.parametrize(
    ("items", "at"),
    [
        ([{"type": "computer_call", "call_id": "c", "action": {"type": "wait"}}, SHOT], 0),
        ([{"role": "user", "content": "a"}, SHOT], 1),
        ([{"role": "user", "content": "a"}, {"type": "x", "output": 5}, {"content": 5}], 1),
    ],
)
def test_an_item_of_a_type_that_is_not_served_is_blamed_before_its_shape(items: list[dict[str, Any]], at: int) -> None:
    error = refusal(input=items)
    assert (error.param, error.code) == (f"input[{at}].type", "unsupported_value")
    assert f"'{items[at]['type']}'" in error.message


@pytest.mark.parametrize(("item", "param"), [("text", "input[0]"), ({"type": 5}, "input[0].type"), ([], "input[0]")])
def test_an_item_without_a_readable_type_is_refused_by_its_place(item: object, param: str) -> None:
    assert refusal(input=[item]).param == param


def test_sampling_holds_what_was_sent_and_nothing_else() -> None:
    assert admitted().sampling == Sampling()
    assert admitted(temperature=0, top_k=0, seed=0).sampling == Sampling(temperature=0, top_k=0, seed=0)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, 2),
    ],
)
def test_log_probabilities_are_asked_for_in_two_ways(fields: dict[str, Any], wanted: int | None) -> None:
    assert admitted(**fields).sampling.top_logprobs == wanted


def test_switches_have_the_defaults_of_the_api() -> None:
    plain = admitted()
    assert (plain.stream, plain.store, plain.seals) == (False, True, False)
    chosen = admitted(stream=True, store=False, include=["reasoning.encrypted_content"])
    assert (chosen.stream, chosen.store, chosen.seals) == (True, False, True)


def test_formats() -> None:
    assert admitted(text={"format": {"type": "json_object"}}).format == JsonObject()
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "description": "d", "strict": True}
    wanted = admitted(text={"format": schema}).format
    assert isinstance(wanted, JsonSchema)
    assert (wanted.name, bytes(wanted.schema), wanted.description, wanted.strict) == (
        "n",
        b'{"type": "object"}',
        "d",
        True,
    )


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"schema": {}}, "text.format.name"),
        ({"name": "n"}, "text.format.schema"),
        ({"name": "n", "schema": None}, "text.format.schema"),
    ],
)
def test_a_format_without_a_name_or_a_schema_is_refused(wanted: dict[str, Any], param: str) -> None:
    assert refusal(text={"format": {"type": "json_schema", **wanted}}).param == param


def test_tools_are_those_of_the_toolset() -> None:
    search = {"type": "web_search"}
    assert refusal(tools=[search]).param == "tools[0].type"
    assert admitted(tools=[search], lenient=True).tools.left_out == ("web_search",)
