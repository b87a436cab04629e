"""The use cases of `/v1/responses`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import msgspec

from app.engine.accounts.access import Principal
from app.engine.conversation import records
from app.engine.request.admission import admit
from app.engine.runs.run import Ports, Run
from app.engine.runs.supervisor import Runs
from app.eventlog.base import EventLog, EventLogUnavailable
from app.protocol.stream.projection import fold, parse_frame
from app.protocol.stream.replay import replay
from app.protocol.wire import ids
from app.protocol.wire.errors import Conflict, InvalidRequest, NotFound
from app.protocol.wire.paging import Page, UnknownCursor, window
from app.protocol.wire.response import encode
from app.providers.base import JsonSchema
from app.stores.ports.responses import AncestorDeleted, Turn

_log = logging.getLogger(__name__)


class ItemPage(msgspec.Struct, frozen=True):
    """One page of a response's input items."""

    items: tuple[msgspec.Raw, ...]
    has_more: bool


class Responses:
    """Create, read, follow, list, delete."""

    def __init__(self, ports: Ports, runs: Runs) -> None:
        self._ports = ports
        self._runs = runs

    async def create(self, principal: Principal, body: bytes, *, lenient: bool) -> Run:
        """Check the request and create its run, which is not open yet. Raises ApiError and StoreUnavailable."""
        admitted = admit(body, self._ports.policy.limits, self._ports.catalog, lenient=lenient)
        if isinstance(admitted.format, JsonSchema):
            await self._ports.validator.check_schema(bytes(admitted.format.schema))
        if admitted.store and self._ports.store.doubtful:
            await self._ports.store.check()  # nobody should wait and pay for an answer that cannot be stored
        items = await self._ports.history.resolve(principal.project_id, admitted.items, self._now())
        return Run(self._ports, principal.project_id, admitted, tuple(items))

    async def get(self, principal: Principal, response_id: str) -> bytes:
        """The response as JSON. Raises NotFound."""
        found = ids.normalize_response_id(response_id)
        if found is None:
            raise not_found(response_id)
        run = self._runs.find(principal.project_id, found)
        if run is not None and run.known:
            return run.snapshot()
        record = await self._ports.store.get(principal.project_id, found, self._now())
        if record is not None:
            return record.response
        return await self._snapshot_elsewhere(principal, found, response_id)

    async def follow(self, principal: Principal, response_id: str, after: int) -> AsyncIterator[Sequence[bytes]]:
        """The response's frames after number `after`, including future ones of a live response. Raises NotFound at once."""
        found = ids.normalize_response_id(response_id)
        if found is None:
            raise not_found(response_id)
        run = self._runs.find(principal.project_id, found)
        if run is not None and run.can_be_followed:
            return run.follow(after)
        record = await self._ports.store.get(principal.project_id, found, self._now())
        if record is not None:
            return _once(replay(record.response, record.cuts)[after + 1 :])
        if self._ports.shared is not None and await self._is_elsewhere(self._ports.shared, principal, found):
            return self._follow(self._ports.shared, principal, found, after)
        raise not_found(response_id)

    async def input_items(self, principal: Principal, response_id: str, page: Page) -> ItemPage:
        """A page of the model's input: the chain's earlier items and this turn's. Raises NotFound and InvalidRequest."""
        turns = await self._turns(principal, response_id)
        items: list[msgspec.Raw] = []
        for turn in turns:
            items += (*records.items_of(turn), *records.output_raws(turn.response))
        del items[len(items) - len(records.output_raws(turns[-1].response)) :]
        # An item that was referenced twice is listed once, since ids are the cursors of pages.
        return _page(list({_ItemId.id_of(raw): raw for raw in items}.values()), page)

    async def _turns(self, principal: Principal, response_id: str) -> Sequence[Turn]:
        """The conversation up to the response, even while this process is generating it."""
        found = ids.normalize_response_id(response_id)
        run = self._runs.find(principal.project_id, found) if found is not None else None
        if run is not None and run.known and not run.settled:
            before = await self._chain(principal, run.previous_id) if run.previous_id is not None else ()
            return [*before, run.turn_so_far()]
        turns = await self._chain(principal, found) if found is not None else ()
        if not turns:
            raise not_found(response_id)
        return turns

    async def _chain(self, principal: Principal, found: str) -> Sequence[Turn]:
        """The turns up to a stored response; only its own if an earlier one was deleted, none if it does not exist."""
        try:
            return await self._ports.store.chain(principal.project_id, found, self._now()) or ()
        except AncestorDeleted:
            record = await self._ports.store.get(principal.project_id, found, self._now())
            return [] if record is None else [Turn(record.id, record.input, record.response, record.inherited, record.exchanges)]

    async def delete(self, principal: Principal, response_id: str) -> str:
        """Delete the response and return its id as stored. Raises NotFound, and Conflict while it is being generated."""
        found = ids.normalize_response_id(response_id)
        run = self._runs.find(principal.project_id, found) if found is not None else None
        if run is not None and not run.settled:
            raise _in_progress(response_id)
        if found is None:
            raise not_found(response_id)
        if not await self._ports.store.delete(principal.project_id, found, self._now()):
            shared = self._ports.shared
            live = shared is not None and await self._is_elsewhere(shared, principal, found)
            raise _in_progress(response_id) if live else not_found(response_id)
        self._ports.history.forget(found)
        if self._ports.shared is not None:
            try:
                await self._ports.shared.erase(principal.project_id, found)
            except EventLogUnavailable as error:
                _log.warning("the frames of deleted response %s stay in the event log until they expire: %s", found, error)
        return self._ports.policy.id_prefix + found

    async def _snapshot_elsewhere(self, principal: Principal, found: str, response_id: str) -> bytes:
        """The response so far, as shared by another replica."""
        if self._ports.shared is not None and await self._is_elsewhere(self._ports.shared, principal, found):
            async with aclosing(self._ports.shared.read(principal.project_id, found)) as batches:
                async for frames in batches:
                    response = fold(event for frame in frames if (event := parse_frame(frame)))
                    if response is not None:
                        return encode(response)
        raise not_found(response_id)

    async def _is_elsewhere(self, shared: EventLog, principal: Principal, found: str) -> bool:
        """Whether another replica is generating the response, as far as can be determined."""
        try:
            return await shared.exists(principal.project_id, found)
        except EventLogUnavailable as error:
            _log.warning("live responses of other replicas cannot be read: %s", error)
            return False

    async def _follow(self, log: EventLog, principal: Principal, found: str, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The log's frames; those it lacks, because the run ended meanwhile or the log failed, come from the record."""
        try:
            async with aclosing(log.read(principal.project_id, found, after)) as batches:
                async for frames in batches:
                    after += len(frames)
                    if frames:
                        yield frames
        except EventLogUnavailable as error:
            _log.warning("response %s cannot be followed further: %s", found, error)
        record = await self._ports.store.get(principal.project_id, found, self._now())
        rest = replay(record.response, record.cuts)[after + 1 :] if record is not None else []
        if rest:
            yield rest

    def _now(self) -> int:
        return int(self._ports.clock())


def not_found(response_id: str) -> NotFound:
    """The same error for unknown, expired, deleted and other projects' ids."""
    return NotFound(f"Response with id '{response_id}' not found.", code="response_not_found", param="response_id")


def _in_progress(response_id: str) -> Conflict:
    return Conflict(f"Response with id '{response_id}' is still being generated.", code="response_in_progress")


async def _once(frames: Sequence[bytes]) -> AsyncIterator[Sequence[bytes]]:
    if frames:
        yield frames


def _page(items: list[msgspec.Raw], page: Page) -> ItemPage:
    ordered = items if page.order == "asc" else items[::-1]
    try:
        part, more = window([_ItemId.id_of(raw) for raw in ordered], page)
    except UnknownCursor as error:
        message = f"Invalid '{error.param}': no input item has the id '{error.cursor}'."
        raise InvalidRequest(message, code="invalid_value", param=error.param) from error
    return ItemPage(tuple(ordered[part]), has_more=more)


class _ItemId(msgspec.Struct, frozen=True):
    id: str = ""

    @staticmethod
    def id_of(raw: msgspec.Raw) -> str:
        return msgspec.json.decode(raw, type=_ItemId).id
