"""A response without an answer: its id stands for its input, which later requests continue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from app.engine.runs.run import Run


class WarmUp(Run):
    """A run that checks and keeps its request, and does not ask the model."""

    async def open(self) -> None:
        """Check the request, and that what it continues is there. Raises ApiError."""
        await self.conversation.begin()
        previous = self.admitted.request.previous_response_id
        if previous is not None:
            await self._ports.history.check(self.project_id, previous, self.identity.created_at)
        self.accept()
        self._assembler = self._new_assembler()
        self._assembler.start()

    async def _generate(self, publish: Callable[[], Awaitable[None]]) -> None:
        await publish()
        self._built.finish(int(self._ports.clock()))
