"""A value needed by concurrent calls and computed by one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Attempt:
    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.failure: Exception | None = None


class Once(Generic[T]):
    """The first caller computes the value; concurrent callers wait and share a failure.

    After a failure, the next call tries again.
    """

    def __init__(self, value: T | None = None) -> None:
        """`value`: if it is already known."""
        self._value = value
        self._attempt: _Attempt | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[T | None]:
        """The value; None: the caller must compute it and call `settle`; if it fails before that, those who wait fail
        with the same error.

        Cancellation is not failure: one of those who wait then computes the value.
        """
        while self._value is None and self._attempt is not None:
            attempt = self._attempt
            await attempt.over.wait()
            if attempt.failure is not None:
                raise attempt.failure
        if self._value is not None:
            yield self._value
            return
        self._attempt = attempt = _Attempt()
        try:
            yield None
        except Exception as error:
            if self._attempt is attempt:  # an error after `settle` does not concern those who wait
                attempt.failure = error
            raise
        finally:
            self._end(attempt)

    def settle(self, value: T) -> T:
        """Provide the value; the waiting ends."""
        self._value = value
        if self._attempt is not None:
            self._end(self._attempt)
        return value

    def forget(self, value: T | None) -> None:
        """Discard this value. Nothing happens if it has been replaced meanwhile."""
        if self._value is value:
            self._value = None

    def _end(self, attempt: _Attempt) -> None:
        attempt.over.set()
        if self._attempt is attempt:
            self._attempt = None
