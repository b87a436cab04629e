"""Reads the arguments of calls as models really write them. Pure.

Correct arguments are one JSON object. Other forms with a clear meaning are accepted: nothing at all, `null`, the object
as a JSON string, raw line breaks and tabs inside strings, too many closing braces, and the object repeated after
itself.
"""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

MALFORMED = "malformed_arguments"
"""The key under which a model reads arguments that were not a JSON object: upstreams refuse requests with such calls in
the history.
"""

_CONTROL = re.compile(r"[\x00-\x1f]")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
BRACKETS_AND_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\]]', re.DOTALL)
"""Strings, the last of which may be unterminated, and brackets outside of them."""
CLOSING_BRACKETS = {"{": "}", "[": "]"}
_DEEPEST = 1500
"""Brackets in each other; what has more cannot be decoded."""
_MOST_WRAPPED = 3
"""How many times an object may be nested as a string inside a string."""
_WRAPPER_BEGUN = re.compile(r'\{\s*(?:"(?:i(?:n(?:p(?:u(?:t(?:"(?:\s*:.*)?)?)?)?)?)?)?)?\Z', re.DOTALL)
_QUOTED_WRONGLY = re.compile(r'\{\s*"input"\s*:\s*"(.*)"\s*\}', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\/bfnrt])')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_UNREADABLE = (msgspec.DecodeError, UnicodeEncodeError, RecursionError)
"""What decoding raises for text that is not JSON, contains unpaired surrogates, or is nested too deeply."""

_encode = msgspec.json.encode
_CONTROLS_ESCAPED = {number: _encode(chr(number)).decode()[1:-1] for number in range(0x20)}
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class InvalidArguments(Exception):
    """The model finished a call with invalid arguments."""

    def __init__(self, name: str, fault: str = "are not valid JSON") -> None:
        super().__init__(f"The model wrote arguments for '{name}' that {fault}.")


def is_object(text: str) -> bool:
    """Whether the text is one JSON object."""
    try:
        _object_decoder.decode(text)
    except _UNREADABLE:
        return False
    return True


def read_object(text: str) -> str | None:
    """The JSON object that is meant, unchanged if the text already is one; None if there is none."""
    for _ in range(_MOST_WRAPPED):
        if is_object(text):
            return text
        body = text.strip()
        if body in ("", "null"):
            return "{}"
        inner = _read_string(body) if body.startswith('"') else None
        if inner is None:
            return _read_inexact(escape_controls(body)) if body.startswith("{") else None
        text = inner
    return None


def sendable(text: str) -> str:
    """The arguments in a form that upstreams accept, always a JSON object: anything else goes under the key
    `MALFORMED`.
    """
    found = read_object(text)
    return found if found is not None else _encode({MALFORMED: text}).decode()


FREE_TEXT = msgspec.Raw(
    b'{"type":"object","properties":{"input":{"type":"string","description":"The whole input, as free '
    b'text."}},"required":["input"]}'
)
"""The parameters of the function that represents a custom tool."""


def read_text(text: str) -> str | None:
    """The free-text input of a custom tool call; None if there is none.

    Instead of `{"input": "…"}` models also write the bare text, a JSON string, or an object with one member of another
    name.
    """
    body = text.strip()
    if body.startswith('"'):
        inner = _read_string(body)
        return text if inner is None else _read_wrapped(inner)
    if body.startswith("{"):
        return _read_wrapped(text)
    return text if body else None


def escape_controls(text: str) -> str:
    """The JSON text with raw control characters in strings escaped."""
    if _CONTROL.search(text) is None:
        return text
    return STRING.sub(lambda string: string[0].translate(_CONTROLS_ESCAPED), text)


def _is_excess(rest: str, whole: str) -> bool:
    """Whether the text after the object adds nothing: white space, surplus closing braces, or the same object again."""
    if not rest.strip("} \t\r\n"):
        return True
    return same_object(rest, whole)


def same_object(one: str, other: str) -> bool:
    """Whether both are JSON and have equal values."""
    try:
        return msgspec.json.decode(one) == msgspec.json.decode(other)
    except _UNREADABLE:
        return False


def _closed(text: str) -> str | None:
    """The object with missing closing brackets added; None if that does not make it valid."""
    missing = "".join(reversed(_split(text)[1]))
    whole = text + missing
    return whole if text[-1:] not in CLOSING_BRACKETS and is_object(whole) else None


def _read_inexact(body: str) -> str | None:
    """An object, possibly followed by other text."""
    if is_object(body):
        return body
    end, _ = _split(body)
    whole, rest = body[:end], body[end:]
    return whole if is_object(whole) and _is_excess(rest, whole) else None


def _split(body: str) -> tuple[int, list[str]]:
    """The end of the object at the beginning of the text; or 0, and the brackets that would close it."""
    open_brackets: list[str] = []
    for mark in BRACKETS_AND_STRINGS.finditer(body):
        if mark[0] in CLOSING_BRACKETS:
            open_brackets.append(CLOSING_BRACKETS[mark[0]])
            if len(open_brackets) > _DEEPEST:
                break
        elif open_brackets and mark[0] == open_brackets[-1]:
            open_brackets.pop()
            if not open_brackets:
                return mark.end(), []
    return 0, open_brackets


def _read_string(text: str) -> str | None:
    try:
        return msgspec.json.decode(escape_controls(text), type=str)
    except _UNREADABLE:
        return None


