"""Questions that tools ask a model, outside the conversation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from app.engine.conversation.untrusted import defused
from app.engine.model.reading import Reader, ReadingOptions
from app.engine.upstreams.routing import Router, Target
from app.protocol.deltas import Text
from app.protocol.messages import ImagePart, TextPart, User
from app.protocol.wire.errors import ApiError
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import Capabilities, ModelCall, Sampling, Thinking, UpstreamError
from app.tools.ports.tool import ToolFailure

_log = logging.getLogger(__name__)


class Asker(msgspec.Struct, frozen=True):
    """Asks the request's own model, or for images the vision model if one is set."""

    router: Router
    model: str
    vision_model: str | None
    count: Callable[[TokenUsage], None]

    async def __call__(self, question: str, *, images: Sequence[ImagePart] = (), max_tokens: int = 1000) -> str:
        """Ask the model and return the text of its answer. Raises ToolFailure if the model cannot be called."""
        try:
            return await self._answer(question, images, max_tokens)
        except (UpstreamError, ApiError) as error:
            _log.warning("a tool's question was not answered: %s", error)
            raise ToolFailure("The model needed for this step could not be called.") from error

    async def _answer(self, question: str, images: Sequence[ImagePart], max_tokens: int) -> str:
        model = self.vision_model if images and self.vision_model else self.model
        target = self.router.target(model)
        target = msgspec.structs.replace(target, routes=target.routes[:1])  # the call is encoded for this one
        can = target.routes[0].provider.capabilities(target.model)
        if images and not can.images:
            raise ToolFailure(
                f"The model '{model}' does not take images; GATEWAY_VISION_MODEL can name one that does, for this tool."
            )
        asked = defused(question)  # tools include text they have fetched
        call = ModelCall(
            model=target.model,
            messages=(User((TextPart(asked), *images) if images else asked),),
            sampling=Sampling(max_output_tokens=max_tokens),
            thinking=_without_thinking(can),
            stream=False,
        )
        return await self._read(target, call)

    async def _read(self, target: Target, call: ModelCall) -> str:
        """The text of the answer; its usage is counted."""

        async def build(_route: object) -> ModelCall:
            return call

        route, batch, rest = await self.router.open(target, build)
        reader = Reader(ReadingOptions(unopened="possible", thinking_off=call.thinking.enabled is False))
        async with aclosing(rest):
            deltas = list(reader.read(batch))
            try:
                async for batch in rest:
                    deltas += reader.read(batch)
            except UpstreamError as error:
                self.router.note_failure(route, error)
                raise
        deltas += reader.flush()
        for delta in deltas:
            if isinstance(delta, TokenUsage):
                self.count(delta)
        return "".join(delta.text for delta in deltas if isinstance(delta, Text)).strip()


def _without_thinking(can: Capabilities) -> Thinking:
    """Turns thinking off for a fast answer, unless the model cannot."""
    if can.can_think is False or not can.can_stop_thinking or can.thinks is False:
        return Thinking()
    return Thinking(enabled=False)
