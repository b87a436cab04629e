"""When others hear of a response: what is seen of a run before, while and after its record is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.engine.accounts.access import Principal
from app.engine.conversation.history import History
from app.engine.conversation.locks import ConversationLocks
from app.engine.conversation.sealing import Sealer
from app.engine.metrics import Metrics
from app.engine.model.formats import Formats
from app.engine.model.upstream_traits import UpstreamTraits
from app.engine.runs.elsewhere import Elsewhere
from app.engine.runs.ports import Policy, Ports
from app.engine.runs.run import Run
from app.engine.runs.supervisor import Runs
from app.engine.upstreams.routing import Route, Router
from app.eventlog.base import EventLog, EventLogUnavailable
from app.protocol.deltas import Text, TurnFinished
from app.protocol.wire.errors import Conflict
from app.settings import Limits
from app.stores.memory import MemoryResponseStore
from app.stores.ports.responses import ResponseRecord
from tests.engine.foreground import NO_CONVERSATIONS, NoLog, NoRuns, foreground
from tests.engine.scripted import NO_TOOLS, VALIDATOR, ScriptedProvider, no_media

OWNER = Principal("p", "k")
BODY = json.dumps({"model": "m", "input": "hi", "stream": True}).encode()


class GatedStore(MemoryResponseStore):
    """Writes when it is let."""

    def __init__(self) -> None:
        super().__init__(retention_seconds=100)
        self.asked = asyncio.Event()
        self.let = asyncio.Event()
        self.kept = asyncio.Event()
        self.looks = 1

    async def save(self, record: ResponseRecord) -> None:
        """Wait, then keep."""
        self.asked.set()
        await self.let.wait()
        await super().save(record)
        self.kept.set()

    async def has_ended(self, project_id: str, response_id: str) -> bool:
        """Whoever asks for the last of so many times is answered when the record has been kept, just now."""
        self.looks -= 1
        if not self.looks:
            self.let.set()
            await self.kept.wait()
        return await super().has_ended(project_id, response_id)


class LogThatComesBack(NoLog):
    """Away for six seconds, of which each look takes three. Nobody has confirmed anything meanwhile, nor later."""

    now = 0.0

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        self.now += 3
        if self.now <= 6:
            raise EventLogUnavailable("away")
        yield ()

    async def want(self, project_id: str, response_id: str) -> None:
        if self.now <= 3:
            raise EventLogUnavailable("away")


class Stage:
    """One response whose record is not written yet."""

    def __init__(self, log: EventLog | None = None) -> None:
        self.store = GatedStore()
        provider = ScriptedProvider([[Text("Yes."), TurnFinished("stop")]])
        self.ports = Ports(
            store=self.store,
            runs=NoRuns(),
            conversations=NO_CONVERSATIONS,
            locks=ConversationLocks(NO_CONVERSATIONS),
            log=log or NoLog(),
            history=History(self.store, 1 << 20, shared=False),
            media=no_media(),
            router=Router([Route(provider)], {}, lambda _, __: None),
            sealer=Sealer(b"s" * 32),
            validator=VALIDATOR,
            traits=UpstreamTraits(),
            formats=Formats(),
            metrics=Metrics(),
            clock=lambda: 1_700_000_000.0,
            catalog=NO_TOOLS,
            policy=Policy(limits=Limits(), retention_seconds=100),
        )
        self.runs = Runs(10)
        self.responses = foreground(self.ports, self.runs)
        self.sent: list[bytes] = []

    async def send(self, frames: list[bytes]) -> None:
        self.sent += frames

    async def start(self) -> tuple[Run, asyncio.Task[None]]:
        """Up to the moment when the record is being written."""
        run = await self.responses.create(OWNER, BODY, lenient=False)
        self.runs.add(run)
        await run.open()
        streaming = asyncio.ensure_future(run.stream(self.send))  # noqa: TID251 - a test stops it in the middle
        await self.store.asked.wait()
        return run, streaming

    async def seen(self, run: Run) -> dict[str, Any]:
        seen: dict[str, Any] = json.loads(await self.responses.get(OWNER, run.id))
        return seen


async def test_the_end_is_told_when_the_record_is_there() -> None:
    stage = Stage()
    run, streaming = await stage.start()

    before = await stage.seen(run)
    assert (before["status"], before["usage"], before["output"][0]["content"][0]["text"]) == (
        "in_progress",
        None,
        "Yes.",
    )
    assert b"response.completed" not in b"".join(stage.sent)
    with pytest.raises(Conflict):
        await stage.responses.delete(OWNER, run.id)

    stage.store.let.set()
    await streaming
    assert b"response.completed" in stage.sent[-1]
    assert (await stage.seen(run))["status"] == "completed"
    assert await stage.responses.delete(OWNER, run.id) == run.id


async def test_a_client_that_leaves_while_the_record_is_written_leaves_no_follower_behind() -> None:
    stage = Stage()
    run, streaming = await stage.start()
    followed = await stage.responses.follow(OWNER, run.id, -1)
    frames = list(await anext(followed))

    streaming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await streaming
    async for batch in followed:
        frames += batch
    assert b"response.completed" in frames[-1]


@pytest.mark.parametrize(("length", "pauses"), [(200_000, 0), (300_000, 3)])
async def test_others_go_first_between_the_steps_of_a_large_request(length: int, pauses: int) -> None:
    body = json.dumps({"model": "m", "input": "a" * length, "stream": True}).encode()
    run = await Stage().responses.create(OWNER, body, lenient=False)
    opening = run.open()
    for _ in range(pauses):
        assert opening.send(None) is None  # a turn of the event loop, and not a wait for anything
    with pytest.raises(StopIteration):
        opening.send(None)


async def test_a_reader_elsewhere_gets_a_record_that_is_written_while_it_looks_for_it() -> None:
    stage = Stage()
    assert await _read_elsewhere(stage) == stage.sent


async def test_a_reader_elsewhere_waits_for_an_owner_that_could_not_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogThatComesBack()
    monkeypatch.setattr("app.engine.runs.elsewhere._now", lambda: log.now)
    stage = Stage(log)
    stage.store.looks = 4
    assert await _read_elsewhere(stage) == stage.sent


async def _read_elsewhere(stage: Stage) -> list[bytes]:
    run, streaming = await stage.start()
    found = [frames async for frames in Elsewhere(stage.ports, alone=False).follow("p", run.id, -1)]
    stage.store.let.set()
    await streaming
    return [frame for frames in found for frame in frames]
