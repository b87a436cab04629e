"""The database or the upstream fails under a background response: its end waits for the database, and what there was is
kept.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.db.migrate import upgrade
from tests.e2e.background.test_background import BACKGROUND, STREAMED
from tests.e2e.streams import Frames, final, id_in, replay
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Cut, Gate, Reply, Text, Thought
from tests.support.services import Postgres
from tests.support.upstream import ScriptedUpstream


async def test_the_end_waits_for_the_database(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate = Gate()
    with Postgres() as server:
        await asyncio.to_thread(upgrade, server.url())
        with running_gateway(tmp_path, upstream.url, database_url=server.url()) as gateway:
            upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an "), gate, Text("answer")]))
            async with gateway.http() as http, http.stream("POST", "/v1/responses", json=STREAMED) as answer:
                frames = Frames(answer)
                seen = await frames.until("response.output_text.delta")
                server.crash()
                gate.open()
                refused = await http.post("/v1/responses", json=BACKGROUND)
                assert refused.status_code == 503, refused.text
                assert refused.json()["error"]["code"] == "store_unavailable"
                await asyncio.to_thread(server.start)
                async with asyncio.timeout(30):
                    told = seen + await frames.rest()
                assert final(told)["status"] == "completed"
                assert await replay(http, id_in(seen)) == told


async def test_an_upstream_that_breaks_off(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an "), Cut()]))
    async with gateway.http() as http:
        told = (await http.post("/v1/responses", json=STREAMED)).content
        body = final(told)
        assert body["status"] == "failed"
        assert body["output"][1]["content"][0]["text"] == "Half an "
        assert await replay(http, body["id"]) == told
