"""Replicas behind the nginx of the compose profile: nothing is sticky, nothing is held back, and one that stops is
passed over.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from tests.e2e.background.pairs import Replicas
from tests.e2e.background.test_background import STREAMED, until
from tests.e2e.streams import Frames, final, id_in, replay
from tests.support.gateway import Gateway
from tests.support.processes import guard, release
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

CONFIGURATION = Path(__file__).parents[3] / "deploy" / "nginx" / "nginx.conf"

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


@pytest.fixture
def front(replicas: Replicas, tmp_path: Path) -> Generator[Gateway]:
    """The address that clients know, with both replicas behind it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    servers = "\n".join(
        f"server {replica.base_url.removeprefix('http://')} max_fails=1 fail_timeout=2s;" for replica in replicas
    )
    text = re.sub(r"( +server gateway.*\n)+", servers + "\n", CONFIGURATION.read_text(encoding="utf-8"))
    text = re.sub(r" +resolver .*\n", "", text)  # Docker's
    file = tmp_path / "nginx.conf"
    file.write_text(
        text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace(" /tmp/", f" {tmp_path}/"), encoding="utf-8"
    )
    nginx = shutil.which("nginx") or "nginx"
    with subprocess.Popen([nginx, "-c", str(file), "-g", "daemon off;"]) as process:
        guard(process)
        try:
            yield Gateway(replicas[0].process, f"http://127.0.0.1:{port}", replicas[0].log_file)
        finally:
            process.terminate()
            release(process)


async def serving(http: httpx.AsyncClient) -> None:
    """Wait until nginx listens."""
    async with asyncio.timeout(20):
        while True:
            try:
                await http.get("/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.02)
            else:
                return


async def test_any_replica_serves_and_one_that_dies_is_passed_over(
    replicas: Replicas, front: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an "), Text("answer"), gate]), Reply.say("Hello"))
    async with front.http() as http, replicas[0].http() as first:
        await serving(http)
        async with first.stream("POST", "/v1/responses", json=STREAMED) as answer:
            frames = Frames(answer)
            seen = await frames.until("response.output_text.delta")
            async with asyncio.TaskGroup() as group:  # by turns, so that both replicas are asked
                told = [group.create_task(http.get(f"/v1/responses/{id_in(seen)}")) for _ in range(4)]
            assert {response.result().json()["status"] for response in told} == {"in_progress"}
            replicas[0].process.kill()
            ended = await until(http, id_in(seen), "failed")
        replayed = await replay(http, id_in(seen))
        next_one = (await http.post("/v1/responses", json=STREAMED)).content

    assert final(replayed) == ended
    assert final(next_one)["output"][0]["content"][0]["text"] == "Hello"


async def test_events_come_through_one_by_one(front: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("One "), Text("two"), gate, Text(" three")]))
    async with front.http() as http:
        await serving(http)
        async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
            frames = Frames(answer)
            seen = await frames.until("response.output_text.delta")  # the upstream waits: nothing may be held back
            gate.open()
            seen += await frames.rest()
        assert await replay(http, id_in(seen)) == seen
