"""Conversations in SQLite or Postgres: one row per item, with its position in the key, so that a page costs a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    RowMapping,
    Select,
    Text,
    bindparam,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.clock import now_ms
from app.db.engine import Database
from app.db.tables import conversation_items, conversation_locks, conversations, runs
from app.jobs.leases import milliseconds
from app.protocol.wire.paging import Page, UnknownCursor
from app.stores.ports.conversations import (
    Conversation,
    ConversationFull,
    ConversationItem,
    ConversationLocked,
    Section,
)
from app.stores.sql import store_errors
from app.stores.turns import RESERVE, item_rows

# An arbitrary number that nothing else uses: one replica purges at a time.
_PURGE_LOCK = 7_305_112_906
_PURGED_TOGETHER = 20
_LONGEST_ID = 512
"""A longer one would not fit Postgres' index."""

_c, _i, _l = conversations.c, conversation_items.c, conversation_locks.c
_ALIVE = or_(_c.expires_at.is_(None), _c.expires_at > bindparam("now", type_=BigInteger))
_THIS = (_c.id == bindparam("wanted"), _c.project_id == bindparam("project"), _ALIVE)
_UNTIL = {"expires_at": bindparam("until", type_=BigInteger)}

_GET = select(_c.id, _c.project_id, _c.created_at, _c.metadata).where(*_THIS)
_CHANGE = update(conversations).where(*_THIS).values(metadata=bindparam("changed"), **_UNTIL)

_IS_HELD = or_(
    _l.due_at > now_ms(), select(runs.c.id).where(runs.c.id == _l.response_id).correlate(conversation_locks).exists()
)
"""A lock that is in force."""
_IS_LOCKED = select(_l.conversation_id).where(_l.conversation_id == _c.id, _IS_HELD).correlate(conversations).exists()
_DELETE = delete(conversations).where(*_THIS, ~_IS_LOCKED)
_DELETE_ITEMS = delete(conversation_items).where(_i.conversation_id == bindparam("wanted"))
_DELETE_LOCK = delete(conversation_locks).where(_l.conversation_id == bindparam("wanted"))

_EXTEND = update(conversations).where(*_THIS, _c.next_position < bindparam("most", type_=BigInteger)).values(**_UNTIL)
_INSERTS = {"sqlite": sqlite.insert(conversation_locks), "postgresql": postgresql.insert(conversation_locks)}
_LEASE = now_ms() + bindparam("lease", type_=BigInteger)
_LOCK = {
    dialect: insert.values(conversation_id=bindparam("wanted"), response_id=bindparam("by"), due_at=_LEASE)
    .on_conflict_do_update(
        index_elements=[_l.conversation_id],
        set_={"response_id": bindparam("by"), "due_at": _LEASE},
        where=or_(_l.response_id == bindparam("by"), ~_IS_HELD),
    )
    .returning(_l.response_id)
    for dialect, insert in _INSERTS.items()
}
_RENEW = (
    update(conversation_locks).where(_l.response_id.in_(bindparam("ids", expanding=True))).values(due_at=_LEASE)
).returning(_l.response_id)
_UNLOCK = delete(conversation_locks).where(_l.response_id == bindparam("by")).returning(_l.response_id)

_OWN = (_i.conversation_id == bindparam("wanted"), _i.project_id == bindparam("project"))
_ITEM = (_i.position, _i.item_id, _i.item, _i.exchange)
_LIMIT = bindparam("limit", type_=Integer)
_FIND = select(*_ITEM).where(*_OWN, _i.item_id == bindparam("item")).order_by(_i.position.desc()).limit(1)
_HAS = select(_i.item_id).where(*_OWN, _i.item_id.in_(bindparam("items", expanding=True))).limit(1)
_REMOVE = delete(conversation_items).where(*_OWN, _i.item_id == bindparam("item"))
_SECTION = select(*_ITEM).where(*_OWN, _i.position >= bindparam("start")).order_by(_i.position).limit(_LIMIT)


