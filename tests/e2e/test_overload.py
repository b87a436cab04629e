"""More than there may be, and as much as may be: whoever is too many is told so, and the others notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.e2e.streams import MODEL, Frames, final, id_in
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Gate, Json, Reply, Text
from tests.support.upstream import ScriptedUpstream

MOST = 20


@pytest.fixture(scope="module")
def gateway(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """A gateway with room for few."""
    settings = {"limits__concurrent_responses": str(MOST), "connections__open": str(4 * MOST)}
    with running_gateway(tmp_path_factory.mktemp("overload"), upstream_server.url, **settings) as running:
        yield running


async def test_streams_beyond_the_limit(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gates = [Gate() for _ in range(MOST)]
    upstream.script(*(Reply(pieces=[Text("Half "), gate, Text("and half.")]) for gate in gates))
    request = {"model": MODEL, "input": "Hi", "stream": True}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(gateway.http())
        streams = [
            await stack.enter_async_context(http.stream("POST", "/v1/responses", json=request)) for _ in range(MOST)
        ]
        frames = [Frames(stream) for stream in streams]
        begun = [await each.take() for each in frames]
        await asyncio.gather(*(gate.reached() for gate in gates))

        for stream in (True, False):
            full(await http.post("/v1/responses", json={**request, "stream": stream}))
        async with gateway.http() as other:
            assert (await other.get("/v1/models")).status_code == 200

        for gate in gates:
            gate.open()
        rest = await asyncio.gather(*(each.rest() for each in frames))

    assert len({id_in(frame) for frame in begun}) == MOST
    assert all(b"response.completed" in part for part in rest)
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json=request)
    assert final(answer.content)["status"] == "completed"


def full(answer: httpx.Response) -> None:
    """It says what is the matter, and when to come back."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert answer.headers["retry-after"] == "1"


def _call(*between: Json) -> list[Json]:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    return [USER, call, *between, {"type": "function_call_output", "call_id": "c", "output": "1"}]


def _thought(number: int) -> Json:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": f"{number}{LONG}"}]}


USER: Json = {"role": "user", "content": "Hi"}
LONG = "a" * 2500
FILE: Json = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}
PICTURE: Json = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}


@pytest.mark.parametrize(
    ("conversation", "status"),
    [
        ([USER, *map(_thought, range(9900)), {"role": "assistant", "content": "Yes."}, USER], 200),
        (_call(*({"role": "assistant", "content": f"{number}{LONG}"} for number in range(9900))), 200),
        ([{"role": "user", "content": [FILE] * 150_000}], 400),
        ([{"role": "user", "content": [PICTURE] * 150_000}], 400),
    ],
    ids=["thoughts", "texts", "files", "pictures"],
)
async def test_a_request_as_large_as_may_be_holds_nobody_up(
    gateway: Gateway, upstream: ScriptedUpstream, conversation: list[Json], status: int
) -> None:
    """They took minutes, in which nobody else was served; they take less than a second."""
    async with gateway.http() as http, gateway.http() as other, asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        large = tasks.create_task(http.post("/v1/responses", json={"model": MODEL, "input": conversation}))
        while not large.done():
            assert (await other.get("/healthz")).status_code == 200

    answer = large.result()
    assert answer.status_code == status, answer.text
    assert len(upstream.requests) == (status == 200)
    if status == 400:
        assert "more than 100 files and images" in answer.json()["error"]["message"]
