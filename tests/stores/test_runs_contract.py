"""What every store of runs does, tried on both databases."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import select

from app.db.clock import now_ms
from app.db.engine import Database
from app.stores.ports.responses import RecordRefused
from app.stores.ports.runs import Claim, Held, RunState, RunStore, StoredRun
from app.stores.sql import SqlResponseStore
from app.stores.sql_runs import SqlRunStore
from tests.stores.records import LEASE, LIFE, OVER, PROJECT, record_of, run, turn


@pytest.fixture
def runs(database: Database) -> SqlRunStore:
    """An empty store of runs."""
    return SqlRunStore(database)


@pytest.fixture
def responses(database: Database) -> SqlResponseStore:
    """The store that settled runs go to."""
    return SqlResponseStore(database, retention_seconds=LIFE)


async def state_of(runs: RunStore, run: StoredRun) -> RunState:
    """The run's state; it must have one."""
    state = await runs.get(run.project_id, run.id)
    assert state is not None
    return state


async def test_a_run_comes_back_as_it_was(runs: SqlRunStore) -> None:
    waiting, owned = run(after=str(uuid4())), msgspec.structs.replace(run(lane=2), streamed=False, lenient=True)
    await runs.create(waiting, None, LEASE)
    await runs.create(owned, "one", LEASE)
    state = await state_of(runs, waiting)
    assert (state.run, state.owner, state.fence, state.cancelled, state.lease_seconds) == (waiting, None, 0, False, 0.0)
    state = await state_of(runs, owned)
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
    now = int(time.time())
    late, first, second, slow = run(lane=1, at=now), run(at=now + 1), run(at=now + 2), run(lane=2, at=now)
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


async def test_a_run_that_has_waited_long_is_due_as_soon_as_the_others(runs: SqlRunStore) -> None:
    """When a quarter of the two or eight hours is left."""
    now, hour = int(time.time()), 3600
    made = {
        (lane, hours): run(lane=lane, at=now - int(hours * hour))
        for lane, hours in ((1, 1.4), (1, 1.6), (2, 1.6), (2, 5.9), (2, 6.1))
    }
    for one in made.values():
        await runs.create(one, None, LEASE)
    claims = await runs.claim("one", LEASE, 9, lanes=0, takeover=False)
    assert {claim.run.id for claim in claims} == {made[1, 1.6].id, made[2, 6.1].id}


async def test_a_lease_that_is_over_is_taken_over_only_if_asked(runs: SqlRunStore) -> None:
    orphan, waiting, healthy = run(at=1), run(at=2), run(at=0)
    await runs.create(orphan, "dead", OVER)
    await runs.create(waiting, None, LEASE)
    await runs.create(healthy, "alive", LEASE)
    assert await runs.claim("one", LEASE, 9, takeover=False) == [Claim(waiting, 1)]
    assert await runs.claim("one", LEASE, 9, takeover=True) == [Claim(orphan, 2)]
    state = await state_of(runs, orphan)
    assert (state.owner, state.fence) == ("one", 2)


async def test_a_run_that_was_interrupted_goes_before_those_that_came_later(runs: SqlRunStore) -> None:
    orphan, later = run(at=1), run(at=2)
    await runs.create(later, None, LEASE)
    await runs.create(orphan, "dead", OVER)
    assert await runs.claim("one", LEASE, 1, takeover=True) == [Claim(orphan, 2)]
    assert await runs.claim("one", LEASE, 1, takeover=True) == [Claim(later, 1)]


async def test_another_projects_run_is_unknown(runs: SqlRunStore) -> None:
    theirs = run(project="project-b")
    await runs.create(theirs, "one", LEASE)
    assert await runs.get(PROJECT, theirs.id) is None
    assert await runs.request_cancel(PROJECT, theirs.id) is None
    assert not await runs.settle(msgspec.structs.replace(record_of(theirs), project_id=PROJECT), fence=1)
    assert not (await state_of(runs, theirs)).cancelled


async def test_an_unknown_run_is_nothing(runs: SqlRunStore, responses: SqlResponseStore) -> None:
    unknown = run()
    assert await runs.get(PROJECT, unknown.id) is None
    assert await runs.get(PROJECT, "nul \0 inside") is None
    assert await runs.request_cancel(PROJECT, unknown.id) is None
    assert await runs.seize(unknown.id, 0, "one", LEASE) is None
    assert not await runs.release("one", unknown.id, 1)
    assert not await runs.settle(record_of(unknown), fence=1)
    assert await responses.get(PROJECT, unknown.id, now=1) is None
    assert await runs.renew("one", [unknown.id], LEASE) == {}
    assert await runs.renew("one", [], LEASE) == {}
    assert await runs.waiting() == 0


