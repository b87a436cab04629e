"""What every store of runs does, tried on both databases."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest

from app.db.engine import Database
from app.stores.ports.responses import ResponseRecord
from app.stores.ports.runs import Claim, StoredRun
from app.stores.sql import SqlResponseStore
from app.stores.sql_runs import SqlRunStore
from tests.stores.records import LIFE, PROJECT, turn

LEASE = 60.0
OVER = -1.0
"""A lease that is over when it begins: no test waits for one."""


@pytest.fixture
def runs(database: Database) -> SqlRunStore:
    """An empty store of runs."""
    return SqlRunStore(database)


@pytest.fixture
def responses(database: Database) -> SqlResponseStore:
    """The store that settled runs go to."""
    return SqlResponseStore(database, retention_seconds=LIFE)


def run(*, at: int = 0, lane: int = 0, project: str = PROJECT, after: str | None = None) -> StoredRun:
    """A run to be stored."""
    return StoredRun(
        id=str(uuid4()),
        project_id=project,
        previous_id=after,
        created_at=at,
        lane=lane,
        streamed=True,
        request=b'{"input":"\x00\xff"}',
        seed=b'{"id":"r"}',
    )


def record_of(run: StoredRun, said: str = "done") -> ResponseRecord:
    """What the run ends with."""
    return msgspec.structs.replace(turn(said), id=run.id, project_id=run.project_id, previous_id=run.previous_id)


async def test_a_run_comes_back_as_it_was(runs: SqlRunStore) -> None:
    waiting, owned = run(after=str(uuid4())), msgspec.structs.replace(run(lane=2), streamed=False, lenient=True)
    await runs.create(waiting, None, LEASE)
    await runs.create(owned, "one", LEASE)
    state = await runs.get(PROJECT, waiting.id)
    assert state is not None
    assert (state.run, state.owner, state.fence, state.cancelled, state.lease_seconds) == (waiting, None, 0, False, 0.0)
    state = await runs.get(PROJECT, owned.id)
    assert state is not None
    assert (state.run, state.owner, state.fence, state.cancelled) == (owned, "one", 1, False)
    assert 0 < state.lease_seconds <= LEASE


async def test_a_settled_run_is_a_response(runs: SqlRunStore, responses: SqlResponseStore) -> None:
    begun = run()
    await runs.create(begun, "one", LEASE)
    record = msgspec.structs.replace(record_of(begun), foreign_item_ids=("item", "item", "nul \0 inside"))
    assert await runs.settle(record, fence=1)
    assert await runs.get(PROJECT, begun.id) is None
    assert await responses.get(PROJECT, begun.id, now=1) == msgspec.structs.replace(record, foreign_item_ids=())
    assert await responses.locate_item(PROJECT, "item", now=1) == begun.id


async def test_waiting_runs_are_claimed_by_lane_then_by_age(runs: SqlRunStore) -> None:
    late, first, second, slow = run(lane=1, at=0), run(at=1), run(at=2), run(lane=2)
    for one in (second, late, slow, first):
        await runs.create(one, None, LEASE)
    assert await runs.waiting() == 4
    assert await runs.claim("one", LEASE, 2, takeover=False) == [Claim(first, 1), Claim(second, 1)]
    assert await runs.claim("one", LEASE, 0, takeover=False) == ()
    assert await runs.claim("one", LEASE, 9, lanes=0, takeover=True) == ()
    assert await runs.claim("one", LEASE, 9, lanes=1, takeover=True) == [Claim(late, 1)]
    assert await runs.claim("two", LEASE, 9, takeover=True) == [Claim(slow, 1)]
    assert await runs.claim("two", LEASE, 9, takeover=True) == ()
    assert await runs.waiting() == 0


async def test_a_lease_that_is_over_is_taken_over_only_if_asked(runs: SqlRunStore) -> None:
    orphan, waiting, healthy = run(at=1), run(at=2), run(at=0)
    await runs.create(orphan, "dead", OVER)
    await runs.create(waiting, None, LEASE)
    await runs.create(healthy, "alive", LEASE)
    assert await runs.claim("one", LEASE, 9, takeover=False) == [Claim(waiting, 1)]
    assert await runs.claim("one", LEASE, 9, takeover=True) == [Claim(orphan, 2)]
    state = await runs.get(PROJECT, orphan.id)
    assert state is not None
    assert (state.owner, state.fence) == ("one", 2)
