"""Vector stores: create, list, search; and the file functions for tools."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import product
from typing import Literal

import msgspec

from app.engine.files.store_files import Chunking, StoreFiles, no_such_store
from app.engine.files.uploads import UploadedFiles, cut, new_id
from app.fairness import Busy
from app.knowledge.ports.embedder import Embedder, EmbeddingFailed
from app.knowledge.ports.passages import Hit, PassageIndex, Search, Vectors
from app.knowledge.ports.stores import Attachments, StoreRecord, StoreRecords, StoreTotals
from app.protocol.wire.errors import NotFound, RateLimited, Unavailable
from app.protocol.wire.filters import parse_filter
from app.protocol.wire.paging import Page
from app.tools.ports.files import FileContent, FileHit, FileQuery

_DAY = 86_400
_TOUCH_SECONDS = 60
"""Precision of the time of last use: expiry is counted in days."""


class NewStore(msgspec.Struct, frozen=True, kw_only=True):
    """A store to create."""

    name: str
    description: str | None
    metadata: dict[str, str]
    expires_days: int | None
    file_ids: Sequence[str]
    chunking: Chunking


class StoreChange(msgspec.Struct, frozen=True, kw_only=True):
    """Changes to a store; UNSET members stay."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    expires_days: int | msgspec.UnsetType | None = msgspec.UNSET


class Store(msgspec.Struct, frozen=True):
    """A store as clients see it."""

    record: StoreRecord
    totals: StoreTotals
    status: Literal["expired", "in_progress", "completed"]


class StorePorts(msgspec.Struct, frozen=True, kw_only=True):
    """The dependencies of vector stores."""

    stores: StoreRecords
    attachments: Attachments
    index: PassageIndex
    embedder: Embedder


