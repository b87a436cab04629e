"""Tells whether a place in Markdown text is quoted: inside a code fence, or in inline code on its line.

Sans-io: the text comes in pieces, split anywhere. Follows CommonMark 0.31, 4.5 and 6.1, except that inline code ends
with its line, so that one stray backtick cannot hide the rest of an answer.
"""

from __future__ import annotations

import re

_PIECES = re.compile(r"`+|~+|\n|[^`~\n]+")
_FENCE = 3
_LEADS = " \t\r>"
"""Characters allowed before a closing fence."""
_MARKERS = r"[ \t\r>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t\r>]+)*"
_LEAD = re.compile(_MARKERS)
"""Text allowed before an opening fence: list items and block quotes may contain fences."""
_PART_OF_LEAD = re.compile(rf"{_MARKERS}(?:[-*+]|\d{{1,9}}[.)]?)?")
_LONGEST_LEAD = 200


class MarkdownQuotes:
    """The state of reading one text."""

    __slots__ = (
        "_blank",
        "_closing",
        "_fence",
        "_first_line",
        "_inline",
        "_lead",
        "_mark",
        "_opened_by",
        "_run",
        "_run_ends",
        "_run_leads",
    )

    def __init__(self) -> None:
        self._blank = True
        """So far this line contains only what may precede a fence."""
        self._lead = ""
        """That."""
        self._run = 0
        """Number of backticks or tildes just read, while more may follow."""
        self._mark = ""
        """The character they consist of."""
        self._run_leads = False
        """They may open a fence, judging by the text before them on the line."""
        self._run_ends = False
        """They may close one."""
        self._fence = 0
        """Number of characters that opened the fence; 0 outside of one."""
        self._opened_by = ""
        """The character they consist of."""
        self._first_line = False
        """Still on the line that opened the fence."""
        self._closing = False
        """This line closes the fence, unless more text follows on it."""
        self._inline = 0
        """Number of backticks that opened inline code; 0 outside of it."""

    def advance(self, text: str) -> None:
        """Read the next piece."""
        for match in _PIECES.finditer(text):
            piece = match[0]
            if piece[0] in "`~":
                self._mark_read(piece)
                continue
            self._end_run()
            if piece == "\n":
                self._end_line()
            else:
                self._words(piece)

    @property
    def quoted(self) -> bool:
        """Whether the next character is quoted, unless it is a backtick."""
        self._end_run()
        return bool(self._fence or self._inline)

    @property
    def settled(self) -> bool:
        """Whether only a line break or a backtick can change the state."""
        return not (self._blank or self._run or self._closing)

    def _mark_read(self, marks: str) -> None:
        if self._run and self._mark != marks[0]:
            self._end_run()
        if not self._run:
            self._mark = marks[0]
            self._run_leads = self._blank and _LEAD.fullmatch(self._lead) is not None
            self._run_ends = self._blank and not self._lead.strip(_LEADS)
        self._run += len(marks)
        self._blank = False

    def _words(self, words: str) -> None:
        if words.strip(_LEADS):
            self._closing = False
        if self._blank:
            self._lead += words[:_LONGEST_LEAD]
            self._blank = len(self._lead) < _LONGEST_LEAD and _PART_OF_LEAD.fullmatch(self._lead) is not None

    def _end_run(self) -> None:
        run, self._run = self._run, 0
        if not run:
            return
        if self._fence:
            if self._first_line and self._mark == self._opened_by == "`":  # ```so``` on one line is inline code
                self._fence = 0
            elif self._run_ends and run >= self._fence and self._mark == self._opened_by:
                self._closing = True
        elif self._inline:
            self._inline = 0 if run == self._inline and self._mark == "`" else self._inline
        elif self._run_leads and run >= _FENCE:
            self._fence, self._opened_by, self._first_line = run, self._mark, True
        elif self._mark == "`":
            self._inline = run

    def _end_line(self) -> None:
        if self._closing:
            self._fence = 0
        self._blank, self._closing, self._first_line, self._inline = True, False, False, 0
        self._lead = ""