def _read_wrapped(text: str) -> str | None:
    """The text in the object; the whole text if it is not a wrapper, None for a wrapper without a text."""
    body = text.strip()
    found = read_object(body) if body.startswith("{") else None
    if found is None:
        quoted = _QUOTED_WRONGLY.fullmatch(body)
        if quoted:
            return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), quoted[1])
        return None if _WRAPPER_BEGUN.match(body) else text
    members = cast("dict[str, Any]", msgspec.json.decode(found))
    if not members:
        return None
    value = members.get("input", next(iter(members.values())) if len(members) == 1 else members)
    if isinstance(value, str):
        return value
    return _encode(value).decode() if "input" in members else text


class ArgumentsReader:
    """The arguments of a call in progress: which text can be shown already, and at the end whether they are valid.

    An object is shown as it comes, with raw control characters in its strings escaped. Anything else waits for the end,
    and so does a fragment that may be the object repeated from its beginning. Shown text is never retracted.
    """

    __slots__ = (
        "_brackets",
        "_escaped",
        "_excess",
        "_held",
        "_in_string",
        "_is_object",
        "_shown",
        "_size",
        "_told_again",
        "whole",
    )

    def __init__(self) -> None:
        self.whole = False
        """The object's last brace has been received."""
        self._is_object: bool | None = None
        """None: only white space so far."""
        self._shown: list[str] = []
        self._size = 0
        """Characters shown."""
        self._held: list[str] = []
        """All text, until it is known to be an object."""
        self._told_again = ""
        self._excess: list[str] = []
        """Text after the object."""
        self._brackets = 0
        self._in_string = False
        self._escaped = False

    def feed(self, fragment: str) -> str:
        """Add a fragment; returns the text that may be shown now."""
        if self.whole:
            self._excess.append(fragment)
            return ""
        if not self._is_object:
            return self._begin(fragment)
        if self._told_again:  # it was part of the object after all
            fragment, self._told_again = self._told_again + fragment, ""
        elif len(fragment) > self._size and fragment.startswith(self.text()) and read_object(fragment) is not None:
            self._told_again = fragment
            return ""
        return self._show(self._scan(fragment))

    def end(self) -> str | None:
        """The rest of valid arguments, to be shown; None if they are invalid."""
        if not self._is_object:
            found = read_object("".join(self._held))
            return None if found is None else self._show(found)
        shown = self.text()
        if self.whole:
            return "" if is_object(shown) and _is_excess("".join(self._excess), shown) else None
        begun = shown.lstrip()
        for whole in (read_object(begun + self._told_again), self._told_again, _closed(begun)):
            if whole and whole.startswith(begun) and is_object(whole):
                return self._show(whole[len(begun) :])
        return None

    def release(self) -> str:
        """The rest of arguments that were cut off, to be shown."""
        held, self._held = "".join(self._held), []
        return self._show(held + self._told_again[self._size :])

    def text(self) -> str:
        """The text shown so far."""
        return "".join(self._shown)

    def pieces(self) -> list[str]:
        """The text shown so far, in the pieces in which it was shown."""
        return self._shown

    def _begin(self, fragment: str) -> str:
        self._held.append(fragment)
        start = fragment.lstrip() if self._is_object is None else ""
        if start:
            self._is_object = start.startswith("{")
        if not self._is_object:
            return ""
        held, self._held = "".join(self._held), []
        return self._show(self._scan(held))

    def _show(self, text: str) -> str:
        if text:
            self._shown.append(text)
            self._size += len(text)
        return text

    def _scan(self, fragment: str) -> str:
        """The fragment up to the object's last brace, with raw control characters in strings escaped."""
        at, end, pieces = 0, len(fragment), list[str]()
        while at < end:
            if self._escaped:
                self._escaped = False
                pieces.append(fragment[at])
                at += 1
                continue
            mark = (_IN_STRING if self._in_string else _OUTSIDE).search(fragment, at)
            stop = mark.start() if mark else end
            pieces.append(fragment[at:stop])
            if mark is None:
                break
            pieces.append(self._pass(mark[0]))
            at = stop + 1
            if self.whole:
                self._excess.append(fragment[at:])
                break
        return "".join(pieces)

    def _pass(self, mark: str) -> str:
        """Process a character that changes the state; returns how it is shown."""
        match mark:
            case '"':
                self._in_string = not self._in_string
            case "\\":
                self._escaped = True
            case "{" | "[":
                self._brackets += 1
            case "}" | "]":
                self._brackets -= 1
                self.whole = self._brackets == 0
            case _:
                return _encode(mark).decode()[1:-1]
        return mark


class HeldArguments:
    """The arguments of a call that shows nothing until they are complete."""

    __slots__ = ("_fragments", "_reader")

    def __init__(self) -> None:
        self._fragments: list[str] = []
        self._reader = ArgumentsReader()

    @property
    def whole(self) -> bool:
        """Whether nothing more can be added; never known for a bare text."""
        return self._reader.whole

    def feed(self, fragment: str) -> None:
        """Add a fragment."""
        self._fragments.append(fragment)
        self._reader.feed(fragment)

    def text(self) -> str:
        """The arguments as the model wrote them."""
        return "".join(self._fragments)

    def is_right(self) -> bool:
        """Whether the text after a complete object adds nothing to it."""
        return self._reader.end() is not None


_IN_STRING = re.compile(r'["\\\x00-\x1f]')
_OUTSIDE = re.compile(r'["{}\[\]]')
