"""One response, from the accepted request to the stored record."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial

import msgspec

from app.engine.conversation import records
from app.engine.conversation.context import Context
from app.engine.conversation.exchanges import Exchanges
from app.engine.conversation.exchanges import encode as encode_exchanges
from app.engine.conversation.history import Recent
from app.engine.conversation.items import Item
from app.engine.hosted.catalog import Entry
from app.engine.hosted.sessions import Hosted
from app.engine.metrics import ResponseMeter
from app.engine.model import turn
from app.engine.model.asking import Asker
from app.engine.model.preparation import Preparation, Prepared, ProjectServices, estimated_size
from app.engine.model.turn import TurnDependencies
from app.engine.request.admission import Admitted
from app.engine.request.echo import begin
from app.engine.runs import loop
from app.engine.runs.followers import Followers
from app.engine.runs.loop import Bounds
from app.engine.runs.opening import UpstreamRequests
from app.engine.runs.ports import Ports
from app.engine.upstreams import failures
from app.engine.upstreams.routing import Started
from app.protocol.messages import ImagePart
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.options import Options
from app.protocol.stream.replay import catch_up, encode_cuts
from app.protocol.wire import ids
from app.protocol.wire.response import Response, ResponseError, encode
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import UpstreamError
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import RecordRefused, ResponseRecord, Turn
from app.tools.ports.tool import Cite, ToolContext

_log = logging.getLogger(__name__)

Send = Callable[[list[bytes]], Awaitable[None]]
"""Sends complete frames to the client."""


async def _nothing() -> None:
    """Answers that are not streamed send no events."""


class Run:
    """One response. Call `open` first, then `stream` or `whole`, and finally `remember`."""

    def __init__(self, ports: Ports, project_id: str, admitted: Admitted, items: tuple[Item, ...]) -> None:
        now = ports.clock()
        self.id = ids.response_id(int(now * 1000), os.urandom(10))
        self.project_id = project_id
        self.admitted = admitted
        self.warnings: tuple[str, ...] = ()
        self._ports = ports
        self._began = now
        hosted = self._host(admitted.tools.hosted) if admitted.tools.hosted else None
        self._preparation = Preparation(admitted, items, ProjectServices(project_id, ports.history, ports.sealer, ports.media), hosted)
        self._opening = UpstreamRequests(ports.router, self._preparation, admitted, int(now))
        self._started: Started | None = None
        self._refusal: Exception | None = None
        """The error if no upstream accepted a request whose stream had already begun."""
        self._seed: Response | None = None
        """The response in `response.created`."""
        self._assembler: Assembler | None = None
        self._asked_before: list[TokenUsage] = []
        """Usage of tools' questions before the model was called."""
        self._failure: Exception | None = None
        self._meter = ResponseMeter(ports.metrics, ports.clock, now, stream=admitted.stream)
        self.followers = Followers(project_id, self.id, ports.shared)
        self.settled = False
        """The record is stored."""

    async def open(self) -> None:
        """Get an upstream to accept the request. Raises ApiError if nothing has been sent to the client yet; after `begin` a failure
        becomes part of the response."""
        try:
            self._started = await self._opening.first(self._host)
        except asyncio.CancelledError:
            if self._assembler is not None:
                await self._cancelled()
            raise
        except Exception as error:
            if self._assembler is not None:
                self._refusal = error
            elif isinstance(error, UpstreamError):
                raise failures.to_api(error) from error
            else:
                raise
        else:
            self._meter.accepted(self._ready.call.model, self._started[0].provider.name)
        begun, self._assembler = self._assembler is not None, self._new_assembler()
        self._assembler.start()
        if begun:
            self._assembler.take()  # these frames have been sent

    def begin(self) -> list[bytes]:
        """The opening frames of a stream whose upstream has not answered yet; retry and failover remain possible after them.

        Empty if they have been sent already, or the request has not been prepared for an upstream yet.
        """
        if self._assembler is not None or self._opening.prepared is None:
            return []
        self._assembler = assembler = self._new_assembler()
        assembler.start()
        frames = assembler.take()
        if self.admitted.store:
            self.followers.publish(frames, final=False)
        return frames

    def _new_assembler(self) -> Assembler:
        if self._seed is None:  # otherwise the client has seen it; another upstream must not change it
            self._seed = self._adopt(self._ready)
        assembler = Assembler(self._seed, partial(ids.new_id, self.id), self._options(self._ready))
        for usage in self._asked_before:
            assembler.usage.add(usage)
        return assembler

    def _adopt(self, prepared: Prepared) -> Response:
        """The initial response; the run takes over the warnings and tools found in preparation."""
        self.warnings = prepared.warnings
        for warning in self.warnings:
            _log.warning("response %s: %s", self.id, warning)
        if prepared.tools is not self.admitted.tools:  # the conversation has added some
            self.admitted = msgspec.structs.replace(self.admitted, tools=prepared.tools)
        return begin(self.admitted, prepared.decision, prepared.call.model, self._ports.policy.id_prefix + self.id, int(self._began))

    def _options(self, prepared: Prepared) -> Options:
        """The assembler's options, without methods of this object: a cycle would leave the whole request to the garbage collector."""
        seal = partial(self._ports.sealer.seal, project_id=self.project_id, model=self.admitted.model) if self.admitted.seals else None
        hosted = self._hosted
        return Options(
            quiet=not self.admitted.stream,
            raw_reasoning=self._ports.policy.raw_reasoning,
            parallel_calls=prepared.call.parallel_tool_calls,
            targets=prepared.tools.targets,
            known_call_ids=prepared.transcript.call_ids,
            seal=seal,
            hosted=hosted.openers if hosted is not None else {},
            annotate=hosted.citations.annotate if hosted is not None else None,
        )

    async def stream(self, send: Send, send_last: Send | None = None) -> None:
        """Send the stream, in batches of complete frames. Every path ends with the terminal event, after the record has been stored.

        `send_last` sends the batch with that event; None: as the others.
        Cancelling the task cancels the run: the upstream request is closed and the record is stored.
        """
        assembler, followable = self._built, self.admitted.store

        async def publish() -> None:
            frames = assembler.take()
            if frames:
                if followable:
                    self.followers.publish(frames, final=False)
                await send(frames)

        await self._generate(publish)
        try:
            await self._settle()
        finally:  # even if the client disconnects while the record is being written: others may be following
            frames = self._end()
            if followable:
                await self.followers.publish_end(frames)
        await (send_last or send)(frames)

    async def whole(self) -> bytes:
        """The complete answer as JSON, not streamed; the record is stored when this returns. Raises ApiError."""
        await self._generate(_nothing)
        if self._response.error is None:
            await self._settle()
        self._meter.ended(self._response)
        if self._response.error is not None:
            raise failures.plain(self._response.error, self._failure)
        return self._built.body

    def snapshot(self) -> bytes:
        """The current response. Its end is shown only after it is stored, since clients may then continue it."""
        assembler = self._built
        return assembler.body if self.settled else encode(msgspec.structs.replace(assembler.seed, output=tuple(assembler.output)))

    def turn_so_far(self) -> Turn:
        """The input as it will be stored, and the answer so far."""
        stored, _ = records.input_array(self._ready.items)
        return Turn(self.id, stored, self.snapshot(), None)

    def remember(self) -> None:
        """Cache the context for the next turn. Called after the client has its answer; the work is deferred until there is a next turn."""
        assembler, prepared = self._assembler, self._opening.prepared
        if not self.admitted.store or assembler is None or prepared is None or self._response.status not in ("completed", "incomplete"):
            return
        if prepared.transcript.uploads:  # any process may delete a file, which the cache must not show then
            return
        body, turns = assembler.body, prepared.context.turns | {self.id}
        exchanges = self._hosted.exchanges if self._hosted is not None else Exchanges()
        expires_at = int(self._began) + self._ports.policy.retention_seconds
        view, transcript, prefix = prepared.view, prepared.transcript, prepared.context.prefix  # all that `make` may keep in memory

        def make() -> Context:
            records.continue_with(body, exchanges, transcript)
            return view.settle(transcript, turns, prefix, expires_at)

        size = len(prefix) + transcript.weight + exchanges.weight + len(body)
        self._ports.history.remember(view, self.id, Recent(turns, expires_at, size, make), after=self.previous_id)

    async def _generate(self, publish: Callable[[], Awaitable[None]]) -> None:
        """Generate the answer; every failure becomes part of the response."""
        try:
            await self._answer(publish)
            if self._ports.policy.estimates_usage and self._built.usage.tokens is None:
                self._built.usage.estimate(read=estimated_size(self._ready.call), output=self._built.output)
            self._built.finish(int(self._ports.clock()))
        except asyncio.CancelledError:
            await self._cancelled()
            raise
        except Exception as error:  # noqa: BLE001 - the stream must always end with a terminal event
            self._fail(error, failures.inside(error, self.id))

    async def _answer(self, publish: Callable[[], Awaitable[None]]) -> None:
        """Have the model answer, in one turn, or in several if built-in tools are offered. Raises what these and `_accepted` raise."""
        ports, prepared, assembler, hosted = self._ports, self._ready, self._built, self._hosted
        started = self._accepted()
        around = TurnDependencies(ports.validator, ports.traits, self._opening.again, publish, ports.formats, ports.router.note_failure)
        if hosted is None:
            await turn.run(prepared, started, assembler, around)
            return
        request = self.admitted.request
        bounds = Bounds(ports.policy.limits.tool_rounds, request.max_tool_calls, request.max_output_tokens)
        loop.begin(prepared, assembler, hosted)
        await loop.run(prepared, started, assembler, hosted, around, bounds)

    def _accepted(self) -> Started:
        """The start of the upstream's answer. Raises the error if no upstream accepted the request."""
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal
        if self._started is None:
            raise RuntimeError("open() comes first")
        return self._started

    async def aclose(self) -> None:
        """Close the run's tools."""
        if self._hosted is not None:
            await self._hosted.aclose()

    def _host(self, entries: Sequence[Entry]) -> Hosted:
        return Hosted(entries, self._ports.policy.limits, self._tool_context, self._ports.metrics.tool_called)

    def _tool_context(self, note: str | None, images: Sequence[ImagePart], cite: Cite) -> ToolContext:
        request, model = self.admitted.request, self.admitted.model
        asker = Asker(self._ports.router, model, self._ports.policy.vision_model, self._add_usage)
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
        if self._started is None or self._assembler is None:
            self._asked_before.append(usage)
        else:
            self._assembler.usage.add(usage)

    async def _settle(self) -> None:
        """Store the record; if that fails the response fails, since it could not be continued."""
        if not self.admitted.store:
            return
        try:
            await self._ports.store.save(self._record())
            self.settled = True
        except (StoreUnavailable, RecordRefused) as error:
            _log.error("response %s could not be stored: %s", self.id, error)
            self._fail(error, ResponseError("server_error", "The response could not be stored. Try again, or send 'store': false."))

    def _fail(self, cause: Exception, error: ResponseError) -> None:
        self._failure = cause
        self._meter.failed(failures.code(cause), None if failures.may_quote(cause) else error.message)
        self._built.fail(error)

    async def _cancelled(self) -> None:
        self._built.cancel()
        await self._settle()
        frames = self._end()
        if self.admitted.store:
            await self.followers.publish_end(frames)

    def _end(self) -> list[bytes]:
        assembler = self._built
        assembler.emit_end(self._response, assembler.body)
        self._meter.ended(self._response)
        return assembler.take()

    @property
    def previous_id(self) -> str | None:
        """The id of the response that it continues."""
        previous = self.admitted.request.previous_response_id
        return ids.normalize_response_id(previous) if previous else None

    @property
    def known(self) -> bool:
        """Whether it has begun and others may read it."""
        return self.admitted.store and self._assembler is not None

    @property
    def can_be_followed(self) -> bool:
        """Whether it is known and streamed."""
        return self.admitted.stream and self.known

    def follow(self, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The stream for another reader: the frames after number `after` so far, then each batch as it comes, up to the terminal event."""
        return self.followers.follow(lambda: catch_up(self._built), after)

    def _record(self) -> ResponseRecord:
        response, created = self._response, int(self._began)
        stored, foreign = records.input_array(self._ready.items)
        return ResponseRecord(
            id=self.id,
            project_id=self.project_id,
            previous_id=self.previous_id,
            created_at=created,
            expires_at=created + self._ports.policy.retention_seconds,
            status=response.status,
            model=response.model,
            response=self._built.body,
            input=stored,
            cuts=encode_cuts(self._built.cuts) if self.admitted.stream else None,
            exchanges=encode_exchanges(self._hosted.exchanges) if self._hosted is not None else None,
            foreign_item_ids=foreign,
        )

    @property
    def _hosted(self) -> Hosted | None:
        """Built-in tools; those that the conversation adds are known once the request is prepared."""
        return self._preparation.hosted

    @property
    def _built(self) -> Assembler:
        if self._assembler is None:
            raise RuntimeError("open() comes first")
        return self._assembler

    @property
    def _ready(self) -> Prepared:
        if self._opening.prepared is None:
            raise RuntimeError("open() comes first")
        return self._opening.prepared

    @property
    def _response(self) -> Response:
        response = self._built.response
        if response is None:
            raise RuntimeError("the run has not ended")
        return response
