"""Background runs: owned by one process at a time, whichever it is.

A run has a row in the run store until its end, with its owner, a lease, and a fence: the number of times that it was
claimed. An owner renews its leases every second; the runs of an owner that does not are claimed by others. Whatever an
owner writes names its fence, so that one that was stopped and wakes up later changes nothing. See
`docs/adr/0045-background-runs.md`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import msgspec

from app.engine.runs.held import FencedWriter, Held, summary_of
from app.engine.runs.ports import Ports
from app.engine.runs.progress import Progress, decode
from app.engine.runs.run import Run
from app.engine.runs.supervisor import Runs
from app.engine.runs.takeover import Lost, shown, unreadable
from app.engine.runs.tape import Recorder
from app.engine.runs.work import Work
from app.engine.upstreams.failures import STOPPED
from app.jobs.outages import Outages
from app.protocol.wire.errors import ApiError, Unavailable
from app.protocol.wire.response import Response, ResponseError, encode
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.runs import Claim, StoredRun
from app.telemetry.log import write_request
from app.telemetry.request import current

_log = logging.getLogger(__name__)
LEASE_SECONDS = 8.0
BEAT_SECONDS = 1.0
"""How often leases are renewed, and runs of others looked for."""
_CLAIM_SECONDS = 0.05
"""Between two claims for places that have become free: together they cost less than one by one."""
_COUNT_SECONDS = 5.0
_STOP_SECONDS = 5.0

Rebuild = Callable[[StoredRun, Progress | None], Awaitable[Run]]
"""The run of a row, with what earlier owners have done, ready to be opened.

