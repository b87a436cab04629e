"""The `serve` command: migrate an embedded database, create the first key, run the server."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from app import sockets, upstreams
from app.administration import create_first
from app.api.gateway import Gateway, example_of
from app.connections import limits
from app.db import migrate
from app.db.engine import Database
from app.db.location import database_file, obstacle
from app.db.sqlite import make_private
from app.db.tables import REVISION
from app.db.writer import DatabaseUnavailable
from app.main import create_app
from app.offload import confinement
from app.settings import ConfigurationError, Settings, load
from app.telemetry import log
from app.telemetry.table import DIRECTORY_VARIABLE
from app.tools.sandbox.shared import DIRECTORY_VARIABLE as SANDBOX_DIRECTORY_VARIABLE

_log = logging.getLogger(__name__)
_ENDING_SECONDS = 15
"""After the drain: for terminal events to be stored and sent."""


def serve(settings: Settings) -> int:
    """Serve until told to stop."""
    log.configure(settings.log_level, settings.log_format)
    upstreams.check(settings)
    _warn(settings)
    sockets.make_room(settings.connections.open)
    listener = _bind(settings.host, settings.port)
    sockets.bound(listener.fileno())
    _prepare(settings)
    app = None if settings.workers > 1 else create_app(settings)
    config = _config(settings, app)
    if app is None:
        from app.worker_processes import Parent  # noqa: PLC0415 - one worker needs no parent

        secret = asyncio.run(_first_key(settings))
        _announce(listener, secret, example_of(asyncio.run(_listed(settings)) if secret else ()))
        with tempfile.TemporaryDirectory(prefix="responses-gateway-") as directory:
            os.environ[DIRECTORY_VARIABLE] = directory  # the workers' counts: a scrape shows their sum
            # and their sandboxes: a container is there for all of them
            os.environ[SANDBOX_DIRECTORY_VARIABLE] = directory
            Parent(config, [listener]).run()
        _ignore_further_signals()
        return 0
    server = _Server(config, app, settings)
    signal.signal(signal.SIGTERM, server.handle_late_exit)
    server.run(sockets=[listener])
    _ignore_further_signals()
    return 0 if server.started else 1


def _ignore_further_signals() -> None:
    """The interpreter, when it ends, would give them their default effect, and the process the exit status of one that
    was killed.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _warn(settings: Settings) -> None:
    if not settings.authentication:
        _log.warning(
            "authentication is off: everyone who can reach %s:%s may use every model, file and container",
            settings.host,
            settings.port,
        )
    for missing in confinement.lacking():
        _log.warning("documents are read with limits of time and memory only: this machine has no %s", missing)


def _config(settings: Settings, app: Gateway | None) -> uvicorn.Config:
    """`app` None: each of several workers creates the application."""
    return uvicorn.Config(
        app or "app.serving:worker",
        factory=app is None,
        workers=settings.workers,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=limits.protocol(settings.connections),
        ws="none",  # app/connections decides what becomes a WebSocket
        ws_max_size=settings.connections.websocket_message_bytes,
        ws_ping_interval=settings.connections.websocket_ping_seconds,
        ws_ping_timeout=settings.connections.unread_seconds,
        ws_per_message_deflate=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.connections.idle_seconds,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + _ENDING_SECONDS,
    )


class _Server(uvicorn.Server):
    """Announces its address once it listens: only then are the models known, and only then is a first key useful."""

    def __init__(self, config: uvicorn.Config, app: Gateway, settings: Settings) -> None:
        super().__init__(config)
        self._gateway = app
        self._settings = settings

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop. The signal is not raised again afterwards, as the server would: a drained process has ended well."""
        self.should_exit = True

    def handle_late_exit(self, sig: int, frame: FrameType | None) -> None:
        """Before the server has its handlers the signal ends the process.

        A second one after they are removed changes nothing.
        """
        if not self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce."""
        await super().startup(sockets)
        if self.started and sockets:
            _drain_on_signal(self._gateway, self._settings.drain_delay_seconds)
            secret = await _first_key(self._settings)
            _announce(sockets[0], secret, self._gateway.example_model)


def worker() -> ASGIApp:
    """The application in one of several worker processes.

    Called with the loop running and the server's signal handlers installed.
    """
    settings = load()
    log.configure(settings.log_level, settings.log_format)
    app = create_app(settings)
    _drain_on_signal(app, settings.drain_delay_seconds)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the parent, too, which stops the workers
    return app


def _drain_on_signal(app: Gateway, delay: float) -> None:
    """Run before the server's own handlers: report not ready and begin to drain at once, and begin to stop after
    `delay` seconds.

    A second signal is not delayed, and ends the drain. The end of a terminal does not stop a server.
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
        loop.call_soon_threadsafe(app.drain)

    handlers = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _bind(host: str, port: int) -> socket.socket:
    """Bind the port before anything is created: of two gateways in one directory, the second one leaves no files."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"host, port: cannot listen on {host} port {port}: {error.strerror or error}; "
            "stop what listens there, or set GATEWAY_HOST and GATEWAY_PORT"
        ) from error
    listener.set_inheritable(True)
    return listener


def _prepare(settings: Settings) -> None:
    """Migrate an embedded database. Raises ConfigurationError."""
    try:
        file = database_file(settings.database_url)
        obstructed = file and obstacle(file)
        if obstructed:
            raise ConfigurationError(
                f"database_url: {obstructed}; change that, or set GATEWAY_DATABASE_URL to a file elsewhere"
            )
        if asyncio.run(_revision(settings)) != REVISION:
            if file is None:
                raise ConfigurationError("database_url: the schema is not current; run `responses-gateway migrate`")
            migrate.upgrade_apart(settings.database_url)
    except ValueError as error:
        raise ConfigurationError(f"database_url: {error}") from error
    except migrate.MigrationFailed as error:
        raise ConfigurationError(f"database_url: the database cannot be migrated: {error}") from error
    except (DatabaseUnavailable, OSError) as error:
        raise ConfigurationError(f"database_url: the database cannot be reached: {error}") from error


async def _revision(settings: Settings) -> str | None:
    database = Database(settings.database_url)
    try:
        revision = await database.revision()
    finally:
        await database.aclose()
    if database.embedded and revision is not None:
        make_private(str(database.url.database))
    migrate.refuse_newer(revision)
    return revision


async def _first_key(settings: Settings) -> str | None:
    if not settings.authentication or settings.admin_key is not None:
        return None
    try:
        return await create_first(settings)
    except ConfigurationError as error:
        _log.warning("the first API key could not be created (%s); run `responses-gateway keys create`", error)
        return None


async def _listed(settings: Settings) -> Sequence[str]:
    """The models of the upstreams; the workers fetch their own lists after they start."""
    routes = await upstreams.connect(settings)
    for route in routes:
        await route.provider.aclose()
    return [model.id for route in routes for model in route.models]


def _announce(listener: socket.socket, secret: str | None, model: str) -> None:
    host, port, *_ = listener.getsockname()
    base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    if secret is None:
        print(f"Serving {base_url}", file=sys.stderr, flush=True)
        return
    print(
        f"""
A first API key was created. It is shown only once; only its hash is stored.

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
