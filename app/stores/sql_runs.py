"""Background runs in SQLite or Postgres: one row from acceptance to settlement.

The locks of its rows decide who owns a run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    RowMapping,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.db.clock import now_ms
from app.db.engine import Database
from app.db.tables import responses, runs
from app.db.writer import Change
from app.jobs.leases import Leases, lease, milliseconds
from app.stores.ports.responses import RecordRefused, ResponseRecord
from app.stores.ports.runs import Claim, Held, RunState, StoredRun
from app.stores.sql import rows_of, store_errors
from app.stores.turns import rows_of_turn

_LONGEST_MS = {1: 2 * 3_600_000, 2: 8 * 3_600_000}
"""How long the runs of a lane may wait."""
_r = runs.c
_RUN = (_r.id, _r.project_id, _r.previous_id, _r.created_at, _r.lane, _r.streamed, _r.lenient, _r.request, _r.seed)
_STATE = (*_RUN, _r.owner, _r.fence, _r.cancelled, (_r.due_at - now_ms()).label("left"))
_leases = Leases(runs)

_INSERTS = {"sqlite": sqlite.insert(runs), "postgresql": postgresql.insert(runs)}
_CREATE, _CREATE_OWNED = (
    {dialect: insert.values(cancelled=False, **values).on_conflict_do_nothing() for dialect, insert in _INSERTS.items()}
    for values in ({"fence": 0, "owner": None, "due_at": 0}, {"fence": 1, **_leases.owned})
)

_queue = _leases.queue

# A run that may wait two or eight hours is due as soon as possible when a quarter of that time is left.
_WAITED = now_ms() - _queue.created_at * 1000
_IS_URGENT = or_(*(and_(_queue.lane == lane, longest * 3 // 4 <= _WAITED) for lane, longest in _LONGEST_MS.items()))
_LANE = case((_IS_URGENT, 0), else_=_queue.lane)

# What has begun goes on, whatever its lane.
_DUE = (or_(bindparam("lanes") >= _LANE, _queue.owner.is_not(None)), *_leases.is_due)
_LOOK = select(literal(1)).where(*_DUE).limit(1)
_NEXT = select(_queue.id).where(*_DUE).order_by(_LANE, _queue.created_at, _queue.id).limit(bindparam("most"))
_FENCED = (_r.id == bindparam("wanted"), _r.fence == bindparam("known"))
_CLAIMED = (*_RUN, _r.fence, _r.progress)
_CLAIM = _leases.claim(_NEXT, fence=_r.fence + 1).returning(*_CLAIMED)
_SEIZE = _leases.take(*_FENCED, fence=_r.fence + 1).returning(*_CLAIMED)

_held = runs.alias("held").c
_MINE = (
    select(_held.id)
    .where(_held.id.in_(bindparam("ids", expanding=True)), _held.owner == bindparam("holder"))
    .order_by(_held.id)  # in this order settlements lock them, too
    .with_for_update()
    .cte("mine")
)
_NOTE = update(runs).where(*_FENCED, _r.owner.is_not(None)).values(progress=bindparam("noted")).returning(_r.id)
_RENEW = _leases.renew(_r.id.in_(select(_MINE.c.id))).returning(_r.id, _r.fence, _r.cancelled)
_RELEASE = _leases.release(*_FENCED, _r.owner == bindparam("holder"))

_THIS = (_r.id == bindparam("wanted"), _r.project_id == bindparam("project"))
_GET = select(*_STATE).where(*_THIS)
_CANCEL = update(runs).where(*_THIS).values(cancelled=true()).returning(*_STATE)
_WAITING = select(func.count().label("waiting")).where(_r.owner.is_(None))

# A released run keeps its fence until it is claimed again: without an owner it can be settled by nobody.
_END = delete(runs).where(*_THIS, _r.fence == bindparam("known"), _r.owner.is_not(None))
_SETTLED = select(literal(1)).where(
    responses.c.id == bindparam("wanted"),
    responses.c.project_id == bindparam("project"),
    responses.c.status == bindparam("status"),
    responses.c.response == bindparam("response"),
)


class SqlRunStore:
    """Runs stored in the database, shared by all replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, run: StoredRun, owner: str | None, lease_seconds: float) -> None:
        """Add a run, owned or waiting. After a lost connection it may be there already."""
        row = {column.name: getattr(run, column.name) for column in _RUN}
        statement = _CREATE[self._database.dialect]
        if owner is not None:
            statement = _CREATE_OWNED[self._database.dialect]
            row |= lease(owner, lease_seconds)
        with store_errors():
            created = await self._database.writer.change(Change(run.id, statement, row))
        if not (created or await self._has(run, owner)):
            raise RecordRefused(f"there is another run {run.id}")

    async def claim(
        self, owner: str, lease_seconds: float, most: int, *, lanes: int = 2, takeover: bool
    ) -> Sequence[Claim]:
        """Look without a lock, since there is mostly nothing to do; then take what others do not.

        If the look takes as long as half a lease the database was away: nobody has been able to renew, and nothing is
        taken over.
        """
        due = {"lanes": lanes, "takeover": takeover}
        began = time.monotonic()
        if most <= 0 or not await self._fetch(_LOOK, due):
            return ()
        due["takeover"] = takeover and time.monotonic() - began < lease_seconds / 2
        rows = await self._change(_CLAIM, {**due, **lease(owner, lease_seconds), "most": most})
        claims = [_claim(row) for row in rows]
        return sorted(claims, key=lambda claim: (claim.run.lane, claim.run.created_at, claim.run.id))

    async def renew(self, owner: str, ids: Sequence[str], lease_seconds: float) -> Mapping[str, Held]:
        """Extend the leases with one statement."""
        if not ids:
            return {}
        rows = await self._fetch(_RENEW, {"ids": list(ids), "holder": owner, "lease": milliseconds(lease_seconds)})
        return {row["id"]: Held(row["fence"], row["cancelled"]) for row in rows}

    async def request_cancel(self, project_id: str, run_id: str) -> RunState | None:
        """Set the flag that the owner's next renewal returns."""
        rows = await self._fetch(_CANCEL, {"wanted": run_id, "project": project_id})
        return _state(rows[0]) if rows else None

    async def seize(self, run_id: str, fence: int, owner: str, lease_seconds: float) -> Claim | None:
        """Claim this one, if the fence is still that."""
        rows = await self._change(_SEIZE, {"wanted": run_id, "known": fence, **lease(owner, lease_seconds)})
        return _claim(rows[0]) if rows else None

    async def release(self, owner: str, run_id: str, fence: int) -> bool:
        """Make it waiting again."""
        with store_errors():
            async with self._database.transaction() as connection:
                held = {"wanted": run_id, "known": fence, "holder": owner}
                return (await connection.execute(_RELEASE, {**held, "pause": 0})).rowcount > 0

    async def note(self, run_id: str, fence: int, progress: bytes) -> bool:
        """Replace what was noted before."""
        return bool(await self._fetch(_NOTE, {"wanted": run_id, "known": fence, "noted": progress}))

    async def settle(self, record: ResponseRecord, fence: int) -> bool:
        """Delete the run and insert its record, in one transaction with whatever else waits to be written.

        Without the run's row the lock of its conversation is over, too.
        """
        this = {"wanted": record.id, "project": record.project_id, "known": fence}
        with store_errors():
            turn = await rows_of_turn(self._database, record) or ()
            settled = await self._database.writer.change(Change(record.id, _END, this, (*rows_of(record), *turn)))
        return settled or await self._is_settled(record)

    async def get(self, project_id: str, run_id: str) -> RunState | None:
        """The run, if this project has it."""
        rows = await self._fetch(_GET, {"wanted": run_id, "project": project_id})
        return _state(rows[0]) if rows else None

    async def waiting(self) -> int:
        """How many runs have no owner."""
        return (await self._fetch(_WAITING, {}))[0]["waiting"]

    async def _has(self, run: StoredRun, owner: str | None) -> bool:
        """Whether this very run is there: a waiting one may have been claimed meanwhile."""
        state = await self.get(run.project_id, run.id)
        return state is not None and state.run == run and (owner is None or (state.owner, state.fence) == (owner, 1))

    async def _is_settled(self, record: ResponseRecord) -> bool:
        """Whether this very record is stored: an earlier try may have succeeded before its connection was lost."""
        this = {"wanted": record.id, "project": record.project_id}
        return bool(await self._fetch(_SETTLED, {**this, "status": record.status, "response": record.response}))

    async def _fetch(self, statement: Any, parameters: Mapping[str, Any]) -> Sequence[RowMapping]:
        """Rows of a read, or of a change that does no harm if it is made twice."""
        with store_errors():
            return await self._database.fetch(statement, parameters)

    async def _change(self, statement: Any, parameters: Mapping[str, Any]) -> Sequence[RowMapping]:
        with store_errors():
            async with self._database.transaction() as connection:
                return (await connection.execute(statement, parameters)).mappings().all()


def _run(row: RowMapping) -> StoredRun:
    return StoredRun(**{column.name: row[column.name] for column in _RUN})


def _claim(row: RowMapping) -> Claim:
    return Claim(_run(row), row["fence"], row["progress"])


def _state(row: RowMapping) -> RunState:
    left = 0.0 if row["owner"] is None else row["left"] / 1000
    return RunState(_run(row), row["owner"], row["fence"], row["cancelled"], left)
