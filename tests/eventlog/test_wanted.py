"""What readers ask for, and who answers: the same for every log."""

from __future__ import annotations

from app.eventlog.base import EventLog
from tests.eventlog.logs import PROJECT, RUN

_OTHER = "6f1c1b52-7d0f-4a6e-9f0a-000000000002"


async def test_what_is_asked_for_is_listed_once(log: EventLog) -> None:
    assert not await log.wanted()
    await log.want(PROJECT, RUN)
    await log.want("another:project", RUN)
    await log.want(PROJECT, _OTHER)
    await log.want(PROJECT, RUN)
    assert sorted(await log.wanted()) == sorted([("another:project", RUN), (PROJECT, RUN), (PROJECT, _OTHER)])


async def test_only_what_an_owner_confirms_is_confirmed(log: EventLog) -> None:
    await log.want(PROJECT, RUN)
    await log.want(PROJECT, _OTHER)
    assert not await log.confirmed(PROJECT, RUN)
    await log.confirm([(PROJECT, RUN)])
    assert await log.confirmed(PROJECT, RUN)
    assert not await log.confirmed(PROJECT, _OTHER)
    assert not await log.confirmed("another", RUN)


async def test_to_ask_again_takes_nothing_back(log: EventLog) -> None:
    await log.want(PROJECT, RUN)
    await log.confirm([(PROJECT, RUN)])
    await log.want(PROJECT, RUN)
    assert await log.confirmed(PROJECT, RUN)


async def test_to_ask_is_no_stream(log: EventLog) -> None:
    await log.want(PROJECT, RUN)
    await log.confirm([(PROJECT, RUN)])
    assert not await log.exists(PROJECT, RUN)
    assert not await log.frames(PROJECT, RUN)
