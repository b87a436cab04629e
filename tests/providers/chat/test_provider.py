"""The Chat provider over real HTTP: what every dialect has in common."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.discovery import constants
from app.protocol.deltas import Delta, Text, TurnFinished
from app.protocol.messages import Assistant, Call, FilePart, Message, TextPart, ToolResult, User
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import ModelCall, Thinking, UpstreamError, UpstreamModel, UpstreamProtocolError
from app.providers.chat import provider as _openai_chat
from app.providers.facts import facts
from app.providers.spec import ProviderSpec
from app.providers.vllm import PROVIDER
from app.settings import ConfigurationError, Upstream
from tests.providers.chat_upstream import HELLO, Json, ask, encoded, parameters, provider, sample
from tests.providers.http.test_limits import certificate
from tests.providers.raw_http import OK, Peer, answering, serve
from tests.support import script
from tests.support.script import Cut, Gate, Raw, Reply
from tests.support.upstream import ScriptedUpstream, models_page

CALL = ModelCall(model="m", messages=HELLO)


# --- The request
# ---------------------------------------------------------------------------------------------------------------


async def test_the_body_is_spliced(upstream: ScriptedUpstream) -> None:
    """System first, then the prefix as it was encoded, then what is new."""
    async with aclosing(provider(PROVIDER, upstream.url, api_key="secret", headers={"X-Team": "a"})) as connected:
        prefix = connected.encode_messages((User("One"), Assistant("1")), reasoning=False)
        call = ModelCall(model='a "model"', system="Be brief.", prefix=prefix, messages=(User("Two"),))
        async with aclosing(connected.stream(call)) as batches:
            assert [batch async for batch in batches]

    request = upstream.requests[-1]
    assert request.path == "/v1/chat/completions"
    assert (request.headers["authorization"], request.headers["x-team"]) == ("Bearer secret", "a")
    assert request.headers["accept"] == "text/event-stream"
    assert request.body == {
        "model": 'a "model"',
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_message_of_texts_is_one_string() -> None:
    assert encoded(PROVIDER, User((TextPart("a"), TextPart("b")))) == [{"role": "user", "content": "a\nb"}]


def test_a_turn_that_left_nothing_is_left_out() -> None:
    turns = (User("a"), Assistant("", "Hm."), ToolResult("c", ""))

    assert [message["role"] for message in encoded(PROVIDER, *turns, reasoning=False)] == ["user", "tool"]
    assert [message["role"] for message in encoded(PROVIDER, *turns)] == ["user", "assistant", "tool"]


_words = st.text('ab"\\/\n\x00\u2028é中🚀', max_size=6)
_call = st.builds(Call, _words, _words, _words)
_message = (
    st.builds(User, _words)
    | st.builds(ToolResult, _words, _words)
    | st.builds(Assistant, _words, _words, st.lists(_call, max_size=3).map(tuple))
)


@given(st.lists(_message, max_size=5), st.booleans())
def test_every_message_is_written_whole(messages: list[Message], reasoning: bool) -> None:
    def wire(message: Message) -> Json:
        if isinstance(message, User):
            return {"role": "user", "content": message.content}
        if isinstance(message, ToolResult):
            return {"role": "tool", "tool_call_id": message.call_id, "content": message.content}
        calls = [
            {"id": c.call_id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.calls
        ]
        thought = {"reasoning": message.reasoning} if reasoning and message.reasoning else {}
        return {"role": "assistant", "content": message.text, **thought, **({"tool_calls": calls} if calls else {})}

    nothing = {"role": "assistant", "content": ""}
    assert encoded(PROVIDER, *messages, reasoning=reasoning) == [one for one in map(wire, messages) if one != nothing]


@pytest.mark.parametrize("system", [None, "S"])
@pytest.mark.parametrize("before", [(), (User("P"), Assistant("A"))])
@pytest.mark.parametrize(
    "messages", [(), (Assistant(""),), (Assistant(""), User("U")), (User("U"), ToolResult("c", "R"))]
)
async def test_what_is_not_there_leaves_no_comma(
    upstream: ScriptedUpstream, system: str | None, before: tuple[Message, ...], messages: tuple[Message, ...]
) -> None:
    prefix = provider(PROVIDER, "http://127.0.0.1:9/v1").encode_messages(before, reasoning=False)
    await ask(PROVIDER, upstream, ModelCall(model="m", system=system, prefix=prefix, messages=messages))

    expected = [
        *([system] if system else []),
        *("PA" if before else ""),
        *(m.content for m in messages if not isinstance(m, Assistant)),
    ]
    assert [message["content"] for message in upstream.requests[-1].body["messages"]] == expected


def test_no_messages_are_no_bytes() -> None:
    assert provider(PROVIDER, "http://127.0.0.1:9/v1").encode_messages((), reasoning=True) == b""


def test_a_file_is_refused_where_there_are_none() -> None:
    with pytest.raises(UpstreamError, match="cannot take files") as caught:
        encoded(PROVIDER, User((FilePart("a.pdf", file_data="data:application/pdf;base64,AA=="),)))

    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_file", "input")


@pytest.mark.parametrize("dialect", ["dashscope", "vllm", "sglang", "ollama", "llamacpp", "openai"])
@pytest.mark.parametrize("thinking", [Thinking(enabled=True), Thinking(effort="low"), Thinking(budget=9)])
@pytest.mark.parametrize("model", ["qwen3-8b", "qwen3-4b-thinking-2507", "somebody-elses"])
async def test_thinking_that_is_asked_for_is_never_left_out(
    upstream: ScriptedUpstream, dialect: str, thinking: Thinking, model: str
) -> None:
    spec = next(
        spec for spec in constants("app.providers", "PROVIDER", ProviderSpec).values() if spec.dialect == dialect
    )
    asked, unasked = [
        await parameters(spec, upstream, ModelCall(model=model, messages=HELLO, thinking=wanted))
        for wanted in (thinking, Thinking())
    ]

    assert asked != unasked


# --- The answer
# ----------------------------------------------------------------------------------------------------------------


async def test_a_batch_is_a_read(upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[script.Text("a"), gate, script.Text("b")]))
    async with aclosing(provider(PROVIDER, upstream.url)) as connected, aclosing(connected.stream(CALL)) as batches:
        first = await anext(batches)
        gate.open()
        rest = [delta async for batch in batches for delta in batch]

    assert list(first) == [Text("a")]
    assert rest == [Text("b"), TokenUsage(9, 4, 13), TurnFinished("stop")]


async def test_json_in_the_place_of_a_stream(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.json({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}))

    assert await ask(PROVIDER, upstream, CALL) == [Text("Hi"), TurnFinished("stop")]


async def test_a_json_error_in_the_place_of_a_stream(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.json({"code": "Throttling", "message": "Slow down."}))

    with pytest.raises(UpstreamError, match="Slow down") as caught:
        await ask(PROVIDER, upstream, CALL)

    assert caught.value.status == 429


async def test_an_http_error(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.error(503, {"error": {"message": "Loading model"}}, {"retry-after": "3"}))

    with pytest.raises(UpstreamError, match="Loading model") as caught:
        await ask(PROVIDER, upstream, CALL)

    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "server_is_overloaded", 3)


async def failing(upstream: ScriptedUpstream, reply: Reply) -> tuple[list[Delta], UpstreamError]:
    """The deltas before the error, and the error."""
    upstream.script(reply)
    deltas: list[Delta] = []

    async def collect() -> None:
        async with aclosing(provider(PROVIDER, upstream.url)) as connected, aclosing(connected.stream(CALL)) as batches:
            async for batch in batches:
                deltas.extend(batch)

    with pytest.raises(UpstreamError) as caught:
        await collect()
    return deltas, caught.value


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (Cut(), "closed the connection"),
        (Raw(b"data: {broken\n\n"), "cannot be read"),
        (Raw(b'data: {"error":{"message":"boom"}}\n\ndata: [DONE]\n\n'), "boom"),
    ],
)
async def test_what_came_before_an_error_is_passed_on(upstream: ScriptedUpstream, end: Cut | Raw, message: str) -> None:
    deltas, error = await failing(upstream, Reply(pieces=[script.Text("Hi"), end]))

    assert deltas == [Text("Hi")]
    assert message in error.message


async def test_a_stream_that_just_ends_is_an_error(upstream: ScriptedUpstream) -> None:
    deltas, error = await failing(
        upstream, Reply(pieces=[script.Text("Hi")], finish_reason=None, usage=None, done=False)
    )

    assert deltas == [Text("Hi")]
    assert isinstance(error, UpstreamProtocolError)


async def test_a_cut_after_the_finish_reason_costs_only_the_usage(upstream: ScriptedUpstream) -> None:
    finish = Raw(b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n')
    upstream.script(Reply(pieces=[finish, Cut()]))

    assert await ask(PROVIDER, upstream, CALL) == [Text("Hi"), TurnFinished("stop")]


# --- The connection
# ------------------------------------------------------------------------------------------------------------

HEAD = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


async def test_a_connection_is_used_again() -> None:
    """Even when the end of the body comes after the end marker, in a packet of its own."""

    async def repeatedly(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(HEAD + chunked(sample("dashscope-calls.sse")), b"0\r\n\r\n")

    async with (
        serve(repeatedly) as server,
        aclosing(provider(PROVIDER, f"http://127.0.0.1:{server.port}/v1")) as connected,
    ):
        for _ in range(3):
            async with aclosing(connected.stream(CALL)) as batches:
                assert [batch async for batch in batches]

        assert server.connections == 1


async def test_a_body_without_an_end_does_not_hold_the_answer_back() -> None:
    async def endlessly(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD + chunked(sample("dashscope-calls.sse")))
        await peer.gone()

    async with (
        serve(endlessly) as server,
        aclosing(provider(PROVIDER, f"http://127.0.0.1:{server.port}/v1")) as connected,
    ):
        async with aclosing(connected.stream(CALL)) as batches:
            *_, last = [batch async for batch in batches]

        assert last[-1] == TurnFinished("tool_calls")
        await server.saw_departure()


FINISHED = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
COUNTED = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}\n\n'


FOREVER = 600.0
"""Longer than any test may take."""


@pytest.mark.parametrize(
    ("packets", "usage", "patience"),
    [
        ([FINISHED + COUNTED], [TokenUsage(9, 4, 13)], FOREVER),
        ([FINISHED, COUNTED], [TokenUsage(9, 4, 13)], FOREVER),
        ([FINISHED], [], 0.05),
        ([FINISHED + b"data: [DONE]\n\n"], [], FOREVER),
        ([FINISHED, b"data: [DO", b"NE]\n\n"], [], FOREVER),
    ],
    ids=["at once", "usage behind it", "no usage", "marked, no usage", "marked behind it"],
)
async def test_the_finish_reason_ends_a_body_that_stays_open(
    packets: list[bytes], usage: list[Delta], patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Usage is waited for only where it may still come, and not until the upstream has been idle for too long."""
    monkeypatch.setattr(_openai_chat, "_USAGE_SECONDS", patience)

    async def endlessly(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD, *map(chunked, packets))
        await peer.gone()

    async with (
        serve(endlessly) as server,
        aclosing(provider(PROVIDER, f"http://127.0.0.1:{server.port}/v1", idle=FOREVER)) as connected,
    ):
        async with aclosing(connected.stream(CALL)) as batches:
            deltas = [delta for batch in [batch async for batch in batches] for delta in batch]

        assert deltas == [Text("Hi"), *usage, TurnFinished("stop")]
        await server.saw_departure()


