"""The `doctor` command: what is wrong with this installation, and how to fix it."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec

from app import __version__, upstreams
from app.db.engine import Database
from app.db.location import database_file, obstacle
from app.db.migrate import SchemaTooNew, refuse_newer
from app.db.tables import REVISION
from app.db.writer import DatabaseUnavailable
from app.documents import reading
from app.documents.base import UnreadableDocument
from app.offload import confinement
from app.providers.base import UpstreamError
from app.settings import ConfigurationError, Settings, Upstream
from app.tools.ports.tool import Missing

_LEAST_SQLITE = (3, 35)
_MOST_SKEW = 60


class Finding(msgspec.Struct, frozen=True):
    """The result of one check."""

    subject: str
    ok: bool
    message: str
    """What was found; if it is not ok, also how to fix it."""


async def examine(settings: Settings) -> Sequence[Finding]:
    """Run all checks; changes nothing."""
    findings = [_versions()]
    findings.append(await _database(settings))
    findings.append(_files(settings))
    if settings.redis_url is not None:
        findings.append(await _redis(settings.redis_url.get_secret_value()))
    findings.append(await _documents())
    findings += [finding async for finding in _upstreams(settings)]
    findings.append(await _sandbox(settings))
    return findings


def _versions() -> Finding:
    python = ".".join(map(str, sys.version_info[:3]))
    ok = sqlite3.sqlite_version_info >= _LEAST_SQLITE
    cure = "" if ok else "; SQLite 3.35 or newer is required: use a newer Python"
    return Finding("versions", ok, f"gateway {__version__}, Python {python}, SQLite {sqlite3.sqlite_version}{cure}")


async def _database(settings: Settings) -> Finding:
    try:
        database = Database(settings.database_url)
    except ValueError as error:
        return Finding("database", ok=False, message=f"{error}; set GATEWAY_DATABASE_URL")
    file = database_file(settings.database_url)
    obstructed = file and obstacle(file)
    if obstructed:
        return Finding(
            "database", ok=False, message=f"{obstructed}: change that, or set GATEWAY_DATABASE_URL to a file elsewhere"
        )
    try:
        revision = await database.revision()
    except DatabaseUnavailable as error:
        cure = f"is {file} a database of this gateway?" if file else "is it running, and is GATEWAY_DATABASE_URL right?"
        return Finding("database", ok=False, message=f"cannot be reached ({error}): {cure}")
    finally:
        await database.aclose()
    if file and not file.exists():
        return Finding("database", ok=True, message=f"not created yet: `responses-gateway serve` creates {file}")
    return _schema(database.dialect, revision, embedded=file is not None)


def _schema(dialect: str, revision: str | None, *, embedded: bool) -> Finding:
    try:
        refuse_newer(revision)
    except SchemaTooNew as error:
        return Finding("database", ok=False, message=str(error).removeprefix("database_url: "))
    if revision != REVISION:
        cure = "run `responses-gateway migrate`" + (", or start the gateway, which does it" if embedded else "")
        return Finding("database", ok=False, message=f"schema {revision or 'missing'}, {REVISION} is required: {cure}")
    return Finding("database", ok=True, message=f"{dialect}, schema {revision}")


async def _documents() -> Finding:
    """Read a document in a confined worker process, as in operation."""
    subject, missing = "documents", confinement.lacking()
    try:
        await reading.text(b"a document", filename="document.txt")
    except UnreadableDocument as error:
        return Finding(
            subject, ok=False, message=f"{error} No document can be read on this machine; report this with the log"
        )
    if missing:
        cure = ""
        if sys.platform == "linux":
            cure = "; use a kernel that supports it, and a container whose seccomp profile allows it"
        return Finding(
            subject,
            ok=not cure,
            message=f"are read with limits of time and memory only: no {', no '.join(missing)}{cure}",
        )
    return Finding(
        subject, ok=True, message="are read in processes without network, files and other processes (seccomp, Landlock)"
    )


def _files(settings: Settings) -> Finding:
    where = settings.files_dir
    if where == "off" or where.startswith("s3://"):
        return Finding("files", ok=True, message=where)
    obstructed = obstacle(Path(where) / "upload")
    if obstructed:
        return Finding(
            "files", ok=False, message=f"{obstructed}: change that, or set GATEWAY_FILES_DIR (`off` disables files)"
        )
    return Finding("files", ok=True, message=f"in {Path(where).absolute()}")


async def _redis(url: str) -> Finding:
    from redis.asyncio import Redis  # noqa: PLC0415 - only where it is configured
    from redis.exceptions import RedisError  # noqa: PLC0415 - as above

    # redis-py leaves these untyped
    client: Any = cast("Any", Redis).from_url(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        info: dict[str, Any] = await client.info("server")
    except (RedisError, OSError) as error:
        return Finding(
            "redis",
            ok=False,
            message=f"cannot be reached ({error}): responses are served from the database meanwhile; check "
            f"GATEWAY_REDIS_URL",
        )
    finally:
        await client.aclose()
    return Finding("redis", ok=True, message=f"version {info.get('valkey_version') or info.get('redis_version')}")


async def _upstreams(settings: Settings) -> AsyncGenerator[Finding]:
    chosen = upstreams.configured(settings)
    if not chosen:
        yield Finding(
            "upstream",
            ok=True,
            message="none configured: a local server is used if one is found, otherwise the demo model",
        )
    for upstream in chosen:
        yield await _upstream(upstream, settings)
        if upstream.base_url.startswith("http"):
            yield await _clock(upstream)


async def _sandbox(settings: Settings) -> Finding:
    """A local sandbox service is started, tested with attacks and stopped."""
    from app.tools.sandbox import setting  # noqa: PLC0415 - only this check needs it

    sandbox = setting.sandbox_of(settings)
    if isinstance(sandbox, Missing):
        return Finding("sandbox", ok=settings.sandbox == "off", message=sandbox.reason)
    try:
        found = await setting.confinement_in(sandbox)
    finally:
        await sandbox.aclose()
    if isinstance(found, str):
        return Finding("sandbox", ok=False, message=f"{found} Change GATEWAY_SANDBOX; `off` disables code execution")
    return Finding("sandbox", ok=True, message=f"{found.backend}: {found.summary}")


async def _upstream(upstream: Upstream, settings: Settings) -> Finding:
    subject = f"upstream {upstream.name}"
    try:
        found, models = await upstreams.locate(upstream, settings)
    except (UpstreamError, ConfigurationError) as error:
        return Finding(subject, ok=False, message=f"{upstream.base_url}: {error}; check its address and key")
    corrected = f"; set base_url to this, instead of {upstream.base_url}" if found.base_url != upstream.base_url else ""
    return Finding(subject, ok=True, message=f"{found.base_url}: {len(models)} models{corrected}")


async def _clock(upstream: Upstream) -> Finding:
    """Expiry and TLS depend on the clock, which is compared with the upstream's `Date` header."""
    subject = f"clock (against {upstream.name})"
    try:
        async with httpx.AsyncClient(timeout=5, verify=upstream.verify_tls) as client:
            answer = await client.get(upstream.base_url)
        date = answer.headers.get("date")
        skew = (
            time.time() - time.mktime(time.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")) + time.timezone if date else 0.0
        )
    except (httpx.HTTPError, ValueError) as error:
        return Finding(subject, ok=True, message=f"cannot be compared ({error})")
    if abs(skew) > _MOST_SKEW:
        return Finding(subject, ok=False, message=f"{skew:+.0f} s off: synchronise it (NTP)")
    return Finding(subject, ok=True, message="in sync" if date else "the upstream sends no date")
