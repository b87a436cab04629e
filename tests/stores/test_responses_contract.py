"""What every response store does, tried on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import msgspec
import pytest

from app.db.engine import Database
from app.protocol.wire.ids import item_id
from app.stores.memory import MemoryResponseStore
from app.stores.ports.responses import AncestorDeleted, Lineage, RecordRefused, ResponseRecord, ResponseStore, Turn
from app.stores.redis import RedisCachedStore
from app.stores.sql import SqlResponseStore
from tests.stores.records import LIFE, PROJECT, turn


@pytest.fixture(params=["memory", "sqlite", "postgresql", "redis before postgresql"])
async def store(request: pytest.FixtureRequest) -> AsyncGenerator[ResponseStore]:
    """Each store in turn, empty."""
    if request.param == "memory":
        yield MemoryResponseStore(retention_seconds=LIFE)
        return
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    database = Database(url)
    plain = SqlResponseStore(database, retention_seconds=LIFE)
    if request.param.startswith("redis"):
        cached = RedisCachedStore(plain, request.getfixturevalue("redis_url"))
        yield cached
        await cached.aclose()
        await database.aclose()
        assert cached.failures == 0  # every answer came by way of Redis
    else:
        yield plain
        await database.aclose()


def _said(turns: Sequence[Turn] | None) -> list[str]:
    """Everything in a chain's items, in order."""
    assert turns is not None
    said: list[str] = []
    for one in turns:
        items = [
            *msgspec.json.decode(one.inherited or b"[]"),
            *msgspec.json.decode(one.input),
            *msgspec.json.decode(one.response)["output"],
        ]
        said += [value for item in items for key, value in item.items() if key != "id"]
    return said


async def _save_chain(store: ResponseStore, length: int) -> list[ResponseRecord]:
    """Turns that follow each other, ten seconds apart."""
    chain: list[ResponseRecord] = []
    for number in range(length):
        chain.append(turn(str(number), after=chain[-1] if chain else None, at=number * 10))
        await store.save(chain[-1])
    return chain


async def test_a_record_comes_back_as_it_was(store: ResponseStore) -> None:
    record = turn("hello")
    await store.save(record)
    assert await store.get(PROJECT, record.id, now=1) == record


async def test_another_projects_record_is_unknown(store: ResponseStore) -> None:
    record = turn("secret", items=("item",))
    await store.save(record)
    assert await store.get("project-b", record.id, now=1) is None
    assert await store.chain("project-b", record.id, now=1) is None
    assert not await store.continuable("project-b", record.id, now=1)
    assert await store.locate_item("project-b", "item", now=1) is None
    assert not await store.delete("project-b", record.id, now=1)
    assert await store.get(PROJECT, record.id, now=1) is not None


async def test_a_chain_never_crosses_into_another_project(store: ResponseStore) -> None:
    foreign = turn("theirs", project="project-b")
    mine = turn("mine", after=foreign)
    await store.save(foreign)
    await store.save(mine)
    assert _said(await store.chain(PROJECT, mine.id, now=1)) == ["mine", "mine"]


async def test_an_unknown_id_is_nothing(store: ResponseStore) -> None:
    unknown = turn("never saved").id
    assert await store.get(PROJECT, unknown, now=1) is None
    assert await store.chain(PROJECT, unknown, now=1) is None
    assert not await store.continuable(PROJECT, unknown, now=1)
    assert await store.locate_item(PROJECT, "nul \0 inside", now=1) is None
    assert not await store.delete(PROJECT, unknown, now=1)


async def test_a_record_lives_until_its_last_second(store: ResponseStore) -> None:
    record = turn("brief")
    await store.save(record)
    assert await store.get(PROJECT, record.id, now=LIFE - 1) == record
    assert await store.get(PROJECT, record.id, now=LIFE) is None
    assert await store.chain(PROJECT, record.id, now=LIFE) is None
    assert not await store.continuable(PROJECT, record.id, now=LIFE)
    assert not await store.delete(PROJECT, record.id, now=LIFE)


async def test_an_id_is_used_once(store: ResponseStore) -> None:
    record = turn("first")
    await store.save(record)
    with pytest.raises(RecordRefused):
        await store.save(msgspec.structs.replace(record, input=b'["second"]'))
    assert await store.get(PROJECT, record.id, now=1) == record