async def test_comments_behind_the_finish_reason_do_not_hold_it_back() -> None:
    async def kept_alive(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD, chunked(FINISHED + COUNTED))
        while not peer.writer.is_closing():
            await peer.say(chunked(b": ping\n\n"))
            await asyncio.sleep(0.02)  # the pace of the stream

    async with (
        serve(kept_alive) as server,
        aclosing(provider(PROVIDER, f"http://127.0.0.1:{server.port}/v1")) as connected,
    ):
        async with aclosing(connected.stream(CALL)) as batches:
            deltas = [delta for batch in [batch async for batch in batches] for delta in batch]

        assert deltas == [Text("Hi"), TokenUsage(9, 4, 13), TurnFinished("stop")]


async def test_an_error_behind_the_finish_reason_is_told(upstream: ScriptedUpstream) -> None:
    _, error = await failing(upstream, Reply(pieces=[Raw(FINISHED + b'data: {"error":{"message":"boom"}}\n\n')]))

    assert error.message == "boom"


async def test_an_empty_success_is_no_batch(upstream: ScriptedUpstream) -> None:
    empty = Reply(pieces=[script.Text("")], usage=None)
    for call in (CALL, msgspec.structs.replace(CALL, stream=False)):
        upstream.script(empty)
        with pytest.raises(UpstreamProtocolError, match="empty"):
            await ask(PROVIDER, upstream, call)