class VectorStores:
    """The vector stores of all projects. Tools also read files through it."""

    def __init__(
        self, ports: StorePorts, files: UploadedFiles, store_files: StoreFiles, clock: Callable[[], float]
    ) -> None:
        self._ports = ports
        self._files = files
        self._store_files = store_files
        self._clock = clock

    async def create(self, project_id: str, new: NewStore) -> Store:
        """Create a store, and start to ingest its files. Raises NotFound for a file, and then no store is created."""
        now = self._now()
        record = StoreRecord(
            id=new_id("vs_", self._clock()),
            project_id=project_id,
            created_at=now,
            name=new.name,
            description=new.description,
            metadata=msgspec.json.encode(new.metadata),
            expires_days=new.expires_days,
            last_active_at=now,
            expires_at=_expiry(now, new.expires_days),
        )
        await self._ports.stores.create(record)
        if new.file_ids:
            try:
                await self._store_files.add_all(project_id, record.id, new.file_ids, new.chunking)
            except NotFound:
                await self._ports.stores.delete(project_id, record.id, now)
                raise
        return (await self._shown([record]))[0]

    async def get(self, project_id: str, store_id: str) -> Store:
        """The store, even if it has expired. Raises NotFound."""
        return (await self._shown([await self._record(project_id, store_id)]))[0]

    async def list(self, project_id: str, page: Page) -> tuple[Sequence[Store], bool]:
        """A page of stores, and whether there are more."""
        found = await self._ports.stores.list(project_id, msgspec.structs.replace(page, limit=page.limit + 1))
        return await self._shown(cut(found, page)), len(found) > page.limit

    async def update(self, project_id: str, store_id: str, change: StoreChange) -> Store:
        """Change the store, which renews its expiry. Raises NotFound, also if it has expired."""
        now = self._now()
        record = _alive(await self._record(project_id, store_id), now)
        days = record.expires_days if change.expires_days is msgspec.UNSET else change.expires_days
        changed = msgspec.structs.replace(
            record,
            name=record.name if change.name is msgspec.UNSET else change.name,
            metadata=record.metadata if change.metadata is msgspec.UNSET else msgspec.json.encode(change.metadata),
            expires_days=days,
            last_active_at=now,
            expires_at=_expiry(now, days),
        )
        await self._ports.stores.update(changed)
        return (await self._shown([changed]))[0]

    async def delete(self, project_id: str, store_id: str) -> None:
        """Delete the store; its files are kept. Raises NotFound."""
        if not await self._ports.stores.delete(project_id, store_id, self._now()):
            raise no_such_store(store_id)
        self._store_files.wake()

    async def read(self, project_id: str, file_id: str) -> FileContent:
        """The file. Raises NotFound, InvalidRequest."""
        return await self._files.read(project_id, file_id)

    async def check(self, project_id: str, vector_store_ids: Sequence[str]) -> None:
        """Raises NotFound for the first store that is unknown or expired."""
        await self._living(project_id, vector_store_ids)

    async def search(self, project_id: str, query: FileQuery) -> Sequence[FileHit]:
        """The best passages for any of the queries. Raises NotFound, InvalidRequest, RateLimited, Unavailable."""
        filters = None if query.filters is None else parse_filter(query.filters, "filters")
        living = await self._living(project_id, query.vector_store_ids)
        await self._touch(living)
        best: dict[tuple[str, str, int], Hit] = {}
        for text, (model, stores) in product(query.queries, await self._by_model(query.vector_store_ids)):
            search = Search(
                vector_store_ids=stores,
                text=text,
                vector=await self._embedded(project_id, text, model),
                limit=query.limit,
                filters=filters,
                score_threshold=query.score_threshold,
                embedding_weight=query.embedding_weight,
                text_weight=query.text_weight,
            )
            _add_better(best, await self._ports.index.search(search))
        return await self._found(project_id, best.values(), query.limit)

    async def purge(self, now: int, limit: int) -> int:
        """Remove the files of expired stores, and delete empty stores marked as deleted.

        Returns how many stores were changed.
        """
        touched = await self._ports.stores.expire(now, limit)
        if touched:
            self._store_files.wake()
        return touched

    async def _record(self, project_id: str, store_id: str) -> StoreRecord:
        record = await self._ports.stores.get(project_id, store_id)
        if record is None:
            raise no_such_store(store_id)
        return record

    async def _living(self, project_id: str, store_ids: Sequence[str]) -> Sequence[StoreRecord]:
        return [_alive(await self._record(project_id, store_id), self._now()) for store_id in store_ids]

    async def _touch(self, living: Sequence[StoreRecord]) -> None:
        """Note the use of the stores, from time to time."""
        now = self._now()
        used = [record.id for record in living if record.last_active_at < now - _TOUCH_SECONDS]
        if used:
            await self._ports.stores.touch(used, now)

    async def _shown(self, records: Sequence[StoreRecord]) -> Sequence[Store]:
        if not records:
            return ()
        totals = await self._ports.stores.totals([record.id for record in records])
        return [Store(record, totals[record.id], _status(record, totals[record.id], self._now())) for record in records]

    async def _by_model(self, store_ids: Sequence[str]) -> Sequence[tuple[str | None, tuple[str, ...]]]:
        """The embedding models of the stores that have passages, each with its stores: vectors of different models are
        never compared.

        If none has any, the default model is still called, so that its failure is reported.
        """
        stores: dict[str | None, tuple[str, ...]] = {}
        for store_id, model in (await self._ports.index.models(store_ids)).items():
            stores[model] = (*stores.get(model, ()), store_id)
        return list(stores.items()) or [(None, tuple(store_ids))]

    async def _embedded(self, project_id: str, text: str, model: str | None) -> Vectors:
        try:
            return await self._ports.embedder.query(text, model=model, project=project_id)
        except Busy as busy:
            raise RateLimited(
                f"The search cannot be run now. {busy}", code="searches_busy", retry_after=busy.retry_after
            ) from busy
        except EmbeddingFailed as error:
            raise Unavailable(
                f"The embedding model did not answer: {error}.", code="embeddings_unavailable", retry_after=1.0
            ) from error

    async def _found(self, project_id: str, hits: Collection[Hit], limit: int) -> Sequence[FileHit]:
        """The best hits. Files that were just removed may still be in the index, but are not returned."""
        there = await self._ports.attachments.completed(
            project_id, [(hit.vector_store_id, hit.file_id) for hit in hits]
        )
        ranked = sorted(hits, key=lambda hit: hit.score, reverse=True)
        shown = [hit for hit in ranked if (hit.vector_store_id, hit.file_id) in there][:limit]
        return [FileHit(hit.file_id, hit.filename, hit.score, hit.text, hit.attributes, hit.fits) for hit in shown]

    def _now(self) -> int:
        return int(self._clock())


def _add_better(best: dict[tuple[str, str, int], Hit], hits: Sequence[Hit]) -> None:
    """Keep the best hit of each passage."""
    for hit in hits:
        place = (hit.vector_store_id, hit.file_id, hit.position)
        if place not in best or best[place].score < hit.score:
            best[place] = hit


def _alive(record: StoreRecord, now: int) -> StoreRecord:
    if record.expires_at is not None and record.expires_at <= now:
        raise NotFound(
            f"The vector store '{record.id}' has expired.", code="vector_store_expired", param="vector_store_id"
        )
    return record


def _expiry(used_at: int, days: int | None) -> int | None:
    return None if days is None else used_at + days * _DAY


def _status(record: StoreRecord, totals: StoreTotals, now: int) -> Literal["expired", "in_progress", "completed"]:
    if record.expires_at is not None and record.expires_at <= now:
        return "expired"
    return "in_progress" if totals.in_progress else "completed"
