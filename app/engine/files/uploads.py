"""Uploaded files: upload, list, read, delete."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Literal, TypeVar, cast, get_args

import msgspec

from app.knowledge.ports.blobs import Blobs, Staged
from app.knowledge.ports.files import FileRecord, FileRecords
from app.protocol.wire.errors import InvalidRequest, NotFound, PayloadTooLarge
from app.protocol.wire.ids import response_id
from app.protocol.wire.paging import Page
from app.shortening import beginning
from app.tools.ports.files import FileContent

T = TypeVar("T")
Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]

_PURPOSES = get_args(Purpose)
_NAME_BYTES = 255
_BATCH_SECONDS = 30 * 86_400
"""Default lifetime of batch files."""
_STAGED_SECONDS = 86_400
"""Age from which an unfinished upload counts as abandoned."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Control characters, and those that change the writing direction: `exe.txt` could be displayed as `txt.exe`."""


class NewFile(msgspec.Struct, frozen=True):
    """A client's parameters for an upload."""

    filename: str
    purpose: str
    lives_seconds: int | None = None
    """From now; None: unlimited, or the default for the purpose."""


class UploadedFiles:
    """Files of all projects."""

    def __init__(
        self, records: FileRecords, blobs: Blobs, *, upload_bytes: int, read_bytes: int, clock: Callable[[], float]
    ) -> None:
        """`upload_bytes` is the maximum size of an upload; `read_bytes` the maximum that is read into memory."""
        self._records = records
        self._blobs = blobs
        self._upload_bytes = upload_bytes
        self._read_bytes = read_bytes
        self._clock = clock

    @property
    def upload_bytes(self) -> int:
        """Maximum size of a file."""
        return self._upload_bytes

    async def take(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Stream an upload to storage. Raises PayloadTooLarge, and then discards it."""
        async with aclosing(_limited(chunks, self._upload_bytes)) as limited:
            return await self._blobs.stage(limited)

    async def drop(self, staged: Staged) -> None:
        """Discard the upload."""
        await self._blobs.drop(staged)

    async def create(self, project_id: str, staged: Staged, new: NewFile) -> FileRecord:
        """Create a file from an upload, which is discarded if this fails. Raises InvalidRequest."""
        try:
            record = self._record(project_id, staged, new)
            await self._records.reserve(record)
        except BaseException:
            await self._blobs.drop(staged)
            raise
        await self._blobs.keep(staged)
        await self._records.publish(record.id)
        return record

    async def get(self, project_id: str, file_id: str) -> FileRecord:
        """The file. Raises NotFound."""
        record = await self._records.get(project_id, file_id, self._now())
        if record is None:
            raise no_such_file(file_id)
        return record

    async def list(self, project_id: str, purpose: str | None, page: Page) -> tuple[Sequence[FileRecord], bool]:
        """A page of files, and whether there are more. Raises InvalidRequest."""
        more = msgspec.structs.replace(page, limit=page.limit + 1)
        found = await self._records.list(project_id, purpose, more, self._now())
        return cut(found, page), len(found) > page.limit

    async def content(self, project_id: str, file_id: str) -> tuple[FileRecord, AsyncGenerator[bytes]]:
        """The file and its content, in pieces. Raises NotFound."""
        record = await self.get(project_id, file_id)
        try:
            return record, await self._blobs.get(record.digest)
        except KeyError:
            raise NotFound(
                f"The content of the file '{file_id}' is missing.", code="content_missing", param="file_id"
            ) from None

    async def read(self, project_id: str, file_id: str) -> FileContent:
        """The file with its content. Raises NotFound, and InvalidRequest if it is too large to be read as a whole."""
        size = (await self.get(project_id, file_id)).size
        if size > self._read_bytes:
            message = f"The file '{file_id}' is too large: tools read files of at most {self._read_bytes} bytes."
            raise InvalidRequest(message, code="file_too_large", param="file_id")
        record, pieces = await self.content(project_id, file_id)
        async with aclosing(pieces):
            return FileContent(record.id, record.filename, b"".join([piece async for piece in pieces]))

    async def delete(self, project_id: str, file_id: str) -> None:
        """Delete the file and remove it from every vector store. Raises NotFound."""
        if not await self._records.delete(project_id, file_id, self._blobs.delete):
            raise no_such_file(file_id)

    async def purge(self, now: int, limit: int) -> int:
        """Delete at most `limit` expired files, and abandoned uploads; returns how many were deleted."""
        expired = await self._records.expired(now, limit)
        for record in expired:
            await self._records.delete(record.project_id, record.id, self._blobs.delete)
        return len(expired) + await self._blobs.sweep(now - _STAGED_SECONDS, limit)

    def _record(self, project_id: str, staged: Staged, new: NewFile) -> FileRecord:
        now = self._now()
        purpose = _purpose(new.purpose)
        lives = new.lives_seconds or (_BATCH_SECONDS if purpose == "batch" else None)
        return FileRecord(
            id=new_id("file-", self._clock()),
            project_id=project_id,
            created_at=now,
            expires_at=now + lives if lives else None,
            filename=safe_name(new.filename),
            purpose=purpose,
            size=staged.size,
            digest=staged.digest,
        )

    def _now(self) -> int:
        return int(self._clock())


def new_id(prefix: str, now: float) -> str:
    """An unguessable id that sorts by creation time: the prefix and the 32 hex digits of a UUID version 7."""
    return prefix + response_id(int(now * 1000), os.urandom(10)).replace("-", "")


def no_such_file(file_id: str) -> NotFound:
    """The error for a file that is unknown, expired or another project's."""
    return NotFound(f"No such File object: {file_id}", code="not_found", param="file_id")


def cut(found: Sequence[T], page: Page) -> Sequence[T]:
    """The page without the extra entry that shows whether it is the last page."""
    if page.is_backwards:
        return found[-page.limit :]
    return found[: page.limit]


def safe_name(name: str) -> str:
    """The last part of a path, without characters that could mislead readers or file systems.

    At most 255 bytes, keeping the extension.
    """
    name = _UNSAFE.sub("", re.split(r"[/\\]", name)[-1]).strip()
    name = name.encode("utf-8", "replace").decode()
    if name in {"", ".", ".."}:
        return "file"
    if len(name.encode()) <= _NAME_BYTES:
        return name
    stem, dot, ending = name.rpartition(".")
    tail = (dot + ending).encode() if stem and len(ending) <= _NAME_BYTES // 8 else b""
    return beginning(stem if tail else name, _NAME_BYTES - len(tail)) + tail.decode()


def _purpose(text: str) -> Purpose:
    if text not in _PURPOSES:
        raise InvalidRequest(
            f"'{text[:64]}' is not one of the purposes {', '.join(_PURPOSES)}.", code="invalid_value", param="purpose"
        )
    return cast("Purpose", text)


async def _limited(chunks: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise PayloadTooLarge(f"The file is larger than {limit} bytes.", code="file_too_large", param="file")
        yield chunk