async def test_closing_the_iterator_closes_the_request(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[script.Text("a"), Gate()]))
    async with aclosing(provider(PROVIDER, upstream.url)) as connected:
        async with aclosing(connected.stream(CALL)) as batches:
            await anext(batches)

        assert (await upstream.hang_up()).body["model"] == "m"


# --- Models, construction
# ------------------------------------------------------------------------------------------------------


async def test_the_list_of_models(upstream: ScriptedUpstream) -> None:
    upstream.pages["/v1/models"] = {
        "object": "list",
        "data": [
            {"id": "a", "created": 1.5, "owned_by": "vllm"},
            {"id": "b", "created": None},
            {"id": "c", "created": "now", "owned_by": []},
        ],
    }
    async with aclosing(provider(PROVIDER, upstream.url)) as connected:
        assert await connected.models() == (UpstreamModel("a", 1, "vllm"), UpstreamModel("b"), UpstreamModel("c"))

        upstream.pages["/v1/models"] = models_page()
        assert await connected.models() == ()


async def test_a_list_of_models_that_is_none(upstream: ScriptedUpstream) -> None:
    async with aclosing(provider(PROVIDER, upstream.url)) as connected:
        upstream.pages["/v1/models"] = {"data": [{"name": "a"}]}
        with pytest.raises(UpstreamProtocolError, match="list of models"):
            await connected.models()

        del upstream.pages["/v1/models"]
        with pytest.raises(UpstreamError) as caught:
            await connected.models()

        assert caught.value.status == 502


