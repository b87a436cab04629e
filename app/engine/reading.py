"""Between the upstream's deltas and the assembler: thinking and calls that the model wrote into its text are taken out of it."""

from __future__ import annotations

from collections.abc import Sequence

from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Text, TokenLogprob, TurnFinished
from app.protocol.recovery import CallRecovery
from app.protocol.thinking import ThinkingSplitter

_RECOVERED = 10_000
"""Calls found in text are counted from here, so that they cannot meet the upstream's own."""


class Reader:
    """Cleans one turn. A turn that needs nothing passes through unchanged."""

    __slots__ = ("_called", "_expects_unopened", "_finished", "_held_in_vain", "_reasoned", "_recovery", "_splitter", "_thought", "_tokens")

    def __init__(self, *, splits_thinking: bool, expects_unopened: bool, call_names: Sequence[str]) -> None:
        self._splitter = ThinkingSplitter(expect_unopened=expects_unopened) if splits_thinking else None
        self._recovery = CallRecovery(call_names, first_index=_RECOVERED) if call_names else None
        self._expects_unopened = expects_unopened
        self._thought: list[str] = []
        self._tokens: list[TokenLogprob] = []
        """Log probabilities of text that is not decided yet."""
        self._called = False
        self._reasoned = False
        self._finished = False
        self._held_in_vain = False

    @property
    def reasoned(self) -> bool:
        """The upstream separated thinking by itself."""
        return self._reasoned

    @property
    def held_in_vain(self) -> bool:
        """The whole answer was held back for a `</think>` that never came, and it was not cut off before it could come."""
        return self._held_in_vain

    def read(self, batch: Sequence[Delta]) -> Sequence[Delta]:
        """The batch, cleaned."""
        if self._splitter is None and self._recovery is None:
            return batch
        clean: list[Delta] = []
        for delta in batch:
            if type(delta) is Text:
                self._read_text(delta, clean)
            else:
                self._note(delta, clean)
                clean.append(delta)
        return clean

    def flush(self) -> Sequence[Delta]:
        """What was held back, once the turn is over; calls found in the thinking when none came otherwise."""
        clean = self._release()
        if self._recovery:
            self._called = self._called or any(isinstance(delta, CallOpened) for delta in clean)
            if not self._called and self._thought:
                _, calls = self._recovery.recover_from_reasoning("".join(self._thought))
                clean.extend(calls)
        return clean

    def _release(self) -> list[Delta]:
        """What was held back."""
        held: list[Delta] = []
        for delta in self._splitter.flush() if self._splitter else ():
            self._held_in_vain = self._expects_unopened and self._finished and type(delta) is Text
            self._recover(delta, held)
        if self._recovery:
            held.extend(self._recovery.flush())
        return self._scored(held)

    def _read_text(self, delta: Text, clean: list[Delta]) -> None:
        if delta.logprobs:
            found: list[Delta] = []
            undecided = bool(self._tokens)
            self._read_text(Text(delta.text), found)
            if found == [Text(delta.text)] and not undecided:
                clean.append(delta)
                return
            self._tokens.extend(delta.logprobs)
            clean.extend(self._scored(found))
        elif self._splitter is None:
            self._recover(delta, clean)
        else:
            for piece in self._splitter.feed(delta.text):
                self._recover(piece, clean)

    def _scored(self, found: list[Delta]) -> list[Delta]:
        """Text with the log probabilities of its tokens; those of what was taken out go with it."""
        if not self._tokens:
            return found
        return [Text(delta.text, self._take_tokens(delta.text)) if type(delta) is Text else delta for delta in found]

    def _take_tokens(self, text: str) -> tuple[TokenLogprob, ...]:
        """Those of the waiting tokens that make up `text`, wherever they begin; none when they cannot be told apart."""
        tokens = self._tokens
        for start in range(len(tokens)):
            at = 0
            for end in range(start, len(tokens)):
                if not text.startswith(tokens[end].token, at):
                    break
                at += len(tokens[end].token)
                if at == len(text):
                    self._tokens = tokens[end + 1 :]
                    return tuple(tokens[start : end + 1])
        self._tokens = []  # kept, they would be searched again for every piece to come
        return ()

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
            clean.extend(self._release())  # it was said before the call
        elif type(delta) is TurnFinished:
            self._finished = delta.reason in ("stop", "tool_calls")
