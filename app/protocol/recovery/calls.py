"""Recovers function calls that the model wrote into its text or thinking and the upstream's parser missed.

The forms are the rows of `call_grammar`. Not calls: text quoted in Markdown (a code fence, or inline code), calls of
unknown functions, and, if a format was requested, an answer that only looks like a call.

Sans-io: text in, deltas out, and the same deltas in total however the text is split. Text that turns out not to be a
call of a known function is returned as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from app.protocol.deltas import CallArguments, CallOpened, Delta, Text
from app.protocol.recovery.call_grammar import (
    BY_MARK,
    ENDS,
    ENDS_OF_JSON,
    FAMILIES,
    LEFT_OVER,
    MOST_LOOKED_AT,
    OPENING,
    STRAY,
    is_json,
    is_whole,
)
from app.protocol.recovery.known_functions import KnownFunctions
from app.protocol.recovery.markdown_quotes import MarkdownQuotes
from app.protocol.recovery.marks import settled
from app.protocol.recovery.written_calls import unfenced

_OPENS = tuple(family.opens for family in FAMILIES)
_BARE_BEGINS = ("{", "[", "`")
_MOST_FAILURES = 50
"""Blocks that turn out not to be calls, after which an answer is plain text: each may require reading everything after
it again.
"""
_MOST_INSIDE = 50
"""Closing marks inside a block that are taken as parts of values."""

_Phase = Literal[
    "start",  # it may still become the bare form
    "bare",  # the bare form so far; the end decides
    "text",
    "opened",  # at an opening mark, before the first characters of its body
    "block",
    "called",  # directly after a call; white space and stray closing marks are dropped
    "past",  # nothing more to look for
]


class CallRecovery:
    """Recovers the calls of one answer.

    `functions` are those the model may call; `first_index` is the index of the first call found here. Calls have an
    empty call id. `bare`: an answer that consists only of the JSON of a call is a call. `formatted`: JSON was
    requested, so an answer that begins as an object is text to its end, whatever its strings contain.
    """

    __slots__ = (
        "_bare",
        "_began",
        "_ends",
        "_failures",
        "_family",
        "_fenced",
        "_formatted",
        "_functions",
        "_held",
        "_index",
        "_inside",
        "_open",
        "_parts",
        "_phase",
        "_quotes",
        "_said",
    )

    def __init__(
        self,
        functions: KnownFunctions,
        *,
        bare: bool = True,
        formatted: bool = False,
        first_index: int = 0,
    ) -> None:
        self._functions = functions
        self._bare = bare
        self._formatted = formatted
        self._index = first_index
        self._phase: _Phase = "start"
        self._held = ""
        """The undecided end of the text."""
        self._parts: list[str] = []
        """Text of the block, or the bare form, so far."""
        self._family = FAMILIES[0]
        """The block's family."""
        self._ends = ENDS[self._family.opens]
        """The marks that may end the block."""
        self._began = 0
        """Length of the white space before the block."""
        self._inside: list[int] = []
        """End positions of closing marks in the block that were taken as parts of values."""
        self._failures = 0
        self._said = False
        """Text has been emitted."""
        self._quotes = MarkdownQuotes()
        self._open = self._fenced = False

    def passes(self, text: str) -> bool:
        """Whether `text` is certainly plain text and changes no state, as with nearly every token."""
        if self._open:
            return "<" not in text and "`" not in text and "\n" not in text
        return self._phase == "past" or (self._fenced and "`" not in text and "\n" not in text)

    def feed(self, text: str) -> Sequence[Delta]:
        """Add the next piece of the answer; returns the deltas that are certain now."""
        if self.passes(text):
            return (Text(text),) if text else ()
        out: list[Delta] = []
        if self._phase == "text" and self._said and not self._held and "<" not in text:
            self._say(text, out)
        else:
            self._take(text, out)
        self._settle()
        return out

    def flush(self, *, cut: bool = False, called: bool = False) -> Sequence[Delta]:
        """End the answer; returns what was held, as calls if complete, otherwise as text.

        `cut`: the model was cut off, so that an incomplete call is not a call. `called`: a structured call from the
        upstream follows; leftover marks before and after it are dropped.
        """
        out: list[Delta] = []
        while self._phase in ("bare", "block"):
            gathered = "".join(self._parts)
            self._parts.clear()
            if self._phase == "bare":
                self._end_bare(gathered + self._held, out, cut=cut)
            else:
                self._end_block(gathered, out, cut=cut)
        rest, self._held = "".join(self._parts) + self._held, ""
        self._parts.clear()
        if (called or self._phase == "called") and rest.strip() in LEFT_OVER:
            rest = ""
        self._say(rest, out)
        self._phase = "called" if called else "text"
        self._settle()
        return out

    def recover_from_reasoning(self, reasoning: str, *, cut: bool = False) -> tuple[str, Sequence[Delta]]:
        """The calls in a finished thinking text, and the text without them. Later calls are numbered after these."""
        recovery = self._anew()
        deltas = [*recovery.feed(reasoning), *recovery.flush(cut=cut)]
        calls = [delta for delta in deltas if not isinstance(delta, Text)]
        if not calls:
            return reasoning, ()
        self._index += sum(isinstance(delta, CallOpened) for delta in calls)
        return "".join(delta.text for delta in deltas if isinstance(delta, Text)).rstrip(), calls

    def _anew(self) -> CallRecovery:
        """A new recovery for another text of the same answer."""
        formatted = self._formatted
        return CallRecovery(self._functions, bare=not formatted, formatted=formatted, first_index=self._index)

    def _take(self, text: str, out: list[Delta]) -> None:
        rest, self._held = self._held + text, ""
        while rest:
            rest = self._step(rest, out)

    def _step(self, text: str, out: list[Delta]) -> str:
        """Consume as much of `text` as the phase can; the returned rest is for the next phase."""
        match self._phase:
            case "text" | "past":
                return self._text(text, out)
            case "block":
                return self._block(text, out)
            case "bare":
                self._parts.append(text)
                return ""
            case "start":
                return self._start(text)
            case "opened":
                return self._opened(text, out)
            case "called":
                return self._called(text)

    def _start(self, text: str) -> str:
        first = text.lstrip()[:1]
        if len(text) < MOST_LOOKED_AT and (not first or _may_be_left_over(text.lstrip())):
            self._held = text
            return ""
        begins = self._functions.beginnings.bare(text) if self._bare and first in _BARE_BEGINS else False
        if begins is None:
            self._held = text
            return ""
        self._phase = "bare" if begins else "text"
        if self._formatted and first == "{":
            self._phase = "past"
        return text

    def _text(self, text: str, out: list[Delta]) -> str:
        if self._phase == "past":
            self._give(text, out)
            return ""
        at = 0
        for mark in OPENING.finditer(text):
            self._quotes.advance(text[at : mark.start()])
            at = mark.start()
            if not self._quotes.quoted:
                return self._open_at(text, mark, out)
        end = settled(text, _OPENS)
        if self._leads(text[:end]):
            self._held = text
            return ""
        self._quotes.advance(text[at:end])
        self._give(text[:end], out)
        self._held = text[end:]
        return ""

    def _open_at(self, text: str, mark: re.Match[str], out: list[Delta]) -> str:
        before = text[: mark.start()]
        self._family = BY_MARK[mark[0]]
        self._phase = "opened"
        if not before or self._leads(before):
            return text
        self._give(before, out)
        return text[mark.start() :]

    def _leads(self, text: str) -> bool:
        """Whether it is white space at the beginning of the answer, which is dropped together with a call
        that follows.
        """
        return not self._said and len(text) < MOST_LOOKED_AT and text.isspace()

    def _opened(self, text: str, out: list[Delta]) -> str:
        lead = len(text) - len(text.lstrip())
        mark = lead + len(self._family.opens)
        begins = self._functions.beginnings.body(self._family, text[mark:])
        if begins is None:
            self._held = text
            return ""
        if begins:
            self._phase, self._began = "block", lead
            self._ends = (
                ENDS_OF_JSON if is_json(text[mark:]) and not self._family.keeps_marks else ENDS[self._family.opens]
            )
            self._parts.append(text[:mark])
            return text[mark:]
        # The mark is only mentioned; a real one may follow, even directly.
        self._phase = "text"
        self._say(text[:mark], out)
        return text[mark:]

    def _block(self, text: str, out: list[Delta]) -> str:
        mark = self._ends.pattern.search(text)
        if mark is None:
            end = settled(text, self._ends.marks)
            self._parts.append(text[:end])
            self._held = text[end:]
            return ""
        self._parts.append(text[: mark.start()])
        gathered = "".join(self._parts)
        self._parts.clear()
        if self._inside and _reopens(gathered, self._inside[0]):
            return self._cut_block(gathered + text[mark.start() :], out)
        if is_whole(self._body(gathered), mark[0]):
            return self._close(gathered, mark[0], text[mark.end() :], out)
        gathered += mark[0]
        if mark[0] in BY_MARK:
            # a value that mentions calls: from here on only a closing mark counts
            self._ends = ENDS[self._family.opens]
        else:
            self._inside.append(len(gathered))
        if len(self._inside) > _MOST_INSIDE:
            return self._cut_block(gathered + text[mark.end() :], out)
        self._parts.append(gathered)
        return text[mark.end() :]

    def _close(self, gathered: str, mark: str, rest: str, out: list[Delta]) -> str:
        """End the block at its closing mark."""
        self._inside.clear()
        body = self._body(gathered) + (mark if self._family.keeps_marks and mark == "</function>" else "")
        if self._call(body, out, whole=True):
            return mark + rest if mark in BY_MARK else rest
        if self._family.opens in body[1:] or mark in BY_MARK:
            return self._reject(gathered + mark + rest, out)
        self._fail()
        self._say(gathered + mark, out)
        return rest

    def _cut_block(self, text: str, out: list[Delta]) -> str:
        """End the block at the first closing mark in it, although a value was open."""
        end = self._inside[0]
        self._inside.clear()
        gathered = text[:end]
        mark = next(close for close in self._family.closes if gathered.endswith(close))
        return self._close(gathered[: -len(mark)], mark, text[end:], out)

    def _end_block(self, gathered: str, out: list[Delta], *, cut: bool) -> None:
        """End a block in which the answer ended, before a closing mark or within one."""
        rest, self._held = self._held, ""
        if self._inside:
            rest = self._cut_block(gathered + rest, out)
        elif self._call(self._body(gathered), out, whole=not cut):
            rest = ""
        else:
            rest = self._reject(gathered + rest, out)
        self._take(rest, out)

    def _end_bare(self, gathered: str, out: list[Delta], *, cut: bool) -> None:
        self._held = ""
        body = unfenced(gathered.strip())
        if body.startswith(_OPENS) or not self._call(body, out, whole=not cut):
            self._end_marked(_with_opening_mark(body), out, cut=cut)
        if self._phase == "text":
            self._take(gathered, out)

    def _end_marked(self, body: str, out: list[Delta], *, cut: bool) -> None:
        """Pass on the calls of a body that has nothing else; any other body remains text."""
        self._phase = "text"
        if not body.startswith(_OPENS):
            return
        rest, calls = self.recover_from_reasoning(body, cut=cut)
        if calls and not rest:
            out += calls
            self._phase = "called"

    def _called(self, text: str) -> str:
        body = text.lstrip()
        if stray := next((mark for mark in STRAY if body.startswith(mark)), None):
            return body[len(stray) :]
        if _may_be_left_over(body):
            self._held = body
            return ""
        self._phase = "text"
        return body

    def _reject(self, text: str, out: list[Delta]) -> str:
        """Treat the block at the beginning of `text` as text; what follows its opening mark is read again."""
        self._fail()
        end = self._began + len(self._family.opens)
        self._say(text[:end], out)
        return text[end:]

    def _fail(self) -> None:
        self._failures += 1
        self._phase = "text" if self._failures < _MOST_FAILURES else "past"

    def _body(self, gathered: str) -> str:
        return gathered[self._began + (0 if self._family.keeps_marks else len(self._family.opens)) :]

    def _call(self, body: str, out: list[Delta], *, whole: bool) -> bool:
        """Emit the calls of a body; False if any part of it is not a call of a known function."""
        calls = self._functions.calls(body, whole=whole)
        for name, arguments in calls:
            out += (CallOpened(self._index, "", name), CallArguments(self._index, arguments))
            self._index += 1
        if not calls:
            return False
        self._phase = "called"
        self._quotes.advance("\n")  # the text after the call continues as on a new line
        return True

    def _say(self, text: str, out: list[Delta]) -> None:
        self._quotes.advance(text)
        self._give(text, out)

    def _give(self, text: str, out: list[Delta]) -> None:
        if text:
            self._said = True
            out.append(Text(text))

    def _settle(self) -> None:
        """Determine which of the next tokens may pass."""
        settled = self._phase == "text" and not self._held and self._quotes.settled
        quoted = settled and self._quotes.quoted
        self._open = settled and not quoted
        self._fenced = settled and quoted


def _with_opening_mark(body: str) -> str:
    """With the missing opening mark added if the first mark is a closing one."""
    mark = ENDS_OF_JSON.pattern.search(body)
    return body if mark is None or mark[0] in BY_MARK else f"{_OPENS[0]}{body}"


def _may_be_left_over(text: str) -> bool:
    """Whether the text is a leftover mark or the beginning of one."""
    return any(mark.startswith(text.rstrip()) for mark in LEFT_OVER)


def _reopens(text: str, at: int) -> bool:
    """Whether another call begins at that position."""
    return text[at : at + 100].lstrip().startswith(_OPENS)
