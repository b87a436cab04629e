"""Ingestion makes files searchable: jobs that outlive the process that started them.

Projects take turns, and none gets all the workers of a process: a thousand files of one project do not delay the one
file of another. A job is held by a lease that is renewed while it is processed; if a process dies, others take over its
jobs. A process that has lost a job (the file was removed, changed or cancelled, or another took over while this one was
stopped) changes nothing any more: the index asks whose the job is in the transaction that changes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Protocol

import msgspec

from app.documents.base import UnreadableDocument, note
from app.fairness import Busy, Turns
from app.jobs.outages import Outages
from app.knowledge.ports.blobs import Blobs
from app.knowledge.ports.embedder import Embedder, EmbeddingFailed
from app.knowledge.ports.errors import KnowledgeUnavailable
from app.knowledge.ports.files import FileRecord, FileRecords
from app.knowledge.ports.jobs import Job, JobLost, Jobs
from app.knowledge.ports.passages import Passage, PassageIndex, Split, Vectors
from app.knowledge.ports.stores import LastError
from app.protocol.wire.errors import ApiError, InvalidRequest

_log = logging.getLogger(__name__)
LEASE_SECONDS = 30.0
_POLL_SECONDS = 5.0
"""How often jobs created or abandoned by other processes are looked for; this process's own begin at once."""
_ATTEMPTS = 4
_PAUSES = (2, 10, 30)
"""Seconds before the second, third and fourth attempt."""
_PASSAGES_AT_ONCE = 64


class ReadText(Protocol):
    """Extracts the text of a document: see `app.documents.reading`."""

    def __call__(self, content: bytes, *, filename: str, project: str) -> Awaitable[str]:
        """The text. `project` is used for fair scheduling. Raises UnreadableDocument and Busy."""
        ...


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """The processing stages of a file."""

    jobs: Jobs
    files: FileRecords
    blobs: Blobs
    read: ReadText
    split: Split
    embedder: Embedder
    index: PassageIndex


class _Refused(Exception):
    """The file can never become searchable; the message is for its owner."""

    def __init__(self, code: LastError, message: str) -> None:
        super().__init__(message)
        self.code: LastError = code


