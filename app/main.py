"""The composition root: settings to adapters to services to the ASGI application. The only place that names concrete classes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from app import __version__, discovery, upstreams
from app.api import errors, files, health, models, openapi, responses, tools, vector_stores
from app.api.create import CreateResponse, Policy
from app.api.dependencies import Library, Services
from app.api.gateway import Gateway
from app.api.streaming import Heartbeats
from app.db.engine import Database
from app.documents import reading
from app.engine.access import Access
from app.engine.catalog import Catalog
from app.engine.files import UploadedFiles
from app.engine.history import History
from app.engine.ingestion import Ingestion, Pipeline
from app.engine.media import Media
from app.engine.metering import Metrics
from app.engine.responses import Responses
from app.engine.routing import Router
from app.engine.run import Ports
from app.engine.runs import Runs
from app.engine.sealing import Sealer
from app.engine.store_files import StoreFiles
from app.engine.structured import Validator
from app.engine.turn import Parsers
from app.engine.vector_stores import StorePorts, VectorStores
from app.eventlog.base import EventLog
from app.knowledge import chunking
from app.knowledge.base import Embedder, PassageIndex
from app.knowledge.blobs import StoredBlobs
from app.knowledge.records_attachments import SqlAttachments
from app.knowledge.records_files import SqlFileRecords
from app.knowledge.records_jobs import SqlJobs
from app.knowledge.records_stores import SqlStoreRecords
from app.settings import Settings, load
from app.stores.base import ResponseStore
from app.stores.keys import SqlKeyStore
from app.stores.sql import SqlResponseStore
from app.tools._fetch import GuardedFetcher
from app.tools.base import ToolSpec, Workshop

_log = logging.getLogger(__name__)
_GC_YOUNG = 10_000
"""Objects made before the youngest generation is looked through; the interpreter's default is 700."""
_PURGE_SECONDS = 30.0
_PURGE_BATCH = 200
_PURGE_PAUSE = 0.05
_USAGE_SECONDS = 30.0
_MODELS_SECONDS = 60.0
_INGESTIONS = 2
"""Files that are ingested at a time in one process."""
_USUAL_EMBEDDINGS = "text-embedding-v4"
_VECTOR_BYTES = 128 * 1024 * 1024
"""For the vectors of the stores that are searched, on SQLite: some 300,000 passages of the built-in model."""


def create_app(settings: Settings | None = None) -> Gateway:
    """The application; connections open when its lifespan begins."""
    settings = settings or load()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            create, services = await _compose(settings, metrics, stack)
            app.state.services = services
            gateway.serve(create, [model.id for model in services.router.models()])
            _settle_garbage_collector()
            yield

    app = FastAPIOffline(
        title="Responses gateway", version=__version__, lifespan=lifespan, description="The OpenAI Responses API in front of Qwen."
    )
    for router in (responses.router, models.router, tools.router, files.router, vector_stores.router, health.router):
        app.include_router(router)
    errors.install(app)
    openapi.install(app)
    gateway = Gateway(app, metrics)
    return gateway


