"""Splits `<think>…</think>` from the answer, for upstreams that leave the model's thinking in its text.

Sans-io: text in, deltas out, and the same deltas in sum however the text was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from app.protocol.deltas import Delta, Reasoning, Text

_OPEN = "<think>"
_CLOSE = "</think>"


_Phase = Literal[
    "start",  # nothing but whitespace so far
    "unopened",  # thinking or answer: only a `</think>` or the end will tell
    "opened",  # inside the block, before its first word
    "thinking",
    "closed",  # right behind a block; another may follow
    "answer",  # there was no block; a stray `</think>` may still come
    "past",  # nothing more to look for
]


class ThinkingSplitter:
    """The splitter of one answer.

    Tags count at the start of the answer and right behind an earlier block; further on they are the model's words. Whitespace
    around thinking is dropped, also at its ends: Qwen's templates put it there and strip it again.

    `expect_unopened`: the answer may begin inside the block, since the templates of Qwen3.5 and later end the prompt with
    `<think>`. Text is then held until `</think>` or the end says what it was.
    """

    __slots__ = ("_expect_unopened", "_held", "_parts", "_phase")

    def __init__(self, *, expect_unopened: bool) -> None:
        self._expect_unopened = expect_unopened
        self._phase: _Phase = "start"
        self._held = ""
        """The undecided end of the text: whitespace, part of a tag, or both."""
        self._parts: list[str] = []
        """What the phase "unopened" has gathered."""

    def feed(self, text: str) -> Sequence[Delta]:
        """Take the next piece of the answer; the deltas that are certain now."""
        if not self._held and "<" not in text:  # so it is for nearly every token
            if self._phase in {"answer", "past"}:
                return (Text(text),) if text else ()
            if self._phase == "thinking" and not text[-1:].isspace():
                return (Reasoning(text),) if text else ()
        rest, self._held = self._held + text, ""
        out: list[Delta] = []
        while rest:
            rest = self._step(rest, out)
        return out

    def flush(self) -> Sequence[Delta]:
        """The answer is over: what was held back."""
        rest, self._held = "".join(self._parts) + self._held, ""
        phase, self._phase = self._phase, "past"
        if phase in {"opened", "thinking"}:
            rest = rest.rstrip()
            return (Reasoning(rest),) if rest else ()
        return (Text(rest),) if rest else ()

    def _step(self, text: str, out: list[Delta]) -> str:
        """Take as much of `text` as the phase can; what is returned is for the phase that follows."""
        match self._phase:
            case "start" | "closed":
                return self._between(text)
            case "unopened":
                return self._unopened(text, out)
            case "opened":
                self._phase = "thinking" if (body := text.lstrip()) else "opened"
                return body
            case "thinking":
                return self._thinking(text, out)
            case "answer":
                return self._answer(text, out)
            case "past":
                out.append(Text(text))
                return ""

    def _between(self, text: str) -> str:
        body = text.lstrip()
        if body.startswith(_OPEN):
            self._phase = "opened"
            return body[len(_OPEN) :]
        if body.startswith(_CLOSE):
            self._phase = "closed"
            return body[len(_CLOSE) :]
        at_start = self._phase == "start"
        if _OPEN.startswith(body) or _CLOSE.startswith(body):
            self._held = text if at_start else body
            return ""
        if not at_start:
            self._phase = "past"
            return body
        self._phase = "unopened" if self._expect_unopened else "answer"
        return text

    def _unopened(self, text: str, out: list[Delta]) -> str:
        before, rest = self._until_close(text)
        self._parts.append(before)
        if self._phase == "closed":
            thought = "".join(self._parts).strip()
            self._parts.clear()
            out.append(Reasoning(thought))
        return rest

    def _thinking(self, text: str, out: list[Delta]) -> str:
        before, rest = self._until_close(text)
        thought = before.rstrip()
        if thought:
            out.append(Reasoning(thought))
        if self._phase == "thinking":
            self._held = before[len(thought) :] + self._held
        return rest

    def _answer(self, text: str, out: list[Delta]) -> str:
        before, rest = self._until_close(text)
        if before:
            out.append(Text(before))
        return rest

    def _until_close(self, text: str) -> tuple[str, str]:
        """What comes before `</think>`, and what comes after; without one, everything that cannot be part of it, the rest being held."""
        before, tag, rest = text.partition(_CLOSE)
        if tag:
            self._phase = "closed"
            return before, rest
        last = text.rfind("<", -len(_CLOSE))
        if last >= 0 and _CLOSE.startswith(text[last:]):
            self._held = text[last:]
            return text[:last], ""
        return text, ""
