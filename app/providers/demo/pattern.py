"""Generates a string that matches a regular expression: the subset of the syntax that `pattern` in tool schemas uses.

Literals, escapes, classes, groups, alternation, quantifiers and anchors. Look-around and back references are not
supported.
"""

from __future__ import annotations

import re

_CLASSES = {"d": "0", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a"}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}
_CANDIDATES = "aA0_-. @#/:+中" + "".join(map(chr, range(33, 127)))
_LONGEST = 10_000
"""Characters. Patterns come from clients, and `a{100000000}` is a short one."""
_QUANTIFIER = re.compile(r"\*|\+|\?|\{(\d+)(,?)(\d*)\}")


def write(pattern: str, *, shortest: int = 0) -> str | None:
    """A string of at least `shortest` characters with a match of `pattern`, or None if this generator cannot
    make one.
    """
    try:
        known = re.compile(pattern)
        for extra in (0, 1, shortest):
            text = _Writer(pattern, extra).alternatives()
            if len(text) >= shortest and known.search(text):
                return text
    except (re.error, ValueError, IndexError):
        return None
    return None


class _Writer:
    """Reads the pattern from left to right and writes its first alternative, with `extra` more repetitions than
    required.
    """

    def __init__(self, pattern: str, extra: int) -> None:
        self._pattern = pattern
        self._extra = extra
        self._at = 0

    def alternatives(self) -> str:
        """Everything up to the end of the pattern or of the group."""
        written = self._sequence()
        while self._take("|"):
            self._sequence()
        return written

    def _sequence(self) -> str:
        written: list[str] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            atom = self._atom()
            times = self._times()
            if len(atom) * times > _LONGEST:
                raise ValueError(self._pattern)
            written.append(atom * times)
        return "".join(written)

    def _atom(self) -> str:
        character = self._next()
        match character:
            case "^" | "$":
                return ""
            case ".":
                return "a"
            case "[":
                return self._class()
            case "(":
                return self._group()
            case "\\":
                return self._escape()
            case _:
                return character

    def _escape(self) -> str:
        character = self._next()
        if character in "bBAZ":
            return ""
        if character in _CLASSES:
            return _CLASSES[character]
        if character == "u":
            return chr(int("".join(self._next() for _ in range(4)), 16))
        if character.isalnum() and character not in _CONTROLS:
            raise ValueError(character)
        return _CONTROLS.get(character, character)

    def _group(self) -> str:
        if self._take("?") and not self._take(":"):
            raise ValueError(self._pattern)
        written = self.alternatives()
        self._next()
        return written

    def _class(self) -> str:
        """The first plain character that the class accepts, according to `re` itself."""
        start = self._at - 1
        self._take("^")
        self._take("]")
        while (character := self._next()) != "]":
            if character == "\\":
                self._next()
        known = re.compile(self._pattern[start : self._at])
        written = next(
            (candidate for candidate in (*_CANDIDATES, self._pattern[start + 1]) if known.fullmatch(candidate)), None
        )
        if written is None:
            raise ValueError(self._pattern)
        return written

    def _times(self) -> int:
        """The repetitions of the preceding atom."""
        found = _QUANTIFIER.match(self._pattern, self._at)
        if found is None:
            return 1
        self._at = found.end()
        self._take("?")
        least, most = _bounds(found)
        return least + self._extra if most is None else min(least + self._extra, most)

    def _take(self, character: str) -> bool:
        taken = self._pattern.startswith(character, self._at)
        self._at += taken
        return taken

    def _next(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]


def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
    match found[0]:
        case "*":
            return 0, None
        case "+":
            return 1, None
        case "?":
            return 0, 1
        case _:
            least = int(found[1])
            if not found[2]:
                return least, least
            return least, int(found[3]) if found[3] else None
