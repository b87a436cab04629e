"""A database that is away, and one that cannot be written: what clients, load balancers and the log are told."""

from __future__ import annotations

import asyncio
import re
import resource
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from app.db.migrate import upgrade_apart
from tests.e2e.streams import MODEL
from tests.support.gateway import Gateway, running_gateway
from tests.support.services import Postgres
from tests.support.upstream import ScriptedUpstream

ASKED = {"model": MODEL, "input": "Hi"}


@pytest.fixture
def server() -> Generator[Postgres]:
    """A Postgres of this test's own, to be mistreated."""
    with Postgres() as running:
        upgrade_apart(running.url())
        yield running


@pytest.fixture
async def patient(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncGenerator[tuple[Gateway, httpx.AsyncClient]]:
    """A gateway on SQLite of this test's own, which has answered once."""
    with running_gateway(tmp_path, upstream.url) as gateway:
        async with gateway.http() as http:
            assert (await http.post("/v1/responses", json=ASKED)).status_code == 200
            yield gateway, http


def _refused(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (
        503,
        "store_unavailable",
        "1",
    )


async def _ready(http: httpx.AsyncClient, *, wanted: int) -> httpx.Response:
    """What `/readyz` says, once it says that or has had its time: an outcome is remembered for a second."""
    answer = await http.get("/readyz")
    for _ in range(100):
        if answer.status_code == wanted:
            break
        await asyncio.sleep(0.1)
        answer = await http.get("/readyz")
    return answer


async def test_a_database_that_is_down_is_a_503_everywhere_and_a_line_in_the_log(
    server: Postgres, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with running_gateway(tmp_path, upstream.url, database_url=server.url()) as gateway:
        async with gateway.http() as http:
            made = (await http.post("/v1/responses", json=ASKED)).json()["id"]
            await http.get(f"/v1/responses/{made}")
            server.crash()
            asked = len(upstream.requests)
            start = gateway.log_file.stat().st_size
            for _ in range(5):
                assert _refused(await http.post("/v1/responses", json=ASKED | {"stream": True}))
                assert _refused(await http.post("/v1/responses", json=ASKED))
                assert _refused(await http.get(f"/v1/responses/{made}"))
                assert _refused(await http.get(f"/v1/responses/{made}/input_items"))
                assert _refused(await http.delete(f"/v1/responses/{made}"))
            assert len(upstream.requests) == asked  # nobody paid for an answer that could not be kept
            assert (await http.post("/v1/responses", json=ASKED | {"store": False, "stream": True})).status_code == 200
            assert (await _ready(http, wanted=503)).json()["status"] == "unavailable"
            log = await gateway.logged("code=store_unavailable", start, times=25)

            server.start()
            assert (await _ready(http, wanted=200)).status_code == 200
            assert (await http.get(f"/v1/responses/{made}")).status_code == 200
            assert (await http.post("/v1/responses", json=ASKED)).status_code == 200

    told = [line for line in log.splitlines() if " app.request " not in line]
    assert "Traceback" not in log
    assert 1 <= len(told) <= 6, log
    requests = [line for line in log.splitlines() if " app.request " in line]
    assert len(requests) >= 25
    assert len([line for line in requests if "code=store_unavailable" in line]) >= 25


@contextmanager
def _locked(gateway: Gateway) -> Generator[None]:
    connection = sqlite3.connect(_file(gateway), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.close()


@contextmanager
def _full(gateway: Gateway) -> Generator[None]:
    before = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    yield
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def _gone(gateway: Gateway) -> Generator[None]:
    elsewhere = _file(gateway).rename(_file(gateway).with_suffix(".moved"))
    yield
    elsewhere.rename(_file(gateway))


def _file(gateway: Gateway) -> Path:
    return gateway.log_file.parent / "gateway.db"


@pytest.mark.parametrize("broken", [_locked, _full, _gone])
async def test_what_cannot_be_written_is_not_ready(
    patient: tuple[Gateway, httpx.AsyncClient], broken: Callable[[Gateway], AbstractContextManager[None]]
) -> None:
    gateway, http = patient
    assert (await http.get("/readyz")).status_code == 200
    with broken(gateway):
        answer = await _ready(http, wanted=503)
        assert _refused(answer)
        assert answer.json()["status"] == "unavailable"
    assert (await _ready(http, wanted=200)).json()["status"] == "ready"
    assert (await http.post("/v1/responses", json=ASKED)).status_code == 200


async def test_an_answer_that_could_not_be_kept_is_a_503(
    patient: tuple[Gateway, httpx.AsyncClient], upstream: ScriptedUpstream
) -> None:
    gateway, http = patient
    assert (await http.get("/readyz")).status_code == 200  # what is remembered of it must not hide what comes
    with _full(gateway):
        assert _refused(await http.post("/v1/responses", json=ASKED))
        asked = len(upstream.requests)
        assert _refused(await http.post("/v1/responses", json=ASKED | {"stream": True}))
        assert _refused(await http.post("/v1/responses", json=ASKED))
    assert len(upstream.requests) == asked
    assert (await _ready(http, wanted=200)).status_code == 200
    assert (await http.post("/v1/responses", json=ASKED)).status_code == 200


async def test_a_read_only_server_is_not_ready(server: Postgres, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream.url, database_url=server.url()) as gateway:
        async with gateway.http() as http:
            assert (await http.get("/readyz")).status_code == 200
            server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            server.execute("SELECT pg_reload_conf()")
            assert _refused(await _ready(http, wanted=503))


async def test_a_burst_waits_for_a_connection(server: Postgres, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Also where the server has fewer connections than the pool would like."""
    server.execute("ALTER ROLE postgres CONNECTION LIMIT -1")
    server.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 3")
    server.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO few")
    url = server.url().replace("postgres@", "few@")
    with running_gateway(tmp_path, upstream.url, database_url=url, database_pool_size="20") as gateway:
        async with gateway.http() as http:
            made = (await http.post("/v1/responses", json=ASKED)).json()["id"]
            answers = await asyncio.gather(*(http.get(f"/v1/responses/{made}/input_items") for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200}


async def test_readiness_shows_the_upstreams_and_ends_with_the_signal_to_stop(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with running_gateway(tmp_path, upstream.url, drain_delay_seconds="30") as gateway:
        async with gateway.http() as http:
            ready = (await http.get("/readyz")).json()
            gateway.process.terminate()
            draining = await _ready(http, wanted=503)
            served = await http.post("/v1/responses", json=ASKED)
            gateway.process.terminate()  # the second one is not delayed
        gateway.process.wait(20)
    assert ready == {"status": "ready", "upstreams": [{"name": "default", "status": "ok", "models": 1}]}
    assert draining.json()["error"]["code"] == "server_is_stopping"
    assert served.status_code == 200


async def test_readiness_shows_an_upstream_that_fails(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, "http://127.0.0.1:1/v1", upstream_timeouts__connect="1") as gateway:
        async with gateway.http() as http:
            assert (await http.post("/v1/responses", json=ASKED)).status_code == 503
            answer = await http.get("/readyz")
        line = r" 503 .* upstream=default .* code=upstream_unreachable "
        assert re.search(line, await gateway.logged(line))
    assert answer.status_code == 200
    assert [(one["status"], one["code"]) for one in answer.json()["upstreams"]] == [("failing", "upstream_unreachable")]
    assert not upstream.requests