async def test_renewing_keeps_what_is_still_held(runs: SqlRunStore) -> None:
    mine, late, theirs, waiting = run(), run(), run(), run()
    await runs.create(mine, "one", LEASE)
    await runs.create(late, "one", OVER)  # over, but nobody has taken it
    await runs.create(theirs, "two", OVER)
    await runs.create(waiting, None, LEASE)
    held = await runs.renew("one", [one.id for one in (mine, late, theirs, waiting)], 2 * LEASE)
    assert held == {mine.id: Held(1, cancelled=False), late.id: Held(1, cancelled=False)}
    assert [(await state_of(runs, one)).lease_seconds > LEASE for one in (mine, late, theirs)] == [True, True, False]
    assert (await state_of(runs, waiting)).owner is None


async def test_runs_that_are_not_named_are_not_renewed(runs: SqlRunStore) -> None:
    forgotten, remembered = run(), run()
    for one in (forgotten, remembered):
        await runs.create(one, "one", OVER)
    await runs.renew("one", [remembered.id], LEASE)
    assert await runs.claim("two", LEASE, 9, takeover=True) == [Claim(forgotten, 2)]


async def test_many_runs_are_renewed_at_once(runs: SqlRunStore) -> None:
    many = [run() for _ in range(300)]
    await asyncio.gather(*(runs.create(one, "one", OVER) for one in many))
    assert await runs.renew("one", [one.id for one in many], LEASE) == {
        one.id: Held(1, cancelled=False) for one in many
    }
    assert await runs.claim("two", LEASE, 1, takeover=True) == ()


async def test_the_owner_learns_of_a_cancellation(runs: SqlRunStore) -> None:
    running = run()
    await runs.create(running, "one", LEASE)
    state = await runs.request_cancel(PROJECT, running.id)
    assert state is not None
    assert (state.run, state.owner, state.fence, state.cancelled) == (running, "one", 1, True)
    assert 0 < state.lease_seconds <= LEASE
    assert await runs.request_cancel(PROJECT, running.id) is not None
    assert await runs.renew("one", [running.id], LEASE) == {running.id: Held(1, cancelled=True)}


async def test_a_cancellation_outlasts_changes_of_owner(runs: SqlRunStore) -> None:
    waiting = run()
    await runs.create(waiting, None, LEASE)
    state = await runs.request_cancel(PROJECT, waiting.id)
    assert state is not None
    assert (state.owner, state.lease_seconds) == (None, 0.0)
    assert await runs.seize(waiting.id, 0, "one", LEASE) == Claim(waiting, 1)
    assert await runs.release("one", waiting.id, 1)
    assert await runs.claim("two", LEASE, 1, takeover=False) == [Claim(waiting, 2)]
    assert (await state_of(runs, waiting)).cancelled


async def test_a_run_is_seized_from_the_owner_that_was_seen(runs: SqlRunStore) -> None:
    running = run()
    await runs.create(running, "silent", LEASE)
    assert await runs.seize(running.id, 0, "one", LEASE) is None
    assert await runs.seize(running.id, 1, "one", OVER) == Claim(running, 2)
    assert await runs.seize(running.id, 1, "two", LEASE) is None
    state = await state_of(runs, running)
    assert (state.owner, state.fence) == ("one", 2)
    assert state.lease_seconds < 0
    assert await runs.settle(record_of(running), fence=2)
    assert await runs.seize(running.id, 2, "two", LEASE) is None


async def test_a_released_run_waits_again(runs: SqlRunStore, responses: SqlResponseStore) -> None:
    running = run()
    await runs.create(running, "one", LEASE)
    assert not await runs.release("two", running.id, 1)
    assert not await runs.release("one", running.id, 0)
    assert await runs.release("one", running.id, 1)
    assert not await runs.release("one", running.id, 1)
    assert await runs.waiting() == 1
    assert await runs.renew("one", [running.id], LEASE) == {}
    assert not await runs.settle(record_of(running), fence=1)
    assert await responses.get(PROJECT, running.id, now=1) is None
    assert await runs.claim("one", LEASE, 1, takeover=False) == [Claim(running, 2)]


async def test_what_an_owner_notes_is_for_the_next_one(runs: SqlRunStore) -> None:
    running, waiting = run(), run()
    await runs.create(running, "one", OVER)
    await runs.create(waiting, None, LEASE)
    assert await runs.note(running.id, 1, b"first")
    assert await runs.note(running.id, 1, b"second \0")
    assert not await runs.note(running.id, 2, b"of another owner")
    assert not await runs.note(waiting.id, 0, b"of none")
    assert await runs.seize(running.id, 1, "two", LEASE) == Claim(running, 2, b"second \0")
    assert not await runs.note(running.id, 1, b"too late")
    assert await runs.release("two", running.id, 2)
    assert not await runs.note(running.id, 2, b"given back")
    claims = await runs.claim("three", LEASE, 9, takeover=False)
    assert sorted(claims, key=lambda claim: claim.fence) == [Claim(waiting, 1), Claim(running, 3, b"second \0")]


