"""Projects, keys and secrets, on both engines."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from app.db.engine import Database
from app.stores.keys import SqlKeyStore
from app.stores.ports.keys import ApiKey
from app.stores.ports.responses import RecordRefused


@pytest.fixture
def keys(database: Database) -> SqlKeyStore:
    """An empty key store."""
    return SqlKeyStore(database)


def _key(name: str, *, project: str = "default", at: int = 1) -> ApiKey:
    return ApiKey(
        id=f"id-{name}", project_id=f"new-{name}", project=project, name=name, prefix=f"sk-{name}", created_at=at
    )


def _digest(name: str) -> bytes:
    return sha256(name.encode()).digest()


async def test_a_key_is_found_by_its_digest(keys: SqlKeyStore) -> None:
    made = await keys.create(_key("one"), _digest("one"))
    assert made == _key("one")
    assert await keys.find(_digest("one")) == made
    assert await keys.find(_digest("two")) is None


async def test_keys_of_one_project_name_share_the_project(keys: SqlKeyStore) -> None:
    first = await keys.create(_key("one"), _digest("one"))
    second = await keys.create(_key("two"), _digest("two"))
    other = await keys.create(_key("three", project="other"), _digest("three"))
    assert second.project_id == first.project_id != other.project_id
    assert await keys.find(_digest("two")) == second


async def test_a_digest_is_used_once(keys: SqlKeyStore) -> None:
    await keys.create(_key("one"), _digest("one"))
    with pytest.raises(RecordRefused):
        await keys.create(_key("two"), _digest("one"))
    assert [key.id for key in await keys.list()] == ["id-one"]


async def test_keys_are_listed_newest_first(keys: SqlKeyStore) -> None:
    for name, at in (("old", 1), ("new", 3), ("middle", 2)):
        await keys.create(_key(name, at=at), _digest(name))
    assert [key.name for key in await keys.list()] == ["new", "middle", "old"]


@pytest.mark.parametrize("by", ["id-one", "sk-one"])
async def test_a_revoked_key_is_found_as_revoked(keys: SqlKeyStore, by: str) -> None:
    await keys.create(_key("one"), _digest("one"))
    await keys.create(_key("two"), _digest("two"))
    assert await keys.revoke(by, now=7)
    assert await keys.revoke(by, now=9)
    revoked, untouched = await keys.find(_digest("one")), await keys.find(_digest("two"))
    assert revoked is not None
    assert revoked.revoked_at == 7
    assert untouched is not None
    assert untouched.revoked_at is None


async def test_an_unknown_key_cannot_be_revoked(keys: SqlKeyStore) -> None:
    assert not await keys.revoke("id-none", now=7)


async def test_last_use_only_moves_forward(keys: SqlKeyStore) -> None:
    await keys.create(_key("one"), _digest("one"))
    await keys.touch({})
    for used in (5, 9, 7):
        await keys.touch({"id-one": used, "id-gone": used})
    found = await keys.find(_digest("one"))
    assert found is not None
    assert found.last_used_at == 9


async def test_the_first_secret_wins_everywhere(keys: SqlKeyStore) -> None:
    answers = await asyncio.gather(*(keys.secret("signing", bytes([number]) * 32) for number in range(5)))
    assert len(set(answers)) == 1
    assert await keys.secret("signing", b"late") == answers[0]
    assert await keys.secret("other", b"fresh") == b"fresh"
