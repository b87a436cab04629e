"""What an answer is taken for: its content type counts in any case of letters, and where it is missing or wrong, the
body does.
"""

from __future__ import annotations

import json
from contextlib import aclosing

import pytest

from app.protocol.deltas import Delta, Text, TurnFinished
from app.protocol.messages import User
from app.providers.base import ModelCall, Provider, UpstreamError
from app.providers.dashscope_responses import PROVIDER as RESPONSES
from app.providers.facts import facts
from app.providers.openai import PROVIDER as CHAT
from app.providers.spec import ProviderSpec
from app.settings import Upstream
from tests.providers.chat_stream import chunk, event, whole
from tests.providers.raw_http import OK, Peer, Server, answering_once, serve

HI = [Text("Hi"), TurnFinished("stop")]
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}
COMPLETED = {"object": "response", "status": "completed", "output": [MESSAGE]}
STREAMS = {
    CHAT: chunk({"content": "Hi"}) + chunk({}, "stop") + b"data: [DONE]\n\n",
    RESPONSES: event({"type": "response.output_text.delta", "delta": "Hi"})
    + event({"type": "response.completed", "response": COMPLETED}),
}
WHOLE = {CHAT: whole({"content": "Hi"}), RESPONSES: json.dumps(COMPLETED).encode()}
dialects = pytest.mark.parametrize("spec", [CHAT, RESPONSES], ids=lambda spec: spec.dialect)
streamed = pytest.mark.parametrize("stream", [True, False])


def connected(spec: ProviderSpec, server: Server) -> Provider:
    settings = {"base_url": f"http://127.0.0.1:{server.port}/v1", "api_key": "k", "name": "v", "dialect": spec.dialect}
    return spec.build(Upstream.model_validate(settings), facts)


async def answer(spec: ProviderSpec, body: bytes, *, stream: bool, kind: str | None) -> list[Delta]:
    """What comes of a body announced as `kind`."""
    label = b"" if kind is None else b"Content-Type: %b\r\n" % kind.encode()
    reply = OK + label + b"Content-Length: %d\r\n\r\n" % len(body) + body
    call = ModelCall(model="m", messages=[User("Hi")], stream=stream)
    async with (
        serve(answering_once(reply)) as server,
        aclosing(connected(spec, server)) as provider,
        aclosing(provider.stream(call)) as batches,
    ):
        return [delta async for batch in batches for delta in batch]


KINDS = [
    None,
    "",
    "text/event-stream",
    "Text/Event-Stream; Charset=UTF-8",
    "application/json",
    "Application/JSON",
    "application/octet-stream",
    "text/plain",
]


@dialects
@streamed
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_however_it_is_announced(spec: ProviderSpec, kind: str | None, *, stream: bool) -> None:
    assert await answer(spec, STREAMS[spec], stream=stream, kind=kind) == HI


@dialects
@streamed
@pytest.mark.parametrize("kind", KINDS)
async def test_a_whole_answer_however_it_is_announced(spec: ProviderSpec, kind: str | None, *, stream: bool) -> None:
    assert await answer(spec, WHOLE[spec], stream=stream, kind=kind) == HI


@dialects
@streamed
@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_however_it_is_announced(spec: ProviderSpec, kind: str | None, *, stream: bool) -> None:
    for body in (
        b'{"code":"Throttling","message":"Slow down."}',
        b':HTTP_STATUS/429\ndata:{"code":"Odd","message":"Slow down."}\n\n',
    ):
        with pytest.raises(UpstreamError, match="Slow down") as caught:
            await answer(spec, body, stream=stream, kind=kind)

        assert caught.value.status == 429


@dialects
async def test_a_stream_in_capital_letters_is_not_held_back(spec: ProviderSpec) -> None:
    first = STREAMS[spec][: STREAMS[spec].index(b"\n\n") + 2]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(
            OK
            + b"Content-Type: TEXT/EVENT-STREAM\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(first), first)
        )
        await peer.gone()

    async with serve(script) as server, aclosing(connected(spec, server)) as provider:
        async with aclosing(provider.stream(ModelCall(model="m", messages=[User("Hi")]))) as batches:
            assert list(await anext(batches)) == [Text("Hi")]
        await server.saw_departure()
