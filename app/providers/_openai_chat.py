"""One provider for every server that speaks Chat Completions; what they differ in is their `Dialect`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from app.protocol.deltas import Delta
from app.protocol.messages import Message
from app.providers._client import ERROR_LIMIT, OK, client_for, drain, list_models
from app.providers._openai_chat_decode import ChatDecoder
from app.providers._openai_chat_encode import Dialect, encode_call, encode_messages
from app.providers.base import Capabilities, ModelCall, UpstreamError, UpstreamModel
from app.providers.errors import error_from_reply
from app.providers.facts import FactsLookup, ModelFacts
from app.providers.spec import ProviderSpec
from app.settings import Upstream

_PATH = "/chat/completions"
_JSON, _EVENTS = "application/json", "text/event-stream"
_ANSWER_LIMIT = 64 * 1024 * 1024


class ChatProvider:
    """An upstream. Raises ConfigurationError when the settings name no usable address."""

    def __init__(self, upstream: Upstream, dialect: Dialect, facts: FactsLookup) -> None:
        self.name = upstream.name
        self.dialect = dialect.name
        self._dialect = dialect
        self._facts = facts
        self._client = client_for(upstream)

    def capabilities(self, model: str) -> Capabilities:
        """What the dialect and the facts about the model come to."""
        return _capabilities(self._dialect, self._facts(model))

    def encode_messages(self, messages: Sequence[Message], *, reasoning: bool) -> bytes:
        """As the port says. Raises UpstreamError 400 for a file this server cannot take."""
        return encode_messages(messages, self._dialect, reasoning=reasoning)

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """As the port says. The last batch holds usage, where reported, and TurnFinished; an answer asked for whole is one batch."""
        streamed = call.stream or not self._dialect.whole_answers
        body = encode_call(call, self._dialect, self._facts(call.model), stream=streamed)
        reply = await self._client.post(_PATH, *body, accept=_EVENTS if streamed else _JSON)
        try:
            if reply.status != OK:
                raise error_from_reply(reply.status, reply.headers, await reply.read(ERROR_LIMIT))
            decoder = ChatDecoder()
            # The server decides: some answer with JSON what was asked as a stream, errors above all.
            if not reply.headers.get("content-type", _EVENTS if streamed else _JSON).startswith(_EVENTS):
                yield decoder.whole(await reply.read(_ANSWER_LIMIT))
                return
            while not decoder.done:
                try:
                    piece = await reply.read_some()
                except UpstreamError:
                    if decoder.answered:
                        break  # what goes wrong after the finish reason costs the usage, not the answer
                    raise
                if not piece:
                    break
                if deltas := decoder.feed(piece):
                    yield deltas
                if decoder.failure is not None:
                    raise decoder.failure
            else:
                await drain(reply)
            yield decoder.end()
        finally:
            reply.close()

    async def models(self) -> Sequence[UpstreamModel]:
        """As the port says."""
        return await list_models(self._client)

    async def aclose(self) -> None:
        """As the port says."""
        await self._client.aclose()


def provider_spec(dialect: Dialect) -> ProviderSpec:
    """The `PROVIDER` of a vendor's module."""
    return ProviderSpec(dialect.name, lambda upstream, facts: ChatProvider(upstream, dialect, facts))


def _capabilities(dialect: Dialect, facts: ModelFacts) -> Capabilities:
    known = facts.thinking is not None
    return Capabilities(
        forced_calls=dialect.forced_calls,
        forced_calls_while_thinking=dialect.forced_calls_while_thinking,
        formats=dialect.formats(facts),
        formats_while_thinking=dialect.formats_while_thinking,
        sampling=frozenset(dialect.sampling),
        images=facts.images is not False,
        image_urls=dialect.image_urls,
        files=dialect.files == "always" or (dialect.files == "by_model" and facts.files),
        thinks=facts.thinking in {"on", "always"} if known else None,
        can_think=facts.thinking != "never" if known else None,
        can_stop_thinking=facts.thinking != "always",
        preserves_thinking=facts.preserves_thinking and dialect.reasoning_field is not None,
        reasoning_field=dialect.separates_thinking,
        context_window=facts.context_window,
        max_output_tokens=facts.max_output_tokens,
    )
