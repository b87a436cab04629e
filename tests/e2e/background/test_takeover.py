"""The owner of a run dies, stops, or is told to stop: another process goes on with it, or ends it, and nothing is told
twice.
"""

from __future__ import annotations

import asyncio
import signal

from tests.e2e.background.pairs import Replicas
from tests.e2e.background.test_background import BACKGROUND, STREAMED, until
from tests.e2e.streams import Frames, final, id_in, replay, split
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream


async def test_what_was_shown_is_ended_elsewhere(replicas: Replicas, upstream: ScriptedUpstream) -> None:
    here, there = replicas
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an "), Text("answer"), gate]))
    async with here.http() as first, there.http() as second:
        async with first.stream("POST", "/v1/responses", json=STREAMED) as answer:
            frames = Frames(answer)
            seen = await frames.until("response.output_text.delta")
            seen += await frames.until("response.output_text.delta")
            response_id, number = id_in(seen), len(split(seen)) - 1
            async with asyncio.timeout(15), asyncio.TaskGroup() as group:
                follower = group.create_task(replay(second, response_id))
                resumed = group.create_task(replay(second, response_id, starting_after=number))
                beyond = group.create_task(replay(second, response_id, starting_after=number + 100))
                here.process.kill()
        stored = (await second.get(f"/v1/responses/{response_id}")).json()
        replayed = await replay(second, response_id)

    assert follower.result() == replayed == seen + resumed.result()
    assert [frame.split(b"\n", 1)[0] for frame in split(beyond.result())] == [b"event: error"]
    assert stored == final(replayed)
    assert (stored["status"], stored["error"]["code"]) == ("failed", "server_error")
    assert stored["output"][1]["content"][0]["text"] == "Half an answer"


async def test_what_nobody_has_seen_is_generated_elsewhere(replicas: Replicas, upstream: ScriptedUpstream) -> None:
    here, there = replicas
    gates = [Gate(), Gate()]
    upstream.script(*(Reply(pieces=[gate, Text("too late")]) for gate in gates), Reply.say("One."), Reply.say("Two."))
    async with here.http() as first, there.http() as second:
        plain = (await first.post("/v1/responses", json=BACKGROUND)).json()["id"]
        async with first.stream("POST", "/v1/responses", json=STREAMED) as answer:
            seen = await Frames(answer).until("response.in_progress")
            for gate in gates:
                await gate.reached()
            here.process.kill()
        async with asyncio.timeout(15):
            rest = await replay(second, id_in(seen), starting_after=2)
            body = await until(second, plain, "completed")
        replayed = await replay(second, id_in(seen))
    assert replayed == seen + rest
    assert {final(replayed)["output"][0]["content"][0]["text"], body["output"][0]["content"][0]["text"]} == {
        "One.",
        "Two.",
    }


async def test_one_that_was_only_asleep_changes_nothing(replicas: Replicas, upstream: ScriptedUpstream) -> None:
    here, there = replicas
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an "), Text("answer"), gate, Text(" and more")]))
    async with (
        here.http() as first,
        there.http() as second,
        first.stream("POST", "/v1/responses", json=STREAMED) as answer,
    ):
        frames = Frames(answer)
        seen = await frames.until("response.output_text.delta")
        seen += await frames.until("response.output_text.delta")
        here.process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(15):
                stored = await until(second, id_in(seen), "failed")
            gate.open()
        finally:
            here.process.send_signal(signal.SIGCONT)
        told = seen + await frames.rest()
        later = (await first.get(f"/v1/responses/{id_in(seen)}")).json()
        replayed = await replay(second, id_in(seen))
    assert stored == later == final(told)
    assert told == replayed


async def test_it_is_cancelled_from_anywhere(replicas: Replicas, upstream: ScriptedUpstream) -> None:
    here, there = replicas
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an answer"), gate]))
    async with (
        here.http() as first,
        there.http() as second,
        first.stream("POST", "/v1/responses", json=STREAMED) as answer,
    ):
        frames = Frames(answer)
        seen = await frames.until("response.output_text.delta")
        cancelled = (await second.post(f"/v1/responses/{id_in(seen)}/cancel")).json()
        await upstream.hang_up()
        told = seen + await frames.rest()
    assert cancelled == final(told)
    assert (cancelled["status"], cancelled["output"][1]["content"][0]["text"]) == ("cancelled", "Half an answer")


async def test_it_is_cancelled_though_its_owner_does_not_react(replicas: Replicas, upstream: ScriptedUpstream) -> None:
    here, there = replicas
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an answer"), gate]))
    async with (
        here.http() as first,
        there.http() as second,
        first.stream("POST", "/v1/responses", json=STREAMED) as answer,
    ):
        frames = Frames(answer)
        seen = await frames.until("response.output_text.delta")
        here.process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(8):
                cancelled = (await second.post(f"/v1/responses/{id_in(seen)}/cancel")).json()
        finally:
            here.process.send_signal(signal.SIGCONT)
        told = seen + await frames.rest()
        await upstream.hang_up()
    assert cancelled == final(told)
    assert (cancelled["status"], cancelled["output"][1]["content"][0]["text"]) == ("cancelled", "Half an answer")


async def test_a_process_that_stops_hands_over_what_nobody_has_seen(
    replicas: Replicas, upstream: ScriptedUpstream
) -> None:
    here, there = replicas
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("too late")]), Reply.say("Hello"))
    async with here.http() as first, there.http() as second:
        made = (await first.post("/v1/responses", json=BACKGROUND)).json()["id"]
        await gate.reached()
        here.process.send_signal(signal.SIGTERM)
        body = await until(second, made, "completed")
    assert body["output"][0]["content"][0]["text"] == "Hello"
    assert await asyncio.to_thread(here.process.wait, 10) == 0
