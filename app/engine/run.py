"""One response, from the accepted request to the stored record."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial

import msgspec

from app.engine import failures, loop, records, turn
from app.engine.admission import Admitted, Item
from app.engine.asking import Asker
from app.engine.audience import Audience
from app.engine.catalog import Catalog
from app.engine.echo import begin
from app.engine.exchanges import Exchanges
from app.engine.exchanges import encode as encode_exchanges
from app.engine.history import History, Recent
from app.engine.hosted import Hosted
from app.engine.loop import Bounds
from app.engine.media import Media
from app.engine.metering import Metrics
from app.engine.preparation import Preparation, Prepared, Tenant, estimated_size, shortened
from app.engine.routing import Route, Router, Started, Target
from app.engine.sealing import Sealer
from app.engine.structured import Validator
from app.engine.transcript import Context, weight
from app.engine.turn import ModelFailure, Parsers, Surroundings
from app.eventlog.base import EventLog
from app.protocol import ids
from app.protocol.assembler import Assembler
from app.protocol.deltas import TokenUsage
from app.protocol.messages import ImagePart
from app.protocol.options import Options
from app.protocol.replay import catch_up, encode_cuts
from app.protocol.response import Response, ResponseError, encode
from app.protocol.writers import InvalidArguments
from app.providers.base import ModelCall, UpstreamError
from app.settings import Limits
from app.stores.base import RecordRefused, ResponseRecord, ResponseStore, StoreUnavailable
from app.tools.base import Cite, ToolContext

_log = logging.getLogger(__name__)


Send = Callable[[list[bytes]], Awaitable[None]]
"""Takes some whole frames to the client."""


async def _nothing() -> None:
    """A plain answer has nobody to send events to."""


class Ports(msgspec.Struct, frozen=True):
    """What a run works with."""

    store: ResponseStore
    history: History
    media: Media
    router: Router
    sealer: Sealer
    validator: Validator
    parsers: Parsers
    metrics: Metrics
    shared: EventLog | None
    """Where streams can be followed from other processes."""
    clock: Callable[[], float]
    retention_seconds: int
    id_prefix: str
    raw_reasoning: bool
    estimates_usage: bool
    catalog: Catalog
    limits: Limits
    vision_model: str | None


class Run:
    """One response. `open` first, then `stream` or `whole`; at last `remember`."""

    def __init__(self, ports: Ports, project_id: str, admitted: Admitted, items: tuple[Item, ...]) -> None:
        now = ports.clock()
        self.id = ids.response_id(int(now * 1000), os.urandom(10))
        self.project_id = project_id
        self.admitted = admitted
        self.warnings: tuple[str, ...] = ()
        self._ports = ports
        self._items = items
        self._began = now
        self._hosted = (
            Hosted(admitted.tools.hosted, ports.limits, self._introduce, ports.metrics.tool_called) if admitted.tools.hosted else None
        )
        self._preparation = Preparation(admitted, items, Tenant(project_id, ports.history, ports.sealer, ports.media), self._hosted)
        self._prepared: Prepared | None = None
        self._started: Started | None = None
        self._assembler: Assembler | None = None
        self._asked_before: list[TokenUsage] = []
        """What tools' questions have cost before the model was asked."""
        self._failure: UpstreamError | None = None
        self._target: Target | None = None
        self.audience = Audience(project_id, self.id, ports.shared)
        self.settled = False
        """Its record is stored."""

    async def open(self) -> None:
        """Get an upstream to accept the request. Raises ApiError: nothing has been sent to the client yet."""
        try:
            self._started = await self._open_fitting()
        except UpstreamError as error:
            raise failures.to_api(error) from error
        prepared = self._ready
        self.warnings = prepared.warnings
        for warning in self.warnings:
            _log.warning("response %s: %s", self.id, warning)
        self._ports.metrics.first_token(self._ports.clock() - self._began)
        # No method of this object: a cycle would leave the whole request to the garbage collector.
        seal = partial(self._ports.sealer.seal, project_id=self.project_id, model=self.admitted.model) if self.admitted.seals else None
        options = Options(
            quiet=not self.admitted.stream,
            raw_reasoning=self._ports.raw_reasoning,
            parallel_calls=prepared.call.parallel_tool_calls,
            targets=self.admitted.tools.targets,
            seal=seal,
            hosted=self._hosted.openers if self._hosted is not None else {},
            annotate=self._hosted.citations.annotate if self._hosted is not None else None,
        )
        seed = begin(self.admitted, prepared.decision, prepared.call.model, self._ports.id_prefix + self.id, int(self._began))
        self._assembler = Assembler(seed, partial(_new_id, self.id), options)
        for usage in self._asked_before:
            self._assembler.add_usage(usage)

    async def stream(self, send: Send) -> None:
        """Send the stream, some whole frames at a time. It ends with the terminal event on every path; the record is stored before it.

        Cancelling the task cancels the run: the upstream request is closed and the record settles.
        """
        assembler, followable = self._built, self.admitted.store
        assembler.start()

        async def publish() -> None:
            frames = assembler.take()
            if frames:
                if followable:
                    self.audience.tell(frames, final=False)
                await send(frames)

        await self._generate(publish)
        try:
            await self._settle()
        finally:  # also when the client leaves while the record is being written: others may be following
            frames = self._end()
            if followable:
                await self.audience.tell_end(frames)
        await send(frames)

    async def whole(self) -> bytes:
        """The plain answer, as JSON; the record is stored when this returns. Raises ApiError."""
        await self._generate(_nothing)
        response = self._response
        if response.error is not None:
            self._count()
            raise failures.plain(response.error, self._failure)
        await self._settle()
        self._count()
        if self._response.error is not None:
            raise failures.plain(self._response.error, None)
        return self._built.body

    def snapshot(self) -> bytes:
        """The response as it is now. Its end is not told before it is stored: whoever sees it may continue it."""
        assembler = self._built
        return assembler.body if self.settled else encode(msgspec.structs.replace(assembler.seed, output=tuple(assembler.output)))

    def remember(self) -> None:
        """Keep the context at hand for the next turn. Called when the client has its answer; the work is done if a next turn comes."""
        assembler, prepared = self._assembler, self._prepared
        if not self.admitted.store or assembler is None or prepared is None or self._response.status not in ("completed", "incomplete"):
            return
        if prepared.transcript.uploads:  # a file may be deleted, by any process, and must not be shown from here then
            return
        body, turns = assembler.body, prepared.context.turns | {self.id}
        exchanges = self._hosted.exchanges if self._hosted is not None else Exchanges()
        expires_at = int(self._began) + self._ports.retention_seconds
        view, transcript, prefix = prepared.view, prepared.transcript, prepared.context.prefix  # all that `make` may keep alive

        def make() -> Context:
            records.continue_with(records.output_raws(body), exchanges, transcript)
            transcript.flush_open()
            return view.settle(transcript, turns, prefix, expires_at)

        previous = self.admitted.request.previous_response_id
        parent = ids.normalize_response_id(previous) if previous else None
        size = len(prefix) + sum(map(weight, transcript.messages)) + exchanges.weight + len(body)
        self._ports.history.remember(view, self.id, Recent(turns, expires_at, size, make), after=parent)

    async def _generate(self, publish: Callable[[], Awaitable[None]]) -> None:
        """The model's turn, with every failure made part of the response."""
        assembler, ports, started = self._built, self._ports, self._started
        if started is None:
            raise RuntimeError("open() comes first")
        try:
            around = Surroundings(ports.validator, ports.parsers, self._open, publish)
            if self._hosted is None:
                await turn.run(self._ready, started, assembler, around)
            else:
                request = self.admitted.request
                bounds = Bounds(ports.limits.tool_rounds, request.max_tool_calls, request.max_output_tokens)
                loop.begin(self._ready, assembler, self._hosted)
                await loop.run(self._ready, started, assembler, self._hosted, around, bounds)
            if ports.estimates_usage:
                assembler.estimate_usage(read=estimated_size(self._ready.call))
            assembler.finish(int(ports.clock()))
        except asyncio.CancelledError:
            await self._cancelled()
            raise
        except UpstreamError as error:
            _log.warning("upstream failed during response %s: %s", self.id, error.message)
            self._failure = error
            assembler.fail(ResponseError(failures.response_code(error), error.message))
        except (ModelFailure, InvalidArguments) as error:
            assembler.fail(ResponseError("server_error", str(error)))
        except Exception:  # noqa: BLE001 - whatever happens, the stream ends with a terminal event
            _log.exception("response %s failed", self.id)
            assembler.fail(ResponseError("server_error", "The gateway failed while generating the response."))

    async def aclose(self) -> None:
        """Nobody needs the run's tools any more."""
        if self._hosted is not None:
            await self._hosted.aclose()

    def _introduce(self, note: str | None, images: Sequence[ImagePart], cite: Cite) -> ToolContext:
        request, model = self.admitted.request, self.admitted.model
        asker = Asker(self._ports.router, model, self._ports.vision_model, self._add_usage)
        return ToolContext(
            project_id=self.project_id,
            response_id=self.id,
            model=model,
            images=images,
            include=frozenset(request.include or ()),
            note=note,
            ask=asker,
            cite=cite,
        )

    def _add_usage(self, usage: TokenUsage) -> None:
        if self._assembler is None:
            self._asked_before.append(usage)
        else:
            self._assembler.add_usage(usage)

    async def _open_fitting(self) -> Started:
        """Send the request; with `truncation: auto` shorter and shorter until it fits the model's window. Raises UpstreamError."""
        call: ModelCall | None = None
        while True:
            try:
                return await self._open(call)
            except UpstreamError as error:
                prepared = self._prepared
                if error.code != "context_length_exceeded" or self.admitted.request.truncation != "auto" or prepared is None:
                    raise
                call = shortened(call or prepared.call, prepared.provider)
                if call is None:
                    raise

    async def _open(self, call: ModelCall | None) -> Started:
        """Send the prepared request, or `call` in its stead."""
        target = self._target or self._ports.router.target(self.admitted.model)
        self._target = target
        if call is not None:  # it is written in the words of one upstream
            target = Target(target.model, tuple(route for route in target.routes if route.provider is self._ready.provider))

        async def build(route: Route) -> ModelCall:
            if call is not None:
                return call
            self._prepared = await self._preparation.prepare(route.provider, target.model, int(self._began))
            return self._prepared.call

        return await self._ports.router.open(target, build)

    async def _settle(self) -> None:
        """Store the record; without it the response is a failure, since it could not be continued."""
        if not self.admitted.store:
            return
        try:
            await self._ports.store.save(self._record())
            self.settled = True
        except (StoreUnavailable, RecordRefused):
            _log.exception("response %s could not be stored", self.id)
            self._built.fail(ResponseError("server_error", "The response could not be stored. Try again, or send 'store': false."))

    async def _cancelled(self) -> None:
        self._built.cancel()
        await self._settle()
        frames = self._end()
        if self.admitted.store:
            await self.audience.tell_end(frames)

    def _end(self) -> list[bytes]:
        assembler = self._built
        assembler.emit_end(self._response, assembler.body)
        self._count()
        return assembler.take()

    def _count(self) -> None:
        response = self._response
        seconds = self._ports.clock() - self._began
        self._ports.metrics.responded(response.model, response.status, stream=self.admitted.stream, seconds=seconds, usage=response.usage)

    @property
    def known(self) -> bool:
        """It has begun, and others may read it."""
        return self.admitted.store and self._assembler is not None

    @property
    def can_be_followed(self) -> bool:
        """It is known, and it streams."""
        return self.admitted.stream and self.known

    def follow(self, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The stream for another reader: the frames above `after` so far, then each batch as it comes, to the terminal event."""
        return self.audience.follow(lambda: catch_up(self._built), after)

    def _record(self) -> ResponseRecord:
        response, created = self._response, int(self._began)
        stored, foreign = records.input_array(self._ready.items)
        previous = self.admitted.request.previous_response_id
        return ResponseRecord(
            id=self.id,
            project_id=self.project_id,
            previous_id=ids.normalize_response_id(previous) if previous else None,
            created_at=created,
            expires_at=created + self._ports.retention_seconds,
            status=response.status,
            model=response.model,
            response=self._built.body,
            input=stored,
            cuts=encode_cuts(self._built.cuts) if self.admitted.stream else None,
            exchanges=encode_exchanges(self._hosted.exchanges) if self._hosted is not None else None,
            foreign_item_ids=foreign,
        )

    @property
    def _built(self) -> Assembler:
        if self._assembler is None:
            raise RuntimeError("open() comes first")
        return self._assembler

    @property
    def _ready(self) -> Prepared:
        if self._prepared is None:
            raise RuntimeError("open() comes first")
        return self._prepared

    @property
    def _response(self) -> Response:
        response = self._built.response
        if response is None:
            raise RuntimeError("the run has not ended")
        return response


def _new_id(response_id: str, prefix: str, position: int) -> str:
    if prefix == "call":
        return ids.call_id(response_id, position)
    return ids.item_id(prefix, response_id, position, output=True)
