"""A background response belongs to a project: nobody else can read, follow, cancel, continue or delete it, or tell that
it exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.background.test_background import BACKGROUND, STREAMED, until
from tests.e2e.streams import MODEL, Frames, Json, id_in
from tests.support.gateway import Gateway
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

UNKNOWN = "01a22e8c-7ed6-7267-a992-323039c52ad2"


async def _asked(http: httpx.AsyncClient, response_id: str) -> list[Json]:
    """What each operation answers; the id is replaced, so that answers can be compared."""
    path = f"/v1/responses/{response_id}"
    answers = [
        await http.get(path),
        await http.get(path, params={"stream": "true", "starting_after": 3}),
        await http.get(f"{path}/input_items"),
        await http.post(f"{path}/cancel"),
        await http.delete(path),
        await http.post("/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": response_id}),
        await http.post("/v1/responses", json={**BACKGROUND, "previous_response_id": response_id}),
    ]
    return [{"status": answer.status_code, **answer.json()["error"], "message": None} for answer in answers]


async def test_strangers_see_what_they_see_of_an_unknown_one(
    gateway: Gateway, command: Callable[..., str], upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an "), gate, Text("answer")]))
    key = (await asyncio.to_thread(command, "keys", "create", "--project", "strangers")).strip()
    stranger = httpx.AsyncClient(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}, timeout=30)
    async with gateway.http() as owner, stranger, owner.stream("POST", "/v1/responses", json=STREAMED) as answer:
        frames = Frames(answer)
        response_id = id_in(await frames.until("response.output_text.delta"))
        running = await _asked(stranger, response_id)
        gate.open()
        await frames.rest()
        ended = await _asked(stranger, response_id)
        unknown = await _asked(stranger, UNKNOWN)
        assert (await until(owner, response_id, "completed"))["output"][1]["content"][0]["text"] == "Half an answer"
    assert running == ended == unknown
    assert [one["status"] for one in unknown] == [404, 404, 404, 404, 404, 400, 400]


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_that_are_left_out_are_named_at_once(
    gateway: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply.say("Hello"))
    request = {**BACKGROUND, "stream": stream, "tools": [{"type": "web_search"}]}
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json=request, headers={"user-agent": "codex_cli_rs/0.169.0"})
        await until(http, id_in(answer.content), "completed")
    assert answer.status_code == 200, answer.text
    assert "'web_search' is not served and was left out" in answer.headers["warning"]
