"""Cancellation against completion: whoever wins, everybody is told the same, once."""

from __future__ import annotations

import asyncio
import random

import httpx

from tests.e2e.background.pairs import Replicas
from tests.e2e.background.test_background import STREAMED
from tests.e2e.streams import Frames, final, id_in, replay
from tests.support.script import Gate, Json, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

_RUNS = 50
_AT_ONCE = 10


async def test_cancelled_or_complete_but_not_both(pair: Replicas, upstream: ScriptedUpstream) -> None:
    chance = random.Random(7)  # noqa: S311 - delays, not secrets
    gates = {str(number): Gate() for number in range(_RUNS)}

    def reply(body: Json) -> Reply:
        return Reply(pieces=[Thought("Hm."), Text("One "), gates[body["messages"][-1]["content"]], Text("two")])

    upstream.respond = reply
    statuses: set[str] = set()
    async with pair[0].http() as first, pair[1].http() as second:
        one_of_few = asyncio.Semaphore(_AT_ONCE)

        async def race(number: str, delay: float) -> None:
            async with one_of_few:
                statuses.add(await _race(number, gates[number], (first, second), delay))

        async with asyncio.TaskGroup() as group:
            for number in gates:
                group.create_task(race(number, chance.uniform(-0.05, 0.1)))
    assert statuses <= {"cancelled", "completed"}


async def _race(number: str, gate: Gate, clients: tuple[httpx.AsyncClient, httpx.AsyncClient], delay: float) -> str:
    """The status on which all agree. `delay`: of the completion after the cancellation, in seconds."""
    owner, other = clients if int(number) % 2 else clients[::-1]
    async with owner.stream("POST", "/v1/responses", json={**STREAMED, "input": number}) as answer:
        frames = Frames(answer)
        seen = await frames.until("response.output_text.delta")
        await gate.reached(20)
        path = f"/v1/responses/{id_in(seen)}"

        async def cancel() -> httpx.Response:
            await asyncio.sleep(max(-delay, 0))
            return await clients[int(number) % 3 % 2].post(f"{path}/cancel")

        async with asyncio.TaskGroup() as group:
            cancelling = group.create_task(cancel())
            await asyncio.sleep(max(delay, 0))
            gate.open()
            stream = seen + await frames.rest()
    cancelled = cancelling.result()
    assert cancelled.status_code == 200, cancelled.text
    for http in (owner, other):
        assert (await http.get(path)).json() == cancelled.json() == final(stream)
        assert await replay(http, id_in(seen)) == stream
    return str(cancelled.json()["status"])


async def test_two_cancellations_are_one(pair: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an answer"), gate]))
    async with (
        pair[0].http() as first,
        pair[1].http() as second,
        first.stream("POST", "/v1/responses", json=STREAMED) as answer,
    ):
        frames = Frames(answer)
        seen = await frames.until("response.output_text.delta")
        path = f"/v1/responses/{id_in(seen)}/cancel"
        answers = await asyncio.gather(*(http.post(path) for http in (first, second) * 3))
        told = final(seen + await frames.rest())
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json() == told for answer in answers)
    assert told["status"] == "cancelled"
