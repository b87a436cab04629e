"""The use case of `POST /v1/responses/input_tokens`: how many tokens the model would read."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from app.engine.accounts.access import Principal
from app.engine.hosted.catalog import Entry
from app.engine.hosted.sessions import Hosted, ToolsState
from app.engine.model.preparation import Preparation, Prepared, ProjectServices
from app.engine.model.prompt import prompt_of
from app.engine.model.tokenizing import count_images, count_text
from app.engine.request.admission import admit
from app.engine.runs.conversing import Conversing
from app.engine.runs.hosting import Hosting
from app.engine.runs.origin import Origin
from app.engine.runs.ports import Ports
from app.engine.upstreams import failures
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import TokenFacts, UpstreamError

_log = logging.getLogger(__name__)
_UNKNOWN_IMAGES = TokenFacts(vocabulary="qwen", image_side=32, image_tokens=2560)


class InputTokens(msgspec.Struct, frozen=True):
    """The answer."""

    input_tokens: int
    object: str = "response.input_tokens"
    x_estimated: bool | msgspec.UnsetType = msgspec.UNSET
    """True if no tokenizer of the model has counted all of it."""


class Counting:
    """Counts what a request would send, by the tokenizer of the upstream that would answer it, or its model's."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def count(self, principal: Principal, body: bytes, *, lenient: bool) -> InputTokens:
        """The input tokens of this body of `POST /v1/responses`, which may lack `input`.

        Its tools are opened as for an answer, but no call is made. Raises ApiError and StoreUnavailable.
        """
        ports, project_id = self._ports, principal.project_id
        admitted = admit(body, ports.policy.limits, ports.catalog, lenient=lenient, answers=False)
        now = int(ports.clock())
        items = tuple(await ports.history.resolve(project_id, admitted.items, now))
        hosting = Hosting(ports, project_id, "", admitted, _ignore)

        def host(entries: Sequence[Entry]) -> Hosted:
            return hosting.host(entries, ToolsState())

        conversing = Conversing(ports, project_id, admitted, Origin("", now))
        await conversing.check()
        services = ProjectServices(project_id, conversing, ports.sealer, ports.media)
        entries = admitted.tools.hosted
        preparation = Preparation(admitted, items, services, host(entries) if entries else None)
        target = ports.router.target(admitted.model)
        try:
            prepared = await preparation.prepare(
                target.routes[0].provider, target.model, now, host, runs_approved=False
            )
        except UpstreamError as error:  # what the upstream could not take
            raise failures.to_api(error) from error
        finally:
            if preparation.hosted is not None:
                await preparation.hosted.aclose()
        return await self._counted(prepared, project_id)

    async def _counted(self, prepared: Prepared, project_id: str) -> InputTokens:
        tokens, estimated = await _text_tokens(prepared, project_id)
        images = [image.url for image in prepared.transcript.images]
        if images and prepared.can.images:
            facts = prepared.can.tokens or _UNKNOWN_IMAGES
            more, assumed = await count_images(images, facts, project_id)
            tokens, estimated = tokens + more, estimated or assumed or prepared.can.tokens is None
        return InputTokens(tokens, x_estimated=estimated or msgspec.UNSET)


async def _text_tokens(prepared: Prepared, project_id: str) -> tuple[int, bool]:
    """The tokens without images, and whether that is an estimate."""
    try:
        counted = await prepared.provider.count_tokens(prepared.call)
    except UpstreamError as error:
        _log.warning("upstream %s does not count tokens: %s", prepared.provider.name, error.message)
        counted = None
    if counted is not None:
        return counted, False
    facts = prepared.can.tokens
    return await count_text(prompt_of(prepared.call, prepared.provider, facts), facts, project_id)


def _ignore(_usage: TokenUsage) -> None:
    """No tool asks a model before it is called."""