async def test_two_hundred_at_once(store: ResponseStore) -> None:
    records = [turn(str(number)) for number in range(200)]
    await asyncio.gather(*(store.save(record) for record in records))
    assert [await store.get(PROJECT, record.id, now=1) for record in records] == records


async def test_a_chain_is_read_from_the_root(store: ResponseStore) -> None:
    chain = await _save_chain(store, 5)
    turns = await store.chain(PROJECT, chain[-1].id, now=50)
    assert turns == [Turn(record.id, record.input, record.response, None) for record in chain]
    assert await store.continuable(PROJECT, chain[-1].id, now=50)


@pytest.mark.parametrize("newest", [1, 2, 3, 4])
async def test_of_a_chain_the_newest_turns_are_read(store: ResponseStore, newest: int) -> None:
    chain = await _save_chain(store, 3)
    older, read = chain[:-newest], chain[-newest:]
    assert await store.lineage(PROJECT, chain[-1].id, 50, newest) == Lineage(
        [record.id for record in older], [Turn(record.id, record.input, record.response, None) for record in read]
    )
    assert await store.lineage("project-b", chain[-1].id, 50, newest) is None
    await store.delete(PROJECT, chain[0].id, now=50)
    with pytest.raises(AncestorDeleted):
        await store.lineage(PROJECT, chain[-1].id, 50, newest)


async def test_expired_ancestors_still_belong_to_a_living_tip(store: ResponseStore) -> None:
    chain = await _save_chain(store, 3)
    assert _said(await store.chain(PROJECT, chain[-1].id, now=LIFE + 15)) == ["0", "0", "1", "1", "2", "2"]
    assert await store.continuable(PROJECT, chain[-1].id, now=LIFE + 15)


