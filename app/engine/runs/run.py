"""One response, from the accepted request to the stored record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from app.engine.conversation import records
from app.engine.conversation.items import Item
from app.engine.hosted.catalog import Entry
from app.engine.hosted.sessions import Hosted, ToolsState
from app.engine.metrics import ResponseMeter
from app.engine.model.preparation import Preparation, Prepared, ProjectServices, estimated_size, left_out_of
from app.engine.request.admission import Admitted
from app.engine.request.echo import begin
from app.engine.request.thinking import Decision
from app.engine.runs import assembling, storing
from app.engine.runs.answering import Answering, unpublished
from app.engine.runs.conversing import Conversing
from app.engine.runs.followers import Audience, Followers
from app.engine.runs.hosting import Hosting
from app.engine.runs.opening import UpstreamRequests
from app.engine.runs.origin import Origin
from app.engine.runs.ports import Ports
from app.engine.runs.progress import Note
from app.engine.upstreams import failures
from app.engine.upstreams.routing import Started
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.replay import catch_up
from app.protocol.wire.response import Response, ResponseError, encode
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import UpstreamError
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import RecordRefused, Turn

_log = logging.getLogger(__name__)

Send = Callable[[list[bytes]], Awaitable[None]]
"""Sends complete frames to the client."""


class Run:
    """One response. Call `open` first, then `stream` or `whole`, and finally `remember`.

    A background run is `accept`ed before it is opened, perhaps in another process.
    """

    warnings: tuple[str, ...] = ()
    _started: Started | None = None
    _refusal: Exception | None = None
    """The error if no upstream accepted a request whose stream had already begun."""
    _adopted = False
    """Warnings and tools found in preparation have been taken over."""
    _assembler: Assembler | None = None
    _restored: Assembler | None = None
    """With what earlier owners have shown, to be continued."""
    _failure: Exception | None = None
    settling = False
    """Its end is decided, and is being stored: it can no longer be cancelled."""
    settled = False
    """The record is stored."""
    interruption: ResponseError | None = None
    """Why the run fails when its task is cancelled, with the rest of its stream; None: the run is cancelled, too."""

    def __init__(
        self,
        ports: Ports,
        project_id: str,
        admitted: Admitted,
        items: tuple[Item, ...],
        origin: Origin | None = None,
    ) -> None:
        """`origin` None: the request arrives now."""
        origin = origin or Origin.new(ports.clock())
        self.id = origin.id
        self.project_id = project_id
        self.admitted = admitted
        self.items = items
        created_at = int(origin.began)
        self.identity = storing.identity(origin.id, project_id, admitted, created_at, ports.policy.retention_seconds)
        self._ports = ports
        self._progress = origin.progress
        """What earlier owners have done."""
        self._seed = origin.seed
        """The response in `response.created`."""
        self.conversation = Conversing(ports, project_id, admitted, origin)
        self._preparation = self._prepare()
        self._opening = UpstreamRequests(ports.router, self._preparation, admitted, created_at, self._progress)
        self._answering = Answering(ports, self._opening, admitted.request)
        self._asked_before: list[TokenUsage] = []
        """Usage of tools' questions before the model was called."""
        self._meter = ResponseMeter(ports.metrics, ports.clock, origin.began, stream=admitted.stream)
        self.followers = Followers(project_id, self.id)
        self.audience: Audience = self.followers
        """Gets the frames, besides the client that waits for them."""
        self.save = ports.store.save if admitted.store else None
        """Stores the record; None: it is not kept."""

    def accept(self) -> Response:
        """Check the request as far as possible without its conversation and tools, and return the initial response.

        Raises ApiError.
        """
        provider, model = self._opening.first_choice()
        decision = self._preparation.check(provider, model)
        self._seed = self._begin(decision, model)
        self.warnings = left_out_of(self.admitted)
        return self._seed

    def go_on(self, restored: Assembler) -> None:
        """Continue what earlier owners have shown."""
        self._restored = restored

    def keep_progress(self, note: Note | None) -> None:
        """Have the run note what it has finished; None: no more."""
        self._opening.note = self._answering.note = note

    async def open(self) -> None:
        """Get an upstream to accept the request.

        Raises ApiError if nothing has been sent to the client yet; after `begin` or `accept` a failure becomes part of
        the response.
        """
        try:
            await self.conversation.begin()
            self._started = await self._opening.first(self._host)
        except asyncio.CancelledError:
            if not self._is_interrupted():
                if self._seed is not None:
                    self._assemble()
                    await self._cancelled()
                raise
            if self._seed is None:
                raise failures.server_is_stopping() from None
            self._refusal = failures.server_is_stopping()
        except Exception as error:
            if self._seed is not None:
                self._refusal = error
            elif isinstance(error, UpstreamError):
                raise failures.to_api(error) from error
            else:
                raise
        else:
            self._meter.accepted(self._opening.ready.call.model, self._started[0].provider.name)
        self._assemble()

    def begin(self) -> list[bytes]:
        """The opening frames of a stream whose upstream has not answered yet; it can still be retried after them.

        Empty if they have been sent already, or the request has not been prepared for an upstream yet.
        """
        if self._seed is not None or self._opening.prepared is None:
            return []
        self._assembler = assembler = self._new_assembler()
        assembler.start()
        frames = assembler.take()
        if self.admitted.store:
            self.audience.publish(frames)
        return frames

    def _prepare(self) -> Preparation:
        entries = self.admitted.tools.hosted
        hosted = self._host(entries) if entries else None
        services = ProjectServices(self.project_id, self.conversation, self._ports.sealer, self._ports.media)
        return Preparation(self.admitted, self.items, services, hosted)

    def _assemble(self) -> None:
        """Create the assembler for the upstream that has accepted; the opening frames are not emitted twice."""
        begun = self._seed is not None
        self._assembler = self._new_assembler()
        if self._restored is None:
            self._assembler.start()
            if begun:
                self._assembler.take()

    def _new_assembler(self) -> Assembler:
        prepared = self._opening.prepared
        if prepared is not None:
            self._adopt(prepared)
        if self._seed is None:  # otherwise the client has seen it; another upstream must not change it
            self._seed = self._begin(self._opening.ready.decision, self._opening.ready.call.model)
        how = assembling.options(self._ports, self.project_id, self.admitted, prepared, self._hosted)
        assembler = assembling.assembler(self.id, self._seed, how, self._restored, self._progress)
        for usage in self._asked_before:
            assembler.usage.add(usage)
        return assembler

    def _begin(self, decision: Decision, model: str) -> Response:
        return begin(self.admitted, decision, model, self._ports.policy.id_prefix + self.id, self.identity.created_at)

    def _adopt(self, prepared: Prepared) -> None:
        """Take over the warnings and tools found in preparation, once."""
        if self._adopted:
            return
        self._adopted = True
        self.warnings = prepared.warnings
        for warning in self.warnings:
            _log.warning("response %s: %s", self.id, warning)
        if prepared.tools is not self.admitted.tools:  # the conversation has added some
            self.admitted = msgspec.structs.replace(self.admitted, tools=prepared.tools)

    async def stream(self, send: Send, send_last: Send | None = None) -> None:
        """Send the stream, in batches of complete frames. The terminal event always comes, after the record is stored.

        `send_last` sends the batch with that event; None: as the others.
        Cancelling the task cancels the run: the upstream request is closed and the record is stored.
        """
        assembler, followable = self._built, self.admitted.store

        async def publish() -> None:
            frames = assembler.take()
            if frames:
                if followable:
                    self.audience.publish(frames)
                await send(frames)

        await self._generate(publish)
        try:
            await self._settle()
        finally:  # even if the client disconnects while the record is being written: others may be following
            frames = self._end()
            if followable:
                await self.audience.publish_end(frames)
        await (send_last or send)(frames)

    async def end(self, error: ResponseError | None, assembler: Assembler | None = None) -> None:
        """End an accepted run that nobody generates any more: failed, or cancelled without an error.

        `assembler`: with what there is of the answer.
        """
        self._assembler = assembler
        if assembler is None:
            self._assemble()
        if error is None:
            self._built.cancel()
        else:
            self._fail(failures.server_is_stopping(), error)
        await self._finish()

    async def whole(self) -> bytes:
        """The complete answer as JSON, not streamed; the record is stored when this returns. Raises ApiError."""
        await self._generate(unpublished)
        if self._response.error is None:
            await self._settle()
        self._meter.ended(self._response)
        if self._response.error is not None:
            raise failures.plain(self._response.error, self._failure)
        return self._built.body

    def snapshot(self) -> bytes:
        """The current response. Its end is shown only after it is stored, since clients may then continue it."""
        assembler = self._assembler
        if assembler is not None and self.settled:
            return assembler.body
        output = () if assembler is None else tuple(assembler.output)
        return encode(msgspec.structs.replace(self._seed or self._built.seed, output=output))

    def turn_so_far(self) -> Turn:
        """The input as it will be stored, and the answer so far."""
        stored, _ = records.input_array(self._input)
        return Turn(self.id, stored, self.snapshot(), None)

    def remember(self) -> None:
        """Cache the context for the next turn.

        Called after the client has its answer; the work is deferred until there is a next turn.
        """
        assembler, prepared = self._assembler, self._opening.prepared
        remembered = self.save is not None and self.admitted.conversation is None
        if remembered and assembler is not None and prepared is not None:
            storing.remember(self._ports.history, self.identity, prepared, assembler, self._hosted)

    async def _generate(self, publish: Callable[[], Awaitable[None]]) -> None:
        """Generate the answer; every failure becomes part of the response."""
        try:
            await self._answering.run(self._accepted(), self._built, self._hosted, publish, self._progress)
            if self._ports.policy.estimates_usage and self._built.usage.tokens is None:
                self._built.usage.estimate(read=estimated_size(self._opening.ready.call), output=self._built.output)
            self._built.finish(int(self._ports.clock()))
        except asyncio.CancelledError:
            if not self._is_interrupted():
                await self._cancelled()
                raise
            self._fail(failures.server_is_stopping(), self.interruption or failures.STOPPED)
        except Exception as error:  # noqa: BLE001 - the stream must always end with a terminal event
            self._fail(error, failures.inside(error, self.id))

    def _accepted(self) -> Started:
        """The start of the upstream's answer. Raises the error if no upstream accepted the request."""
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal
        if self._started is None:
            raise RuntimeError("open() comes first")
        return self._started

    async def aclose(self) -> None:
        """Close the run's tools, and release its conversation."""
        await self.conversation.end(settled=self.settled)
        if self._hosted is not None:
            await self._hosted.aclose()

    def _host(self, entries: Sequence[Entry]) -> Hosted:
        hosting = Hosting(self._ports, self.project_id, self.id, self.admitted, self._add_usage)
        return hosting.host(entries, self._progress.tools if self._progress is not None else ToolsState())

    def _add_usage(self, usage: TokenUsage) -> None:
        if self._started is None or self._assembler is None:
            self._asked_before.append(usage)
        else:
            self._assembler.usage.add(usage)

    async def _settle(self) -> None:
        """Store the record; if that fails the response fails, since it could not be continued."""
        self.settling = True
        if self.save is None:
            return
        try:
            streamed = self.admitted.stream
            record = storing.record(self.identity, self._built, self._input, self._hosted, streamed=streamed)
            await self.save(self.conversation.with_turn(record, self._hosted))
            self.settled = True
        except (StoreUnavailable, RecordRefused) as error:
            _log.error("response %s could not be stored: %s", self.id, error)
            self._fail(
                error,
                ResponseError("server_error", "The response could not be stored. Try again, or send 'store': false."),
            )

    def _fail(self, cause: Exception, error: ResponseError) -> None:
        self._failure = cause
        self._meter.failed(failures.code(cause), None if failures.may_quote(cause) else error.message)
        self._built.fail(error)

    def _is_interrupted(self) -> bool:
        """Whether a cancellation is to end only what is awaited; then the task goes on."""
        task = asyncio.current_task()
        if self.interruption is None or task is None:
            return False
        task.uncancel()
        return True

    async def _cancelled(self) -> None:
        self._built.cancel()
        await self._finish()

    async def _finish(self) -> None:
        """Store the end, for which no client waits, and tell the others."""
        await self._settle()
        frames = self._end()
        if self.admitted.store:
            await self.audience.publish_end(frames)

    def _end(self) -> list[bytes]:
        assembler = self._built
        assembler.emit_end(self._response, assembler.body)
        self._meter.ended(self._response)
        return assembler.take()

    @property
    def known(self) -> bool:
        """Whether it has begun and others may read it."""
        return self.admitted.store and self._seed is not None

    @property
    def can_be_followed(self) -> bool:
        """Whether it is known and streamed."""
        return self.admitted.stream and self.known

    def so_far(self) -> Sequence[bytes]:
        """The frames so far, without the terminal event."""
        return catch_up(self._built)

    @property
    def _hosted(self) -> Hosted | None:
        """Built-in tools; those that the conversation adds are known once the request is prepared."""
        return self._preparation.hosted

    @property
    def _input(self) -> Sequence[Item]:
        """The request's items, without those already in the conversation if that has been read."""
        prepared = self._opening.prepared
        return self.items if prepared is None else prepared.items

    @property
    def _built(self) -> Assembler:
        if self._assembler is None:
            raise RuntimeError("open() comes first")
        return self._assembler

    @property
    def _response(self) -> Response:
        response = self._built.response
        if response is None:
            raise RuntimeError("the run has not ended")
        return response
