"""Readers of a foreground stream other than the client that requested it.

Nothing is kept of a stream that nobody follows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from app.engine.runs.logged import beyond_end
from app.engine.runs.tape import ENTRY_FRAMES, Recorder, Tape

Past = Callable[[], Sequence[bytes]]
"""The frames that the client has been sent so far, without the terminal event."""


class Audience(Protocol):
    """Those who read a stream besides the client that requested it."""

    def publish(self, frames: list[bytes], *, final: bool = False) -> None:
        """Pass on the next whole frames."""
        ...

    async def publish_end(self, frames: list[bytes]) -> None:
        """Pass on the last frames, after the record has been stored."""
        ...


class FollowedTape(Tape):
    """The frames of a foreground stream, seen at once: the run ends with its process, so nobody waits for the log."""

    def __init__(self, project_id: str, run_id: str, frames: Sequence[bytes], *, ended: bool) -> None:
        super().__init__(project_id, run_id, 1, _no_log)
        self.frames = list(frames)
        self.ends = list(range(ENTRY_FRAMES, len(frames), ENTRY_FRAMES))  # nobody goes on with it: any place will do
        self.ended = ended

    @property
    def visible(self) -> int:
        """All frames."""
        return len(self.frames)

    def publish(self, frames: list[bytes], *, final: bool = False) -> None:
        """Add whole frames."""
        super().publish(frames, final=final)
        self._move()

    def record(self, recorder: Recorder) -> None:
        """Write everything to the log, from the first frame, and what is yet to come."""
        self._changed = recorder.record
        self.move(0)
        recorder.record(self)


class Followers:
    """The readers of one foreground stream."""

    def __init__(self, project_id: str, run_id: str) -> None:
        self._project_id = project_id
        self._run_id = run_id
        self._tape: FollowedTape | None = None
        self._readers = 0
        self._end: list[bytes] | None = None
        self.recorded = False
        """The stream is written to the log."""

    def publish(self, frames: list[bytes], *, final: bool = False) -> None:
        """Pass the frames to the readers, if there are any."""
        if self._tape is not None:
            self._tape.publish(frames, final=final)

    async def publish_end(self, frames: list[bytes]) -> None:
        """As `publish`, for the last frames, which are kept for readers that come before the run is removed."""
        self._end = frames
        self.publish(frames, final=True)

    async def follow(self, past: Past, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The frames after number `after`, then each batch as it comes, up to the terminal event.

        An `error` event if that comes before.
        """
        tape = self._open(past)
        self._readers += 1
        try:
            async with aclosing(tape.read(after)) as batches:
                async for frames in batches:
                    yield frames
            if after >= len(tape.frames):
                yield [beyond_end(after + 1, len(tape.frames) - 1)]
        finally:
            self._readers -= 1
            if not self._readers and not self.recorded:
                self._tape = None

    def record(self, past: Past, recorder: Recorder) -> None:
        """Write the stream to the log, for readers in other processes.

        Once more from its beginning if it is written already.
        """
        tape = self._open(past)
        self.recorded = True
        tape.record(recorder)

    def _open(self, past: Past) -> FollowedTape:
        """The tape, complete so far. Nothing can be published while it is made."""
        if self._tape is None:
            end = self._end or ()  # the past may have some of it: the end of the last item
            frames = [*(frame for frame in past() if frame not in end), *end]
            self._tape = FollowedTape(self._project_id, self._run_id, frames, ended=self._end is not None)
        return self._tape


def _no_log(_tape: Tape) -> None:
    """Only readers in this process."""
