"""Requests that no client should send: always a 4xx in the envelope that names the place, never a 500, nothing stored
by halves.
"""

from __future__ import annotations

import json
from typing import Any, cast

import httpx
import pytest

from tests.support.e2e_dialects import ask, error_of, function, post, send, sent, text_of, with_field
from tests.support.gateway import Gateway
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
LIMIT = 32 * 1024 * 1024


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest) -> Gateway:
    """A gateway on each database: Postgres minds characters that SQLite takes."""
    return cast("Gateway", request.getfixturevalue("dialects" if request.param == "sqlite" else "postgres_gateway"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b'{"model":"vllm/other","input":"Hi"',
        b'{"model":"vllm/other" "input":"Hi"}',
        b"{'model':'m'}",
        b"\x00",
        b'{"model":"vllm/other","input":"Hi"}}',
        b'{"model":"vllm/other","input":NaN}',
        b'{"input":"\x01","model":"vllm/other"}',
        b'\xef\xbb\xbf{"model":"vllm/other","input":"Hi"}',
        b"\xff\xfe{\x00}\x00",
        b'{"model":"vllm/other","input":"\xff"}',
        b'{"model":"vllm/other","input":"Hi","client_metadata":{"a":"\xff"}}',
        b'{"model":"vllm/other","input":[{"role":"user","content":"Hi","more":"\xc3("}]}',
    ],
)
async def test_what_is_no_json(dialects: Gateway, upstream: ScriptedUpstream, body: bytes) -> None:
    error = error_of(await send(dialects, body), 400)

    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "json_parse_error", None)
    assert not upstream.requests


@pytest.mark.parametrize("body", [b"[]", b"null", b'"Hi"', b"5", b"true"])
async def test_what_is_no_object(dialects: Gateway, upstream: ScriptedUpstream, body: bytes) -> None:
    error = error_of(await send(dialects, body), 400)

    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_type")
    assert not upstream.requests


