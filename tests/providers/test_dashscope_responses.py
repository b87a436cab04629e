"""The vendor's Responses face as an upstream, over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import pytest

from app.protocol.deltas import Delta, Text
from app.protocol.messages import User
from app.providers.base import ModelCall, Thinking, UpstreamError, UpstreamProtocolError
from app.providers.dashscope_responses import PROVIDER, ResponsesProvider
from app.providers.facts import facts
from app.settings import Upstream
from tests.providers.raw_http import CHUNKED, answering, serve
from tests.providers.responses_stream import COMPLETED, CREATED, FAILED, STARTED, STOPPED, Json, frames, text
from tests.support.script import Cut, Gate, Raw, Reply
from tests.support.upstream import ScriptedUpstream

CALL = ModelCall(model="qwen3.7-plus", messages=[User("Hi")])


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[ResponsesProvider]:
    settings = {"base_url": url, "api_key": "sk-test", "dialect": PROVIDER.dialect, "name": "vendor"}
    built = PROVIDER.build(Upstream.model_validate(settings), facts)
    assert isinstance(built, ResponsesProvider)
    yield built
    await built.aclose()


@pytest.fixture
async def provider(upstream: ScriptedUpstream) -> AsyncGenerator[ResponsesProvider]:
    async with connected(upstream.url) as built:
        yield built


def streaming(*pieces: bytes | Cut | Gate) -> Reply:
    return Reply(pieces=[Raw(piece) if isinstance(piece, bytes) else piece for piece in pieces])


async def run(provider: ResponsesProvider, call: ModelCall = CALL) -> list[Delta]:
    async with aclosing(provider.stream(call)) as batches:
        return [delta async for batch in batches for delta in batch]


async def test_a_turn_over_a_socket(provider: ResponsesProvider, upstream: ScriptedUpstream) -> None:
    upstream.script(streaming(frames(CREATED, STARTED), frames(text("Hi")), frames(text(" there"), COMPLETED)))

    assert await run(provider) == [Text("Hi"), Text(" there"), STOPPED]
    request = upstream.requests[0]
    assert (request.path, request.headers["authorization"], request.body["store"]) == (
        "/v1/responses",
        "Bearer sk-test",
        False,
    )


async def test_the_last_event_may_lack_its_blank_line(provider: ResponsesProvider, upstream: ScriptedUpstream) -> None:
    upstream.script(streaming(frames(text("Hi"), COMPLETED).rstrip(b"\n")))

    assert await run(provider) == [Text("Hi"), STOPPED]


async def test_deltas_are_not_held_back(provider: ResponsesProvider, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(streaming(frames(text("Hi")), gate, frames(COMPLETED)))

    async with aclosing(provider.stream(CALL)) as batches:
        assert list(await anext(batches)) == [Text("Hi")]
        gate.open()
        assert [delta async for batch in batches for delta in batch] == [STOPPED]


async def test_closing_the_iterator_hangs_up(provider: ResponsesProvider, upstream: ScriptedUpstream) -> None:
    upstream.script(streaming(frames(text("Hi")), Gate()))

    async with aclosing(provider.stream(CALL)) as batches:
        await anext(batches)

    assert (await upstream.hang_up()).path == "/v1/responses"


async def test_a_cut_stream_fails_after_what_it_brought(
    provider: ResponsesProvider, upstream: ScriptedUpstream
) -> None:
    upstream.script(streaming(frames(text("Hi")), Cut()))

    async with aclosing(provider.stream(CALL)) as batches:
        assert list(await anext(batches)) == [Text("Hi")]
        with pytest.raises(UpstreamProtocolError):
            await anext(batches)


async def test_a_stream_without_an_end_fails(provider: ResponsesProvider, upstream: ScriptedUpstream) -> None:
    upstream.script(streaming(frames(text("Hi"))))

    with pytest.raises(UpstreamProtocolError, match="terminal event"):
        await run(provider)


async def test_the_connection_is_used_again() -> None:
    answer = frames(text("Hi"), COMPLETED)
    turn = CHUNKED + b"%x\r\n%b\r\n" % (len(answer), answer)

    async with (
        serve(answering(turn, b"0\r\n\r\n")) as server,
        connected(f"http://127.0.0.1:{server.port}/v1") as provider,
    ):
        assert await run(provider) == await run(provider) == [Text("Hi"), STOPPED]

    assert (len(server.requests), server.connections) == (2, 1)


async def test_an_error_inside_the_stream(provider: ResponsesProvider, upstream: ScriptedUpstream) -> None:
    upstream.script(streaming(frames(FAILED)))

    with pytest.raises(UpstreamError, match="Unsupported model") as caught:
        await run(provider)

    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (
            401,
            {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "1"},
            {},
            (502, "upstream_authentication", None),
        ),
        (
            429,
            {"code": "Throttling.RateQuota", "message": "Slow down.", "request_id": "1"},
            {"retry-after": "7"},
            (429, "rate_limit_exceeded", 7),
        ),
        (500, {"code": "InternalError", "message": "Oops.", "request_id": "1"}, {}, (502, "upstream_error", None)),
        (200, {"code": "InternalError", "message": "No gRPC response received"}, {}, (502, "upstream_error", None)),
    ],
)
async def test_an_error_in_the_place_of_a_stream(
    provider: ResponsesProvider,
    upstream: ScriptedUpstream,
    status: int,
    body: Json,
    headers: dict[str, str],
    expected: tuple[int, str, float | None],
) -> None:
    upstream.script(Reply(status=status, body=json.dumps(body).encode(), headers=headers))

    with pytest.raises(UpstreamError) as caught:
        await run(provider)

    assert (caught.value.status, caught.value.code, caught.value.retry_after) == expected


async def test_thinking_is_not_mentioned_to_a_model_that_has_none(
    provider: ResponsesProvider, upstream: ScriptedUpstream
) -> None:
    upstream.script(streaming(frames(text("Hi"), COMPLETED)))

    await run(provider, ModelCall(model="qwen3-coder-plus", messages=[User("Hi")], thinking=Thinking(enabled=False)))

    assert "enable_thinking" not in upstream.requests[0].body


async def test_the_list_of_models(provider: ResponsesProvider) -> None:
    assert [model.id for model in await provider.models()] == ["qwen3-8b"]


def test_capabilities_name_what_this_face_cannot_do(provider: ResponsesProvider) -> None:
    capable = provider.capabilities("qwen3.7-max")

    assert (provider.name, provider.dialect) == ("vendor", "dashscope-responses")
    assert (capable.formats, capable.forced_calls, capable.forced_calls_while_thinking) == (
        frozenset(),
        {"named"},
        False,
    )
    assert (capable.thinks, capable.images, capable.context_window) == (True, False, 1_000_000)
    assert "web_search" in capable.native_tools