Raises ApiError if the request is no longer valid here.
"""


class Capacity(msgspec.Struct, frozen=True):
    """How many background runs there may be."""

    running: int
    """In this process."""
    waiting: int
    """In all processes."""


class BackgroundRuns:
    """The background runs of this process."""

    def __init__(self, ports: Ports, runs: Runs, rebuild: Rebuild, capacity: Capacity, *, alone: bool) -> None:
        """`alone`: no other process uses the store, so that all runs of earlier processes are without an owner."""
        self._ports = ports
        self._runs = runs
        self._rebuild = rebuild
        self._capacity = capacity
        self._outages = Outages(LEASE_SECONDS, alone=alone)
        self._owner = uuid4().hex
        self._held: dict[str, Held] = {}
        self._reserved = 0
        self._queued: set[int] = set()
        """Of lanes 0 (as soon as possible) and 2 (later) those of which runs are believed to wait."""
        self._free = asyncio.Event()
        """There may be a place for one of them."""
        self._claiming = asyncio.Lock()
        self.work = Work(ports)
        self.recorder = Recorder(ports.log)
        """Writes the streams of this process to the log."""
        self.draining = False
        self._over = False
        """What has not ended yet is not waited for."""

    def __len__(self) -> int:
        """How many run here."""
        return len(self._held)

    def start(self) -> None:
        """Begin to renew, to claim, and to log."""
        self._runs.every(0.0, self.recorder.run)
        self._runs.every(BEAT_SECONDS, self.beat)
        self._runs.every(_CLAIM_SECONDS, self._refill)
        self._runs.every(_COUNT_SECONDS, self.count_waiting)

    def find(self, project_id: str, run_id: str) -> Held | None:
        """The run, if it is owned here."""
        held = self._held.get(run_id)
        return held if held is not None and held.run.project_id == project_id else None

    async def accept(self, run: Run, body: bytes, *, lenient: bool) -> bytes:
        """Store the run, and start it if there is room; returns the queued response.

        Raises ApiError and StoreUnavailable.
        """
        seed = run.accept()
        admitted = run.admitted
        stored = StoredRun(
            id=run.id,
            project_id=run.project_id,
            previous_id=run.identity.previous_id,
            created_at=seed.created_at,
            lane=admitted.lane,
            streamed=admitted.stream,
            lenient=lenient,
            request=body,
            seed=encode(seed),
        )
        if self._has_room(admitted.lane) and not (admitted.background and self._is_behind(admitted.lane)):
            await self._create_and_start(run, stored)
        elif not admitted.background:
            raise Unavailable(
                "The server is at its limit of resumable responses.", code="server_is_overloaded", retry_after=1.0
            )
        else:
            await self._create_waiting(stored)
        return queued(seed)

    async def beat(self) -> None:
        """Renew the leases, then claim what is due. Raises StoreUnavailable."""
        await self._renew()
        await self._claim()

    async def count_waiting(self) -> None:
        """Update the gauge of waiting runs."""
        waiting = await self._ports.runs.waiting()
        self._ports.metrics.waiting.set_function(lambda: {(): waiting})

    async def take(self, claim: Claim) -> Held | None:
        """Own a claimed run, which the caller then drives; None: it cannot be generated here, and has failed."""
        done = decode(claim.progress)
        try:
            run = await self._rebuild(claim.run, done)
        except ApiError as error:
            _log.warning("background response %s cannot be generated here: %s", claim.run.id, error)
            await self._ports.runs.settle(
                unreadable(claim.run, error, self._ports.policy.retention_seconds), claim.fence
            )
            return None
        return self._hold(run, claim.run, claim.fence, done)

    async def seize(self, run_id: str, fence: int) -> Claim | None:
        """Claim one run, even from another owner, if its fence is still that."""
        return await self._ports.runs.seize(run_id, fence, self._owner, LEASE_SECONDS)

    async def drain(self) -> None:
        """Claim nothing more; give back the runs that nobody has seen a word of. The others go on."""
        self.draining = True
        unseen = [held for held in self._held.values() if self._is_unseen(held)]
        for held in unseen:
            held.lose()
        for held in unseen:
            await held.ended(_STOP_SECONDS)
            await self._release(held)

    def _is_unseen(self, held: Held) -> bool:
        """Whether another process can generate the run, and nobody will notice."""
        return held.repeatable and not held.run.settling and not shown(held.stored, held.tape)

    def interrupt(self, why: ResponseError) -> None:
        """End all runs as failed; what cannot be stored soon is left to other processes."""
        self._over = True
        for held in list(self._held.values()):
            held.stop(why)

    async def aclose(self) -> None:
        """Give back what nobody has seen; the others may end by themselves in a drain, and fail without one."""
        waits = self.draining
        await self.drain()
        if not waits:
            self.interrupt(STOPPED)
        left = list(self._held.values())
        for held in left:
            while not (self._over or await held.ended(_STOP_SECONDS)):
                pass
        for held in left:
            if not await held.ended(_STOP_SECONDS):
                for one in left:
                    one.lose()

    def _has_room(self, lane: int) -> bool:
        return not self.draining and len(self._held) + self._reserved < self._most(lane)

    def _most(self, lane: int) -> int:
        """Runs that may wait get at most half of the places."""
        return self._capacity.running if lane == 0 else (self._capacity.running + 1) // 2

    def _is_behind(self, lane: int) -> bool:
        """Whether others wait that come first: who arrives just when a place is free does not take it from them."""
        return 0 in self._queued or (lane > 0 and bool(self._queued))

    async def _create_and_start(self, run: Run, stored: StoredRun) -> None:
        self._reserved += 1
        try:
            await self._ports.runs.create(stored, self._owner, LEASE_SECONDS)
        finally:
            self._reserved -= 1
        held = self._hold(run, stored, 1)
        self.drive(held, self.work.generate)

    async def _create_waiting(self, stored: StoredRun) -> None:
        if await self._ports.runs.waiting() >= self._capacity.waiting:
            raise Unavailable(
                "Too many background responses are waiting. Try again later.",
                code="server_is_overloaded",
                retry_after=30.0,
            )
        await self._ports.runs.create(stored, None, 0.0)
        self._queued.add(min(stored.lane, 1) * 2)
        self._free.set()

    def _hold(self, run: Run, stored: StoredRun, fence: int, done: Progress | None = None) -> Held:
        tape = self.recorder.tape(stored.project_id, stored.id, fence) if stored.streamed else None
        held = self._held[stored.id] = Held(run, stored, fence, tape, done)
        held.lease(time.monotonic() + LEASE_SECONDS - BEAT_SECONDS)
        writer = FencedWriter(self._ports, held)
        run.save = writer.save
        run.keep_progress(writer.note)
        if tape is not None:
            run.audience = tape
        return held

    def drive(self, held: Held, work: Callable[[Held], Awaitable[None]]) -> None:
        """Start the task of a run."""
        task = self._runs.start(self._drive(held, work))
        held.begin(task)
        task.add_done_callback(lambda _: self._forget(held))

    def _forget(self, held: Held) -> None:
        """The task has ended; meanwhile the run may have come back, with a greater fence."""
        held.let_go()
        if self._held.get(held.stored.id) is held:
            del self._held[held.stored.id]
            if self._queued:
                self._free.set()

    async def _drive(self, held: Held, work: Callable[[Held], Awaitable[None]]) -> None:
        held.enter()
        began = time.perf_counter()
        summary = summary_of(held)
        current.set(summary)
        try:
            await self._work(held, work)
            if held.tape is not None:
                await held.tape.finished()
        except Lost:
            self._ports.metrics.lost()
            _log.warning("response %s has another owner, or was given back", held.stored.id)
        except asyncio.CancelledError:
            if not (held.run.settled or held.lost):
                raise
        except Exception:  # noqa: BLE001 - the lease expires, and another process or a later beat tries again
            _log.exception("background response %s stopped", held.stored.id)
        finally:
            await held.run.aclose()
            summary.end(began)
            write_request(summary)

    async def _work(self, held: Held, work: Callable[[Held], Awaitable[None]]) -> None:
        """Do it, and end the run if it is stopped while nothing is generated that could be stopped."""
        if not held.stopped:
            try:
                await work(held)
            except asyncio.CancelledError:
                if not held.stopped or held.run.settling:
                    raise
                held.go_on()
            else:
                return
        await self.work.end(held)

    async def _renew(self) -> None:
        if not self._held:
            return
        until = time.monotonic() + LEASE_SECONDS
        asked = dict(self._held)  # what is accepted meanwhile is not in the answer
        with self._outages.watch():
            renewed = await self._ports.runs.renew(self._owner, list(asked), LEASE_SECONDS)
        for run_id, held in asked.items():
            mine = renewed.get(run_id)
            if mine is None or mine.fence != held.fence:
                if not held.run.settling:
                    held.lose()
                continue
            held.lease(until)
            if mine.cancelled:
                held.stop()
            elif held.tape is not None and held.tape.lost:
                await self._give_back(held)

    async def _refill(self) -> None:
        """Claim what waits as soon as there is a place for it."""
        await self._free.wait()
        self._free.clear()
        await self._claim()

    async def _claim(self) -> None:
        async with self._claiming:
            for lanes in (0, 2):
                most = self._most(lanes) - len(self._held) - self._reserved
                if most > 0 and not self.draining:
                    await self._claim_some(most, lanes=lanes)

    async def _claim_some(self, most: int, *, lanes: int) -> None:
        with self._outages.watch():
            claims = await self._ports.runs.claim(
                self._owner, LEASE_SECONDS, most, lanes=lanes, takeover=self._outages.may_take_over
            )
        if len(claims) < most:
            self._queued -= set(range(lanes + 1))
        else:
            self._queued.add(lanes)  # perhaps more
        for claim in claims:
            try:
                held = await self.take(claim)
            except StoreUnavailable:
                raise
            except Exception:  # noqa: BLE001 - one run must not keep the others from being generated; it is claimed again later
                _log.exception("background response %s could not be begun", claim.run.id)
                continue
            if held is not None:
                self.drive(held, self.work.generate if claim.fence == 1 else self.work.go_on)

    async def _give_back(self, held: Held) -> None:
        """The run is ours, but an earlier owner wrote its events once more before we did: begin again, with what there
        is now.
        """
        held.lose()
        if await held.ended(_STOP_SECONDS):
            await self._release(held)

    async def _release(self, held: Held) -> None:
        try:
            await self._ports.runs.release(self._owner, held.stored.id, held.fence)
        except StoreUnavailable as error:
            _log.warning("background response %s was not given back: %s", held.stored.id, error)


def queued(seed: Response) -> bytes:
    """The response while it waits, as JSON."""
    return encode(msgspec.structs.replace(seed, status="queued") if seed.background else seed)
