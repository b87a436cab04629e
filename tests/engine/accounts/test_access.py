"""Keys to projects."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec
import pytest

from app.engine.accounts.access import ADMIN, ANYONE, Access, Principal, create_key
from app.protocol.wire.errors import Unauthorized
from app.stores.ports.keys import ApiKey

ADMIN_KEY = "sk-admin-0123456789abcdef"


class Keys:
    """Implements the key store in a dictionary."""

    def __init__(self) -> None:
        self.keys: dict[bytes, ApiKey] = {}
        self.asked = 0
        self.touched: list[Mapping[str, int]] = []

    async def find(self, digest: bytes) -> ApiKey | None:
        self.asked += 1
        return self.keys.get(digest)

    async def create(self, key: ApiKey, digest: bytes) -> ApiKey:
        self.keys[digest] = key
        return key

    async def list(self) -> Sequence[ApiKey]:
        return list(self.keys.values())[::-1]

    async def revoke(self, key_id: str, now: int) -> bool:
        for digest, key in self.keys.items():
            if key.id == key_id:
                self.keys[digest] = msgspec.structs.replace(key, revoked_at=now)
                return True
        return False

    async def touch(self, used: Mapping[str, int]) -> None:
        self.touched.append(used)

    async def secret(self, name: str, fallback: bytes) -> bytes:
        del name
        return fallback


def bearer(secret: str) -> bytes:
    return f"Bearer {secret}".encode()


async def test_a_new_key_opens_its_project_and_only_its_digest_is_kept() -> None:
    keys = Keys()
    new = await create_key(keys, project="alpha", name="laptop")
    assert new.secret.startswith("sk-")
    assert list(keys.keys) == [sha256(new.secret.encode()).digest()]
    assert new.secret.startswith(new.key.prefix)
    assert len(new.key.prefix) < len(new.secret) // 2
    access = Access(keys, admin_key=None, required=True)
    assert await access.principal(bearer(new.secret)) == Principal(new.key.project_id, new.key.id)
    assert await keys.list() == [new.key]


@pytest.mark.parametrize("header", [f"bearer {ADMIN_KEY}", f"BEARER   {ADMIN_KEY} "])
async def test_the_admin_key_needs_no_store(header: str) -> None:
    keys = Keys()
    assert await Access(keys, admin_key=ADMIN_KEY, required=True).principal(header.encode()) == ADMIN
    assert keys.asked == 0


@pytest.mark.parametrize("header", [b"", b"Bearer", b"Bearer ", b"Basic abc", b"sk-abc", b"Bearer  ", b"\xff\xfe"])
async def test_a_malformed_header_is_refused(header: bytes) -> None:
    with pytest.raises(Unauthorized) as raised:
        await Access(Keys(), admin_key=ADMIN_KEY, required=True).principal(header)
    assert (raised.value.status, raised.value.code) == (401, "invalid_api_key")


async def test_no_header_is_refused_with_a_hint() -> None:
    with pytest.raises(Unauthorized, match="Bearer") as raised:
        await Access(Keys(), admin_key=ADMIN_KEY, required=True).principal(None)
    assert raised.value.code == "missing_api_key"


async def test_unknown_expired_and_revoked_keys_are_refused_in_the_same_words() -> None:
    keys = Keys()
    past = await create_key(keys, project="p", name="n", expires_at=int(time.time()))
    revoked = await create_key(keys, project="p", name="n")
    await keys.revoke(revoked.key.id, 1)
    access = Access(keys, admin_key=None, required=True)
    messages: set[str] = set()
    for secret in ("sk-unknown", past.secret, revoked.secret, "sk-ünknown"):
        with pytest.raises(Unauthorized) as raised:
            await access.principal(bearer(secret))
        messages.add(raised.value.message)
    assert len(messages) == 1


async def test_where_no_key_is_required_a_good_one_still_counts() -> None:
    keys = Keys()
    new = await create_key(keys, project="p", name="n")
    access = Access(keys, admin_key=None, required=False)
    assert await access.principal(None) == ANYONE
    assert await access.principal(bearer("whatever")) == ANYONE
    assert (await access.principal(bearer(new.secret))).key_id == new.key.id


async def test_keys_and_refusals_are_remembered_for_a_while() -> None:
    keys = Keys()
    new = await create_key(keys, project="p", name="n")
    access = Access(keys, admin_key=None, required=True)
    for _ in range(3):
        await access.principal(bearer(new.secret))
        with pytest.raises(Unauthorized):
            await access.principal(bearer("sk-unknown"))
    assert keys.asked == 2


async def test_use_is_written_down_once_for_all_requests() -> None:
    keys = Keys()
    new = await create_key(keys, project="p", name="n")
    access = Access(keys, admin_key=None, required=True)
    await access.flush()
    assert keys.touched == []
    await access.principal(bearer(new.secret))
    await access.principal(bearer(new.secret))
    await access.flush()
    await access.flush()
    assert [list(used) for used in keys.touched] == [[new.key.id]]
