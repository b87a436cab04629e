"""The use cases of `/v1/responses`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from app.engine.accounts.access import Principal
from app.engine.conversation import records
from app.engine.conversation.connection import ConnectionState, KeptResponses
from app.engine.conversation.history import History
from app.engine.runs.admitting import admitted_run, stored_run
from app.engine.runs.background import BackgroundRuns
from app.engine.runs.cancelling import Cancellation
from app.engine.runs.elsewhere import Elsewhere
from app.engine.runs.ports import Ports
from app.engine.runs.readers import BackgroundReader
from app.engine.runs.replaying import BeyondEnd, replayed
from app.engine.runs.run import Run
from app.engine.runs.supervisor import Runs
from app.protocol.wire import ids
from app.protocol.wire.errors import Conflict, InvalidRequest, NotFound
from app.protocol.wire.paging import Page, UnknownCursor, window
from app.protocol.wire.response import decode
from app.stores.ports.responses import AncestorDeleted, ResponseRecord, Turn


class ItemPage(msgspec.Struct, frozen=True):
    """One page of a response's input items."""

    items: tuple[msgspec.Raw, ...]
    has_more: bool


class Responses:
    """Create, read, follow, list, delete."""

    def __init__(self, ports: Ports, runs: Runs, background: BackgroundRuns, *, alone: bool) -> None:
        """`alone`: no other process uses the store."""
        self._ports = ports
        self._elsewhere = Elsewhere(ports, alone=alone)
        self._runs = runs
        self._kept = KeptResponses(ports.policy.limits.websocket_cache_bytes)
        self._background = background
        self._reader = BackgroundReader(ports, background)
        self._cancellation = Cancellation(ports, background)

    async def create(
        self,
        principal: Principal,
        body: bytes,
        *,
        lenient: bool,
        history: History | None = None,
        warm_up: bool = False,
    ) -> Run:
        """Check the request and create its run, which is not open yet. Raises ApiError and StoreUnavailable.

        `history`: of a connection, for what is not known elsewhere. `warm_up`: the model is not asked.
        """
        ports = self._ports if history is None else msgspec.structs.replace(self._ports, history=history)
        return await admitted_run(ports, principal.project_id, body, lenient=lenient, warm_up=warm_up)

    def connection(self) -> ConnectionState:
        """The state of a new connection."""
        return ConnectionState(self._ports.store, self._kept)

    async def start(self, run: Run, body: bytes, *, lenient: bool) -> bytes:
        """Start a background run of that body; returns the queued response. Raises ApiError and StoreUnavailable."""
        previous = run.admitted.request.previous_response_id
        if previous is not None:
            await self._ports.history.check(run.project_id, previous, self._now())
        await run.conversation.begin()
        run.conversation.hand_over()
        try:
            queued = await self._background.accept(run, body, lenient=lenient)
        except BaseException:
            await run.conversation.release()
            raise
        await run.conversation.handed_over()
        return queued

    def events(self, run: Run) -> AsyncGenerator[Sequence[bytes], None]:
        """The stream of a background run."""
        return self._reader.follow(run.project_id, run.id, -1)

    async def cancel(self, principal: Principal, response_id: str) -> bytes:
        """Cancel a background response; returns it as it has ended, which may be complete.

        Raises NotFound and InvalidRequest.
        """
        found = ids.normalize_response_id(response_id)
        if found is None:
            raise not_found(response_id)
        record = await self._ports.store.get(principal.project_id, found, self._now())
        if record is None and self._runs.find(principal.project_id, found) is not None:
            raise _synchronous()
        if record is None:
            await self._cancel(principal.project_id, found)  # without effect if it has ended since the first look
            record = await self._ports.store.get(principal.project_id, found, self._now())
        if record is None:
            raise not_found(response_id)
        if not decode(record.response).background:
            raise _synchronous()
        return record.response

    async def _cancel(self, project_id: str, found: str) -> None:
        """Cancel a background run, if there is one. Raises InvalidRequest for a resumable one."""
        state = await self._reader.state(project_id, found)
        if state is None:
            return
        if not decode(state.run.seed).background:
            raise _synchronous()
        await self._cancellation.cancel(project_id, found)

    async def get(self, principal: Principal, response_id: str) -> bytes:
        """The response as JSON. Raises NotFound."""
        found = ids.normalize_response_id(response_id)
        if found is None:
            raise not_found(response_id)
        run = self._runs.find(principal.project_id, found)
        if run is not None and run.known:
            return run.snapshot()
        record = await self._ports.store.get(principal.project_id, found, self._now())
        if record is None and (snapshot := await self._reader.snapshot(principal.project_id, found)) is not None:
            return snapshot
        if record is None:  # it may have ended between the two looks
            record = await self._ports.store.get(principal.project_id, found, self._now())
        if record is None and await self._elsewhere.has(principal.project_id, found):
            snapshot = await self._elsewhere.snapshot(principal.project_id, found)
            if snapshot is not None:
                return snapshot
        return (record or await self._ended(principal, found, response_id)).response

    async def follow(self, principal: Principal, response_id: str, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The response's frames after number `after`, including future ones of a live response.

        Raises at once: NotFound; InvalidRequest if it has no events, or if it has ended with an earlier number.
        """
        found = ids.normalize_response_id(response_id)
        if found is None:
            raise not_found(response_id)
        project = principal.project_id
        run = self._runs.find(project, found)
        if run is not None and run.can_be_followed:
            return run.followers.follow(run.so_far, after)
        record = await self._ports.store.get(project, found, self._now())
        if record is None and (state := await self._reader.state(project, found)) is not None:
            if not state.run.streamed:
                raise _not_streamed()
            return self._reader.follow(project, found, after)
        if record is None:
            record = await self._ports.store.get(project, found, self._now())
        if record is None and await self._elsewhere.has(project, found):
            return self._elsewhere.follow(project, found, after)
        return await _replay(record or await self._ended(principal, found, response_id), after)

    async def _ended(self, principal: Principal, found: str, response_id: str) -> ResponseRecord:
        """The record of a response that has ended while others were asked for it. Raises NotFound."""
        record = await self._ports.store.get(principal.project_id, found, self._now())
        if record is None:
            raise not_found(response_id)
        return record

    async def input_items(self, principal: Principal, response_id: str, page: Page) -> ItemPage:
        """A page of the model's input: the chain's earlier items and this turn's.

        Raises NotFound and InvalidRequest.
        """
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
            return [*await self._before(principal, run), run.turn_so_far()]
        pending = await self._reader.state(principal.project_id, found) if found is not None else None
        if pending is not None:
            run = await stored_run(self._ports, pending.run)
            return [*await self._before(principal, run), run.turn_so_far()]
        turns = await self._chain(principal, found) if found is not None else ()
        if not turns:
            raise not_found(response_id)
        return turns

    async def _before(self, principal: Principal, run: Run) -> Sequence[Turn]:
        previous_id = run.identity.previous_id
        return await self._chain(principal, previous_id) if previous_id is not None else ()

    async def _chain(self, principal: Principal, found: str) -> Sequence[Turn]:
        """The turns up to a stored response; only its own if an earlier one was deleted, none if it does not exist."""
        try:
            return await self._ports.store.chain(principal.project_id, found, self._now()) or ()
        except AncestorDeleted:
            record = await self._ports.store.get(principal.project_id, found, self._now())
            if record is None:
                return ()
            return (Turn(record.id, record.input, record.response, record.inherited, record.exchanges),)

    async def delete(self, principal: Principal, response_id: str) -> str:
        """Delete the response and return its id as stored.

        Raises NotFound, and Conflict while it is being generated.
        """
        found = ids.normalize_response_id(response_id)
        run = self._runs.find(principal.project_id, found) if found is not None else None
        if run is not None and not run.settled:
            raise _in_progress(response_id)
        if found is None:
            raise not_found(response_id)
        if await self._reader.state(principal.project_id, found) is not None:
            raise _in_progress(response_id)
        if not await self._ports.store.delete(principal.project_id, found, self._now()):
            live = await self._elsewhere.has(principal.project_id, found)
            raise _in_progress(response_id) if live else not_found(response_id)
        self._ports.history.forget(found)
        await self._elsewhere.forget(principal.project_id, found)
        return self._ports.policy.id_prefix + found

    def _now(self) -> int:
        return int(self._ports.clock())


def not_found(response_id: str) -> NotFound:
    """The same error for unknown, expired, deleted and other projects' ids."""
    return NotFound(f"Response with id '{response_id}' not found.", code="response_not_found", param="response_id")


def _in_progress(response_id: str) -> Conflict:
    message = (
        f"Response with id '{response_id}' is being generated. Wait for its end; a background response can be "
        f"cancelled."
    )
    return Conflict(message, code="response_in_progress", param="response_id")


def _synchronous() -> InvalidRequest:
    return InvalidRequest("Cannot cancel a synchronous response.", code="invalid_value", param="response_id")


def _not_streamed() -> InvalidRequest:
    message = (
        "This background response was not created with 'stream' true, so that it has no events; get it without "
        "'stream'."
    )
    return InvalidRequest(message, code="invalid_value", param="stream")


def _beyond(after: int, last: int) -> InvalidRequest:
    message = f"Invalid 'starting_after': the last event of this response has the number {last}, but got {after}."
    return InvalidRequest(message, code="invalid_value", param="starting_after")


async def _replay(record: ResponseRecord, after: int) -> AsyncGenerator[Sequence[bytes], None]:
    """The frames of a stored response after number `after`. Raises InvalidRequest."""
    if record.cuts is None and decode(record.response).background:
        raise _not_streamed()
    batches = replayed(record, after + 1)
    try:
        return _continued(await anext(batches), batches)
    except StopAsyncIteration:
        return batches
    except BeyondEnd as error:
        raise _beyond(after, error.last) from None


async def _continued(
    first: Sequence[bytes], rest: AsyncGenerator[Sequence[bytes], None]
) -> AsyncGenerator[Sequence[bytes], None]:
    async with aclosing(rest):
        yield first
        async for frames in rest:
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