def _pages(order: ColumnElement[Any], *beyond: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return select(*_ITEM).where(*_OWN, *beyond).order_by(order).limit(_LIMIT)


_CURSOR = bindparam("cursor", type_=BigInteger)
_ASCENDING, _DESCENDING = _i.position.asc(), _i.position.desc()
_PAGES: Mapping[tuple[str, bool], Select[*tuple[Any, ...]]] = {
    ("asc", False): _pages(_ASCENDING),
    ("asc", True): _pages(_ASCENDING, _i.position > _CURSOR),
    ("desc", False): _pages(_DESCENDING),
    ("desc", True): _pages(_DESCENDING, _i.position < _CURSOR),
}
"""By order, and whether the page begins behind an item."""

_EXPIRED = (
    select(_c.id)
    .where(
        _c.expires_at <= bindparam("now", type_=BigInteger),
        ~_IS_LOCKED,
    )
    .order_by(_c.expires_at)
    .limit(_PURGED_TOGETHER)
)
_GONE = bindparam("gone", type_=Text, expanding=True)
_KEY = (_i.conversation_id, _i.position)
_PURGE_ITEMS = delete(conversation_items).where(
    tuple_(*_KEY).in_(select(*_KEY).where(_i.conversation_id.in_(_GONE)).limit(_LIMIT))
)
_PURGE_LOCKS = delete(conversation_locks).where(_l.conversation_id.in_(_GONE))
_PURGE = delete(conversations).where(_c.id.in_(_GONE))


class SqlConversationStore:
    """Conversations stored in the database, shared by all replicas."""

    def __init__(self, database: Database, *, most_items: int, lifetime_seconds: int | None = None) -> None:
        """`most_items`: how many a conversation may get in its life, approximately: a turn is not cut.

        `lifetime_seconds`: how long a conversation lives after it was used last; None: until it is deleted.
        """
        self._database = database
        self._most = most_items
        self._lifetime = lifetime_seconds

    async def create(self, conversation: Conversation, items: Sequence[ConversationItem]) -> None:
        """One row, and one for each item."""
        head = (
            conversation.id,
            conversation.project_id,
            conversation.created_at,
            self._until(conversation.created_at),
            conversation.metadata,
            len(items),
        )
        with store_errors():
            rows = item_rows(conversation.project_id, conversation.id, 0, items)
            await self._database.writer.insert((conversations, head), *rows)

    async def get(self, project_id: str, conversation_id: str, now: int) -> Conversation | None:
        """The conversation, if this project has it."""
        rows = await self._fetch(_GET, {"wanted": conversation_id, "project": project_id, "now": now})
        return Conversation(**rows[0]) if rows else None

    async def update(
        self, project_id: str, conversation_id: str, change: Callable[[bytes], bytes], now: int
    ) -> Conversation | None:
        """Read and write under the row's lock."""
        this = {"wanted": conversation_id, "project": project_id, "now": now}
        with store_errors():
            async with self._database.transaction() as connection:
                found = (await connection.execute(_GET.with_for_update(), this)).mappings().first()
                if found is None:
                    return None
                changed = change(found["metadata"])
                await connection.execute(_CHANGE, {**this, "changed": changed, "until": self._until(now)})
                return msgspec.structs.replace(Conversation(**found), metadata=changed)

    async def delete(self, project_id: str, conversation_id: str, now: int) -> bool:
        """Delete the rows at once."""
        this = {"wanted": conversation_id, "project": project_id, "now": now}
        with store_errors():
            async with self._database.transaction() as connection:
                if (await connection.execute(_DELETE, this)).rowcount == 0:
                    if (await connection.execute(_GET, this)).first() is not None:
                        raise ConversationLocked
                    return False
                for statement in (_DELETE_ITEMS, _DELETE_LOCK):
                    await connection.execute(statement, {"wanted": conversation_id})
        return True

    async def add(self, project_id: str, conversation_id: str, items: Sequence[ConversationItem], now: int) -> bool:
        """Reserve positions and insert the rows, in one transaction."""
        this = {"wanted": conversation_id, "project": project_id}
        with store_errors():
            async with self._database.transaction() as connection:
                if not await self._extend(connection, this, now):
                    return False
                end = (await connection.execute(RESERVE, {**this, "added": len(items)})).scalar_one()
                rows = [values for _, values in item_rows(project_id, conversation_id, end - len(items), items)]
                names = [column.name for column in conversation_items.columns]
                await connection.execute(
                    conversation_items.insert(), [dict(zip(names, row, strict=True)) for row in rows]
                )
        return True

    async def page(self, project_id: str, conversation_id: str, page: Page) -> tuple[Sequence[ConversationItem], bool]:
        """One range of the key."""
        own: dict[str, Any] = {"wanted": conversation_id, "project": project_id}
        if page.after is not None:
            found = await self._fetch(_FIND, {**own, "item": page.after[:_LONGEST_ID]})
            if not found:
                raise UnknownCursor("after", page.after)
            own["cursor"] = found[0]["position"]
        rows = await self._fetch(_PAGES[page.order, page.after is not None], {**own, "limit": page.limit + 1})
        return [_item(row) for row in rows[: page.limit]], len(rows) > page.limit

    async def item(self, project_id: str, conversation_id: str, item_id: str) -> ConversationItem | None:
        """Found by the index of ids."""
        rows = await self._fetch(_FIND, {"wanted": conversation_id, "project": project_id, "item": item_id})
        return _item(rows[0]) if rows else None

    async def has_any(self, project_id: str, conversation_id: str, item_ids: Sequence[str]) -> str | None:
        """Found by the index of ids."""
        if not item_ids:
            return None
        rows = await self._fetch(_HAS, {"wanted": conversation_id, "project": project_id, "items": list(item_ids)})
        return rows[0]["item_id"] if rows else None

    async def remove(self, project_id: str, conversation_id: str, item_id: str) -> bool:
        """The item's position stays empty."""
        own = {"wanted": conversation_id, "project": project_id, "item": item_id}
        with store_errors():
            async with self._database.transaction() as connection:
                return (await connection.execute(_REMOVE, own)).rowcount > 0

    async def section(self, project_id: str, conversation_id: str, start: int, most: int) -> Section:
        """One range of the key."""
        own = {"wanted": conversation_id, "project": project_id}
        rows = await self._fetch(_SECTION, {**own, "start": start, "limit": most})
        return Section([_item(row) for row in rows], rows[-1]["position"] + 1 if len(rows) == most else None)

    async def lock(
        self, project_id: str, conversation_id: str, response_id: str, lease_seconds: float, now: int
    ) -> bool:
        """Lock the conversation's row, so that it cannot be deleted meanwhile, then write that of the lock."""
        this = {"wanted": conversation_id, "project": project_id}
        locked = {"wanted": conversation_id, "by": response_id, "lease": milliseconds(lease_seconds)}
        with store_errors():
            async with self._database.transaction() as connection:
                if not await self._extend(connection, this, now):
                    return False
                if (await connection.execute(_LOCK[self._database.dialect], locked)).first() is None:
                    raise ConversationLocked
        return True

    async def renew(self, response_ids: Sequence[str], lease_seconds: float) -> None:
        """Extend the leases with one statement."""
        if response_ids:
            await self._fetch(_RENEW, {"ids": list(response_ids), "lease": milliseconds(lease_seconds)})

    async def unlock(self, response_id: str) -> None:
        """Remove the lock's row."""
        await self._fetch(_UNLOCK, {"by": response_id})

    async def purge(self, now: int, limit: int) -> int:
        """Items first: a conversation goes when it has none left."""
        with store_errors():
            async with self._database.transaction() as connection:
                if not await self._only_one(connection):
                    return 0
                gone = list((await connection.execute(_EXPIRED, {"now": now})).scalars())
                if not gone:
                    return 0
                removed = (await connection.execute(_PURGE_ITEMS, {"gone": gone, "limit": limit})).rowcount
                if removed < limit:
                    await connection.execute(_PURGE_LOCKS, {"gone": gone})
                    removed += (await connection.execute(_PURGE, {"gone": gone})).rowcount
                return removed

    def _until(self, now: int) -> int | None:
        return None if self._lifetime is None else now + self._lifetime

    async def _extend(self, connection: AsyncConnection, this: Mapping[str, Any], now: int) -> bool:
        """Note that the conversation is used; it is not deleted before the transaction ends.

        False if it does not exist. Raises ConversationFull.
        """
        named = {**this, "now": now}
        used = await connection.execute(_EXTEND, {**named, "most": self._most, "until": self._until(now)})
        if used.rowcount == 0 and (await connection.execute(_GET, named)).first() is not None:
            raise ConversationFull
        return used.rowcount > 0

    async def _fetch(self, statement: Any, parameters: Mapping[str, Any]) -> Sequence[RowMapping]:
        """Rows of a read, or of a change that does no harm if it is made twice."""
        with store_errors():
            return await self._database.fetch(statement, parameters)

    async def _only_one(self, connection: AsyncConnection) -> bool:
        """Whether no other replica is purging; on SQLite the transaction itself holds the write lock."""
        if self._database.dialect == "sqlite":
            return True
        return bool((await connection.execute(select(func.pg_try_advisory_xact_lock(_PURGE_LOCK)))).scalar())


def _item(row: RowMapping) -> ConversationItem:
    return ConversationItem(row["item_id"], row["item"], row["exchange"])