async def test_an_owner_that_wakes_up_too_late_changes_nothing(runs: SqlRunStore, responses: SqlResponseStore) -> None:
    running = run()
    await runs.create(running, "zombie", OVER)
    assert await runs.claim("one", LEASE, 1, takeover=True) == [Claim(running, 2)]
    before = await state_of(runs, running)
    assert await runs.renew("zombie", [running.id], LEASE) == {}
    assert not await runs.release("zombie", running.id, 1)
    assert not await runs.settle(record_of(running, "zombie"), fence=1)
    assert await responses.get(PROJECT, running.id, now=1) is None
    after = await state_of(runs, running)
    assert (after.owner, after.fence, after.cancelled) == (before.owner, before.fence, before.cancelled)
    assert await runs.settle(record_of(running, "done"), fence=2)
    assert not await runs.settle(record_of(running, "zombie"), fence=1)
    assert await responses.get(PROJECT, running.id, now=1) == record_of(running, "done")


async def test_a_name_that_is_used_again_is_another_owner(runs: SqlRunStore) -> None:
    running = run()
    await runs.create(running, "host-1", OVER)
    assert await runs.claim("host-1", LEASE, 1, takeover=True) == [Claim(running, 2)]
    # both learn whose it is
    assert await runs.renew("host-1", [running.id], LEASE) == {running.id: Held(2, cancelled=False)}
    assert not await runs.release("host-1", running.id, 1)
    assert not await runs.settle(record_of(running), fence=1)
    assert await runs.settle(record_of(running), fence=2)


async def test_a_settlement_may_be_repeated_but_not_changed(runs: SqlRunStore, responses: SqlResponseStore) -> None:
    running = run()
    await runs.create(running, "one", LEASE)
    for _ in range(2):  # as after a connection that was lost before the first was confirmed
        assert await runs.settle(record_of(running), fence=1)
    assert not await runs.settle(record_of(running, "something else"), fence=1)
    assert await responses.get(PROJECT, running.id, now=1) == record_of(running)
    await responses.delete(PROJECT, running.id, now=1)
    assert not await runs.settle(record_of(running), fence=1)


@pytest.mark.parametrize(
    "changes", [{"created_at": 2**70}, {"model": "half a pair \ud800"}, {"foreign_item_ids": ("fine", "\ud800")}]
)
async def test_a_record_that_cannot_be_stored_leaves_the_run(
    runs: SqlRunStore, responses: SqlResponseStore, changes: dict[str, object]
) -> None:
    running = run()
    await runs.create(running, "one", LEASE)
    with pytest.raises(RecordRefused):
        await runs.settle(msgspec.structs.replace(record_of(running), **changes), fence=1)
    assert await responses.get(PROJECT, running.id, now=1) is None
    assert await responses.locate_item(PROJECT, "fine", now=1) is None
    assert (await state_of(runs, running)).owner == "one"
    assert await runs.settle(record_of(running), fence=1)


async def test_a_record_whose_id_is_taken_is_refused(runs: SqlRunStore, responses: SqlResponseStore) -> None:
    running = run()
    await runs.create(running, "one", LEASE)
    await responses.save(record_of(running, "somebody else's"))
    with pytest.raises(RecordRefused):
        await runs.settle(record_of(running), fence=1)
    assert (await state_of(runs, running)).fence == 1


@pytest.mark.parametrize("changes", [{"created_at": 2**70}, {"project_id": "half a pair \ud800"}])
async def test_a_run_that_cannot_be_stored_is_refused(runs: SqlRunStore, changes: dict[str, object]) -> None:
    with pytest.raises(RecordRefused):
        await runs.create(msgspec.structs.replace(run(), **changes), None, LEASE)
    assert await runs.waiting() == 0


async def test_an_id_is_used_once(runs: SqlRunStore) -> None:
    first = run()
    await runs.create(first, None, LEASE)
    with pytest.raises(RecordRefused):
        await runs.create(msgspec.structs.replace(first, request=b"second"), "one", LEASE)
    assert (await state_of(runs, first)).run == first


