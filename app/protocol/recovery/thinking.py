"""Separates `<think>…</think>` from the answer, for upstreams that leave the model's thinking in its text.

Qwen's templates use only these two tags: `<thinking>` and the like are part of the answer, requested by agents'
prompts.

Sans-io: text in, deltas out, and the same deltas in total however the text is split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from app.protocol.deltas import Delta, Reasoning, Text
from app.protocol.recovery.marks import settled

_OPEN = "<think>"
_CLOSE = "</think>"
TAG_END = "think>"
"""Part of both tags; a text without it needs no processing."""
_TAGS = (_OPEN, _CLOSE)
_TAG = re.compile(r"</?think>")
_MOST_SPACE = 1000
"""Maximum white space before a tag; it is held."""
_QUOTES = ("`", '"', "'")

Unopened = Literal["likely", "possible", "unlikely", "impossible"]
"""Whether the answer begins inside the thinking, since the templates of Qwen3.5 and later end the prompt with
`<think>`.

"likely" and "possible": the text is held until `</think>` or the end of the answer decides. If only "possible", a
`</think>` counts only without a `<think>` before it and without a quotation mark or backtick directly after it:
otherwise the answer mentions tags. "unlikely": nothing is held, and a `</think>` that comes nevertheless is only
dropped. "impossible": the thinking came separately; from the first word on everything is the answer.
"""

_Phase = Literal[
    "start",  # only white space so far
    "unopened",  # thinking or answer: a `</think>` or the end decides
    "opened",  # inside the block, before its first word
    "thinking",
    "closed",  # directly after a block; another may follow
    "answer",  # there was no block; a stray `</think>` may still come
    "past",  # nothing more to look for
]


_AT_FIRST_WORD: dict[Unopened, _Phase] = {
    "likely": "unopened",
    "possible": "unopened",
    "unlikely": "answer",
    "impossible": "past",
}


class ThinkingSplitter:
    """Splits one answer.

    Tags count at the start of the answer and directly after an earlier block; later ones are part of the text. A block
    that is opened twice is one. White space around and at the ends of thinking is dropped: Qwen's templates add it and
    strip it again.
    """

    __slots__ = ("_held", "_parts", "_phase", "_unopened", "met_unopened")

    def __init__(self, unopened: Unopened) -> None:
        self._unopened: Unopened = unopened
        self._phase: _Phase = "start"
        self._held = ""
        """The undecided end of the text: white space, part of a tag, or both."""
        self._parts: list[str] = []
        """Text held in the phase "unopened", or white space that may be the end of the thinking."""
        self.met_unopened = False
        """The answer began inside the thinking."""

    @property
    def past(self) -> bool:
        """Whether all further text is the answer."""
        return self._phase == "past"

    @property
    def fresh(self) -> bool:
        """Whether nothing has been fed yet."""
        return self._phase == "start" and not self._held

    def passes(self, text: str) -> bool:
        """Whether `text` is certainly part of the answer and changes no state, as with nearly every token."""
        return self._phase == "past" or (self._phase == "answer" and not self._held and "<" not in text)

    def feed(self, text: str) -> Sequence[Delta]:
        """Add the next piece of the answer; returns the deltas that are certain now."""
        if self.passes(text):
            return (Text(text),) if text else ()
        if (
            self._phase == "thinking"
            and not (self._held or self._parts)
            and "<" not in text
            and not text[-1:].isspace()
        ):
            return (Reasoning(text),) if text else ()
        rest, self._held = self._held + text, ""
        out: list[Delta] = []
        while rest:
            rest = self._step(rest, out)
        return out

    def flush(self) -> Sequence[Delta]:
        """End the answer; returns what was held."""
        out: list[Delta] = []
        if self._held == _CLOSE:
            self._held = ""
            self._end_unopened(out)
        rest, self._held = "".join(self._parts) + self._held, ""
        self._parts.clear()
        phase, self._phase = self._phase, "past"
        if phase in {"opened", "thinking"}:
            if thought := rest.rstrip():
                out.append(Reasoning(thought))
        elif rest:
            out.append(Text(rest))
        return out

    def _step(self, text: str, out: list[Delta]) -> str:
        """Consume as much of `text` as the phase can; the returned rest is for the next phase."""
        match self._phase:
            case "start" | "closed":
                return self._between(text)
            case "unopened" | "answer":
                return self._unopened_text(text, out)
            case "opened":
                return self._opened(text)
            case "thinking":
                return self._thinking(text, out)
            case "past":
                out.append(Text(text))
                return ""

    def _between(self, text: str) -> str:
        body = text.lstrip()
        at_start = self._phase == "start"
        if at_start and len(text) - len(body) > _MOST_SPACE:
            self._phase = _AT_FIRST_WORD[self._unopened]
            return text
        if body.startswith(_OPEN):
            self._phase = "opened"
            return body[len(_OPEN) :]
        if body.startswith(_CLOSE):
            self._phase = "closed"
            return body[len(_CLOSE) :]
        if _OPEN.startswith(body) or _CLOSE.startswith(body):
            self._held = text if at_start else body
            return ""
        if not at_start:
            self._phase = "past"
            return body
        self._phase = _AT_FIRST_WORD[self._unopened]
        return text

    def _opened(self, text: str) -> str:
        body = text.lstrip()
        if body.startswith(_OPEN):
            return body[len(_OPEN) :]
        if _OPEN.startswith(body):
            self._held = body
            return ""
        self._phase = "thinking"
        return body

    def _thinking(self, text: str, out: list[Delta]) -> str:
        before, tag, rest = text.partition(_CLOSE)
        if not tag:
            end = settled(text, _TAGS)
            before, self._held = text[:end], text[end:]
        thought = before.rstrip()
        if thought:
            out.append(Reasoning("".join(self._parts) + thought))
            self._parts.clear()
        if tag:
            self._parts.clear()
            self._phase = "closed"
        elif space := before[len(thought) :]:
            self._parts.append(space)
        return rest

    def _unopened_text(self, text: str, out: list[Delta]) -> str:
        """Read text outside of a block, up to the next tag that counts."""
        tag = _TAG.search(text)
        if tag is None:
            end = settled(text, _TAGS)
            self._gather(text[:end], out)
            self._held = text[end:]
            return ""
        rest = text[tag.end() :]
        certain = self._unopened == "likely"
        if tag[0] == _CLOSE and not rest and not certain:
            self._gather(text[: tag.start()], out)
            self._held = _CLOSE
            return ""
        if tag[0] == _CLOSE and (certain or not rest.startswith(_QUOTES)):
            self._gather(text[: tag.start()], out)
            self._end_unopened(out)
            return rest
        self._gather(text[: tag.end()], out)
        if tag[0] == _OPEN and not certain:
            self._give_up(out)
        return rest

    def _gather(self, text: str, out: list[Delta]) -> None:
        if text and self._phase == "answer":
            out.append(Text(text))
        elif text:
            self._parts.append(text)

    def _end_unopened(self, out: list[Delta]) -> None:
        thought = "".join(self._parts).strip()
        self._parts.clear()
        if thought:
            out.append(Reasoning(thought))
        self._phase = "closed"
        self.met_unopened = True

    def _give_up(self, out: list[Delta]) -> None:
        """The answer mentions tags: everything from here on is text, including what was held."""
        if self._parts:
            out.append(Text("".join(self._parts)))
            self._parts.clear()
        self._phase = "past"
