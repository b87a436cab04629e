"""A Postgres whose role may not create the extension: files cannot be searched, which is said, until somebody has
created it.
"""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.db.engine import Database
from app.protocol.wire.errors import Unavailable
from tests.knowledge.indexes import add, find, index_of
from tests.support.services import Postgres


async def _execute(database: Database, *statements: str) -> None:
    for statement in statements:
        async with database.transaction() as connection:
            await connection.execute(text(statement))


async def test_it_is_said_and_comes_right_by_itself(postgres: Postgres, postgres_url: str) -> None:
    role = f"weak_{uuid.uuid4().hex}"
    owner = Database(postgres_url)
    await _execute(
        owner,
        "DROP TABLE passage_index_vectors, passage_index_words",
        "DROP EXTENSION vector",
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON SCHEMA public TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
    )
    weak = Database(make_url(postgres_url).set(username=role).render_as_string())
    index = index_of(weak)
    with pytest.raises(Unavailable, match="pgvector"):
        await find(index, "pump")
    with pytest.raises(Unavailable, match="CREATE EXTENSION vector"):
        await add(index, "vs_a", "file_1", [("pump", (1, 0, 0))])
    await _execute(owner, "CREATE EXTENSION vector")
    await add(index, "vs_a", "file_1", [("pump", (1, 0, 0))])
    assert [hit.text for hit in await find(index, "pump")] == ["pump"]
    await weak.aclose()
    await _execute(owner, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")
    await owner.aclose()
