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
from app.api import errors, health, models, openapi, responses, tools
from app.api.create import CreateResponse, Policy
from app.api.dependencies import Services
from app.api.gateway import Gateway
from app.api.streaming import Heartbeats
from app.db.engine import Database
from app.engine.access import Access
from app.engine.catalog import Catalog
from app.engine.history import History
from app.engine.metering import Metrics
from app.engine.responses import Responses
from app.engine.routing import Router
from app.engine.run import Ports
from app.engine.runs import Runs
from app.engine.sealing import Sealer
from app.engine.structured import Validator
from app.engine.turn import Parsers
from app.eventlog.base import EventLog
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
    for router in (responses.router, models.router, tools.router, health.router):
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
    catalog = _catalog(settings, stack)
    routes = await upstreams.connect(settings)
    for route in routes:
        stack.push_async_callback(route.provider.aclose)
    router = Router(routes, settings.aliases, lambda name: metrics.upstream_failures.labels(name).inc())
    ports = Ports(
        store=store,
        history=History(store, settings.limits.context_cache_bytes, shared=not _alone(settings)),
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
    policy = Policy(settings.limits.body_bytes, settings.done_marker, settings.lenient_user_agents)
    create = CreateResponse(service, access, runs, metrics, heartbeats, policy)
    return create, Services(service, access, router, metrics, catalog, store, settings.heartbeat_seconds, settings.done_marker)


def _catalog(settings: Settings, stack: AsyncExitStack) -> Catalog:
    fetcher = GuardedFetcher(allow=settings.fetch_allow, robots=settings.fetch_robots)
    stack.push_async_callback(fetcher.aclose)
    workshop = Workshop(settings=settings, fetcher=fetcher, files=None)
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
