"""A response belongs to a project: all its keys reach it, nobody else can tell that it exists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import httpx
import msgspec
import pytest

from tests.e2e.streams import MODEL, Frames, Json, id_in, sent
from tests.support.gateway import Gateway
from tests.support.script import Gate as Pause
from tests.support.script import Reply, Text
from tests.support.upstream import ScriptedUpstream

UNKNOWN = "0190b7c2-3f4e-7abc-8def-0123456789ab"


class Parties(msgspec.Struct, frozen=True):
    """Clients with keys of two projects."""

    owner: httpx.AsyncClient
    colleague: httpx.AsyncClient
    """Another key of the owner's project."""
    stranger: httpx.AsyncClient


@pytest.fixture
async def parties(gateway: Gateway, command: Callable[..., str]) -> AsyncGenerator[Parties]:
    projects = ("red", "red", "blue")
    keys = await asyncio.gather(
        *(asyncio.to_thread(command, "keys", "create", "--project", project) for project in projects)
    )
    clients = [
        httpx.AsyncClient(base_url=gateway.base_url, headers={"authorization": f"Bearer {key.strip()}"}) for key in keys
    ]
    yield Parties(*clients)
    for client in clients:
        await client.aclose()


async def test_projects(parties: Parties, upstream: ScriptedUpstream) -> None:
    made = (await _create(parties.owner, input=[{"role": "user", "content": "Secret.", "id": "msg_own-1"}])).json()
    await _the_project_has_it(parties, upstream, made["id"])
    await _strangers_see_nothing(parties, made)
    await _strangers_cannot_follow(parties, upstream)

    assert (await parties.colleague.delete(f"/v1/responses/{made['id']}")).status_code == 200
    assert (await parties.owner.get(f"/v1/responses/{made['id']}")).status_code == 404


async def _create(client: httpx.AsyncClient, **request: object) -> httpx.Response:
    return await client.post("/v1/responses", json={"model": MODEL, **request})


async def _the_project_has_it(parties: Parties, upstream: ScriptedUpstream, made: str) -> None:
    read = await parties.colleague.get(f"/v1/responses/{made}")
    child = await _create(parties.colleague, input="And?", previous_response_id=made)

    assert (read.status_code, child.status_code) == (200, 200)
    assert [message["content"] for message in sent(upstream)] == ["Secret.", "Hello there.", "And?"]


async def _strangers_see_nothing(parties: Parties, made: Json) -> None:
    """Byte for byte the answer that an id gets which nobody has."""
    for method, path in [
        ("GET", "/v1/responses/{}"),
        ("GET", "/v1/responses/resp_{}"),
        ("GET", "/v1/responses/{}?stream=true"),
        ("GET", "/v1/responses/{}/input_items"),
        ("DELETE", "/v1/responses/{}"),
    ]:
        foreign = await parties.stranger.request(method, path.format(made["id"]))
        unknown = await parties.stranger.request(method, path.format(UNKNOWN))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.content.replace(made["id"].encode(), UNKNOWN.encode()) == unknown.content
        assert _names(foreign) == _names(unknown)

    foreign = await _create(parties.stranger, input="?", previous_response_id=made["id"])
    unknown = await _create(parties.stranger, input="?", previous_response_id=UNKNOWN)
    assert foreign.status_code == 400
    assert foreign.content.replace(made["id"].encode(), UNKNOWN.encode()) == unknown.content

    for item_id in (made["output"][0]["id"], "msg_own-1"):
        referring = await _create(parties.stranger, input=[{"type": "item_reference", "id": item_id}])
        assert (referring.status_code, f"Item with id '{item_id}' not found" in referring.text) == (400, True)


async def _strangers_cannot_follow(parties: Parties, upstream: ScriptedUpstream) -> None:
    pause = Pause()
    upstream.script(Reply(pieces=[Text("Sec"), pause, Text("ret")]))
    async with parties.owner.stream(
        "POST", "/v1/responses", json={"model": MODEL, "input": "Hi", "stream": True}
    ) as live:
        frames = Frames(live)
        made = id_in(await frames.take())
        await pause.reached()
        following = await parties.stranger.get(f"/v1/responses/{made}?stream=true")
        reading = await parties.stranger.get(f"/v1/responses/{made}")
        deleting = await parties.stranger.delete(f"/v1/responses/{made}")
        pause.open()
        await frames.rest()

    assert [answer.status_code for answer in (following, reading, deleting)] == [404, 404, 404]


def _names(answer: httpx.Response) -> set[str]:
    return set(answer.headers)
