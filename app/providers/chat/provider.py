"""One provider for all servers with Chat Completions; their differences are in their `Dialect`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from app.protocol.deltas import Delta
from app.protocol.messages import Message
from app.providers.base import Capabilities, ModelCall, UpstreamError, UpstreamModel
from app.providers.chat.decode import ChatDecoder
from app.providers.chat.encode import Dialect, encode_call, encode_messages
from app.providers.chat.tokenizer import TokenizerClient
from app.providers.errors import error_from_reply
from app.providers.facts import FactsLookup, ModelFacts
from app.providers.http.client import UpstreamReply
from app.providers.http.upstream import (
    ANSWER_LIMIT,
    DRAIN_SECONDS,
    ERROR_LIMIT,
    EVENTS,
    OK,
    client_for,
    is_announced_as_events,
    list_models,
)
from app.providers.spec import ProviderSpec
from app.settings import Upstream

_PATH = "/chat/completions"
_JSON = "application/json"
_USAGE_SECONDS = 2.0
"""How long to wait for usage that did not arrive with the finish reason; servers send it right after."""


class ChatProvider:
    """An upstream. Raises ConfigurationError if the settings contain no usable address."""

    def __init__(self, upstream: Upstream, dialect: Dialect, facts: FactsLookup) -> None:
        self.name = upstream.name
        self.dialect = dialect.name
        self._dialect = dialect
        self._facts = facts
        self._fetches_urls = dialect.image_urls if upstream.fetches_urls is None else upstream.fetches_urls
        self._client = client_for(upstream)
        self._tokenizer = None if dialect.tokenizer is None else TokenizerClient(upstream, dialect.tokenizer)
        self._can: dict[ModelFacts, Capabilities] = {}

    def capabilities(self, model: str) -> Capabilities:
        """The combination of what the dialect and the model can do."""
        facts = self._facts(model)
        can = self._can.get(facts)
        if can is None:  # every cached conversation keeps one
            can = self._can[facts] = _capabilities(self._dialect, facts, image_urls=self._fetches_urls)
        return can

    def encode_messages(self, messages: Sequence[Message], *, reasoning: bool) -> bytes:
        """Chat Completions messages as JSON, comma-separated, without brackets.

        Raises UpstreamError 400 for an unsupported file.
        """
        return encode_messages(messages, self._dialect, reasoning=reasoning)

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """Run one turn.

        The last batch contains usage, if reported, and TurnFinished; an unstreamed answer is one batch.
        """
        streamed = call.stream or not self._dialect.whole_answers
        body = encode_call(call, self._dialect, self._facts(call.model), stream=streamed)
        expected = EVENTS if streamed else _JSON
        quota_passes = self._dialect.quota_passes
        reply = await self._client.post(_PATH, *body, accept=expected)
        try:
            if reply.status != OK:
                raise error_from_reply(
                    reply.status, reply.headers, await reply.read(ERROR_LIMIT), quota_passes=quota_passes
                )
            decoder = ChatDecoder(call.tools, quota_passes=quota_passes)
            # The server decides: some answer a request for a stream with JSON, above all with errors.
            if not is_announced_as_events(reply, expected):
                yield decoder.whole(await reply.read(ANSWER_LIMIT))
                return
            while not (decoder.answered or decoder.done) and (piece := await reply.read_some()):
                if deltas := decoder.feed(piece):
                    yield deltas
                if decoder.failure is not None:
                    raise decoder.failure
            last = await self._ending(reply, decoder)
            yield [*last, *decoder.end()]
        finally:
            reply.close()

    async def _ending(self, reply: UpstreamReply, decoder: ChatDecoder) -> Sequence[Delta]:
        """What follows the finish reason: usually usage, then a marker, then the end of the body.

        Servers omit any of these, so the wait is short; a failure here costs the usage, not the answer. Raises
        UpstreamError for an error that is reported.
        """
        last: list[Delta] = []
        settled = decoder.done or decoder.counted
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(DRAIN_SECONDS if settled else _USAGE_SECONDS) as limit:
                while piece := await reply.read_some():
                    if decoder.done:
                        continue
                    deltas = decoder.feed(piece)
                    last += deltas
                    if deltas or (decoder.done or decoder.counted) != settled:
                        # comments that keep a connection alive change nothing
                        settled = decoder.done or decoder.counted
                        limit.reschedule(loop.time() + (DRAIN_SECONDS if settled else _USAGE_SECONDS))
        if decoder.failure is not None:
            raise decoder.failure
        return last

    async def count_tokens(self, call: ModelCall) -> int | None:
        """The tokens of the very request that `stream` would send, without images."""
        if self._tokenizer is None:
            return None
        return await self._tokenizer.count(encode_call(call, self._dialect, self._facts(call.model), stream=False))

    async def models(self) -> Sequence[UpstreamModel]:
        """The models listed by the server. Raises UpstreamError."""
        return await list_models(self._client)

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self._client.aclose()
        if self._tokenizer is not None:
            await self._tokenizer.aclose()


def provider_spec(dialect: Dialect) -> ProviderSpec:
    """The `PROVIDER` of a vendor's module."""
    return ProviderSpec(dialect.name, lambda upstream, facts: ChatProvider(upstream, dialect, facts))


def _capabilities(dialect: Dialect, facts: ModelFacts, *, image_urls: bool) -> Capabilities:
    return Capabilities(
        forced_calls=dialect.forced_calls,
        forced_calls_while_thinking=dialect.forced_calls_while_thinking,
        formats=dialect.formats(facts),
        formats_while_thinking=dialect.formats_while_thinking,
        sampling=frozenset(dialect.sampling),
        images=facts.images is not False,
        image_urls=image_urls,
        files=dialect.files == "always" or (dialect.files == "by_model" and facts.files),
        thinks=facts.thinks,
        can_think=facts.can_think,
        can_stop_thinking=facts.can_stop_thinking,
        preserves_thinking=facts.preserves_thinking and dialect.reasoning_field is not None,
        reasoning_field=dialect.separates_thinking,
        context_window=facts.context_window,
        max_output_tokens=facts.max_output_tokens,
        tokens=facts.tokens,
    )
