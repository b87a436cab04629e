"""Streams on the wire: their beginning, written by the timer or by the answer itself, and signs of life in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.types import Message

from app.api.responses.streaming import Heartbeats, StreamWriter
from app.protocol.wire.sse import HEARTBEAT

INTERVAL = 16.0
HEAD: Message = {"type": "http.response.start", "status": 200, "headers": []}
OPENING = b"event: response.created\n\n"
TOKEN = b"event: token\n\n"


class Clock:
    """The loop's time, which stands still until a test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self.now)

    async def pass_by(self, heartbeats: Heartbeats, seconds: float) -> None:
        """Let the timer look as often as it would in that time."""
        for _ in range(round(seconds / heartbeats.pause)):
            self.now += heartbeats.pause
            await heartbeats.look()


class Line:
    """A client's line: notes what it gets and when; `blocked` it takes nothing."""

    def __init__(self, clock: Clock, opening: Sequence[bytes] = ()) -> None:
        self._clock = clock
        self.got: list[bytes] = []
        self.times: list[float] = []
        self.free = asyncio.Event()
        self.free.set()
        self.asked = asyncio.Event()
        """Something is being sent."""
        self.beaten = asyncio.Event()
        """A comment has arrived."""
        self.opening = opening
        self.writer = StreamWriter(self._send, lambda: HEAD, lambda: self.opening)

    async def _send(self, message: Message) -> None:
        self.asked.set()
        await self.free.wait()
        self.got.append(b"head" if message["type"] == "http.response.start" else message["body"])
        self.times.append(self._clock.now)
        if self.got[-1] == HEARTBEAT:
            self.beaten.set()


async def test_no_stream_is_silent_for_longer_than_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heartbeats = Clock(monkeypatch), Heartbeats(INTERVAL)
    lines = [Line(clock) for _ in range(16)]
    await heartbeats.look()
    for line in lines:  # each is written to at another time between two looks
        heartbeats.add(line.writer)
        await line.writer.write([TOKEN])
        await clock.pass_by(heartbeats, 1.0)
        clock.now += 0.05
    await clock.pass_by(heartbeats, 10 * INTERVAL)

    for line in lines:
        gaps = [after - before for before, after in zip(line.times, line.times[1:], strict=False)]
        assert line.got == [b"head", TOKEN, *[HEARTBEAT] * (len(line.got) - 2)]
        assert len(line.got) >= 11
        assert max(gaps) <= INTERVAL
        assert min(gaps[1:]) > INTERVAL * 0.7


async def test_a_stream_that_speaks_gets_no_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heartbeats = Clock(monkeypatch), Heartbeats(INTERVAL)
    line = Line(clock)
    heartbeats.add(line.writer)
    for _ in range(20):
        await line.writer.write([TOKEN])
        await clock.pass_by(heartbeats, INTERVAL / 2)

    assert line.got == [b"head", *[TOKEN] * 20]


async def test_readers_that_stall_cost_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heartbeats = Clock(monkeypatch), Heartbeats(INTERVAL)
    stalled, reading = [Line(clock) for _ in range(50)], Line(clock)
    for line in [*stalled, reading]:
        heartbeats.add(line.writer)
        await line.writer.write([TOKEN])
    for line in stalled:
        line.free.clear()

    await heartbeats.look()
    await clock.pass_by(heartbeats, INTERVAL - 2 * heartbeats.pause)
    async with asyncio.TaskGroup() as tasks:
        clock.now += heartbeats.pause
        tasks.create_task(heartbeats.look())
        await reading.beaten.wait()  # while all the stalled ones are being waited for
        clock.now += heartbeats.pause  # these are given up together
    for line in stalled:
        line.free.set()

    assert {len(line.got) for line in stalled} == {2}


async def test_a_stream_whose_write_is_under_way_needs_no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heartbeats = Clock(monkeypatch), Heartbeats(INTERVAL)
    line = Line(clock)
    heartbeats.add(line.writer)
    await line.writer.write([TOKEN])
    line.free.clear()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.writer.write([TOKEN]))
        await asyncio.sleep(0)
        await clock.pass_by(heartbeats, 3 * INTERVAL)
        line.free.set()

    assert line.got == [b"head", TOKEN, TOKEN]


async def test_the_timer_begins_what_has_an_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heartbeats = Clock(monkeypatch), Heartbeats(INTERVAL)
    line = Line(clock)
    heartbeats.add(line.writer)
    await clock.pass_by(heartbeats, 2 * INTERVAL)
    assert line.got == []

    line.opening = (OPENING,)
    await clock.pass_by(heartbeats, 1.0)
    assert line.got == [b"head", OPENING]
    await clock.pass_by(heartbeats, INTERVAL)
    await line.writer.write([TOKEN])
    assert line.got == [b"head", OPENING, HEARTBEAT, TOKEN]


@pytest.mark.parametrize("given_up", [False, True])
async def test_timer_and_answer_never_begin_twice_nor_out_of_order(
    monkeypatch: pytest.MonkeyPatch, *, given_up: bool
) -> None:
    clock, heartbeats = Clock(monkeypatch), Heartbeats(INTERVAL)
    line = Line(clock, (OPENING,))
    heartbeats.add(line.writer)
    line.free.clear()
    await heartbeats.look()
    clock.now += INTERVAL
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(heartbeats.look())
        await line.asked.wait()  # the head is on its way
        line.opening = ()
        answering = tasks.create_task(line.writer.write([TOKEN]))
        await asyncio.sleep(0)
        if given_up:
            clock.now += heartbeats.pause
            await looking
        line.free.set()
        await answering

    assert line.got == [b"head", OPENING, TOKEN]


async def test_one_broken_line_does_not_silence_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, heartbeats = Clock(monkeypatch), Heartbeats(INTERVAL)
    line = Line(clock, (OPENING,))

    async def fail(_message: Message) -> None:
        raise OSError("the line is gone")

    heartbeats.add(StreamWriter(fail, lambda: HEAD, lambda: (OPENING,)))
    heartbeats.add(line.writer)
    await clock.pass_by(heartbeats, INTERVAL + 1)

    assert line.got == [b"head", OPENING]
    assert "the line is gone" in caplog.text


async def test_the_last_frames_and_the_end_are_one_message() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    writer = StreamWriter(send, lambda: HEAD, lambda: (OPENING,), tail=(b"data: [DONE]\n\n",))
    await writer.write([OPENING])
    await writer.write([TOKEN, TOKEN], last=True)

    assert sent == [
        HEAD,
        {"type": "http.response.body", "body": OPENING, "more_body": True},
        {"type": "http.response.body", "body": TOKEN + TOKEN + b"data: [DONE]\n\n", "more_body": False},
    ]
