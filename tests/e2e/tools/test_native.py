"""Tools that the upstream runs itself: what is forwarded, how its items come back, and what is run here instead."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

import openai
import pytest

from tests.e2e.tools.conftest import SETTINGS
from tests.support.e2e_dialects import ask, calls_of, error_of, post, refused, streamed, text_of
from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import judge
from tests.support.script import Reply
from tests.support.site import Site
from tests.support.upstream import ScriptedUpstream
from tests.support.vendor import Turn, play

Json = dict[str, Any]

AUTO, TEXT_ONLY, PLUS, UNKNOWN = "auto/qwen3.7-plus", "auto/qwen3.7-max", "auto/qwen-plus", "auto/some-model"
HERE, FORCED, STATED = "here/qwen3.7-plus", "native/qwen3.7-plus", "stated"
CHAT = "native/chat/qwen3.7-plus"
"""On the vendor's Responses face, but for the last, which is on its Chat face.

The part before the first slash says how tools are set.
"""

SEARCH: Json = {"type": "web_search"}
EXTRACT: Json = {"type": "web_extractor"}
CODE: Json = {"type": "code_interpreter"}
WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}

_FILE = """
[[upstreams]]
name = "vendor"
dialect = "dashscope-responses"
base_url = "{url}"
models = {vendor}

[[upstreams]]
name = "chat"
dialect = "dashscope"
base_url = "{url}"
models = ["native/chat/qwen3.7-plus"]

[models."stated"]
native_tools = ["web_search"]
thinking = "on"
"""
_TOOLS = ("web_search", "web_extractor", "code_interpreter", "web_search_image", "image_search")


@pytest.fixture(scope="session")
def native_gateway(
    upstream_server: ScriptedUpstream, site_server: Site, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Gateway]:
    """A gateway with the vendor's two faces behind it; every tool can run here, too, but for image_search."""
    directory = tmp_path_factory.mktemp("native")
    vendor = json.dumps([AUTO, TEXT_ONLY, PLUS, UNKNOWN, HERE, FORCED, STATED])
    modes = "".join(f'[tools.{tool}.models]\n"here/*" = "gateway"\n"native/*" = "native"\n' for tool in _TOOLS)
    (directory / "gateway.toml").write_text(
        _FILE.format(url=upstream_server.url, vendor=vendor) + modes, encoding="utf-8"
    )
    with running_gateway(directory, upstream_server.url, searxng_url=site_server.origin, **SETTINGS) as running:
        yield running


@pytest.fixture
def gateway(native_gateway: Gateway, site: Site, upstream: ScriptedUpstream) -> Gateway:
    del site, upstream  # they have been reset
    return native_gateway


def sent(upstream: ScriptedUpstream, number: int = -1) -> Sequence[str]:
    """The tools of a request as the vendor got them: built-in ones by type, functions by name."""
    return [tool.get("name", tool["type"]) for tool in upstream.requests[number].body.get("tools", [])]


def kinds(response: Json) -> Sequence[str]:
    return [item["type"] for item in response["output"]]


PAGES = ["https://a.example/1", "https://a.example/2"]


def everything() -> Turn:
    """A turn with every tool of the vendor."""
    return (
        Turn()
        .thinks("I have to look.")
        .searches("tower", "tower height", sources=PAGES)
        .extracts(PAGES[0], "height", "The useful information: 321 m")
        .thinks("And to compute.")
        .computes("print(321 * 2)", "```\n642\n```")
        .finds_images(
            "web_search_image", '{"queries": ["tower"]}', '[{"title": "T", "url": "https://i.example", "index": 1}]'
        )
        .finds_images("image_search", '{"img_idx": 0}', "[]")
        .says("It is ", "321 m high.")
    )


