"""Extracts thinking and calls that the model wrote into its text, between the upstream's deltas and the assembler.

Each answer is read on its own. A `<think>` at the beginning of its text is thinking, even after separate thinking, and
a lone `</think>` there is removed. With thinking off, an answer that consists only of thinking is the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from app.protocol.deltas import CallOpened, Delta, NativeItem, Reasoning, Refusal, Text, TurnFinished
from app.protocol.recovery.calls import CallRecovery
from app.protocol.recovery.known_functions import KnownFunctions, Resolve
from app.protocol.recovery.thinking import TAG_END, ThinkingSplitter, Unopened
from app.protocol.wire.tokens import TokenLogprob, TokenUsage

_RECOVERED = 10_000
"""First index of calls found in text, so that they cannot collide with the upstream's own."""


class ReadingOptions(msgspec.Struct, frozen=True):
    """How to read the answer to a call."""

    unopened: Unopened = "unlikely"
    """Whether its text may begin inside the thinking."""
    thinking_off: bool = False
    """The model was told not to think, or cannot think."""
    functions: Mapping[str, msgspec.Raw] = {}
    """The functions it may call, with their schemas."""
    bare_calls: bool = True
    """An answer that consists only of the JSON of a call is a call."""
    resolve: Resolve | None = None
    """Finds the function meant by an unknown name."""


