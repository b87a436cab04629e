"""The use cases of `/v1/responses`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Literal

import msgspec

from app.engine import records
from app.engine.access import Principal
from app.engine.admission import admit
from app.engine.run import Ports, Run
from app.engine.runs import Runs
from app.eventlog.base import EventLog, EventLogUnavailable
from app.protocol import ids
from app.protocol.errors import Conflict, InvalidRequest, NotFound
from app.protocol.projection import fold, parse_frame
from app.protocol.replay import replay
from app.protocol.response import encode
from app.providers.base import JsonSchema
from app.settings import Limits
from app.stores.base import AncestorDeleted, Turn

_log = logging.getLogger(__name__)


class ItemPage(msgspec.Struct, frozen=True):
    """One page of a response's input items."""

    items: tuple[msgspec.Raw, ...]
    has_more: bool


class PageQuery(msgspec.Struct, frozen=True):
    """How to page: `after` and `before` are item ids."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None


class Responses:
    """Create, read, follow, list, delete."""

    def __init__(self, ports: Ports, runs: Runs, limits: Limits) -> None:
        self._ports = ports
        self._runs = runs
        self._limits = limits

    async def create(self, principal: Principal, body: bytes, *, lenient: bool) -> Run:
        """Check the request and make its run, which is not open yet. Raises ApiError and StoreUnavailable."""
        admitted = admit(body, self._limits, self._ports.catalog, lenient=lenient)
        if isinstance(admitted.format, JsonSchema):
            await self._ports.validator.check_schema(bytes(admitted.format.schema))
        if admitted.store and self._ports.store.doubtful:
            await self._ports.store.check()  # nobody should wait for, and pay for, an answer that cannot be kept
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
        """The response's frames with a number above `after`; of a live one also those to come. Raises NotFound at once."""
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

    async def input_items(self, principal: Principal, response_id: str, query: PageQuery) -> ItemPage:
        """A page of what the model was given: the chain's earlier items and this turn's. Raises NotFound and InvalidRequest."""
        turns = await self._turns(principal, response_id)
        items: list[msgspec.Raw] = []
        for turn in turns:
            items += (*records.items_of(turn), *records.output_raws(turn.response))
        del items[len(items) - len(records.output_raws(turns[-1].response)) :]
        # An item that was referred to twice is listed once, since its id is what a page begins after.
        return _page(list({_ItemId.id_of(raw): raw for raw in items}.values()), query)

    async def _turns(self, principal: Principal, response_id: str) -> Sequence[Turn]:
        """The conversation up to the response, also while that is being made here."""
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
        """The turns up to a stored response; that one alone where an earlier one was deleted, none where it is not there itself."""
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
        return self._ports.id_prefix + found

    async def _snapshot_elsewhere(self, principal: Principal, found: str, response_id: str) -> bytes:
        """The response as far as another replica has shared it."""
        if self._ports.shared is not None and await self._is_elsewhere(self._ports.shared, principal, found):
            async with aclosing(self._ports.shared.read(principal.project_id, found)) as batches:
                async for frames in batches:
                    response = fold(event for frame in frames if (event := parse_frame(frame)))
                    if response is not None:
                        return encode(response)
        raise not_found(response_id)

    async def _is_elsewhere(self, shared: EventLog, principal: Principal, found: str) -> bool:
        """Whether another replica makes the response now, as far as can be known."""
        try:
            return await shared.exists(principal.project_id, found)
        except EventLogUnavailable as error:
            _log.warning("live responses of other replicas cannot be seen: %s", error)
            return False

    async def _follow(self, log: EventLog, principal: Principal, found: str, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The log's frames; what it does not have, because the run ended meanwhile or the log broke, comes from the record."""
        try:
            async with aclosing(log.read(principal.project_id, found, after)) as batches:
                async for frames in batches:
                    after += len(frames)
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
    """The same for unknown, expired, deleted and foreign ids."""
    return NotFound(f"Response with id '{response_id}' not found.", code="response_not_found", param="response_id")


def _in_progress(response_id: str) -> Conflict:
    return Conflict(f"Response with id '{response_id}' is still being generated.", code="response_in_progress")


async def _once(frames: Sequence[bytes]) -> AsyncIterator[Sequence[bytes]]:
    if frames:
        yield frames


def _page(items: list[msgspec.Raw], query: PageQuery) -> ItemPage:
    ordered = items if query.order == "asc" else items[::-1]
    item_ids = [_ItemId.id_of(raw) for raw in ordered]
    start, end = 0, len(ordered)
    if query.after is not None:
        start = _index(item_ids, query.after, "after") + 1
    if query.before is not None:
        end = _index(item_ids, query.before, "before")
    if query.before is not None and query.after is None:
        start = max(start, end - query.limit)
    page = ordered[start : min(end, start + query.limit)]
    return ItemPage(tuple(page), has_more=start + len(page) < end if query.before is None or query.after is not None else start > 0)


def _index(item_ids: list[str], wanted: str, param: str) -> int:
    try:
        return item_ids.index(wanted)
    except ValueError as error:
        raise InvalidRequest(f"Invalid '{param}': no input item has the id '{wanted}'.", code="invalid_value", param=param) from error


class _ItemId(msgspec.Struct, frozen=True):
    id: str = ""

    @staticmethod
    def id_of(raw: msgspec.Raw) -> str:
        return msgspec.json.decode(raw, type=_ItemId).id