STRINGS = [
    "model",
    "instructions",
    "previous_response_id",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "truncation",
]
FLAGS = ["stream", "store", "parallel_tool_calls", "enable_thinking", "background"]
NUMBERS = ["temperature", "top_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "min_p"]
INTEGERS = ["max_output_tokens", "max_tool_calls", "top_logprobs", "top_k", "seed"]
OBJECTS = ["text", "reasoning", "metadata", "stream_options"]
LISTS = ["tools", "include"]
WRONG: list[tuple[str, bytes]] = [
    *((name, raw) for name in STRINGS for raw in (b"5", b"[]", b"{}", b"true")),
    *((name, raw) for name in FLAGS for raw in (b"1", b'"true"', b"[]", b"{}")),
    *((name, raw) for name in NUMBERS for raw in (b'"1"', b"[]", b"true", b"1e400", b"-1e400", b"1" + b"0" * 5000)),
    *(
        (name, raw)
        for name in INTEGERS
        for raw in (b'"1"', b"[]", b"true", b"17.5", b"1e400", b"1" + b"0" * 5000, b"-1" + b"0" * 30)
    ),
    *((name, raw) for name in OBJECTS for raw in (b'"x"', b"5", b"[5]", b"true")),
    *((name, raw) for name in LISTS for raw in (b'"x"', b"5", b'{"a":1}', b"[5]", b"[[]]", b"[null]")),
    *(("input", raw) for raw in (b"5", b"true", b"{}", b"[5]", b"[[]]", b'["Hi"]', b"[null]", b"[]")),
    *(("tool_choice", raw) for raw in (b"5", b"true", b"[]", b'"x"', b"{}")),
]


@pytest.mark.parametrize(("name", "raw"), WRONG)
async def test_a_wrong_type_is_refused_by_name(
    dialects: Gateway, upstream: ScriptedUpstream, name: str, raw: bytes
) -> None:
    error = error_of(await send(dialects, with_field(name, raw)), 400)

    assert error["type"] == "invalid_request_error"
    assert error["code"]
    assert error["param"].split(".")[0].split("[")[0] == name
    assert not upstream.requests


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"content": "Hi"}, "input[1].role"),
        ({"role": "robot", "content": "Hi"}, "input[1].role"),
        ({"role": 5, "content": "Hi"}, "input[1].role"),
        ({"role": "user"}, "input[1].content"),
        ({"role": "user", "content": 5}, "input[1].content"),
        ({"role": "user", "content": [5]}, "input[1].content[0]"),
        ({"role": "user", "content": [{"text": "Hi"}]}, "input[1].content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[1].content[0].text"),
        ({"role": "user", "content": [{"type": "input_text", "text": 5}]}, "input[1].content[0].text"),
        ({"role": "user", "content": [{"type": "input_audio", "data": ""}]}, "input[1].content[0].type"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "input[1].content[0].image_url"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]},
            "input[1].content[0].image_url",
        ),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}, "input[1].content[0].file_id"),
        ({"role": "system", "content": [{"type": "input_image", "image_url": "https://a/b.png"}]}, "input[1].content"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[1].call_id"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input[1].name"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}, "input[1].arguments"),
        ({"type": "function_call_output", "output": "x"}, "input[1].call_id"),
        ({"type": "function_call_output", "call_id": "c", "output": 5}, "input[1].output"),
        ({"type": "reasoning", "summary": "x"}, "input[1].summary"),
        ({"type": "computer_call", "id": "cu_1"}, "input[1].type"),
        ({"type": "bogus"}, "input[1].type"),
        ({"type": 5}, "input[1].type"),
        ({"type": "item_reference"}, "input"),
        ({"type": "item_reference", "id": 5}, "input[1].id"),
        ({}, "input[1].role"),
    ],
)
async def test_an_item_that_is_none_is_refused_with_its_place(
    dialects: Gateway, upstream: ScriptedUpstream, fields: Json, param: str
) -> None:
    error = error_of(await post(dialects, input=[{"role": "user", "content": "Hi"}, fields]), 400)

    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert not upstream.requests


@pytest.mark.parametrize("name", ["enable_thinkin", "max_tokens", "messages", "", "\x01", "输入", "x" * 10_000])
async def test_an_unknown_field_is_refused_by_name(dialects: Gateway, upstream: ScriptedUpstream, name: str) -> None:
    error = error_of(await post(dialects, **{name: 1}), 400)

    assert (error["code"], error["param"]) == ("unknown_parameter", name or None)
    assert not upstream.requests


NESTED_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"text": {"type": "json_object"}}, "text.type", "text.format"),
    ({"text": {"format": {"type": "json_object", "schema": {}}}}, "text.format.schema", "json_schema"),
    ({"text": {"format": {"type": "json_schema", "json_schema": {}}}}, "text.format.json_schema", "beside 'type'"),
    ({"reasoning": {"effort": "low", "budget": 5}}, "reasoning.budget", ""),
    ({"stream_options": {"usage": True}}, "stream_options.usage", ""),
    ({"tools": [{**function("f"), "input_schema": {}}]}, "tools[0].input_schema", "parameters"),
    ({"tools": [{"type": "custom", "name": "c", "grammar": "x"}]}, "tools[0].grammar", ""),
    (
        {"tools": [{"type": "namespace", "name": "n", "tools": [{**function("f"), "return": {}}]}]},
        "tools[0].tools[0].return",
        "",
    ),
    (
        {"tools": [function("f")], "tool_choice": {"type": "function", "name": "f", "force": True}},
        "tool_choice.force",
        "",
    ),
]


