"""The workers of one server have one sandbox service, whoever starts it and whoever ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from app.tools.sandbox.client import NotThere, Sandbox
from app.tools.sandbox.containers import new_container_id
from app.tools.sandbox.service import LocalService
from app.tools.sandbox.shared import DIRECTORY_VARIABLE
from sandbox.protocol import NewSession

ONE, TWO = new_container_id(), new_container_id()
WANTED = NewSession(name="", memory_bytes=1024**3, idle_seconds=60)


class Worker:
    """What one worker of a server has."""

    def __init__(self) -> None:
        self.service = LocalService(None, 60.0)
        self.sandbox = Sandbox(self.service)

    async def sees(self, session_id: str) -> bool:
        try:
            return (await self.sandbox.session("p", session_id)).id == session_id
        except NotThere:
            return False


@pytest.fixture
async def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[Worker, Worker]]:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    first, second = Worker(), Worker()
    yield first, second
    await asyncio.gather(first.sandbox.aclose(), second.sandbox.aclose())


async def test_what_one_has_made_all_have(workers: tuple[Worker, Worker], tmp_path: Path) -> None:
    first, second = workers
    assert not await second.sees(ONE)
    assert not second.service.begun

    await asyncio.gather(first.sandbox.open("p", ONE, WANTED), second.sandbox.open("p", TWO, WANTED))

    assert [await worker.sees(session) for worker in workers for session in (ONE, TWO)] == [True] * 4
    assert len({worker.service.pid for worker in workers} - {None}) == 1
    assert {entry.stat().st_mode & 0o777 for entry in os.scandir(tmp_path)} == {0o600}


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ended"])
async def test_another_one_starts_it_again(workers: tuple[Worker, Worker], *, killed: bool) -> None:
    first, second = workers
    await first.sandbox.open("p", ONE, WANTED)
    assert await second.sees(ONE)
    before = first.service.pid
    if killed:
        assert before is not None
        os.kill(before, signal.SIGKILL)
    else:
        await first.sandbox.aclose()

    assert not await second.sees(ONE)
    await second.sandbox.open("p", TWO, WANTED)

    assert second.service.pid not in (None, before)
    assert [await worker.sees(session) for worker in workers for session in (ONE, TWO)] == [False, True] * 2
