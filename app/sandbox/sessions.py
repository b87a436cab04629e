"""All sessions: whose they are, how many there may be, and how long they live."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter

import msgspec

from app.sandbox.limits import Limits
from app.sandbox.protocol import SESSION_ID, NewSession
from app.sandbox.session import Session, Workplace

_SESSION_ID = re.compile(SESSION_ID)
_SWEEP_SECONDS = 1.0


class UnknownSession(Exception):
    """Unknown, expired, or another owner's: deliberately the same."""


class Busy(Exception):
    """There are as many sessions as there may be, and code is running in all of them."""


class Sessions:
    """Of one service."""

    def __init__(self, workplace: Workplace, limits: Limits, at_most: int) -> None:
        self._workplace = workplace
        self._limits = limits
        self._at_most = at_most
        self._sessions: dict[str, Session] = {}

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
        """The session of this id, made if there is none. Raises UnknownSession, Busy, ValueError for what cannot be."""
        if session_id in self._sessions:
            return self.get(owner, session_id)
        if not _SESSION_ID.fullmatch(session_id):
            raise ValueError("a session's id is cntr_ and 32 to 64 hex digits")
        limits = self._limited(wanted)
        while len(self._sessions) >= self._at_most:
            await self._drop(self._expendable())
            if session_id in self._sessions:  # somebody else has opened it meanwhile
                return self.get(owner, session_id)
        session = Session(session_id, owner, wanted.name, self._workplace, limits)
        self._sessions[session_id] = session
        return session

    async def close(self, owner: str, session_id: str) -> None:
        """Raises UnknownSession."""
        await self._drop(self.get(owner, session_id))

    async def sweep(self) -> None:
        """Remove, for ever, the sessions that nobody uses any more."""
        while True:
            now = time.monotonic()
            for session in [s for s in self._sessions.values() if not s.running and now - s.used > s.limits.idle_seconds]:
                await self._drop(session)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def aclose(self) -> None:
        """End all of them."""
        for session in list(self._sessions.values()):
            await self._drop(session)

    async def _drop(self, session: Session) -> None:
        if self._sessions.pop(session.id, None) is not None:
            await session.close()

    def _expendable(self) -> Session:
        """The one unused for longest, of the owner who has most: nobody can push out all the others."""
        owners = Counter(session.owner for session in self._sessions.values())
        idle = [session for session in self._sessions.values() if not session.running]
        if not idle:
            raise Busy("all sandboxes are busy")
        return min(idle, key=lambda session: (-owners[session.owner], session.used))

    def _limited(self, wanted: NewSession) -> Limits:
        memory, idle = wanted.memory_bytes, wanted.idle_seconds
        if memory is not None and not 0 < memory <= self._limits.memory_bytes:
            raise ValueError(f"memory is limited to {self._limits.memory_bytes} bytes")
        if idle is not None and not 0 < idle <= self._limits.idle_seconds:
            raise ValueError(f"idle time is limited to {self._limits.idle_seconds:g} seconds")
        return msgspec.structs.replace(
            self._limits, memory_bytes=memory or self._limits.memory_bytes, idle_seconds=idle or self._limits.idle_seconds
        )
