"""The databases of the gateway `postgres`: real servers, the same as in the tests."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import processes
from tests.support.services import Postgres, Valkey


@dataclass(frozen=True)
class Databases:
    """A running PostgreSQL and a running Valkey, and the processes to watch."""

    url: str
    redis_url: str
    pids: tuple[int, ...]


@contextmanager
def started() -> Generator[Databases, None, None]:
    """Empty ones, for the lifetime of the context."""
    others = set(processes.children(os.getpid()))
    postgres, valkey = Postgres(), Valkey()
    try:
        postgres.start()
        valkey.start()
        pids = tuple(set(processes.children(os.getpid())) - others)
        yield Databases(postgres.url(), valkey.url, pids)
    finally:
        valkey.stop()
        postgres.stop()
