"""What every dialect uses the HTTP client for: its creation from the settings, the model list, the end of a stream."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from app.providers._lenient import as_count, as_label
from app.providers.base import UpstreamError, UpstreamModel, UpstreamProtocolError
from app.providers.errors import error_from_reply
from app.providers.http.client import ClientTimeouts, UpstreamClient, UpstreamReply
from app.settings import ConfigurationError, Upstream

OK = 200
EVENTS = "text/event-stream"
ERROR_LIMIT = 1024 * 1024
"""Bytes of an error body."""
ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of a whole answer."""
_LIST_LIMIT = 16 * 1024 * 1024
DRAIN_SECONDS = 0.1
"""How long to wait for the end of a body after its last event."""


class _Model(msgspec.Struct):
    id: str
    created: Any = None
    owned_by: Any = None


class _Models(msgspec.Struct):
    data: list[_Model] | None = None


_decode_models = msgspec.json.Decoder(_Models).decode


def client_for(upstream: Upstream) -> UpstreamClient:
    """The client for one upstream; opens no connection.

    Raises ConfigurationError for an unusable address, header or certificate file.
    """
    key = {} if upstream.api_key is None else {"Authorization": f"Bearer {upstream.api_key.get_secret_value()}"}
    limits = upstream.timeouts
    try:
        return UpstreamClient(
            upstream.base_url,
            headers={**key, **upstream.headers},
            timeouts=ClientTimeouts(
                connect=limits.connect, first_token=limits.first_token, idle=limits.idle, total=limits.total
            ),
            tls=_tls(upstream),
        )
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"upstream {upstream.name}: {error}") from error


def _tls(upstream: Upstream) -> ssl.SSLContext | None:
    """None: the client's default, with the system's certificates."""
    if upstream.verify_tls and upstream.ca_file is None:
        return None
    context = ssl.create_default_context(cafile=upstream.ca_file)
    if not upstream.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def list_models(client: UpstreamClient) -> Sequence[UpstreamModel]:
    """`GET /models`. Raises UpstreamError."""
    reply = await client.get("/models")
    try:
        body = await reply.read(_LIST_LIMIT)
    finally:
        reply.close()
    if reply.status != OK:
        raise error_from_reply(reply.status, reply.headers, body)
    try:
        listed = _decode_models(body).data or ()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamProtocolError("The upstream's list of models cannot be parsed.", retryable=False) from error
    return tuple(
        UpstreamModel(model.id, as_count(model.created) or 0, as_label(model.owned_by) or "") for model in listed
    )


def is_announced_as_events(reply: UpstreamReply, otherwise: str) -> bool:
    """Whether the answer's content type is that of event streams; `otherwise`: the type to assume if there is none."""
    return (reply.headers.get("content-type") or otherwise).lower().startswith(EVENTS)


async def drain(reply: UpstreamReply) -> None:
    """Wait briefly for the end of a body after its last event: usually it is in the same packet, and once it is read
    the connection can be reused.

    The answer is complete, so a failure here only costs the connection.
    """
    with suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while await reply.read_some():
                pass
