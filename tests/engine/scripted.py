"""A provider that says what a test wrote down, and admitted requests for it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from app.engine.conversation.media import Media
from app.engine.hosted.catalog import Catalog
from app.engine.request.admission import Admitted, admit
from app.engine.request.structured import Validator
from app.protocol.deltas import Delta
from app.protocol.messages import Assistant, Message
from app.providers.base import Capabilities, ModelCall, UpstreamError, UpstreamModel
from app.settings import Limits
from app.tools.ports.fetcher import FetchRefused, Page

VALIDATOR = Validator()
NO_TOOLS = Catalog((), {}, {})
Turn = Sequence[Sequence[Delta] | UpstreamError] | UpstreamError
"""The batches of one answer, or the failure before the first."""


class ScriptedProvider:
    """Implements the upstream port. Each request takes the next turn of the script."""

    def __init__(
        self, *script: Turn, name: str = "one", can: Capabilities | None = None, listed: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.dialect = "scripted"
        self.calls: list[ModelCall] = []
        self.encoded = 0
        """Messages encoded so far."""
        self.closed = 0
        self.listed: Sequence[str] | UpstreamError = listed
        self._script = list(script)
        self._can = can or Capabilities()

    def capabilities(self, model: str) -> Capabilities:
        """The same for every model."""
        del model
        return self._can

    def encode_messages(self, messages: Sequence[Message], *, reasoning: bool) -> bytes:
        """Neutral JSON, without the thinking unless it is wanted."""
        self.encoded += len(messages)
        kept = [
            m if reasoning or not isinstance(m, Assistant) else msgspec.structs.replace(m, reasoning="")
            for m in messages
        ]
        return b",".join(msgspec.json.encode(message) for message in kept)

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """The next turn."""
        self.calls.append(call)
        turn = self._script.pop(0)
        if isinstance(turn, UpstreamError):
            raise turn
        try:
            for batch in turn:
                if isinstance(batch, UpstreamError):
                    raise batch
                yield batch
        finally:
            self.closed += 1

    async def count_tokens(self, call: ModelCall) -> int | None:
        """It has no tokenizer."""
        return None

    async def models(self) -> Sequence[UpstreamModel]:
        """What it lists."""
        if isinstance(self.listed, UpstreamError):
            raise self.listed
        return [UpstreamModel(name) for name in self.listed]

    async def aclose(self) -> None:
        """Nothing to close."""


class NoWeb:
    """A fetcher that fetches nothing."""

    async def get(
        self,
        url: str,
        *,
        limit: int,
        seconds: float,
        accept: Sequence[str] = (),
        headers: Sequence[tuple[str, str]] = (),
    ) -> Page:
        """Refuses."""
        del limit, seconds, accept, headers
        raise FetchRefused(f"No page at {url}.")

    async def check(self, url: str) -> None:
        """Refuses."""
        raise FetchRefused(f"No page at {url}.")

    def on_behalf(self, project_id: str) -> NoWeb:
        """Refuses everybody."""
        del project_id
        return self


def no_media() -> Media:
    """Files and images of requests, as long as there are none that have to be loaded."""
    return Media(NoWeb(), None, Limits())


def admitted(
    *, lenient: bool = False, limits: Limits | None = None, catalog: Catalog = NO_TOOLS, **fields: Any
) -> Admitted:
    """The request with these fields, admitted; model and input have defaults."""
    body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
    return admit(body, limits or Limits(), catalog, lenient=lenient)