async def test_of_runs_that_are_created_at_once_only_one_with_a_taken_id_is_refused(runs: SqlRunStore) -> None:
    taken = run()
    await runs.create(taken, None, LEASE)
    fresh = [run() for _ in range(10)]
    theirs = msgspec.structs.replace(taken, project_id="project-b")
    unfit = msgspec.structs.replace(run(), created_at=2**70)
    other = msgspec.structs.replace(taken, seed=b"{}")
    creating = (*fresh[:5], theirs, other, unfit, *fresh[5:])
    outcomes = await asyncio.gather(*(runs.create(one, "one", LEASE) for one in creating), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 5 + [RecordRefused] * 3 + [type(None)] * 5
    assert set(await runs.renew("one", [one.id for one in fresh], LEASE)) == {one.id for one in fresh}
    assert (await state_of(runs, taken)).run == taken
    assert await runs.waiting() == 1


async def test_a_creation_may_be_repeated_but_not_changed(runs: SqlRunStore) -> None:
    waiting, owned = run(), run()
    for _ in range(2):  # as after a connection that was lost before the first was confirmed
        await runs.create(waiting, None, LEASE)
        await runs.create(owned, "one", LEASE)
    assert await runs.seize(waiting.id, 0, "two", LEASE) == Claim(waiting, 1)
    await runs.create(waiting, None, LEASE)  # it was claimed meanwhile
    with pytest.raises(RecordRefused):
        await runs.create(waiting, "one", LEASE)
    assert (await state_of(runs, waiting)).owner == "two"
    assert await runs.settle(record_of(owned), fence=1)


async def test_of_runs_that_are_settled_at_once_only_those_of_their_owner_are_written(
    runs: SqlRunStore, responses: SqlResponseStore
) -> None:
    mine = [run() for _ in range(10)]
    lost, taken, unknown = run(), run(), run()
    await asyncio.gather(*(runs.create(one, "one", LEASE) for one in (*mine, lost, taken)))
    assert await runs.seize(lost.id, 1, "two", LEASE) is not None
    await responses.save(record_of(taken, "somebody else's"))
    settling = (*mine[:5], lost, taken, unknown, *mine[5:])
    records = [msgspec.structs.replace(record_of(one), foreign_item_ids=(f"item of {one.id}",)) for one in settling]
    outcomes = await asyncio.gather(*(runs.settle(record, fence=1) for record in records), return_exceptions=True)
    assert outcomes[:5] == outcomes[8:] == [True] * 5
    assert [type(outcome) for outcome in outcomes[5:8]] == [bool, RecordRefused, bool]
    assert [outcomes[5], outcomes[7]] == [False, False]
    for one in mine:
        assert await runs.get(PROJECT, one.id) is None
        assert await responses.locate_item(PROJECT, f"item of {one.id}", now=1) == one.id
    for one in (lost, unknown):
        assert await responses.get(PROJECT, one.id, now=1) is None
    assert [(await state_of(runs, one)).fence for one in (lost, taken)] == [2, 1]


async def test_of_two_ends_that_are_stored_at_once_the_first_wins(
    runs: SqlRunStore, responses: SqlResponseStore
) -> None:
    running = run()
    await runs.create(running, "one", LEASE)
    ends = [record_of(running, said) for said in ("first", "second", "first")]
    assert await asyncio.gather(*(runs.settle(end, fence=1) for end in ends)) == [True, False, True]
    assert await responses.get(PROJECT, running.id, now=1) == ends[0]


async def test_purging_keeps_what_a_run_continues(runs: SqlRunStore, responses: SqlResponseStore) -> None:
    root = turn("root")
    parent, other = turn("parent", after=root), turn("other")
    for record in (root, parent, other):
        await responses.save(record)
    child = run(after=parent.id)
    await runs.create(child, None, LEASE)
    assert await responses.purge(LIFE, limit=10) == 2
    turns = await responses.chain(PROJECT, parent.id, now=1)  # as when the run was accepted
    assert turns is not None
    assert [b"root" in (one.inherited or b"") for one in turns] == [True]
    await runs.seize(child.id, 0, "one", LEASE)
    assert await runs.settle(msgspec.structs.replace(record_of(child), expires_at=2 * LIFE), fence=1)
    assert await responses.purge(LIFE, limit=10) == 1
    turns = await responses.chain(PROJECT, child.id, now=LIFE)
    assert turns is not None
    assert [msgspec.json.decode(one.inherited or b"[]")[-1]["answer"] for one in turns] == ["parent"]


async def test_purging_keeps_a_tombstone_that_a_run_continues(runs: SqlRunStore, responses: SqlResponseStore) -> None:
    parent = turn("parent")
    await responses.save(parent)
    child = run(after=parent.id)
    await runs.create(child, "one", LEASE)
    await responses.delete(PROJECT, parent.id, now=1)
    assert await responses.purge(LIFE + 1, limit=10) == 0
    assert await runs.settle(record_of(child), fence=1)
    assert not await responses.continuable(PROJECT, child.id, now=1)


async def test_leases_are_measured_by_the_databases_clock(database: Database) -> None:
    now = (await database.fetch(select(now_ms().label("now"))))[0]["now"]
    assert abs(now / 1000 - time.time()) < 60
