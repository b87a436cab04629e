"""The `serve` command: migrate an embedded database, make the first key, run the server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from app import upstreams
from app.administration import key_store
from app.api.gateway import Gateway
from app.db import migrate
from app.db.engine import Database
from app.db.tables import REVISION
from app.db.writer import DatabaseUnavailable
from app.engine.access import create_key
from app.main import create_app
from app.settings import ConfigurationError, Settings, load
from app.telemetry import log
from app.telemetry.table import DIRECTORY_VARIABLE

_DRAIN_SECONDS = 20
_USUAL_MODEL = "qwen3.7-plus"


def serve(settings: Settings) -> int:
    """Serve until told to stop."""
    log.configure(settings.log_level, settings.log_format)
    upstreams.check(settings)
    try:
        secret = asyncio.run(_prepare(settings))
    except migrate.MigrationFailed as error:
        raise ConfigurationError(f"database_url: the database cannot be migrated: {error}") from error
    except (DatabaseUnavailable, OSError) as error:
        raise ConfigurationError(f"database_url: the database cannot be reached: {error}") from error
    several = settings.workers > 1
    app = None if several else create_app(settings)
    config = uvicorn.Config(
        app or "app.serving:worker",
        factory=several,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    if app is None:
        from uvicorn.supervisors import Multiprocess  # noqa: PLC0415 - one worker needs no supervisor

        _announce(settings.host, settings.port, secret, _USUAL_MODEL)
        with tempfile.TemporaryDirectory(prefix="responses-gateway-") as directory:
            os.environ[DIRECTORY_VARIABLE] = directory  # the workers' counts: a scrape shows their sum
            Multiprocess(config, sockets=[config.bind_socket()]).run()
        return 0
    server = _Server(config, app, settings.drain_delay_seconds, secret)
    server.run()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Says where it listens once it does: only then are the port and the models known."""

    def __init__(self, config: uvicorn.Config, app: Gateway, drain_delay: float, secret: str | None) -> None:
        super().__init__(config)
        self._gateway = app
        self._drain_delay = drain_delay
        self._secret = secret

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce."""
        await super().startup(sockets)
        if self.started:
            _drain_on_signal(self._gateway, self._drain_delay)
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            models = self._gateway.models
            _announce(host, port, self._secret, models[0] if models and _USUAL_MODEL not in models else _USUAL_MODEL)


def worker() -> ASGIApp:
    """Called with the loop running, and the server's signal handlers installed: the application in one of several worker processes."""
    settings = load()
    log.configure(settings.log_level, settings.log_format)
    app = create_app(settings)
    _drain_on_signal(app, settings.drain_delay_seconds)
    return app


def _drain_on_signal(app: Gateway, delay: float) -> None:
    """Go before the server's own handlers: say at once that no more requests are wanted, and begin to stop after `delay` seconds.

    A second signal is not delayed.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        before = handlers[signal.Signals(number)]
        if not callable(before):
            return
        if delay and not app.draining:
            loop.call_soon_threadsafe(loop.call_later, delay, before, number, frame)
        else:
            before(number, frame)
        app.draining = True

    handlers = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}


async def _prepare(settings: Settings) -> str | None:
    """Bring an embedded database up to date; the secret of the first key, when it was just made."""
    database = Database(settings.database_url)
    try:
        revision = await database.revision()
    finally:
        await database.aclose()
    migrate.refuse_newer(revision)
    if revision != REVISION:
        if not database.embedded:
            raise ConfigurationError("database_url: the schema is not current; run `responses-gateway migrate`")
        migrate.upgrade_apart(settings.database_url)
    if not settings.authentication or settings.admin_key is not None:
        return None
    async with key_store(settings) as keys:
        if await keys.list():
            return None
        return (await create_key(keys, project="default", name="first key")).secret


def _announce(host: str, port: int, secret: str | None, model: str) -> None:
    base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    if secret is None:
        print(f"Serving {base_url}", file=sys.stderr, flush=True)
        return
    print(
        f"""
A first API key was made. It is shown this once; only its hash is stored.

  key       {secret}
  base URL  {base_url}

Try it:

  curl {base_url}/responses \\
    -H "Authorization: Bearer {secret}" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", "input": "Hello!"}}'

`curl {base_url}/models -H "Authorization: Bearer {secret}"` lists the models.
""",
        file=sys.stderr,
        flush=True,
    )
