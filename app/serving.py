"""The `serve` command: migrate an embedded database, make the first key, run the server."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

import uvicorn
from starlette.types import ASGIApp

from app import connections, upstreams
from app.administration import key_store
from app.api.gateway import Gateway
from app.db import migrate
from app.db.engine import Database
from app.db.sqlite import make_private
from app.db.tables import REVISION
from app.db.writer import DatabaseUnavailable
from app.engine.access import create_key
from app.main import create_app
from app.offload import confinement
from app.settings import ConfigurationError, Settings, load

_log = logging.getLogger(__name__)
_DRAIN_SECONDS = 20
_USUAL_MODEL = "qwen3.7-plus"


def serve(settings: Settings) -> int:
    """Serve until told to stop."""
    _configure_logging(settings.log_level)
    upstreams.check(settings)
    if not settings.authentication:
        _log.warning(
            "authentication is off: whoever reaches %s:%s may use every model, file and container here", settings.host, settings.port
        )
    for missing in confinement.lacking():
        _log.warning("documents are read with limits of time and memory only: this machine has no %s", missing)
    try:
        secret = asyncio.run(_prepare(settings))
    except migrate.MigrationFailed as error:
        raise ConfigurationError(f"database_url: the database cannot be migrated: {error}") from error
    except (DatabaseUnavailable, OSError) as error:
        raise ConfigurationError(f"database_url: the database cannot be reached: {error}") from error
    connections.make_room(settings.connections.open)
    app = None if settings.workers > 1 else create_app(settings)
    config = _config(settings, app)
    if app is None:
        from uvicorn.supervisors import Multiprocess  # noqa: PLC0415 - one worker needs no supervisor

        _announce(settings.host, settings.port, secret, _USUAL_MODEL)
        listener = config.bind_socket()
        connections.bound(listener.fileno())
        Multiprocess(config, sockets=[listener]).run()
        return 0
    server = _Server(config, app, secret)
    server.run()
    return 0 if server.started else 1


def _config(settings: Settings, app: Gateway | None) -> uvicorn.Config:
    """None: the application is made in each of several workers."""
    return uvicorn.Config(
        app or "app.serving:worker",
        factory=app is None,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=connections.protocol(settings.connections),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.connections.idle_seconds,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


class _Server(uvicorn.Server):
    """Says where it listens once it does: only then are the port and the models known."""

    def __init__(self, config: uvicorn.Config, app: Gateway, secret: str | None) -> None:
        super().__init__(config)
        self._gateway = app
        self._secret = secret

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce."""
        await super().startup(sockets)
        if self.started:
            for listener in self.servers[0].sockets:
                connections.bound(listener.fileno())
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            models = self._gateway.models
            _announce(host, port, self._secret, models[0] if models and _USUAL_MODEL not in models else _USUAL_MODEL)


def worker() -> ASGIApp:
    """The application in one of several worker processes."""
    settings = load()
    _configure_logging(settings.log_level)
    return create_app(settings)


async def _prepare(settings: Settings) -> str | None:
    """Bring an embedded database up to date; the secret of the first key, when it was just made."""
    database = Database(settings.database_url)
    try:
        revision = await database.revision()
    finally:
        await database.aclose()
    if database.embedded and revision is not None:
        make_private(str(database.url.database))
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


def _configure_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the address of every call of the sandbox
    logging.getLogger("uvicorn.error").setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
