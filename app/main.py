"""The composition root: builds the ASGI application from the settings. The only place that names concrete classes."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence, Sized
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from pydantic import SecretStr
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from app import __version__, discovery, file_services, upstreams
from app.api import errors, health, models, openapi, tools
from app.api.containers import routes as containers
from app.api.conversations import routes as conversations
from app.api.dependencies import FileServices, Services
from app.api.files import routes as files
from app.api.gateway import BrowserGateway, Gateway
from app.api.openness import Openness
from app.api.responses import routes as responses
from app.api.responses.continuation import Continuation
from app.api.responses.create import CreateResponse
from app.api.responses.create import Policy as EndpointPolicy
from app.api.responses.streaming import Heartbeats
from app.api.responses.websocket import serving as websocket
from app.api.responses.websocket.endpoint import WebSockets
from app.api.vector_stores import routes as vector_stores
from app.db.engine import Database, Pool
from app.documents import reading
from app.engine.accounts.access import Access
from app.engine.conversation.history import History
from app.engine.conversation.locks import BEAT_SECONDS, ConversationLocks
from app.engine.conversation.media import Media
from app.engine.conversation.sealing import Sealer
from app.engine.conversations import Conversations
from app.engine.counting import Counting
from app.engine.files.ingestion import Ingestion
from app.engine.hosted.catalog import Catalog
from app.engine.metrics import Metrics
from app.engine.model.formats import Formats
from app.engine.model.upstream_traits import UpstreamTraits
from app.engine.request.structured import Validator
from app.engine.responses import Responses
from app.engine.runs.admitting import stored_run
from app.engine.runs.background import BackgroundRuns, Capacity
from app.engine.runs.draining import Drain
from app.engine.runs.ports import Policy, Ports
from app.engine.runs.supervisor import Runs
from app.engine.runs.wanted import LOOK_SECONDS, WantedStreams
from app.engine.upstreams.routing import Router
from app.eventlog.base import EventLog
from app.eventlog.measured import MeasuredEventLog
from app.providers.facts import call_prices
from app.settings import Limits, Settings, load
from app.stores.keys import SqlKeyStore
from app.stores.measured import MeasuredRuns, MeasuredStore
from app.stores.ports.responses import ResponseStore
from app.stores.sql import SqlResponseStore
from app.stores.sql_conversations import SqlConversationStore
from app.stores.sql_runs import SqlRunStore
from app.telemetry.metrics import Gauge
from app.telemetry.table import table
from app.tools.code_interpreter import containers_of
from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.containers import Containers
from app.tools.ports.files import Files
from app.tools.ports.tool import Missing, Price, Tool, ToolServices, ToolSpec

_GC_YOUNG = 10_000
"""Allocations before the youngest generation is collected; the interpreter's default is 700."""
_PURGE_SECONDS = 30.0
_PURGE_BATCH = 200
_PURGE_PAUSE = 0.05
_USAGE_SECONDS = 30.0
_MODELS_SECONDS = 60.0
_LOG_SECONDS = 7200
"""How long the events of a response stay in the log after the last one."""
_ENDED_SECONDS = 600
"""How long they stay there after the end: the record has them, too."""
_SAMPLE_SECONDS = 2.0
"""Maximum age of other workers' gauges in a scrape."""

FilesAndIngestion = tuple[FileServices, Ingestion] | None
Served = tuple[ASGIApp, ASGIApp | None, Services, Callable[[], None]]
"""The endpoints of `/v1/responses` over HTTP and over WebSocket, what the others need, and what a stop signal calls."""


