"""How a response's turn is added to its conversation, together with the response's record."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, bindparam, delete, update

from app.db.engine import Database
from app.db.tables import conversation_items, conversation_locks, conversations
from app.db.writer import Row
from app.stores.ports.conversations import ConversationItem
from app.stores.ports.responses import ResponseRecord

_c, _l = conversations.c, conversation_locks.c

RESERVE = (
    update(conversations)
    .where(_c.id == bindparam("wanted"), _c.project_id == bindparam("project"))
    .values(next_position=_c.next_position + bindparam("added", type_=BigInteger))
    .returning(_c.next_position)
)
"""Positions for new items. Those that are not used after all stay empty."""

UNLOCK = delete(conversation_locks).where(_l.conversation_id == bindparam("locked"), _l.response_id == bindparam("by"))
"""Releases the lock of a response. Whoever has lost it finds no row, and must not add its turn."""


async def rows_of_turn(database: Database, record: ResponseRecord) -> Sequence[Row] | None:
    """The rows of what the record adds to its conversation; None if there is no conversation, or none any more."""
    if record.turn is None:
        return None
    items = record.turn.items
    named = {"wanted": record.turn.conversation_id, "project": record.project_id}
    found = await database.fetch(RESERVE, {**named, "added": len(items)})
    if not found:
        return None
    return item_rows(record.project_id, record.turn.conversation_id, found[0]["next_position"] - len(items), items)


def item_rows(project_id: str, conversation_id: str, start: int, items: Sequence[ConversationItem]) -> Sequence[Row]:
    """The rows of items from that position on."""
    return [
        (conversation_items, (conversation_id, position, project_id, one.id, one.item, one.exchange))
        for position, one in enumerate(items, start)
    ]
