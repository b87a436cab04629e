"""A provider of one dialect in front of the scripted upstream, and what passes between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from app.protocol.deltas import Delta
from app.protocol.messages import Message, User
from app.providers.base import ModelCall, Provider
from app.providers.facts import facts
from app.providers.spec import ProviderSpec
from app.settings import Upstream
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
HELLO: Sequence[Message] = (User("Hello"),)
_SAMPLES = Path(__file__).parent / "samples"


def sample(name: str) -> bytes:
    """A recorded or documented answer."""
    return (_SAMPLES / name).read_bytes()


def provider(
    spec: ProviderSpec,
    base_url: str,
    *,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    idle: float = 5,
) -> Provider:
    limits = {"idle": idle, "first_token": 5}
    settings: Json = {"base_url": base_url, "api_key": api_key, "headers": dict(headers or {}), "timeouts": limits}
    return spec.build(Upstream.model_validate(settings), facts)


async def ask(spec: ProviderSpec, upstream: ScriptedUpstream, call: ModelCall) -> list[Delta]:
    """All deltas of one turn."""
    async with aclosing(provider(spec, upstream.url)) as connected, aclosing(connected.stream(call)) as batches:
        return [delta async for batch in batches for delta in batch]


async def sent(spec: ProviderSpec, upstream: ScriptedUpstream, call: ModelCall) -> Json:
    """The body the upstream gets for a call, but for what every body holds: `model`, and how a stream is asked for."""
    await ask(spec, upstream, call)
    body = dict(upstream.requests[-1].body)
    assert body.pop("model") == call.model
    if body.pop("stream"):
        assert body.pop("stream_options") == {"include_usage": True}
    return body


async def parameters(spec: ProviderSpec, upstream: ScriptedUpstream, call: ModelCall) -> Json:
    """The same without the messages."""
    body = await sent(spec, upstream, call)
    del body["messages"]
    return body


def encoded(spec: ProviderSpec, *messages: Message, reasoning: bool = True) -> list[Json]:
    """The messages as this dialect writes them."""
    written = provider(spec, "http://127.0.0.1:9/v1").encode_messages(messages, reasoning=reasoning)
    return msgspec.json.decode(b"[%b]" % written, type=list[Json])
