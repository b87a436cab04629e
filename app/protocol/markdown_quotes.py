"""Whether a place in Markdown text is quoted: inside a code fence, or in inline code on its line.

Sans-io: the text comes in pieces, cut anywhere. By CommonMark 0.31, 4.5 and 6.1, but that inline code ends with its line, so that one
stray backtick cannot hide the rest of an answer.
"""

from __future__ import annotations

import re

_PIECES = re.compile(r"`+|\n|[^`\n]+")
_FENCE = 3
_LEADS = " \t\r>"
"""What may stand before a fence."""


class MarkdownQuotes:
    """The reading of one text."""

    __slots__ = ("_blank", "_closing", "_fence", "_first_line", "_inline", "_run", "_run_leads")

    def __init__(self) -> None:
        self._blank = True
        """Nothing has been written on this line."""
        self._run = 0
        """The backticks just read, as long as more may follow."""
        self._run_leads = False
        """They are the first thing on their line."""
        self._fence = 0
        """The backticks that opened the fence, 0 outside of one."""
        self._first_line = False
        """On the line that opened the fence."""
        self._closing = False
        """This line ends the fence, if nothing more comes on it."""
        self._inline = 0
        """The backticks that opened inline code, 0 outside of it."""

    def advance(self, text: str) -> None:
        """Read the next piece."""
        for match in _PIECES.finditer(text):
            piece = match[0]
            if piece[0] == "`":
                self._run_leads = self._blank if not self._run else self._run_leads
                self._run += len(piece)
                self._blank = False
                continue
            self._end_run()
            if piece == "\n":
                self._end_line()
            elif piece.strip(_LEADS):
                self._blank = self._closing = False

    @property
    def quoted(self) -> bool:
        """What comes next is quoted, if it is no backtick."""
        self._end_run()
        return bool(self._fence or self._inline)

    @property
    def settled(self) -> bool:
        """Only a line break or a backtick can change anything."""
        return not (self._blank or self._run or self._closing)

    def _end_run(self) -> None:
        run, self._run = self._run, 0
        if not run:
            return
        if self._fence:
            if self._first_line:  # ```so``` on one line is inline code
                self._fence = 0
            elif self._run_leads and run >= self._fence:
                self._closing = True
        elif self._inline:
            self._inline = 0 if run == self._inline else self._inline
        elif self._run_leads and run >= _FENCE:
            self._fence, self._first_line = run, True
        else:
            self._inline = run

    def _end_line(self) -> None:
        if self._closing:
            self._fence = 0
        self._blank, self._closing, self._first_line, self._inline = True, False, False, 0
