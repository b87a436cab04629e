"""Alibaba Cloud Model Studio (DashScope, Bailian) through its Responses API, `/compatible-mode/v1/responses`.

For models and accounts that are served better by it; `dashscope` uses Chat Completions. Nothing is stored at the
vendor: `store` is off and the whole context is sent with every call. This API enforces no output format and accepts no
thinking budget.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import msgspec

from app.protocol.deltas import Delta
from app.protocol.messages import Message
from app.providers.base import Capabilities, ModelCall, NativeConditions, Thinking, UpstreamModel
from app.providers.errors import error_from_reply
from app.providers.facts import FactsLookup, ModelFacts, effort_of, native_conditions
from app.providers.http.upstream import (
    ANSWER_LIMIT,
    ERROR_LIMIT,
    EVENTS,
    OK,
    client_for,
    drain,
    is_announced_as_events,
    list_models,
)
from app.providers.responses.decode import ResponsesDecoder
from app.providers.responses.encode import encode_call, encode_messages
from app.providers.spec import ProviderSpec
from app.settings import Upstream

DIALECT = "dashscope-responses"


class ResponsesProvider:
    """An upstream. Raises ConfigurationError if the settings contain no usable address."""

    dialect = DIALECT

    def __init__(self, upstream: Upstream, facts: FactsLookup) -> None:
        self.name = upstream.name
        self._facts = facts
        self._fetches_urls = upstream.fetches_urls is not False
        self._client = client_for(upstream)
        self._can: dict[ModelFacts, Capabilities] = {}

    def capabilities(self, model: str) -> Capabilities:
        """The combination of what this API and the model can do."""
        facts = self._facts(model)
        can = self._can.get(facts)
        if can is None:  # every cached conversation keeps one
            can = self._can[facts] = _capabilities(facts, image_urls=self._fetches_urls)
        return can

    def encode_messages(self, messages: Sequence[Message], *, reasoning: bool) -> bytes:
        """The messages as input items of the Responses API, comma-separated, without brackets."""
        return encode_messages(messages, reasoning=reasoning)

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta]]:
        """Run one turn. The last batch contains usage, if reported, and TurnFinished."""
        facts, thinking = self._facts(call.model), call.thinking
        if facts.thinking == "never":
            call = msgspec.structs.replace(call, thinking=Thinking())
        elif thinking.budget is not None and thinking.effort is None:
            call = msgspec.structs.replace(call, thinking=Thinking(thinking.enabled, effort_of(thinking, facts)))
        reply = await self._client.post("/responses", encode_call(call), accept=EVENTS)
        try:
            if reply.status != OK:
                raise error_from_reply(reply.status, reply.headers, await reply.read(ERROR_LIMIT))
            decoder = ResponsesDecoder()
            if not is_announced_as_events(reply, EVENTS):
                yield decoder.whole(await reply.read(ANSWER_LIMIT))
                return
            while not decoder.done and (piece := await reply.read_some()):
                if deltas := decoder.feed(piece):
                    yield deltas
                if decoder.failure is not None:
                    raise decoder.failure
            if deltas := decoder.end():
                yield deltas
            await drain(reply)
        finally:
            reply.close()

    async def count_tokens(self, call: ModelCall) -> int | None:
        """It has no tokenizer endpoint."""
        return None

    async def models(self) -> Sequence[UpstreamModel]:
        """The models listed by the server. Raises UpstreamError."""
        return await list_models(self._client)

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self._client.aclose()


PROVIDER = ProviderSpec(DIALECT, ResponsesProvider)


def _capabilities(facts: ModelFacts, *, image_urls: bool) -> Capabilities:
    conditions = native_conditions()
    return Capabilities(
        # `required` is only accepted with one function: a named one is forced by offering it alone, "any of
        # several" cannot be forced.
        forced_calls=frozenset({"named"}),
        forced_calls_while_thinking=False,
        formats=frozenset(),
        sampling=frozenset({"temperature", "top_p", "max_output_tokens"}),
        images=facts.images is not False,
        image_urls=image_urls,
        thinks=facts.thinks,
        can_think=facts.can_think,
        can_stop_thinking=facts.can_stop_thinking,
        preserves_thinking=facts.preserves_thinking,
        native_tools={tool: conditions.get(tool, NativeConditions()) for tool in facts.native_tools},
        context_window=facts.context_window,
        max_output_tokens=facts.max_output_tokens,
        tokens=facts.tokens,
    )
