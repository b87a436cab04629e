"""What the store of conversations does, tried on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.protocol.wire.paging import Page, UnknownCursor
from app.stores.ports.conversations import (
    Conversation,
    ConversationFull,
    ConversationItem,
    ConversationLocked,
    ConversationTurn,
)
from app.stores.ports.responses import RecordRefused, ResponseRecord
from app.stores.sql import SqlResponseStore
from app.stores.sql_conversations import SqlConversationStore
from app.stores.sql_runs import SqlRunStore
from tests.stores.records import LEASE, LIFE, OVER, PROJECT, record_of, run, turn

NOW = 1000


@pytest.fixture
def conversations(database: Database) -> SqlConversationStore:
    """An empty store."""
    return SqlConversationStore(database, most_items=20_000)


@pytest.fixture
def responses(database: Database) -> SqlResponseStore:
    """The store of the responses."""
    return SqlResponseStore(database, retention_seconds=LIFE)


def items(*names: str) -> Sequence[ConversationItem]:
    """Items with these ids."""
    return [ConversationItem(name, f'{{"id":"{name}"}}'.encode()) for name in names]


def with_turn(record: ResponseRecord, conversation: str, *names: str) -> ResponseRecord:
    """The record, which adds these items."""
    return msgspec.structs.replace(record, turn=ConversationTurn(conversation, items(*names)))


async def made(store: SqlConversationStore, *names: str, at: int = NOW) -> str:
    """A conversation with these items."""
    conversation = Conversation(id=f"conv_{uuid4().hex}", project_id=PROJECT, created_at=at, metadata=b'{"a":"b"}')
    await store.create(conversation, items(*names))
    return conversation.id


async def all_of(store: SqlConversationStore, conversation: str) -> list[str]:
    """The ids of all items, in their order."""
    return [one.id for one in (await store.section(PROJECT, conversation, 0, 1000)).items]


async def test_a_conversation_comes_back_as_it_was(conversations: SqlConversationStore) -> None:
    whole = Conversation(id="conv_1", project_id=PROJECT, created_at=NOW, metadata=b'{"a":"\xc3\xa4"}')
    exchanged = ConversationItem("ws_1", b'{"id":"ws_1"}', b"\x81\x00")
    await conversations.create(whole, [exchanged, *items("msg_1")])
    assert await conversations.get(PROJECT, "conv_1", NOW) == whole
    assert await conversations.item(PROJECT, "conv_1", "ws_1") == exchanged
    assert (await conversations.section(PROJECT, "conv_1", 0, 9)).items == [exchanged, *items("msg_1")]
    changed = await conversations.update(PROJECT, "conv_1", lambda before: before[:-1] + b',"c":""}', NOW)
    assert changed == await conversations.get(PROJECT, "conv_1", NOW)
    assert changed is not None
    assert changed.metadata == b'{"a":"\xc3\xa4","c":""}'
    with pytest.raises(RecordRefused):
        await conversations.create(whole, ())


async def test_pages_in_both_orders(conversations: SqlConversationStore) -> None:
    one, other = await made(conversations, *"abcde"), await made(conversations, "a", "z")

    async def page(limit: int, order: str, after: str | None = None) -> tuple[str, bool]:
        wanted = Page(limit, "asc" if order == "asc" else "desc", after)
        found, more = await conversations.page(PROJECT, one, wanted)
        return "".join(item.id for item in found), more

    assert await page(2, "asc") == ("ab", True)
    assert await page(2, "asc", "b") == ("cd", True)
    assert await page(2, "asc", "c") == ("de", False)
    assert await page(2, "desc") == ("ed", True)
    assert await page(9, "desc", "d") == ("cba", False)
    assert await page(9, "desc", "a") == ("", False)
    with pytest.raises(UnknownCursor):
        await page(9, "desc", "z")
    assert await conversations.remove(PROJECT, one, "c")
    assert not await conversations.remove(PROJECT, one, "c")
    assert await page(9, "asc") == ("abde", False)
    assert await all_of(conversations, other) == ["a", "z"]


async def test_sections_follow_each_other(conversations: SqlConversationStore) -> None:
    one = await made(conversations, *"abcde")
    await conversations.remove(PROJECT, one, "b")
    start: int | None = 0
    read: list[str] = []
    while start is not None:
        section = await conversations.section(PROJECT, one, start, 2)
        read.append("".join(item.id for item in section.items))
        start = section.next
    assert read == ["ac", "de", ""]


async def test_another_projects_conversation_is_unknown(conversations: SqlConversationStore) -> None:
    one = await made(conversations, "a")
    assert await conversations.get("theirs", one, NOW) is None
    assert await conversations.update("theirs", one, lambda _: b"{}", NOW) is None
    assert not await conversations.delete("theirs", one, NOW)
    assert not await conversations.add("theirs", one, items("b"), NOW)
    assert not await conversations.lock("theirs", one, "r", LEASE, NOW)
    assert await conversations.page("theirs", one, Page(9)) == ([], False)
    assert await conversations.item("theirs", one, "a") is None
    assert await conversations.has_any("theirs", one, ["a"]) is None
    assert not await conversations.remove("theirs", one, "a")
    assert (await conversations.section("theirs", one, 0, 9)).items == []
    assert await all_of(conversations, one) == ["a"]


async def test_a_turn_is_stored_with_its_response(
    conversations: SqlConversationStore, responses: SqlResponseStore
) -> None:
    one, record = await made(conversations, "a"), turn("said")
    assert await conversations.lock(PROJECT, one, record.id, LEASE, NOW)
    await conversations.add(PROJECT, one, items("b"), NOW)
    await responses.save(with_turn(record, one, "c", "d"))
    assert await all_of(conversations, one) == ["a", "b", "c", "d"]
    assert await responses.get(PROJECT, record.id, 1) == record
    assert await conversations.lock(PROJECT, one, "another", LEASE, NOW), "storing has released the lock"


async def test_only_one_has_the_lock(conversations: SqlConversationStore) -> None:
    one, names = await made(conversations), [str(uuid4()) for _ in range(8)]

    async def locks(name: str) -> bool:
        try:
            return await conversations.lock(PROJECT, one, name, LEASE, NOW)
        except ConversationLocked:
            return False

    first = await asyncio.gather(*map(locks, names))
    assert first.count(True) == 1
    winner = names[first.index(True)]
    assert await locks(winner), "its own lock is extended"
    with pytest.raises(ConversationLocked):
        await conversations.delete(PROJECT, one, NOW)
    await conversations.unlock("somebody else")
    assert (await asyncio.gather(*map(locks, names))) == first
    await conversations.unlock(winner)
    assert await locks("another")


async def test_who_has_lost_the_lock_adds_nothing(
    conversations: SqlConversationStore, responses: SqlResponseStore
) -> None:
    one, late = await made(conversations, "a"), turn("late")
    assert await conversations.lock(PROJECT, one, late.id, OVER, NOW)
    assert await conversations.lock(PROJECT, one, "next", LEASE, NOW)
    await conversations.renew([late.id], LEASE)
    with pytest.raises(RecordRefused):
        await responses.save(with_turn(late, one, "b"))
    assert await responses.get(PROJECT, late.id, 1) is None
    assert await all_of(conversations, one) == ["a"]


async def test_a_lease_is_extended(conversations: SqlConversationStore) -> None:
    one = await made(conversations)
    await conversations.lock(PROJECT, one, "r", OVER, NOW)
    await conversations.renew([], LEASE)
    await conversations.renew(["r", "unknown"], LEASE)
    with pytest.raises(ConversationLocked):
        await conversations.lock(PROJECT, one, "next", LEASE, NOW)


async def test_a_background_run_has_the_lock_until_it_is_settled(
    conversations: SqlConversationStore, database: Database
) -> None:
    """Whatever its lease; and it settles whoever owns the run then."""
    runs, begun, one = SqlRunStore(database), run(), await made(conversations, "a")
    await conversations.lock(PROJECT, one, begun.id, OVER, NOW)
    await runs.create(begun, None, LEASE)
    with pytest.raises(ConversationLocked):
        await conversations.lock(PROJECT, one, "next", LEASE, NOW)
    await runs.claim("one", LEASE, 1, takeover=False)
    assert await runs.settle(with_turn(record_of(begun), one, "b"), fence=1)
    assert await all_of(conversations, one) == ["a", "b"]
    assert not await runs.settle(with_turn(record_of(begun, "again"), one, "c"), fence=1)
    assert await all_of(conversations, one) == ["a", "b"]
    assert await conversations.lock(PROJECT, one, "next", LEASE, NOW)


async def test_a_response_outlives_its_conversation(
    conversations: SqlConversationStore, responses: SqlResponseStore
) -> None:
    one, record = await made(conversations, "a"), turn("said")
    await conversations.lock(PROJECT, one, record.id, OVER, NOW)
    assert await conversations.delete(PROJECT, one, NOW)
    await responses.save(with_turn(record, one, "b"))
    assert await responses.get(PROJECT, record.id, 1) == record
    assert await all_of(conversations, one) == []
    assert await conversations.get(PROJECT, one, NOW) is None


async def test_it_takes_only_so_many_items(database: Database) -> None:
    small = SqlConversationStore(database, most_items=3)
    one = await made(small, "a", "b")
    assert await small.add(PROJECT, one, items("c", "d"), NOW)
    with pytest.raises(ConversationFull):
        await small.add(PROJECT, one, items("e"), NOW)
    with pytest.raises(ConversationFull):
        await small.lock(PROJECT, one, "r", LEASE, NOW)
    assert await all_of(small, one) == ["a", "b", "c", "d"]


async def test_an_unused_conversation_expires(database: Database) -> None:
    brief = SqlConversationStore(database, most_items=99, lifetime_seconds=10)
    used, unused, locked = await made(brief, *"abc"), await made(brief, *"abc"), await made(brief)
    await brief.add(PROJECT, used, items("d"), NOW + 9)
    await brief.lock(PROJECT, locked, "r", LEASE, NOW)
    assert await brief.get(PROJECT, unused, NOW + 9) is not None
    assert await brief.get(PROJECT, unused, NOW + 10) is None
    assert not await brief.add(PROJECT, unused, items("e"), NOW + 10)
    assert await brief.get(PROJECT, used, NOW + 18) is not None

    assert [await brief.purge(NOW + 10, 2) for _ in range(3)] == [2, 2, 0]
    assert await all_of(brief, unused) == []
    assert await all_of(brief, used) == ["a", "b", "c", "d"]
    assert await brief.lock(PROJECT, locked, "r", LEASE, NOW)


async def test_one_without_a_lifetime_stays(conversations: SqlConversationStore) -> None:
    one = await made(conversations, "a")
    assert await conversations.purge(2**40, 10) == 0
    assert await conversations.get(PROJECT, one, 2**40) is not None


async def test_a_page_of_many_items_is_read_by_its_key(conversations: SqlConversationStore, database: Database) -> None:
    """The plan, since times say more about the machine."""
    one = await made(conversations, *(f"item_{number}" for number in range(10_000)))
    found, more = await conversations.page(PROJECT, one, Page(20, "desc", "item_5000"))
    assert ([found[0].id, found[-1].id], more) == (["item_4999", "item_4980"], True)
    query = (
        "SELECT item FROM conversation_items WHERE conversation_id = :one AND project_id = :project "
        "AND position < 5000 ORDER BY position DESC LIMIT 21"
    )
    explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
    async with database.transaction() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("ANALYZE conversation_items"))
        plan = str((await connection.execute(text(explain + query), {"one": one, "project": PROJECT})).all())
    assert "position<?" in plan or ("pk_conversation_items" in plan and '"position" < 5000' in plan)
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
