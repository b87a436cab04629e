"""What a response with tools leaves in memory: no more than its conversation, and never more than the limit."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import pytest

from app.stores.base import Turn
from tests.engine.hosting import Engine, ScriptedTool, calls, results, say
from tests.engine.scripted import Turn as Script

ECHO = {"type": "x_echo"}


async def test_a_response_that_may_be_continued_does_not_keep_its_request_alive() -> None:
    tool = ScriptedTool()
    engine = Engine(calls("echo"), say("Done."), say("Yes."), tools=[tool])
    async with engine.running(tools=[ECHO]) as run:
        await run.whole()
    response_id, request = run.id, weakref.ref(run)
    del run
    tool.contexts.clear()  # the test's own
    gc.collect()
    assert request() is None
    await engine.plain(input="And?", previous_response_id=response_id)
    assert results(engine.provider.calls[2])


@pytest.mark.parametrize(
    ("text", "kept"), [("short", 20), ("long " * 40_000, 2), ("\N{ROCKET} " * 10_000, 8)], ids=["short", "long", "four bytes a character"]
)
async def test_what_the_model_read_counts_against_the_limit(text: str, kept: int) -> None:
    """The cache has room for 1 MiB; of what does not fit, the next turn is read from the store."""

    async def do(*_: object) -> str:
        return text

    script: list[Script] = [turn for _ in range(20) for turn in (calls("echo"), say("Done."))]
    engine = Engine(*script, *[say("Yes.")] * 20, tools=[ScriptedTool(do=do)], limits={"tool_output_bytes": 1 << 20})
    ids = [(await engine.plain(tools=[ECHO]))["id"] for _ in range(20)]
    read: list[str] = []
    chain = engine.store.chain

    async def watched(project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        read.append(response_id)
        return await chain(project_id, response_id, now)

    engine.store.chain = watched
    for response_id in reversed(ids):
        await engine.plain(input="And?", previous_response_id=response_id)
    found = 20 - len(read)
    assert (found == kept) if text == "short" else 1 <= found <= kept