@pytest.mark.parametrize(("fields", "param", "words"), NESTED_FIELDS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_field_inside_another_is_refused_by_name(
    dialects: Gateway, upstream: ScriptedUpstream, fields: Json, param: str, words: str, *, stream: bool
) -> None:
    error = error_of(await post(dialects, stream=stream, **fields), 400)

    assert (error["code"], error["param"]) == ("unknown_parameter", param)
    assert words in error["message"]
    assert not upstream.requests


@pytest.mark.parametrize(
    ("missing", "code"), [("model", "missing_required_parameter"), ("input", "missing_required_parameter")]
)
@pytest.mark.parametrize("null", [True, False])
async def test_what_is_missing_is_named(
    dialects: Gateway, upstream: ScriptedUpstream, missing: str, code: str, *, null: bool
) -> None:
    request: Json = {"model": "vllm/other", "input": "Hi"}
    request = (
        {**request, missing: None} if null else {name: value for name, value in request.items() if name != missing}
    )

    error = error_of(await send(dialects, json.dumps(request).encode()), 400)

    assert (error["code"], error["param"]) == (code, missing)
    assert not upstream.requests


@pytest.mark.parametrize("model", ["", "\x00", "a\nb", "x" * 257])
async def test_a_model_that_is_no_name(dialects: Gateway, upstream: ScriptedUpstream, model: str) -> None:
    error = error_of(await post(dialects, model=model), 400)

    assert error["param"] == "model"
    assert not upstream.requests


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "sk-x", "Basic dXNlcjpw", "Bearer sk-unknown", "Bearer \xff\xfe"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/x"),
        ("DELETE", "/v1/responses/x"),
        ("GET", "/v1/responses/x/input_items"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/x"),
    ],
)
async def test_without_a_good_key(
    dialects: Gateway, upstream: ScriptedUpstream, authorization: str | None, method: str, path: str
) -> None:
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}
    async with httpx.AsyncClient(base_url=dialects.base_url) as http:
        error = error_of(await http.request(method, path, headers=headers, json={} if method == "POST" else None), 401)

    assert error["type"] == "authentication_error"
    assert error["code"] in ("missing_api_key", "invalid_api_key")
    assert not upstream.requests


IDS = [
    "x",
    "resp_",
    "resp_x",
    "%00",
    "%FF",
    "a%2Fb",
    "..",
    "msg_1",
    "0" * 128,
    "x" * 129,
    "%F0%9F%98%80",
    "%0d%0aa:b",
    "'; DROP TABLE responses;--",
]


@pytest.mark.parametrize("response_id", IDS)
@pytest.mark.parametrize(
    ("method", "tail"), [("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("GET", "/input_items")]
)
async def test_an_impossible_id_is_not_found(served: Gateway, response_id: str, method: str, tail: str) -> None:
    async with served.http() as http:
        answer = await http.request(method, f"/v1/responses/{response_id}{tail}")

    assert answer.status_code in (400, 404), answer.text
    error = error_of(answer, answer.status_code)
    assert error["type"] == "invalid_request_error"
    assert error["code"]


@pytest.mark.parametrize(
    "name", ["x", "", "..", "resp_%00", "x" * 100_000, "😀", "msg_1", "01a20494-5a6a-74ea-8c07-06fce9afa86b"]
)
async def test_an_impossible_predecessor(served: Gateway, upstream: ScriptedUpstream, name: str) -> None:
    error = error_of(await post(served, previous_response_id=name), 400)

    assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")
    assert not upstream.requests


@pytest.mark.parametrize(
    "name", ["x", "..", "msg_%00", "x" * 100_000, "😀", "msg_01a204945a6a74ea8c0706fce9afa86b00000000b0eb4b5e"]
)
async def test_an_impossible_reference(served: Gateway, upstream: ScriptedUpstream, name: str) -> None:
    error = error_of(await post(served, input=[{"type": "item_reference", "id": name}]), 400)

    assert error["param"] == "input"
    assert "not found" in error["message"]
    assert not upstream.requests


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=-1",
        "limit=1e3",
        "limit=" + "9" * 5000,
        "order=up",
        "order=",
        "after=nothing",
        "before=nothing",
        "after=%00",
        "before=%FF",
        "after=" + "x" * 300,
    ],
)
async def test_an_impossible_page(dialects: Gateway, upstream: ScriptedUpstream, query: str) -> None:
    response = await ask(dialects)
    async with dialects.http() as http:
        error = error_of(await http.get(f"/v1/responses/{response['id']}/input_items?{query}"), 400)

    assert (error["type"], error["param"]) == ("invalid_request_error", query.split("=", maxsplit=1)[0])
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "query", ["stream=maybe", "starting_after=x", "starting_after=-2", "starting_after=" + "9" * 5000]
)
async def test_an_impossible_look_up(dialects: Gateway, upstream: ScriptedUpstream, query: str) -> None:
    response = await ask(dialects)
    async with dialects.http() as http:
        error = error_of(await http.get(f"/v1/responses/{response['id']}?stream=true&{query}"), 400)

    assert error["param"] == query.split("=", maxsplit=1)[0]
    assert len(upstream.requests) == 1