def _settle_garbage_collector() -> None:
    """What exists now stays: leave it out of every collection, and collect the short-lived rest less often.

    With the defaults, collections are a third of a request's CPU at sixteen requests at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_YOUNG, 20, 20)


async def _compose(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> tuple[ASGIApp, Services]:
    database = Database(settings.database_url, synchronous=settings.sqlite_synchronous)
    stack.push_async_callback(database.aclose)
    keys = SqlKeyStore(database)
    store = _store(settings, database, stack)
    library, ingestion = _library(settings, database, stack)
    fetcher = GuardedFetcher(allow=settings.fetch_allow, robots=settings.fetch_robots)
    stack.push_async_callback(fetcher.aclose)
    # What a user names in a request is fetched for that user, not by a program on its own: robots.txt is not asked.
    errand = GuardedFetcher(allow=settings.fetch_allow, robots=False)
    stack.push_async_callback(errand.aclose)
    catalog = _catalog(settings, library, fetcher, stack)
    routes = await upstreams.connect(settings)
    for route in routes:
        stack.push_async_callback(route.provider.aclose)
    router = Router(routes, settings.aliases, lambda name: metrics.upstream_failures.labels(name).inc())
    ports = Ports(
        store=store,
        history=History(store, settings.limits.context_cache_bytes, shared=not _alone(settings)),
        media=Media(errand, library.vector_stores if library else None, settings.limits),
        router=router,
        sealer=Sealer(await keys.secret("sealing", os.urandom(32))),
        validator=Validator(),
        parsers=Parsers(),
        metrics=metrics,
        shared=_shared_log(settings, database, stack),
        clock=time.time,
        retention_seconds=int(settings.retention_days * 86400),
        id_prefix=settings.response_id_prefix,
        raw_reasoning=settings.reasoning_events == "text",
        estimates_usage=settings.estimate_usage,
        catalog=catalog,
        limits=settings.limits,
        vision_model=settings.vision_model,
    )
    runs = Runs(settings.limits.concurrent_responses)
    metrics.running.set_function(lambda: len(runs))
    stack.push_async_callback(runs.aclose)
    admin = settings.admin_key.get_secret_value() if settings.admin_key else None
    access = Access(keys, admin_key=admin, required=settings.authentication)
    stack.push_async_callback(access.flush)
    service = Responses(ports, runs, settings.limits)
    heartbeats = Heartbeats()
    _start_background(runs, ports, access, heartbeats, settings)
    if library is not None and ingestion is not None:
        _start_library(runs, library, ingestion)
    policy = Policy(settings.limits.body_bytes, settings.done_marker, settings.lenient_user_agents)
    create = CreateResponse(service, access, runs, metrics, heartbeats, policy)
    return create, Services(
        service,
        access,
        router,
        metrics,
        catalog,
        store,
        settings.heartbeat_seconds,
        settings.done_marker,
        settings.limits.body_bytes,
        library,
    )


def _library(settings: Settings, database: Database, stack: AsyncExitStack) -> tuple[Library | None, Ingestion | None]:
    if settings.files_dir == "off":
        return None, None
    blobs = StoredBlobs(settings.files_dir, settings.files_s3_endpoint)
    records, attachments = SqlFileRecords(database), SqlAttachments(database)
    index, embedder = _index(database), _embedder(settings)
    stack.push_async_callback(embedder.aclose)
    limits = settings.limits
    pipeline = Pipeline(
        jobs=SqlJobs(database), files=records, blobs=blobs, read=reading.text, split=chunking.split, embedder=embedder, index=index
    )
    ingestion = Ingestion(pipeline, read_bytes=limits.container_file_bytes, clock=time.time)
    uploaded = UploadedFiles(records, blobs, upload_bytes=limits.file_bytes, read_bytes=limits.container_file_bytes, clock=time.time)
    store_files = StoreFiles(attachments, index, time.time, ingestion.wake)
    shelf = StorePorts(stores=SqlStoreRecords(database), attachments=attachments, index=index, embedder=embedder)
    return Library(uploaded, store_files, VectorStores(shelf, uploaded, store_files, time.time)), ingestion


def _index(database: Database) -> PassageIndex:
    if database.embedded:
        from app.knowledge.index_sqlite import SqliteIndex  # noqa: PLC0415 - one of the two is used

        return SqliteIndex(database, memory=_VECTOR_BYTES)
    from app.knowledge.index_postgres import PostgresIndex  # noqa: PLC0415 - as above

    return PostgresIndex(database)


def _embedder(settings: Settings) -> Embedder:
    if settings.embeddings_base_url is None:
        from app.knowledge.embed_local import LocalEmbedder  # noqa: PLC0415 - one of the two is used

        return LocalEmbedder()
    from app.knowledge.embed_http import HttpEmbedder  # noqa: PLC0415 - as above

    key = settings.embeddings_api_key.get_secret_value() if settings.embeddings_api_key else None
    return HttpEmbedder(settings.embeddings_base_url, model=settings.embeddings_model or _USUAL_EMBEDDINGS, api_key=key)


def _catalog(settings: Settings, library: Library | None, fetcher: GuardedFetcher, stack: AsyncExitStack) -> Catalog:
    workshop = Workshop(settings=settings, fetcher=fetcher, files=library.vector_stores if library else None)
    specs = list(discovery.constants("app.tools", "TOOL", ToolSpec).values())
    catalog = Catalog(specs, {spec.type: spec.build(workshop) for spec in specs}, settings.tools)
    stack.push_async_callback(catalog.aclose)
    return catalog


def _store(settings: Settings, database: Database, stack: AsyncExitStack) -> ResponseStore:
    grace = max((int(upstream.timeouts.total) for upstream in upstreams.configured(settings)), default=0)
    store = SqlResponseStore(database, retention_seconds=int(settings.retention_days * 86400), grace_seconds=grace)
    if settings.redis_url is None:
        return store
    from app.stores.redis import RedisCachedStore  # noqa: PLC0415 - costs memory only where it is used

    cached = RedisCachedStore(store, settings.redis_url.get_secret_value())
    stack.push_async_callback(cached.aclose)
    return cached


def _alone(settings: Settings) -> bool:
    """No other process uses the same store."""
    return settings.workers == 1 and settings.database_url.startswith("sqlite")


def _shared_log(settings: Settings, database: Database, stack: AsyncExitStack) -> EventLog | None:
    kind = settings.event_log
    if kind == "auto":
        kind = "redis" if settings.redis_url else "memory" if _alone(settings) else "database"
    if kind == "memory":
        if not _alone(settings):
            _log.warning("event_log is 'memory': a live stream can be followed only on the replica that makes it")
        return None
    log: EventLog
    if kind == "redis" and settings.redis_url is not None:
        from app.eventlog.redis import RedisEventLog  # noqa: PLC0415 - costs memory only where it is used

        log = RedisEventLog(settings.redis_url.get_secret_value())
    else:
        from app.eventlog.sql import SqlEventLog  # noqa: PLC0415 - costs memory only where it is used

        log = SqlEventLog(database)
    stack.push_async_callback(log.aclose)
    return log


def _start_library(runs: Runs, library: Library, ingestion: Ingestion) -> None:
    async def purge() -> None:
        removed = 1
        while removed:
            now = int(time.time())
            removed = await library.files.purge(now, _PURGE_BATCH) + await library.vector_stores.purge(now, _PURGE_BATCH)
            await asyncio.sleep(_PURGE_PAUSE)

    runs.every(_PURGE_SECONDS, purge)
    for _ in range(_INGESTIONS):
        runs.every(0.0, ingestion.run)


def _start_background(runs: Runs, ports: Ports, access: Access, heartbeats: Heartbeats, settings: Settings) -> None:
    async def purge() -> None:
        while removed := await ports.store.purge(int(time.time()), _PURGE_BATCH):
            ports.metrics.purged.inc(removed)
            await asyncio.sleep(_PURGE_PAUSE)
        ports.metrics.expired.set(await ports.store.count_expired(int(time.time())))
        ports.metrics.cache_failures.set(getattr(ports.store, "failures", 0))

    runs.every(min(_PURGE_SECONDS, max(1.0, ports.retention_seconds)), purge)
    runs.every(_USAGE_SECONDS, access.flush)
    runs.every(_MODELS_SECONDS, ports.router.refresh)
    runs.every(settings.heartbeat_seconds, heartbeats.beat)
    if ports.shared is not None:
        runs.share_streams()
