"""Every log, and those of one kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from app.db.engine import Database
from app.eventlog.base import EventLog
from app.eventlog.redis import RedisEventLog
from app.eventlog.sql import SqlEventLog


@pytest.fixture
async def redis_log(redis_url: str) -> AsyncGenerator[RedisEventLog]:
    """A log in Redis, empty."""
    log = RedisEventLog(redis_url)
    yield log
    await log.aclose()


@pytest.fixture
def sql_log(database: Database) -> SqlEventLog:
    """A log in each database in turn, empty."""
    return SqlEventLog(database, poll_seconds=0.01)


@pytest.fixture(params=["sqlite", "postgresql", "valkey"])
async def log(request: pytest.FixtureRequest) -> AsyncGenerator[EventLog]:
    """Each log in turn, empty."""
    match request.param:
        case "valkey":
            redis = RedisEventLog(request.getfixturevalue("redis_url"))
            yield redis
            await redis.aclose()
        case engine:
            database = Database(request.getfixturevalue("sqlite_url" if engine == "sqlite" else "postgres_url"))
            yield SqlEventLog(database, poll_seconds=0.01)
            await database.aclose()