def create_app(settings: Settings | None = None) -> Gateway:
    """The application; connections are opened when its lifespan begins."""
    settings = settings or load()
    metrics = Metrics(table())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            create, websockets, services, drain = await _compose(settings, metrics, stack)
            app.state.services = services
            gateway.serve(create, websockets, [model.id for model in services.router.models()], drain)
            _settle_garbage_collector()
            yield

    app = FastAPIOffline(
        title="Responses gateway",
        version=__version__,
        lifespan=lifespan,
        description="The OpenAI Responses API in front of Qwen.",
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    routers = [
        part.router for part in (responses, conversations, models, tools, files, vector_stores, containers, health)
    ]
    for router in routers:
        app.include_router(router)
    errors.install(app)
    gateway = _gateway(app, [route for router in routers for route in router.routes], metrics, settings)
    openapi.install(app, lambda: gateway.example_model)
    return gateway


def _gateway(app: FastAPI, routes: Sequence[BaseRoute], metrics: Metrics, settings: Settings) -> Gateway:
    openness = (
        None if settings.authentication else Openness((*settings.allowed_hosts, settings.host), settings.cors_origins)
    )
    if settings.cors_origins:
        return BrowserGateway(app, routes, metrics, openness, settings.root_path, settings.cors_origins)
    return Gateway(app, routes, metrics, openness, settings.root_path)


def _settle_garbage_collector() -> None:
    """Exclude all existing objects, which are permanent, from collections, and collect less often.

    With the defaults, collections take a third of a request's CPU time at sixteen concurrent requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_YOUNG, 20, 20)
    gc.enable()


async def _compose(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> Served:
    database = _database(settings, metrics, stack)
    _limit_reading(settings.limits)
    keys = SqlKeyStore(database)
    store = MeasuredStore(_store(settings, database, metrics, stack), metrics.stored)
    files = file_services.build(settings, database, stack, alone=_alone(settings))
    stored = files[0].vector_stores if files else None
    tools_here = _tools(settings, stored, stack)
    router = await _router(settings, metrics, stack)
    conversations = _conversations(settings, database)
    stored_runs = MeasuredRuns(SqlRunStore(database), metrics.stored)
    ports = Ports(
        store=store,
        runs=stored_runs,
        log=_event_log(settings, database, metrics, stack),
        history=History(store, settings.limits.context_cache_bytes, shared=not _alone(settings), runs=stored_runs),
        # URLs in a request are fetched on the user's behalf, not by a crawler: robots.txt does not apply.
        media=Media(_fetcher(settings, stack, robots=False), stored, settings.limits),
        router=router,
        sealer=await _sealer(keys),
        validator=Validator(),
        traits=UpstreamTraits(),
        formats=Formats(),
        metrics=metrics,
        conversations=conversations,
        locks=ConversationLocks(conversations),
        clock=time.time,
        catalog=_catalog(settings, tools_here, stack),
        policy=_policy(settings),
    )
    return _serve(settings, ports, _access(settings, keys, stack), files, containers_of(tools_here.values()), stack)


def _database(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> Database:
    pool = Pool(settings.database_pool_size, settings.database_pool_wait_seconds)
    database = Database(settings.database_url, synchronous=settings.sqlite_synchronous, pool=pool)
    stack.push_async_callback(database.aclose)
    _watch_database(database, metrics, settings)
    return database


async def _sealer(keys: SqlKeyStore) -> Sealer:
    return Sealer(await keys.secret("sealing", os.urandom(32)))


def _limit_reading(limits: Limits) -> None:
    reading.configure(
        at_once=limits.documents_at_once,
        cpu_seconds=limits.document_cpu_seconds,
        seconds=limits.document_seconds,
    )


def _access(settings: Settings, keys: SqlKeyStore, stack: AsyncExitStack) -> Access:
    access = Access(keys, admin_key=_secret(settings.admin_key), required=settings.authentication)
    stack.push_async_callback(access.flush)
    return access


def _show_size(gauge: Gauge, counted: Sized) -> None:
    gauge.set_function(lambda: {(): len(counted)})


def _policy(settings: Settings) -> Policy:
    return Policy(
        limits=settings.limits,
        retention_seconds=int(settings.retention_days * 86400),
        id_prefix=settings.response_id_prefix,
        raw_reasoning=settings.reasoning_events == "text",
        estimates_usage=settings.estimate_usage,
        vision_model=settings.vision_model,
    )


def _serve(
    settings: Settings,
    ports: Ports,
    access: Access,
    files: FilesAndIngestion,
    containers: Containers | None,
    stack: AsyncExitStack,
) -> Served:
    """The use cases and background work."""
    metrics = ports.metrics
    runs = Runs(settings.limits.concurrent_responses)
    _show_size(metrics.running, runs)
    stack.push_async_callback(runs.aclose)
    heartbeats = Heartbeats(settings.heartbeat_seconds)
    _show_size(metrics.streams, heartbeats)
    _start_background(runs, ports, access, heartbeats, settings)
    if files is not None:
        file_services.start(runs, *files)
    background = _background_runs(runs, ports, settings, stack)
    service = Responses(ports, runs, background, alone=_alone(settings))
    services = Services(
        responses=service,
        counting=Counting(ports),
        conversations=Conversations(ports),
        access=access,
        router=ports.router,
        metrics=metrics,
        catalog=ports.catalog,
        store=ports.store,
        heartbeat_seconds=heartbeats.longest,
        done_marker=settings.done_marker,
        body_bytes=settings.limits.body_bytes,
        lenient_user_agents=settings.lenient_user_agents,
        files=files[0] if files else None,
        containers=containers,
    )
    endpoint = websocket.Services(service, access, runs, metrics, heartbeats, _endpoint_policy(settings))
    return _served(settings, services, endpoint, Drain(runs, background, settings.drain_seconds).begin)


def _served(settings: Settings, services: Services, endpoint: websocket.Services, drain: Callable[[], None]) -> Served:
    create = CreateResponse(
        endpoint.responses, endpoint.access, endpoint.runs, endpoint.metrics, endpoint.heartbeats, endpoint.policy
    )
    if not settings.websockets:
        return create, None, services, drain
    websockets = WebSockets(endpoint, settings.connections.websocket_seconds, drain)
    return create, websockets, services, websockets.drain


def _endpoint_policy(settings: Settings) -> EndpointPolicy:
    continuation = Continuation(settings.on_disconnect == "continue", settings.resumable_streams)
    return EndpointPolicy(settings.limits.body_bytes, settings.done_marker, settings.lenient_user_agents, continuation)


def _background_runs(runs: Runs, ports: Ports, settings: Settings, stack: AsyncExitStack) -> BackgroundRuns:
    capacity = Capacity(settings.limits.background_responses, settings.limits.background_queue)
    background = BackgroundRuns(ports, runs, partial(stored_run, ports), capacity, alone=_alone(settings))
    _show_size(ports.metrics.background, background)
    stack.push_async_callback(background.aclose)
    background.start()
    if not _alone(settings):
        runs.every(LOOK_SECONDS, WantedStreams(runs, ports.log, background.recorder).look)
    return background


async def _router(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> Router:
    routes = await upstreams.connect(settings)
    for route in routes:
        stack.push_async_callback(route.provider.aclose)
    router = Router(routes, settings.aliases, metrics.upstream_failed)
    metrics.is_listed = router.lists
    return router


def _fetcher(settings: Settings, stack: AsyncExitStack, *, robots: bool) -> GuardedFetcher:
    fetcher = GuardedFetcher(allow=settings.fetch_allow, robots=robots)
    stack.push_async_callback(fetcher.aclose)
    return fetcher


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def _tools(settings: Settings, files: Files | None, stack: AsyncExitStack) -> Mapping[str, Tool | Missing]:
    services = ToolServices(
        settings=settings, fetcher=_fetcher(settings, stack, robots=settings.fetch_robots), files=files
    )
    return {spec.type: spec.build(services) for spec in _tool_specs()}


def _tool_specs() -> Sequence[ToolSpec]:
    return list(discovery.constants("app.tools", "TOOL", ToolSpec).values())


def _catalog(settings: Settings, built: Mapping[str, Tool | Missing], stack: AsyncExitStack) -> Catalog:
    prices = call_prices()
    native = {
        tool: Price(amount, prices.currency, f"the vendor's list, {prices.as_of}")
        for tool, amount in prices.per_call.items()
    }
    catalog = Catalog(_tool_specs(), built, settings.tools, native)
    stack.push_async_callback(catalog.aclose)
    return catalog


def _watch_database(database: Database, metrics: Metrics, settings: Settings) -> None:
    def connections() -> Mapping[tuple[str, ...], float]:
        used, idle = database.connections
        return {("used",): used, ("idle",): idle}

    metrics.connections.set_function(connections)
    metrics.pool_size.set_function(lambda: {(): settings.database_pool_size})


def _store(settings: Settings, database: Database, metrics: Metrics, stack: AsyncExitStack) -> ResponseStore:
    grace = max((int(upstream.timeouts.total) for upstream in upstreams.configured(settings)), default=0)
    store = SqlResponseStore(database, retention_seconds=int(settings.retention_days * 86400), grace_seconds=grace)
    if settings.redis_url is None:
        return store
    from app.stores.redis import RedisCachedStore  # noqa: PLC0415 - costs memory only where it is used

    cached = RedisCachedStore(store, settings.redis_url.get_secret_value(), connections=settings.redis_pool_size)
    stack.push_async_callback(cached.aclose)
    metrics.cache_failures.set_function(lambda: {(): cached.failures})
    return cached


def _conversations(settings: Settings, database: Database) -> SqlConversationStore:
    days = settings.conversation_days
    lifetime = None if days is None else int(days * 86400)
    return SqlConversationStore(database, most_items=settings.limits.conversation_items, lifetime_seconds=lifetime)


def _alone(settings: Settings) -> bool:
    """Whether no other process uses the same store."""
    return settings.workers == 1 and settings.database_url.startswith("sqlite")


def _event_log(settings: Settings, database: Database, metrics: Metrics, stack: AsyncExitStack) -> EventLog:
    log: EventLog
    if settings.redis_url is not None and settings.event_log != "database":
        from app.eventlog.redis import RedisEventLog  # noqa: PLC0415 - costs memory only where it is used

        url, connections = settings.redis_url.get_secret_value(), settings.redis_pool_size
        log = RedisEventLog(url, connections=connections, lease_seconds=_LOG_SECONDS, ended_seconds=_ENDED_SECONDS)
    else:
        from app.eventlog.sql import SqlEventLog  # noqa: PLC0415 - costs memory only where it is used

        log = SqlEventLog(database, lease_seconds=_LOG_SECONDS, lifetime_seconds=_LOG_SECONDS)
    stack.push_async_callback(log.aclose)
    return MeasuredEventLog(log, metrics.logged)


def _start_background(runs: Runs, ports: Ports, access: Access, heartbeats: Heartbeats, settings: Settings) -> None:
    expired = 0
    ports.metrics.expired.set_function(lambda: {(): expired})

    async def purge() -> None:
        nonlocal expired
        while removed := await ports.store.purge(int(time.time()), _PURGE_BATCH):
            ports.metrics.purged(removed)
            await asyncio.sleep(_PURGE_PAUSE)
        while await ports.conversations.purge(int(time.time()), _PURGE_BATCH):  # noqa: ASYNC110 - nobody would set an event
            await asyncio.sleep(_PURGE_PAUSE)
        expired = await ports.store.count_expired(int(time.time()))

    async def sample() -> None:
        ports.metrics.registry.sample()

    runs.every(min(_PURGE_SECONDS, max(1.0, ports.policy.retention_seconds)), purge)
    runs.every(BEAT_SECONDS, ports.locks.renew)
    runs.every(_USAGE_SECONDS, access.flush)
    runs.every(_MODELS_SECONDS, ports.router.refresh)
    if settings.workers > 1:
        ports.metrics.registry.sample()
        runs.every(_SAMPLE_SECONDS, sample)
    runs.every(heartbeats.pause, heartbeats.look)