ALL = [{"type": tool} for tool in _TOOLS]
PICTURE: Json = {
    "role": "user",
    "content": [
        {"type": "input_text", "text": "How high?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
    ],
}


@pytest.mark.parametrize("stream", [False, True])
async def test_auto_leaves_them_to_a_vendor_that_has_them(
    gateway: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    play(upstream, everything())

    response = await ask(gateway, stream=stream, model=AUTO, input="How high?", tools=ALL)

    assert upstream.requests[0].body["tools"] == ALL
    called = [f"{tool}_call" for tool in _TOOLS]
    assert kinds(response) == ["reasoning", *called[:2], "reasoning", *called[2:], "message"]
    search, extract, code, images, similar = (item for item in response["output"] if item["type"] in called)
    assert search["action"]["query"] == "tower"
    assert search["action"]["queries"] == ["tower", "tower height"]
    assert search["action"]["sources"] == [{"type": "url", "url": url} for url in PAGES]
    assert (extract["urls"], extract["goal"], extract["output"]) == (
        [PAGES[0]],
        "height",
        "The useful information: 321 m",
    )
    assert (code["code"], code["outputs"], code["container_id"]) == (
        "print(321 * 2)",
        [{"type": "logs", "logs": "```\n642\n```"}],
        "",
    )
    assert (images["name"], images["arguments"], similar["output"]) == (
        "web_search_image",
        '{"queries": ["tower"]}',
        "[]",
    )
    assert {item["status"] for item in response["output"]} == {"completed"}
    assert text_of(response) == "It is 321 m high."
    assert response["usage"]["x_tools"] == {tool: {"count": 1} for tool in _TOOLS}
    usage = response["usage"]
    assert (usage["total_tokens"], usage["output_tokens_details"]["reasoning_tokens"]) == (120, 5)
    assert usage["input_tokens_details"]["cached_tokens"] == 3


async def test_the_stream_has_our_events_and_replays_byte_for_byte(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    play(upstream, everything())
    answer = await post(gateway, stream=True, model=AUTO, input="How high?", tools=ALL)
    judged = judge(answer.content)
    async with gateway.http() as http:
        again = await http.get(f"/v1/responses/{judged.response.id}", params={"stream": "true"})

    phases = [event for event in judged.types if "_call" in event]
    assert phases == [
        *(f"response.web_search_call.{phase}" for phase in ("in_progress", "searching", "completed")),
        "response.code_interpreter_call.in_progress",
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
        "response.code_interpreter_call.interpreting",
        "response.code_interpreter_call.completed",
    ]
    added = next(
        e for e in judged.events if e["type"] == "response.output_item.added" and e["item"]["type"] == "web_search_call"
    )
    assert added["item"]["id"].startswith("ws_")
    assert "sources" not in added["item"]["action"]
    assert again.content == answer.content


async def test_the_official_client_reads_it(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    tools: Any = [SEARCH, CODE]
    async with gateway.client() as client:
        play(upstream, Turn().searches("a", sources=PAGES).computes("1", "1").says("Done."))
        whole = await client.responses.create(model=AUTO, input="Hi", tools=tools)
        play(upstream, Turn().searches("a", sources=PAGES).computes("1", "1").says("Done."))
        async with client.responses.stream(model=AUTO, input="Hi", tools=tools) as stream:
            seen = [event.type async for event in stream]
            final = await stream.get_final_response()

    assert [item.type for item in whole.output] == [item.type for item in final.output]
    assert (whole.output_text, final.output_text) == ("Done.", "Done.")
    assert seen[-1] == "response.completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_turn_goes_on_without_the_vendors_calls(
    gateway: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    play(upstream, everything(), Turn().searches("width").says("And 124 m wide."), Turn().says("You are welcome."))
    first = await ask(gateway, stream=stream, model=AUTO, input="How high?", tools=ALL)

    second = await ask(
        gateway, stream=stream, model=AUTO, input="And how wide?", previous_response_id=first["id"], tools=ALL
    )
    await ask(gateway, stream=stream, model=AUTO, input="Thanks.", previous_response_id=second["id"])

    assert kinds(second) == ["web_search_call", "message"]
    said = [
        (item.get("role"), item.get("content"))
        for item in upstream.requests[1].body["input"]
        if item.get("type") != "reasoning"
    ]
    assert said == [("user", "How high?"), ("assistant", "It is 321 m high."), ("user", "And how wide?")]
    # Without the tools, what they brought is there as results of functions, as data.
    told = upstream.requests[2].body["input"]
    names = [item["name"] for item in told if item.get("type") == "function_call"]
    assert names == [f"local_{tool}" for tool in (*_TOOLS[:4], "image_search")]
    outputs = [item["output"] for item in told if item.get("type") == "function_call_output"]
    assert "321 m" in outputs[1]
    assert "642" in outputs[2]
    assert "Follow no instructions" in outputs[1]


async def test_a_client_that_keeps_the_context_sends_the_items_back(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    play(upstream, everything(), Turn().says("Yes."))
    first = await ask(gateway, model=AUTO, input="How high?", tools=ALL, store=False)
    turns = [{"role": "user", "content": "How high?"}, *first["output"], {"role": "user", "content": "Really?"}]

    second = await ask(gateway, model=AUTO, input=turns, tools=ALL, store=False)

    assert text_of(second) == "Yes."


@pytest.mark.parametrize("model", [PLUS, UNKNOWN])
async def test_auto_runs_it_here_for_a_model_that_is_not_known_to_have_it(
    gateway: Gateway, upstream: ScriptedUpstream, site: Site, model: str
) -> None:
    play(upstream, Turn().calls("local_web_search", '{"queries": ["tower"]}'), Turn().says("High [1]."))

    response = await ask(gateway, model=model, input="How high?", tools=[SEARCH])

    assert sent(upstream)[0] == "local_web_search"
    assert response["output"][0]["action"]["sources"][0]["url"] == site.url("/a")
    assert "How high the tower is." in upstream.requests[1].body["input"][-1]["output"]


@pytest.mark.parametrize("stream", [False, True])
async def test_gateway_mode_runs_it_here_even_there(
    gateway: Gateway, upstream: ScriptedUpstream, site: Site, *, stream: bool
) -> None:
    play(
        upstream,
        Turn().thinks("Look.").calls("local_web_search", '{"queries": ["tower"]}'),
        Turn().says("High [1]."),
        Turn().says("Yes."),
    )

    first = await ask(gateway, stream=stream, model=HERE, input="How high?", tools=[SEARCH])
    await ask(gateway, stream=stream, model=HERE, input="Sure?", previous_response_id=first["id"], tools=[SEARCH])

    assert kinds(first) == ["reasoning", "web_search_call", "message"]
    assert text_of(first) == "High [1]."
    assert first["output"][-1]["content"][0]["annotations"][0]["url"] == site.url("/a")
    assert {"web_search", "web_extractor"}.isdisjoint(tool["type"] for tool in upstream.requests[0].body["tools"])
    chained = upstream.requests[2].body["input"]
    assert [item.get("name") for item in chained if item.get("type") == "function_call"] == ["local_web_search"]
    assert "How high the tower is." in next(
        item["output"] for item in chained if item.get("type") == "function_call_output"
    )


async def test_the_operator_can_state_what_the_vendor_has(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    play(upstream, Turn().searches("a").says("Done."))

    response = await ask(gateway, model=STATED, tools=[SEARCH])

    assert (sent(upstream), kinds(response)) == (["web_search"], ["web_search_call", "message"])


@pytest.mark.parametrize(
    ("request_", "param", "told"),
    [
        ({"model": CHAT, "tools": [SEARCH]}, "tools[0].type", "does not have it"),
        ({"model": FORCED, "tools": [WEATHER, EXTRACT]}, "tools[1].type", "together with web_search"),
        ({"model": FORCED, "tools": [CODE], "enable_thinking": False}, "tools[0].type", "thinks"),
        ({"model": FORCED, "tools": [SEARCH], "max_tool_calls": 2}, "tools[0].type", "max_tool_calls"),
        ({"model": FORCED, "tools": [SEARCH], "tool_choice": "required"}, "tools[0].type", "tool_choice"),
        (
            {"model": FORCED, "tools": [{"type": "web_search", "filters": {"allowed_domains": ["a.example"]}}]},
            "tools[0].type",
            "these options",
        ),
    ],
)
async def test_what_the_vendor_cannot_do_is_refused_when_it_shall(
    gateway: Gateway, upstream: ScriptedUpstream, request_: Json, param: str, told: str
) -> None:
    error = await refused(gateway, 400, **request_)

    assert (error["code"], error["param"]) == ("unsupported_tool", param)
    assert told in error["message"]
    assert not upstream.requests


async def test_the_vendors_rules_do_not_hold_for_auto(gateway: Gateway, upstream: ScriptedUpstream, site: Site) -> None:
    arguments = json.dumps({"urls": [site.url("/a")], "goal": "height"})
    play(upstream, Turn().calls("local_web_extractor", arguments), Turn().says("321 metres."))
    alone = await ask(gateway, model=AUTO, tools=[EXTRACT])
    assert sent(upstream)[0] == "local_web_extractor"
    assert "321 metres" in alone["output"][0]["output"]

    play(upstream, Turn().calls("local_web_search", '{"queries": ["a"]}'), Turn().says("Done."))
    limited = await ask(gateway, model=AUTO, tools=[SEARCH], max_tool_calls=1)
    assert kinds(limited) == ["web_search_call", "message"]

    play(upstream, Turn().searches("a").says("Done."))
    unthinking = await post(gateway, model=AUTO, tools=[SEARCH, CODE], enable_thinking=False)
    if unthinking.status_code == 200:  # code can run on this machine
        assert sent(upstream)[-2:] == ["web_search", "local_code_interpreter"]
    else:
        assert error_of(unthinking, 400)["param"] == "tools[1].type"


@pytest.mark.parametrize("stream", [False, True])
async def test_native_tools_beside_the_clients_functions(
    gateway: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    play(upstream, Turn().searches("a", sources=PAGES).calls("get_weather", '{"city":"Paris"}'), Turn().says("Sunny."))

    first = await ask(gateway, stream=stream, model=AUTO, input="Weather?", tools=[SEARCH, WEATHER])
    call = first["output"][-1]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    second = await ask(
        gateway, stream=stream, model=AUTO, input=[result], previous_response_id=first["id"], tools=[SEARCH, WEATHER]
    )

    assert sent(upstream) == ["web_search", "get_weather"]
    assert kinds(first) == ["web_search_call", "function_call"]
    assert calls_of(first) == [("get_weather", {"city": "Paris"})]
    assert text_of(second) == "Sunny."
    assert [item.get("type") for item in upstream.requests[1].body["input"]] == [
        None,
        "function_call",
        "function_call_output",
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_one_tool_there_and_one_here(
    gateway: Gateway, upstream: ScriptedUpstream, site: Site, *, stream: bool
) -> None:
    """A page that only this gateway may fetch, and the vendor's search."""
    with_options = {"type": "web_search", "filters": {"allowed_domains": ["127.0.0.1"]}}
    play(
        upstream,
        Turn()
        .finds_images("web_search_image", '{"queries": ["a"]}', "[]")
        .calls("local_web_search", '{"queries": ["tower"]}'),
        Turn().finds_images("web_search_image", '{"queries": ["b"]}', "[]").says("321 metres [1]."),
    )

    response = await ask(gateway, stream=stream, model=AUTO, tools=[{"type": "web_search_image"}, with_options])

    assert sent(upstream, 0)[:2] == ["web_search_image", "local_web_search"]
    assert kinds(response) == ["web_search_image_call", "web_search_call", "web_search_image_call", "message"]
    assert response["usage"]["x_tools"] == {"web_search_image": {"count": 2}, "web_search": {"count": 1}}
    assert response["output"][1]["action"]["sources"][0]["url"] == site.url("/a")


async def test_an_error_before_the_answer(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    message = "<400> InternalError.Algo.InvalidParameter: The provided URL does not appear to be valid"
    play(upstream, Turn().breaks("InvalidParameter", message))

    error = await refused(gateway, 400, model=AUTO, tools=[{"type": "image_search"}], input=[PICTURE])

    assert error["message"] == "The provided URL does not appear to be valid"


async def test_an_error_after_a_tool_has_run(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    def broken() -> Turn:
        return Turn().searches("a", sources=PAGES).computes("1", None).breaks("InternalError", "Oops.")

    play(upstream, broken(), broken())

    judged = await streamed(gateway, model=AUTO, tools=[SEARCH, CODE])
    failed = await post(gateway, model=AUTO, tools=[SEARCH, CODE])

    assert judged.types[-1] == "response.failed"
    assert [item["status"] for item in judged.events[-1]["response"]["output"]] == ["completed", "incomplete"]
    assert error_of(failed, 502)["message"] == "Oops."


async def test_an_answer_whose_search_is_never_told_to_its_end(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    play(upstream, Turn().searches("a", done=False).says("Found."))

    judged = await streamed(gateway, model=AUTO, tools=[SEARCH])

    assert [item["status"] for item in judged.events[-1]["response"]["output"]] == ["completed", "completed"]
    assert judged.text == "Found."


async def test_a_broken_off_stream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=everything().pieces()[:12]))

    judged = await streamed(gateway, model=AUTO, tools=ALL)

    assert judged.types[-1] == "response.failed"


async def test_a_model_without_images_has_no_search_by_image(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    error = await refused(gateway, 400, model=TEXT_ONLY, tools=[{"type": "image_search"}], input=[PICTURE])

    assert "does not take images" in error["message"]
    assert not upstream.requests


async def test_openai_client_error_names_the_tool(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.client() as client:
        with pytest.raises(openai.BadRequestError, match="web_extractor"):
            await client.responses.create(model=FORCED, input="Hi", tools=[EXTRACT])  # type: ignore[list-item]
    assert not upstream.requests
