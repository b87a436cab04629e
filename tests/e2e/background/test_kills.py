"""Kill -9 of the owner at every kind of event: what was seen and what is resumed elsewhere are one stream, which ends
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.background.pairs import Replicas, database, started
from tests.e2e.background.points import POINTS, STALL, Stage
from tests.e2e.background.test_background import STREAMED
from tests.e2e.streams import Frames, final, id_in, replay, split
from tests.e2e.tools.conftest import PATIENT, found
from tests.e2e.tools.stage import code_runs
from tests.support.mcp_server import McpServer, serving_mcp
from tests.support.services import Postgres, Valkey
from tests.support.site import Answer, Site, Visit, serving_site
from tests.support.upstream import ScriptedUpstream

_SECONDS = 15
"""From the death of the owner to the end of all its streams."""


@pytest.fixture(scope="module")
def site() -> Generator[Site]:
    """A search engine that stalls when it is asked to."""
    with serving_site() as site:
        site.pages["/a"] = Answer.html("<p>The tower is 321 metres high.</p>" * 3, title="Tower")
        site.pages["/search"] = lambda visit: _searched(site, visit)
        yield site


def _searched(site: Site, visit: Visit) -> Answer:
    return Answer.never() if STALL in visit.path else found(site, visit)


@pytest.fixture(scope="module")
def mcp() -> Generator[McpServer]:
    """An MCP server."""
    with serving_mcp() as server:
        yield server


@pytest.fixture(params=["redis", "postgresql"])
def equipped(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    valkey: Valkey,
    upstream_server: ScriptedUpstream,
    site: Site,
    tmp_path: Path,
) -> Generator[Replicas]:
    """Two gateways with tools, to be mistreated."""
    shared = {"redis_url": valkey.url} if request.param == "redis" else {}
    settings = PATIENT | shared | {"searxng_url": site.origin, "database_url": database(postgres), "drain_seconds": "1"}
    with ExitStack() as stack:
        yield started(stack, tmp_path, upstream_server, **settings)


class _Client:
    """The client of one stream: it reads as long as its server lives."""

    def __init__(self, http: httpx.AsyncClient, request: Mapping[str, object], event: str) -> None:
        """`event`: it is ready when it has seen this one."""
        self._http = http
        self._request = {**STREAMED, **request}
        self._event = b"event: %b\n" % event.encode()
        self.seen = b""
        self.ready = asyncio.Event()

    async def read(self) -> None:
        """Read until the server is gone."""
        try:
            async with self._http.stream("POST", "/v1/responses", json=self._request) as answer:
                frames = Frames(answer)
                while True:
                    frame = await frames.take()
                    self.seen += frame
                    if frame.startswith(self._event):
                        self.ready.set()
        except (httpx.HTTPError, StopAsyncIteration):
            self.ready.set()

    @property
    def count(self) -> int:
        """How many frames it has seen."""
        return len(split(self.seen))


async def test_at_every_kind_of_event(equipped: Replicas, upstream: ScriptedUpstream, mcp: McpServer) -> None:
    here, there = equipped
    stage = Stage(mcp)
    upstream.respond = stage.reply
    with_code = await code_runs(here)
    points = {name: point for name, point in POINTS.items() if with_code or "code" not in point.tools}
    async with here.http() as first, there.http() as second, asyncio.TaskGroup() as group:
        clients = {name: _Client(first, stage.request(name), point.event) for name, point in points.items()}
        reading = [group.create_task(client.read()) for client in clients.values()]
        async with asyncio.timeout(120):
            for client in clients.values():
                await client.ready.wait()
        early = {name: group.create_task(replay(second, id_in(client.seen))) for name, client in clients.items()}
        here.process.kill()
        await asyncio.wait(reading)
        async with asyncio.timeout(_SECONDS):
            late = {name: await _resumed(second, client) for name, client in clients.items()}
            await asyncio.wait(early.values())
        wrong = {
            name: await _mistakes(second, client, early[name].result(), late[name]) for name, client in clients.items()
        }
    assert not {name: why for name, why in wrong.items() if why}
    statuses = {name: final(stream.result())["status"] for name, stream in early.items()}
    assert {statuses[name] for name, point in points.items() if point.ended or not point.shown} == {"completed"}


async def _resumed(http: httpx.AsyncClient, client: _Client) -> bytes:
    return await replay(http, id_in(client.seen), starting_after=client.count - 1)


async def _mistakes(http: httpx.AsyncClient, client: _Client, followed: bytes, resumed: bytes) -> Sequence[str]:
    """In what the views of one response differ, after its end."""
    response_id = id_in(client.seen)
    whole = await replay(http, response_id)
    frames = split(whole)
    rests = [await replay(http, response_id, starting_after=after) for after in range(-1, len(frames))]
    equal = {
        "what was followed": followed == whole,
        "what was seen and resumed": client.seen + resumed == whole,
        "what follows each event": [split(rest) for rest in rests]
        == [frames[after:] for after in range(len(frames) + 1)],
        "the response": (await http.get(f"/v1/responses/{response_id}")).json() == final(whole),
    }
    return [what for what, same in equal.items() if not same]
