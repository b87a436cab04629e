"""Content in a directory and in S3-compatible storage: the same promises."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Generator
from hashlib import sha256
from pathlib import Path

import pytest

from app.knowledge.blobs import StoredBlobs
from app.knowledge.ports.errors import KnowledgeUnavailable
from tests.support.s3 import KEY_ID, SECRET, S3Server, serving_s3

MIB = 1024 * 1024


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Generator[S3Server]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with serving_s3() as server:
        yield server


@pytest.fixture(params=["directory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> StoredBlobs:
    """Each storage in turn, empty."""
    if request.param == "directory":
        return StoredBlobs(str(tmp_path / "made" / "on the way"))
    server: S3Server = request.getfixturevalue("s3")
    return StoredBlobs("s3://bucket/some/prefix", server.url)


async def _pieces(*pieces: bytes) -> AsyncGenerator[bytes]:
    for piece in pieces:
        yield piece


async def _content(blobs: StoredBlobs, digest: str) -> bytes:
    return b"".join([piece async for piece in await blobs.get(digest)])


async def test_content_is_kept_under_its_hash_and_forgotten(blobs: StoredBlobs) -> None:
    staged = await blobs.stage(_pieces(b"one ", b"two"))
    assert (staged.digest, staged.size) == (sha256(b"one two").hexdigest(), 7)
    with pytest.raises(KeyError):
        await blobs.get(staged.digest)

    await blobs.keep(staged)
    assert await _content(blobs, staged.digest) == b"one two"

    await blobs.delete(staged.digest)
    await blobs.delete(staged.digest)
    with pytest.raises(KeyError):
        await blobs.get(staged.digest)


async def test_large_and_empty_content(blobs: StoredBlobs) -> None:
    parts = [os.urandom(MIB) for _ in range(12)]
    large, empty = await blobs.stage(_pieces(*parts)), await blobs.stage(_pieces())
    await blobs.keep(large)
    await blobs.keep(empty)

    assert await _content(blobs, large.digest) == b"".join(parts)
    assert (empty.size, await _content(blobs, empty.digest)) == (0, b"")


async def test_the_same_content_twice_is_one(blobs: StoredBlobs) -> None:
    first, second = await blobs.stage(_pieces(b"same")), await blobs.stage(_pieces(b"same"))
    await asyncio.gather(blobs.keep(first), blobs.keep(second))

    assert first.digest == second.digest
    assert await _content(blobs, first.digest) == b"same"
    await blobs.delete(first.digest)
    with pytest.raises(KeyError):
        await blobs.get(first.digest)


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def _breaking() -> AsyncGenerator[bytes]:
    for _ in range(12):
        yield bytes(MIB)
    raise ConnectionResetError


async def test_an_upload_that_breaks_leaves_nothing_on_disk(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        await StoredBlobs(str(tmp_path)).stage(_breaking())
    assert _files(tmp_path) == []


async def test_an_upload_that_breaks_leaves_no_object(s3: S3Server) -> None:
    with pytest.raises(ConnectionResetError):
        await StoredBlobs("s3://bucket", s3.url).stage(_breaking())
    assert (s3.objects, s3.uploads) == ({}, {})


async def test_large_content_reaches_s3_in_parts(s3: S3Server) -> None:
    blobs = StoredBlobs("s3://bucket/p", s3.url)
    staged = await blobs.stage(_pieces(*[bytes(MIB)] * 12))
    await blobs.keep(staged)

    assert list(s3.objects) == [f"/bucket/p/content/{staged.digest[:2]}/{staged.digest}"]
    assert s3.largest_body <= 6 * MIB


async def test_what_a_process_left_behind_is_swept(blobs: StoredBlobs) -> None:
    kept, left = await blobs.stage(_pieces(b"kept")), await blobs.stage(_pieces(b"left"))
    await blobs.keep(kept)

    assert await blobs.sweep(int(time.time()) - 60, 10) == 0
    assert await blobs.sweep(int(time.time()) + 60, 10) == 1
    assert await _content(blobs, kept.digest) == b"kept"
    with pytest.raises(KnowledgeUnavailable):
        await blobs.keep(left)


async def test_an_unfinished_file_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "0123#1").write_bytes(b"half")

    assert await StoredBlobs(str(tmp_path)).sweep(int(time.time()) + 60, 10) == 1
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_storage_that_fails_is_unavailable(s3: S3Server, tmp_path: Path) -> None:
    s3.down = True
    with pytest.raises(KnowledgeUnavailable):
        await StoredBlobs("s3://bucket", s3.url).stage(_pieces(b"x"))
    (tmp_path / "file").touch()
    with pytest.raises(KnowledgeUnavailable):
        await StoredBlobs(str(tmp_path / "file" / "below")).stage(_pieces(b"x"))


async def test_a_wrong_key_is_refused(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(KnowledgeUnavailable):
        await StoredBlobs("s3://bucket", s3.url).stage(_pieces(b"x"))
