"""Two gateways on one database."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from pathlib import Path

from tests.support.gateway import Gateway, running_gateway
from tests.support.services import Postgres
from tests.support.upstream import ScriptedUpstream

Replicas = tuple[Gateway, Gateway]
_names = count()


def database(postgres: Postgres) -> str:
    """The URL of a new database."""
    name = f"background{next(_names)}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE gateway_template")
    return postgres.url(name)


def started(stack: ExitStack, directory: Path, upstream: ScriptedUpstream, **settings: str) -> Replicas:
    """Two gateways with these settings."""
    found: list[Gateway] = []
    for place in ("here", "there"):
        (directory / place).mkdir()
        found.append(stack.enter_context(running_gateway(directory / place, upstream.url, **settings)))
    return found[0], found[1]