CONTROLS = "".join(map(chr, range(1, 32))) + "\x7f\x80\u2028\u2029\ufeff\uffff😀"


async def test_control_characters_everywhere(served: Gateway, upstream: ScriptedUpstream) -> None:
    """They are text like any other: stored, listed, sent on, and found again."""
    upstream.default = Reply.say(CONTROLS)
    item = {
        "id": f"mine-{CONTROLS}",
        "role": "user",
        "content": [{"type": "input_text", "text": CONTROLS}],
        CONTROLS: CONTROLS,
    }
    labels: Json = {
        "metadata": {CONTROLS: CONTROLS},
        "user": CONTROLS,
        "prompt_cache_key": CONTROLS,
        "safety_identifier": CONTROLS,
    }
    tool = function("f", description=CONTROLS)

    answer = await post(served, instructions=CONTROLS, input=[item], tools=[tool], **labels)

    assert answer.status_code == 200, answer.text
    response = answer.json()
    assert {name: response[name] for name in labels} == labels
    assert text_of(response) == CONTROLS
    async with served.http() as http:
        assert (await http.get(f"/v1/responses/{response['id']}")).json() == response
        listed = (await http.get(f"/v1/responses/{response['id']}/input_items")).json()["data"]
    assert listed[0][CONTROLS] == CONTROLS
    assert (await post(served, previous_response_id=response["id"], input=CONTROLS)).status_code == 200
    system, *messages = [message["content"] for message in sent(upstream)["messages"]]
    assert [system, *messages] == [CONTROLS, CONTROLS, CONTROLS]


@pytest.mark.parametrize("stream", [False, True])
async def test_ten_thousand_items(dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool) -> None:
    roles = ("user", "assistant")
    answer = await post(
        dialects, stream=stream, input=[{"role": roles[i % 2], "content": str(i)} for i in range(10_000)]
    )

    assert answer.status_code == 200
    assert len(sent(upstream)["messages"]) == 10_000


async def test_one_item_more(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    error = error_of(await post(dialects, input=[{"role": "user", "content": "x"}] * 10_001), 400)

    assert (error["type"], error["param"]) == ("invalid_request_error", "input")
    assert not upstream.requests


async def test_too_many_tools(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    error = error_of(await post(dialects, tools=[function(f"f{i}") for i in range(257)]), 400)

    assert error["param"] == "tools"
    assert not upstream.requests


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/v1/responses/x"), ("GET", "/v1/nothing"), ("POST", "/v1/models"), ("GET", "/v1/responses")],
)
async def test_a_wrong_address(dialects: Gateway, method: str, path: str) -> None:
    async with dialects.http() as http:
        answer = await http.request(method, path)

    assert answer.status_code in (404, 405)
    assert error_of(answer, answer.status_code)["type"] == "invalid_request_error"


async def test_nothing_of_all_this_was_a_mistake_of_the_gateway(dialects: Gateway) -> None:
    assert "Traceback" not in dialects.log()