async def test_purging_shortens_no_context(store: ResponseStore) -> None:
    chain = await _save_chain(store, 5)
    for now, gone in ((LIFE, 1), (LIFE + 25, 2), (LIFE + 30, 1)):
        assert await store.purge(now, limit=10) == gone
        assert _said(await store.chain(PROJECT, chain[-1].id, now)) == [str(number // 2) for number in range(10)]
    assert await store.purge(LIFE + 40, limit=10) == 1
    assert await store.chain(PROJECT, chain[-1].id, LIFE + 40) is None


async def test_an_inherited_item_keeps_the_id_of_the_place_it_came_from(store: ResponseStore) -> None:
    root = msgspec.structs.replace(
        turn("root"), input=b'[{"role":"user"},{"type":"function_call_output","id":null},{"id":"mine"}]'
    )
    tip = turn("tip", after=root, at=10)
    for record in (root, tip):
        await store.save(record)
    assert await store.purge(LIFE, limit=10) == 1
    chain = await store.chain(PROJECT, tip.id, LIFE)
    assert chain is not None
    found = [item.get("id") for item in msgspec.json.decode(chain[0].inherited or b"")]
    places = [item_id(prefix, root.id, place, output=False) for place, prefix in enumerate(("msg", "fco"))]
    assert found == [*places, "mine", None]  # the last is the root's output, as answered


async def test_a_purged_fork_lives_on_in_both_branches(store: ResponseStore) -> None:
    root = turn("root")
    left, right = turn("left", after=root, at=10), turn("right", after=root, at=10)
    for record in (root, left, right):
        await store.save(record)
    assert await store.purge(LIFE, limit=10) == 1
    assert _said(await store.chain(PROJECT, left.id, LIFE)) == ["root", "root", "left", "left"]
    assert _said(await store.chain(PROJECT, right.id, LIFE)) == ["root", "root", "right", "right"]


async def test_a_longer_lived_ancestor_stays_in_its_place(store: ResponseStore) -> None:
    root = msgspec.structs.replace(turn("root"), expires_at=LIFE * 3)
    middle = turn("middle", after=root)
    tip = msgspec.structs.replace(turn("tip", after=middle), expires_at=LIFE * 4)
    for record in (root, middle, tip):
        await store.save(record)
    for now in (LIFE, LIFE * 3):  # the middle goes, then the root above it
        assert await store.purge(now, limit=10) == 1
        assert _said(await store.chain(PROJECT, tip.id, now)) == ["root", "root", "middle", "middle", "tip", "tip"]


async def test_purging_takes_the_oldest_first_and_no_more_than_asked(store: ResponseStore) -> None:
    records = [turn(str(number), at=number) for number in (3, 1, 2)]
    for record in records:
        await store.save(record)
    assert await store.count_expired(LIFE + 3) == 3
    assert await store.purge(LIFE + 3, limit=2) == 2
    assert await store.count_expired(LIFE + 3) == 1
    assert await store.get(PROJECT, records[0].id, now=3) == records[0]


async def test_deleting_erases_and_is_final(store: ResponseStore) -> None:
    record = turn("regretted", items=("item",))
    await store.save(record)
    assert await store.delete(PROJECT, record.id, now=5)
    assert await store.get(PROJECT, record.id, now=5) is None
    assert await store.chain(PROJECT, record.id, now=5) is None
    assert not await store.continuable(PROJECT, record.id, now=5)
    assert await store.locate_item(PROJECT, "item", now=5) is None
    assert not await store.delete(PROJECT, record.id, now=5)


async def test_descendants_of_a_deleted_turn_cannot_be_continued(store: ResponseStore) -> None:
    chain = await _save_chain(store, 4)
    await store.delete(PROJECT, chain[1].id, now=50)
    with pytest.raises(AncestorDeleted) as caught:
        await store.chain(PROJECT, chain[3].id, now=50)
    assert caught.value.response_id == chain[1].id
    assert not await store.continuable(PROJECT, chain[3].id, now=50)
    assert await store.get(PROJECT, chain[3].id, now=50) == chain[3]
    assert _said(await store.chain(PROJECT, chain[0].id, now=50)) == ["0", "0"]


async def test_a_tombstone_is_seen_across_purged_turns_and_outlives_every_descendant(store: ResponseStore) -> None:
    chain = await _save_chain(store, 3)
    last = msgspec.structs.replace(turn("last", after=chain[2], at=30), expires_at=LIFE * 5)
    await store.save(last)
    await store.delete(PROJECT, chain[0].id, now=40)
    for now in (LIFE + 10, LIFE + 20, LIFE + 40, LIFE * 4):  # the two between go, then the tombstone's own time is over
        await store.purge(now, limit=10)
        with pytest.raises(AncestorDeleted):
            await store.chain(PROJECT, last.id, now)
    assert await store.count_expired(LIFE * 4) == 1
    assert [await store.purge(LIFE * 5, limit=10) for _ in range(3)] == [1, 1, 0]


async def test_a_tombstone_inherits_nothing(store: ResponseStore) -> None:
    chain = await _save_chain(store, 3)
    await store.delete(PROJECT, chain[1].id, now=50)
    assert await store.purge(LIFE, limit=10) == 1
    with pytest.raises(AncestorDeleted):
        await store.chain(PROJECT, chain[2].id, LIFE)


async def test_the_newest_holder_of_an_item_is_found(store: ResponseStore) -> None:
    older, newer = turn("older", at=1, items=("shared", "own")), turn("newer", at=2, items=("shared", "shared"))
    await store.save(newer)
    await store.save(older)
    assert await store.locate_item(PROJECT, "shared", now=3) == newer.id
    assert await store.locate_item(PROJECT, "own", now=3) == older.id
    await store.delete(PROJECT, newer.id, now=3)
    assert await store.locate_item(PROJECT, "shared", now=3) == older.id
    await store.purge(LIFE + 1, limit=10)
    assert await store.locate_item(PROJECT, "shared", now=3) is None


@pytest.mark.parametrize("item", ["nul \0 inside", "x" * 10_000])
async def test_an_item_id_that_no_index_takes_does_no_harm(store: ResponseStore, item: str) -> None:
    record = turn("odd", items=(item, "plain"))
    await store.save(record)
    assert await store.get(PROJECT, record.id, now=1) == msgspec.structs.replace(record, foreign_item_ids=())
    assert await store.locate_item(PROJECT, "plain", now=1) == record.id
