"""How large a conversation may become, and how long it lives."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.e2e.streams import sent
from tests.e2e.test_conversations import respond, said, texts
from tests.support.gateway import running_gateway
from tests.support.upstream import ScriptedUpstream

TWO_SECONDS = "0.000024"
"""In days."""


async def test_items_stay_when_their_response_expires(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream.url, retention_days=TWO_SECONDS) as gateway:
        async with gateway.http() as http:
            conversation = (await http.post("/v1/conversations")).json()["id"]
            made = (await respond(http, conversation, input="One.")).json()["id"]
            async with asyncio.timeout(20):
                while (await http.get(f"/v1/responses/{made}")).status_code == 200:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
            assert await texts(http, conversation) == ["One.", "Hello there."]
            await respond(http, conversation, input="Two.")
            assert [message["content"] for message in sent(upstream)] == ["One.", "Hello there.", "Two."]


async def test_an_unused_conversation_expires_if_it_is_set(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream.url, conversation_days=TWO_SECONDS, retention_days=TWO_SECONDS) as gateway:
        async with gateway.http() as http:
            body = {"items": [said("the-marker-to-look-for")]}
            conversation = (await http.post("/v1/conversations", json=body)).json()["id"]
            assert _rows(tmp_path) == 2
            async with asyncio.timeout(20):
                while (await http.get(f"/v1/conversations/{conversation}")).status_code == 200:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
            refused = await respond(http, conversation)
            assert refused.json()["error"]["code"] == "conversation_not_found"
            async with asyncio.timeout(20):
                while _rows(tmp_path):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
    assert not upstream.requests


def _rows(directory: Path) -> int:
    """How many rows there are of conversations and their items."""
    with closing(sqlite3.connect(directory / "gateway.db")) as database:
        counts = "SELECT (SELECT count(*) FROM conversations) + (SELECT count(*) FROM conversation_items)"
        return int(database.execute(counts).fetchone()[0])


async def test_a_conversation_has_limits(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    limits = {"limits__conversation_items": "4", "limits__conversation_bytes": "2000"}
    with running_gateway(tmp_path, upstream.url, **limits) as gateway:
        async with gateway.http() as http:
            full, large = [
                (await http.post("/v1/conversations", json={"items": [said(text)]})).json()["id"]
                for text in ("One.", "x" * 3000)
            ]
            assert (await respond(http, full)).status_code == 200
            assert (await respond(http, full)).status_code == 200
            refused = await respond(http, full)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "conversation_full")
            adding = await http.post(f"/v1/conversations/{full}/items", json={"items": [said("x")]})
            assert (adding.status_code, adding.json()["error"]["code"]) == (400, "conversation_full")
            assert len(await texts(http, full)) == 5

            for _ in range(2):  # the first has left no lock
                refused = await respond(http, large)
                assert (refused.status_code, refused.json()["error"]["code"]) == (400, "conversation_too_large")
    assert len(upstream.requests) == 2