class Ingestion:
    """Processes jobs, as many at a time as there are concurrent calls of `run`, in any number of processes."""

    def __init__(
        self,
        pipeline: Pipeline,
        outages: Outages,
        *,
        read_bytes: int,
        clock: Callable[[], float],
        at_once: int = 4,
    ) -> None:
        """`read_bytes`: larger files are not ingested, since a document is read as a whole.

        `at_once`: see `app.fairness.Turns`.
        """
        self._pipeline = pipeline
        self._read_bytes = read_bytes
        self._clock = clock
        self._outages = outages
        self._turns = Turns(at_once)
        self._choosing = asyncio.Lock()
        self._new = asyncio.Event()

    def wake(self) -> None:
        """Signal that there is a job."""
        self._new.set()

    async def run(self) -> None:
        """Wait a few seconds at most for jobs, and process all that are due; to be called in a loop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self._new.wait()
        self._new.clear()
        await self.work()

    async def work(self) -> int:
        """Process the jobs that are due, one after the other, until there are none; returns how many there were."""
        done = 0
        while job := await self._claim():
            try:
                await self._hold(job)
            except asyncio.CancelledError:
                # the process is stopping: the next one need not wait for the lease to expire
                await self._pipeline.jobs.release(job)
                raise
            finally:
                self._turns.give_back(job.project_id)
            done += 1
        return done

    async def _hold(self, job: Job) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                renewal = group.create_task(self._renew(job))
                await self._do(job)
                renewal.cancel()
        except* JobLost:
            _log.info("file %s of %s changed while it was being ingested", job.file_id, job.vector_store_id)

    async def _claim(self) -> Job | None:
        """A job of the project whose turn it is, with its slot taken."""
        async with self._choosing:
            jobs, outages = self._pipeline.jobs, self._outages
            with outages.watch():
                waiting = dict.fromkeys(await jobs.waiting(takeover=outages.may_take_over))
            while (project := self._turns.next(waiting)) is not None:
                with outages.watch():
                    job = await jobs.claim(project, outages.lease_seconds, takeover=outages.may_take_over)
                if job is not None:
                    self._turns.take(project)
                    return job
                del waiting[project]  # another process has taken its last job
        return None

    async def _renew(self, job: Job) -> None:
        """Until the job is lost. While the database is away it may be ours: others wait until we can renew."""
        lease_seconds = self._outages.lease_seconds
        while True:
            await asyncio.sleep(lease_seconds / 3)
            try:
                with self._outages.watch():
                    held = await self._pipeline.jobs.renew(job, lease_seconds)
            except KnowledgeUnavailable as error:
                _log.warning("a lease could not be renewed: %s", error)
                continue
            if not held:
                raise JobLost

    async def _do(self, job: Job) -> None:
        pipeline = self._pipeline
        try:
            if job.kind == "ingest":
                await pipeline.jobs.complete(job, *await self._ingest(job))
            else:
                await pipeline.index.remove(job)
                await pipeline.jobs.settle(job)
        except Busy as busy:
            await pipeline.jobs.release(job, busy.retry_after)
        except _Refused as refusal:
            await pipeline.index.remove(job)
            await pipeline.jobs.fail(job, refusal.code, str(refusal))
        except JobLost:
            raise
        except Exception as error:  # noqa: BLE001 - no error may lose the job or stop the others
            await self._try_later(job, error)

    async def _ingest(self, job: Job) -> tuple[int, str | None]:
        """Bytes of the passages and their vectors, and which content of the file is missing from its text."""
        pipeline, record = self._pipeline, await self._record(job)
        passages, unread = await self._passages(record, job)
        model = (await pipeline.index.models([job.vector_store_id])).get(job.vector_store_id)
        used = 0

        async def batches() -> AsyncGenerator[tuple[Sequence[Passage], Vectors]]:
            nonlocal used
            for start in range(0, len(passages), _PASSAGES_AT_ONCE):
                some = passages[start : start + _PASSAGES_AT_ONCE]
                vectors = await pipeline.embedder.passages([passage.text for passage in some], model=model)
                used += len(vectors.data) + sum(len(passage.text.encode()) for passage in some)
                yield some, vectors

        async with aclosing(batches()) as embedded:
            try:
                await pipeline.index.replace(job, record.filename, embedded)
            except InvalidRequest as error:
                raise _Refused("server_error", error.message) from error
        return used, unread

    async def _record(self, job: Job) -> FileRecord:
        if job.attempts > _ATTEMPTS:  # every process that tried has crashed
            raise _Refused("server_error", "The file could not be processed.")
        record = await self._pipeline.files.get(job.project_id, job.file_id, int(self._clock()))
        if record is None:
            raise _Refused("invalid_file", "The file has been deleted.")
        return record

    async def _passages(self, record: FileRecord, job: Job) -> tuple[Sequence[Passage], str | None]:
        if record.size > self._read_bytes:
            raise _Refused(
                "invalid_file", f"The file is too large to be searched: at most {self._read_bytes} bytes are read."
            )
        try:
            stored = await self._pipeline.blobs.get(record.digest)
        except KeyError:
            raise _Refused("server_error", "The file's content is missing.") from None
        async with aclosing(stored) as pieces:
            content = b"".join([piece async for piece in pieces])
        try:
            text = await self._pipeline.read(content, filename=record.filename, project=job.project_id)
        except UnreadableDocument as error:
            raise _Refused("unsupported_file", str(error)) from error
        passages = await self._pipeline.split(
            text, size=job.chunk_size, overlap=job.chunk_overlap, project=job.project_id
        )
        if not passages:
            raise _Refused("invalid_file", "The file has no text.")
        return passages, note(text)

    async def _try_later(self, job: Job, error: Exception) -> None:
        """Errors of ours or of the embedding server may be temporary. Removals are retried without limit."""
        _log.warning(
            "file %s of %s, try %d: %s",
            job.file_id,
            job.vector_store_id,
            job.attempts,
            error,
            exc_info=_unexpected(error),
        )
        if job.kind == "ingest" and job.attempts >= _ATTEMPTS:
            expected = isinstance(error, ApiError | EmbeddingFailed)
            await self._pipeline.jobs.fail(
                job, "server_error", str(error) if expected else "The file could not be processed."
            )
            return
        pause = _PAUSES[min(job.attempts, len(_PAUSES)) - 1]
        await self._pipeline.jobs.postpone(job, pause)


def _unexpected(error: Exception) -> bool:
    return not isinstance(error, ApiError | EmbeddingFailed | KnowledgeUnavailable)
