"""Files in vector stores: add one or several, change attributes, cancel, remove."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from app.engine.files.uploads import cut, new_id, no_such_file
from app.knowledge.ports.passages import Attributes, Passage, PassageIndex
from app.knowledge.ports.stores import Attachment, Attachments, BatchRecord, IngestionStatus, StoreTotals
from app.protocol.wire.errors import InvalidRequest, NotFound
from app.protocol.wire.paging import Page


class Chunking(msgspec.Struct, frozen=True):
    """How a text is split; the defaults are those of `auto`."""

    size: int = 800
    """Maximum tokens of a passage."""
    overlap: int = 400
    """Tokens it shares with the previous one."""


class NewStoreFile(msgspec.Struct, frozen=True):
    """A file to be added to a store."""

    file_id: str
    attributes: Attributes
    chunking: Chunking


class Batch(msgspec.Struct, frozen=True):
    """A batch as clients see it."""

    record: BatchRecord
    totals: StoreTotals

    @property
    def status(self) -> IngestionStatus:
        """The status of the whole batch: failed only if every file has failed."""
        if self.totals.in_progress:
            return "in_progress"
        if self.record.cancelled:
            return "cancelled"
        return "failed" if self.totals.failed and self.totals.failed == self.totals.total else "completed"


class StoreFiles:
    """Files in the vector stores of all projects."""

    def __init__(
        self, attachments: Attachments, index: PassageIndex, clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        """`wake` signals that there is something to ingest or remove."""
        self._attachments = attachments
        self._index = index
        self._clock = clock
        self.wake = wake

    async def add(self, project_id: str, store_id: str, new: NewStoreFile) -> Attachment:
        """Start to ingest a file. Raises NotFound for the store or the file."""
        (attachment,) = await self._attach(project_id, store_id, [new], None)
        return attachment

    async def add_all(self, project_id: str, store_id: str, file_ids: Sequence[str], chunking: Chunking) -> None:
        """Start to ingest files. Raises NotFound for the store or a file, and then none is added."""
        await self._attach(project_id, store_id, [NewStoreFile(file_id, {}, chunking) for file_id in file_ids], None)

    async def add_batch(self, project_id: str, store_id: str, new: Sequence[NewStoreFile]) -> Batch:
        """Start to ingest files as a batch. Raises NotFound for the store or a file, and then none is added."""
        batch = BatchRecord(
            id=new_id("vsfb_", self._clock()),
            vector_store_id=store_id,
            project_id=project_id,
            created_at=self._now(),
            cancelled=False,
        )
        added = await self._attach(project_id, store_id, new, batch)
        return Batch(batch, StoreTotals(in_progress=len(added)))

    async def get(self, project_id: str, store_id: str, file_id: str) -> Attachment:
        """The file in the store. Raises NotFound."""
        found = await self._attachments.get(project_id, store_id, file_id)
        if found is None:
            raise _not_in(store_id, file_id)
        return found

    async def list(
        self,
        project_id: str,
        store_id: str,
        page: Page,
        *,
        status: IngestionStatus | None = None,
        batch_id: str | None = None,
    ) -> tuple[Sequence[Attachment], bool]:
        """A page of the store's or the batch's files, and whether there are more.

        Raises InvalidRequest for an unknown cursor.
        """
        more = msgspec.structs.replace(page, limit=page.limit + 1)
        try:
            found = await self._attachments.list(project_id, store_id, more, status=status, batch_id=batch_id)
        except KeyError as unknown:
            name = "after" if unknown.args[0] == page.after else "before"
            raise InvalidRequest(
                f"Invalid '{name}': there is no such file in the list.", code="invalid_value", param=name
            ) from None
        return cut(found, page), len(found) > page.limit

    async def describe(self, project_id: str, store_id: str, file_id: str, attributes: Attributes) -> Attachment:
        """Change the attributes. Raises NotFound."""
        if not await self._attachments.describe(project_id, store_id, file_id, msgspec.json.encode(attributes)):
            raise _not_in(store_id, file_id)
        await self._index.describe(store_id, file_id, attributes)
        return await self.get(project_id, store_id, file_id)

    async def remove(self, project_id: str, store_id: str, file_id: str) -> None:
        """Remove the file from the store; the file itself is kept. Raises NotFound."""
        if not await self._attachments.detach(project_id, store_id, file_id):
            raise _not_in(store_id, file_id)
        self.wake()

    async def passages(self, project_id: str, store_id: str, file_id: str) -> Sequence[Passage]:
        """The passages of the file. Raises NotFound, and InvalidRequest while it is not ready."""
        found = await self.get(project_id, store_id, file_id)
        if found.status != "completed":
            message = f"The file '{file_id}' is not ready: its status is '{found.status}'."
            raise InvalidRequest(message, code="file_not_ready", param="file_id")
        return await self._index.passages(store_id, file_id)

    async def batch(self, project_id: str, store_id: str, batch_id: str) -> Batch:
        """The batch. Raises NotFound."""
        found = await self._attachments.batch(project_id, store_id, batch_id)
        if found is None:
            raise NotFound(f"No batch found with id '{batch_id}'.", code="not_found", param="batch_id")
        return Batch(*found)

    async def cancel(self, project_id: str, store_id: str, batch_id: str) -> Batch:
        """Cancel the files that are not finished. Raises NotFound."""
        await self._attachments.cancel(project_id, store_id, batch_id)
        self.wake()
        return await self.batch(project_id, store_id, batch_id)

    async def _attach(
        self, project_id: str, store_id: str, new: Sequence[NewStoreFile], batch: BatchRecord | None
    ) -> Sequence[Attachment]:
        now = self._now()
        attachments = [
            Attachment(
                vector_store_id=store_id,
                file_id=one.file_id,
                project_id=project_id,
                batch_id=batch.id if batch else None,
                created_at=now,
                status="in_progress",
                attributes=msgspec.json.encode(one.attributes),
                chunk_size=one.chunking.size,
                chunk_overlap=one.chunking.overlap,
            )
            for one in {one.file_id: one for one in new}.values()
        ]
        try:
            await self._attachments.attach(attachments, batch, now)
        except KeyError as unknown:
            missing: str = unknown.args[0]
            raise (no_such_store(store_id) if missing == store_id else no_such_file(missing)) from None
        self.wake()
        return attachments

    def _now(self) -> int:
        return int(self._clock())


def no_such_store(store_id: str) -> NotFound:
    """The error for a store that is unknown, deleted, expired or another project's."""
    return NotFound(f"Vector store with id '{store_id}' not found.", code="not_found", param="vector_store_id")


def _not_in(store_id: str, file_id: str) -> NotFound:
    return NotFound(
        f"No file found with id '{file_id}' in vector store '{store_id}'.", code="not_found", param="file_id"
    )
