"""A response lives as long as the setting says; then it is gone, down to its bytes, and no living conversation is
shorter for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.e2e.streams import MODEL, Json, sent
from tests.support.gateway import Gateway, running_gateway
from tests.support.services import Valkey
from tests.support.upstream import ScriptedUpstream

TWO_SECONDS = "0.000024"
"""In days."""
SECRET = "the-marker-to-look-for"


async def test_an_expired_ancestor_is_still_known_and_then_no_byte_is_left(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    # An expired record is kept, unseen, for as long as an answer that continues it may take.
    brief = {"base_url": upstream.url, "dialect": "vllm", "timeouts": {"total": 1}}
    with running_gateway(tmp_path, "", upstreams=json.dumps([brief]), retention_days=TWO_SECONDS) as gateway:
        async with gateway.http() as http:
            made = [await _create(http, input=SECRET)]
            assert _files_with(SECRET, tmp_path)
            async with asyncio.timeout(20):
                while await _metric(http, "gateway_purged_responses_total") == 0 or await _is_there(http, made[0]):
                    made.append(await _create(http, input="and?", previous_response_id=made[-1]))
                    await asyncio.sleep(0.3)
            await _create(http, input="still?", previous_response_id=made[-1])

            assert [message["content"] for message in sent(upstream)] == [
                SECRET,
                *["Hello there.", "and?"] * (len(made) - 1),
                *["Hello there.", "still?"],
            ]
            assert (await http.delete(f"/v1/responses/{made[0]}")).status_code == 404
            refused = await http.post(
                "/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": made[0]}
            )
            assert refused.json()["error"] == {
                "message": f"Previous response with id '{made[0]}' not found.",
                "type": "invalid_request_error",
                "param": "previous_response_id",
                "code": "previous_response_not_found",
            }
            await _until_purged(http, len(made) + 1)

    assert _files_with(SECRET, tmp_path) == []


@pytest.fixture
def short_lived(upstream: ScriptedUpstream, shared_database: str, valkey: Valkey, tmp_path: Path) -> Generator[Gateway]:
    """On Postgres and a Redis database of its own."""
    with running_gateway(
        tmp_path, upstream.url, database_url=shared_database, redis_url=_redis_url(valkey), retention_days=TWO_SECONDS
    ) as running:
        yield running


async def test_what_redis_holds_expires_with_the_response(short_lived: Gateway, valkey: Valkey) -> None:
    async with short_lived.http() as http:
        made = await _create(http, input=SECRET)
        with closing(_connect(valkey)) as cache:
            (key,) = cache.scan_iter()
            assert 0 < cache.ttl(key) <= 2
            async with asyncio.timeout(10):
                while await _is_there(http, made):  # noqa: ASYNC110 - it happens in another process
                    await asyncio.sleep(0.1)
            async with asyncio.timeout(10):
                while cache.dbsize():  # noqa: ASYNC110 - it happens in another process
                    await asyncio.sleep(0.1)


def _files_with(text: str, directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if text.encode() in path.read_bytes()]


def _connect(valkey: Valkey) -> Any:
    return redis.Redis.from_url(_redis_url(valkey))  # pyright: ignore[reportUnknownMemberType] - its options are not annotated


def _redis_url(valkey: Valkey) -> str:
    return f"redis://127.0.0.1:{valkey.port}/999"


async def _create(http: httpx.AsyncClient, **request: str) -> str:
    answer = await http.post("/v1/responses", json={"model": MODEL, **request})
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return str(body["id"])


async def _is_there(http: httpx.AsyncClient, response_id: str) -> bool:
    return (await http.get(f"/v1/responses/{response_id}")).status_code == 200


async def _until_purged(http: httpx.AsyncClient, count: int) -> None:
    async with asyncio.timeout(20):
        while await _metric(http, "gateway_purged_responses_total") < count:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.1)


async def _metric(http: httpx.AsyncClient, name: str) -> float:
    text = (await http.get("/metrics")).text
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))