@pytest.mark.parametrize(
    "wrong", [{"base_url": "ftp://a/v1"}, {"headers": {"a b": "c"}}, {"ca_file": Path("/nowhere/ca.pem")}]
)
def test_a_wrong_setting_is_named(wrong: dict[str, object]) -> None:
    settings = Upstream.model_validate({"name": "one", "base_url": "https://127.0.0.1/v1", **wrong})

    with pytest.raises(ConfigurationError, match="upstream one: "):
        PROVIDER.build(settings, facts)


@pytest.mark.parametrize("trust", ["its own", "anything"])
async def test_certificates_that_are_not_the_systems(tmp_path: Path, trust: str) -> None:
    for_server, _ = certificate(tmp_path, name="127.0.0.1")
    wanted = {"ca_file": tmp_path / "server.pem"} if trust == "its own" else {"verify_tls": False}

    async with serve(answering(OK + b"Content-Length: 11\r\n\r\n" + b'{"data":[]}'), tls=for_server) as server:
        settings = Upstream.model_validate({"base_url": f"https://127.0.0.1:{server.port}/v1", **wanted})
        async with aclosing(PROVIDER.build(settings, facts)) as connected:
            assert await connected.models() == ()


def test_every_dialect_is_found() -> None:
    found = constants("app.providers", "PROVIDER", ProviderSpec)

    assert {spec.dialect for spec in found.values()} >= {"dashscope", "vllm", "sglang", "ollama", "llamacpp", "openai"}
    for spec in found.values():
        settings = Upstream.model_validate({"name": "x", "base_url": "http://127.0.0.1:9/v1"})
        built = spec.build(settings, facts)
        assert (built.name, built.dialect) == ("x", spec.dialect)


def test_a_constant_of_another_kind_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="PROVIDER is not a str"):
        constants("app.providers", "PROVIDER", str)
