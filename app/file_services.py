"""The part of the composition root that assembles files and vector stores from their adapters."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from app.api.dependencies import FileServices
from app.db.engine import Database
from app.documents import reading
from app.engine.files.ingestion import LEASE_SECONDS, Ingestion, Pipeline
from app.engine.files.store_files import StoreFiles
from app.engine.files.uploads import UploadedFiles
from app.engine.files.vector_stores import StorePorts, VectorStores
from app.engine.runs.supervisor import Runs
from app.jobs.outages import Outages
from app.knowledge import chunking
from app.knowledge.blobs import StoredBlobs
from app.knowledge.ports.embedder import Embedder
from app.knowledge.ports.passages import PassageIndex
from app.knowledge.records_attachments import SqlAttachments
from app.knowledge.records_files import SqlFileRecords
from app.knowledge.records_jobs import SqlJobs
from app.knowledge.records_stores import SqlStoreRecords
from app.settings import Settings

_PURGE_SECONDS = 30.0
_PURGE_BATCH = 200
_PURGE_PAUSE = 0.05
_INGESTIONS = 4
"""Files ingested concurrently in one process; one project gets at most half of them."""
_USUAL_EMBEDDINGS = "text-embedding-v4"


def build(
    settings: Settings, database: Database, stack: AsyncExitStack, *, alone: bool
) -> tuple[FileServices, Ingestion] | None:
    """The use cases of files and vector stores, and the worker that ingests files; None: files are disabled.

    `alone`: no other process uses the database.
    """
    if settings.files_dir == "off":
        return None
    blobs = StoredBlobs(settings.files_dir, settings.files_s3_endpoint)
    records, attachments = SqlFileRecords(database), SqlAttachments(database)
    index, embedder = _index(database, settings), _embedder(settings)
    stack.push_async_callback(embedder.aclose)
    limits = settings.limits
    pipeline = Pipeline(
        jobs=SqlJobs(database),
        files=records,
        blobs=blobs,
        read=reading.text,
        split=chunking.split,
        embedder=embedder,
        index=index,
    )
    ingestion = Ingestion(
        pipeline,
        Outages(LEASE_SECONDS, alone=alone),
        read_bytes=limits.container_file_bytes,
        clock=time.time,
        at_once=_INGESTIONS,
    )
    uploaded = UploadedFiles(
        records, blobs, upload_bytes=limits.file_bytes, read_bytes=limits.container_file_bytes, clock=time.time
    )
    store_files = StoreFiles(attachments, index, time.time, ingestion.wake)
    ports = StorePorts(stores=SqlStoreRecords(database), attachments=attachments, index=index, embedder=embedder)
    return FileServices(uploaded, store_files, VectorStores(ports, uploaded, store_files, time.time)), ingestion


def _index(database: Database, settings: Settings) -> PassageIndex:
    if database.embedded:
        from app.knowledge.index_sqlite import SqliteIndex  # noqa: PLC0415 - one of the two is used

        return SqliteIndex(database, memory=settings.limits.vector_cache_bytes)
    from app.knowledge.index_postgres import PostgresIndex  # noqa: PLC0415 - as above

    return PostgresIndex(database)


def _embedder(settings: Settings) -> Embedder:
    if settings.embeddings_base_url is None:
        from app.knowledge.embed_local import LocalEmbedder  # noqa: PLC0415 - one of the two is used

        return LocalEmbedder(settings.embeddings_built_in)
    from app.knowledge.embed_http import HttpEmbedder  # noqa: PLC0415 - as above

    key = settings.embeddings_api_key.get_secret_value() if settings.embeddings_api_key else None
    return HttpEmbedder(settings.embeddings_base_url, model=settings.embeddings_model or _USUAL_EMBEDDINGS, api_key=key)


def start(runs: Runs, services: FileServices, ingestion: Ingestion) -> None:
    """Ingest files as they come, and delete what has expired."""

    async def purge() -> None:
        removed = 1
        while removed:
            now = int(time.time())
            removed = await services.files.purge(now, _PURGE_BATCH) + await services.vector_stores.purge(
                now, _PURGE_BATCH
            )
            await asyncio.sleep(_PURGE_PAUSE)

    runs.every(_PURGE_SECONDS, purge)
    for _ in range(_INGESTIONS):
        runs.every(0.0, ingestion.run)
