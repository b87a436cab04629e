"""What a response with tools leaves in memory: no more than its conversation, and never more than the limit."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator, Sequence

import pytest

from app.stores.ports.responses import Turn
from tests.engine.hosting import Engine, Json, ScriptedTool, calls, results, say
from tests.engine.scripted import Turn as Script

ECHO = {"type": "x_echo"}


@pytest.fixture
def _no_collector() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction] - named by the test
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tools", [[], [ECHO]], ids=["plain", "tools"])
async def test_a_request_is_free_at_once_also_when_its_response_may_be_continued(
    *, stream: bool, tools: list[Json]
) -> None:
    """A cycle would keep it until the garbage collector has counted enough objects, which says nothing of their
    size.
    """
    tool = ScriptedTool()
    engine = Engine(*[calls("echo")] * len(tools), say("Done."), say("Yes."), tools=[tool])

    async def send(_frames: list[bytes]) -> None:
        """Nobody reads."""

    async with engine.running(stream=stream, tools=tools) as run:
        await (run.stream(send) if stream else run.whole())
    response_id, request = run.id, weakref.ref(run)
    tool.contexts.clear()  # the test's own
    del run
    assert request() is None
    await engine.plain(input="And?", previous_response_id=response_id)
    assert len(results(engine.provider.calls[-1])) == len(tools)


@pytest.mark.parametrize(
    ("text", "kept"),
    [("short", 20), ("long " * 40_000, 2), ("\N{ROCKET} " * 10_000, 8)],
    ids=["short", "long", "four bytes a character"],
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


@pytest.mark.parametrize("turns", [1, 12], ids=["many conversations", "long conversations"])
async def test_the_limit_is_that_of_the_memory_which_the_cache_really_takes(turns: int) -> None:
    """Twice the same, with and without the cache: all else that is in memory is the same.

    It shares answers with the store of these tests, so not all that it keeps is its own.
    """
    limit = 1 << 16
    grown = [await _grown(turns, {"context_cache_bytes": most}) for most in (0, limit)]
    assert limit * 0.5 < grown[1] - grown[0] < limit


async def _grown(turns: int, limits: Json) -> int:
    """How many bytes of memory are kept of 240 answers, in conversations of so many turns."""
    engine = Engine(*[say("Done.")] * 240, limits=limits)
    await _converse(engine, 12)
    gc.collect()
    tracemalloc.start()
    for _ in range(228 // turns):
        await _converse(engine, turns)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept


async def _converse(engine: Engine, turns: int) -> None:
    before: Json = {}
    for _ in range(turns):
        before = {"previous_response_id": (await engine.plain(input="And?", **before))["id"]}
