"""One session: a volume for its files, and an interpreter once code has been run."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from typing import Literal

import msgspec

from sandbox import files, trees
from sandbox.backends.base import DATA, Backend
from sandbox.files import Entry
from sandbox.interpreter import Interpreter, Outcome
from sandbox.limits import Limits
from sandbox.protocol import FileInfo, RunResult, SessionInfo, file_id
from sandbox.stage import Stage, Volume
from sandbox.turns import Turns
from sandbox.watch import Watch, taken

_MAX_REPORTED = 50
_MOST_WAITING_SECONDS = 30.0
_GIVEN_UP = "the sandbox was removed before this code could run: another project needed it, or it was deleted"


class UnknownFile(Exception):
    """No such file in this session."""


class NoSpace(Exception):
    """The session's files would exceed the limit."""


class Closed(Exception):
    """The session has ended meanwhile."""


class Workplace(msgspec.Struct, frozen=True):
    """What sessions are created with."""

    stage: Stage
    backend: Backend
    turns: Turns | None = None
    """None: code runs without waiting."""


class Session:
    """Calls that use the interpreter are serialized."""

    def __init__(self, session_id: str, owner: str, name: str, workplace: Workplace, limits: Limits) -> None:
        self.id = session_id
        self.owner = owner
        self.limits = limits
        self.used = time.monotonic()
        self.running = 0
        """The number of runs in progress or waiting."""
        self.executing = False
        self._name = name
        self._created = int(time.time())
        self._active = self._created
        self._workplace = workplace
        self._volume = workplace.stage.make_volume(limits.disk_bytes, own_user=workplace.backend.own_user)
        self._interpreter: Interpreter | None = None
        self._started = False
        self._uploaded: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self._closed = False

    @property
    def info(self) -> SessionInfo:
        """For the client."""
        return SessionInfo(
            id=self.id,
            name=self._name,
            created_at=self._created,
            last_active_at=self._active,
            idle_seconds=self.limits.idle_seconds,
            memory_bytes=self.limits.memory_bytes,
        )

    @property
    def volume(self) -> Volume:
        """The location of its files."""
        return self._volume

    @property
    def pid(self) -> int | None:
        """The interpreter's process, or the one that confines it."""
        return self._interpreter.pid if self._interpreter is not None else None

    def touch(self) -> None:
        """Record a use."""
        self.used = time.monotonic()
        self._active = int(time.time())

    async def run(self, code: str, seconds: float) -> RunResult:
        """Run code.

        `seconds` start now: time spent waiting reduces the time to run. Raises InterpreterFailed, Busy, Closed.
        """
        self.running += 1
        try:
            async with self._lock:
                if self._closed:
                    raise Closed
                return await self._run_in_turn(code, min(seconds, self.limits.seconds))
        finally:
            self.running -= 1
            self.touch()

    async def close(self) -> None:
        """End it and the code running in it, and remove its files."""
        self._closed = True
        if self._interpreter is not None:
            self._interpreter.strike()
        if self._workplace.turns is not None:
            self._workplace.turns.refuse(self.id, _GIVEN_UP)
        async with self._lock:
            if self._interpreter is not None:
                self._interpreter.kill()
            await asyncio.to_thread(self._workplace.stage.drop_volume, self._volume)

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> FileInfo:
        """Write a file. Raises NoSpace, and ValueError for an invalid name."""
        if not files.is_file_name(name):
            raise ValueError("a file's name is one printable part, not hidden, of at most 255 bytes")
        self.touch()
        try:
            await self._write(name, chunks)
        except trees.Unbounded as error:
            raise NoSpace("there are too many files, or they are nested too deep") from error
        except OSError as error:  # disk full; a directory with that name
            raise NoSpace(f"the file cannot be written: {error.strerror}") from error
        entry = (await self._scan()).get(name)
        if entry is None:  # running code has removed it, or created too many others
            raise NoSpace("the file is gone: code removed it, or there are too many others")
        self._uploaded[name] = entry.modified_ns
        return self._shown(name, entry)

    async def list(self) -> list[FileInfo]:
        """Every file, newest first."""
        found = sorted((await self._scan()).items(), key=lambda item: (-item[1].modified_ns, item[0]))
        return [self._shown(path, entry) for path, entry in found]

    async def find(self, wanted: str) -> FileInfo:
        """The file with an id. Raises UnknownFile."""
        for path, entry in (await self._scan()).items():
            if file_id(self.id, f"{DATA}/{path}") == wanted:
                return self._shown(path, entry)
        raise UnknownFile(wanted)

    async def open(self, wanted: str) -> tuple[int, int]:
        """A file descriptor for reading, for the caller to close, and the file's size. Raises UnknownFile."""
        self.touch()
        path = (await self.find(wanted)).path.removeprefix(f"{DATA}/")
        try:
            return files.open_file(self._volume.data, path)
        except FileNotFoundError as error:
            raise UnknownFile(wanted) from error

    async def remove(self, wanted: str) -> None:
        """Remove a file. Raises UnknownFile."""
        self.touch()
        path = (await self.find(wanted)).path.removeprefix(f"{DATA}/")
        try:
            files.remove_file(self._volume.data, path)
        except FileNotFoundError as error:
            raise UnknownFile(wanted) from error

    async def _run_in_turn(self, code: str, seconds: float) -> RunResult:
        begun, turns = time.monotonic(), self._workplace.turns
        async with (
            nullcontext() if turns is None else turns.turn(self.owner, self.id, min(_MOST_WAITING_SECONDS, seconds / 2))
        ):
            self.executing = True
            try:
                return await self._run(code, seconds - _noticeable(time.monotonic() - begun))
            finally:
                self.executing = False

    async def _run(self, code: str, seconds: float) -> RunResult:
        before = await self._scan()
        kept = {} if self._volume.hard else await asyncio.to_thread(trees.inventory, self._volume.data)
        interpreter, restarted = await self._interpreter_to_use()
        outcome, overfull = await self._watched(interpreter, code, seconds)
        if overfull:
            await asyncio.to_thread(self._remove_others, kept)
        after = await self._scan()
        changed = [(path, entry) for path, entry in after.items() if before.get(path) != entry]
        shown = [
            self._shown(path, entry)
            for path, entry in sorted(changed, key=lambda item: item[1].modified_ns)[:_MAX_REPORTED]
        ]
        return RunResult(
            logs=_annotated(outcome, seconds, restarted=restarted, overfull=overfull),
            files=tuple(shown),
            timed_out=outcome.timed_out,
            state_lost=restarted or outcome.died is not None,
        )

    async def _interpreter_to_use(self) -> tuple[Interpreter, bool]:
        """The interpreter, and whether variables of earlier runs were lost with the previous one."""
        if self._interpreter is not None and self._interpreter.alive:
            return self._interpreter, False
        if self._interpreter is not None:
            self._interpreter.kill()
        runtime, backend = self._workplace.stage.runtime, self._workplace.backend
        self._interpreter = await Interpreter.start(
            lambda control: backend.launch(runtime, self._volume, self.limits, control), self._volume.user
        )
        restarted, self._started = self._started, True
        return self._interpreter, restarted

    async def _watched(self, interpreter: Interpreter, code: str, seconds: float) -> tuple[Outcome, bool]:
        """Run, and end it if its files grow too large; whether they did."""
        if self._volume.hard:
            return await interpreter.run(code, seconds, self.limits.log_bytes), False
        limit = self.limits.disk_bytes
        async with Watch(self._volume, limit, interpreter) as watch:
            outcome = await interpreter.run(code, seconds, self.limits.log_bytes)
        if not watch.overfull and await asyncio.to_thread(taken, self._volume, interpreter.pid, limit) > limit:
            interpreter.kill()
            return Outcome(outcome.logs, died="Its files take too much space."), True
        return outcome, watch.overfull

    def _remove_others(self, kept: Mapping[str, Entry]) -> None:
        """Remove all that has changed: hidden files and those outside of /mnt/data, too."""
        trees.keep(self._volume.data, kept)
        trees.clear(self._volume.scratch)

    async def _write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        room = self.limits.disk_bytes - (
            0 if self._volume.hard else await asyncio.to_thread(trees.taken, self._volume.root)
        )
        opened = files.create_file(self._volume.data, name, self._volume.user)
        try:
            async for chunk in chunks:
                room -= len(chunk)
                _write_all(opened, chunk, room)
        except BaseException:
            files.remove_file(self._volume.data, name)
            raise
        finally:
            os.close(opened)

    async def _scan(self) -> Mapping[str, Entry]:
        return await asyncio.to_thread(files.scan, self._volume.data)

    def _shown(self, path: str, entry: Entry) -> FileInfo:
        source: Literal["user", "assistant"] = "user" if self._uploaded.get(path) == entry.modified_ns else "assistant"
        absolute = f"{DATA}/{path}"
        created = entry.modified_ns // 1_000_000_000
        return FileInfo(
            id=file_id(self.id, absolute), path=absolute, bytes=entry.bytes, created_at=created, source=source
        )


def _noticeable(seconds: float) -> float:
    return round(seconds, 1)


def _write_all(opened: int, chunk: bytes, room: int) -> None:
    if room < 0:
        raise NoSpace("the file exceeds the session's disk limit")
    view = memoryview(chunk)
    while view:
        view = view[os.write(opened, view) :]


def _annotated(outcome: Outcome, seconds: float, *, restarted: bool, overfull: bool) -> str:
    notes: list[str] = []
    if outcome.timed_out:
        notes.append(f"Stopped after {seconds:g} s: the time limit.")
    if overfull:
        notes.append("It wrote more files than there is room for; what it wrote was removed.")
    if outcome.died is not None:
        why = "" if overfull else f" {outcome.died}"
        notes.append(
            f"The Python process was lost.{why} Variables are gone, files in {DATA} are kept; the next run starts "
            f"afresh."
        )
    before = "[The Python process was restarted: variables of earlier code are gone.]\n" if restarted else ""
    gap = "\n" if outcome.logs and not outcome.logs.endswith("\n") and notes else ""
    return before + outcome.logs + gap + (f"[{' '.join(notes)}]\n" if notes else "")
