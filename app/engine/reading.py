"""Between the upstream's deltas and the assembler: thinking and calls that the model wrote into its text are taken out of it."""

from __future__ import annotations

from collections.abc import Sequence

from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Text
from app.protocol.recovery import CallRecovery
from app.protocol.thinking import ThinkingSplitter

_RECOVERED = 10_000
"""Calls found in text are counted from here, so that they cannot meet the upstream's own."""


class Reader:
    """Cleans one turn. A turn that needs nothing passes through unchanged."""

    __slots__ = ("_called", "_reasoned", "_recovery", "_splitter", "_thought")

    def __init__(self, *, splits_thinking: bool, expects_unopened: bool, call_names: Sequence[str]) -> None:
        self._splitter = ThinkingSplitter(expect_unopened=expects_unopened) if splits_thinking else None
        self._recovery = CallRecovery(call_names, first_index=_RECOVERED) if call_names else None
        self._thought: list[str] = []
        self._called = False
        self._reasoned = False

    @property
    def reasoned(self) -> bool:
        """The upstream separated thinking by itself."""
        return self._reasoned

    def read(self, batch: Sequence[Delta]) -> Sequence[Delta]:
        """The batch, cleaned."""
        if self._splitter is None and self._recovery is None:
            return batch
        clean: list[Delta] = []
        for delta in batch:
            if type(delta) is Text and not delta.logprobs:
                self._read_text(delta, clean)
            else:
                self._note(delta, clean)
                clean.append(delta)
        return clean

    def flush(self) -> Sequence[Delta]:
        """What was held back, once the turn is over; calls found in the thinking when none came otherwise."""
        clean: list[Delta] = []
        for delta in self._splitter.flush() if self._splitter else ():
            self._recover(delta, clean)
        if self._recovery:
            clean.extend(self._recovery.flush())
            self._called = self._called or any(isinstance(delta, CallOpened) for delta in clean)
            if not self._called and self._thought:
                _, calls = self._recovery.recover_from_reasoning("".join(self._thought))
                clean.extend(calls)
        return clean

    def _read_text(self, delta: Text, clean: list[Delta]) -> None:
        if self._splitter is None:
            self._recover(delta, clean)
            return
        for piece in self._splitter.feed(delta.text):
            self._recover(piece, clean)

    def _recover(self, delta: Delta, clean: list[Delta]) -> None:
        if self._recovery is None or type(delta) is not Text:
            if type(delta) is Reasoning and self._recovery:
                self._thought.append(delta.text)
            clean.append(delta)
            return
        found = self._recovery.feed(delta.text)
        self._called = self._called or any(isinstance(piece, CallOpened | CallArguments) for piece in found)
        clean.extend(found)

    def _note(self, delta: Delta, clean: list[Delta]) -> None:
        if type(delta) is Reasoning:
            # The server has a reasoning parser: its text is the answer, whatever it looks like.
            for held in self._splitter.flush() if self._splitter else ():
                self._recover(held, clean)
            self._reasoned = True
            self._splitter = None
            if self._recovery:
                self._thought.append(delta.text)
        elif type(delta) is CallOpened:
            self._called = True
