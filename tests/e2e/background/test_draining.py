"""A process that is told to stop: what runs ends by itself, or with a terminal event when there is no more time."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.background.pairs import Replicas
from tests.e2e.background.test_background import STREAMED as BACKGROUND
from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

PLAIN: Json = {"model": MODEL, "input": "Plain"}
STREAMED: Json = {"model": MODEL, "input": "Streamed", "stream": True}
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


class Open:
    """A stream, a plain request and a background stream that are under way, and a reader of the last one."""

    def __init__(self, http: httpx.AsyncClient, gates: dict[str, Gate]) -> None:
        self.http = http
        self._gates = gates
        self.stream = self.background = self.followed = b""
        self.plain: httpx.Response | None = None

    def release(self) -> None:
        """Let the upstream go on."""
        for gate in self._gates.values():
            gate.open()


@asynccontextmanager
async def _open(gateway: Gateway, upstream: ScriptedUpstream) -> AsyncGenerator[Open]:
    """They are complete when the block has ended."""
    gates = {"Plain": Gate(), "Streamed": Gate(), "Hi": Gate()}

    def reply(body: Json) -> Reply:
        return Reply(pieces=[Thought("Hm."), Text("Half "), gates[body["messages"][-1]["content"]], Text("done.")])

    upstream.respond = reply
    async with gateway.http() as http:
        opened = Open(http, gates)
        async with (
            http.stream("POST", "/v1/responses", json=STREAMED) as answer,
            http.stream("POST", "/v1/responses", json=BACKGROUND) as background,
            asyncio.TaskGroup() as group,
        ):
            asking = group.create_task(http.post("/v1/responses", json=PLAIN))
            frames, others = Frames(answer), Frames(background)
            opened.stream = await frames.until("response.output_text.delta")
            opened.background = await others.until("response.output_text.delta")
            async with http.stream("GET", f"/v1/responses/{id_in(opened.background)}?stream=true") as read:
                following = Frames(read)
                opened.followed = await following.take()  # a server that stops accepts no more connections
                for gate in gates.values():
                    await gate.reached(20)
                yield opened
                async with asyncio.timeout(20):
                    opened.stream += await frames.rest()
                    opened.background += await others.rest()
                    opened.followed += await following.rest()
                    opened.plain = await asking


async def _exit(gateway: Gateway) -> int:
    return await asyncio.to_thread(gateway.process.wait, 20)


async def _stored(directory: Path, upstream: ScriptedUpstream, *streams: bytes) -> list[Json]:
    """What a new process knows of them."""
    with running_gateway(directory, upstream.url) as gateway:
        async with gateway.http() as http:
            return [(await http.get(f"/v1/responses/{id_in(stream)}")).json() for stream in streams]


@WORKERS
async def test_what_runs_ends_by_itself(upstream: ScriptedUpstream, tmp_path: Path, workers: str) -> None:
    with running_gateway(tmp_path, upstream.url, workers=workers) as gateway:
        async with _open(gateway, upstream) as opened:
            gateway.process.send_signal(signal.SIGHUP)
            assert (await opened.http.get("/readyz")).status_code == 200
            gateway.process.send_signal(signal.SIGTERM)
            if workers == "1":
                await gateway.logged("Shutting down")
            opened.release()
        assert await _exit(gateway) == 0

    assert opened.plain is not None
    assert (opened.plain.status_code, opened.plain.json()["status"]) == (200, "completed")
    assert final(opened.stream)["status"] == final(opened.background)["status"] == "completed"
    assert opened.followed == opened.background
    assert await _stored(tmp_path, upstream, opened.stream, opened.background) == [
        final(opened.stream),
        final(opened.background),
    ]


@WORKERS
async def test_a_second_signal_ends_them(upstream: ScriptedUpstream, tmp_path: Path, workers: str) -> None:
    with running_gateway(tmp_path, upstream.url, workers=workers) as gateway:
        async with _open(gateway, upstream) as opened:
            for _ in range(3):  # two at once may be seen as one
                gateway.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.1)
        assert await _exit(gateway) == 0
    await _all_have_failed(opened, upstream, tmp_path)


async def test_the_end_of_the_drain_ends_them(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream.url, drain_seconds="1") as gateway:
        async with _open(gateway, upstream) as opened:
            gateway.process.send_signal(signal.SIGTERM)
        assert await _exit(gateway) == 0
    await _all_have_failed(opened, upstream, tmp_path)


async def _all_have_failed(opened: Open, upstream: ScriptedUpstream, directory: Path) -> None:
    ends = [final(opened.stream), final(opened.background)]
    assert [(end["status"], end["error"]["code"]) for end in ends] == [("failed", "server_error")] * 2
    assert opened.followed == opened.background
    assert await _stored(directory, upstream, opened.stream, opened.background) == ends
    assert opened.plain is not None
    assert opened.plain.status_code in (500, 503)
    assert opened.plain.json()["error"]["message"]


async def test_readers_of_what_is_given_back_leave(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Nobody has seen a word of it: the next process generates it, and there they resume.

    They are cut off. Clients would take a stream that just ends for a whole one, and go on with an empty answer.
    """
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("too late")]), Reply.say("Hello"))
    with running_gateway(tmp_path, upstream.url) as gateway:
        async with gateway.http() as http, http.stream("POST", "/v1/responses", json=BACKGROUND) as answer:
            frames = Frames(answer)
            seen = await frames.until("response.in_progress")
            await gate.reached(20)
            async with gateway.client() as client, asyncio.timeout(10):
                following = await client.responses.retrieve(id_in(seen), stream=True, starting_after=1)
                assert (await anext(following)).sequence_number == 2
                gateway.process.send_signal(signal.SIGTERM)
                with pytest.raises(httpx.RemoteProtocolError):
                    await frames.rest()
                with pytest.raises(openai.APIConnectionError):
                    await anext(following)
        assert await _exit(gateway) == 0
        assert not re.search("Traceback| ERROR ", gateway.log())
    with running_gateway(tmp_path, upstream.url) as gateway:
        async with gateway.http() as http, asyncio.timeout(20):
            resumed = await replay(http, id_in(seen), starting_after=2)
            assert seen + resumed == await replay(http, id_in(seen))
    assert final(seen + resumed)["output"][0]["content"][0]["text"] == "Hello"


async def test_readers_of_what_runs_elsewhere_leave(replicas: Replicas, upstream: ScriptedUpstream) -> None:
    """The one that stops has no part in the response: it does not keep its readers until the end of the drain."""
    stopping, owner = replicas
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Hel"), gate, Text("lo")]))
    async with owner.client() as client, stopping.client() as reader, asyncio.timeout(30):
        made = await client.responses.create(model=MODEL, input="Hi", background=True, stream=True)
        created = await anext(made)
        assert created.type == "response.created"
        await gate.reached()
        following = await reader.responses.retrieve(created.response.id, stream=True)
        seen = [await anext(following)]
        while seen[-1].type != "response.output_text.delta":
            seen.append(await anext(following))
        stopping.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIConnectionError):
            await anext(following)
        gate.open()
        resumed = client.responses.stream(response_id=created.response.id, starting_after=len(seen) - 1)
        async with resumed as stream:
            assert (await anext(stream)).sequence_number == len(seen)
            assert (await stream.get_final_response()).output_text == "Hello"
        assert await asyncio.to_thread(stopping.process.wait, 10) == 0
