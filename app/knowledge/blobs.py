"""Content-addressed storage on disk or in S3-compatible storage, by SHA-256.

New content is written under a temporary name while its digest is being computed, and moved atomically to
`content/<digest>` once it is known to be wanted; so a reader finds all of it or nothing, however the process ends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AsyncExitStack, contextmanager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from app.knowledge.ports.blobs import Staged
from app.knowledge.ports.errors import KnowledgeUnavailable

if TYPE_CHECKING:  # the library uses memory: it is imported only where it is used
    from obstore import GetResult
    from obstore.store import LocalStore, S3Store

_INCOMING = "incoming"
_S3 = "s3://"
_PART_BYTES = 5 * 1024 * 1024
"""S3's minimum part size of a multipart upload; smaller contents are one request."""
_LOCAL_PART_BYTES = 1024 * 1024
_PARTS_AT_ONCE = 2
_STAGED_AT_ONCE = 32
"""Uploads that are written at once: each may have (1 + concurrent parts) parts in memory."""
_READ_BYTES = 256 * 1024


class StoredBlobs:
    """Content in a directory or a bucket. Nothing is opened or created before the first use."""

    def __init__(self, place: str, endpoint: str | None = None) -> None:
        """`place` is a directory or `s3://bucket/prefix`.

        `endpoint` an S3-compatible server, whose keys are in the AWS_ variables.
        """
        self._place = place
        self._endpoint = endpoint
        self._directory = None if place.startswith(_S3) else Path(place)
        self._staging = asyncio.Semaphore(_STAGED_AT_ONCE)

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Write the pieces as they arrive; leaving early, for any reason, removes what was written."""
        import obstore  # noqa: PLC0415 - see above

        key = f"{_INCOMING}/{os.urandom(16).hex()}"
        digest = sha256()
        size = 0
        part = _PART_BYTES if self._directory is None else _LOCAL_PART_BYTES
        async with self._staging:
            with _failures():
                writer = obstore.open_writer_async(self._store, key, buffer_size=part, max_concurrency=_PARTS_AT_ONCE)
            async with AsyncExitStack() as abort:
                abort.push_async_exit(writer)
                async for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    with _failures():
                        await writer.write(chunk)
                abort.pop_all()
            with _failures():
                await writer.close()
        return Staged(key, digest.hexdigest(), size)

    async def keep(self, staged: Staged) -> None:
        """Move it into place; existing content is identical."""
        import obstore  # noqa: PLC0415 - see above

        with _failures():
            await obstore.rename_async(self._store, staged.key, _place(staged.digest), overwrite=True)

    async def drop(self, staged: Staged) -> None:
        """Remove it."""
        await self._remove(staged.key)

    async def get(self, digest: str) -> AsyncGenerator[bytes]:
        """The content in pieces of a few hundred KiB."""
        import obstore  # noqa: PLC0415 - see above

        with _failures():
            try:
                found = await obstore.get_async(self._store, _place(digest))
            except FileNotFoundError:
                raise KeyError(digest) from None
        return _pieces(found)

    async def delete(self, digest: str) -> None:
        """Remove the content."""
        await self._remove(_place(digest))

    async def sweep(self, before: int, limit: int) -> int:
        """Remove the remains of uploads whose process ended first."""
        if self._directory is not None:
            return await asyncio.to_thread(_sweep, self._directory / _INCOMING, before, limit)
        import obstore  # noqa: PLC0415 - see above

        swept = 0
        with _failures():
            async for found in obstore.list(self._store, _INCOMING):  # pyright: ignore[reportUnknownMemberType] - arrow is not installed
                old = [one["path"] for one in found if one["last_modified"].timestamp() < before][: limit - swept]
                for path in old:
                    await self._remove(path)
                swept += len(old)
                if swept >= limit:
                    break
        return swept

    async def _remove(self, path: str) -> None:
        import obstore  # noqa: PLC0415 - see above

        with _failures():
            try:
                await obstore.delete_async(self._store, path)
            except FileNotFoundError:
                return

    @cached_property
    def _store(self) -> LocalStore | S3Store:
        from obstore.store import LocalStore, S3Store  # noqa: PLC0415 - see above

        if self._directory is not None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return LocalStore(self._directory.absolute())
        bucket, _, prefix = self._place.removeprefix(_S3).partition("/")
        if self._endpoint is None:
            return S3Store(bucket, prefix=prefix or None)
        return S3Store(
            bucket,
            prefix=prefix or None,
            endpoint=self._endpoint,
            client_options={"allow_http": self._endpoint.startswith("http://")},
        )


async def _pieces(found: GetResult) -> AsyncGenerator[bytes]:
    pieces = aiter(found.stream(min_chunk_size=_READ_BYTES))
    while True:
        with _failures():
            piece = await anext(pieces, None)
        if piece is None:
            return
        yield bytes(piece)


def _place(digest: str) -> str:
    return f"content/{digest[:2]}/{digest}"


def _sweep(directory: Path, before: int, limit: int) -> int:
    """The library does not list the names of unfinished files, so the directory itself is read."""
    if not directory.is_dir():
        return 0
    old = [file for file in directory.iterdir() if _is_old(file, before)][:limit]
    for file in old:
        file.unlink(missing_ok=True)
    return len(old)


def _is_old(file: Path, before: int) -> bool:
    try:
        return file.stat().st_mtime < before
    except FileNotFoundError:  # finished or discarded meanwhile
        return False


@contextmanager
def _failures() -> Generator[None]:
    """Convert the storage's errors to the port's.

    The library's messages contain addresses and paths, which only go to the log.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415 - see above

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise KnowledgeUnavailable(f"{type(error).__name__}: {error}") from error