class Reader:
    """Cleans one turn. A turn that needs no cleaning passes through unchanged."""

    __slots__ = (
        "_answered",
        "_apart",
        "_aside",
        "_called",
        "_finish",
        "_found",
        "_functions",
        "_held_in_vain",
        "_manner",
        "_met_unopened",
        "_reasoned",
        "_recovery",
        "_splitter",
        "_thought",
        "_tokens",
        "_waiting",
    )

    def __init__(self, manner: ReadingOptions) -> None:
        self._manner = manner
        self._answered = False
        """Text of the answer has been passed on."""
        self._called = False
        self._found = 0
        """Number of calls found in text."""
        self._splitter = ThinkingSplitter(manner.unopened)
        self._functions = KnownFunctions(manner.functions, manner.resolve) if manner.functions else None
        self._recovery = self._new_recovery()
        self._thought: list[str] = []
        self._aside: list[str] | None = [] if manner.thinking_off else None
        """Separate thinking, while it may turn out to be the answer."""
        self._tokens: list[TokenLogprob] = []
        """Log probabilities of text that is still held."""
        self._waiting: list[str] | None = []
        """That text, as long as none of it has been released."""
        self._apart = False
        """The last delta was thinking that the upstream separated."""
        self._reasoned = False
        self._finish: TurnFinished | None = None
        self._met_unopened = False
        self._held_in_vain = False

    @property
    def reasoned(self) -> bool:
        """Whether the upstream separated thinking itself."""
        return self._reasoned

    @property
    def met_unopened(self) -> bool:
        """Whether the text began inside the thinking."""
        return self._met_unopened or self._splitter.met_unopened

    @property
    def held_in_vain(self) -> bool:
        """Whether the whole answer was held for a `</think>` that never came, although the answer was not cut off."""
        return self._held_in_vain

    def read(self, batch: Sequence[Delta]) -> Sequence[Delta]:
        """The batch with thinking and calls extracted from its text, as separate deltas; undecided text is held."""
        if len(batch) == 1:
            if self._passes(batch[0]):
                return batch
        elif batch and type(batch[-1]) is TurnFinished and self._is_plain(batch):
            return batch
        clean: list[Delta] = []
        for delta in batch:
            if self._passes(delta):
                clean.append(delta)
            elif type(delta) is Text:
                self._read_text(delta, clean)
            else:
                self._read_other(delta, clean)
        return clean

    def flush(self) -> Sequence[Delta]:
        """The held deltas at the end of the turn.

        Calls found in the thinking if there was neither an answer nor a call otherwise.
        """
        clean = self._release(ended=True)
        nothing_else = self._finish is not None and not (self._answered or self._called)
        if self._aside and nothing_else:
            aside, self._aside = "".join(self._aside), None
            self._splitter, self._recovery = ThinkingSplitter("possible"), self._new_recovery()
            self._read_text(Text(aside), clean)
            clean += self._release(ended=True)
        self._show_aside(clean)
        if self._recovery and self._thought and nothing_else and not (self._answered or self._called or self._cut):
            clean += self._recovery.recover_from_reasoning("".join(self._thought))[1]
        return clean

    def _is_plain(self, batch: Sequence[Delta]) -> bool:
        """Whether it is a whole answer without tags, and only tags matter: true of nearly every answer that is not
        streamed.
        """
        if self._recovery is not None or self._answered or self._reasoned or not self._splitter.fresh:
            return False
        for delta in batch:
            if type(delta) is Text:
                if TAG_END in delta.text:
                    return False
            elif type(delta) is TurnFinished:
                self._finish = delta
            elif type(delta) is not TokenUsage:
                return False
        self._answered = True
        self._held_in_vain = self._manner.unopened != "unlikely" and not self._cut
        return True

    def _passes(self, delta: Delta) -> bool:
        """Whether the delta passes unchanged, as nearly every token does."""
        if type(delta) is not Text or not self._answered or self._tokens or not self._splitter.passes(delta.text):
            return False
        return self._recovery is None or self._recovery.passes(delta.text)

    def _new_recovery(self) -> CallRecovery | None:
        manner = self._manner
        if self._functions is None:
            return None
        bare = manner.bare_calls and not self._answered
        first = _RECOVERED + self._found
        return CallRecovery(self._functions, bare=bare, formatted=not manner.bare_calls, first_index=first)

    def _split_anew(self, unopened: Unopened) -> None:
        """Treat the text that follows as a new beginning, where tags count."""
        self._met_unopened = self.met_unopened
        self._splitter = ThinkingSplitter(unopened)

    @property
    def _cut(self) -> bool:
        """Whether the model was cut off."""
        return self._finish is None or self._finish.reason in ("length", "content_filter")

    def _release(self, *, ended: bool = False, called: bool = False) -> list[Delta]:
        """The held deltas. `ended`: the model has finished; `called`: a structured call from the upstream follows."""
        found: list[Delta] = []
        for delta in self._splitter.flush():
            self._held_in_vain = type(delta) is Text and self._manner.unopened != "unlikely" and not self._cut
            self._recover(delta, found)
        if self._recovery:
            found += self._recovery.flush(cut=self._cut or not ended, called=called)
        out: list[Delta] = []
        self._give(self._scored(found), out)
        return out

    def _read_text(self, delta: Text, clean: list[Delta]) -> None:
        self._apart = False
        found: list[Delta] = []
        for piece in self._splitter.feed(delta.text):
            self._recover(piece, found)
        if delta.logprobs:
            if not self._tokens and found == [Text(delta.text)]:
                found = [delta]
            else:
                if not self._tokens:
                    self._waiting = []
                if self._waiting is not None:
                    self._waiting.append(delta.text)
                self._tokens.extend(delta.logprobs)
        self._give(self._scored(found), clean)

    def _give(self, found: Sequence[Delta], clean: list[Delta]) -> None:
        """Pass on what was found, after the thinking that preceded it."""
        for delta in found:
            if type(delta) is Reasoning and self._aside:
                self._aside.append(delta.text)  # it belongs after that
                continue
            if type(delta) is Text:
                self._answered = self._answered or not delta.text.isspace()
            elif type(delta) is CallOpened:
                self._called = True
                self._found += 1
            if self._answered or self._called:
                self._show_aside(clean)
            clean.append(delta)

    def _show_aside(self, clean: list[Delta]) -> None:
        aside, self._aside = self._aside, None
        if aside:
            clean.append(Reasoning("".join(aside)))

    def _scored(self, found: list[Delta]) -> list[Delta]:
        """Text with the log probabilities of its tokens; those of extracted text are dropped."""
        if not self._tokens:
            return found
        return [Text(delta.text, self._take_tokens(delta.text)) if type(delta) is Text else delta for delta in found]

    def _take_tokens(self, text: str) -> tuple[TokenLogprob, ...]:
        """The waiting tokens that make up `text`, wherever they begin; none if they cannot be matched."""
        tokens, waiting, self._waiting = self._tokens, self._waiting, None
        if waiting is not None and text == "".join(waiting):
            self._tokens = []
            return tuple(tokens)
        for start in range(len(tokens)):
            at = 0
            for end in range(start, len(tokens)):
                if not text.startswith(tokens[end].token, at):
                    break
                at += len(tokens[end].token)
                if at == len(text):
                    self._tokens = tokens[end + 1 :]
                    return tuple(tokens[start : end + 1])
        self._tokens = []  # otherwise they would be searched again for every later piece
        return ()

    def _recover(self, delta: Delta, found: list[Delta]) -> None:
        if self._recovery is None:
            found.append(delta)
        elif type(delta) is Text:
            found += self._recovery.feed(delta.text)
        else:
            if type(delta) is Reasoning:
                self._thought.append(delta.text)
            found.append(delta)

    def _read_other(self, delta: Delta, clean: list[Delta]) -> None:
        if type(delta) is Reasoning:
            self._read_reasoning(delta, clean)
            return
        if type(delta) is CallOpened:
            clean += self._release(called=True)  # it came before the call
            self._split_anew("impossible")
            self._called = True
            self._show_aside(clean)
        elif type(delta) is Refusal:
            clean += self._release()
            self._answered = True
            self._show_aside(clean)
        elif type(delta) is NativeItem:
            clean += self._release()
            self._show_aside(clean)
            self._split_anew("unlikely")
        elif type(delta) is TurnFinished:
            self._finish = delta
        clean.append(delta)

    def _read_reasoning(self, delta: Reasoning, clean: list[Delta]) -> None:
        if not self._apart:
            # Text before it was the answer; text after it is a new beginning.
            clean += self._release()
            self._split_anew("impossible")
            self._recovery = self._new_recovery()
            self._apart = self._reasoned = True
        if self._recovery:
            self._thought.append(delta.text)
        if self._aside is not None:
            self._aside.append(delta.text)
        else:
            clean.append(delta)
