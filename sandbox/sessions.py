"""All sessions: their owners, their number, and their lifetimes."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter

import msgspec

from sandbox.limits import Limits
from sandbox.protocol import SESSION_ID, NewSession
from sandbox.session import Session, Workplace
from sandbox.turns import Busy

_SESSION_ID = re.compile(SESSION_ID)
_SWEEP_SECONDS = 1.0


class UnknownSession(Exception):
    """Unknown, expired, or another owner's: deliberately indistinguishable."""


class Sessions:
    """The sessions of one service."""

    def __init__(self, workplace: Workplace, limits: Limits, at_most: int) -> None:
        self._workplace = workplace
        self._limits = limits
        self._at_most = at_most
        self._sessions: dict[str, Session] = {}
        self._closing = 0
        self._closed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._sessions)

    def owned(self, owner: str) -> list[Session]:
        """Those of an owner, newest first."""
        return [session for session in reversed(self._sessions.values()) if session.owner == owner]

    def get(self, owner: str, session_id: str) -> Session:
        """Raises UnknownSession."""
        session = self._sessions.get(session_id)
        if session is None or session.owner != owner:
            raise UnknownSession(session_id)
        return session

    async def open(self, owner: str, session_id: str, wanted: NewSession) -> Session:
        """The session with this id, created if there is none.

        Raises UnknownSession, Busy, and ValueError for invalid options.
        """
        if session_id in self._sessions:
            return self.get(owner, session_id)
        if not _SESSION_ID.fullmatch(session_id):
            raise ValueError("a session's id is cntr_ and 32 to 64 hex digits")
        limits = self._limited(wanted)
        while len(self._sessions) + self._closing >= self._at_most:
            await self._make_room(owner)
            if session_id in self._sessions:  # another call has opened it meanwhile
                return self.get(owner, session_id)
        session = Session(session_id, owner, wanted.name, self._workplace, limits)
        self._sessions[session_id] = session
        return session

    async def close(self, owner: str, session_id: str) -> None:
        """Raises UnknownSession."""
        await self._drop(self.get(owner, session_id))

    async def sweep(self) -> None:
        """Remove idle sessions, in an endless loop."""
        while True:
            now = time.monotonic()
            for session in [
                s for s in self._sessions.values() if not s.running and now - s.used > s.limits.idle_seconds
            ]:
                await self._drop(session)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def aclose(self) -> None:
        """End all of them."""
        for session in list(self._sessions.values()):
            await self._drop(session)

    async def _make_room(self, owner: str) -> None:
        """Raises Busy."""
        if self._closing:  # one is being removed, which makes room
            async with self._closed:
                await self._closed.wait()
            return
        await self._drop(self._expendable(owner))

    async def _drop(self, session: Session) -> None:
        if self._sessions.pop(session.id, None) is None:
            return
        self._closing += 1
        try:
            await session.close()
        finally:
            self._closing -= 1
            async with self._closed:
                self._closed.notify_all()

    def _expendable(self, owner: str) -> Session:
        """Of the owner with the most sessions, so that nobody can evict all the others: the least recently used
        session; if all of them are running or waiting, one that is still waiting, of an owner who has more than this
        one.
        """
        owners = Counter(session.owner for session in self._sessions.values())
        idle = [session for session in self._sessions.values() if not session.running]
        if idle:
            return min(idle, key=lambda session: (-owners[session.owner], session.used))
        waiting = [
            session
            for session in self._sessions.values()
            if not session.executing and owners[session.owner] > owners[owner]
        ]
        if not waiting:
            raise Busy(f"code is running or waiting in all {self._at_most} sandboxes (SANDBOX_SESSIONS)")
        return max(waiting, key=lambda session: (owners[session.owner], session.used))

    def _limited(self, wanted: NewSession) -> Limits:
        memory, idle = wanted.memory_bytes, wanted.idle_seconds
        if memory is not None and not 0 < memory <= self._limits.memory_bytes:
            raise ValueError(f"memory is limited to {self._limits.memory_bytes} bytes")
        if idle is not None and not 0 < idle <= self._limits.idle_seconds:
            raise ValueError(f"idle time is limited to {self._limits.idle_seconds:g} seconds")
        return msgspec.structs.replace(
            self._limits,
            memory_bytes=memory or self._limits.memory_bytes,
            idle_seconds=idle or self._limits.idle_seconds,
        )
