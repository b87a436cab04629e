"""Parses calls that a model wrote as elements: `<function=f><parameter=p>…`, as Qwen3-Coder does. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from app.protocol.recovery.arguments import read_object
from app.protocol.recovery.schema_values import Properties, dump

SchemaOf = Callable[[str], Properties | None]
"""The parameters of a function named in a body; None if it is unknown."""

FUNCTION_MARKS = ("<function=", "<function name=")

# Possessive and bounded: a body is untrusted, and ambiguous patterns would backtrack.
_FUNCTION = re.compile(r"<function(?:=| name=)\s{0,200}+[\"']?+([^>\"'/\n]{0,200}+)[\"']?+\s{0,200}+/?>")
_PARAMETER = re.compile(r"<parameter(?:=| name=)\s{0,200}+[\"']?+(?P<key>[^>\"'\n]{0,200}+)[\"']?+\s{0,200}+>")
_PARAMETER_END = re.compile(r"</parameter(?:=[^>\n]{0,200}+)?+>")
_FUNCTION_END = re.compile(r"</function(?:=[^>\n]{0,200}+)?+>")
_TAG = re.compile(
    rf"(?P<parameter>{_PARAMETER.pattern})|(?P<parameter_end>{_PARAMETER_END.pattern})"
    rf"|(?P<function>(?:<tool_call>\s{{0,200}}+)?+<function(?:=| "
    rf"name=)[^>\n]{{0,400}}+>)|(?P<function_end>{_FUNCTION_END.pattern})"
)
_STRAY = re.compile(rf"(?:\s|{_PARAMETER_END.pattern})*")
_AFTER_FUNCTION = re.compile(rf"(?:\s|{_FUNCTION_END.pattern}|</?tool_call>)*")
_OPENS_FUNCTION = re.compile(rf"\s*(?:$|\{{|<parameter(?:=| name=)|{_FUNCTION_END.pattern})")
_ENDS_FUNCTION = re.compile(rf"\s*(?:$|{_FUNCTION_END.pattern}|</?tool_call>|<function(?:=| name=))")
_AFTER_VALUE = re.compile(rf"\s*(?:<parameter(?:=| name=)|{_PARAMETER_END.pattern})|{_ENDS_FUNCTION.pattern}")
_DONE = re.compile(rf"(?:{_PARAMETER_END.pattern}|{_FUNCTION_END.pattern})\s*\Z")


class Written(msgspec.Struct, frozen=True):
    """A parsed call."""

    name: str
    arguments: str
    """One JSON object."""


def read_tags(body: str, schema_of: SchemaOf, *, whole: bool) -> list[Written]:
    """Consecutive `<function=…>` elements. Raises ValueError.

    Models omit closing tags, double them, and write files that contain such tags. So a closing tag counts only if a
    valid continuation follows; and a value is first read with the tags inside it balanced.
    """
    try:
        return _Tags(body, schema_of, nests=True, whole=whole).read()
    except ValueError:
        return _Tags(body, schema_of, nests=False, whole=whole).read()


class _Tags:
    """One pass over a body of tags."""

    def __init__(self, body: str, schema_of: SchemaOf, *, nests: bool, whole: bool) -> None:
        self._body = body
        self._schema_of = schema_of
        self._nests = nests
        self._whole = whole
        self._at = 0

    def read(self) -> list[Written]:
        calls: list[Written] = []
        while self._at < len(self._body):
            calls.append(self._function())
            self._skip(_AFTER_FUNCTION)
        return calls

    def _function(self) -> Written:
        opened = _FUNCTION.match(self._body, self._at)
        if opened is None:
            raise ValueError("no <function=…> where one should be")
        self._at = opened.end()
        name = opened[1].strip()
        self._skip(_STRAY)
        if self._body.startswith("{", self._at):
            return Written(name, self._object())
        schema = self._schema_of(name)
        if schema is None:
            raise ValueError("an unknown function")
        if schema.takes_text and not _PARAMETER.match(self._body, self._at):
            return Written(name, self._free_text())
        return Written(name, self._parameters(schema))

    def _parameters(self, schema: Properties) -> str:
        arguments: dict[str, msgspec.Raw] = {}
        taken: set[str] = set()
        while (tag := _TAG.match(self._body, self._at)) and tag["parameter"]:
            self._at = tag.end()
            key = tag["key"].strip()
            taken.add(key)
            arguments[key] = schema.typed(key, _trimmed(self._value(schema, taken)))
            self._skip(_STRAY)
        self._end_function(tag)
        return msgspec.json.encode(arguments).decode()

    def _end_function(self, tag: re.Match[str] | None) -> None:
        if tag and tag["function_end"]:
            self._at = tag.end()
        elif not self._whole or not _ENDS_FUNCTION.match(self._body, self._at):
            raise ValueError("no </function> where one should be")

    def _object(self) -> str:
        """JSON in place of parameter elements."""
        end = self._body.find("</function>", self._at)
        text = self._body[self._at : end if end >= 0 else len(self._body)]
        arguments = read_object(text)
        if arguments is None or (end < 0 and not self._whole):
            raise ValueError("arguments that are no object")
        self._at += len(text) + (len("</function>") if end >= 0 else 0)
        return arguments

    def _free_text(self) -> str:
        """The input of a custom tool, up to the end of the last function."""
        start = self._at
        for end in _FUNCTION_END.finditer(self._body, start):
            if _ENDS_FUNCTION.match(self._body, end.end()):
                self._at = end.end()
                return dump(_trimmed(self._body[start : end.start()]))
        raise ValueError("no </function> where one should be")

    def _value(self, schema: Properties, taken: set[str]) -> str:
        start, depth = self._at, 0
        for tag in _TAG.finditer(self._body, start):
            if self._nests:
                depth += bool(tag["function"])
                if depth:
                    depth -= bool(tag["function_end"])
                    continue
            end = self._ends_value(tag, schema, taken)
            if end is not None:
                self._at = end
                return self._body[start : tag.start()]
        if self._nests or not self._whole:
            raise ValueError("a value without an end")
        self._at = len(self._body)
        return self._body[start:]

    def _ends_value(self, tag: re.Match[str], schema: Properties, taken: set[str]) -> int | None:
        """The position at which to continue if the value ends at this tag, otherwise None."""
        if tag["parameter_end"]:
            return tag.end() if _AFTER_VALUE.match(self._body, tag.end()) else None
        if tag["function_end"]:
            return tag.start() if _ENDS_FUNCTION.match(self._body, tag.end()) else None
        if tag["function"]:
            return tag.start() if self._begins_call(tag) else None
        key = tag["key"].strip()
        known = key in schema.names if schema.names else True
        return tag.start() if known and key not in taken else None

    def _begins_call(self, tag: re.Match[str]) -> bool:
        """Whether the element is a call rather than mentioned in a value."""
        opened = _FUNCTION.match(self._body, self._body.index("<function", tag.start()))
        if opened is None or not _OPENS_FUNCTION.match(self._body, tag.end()):
            return False
        return self._schema_of(opened[1].strip()) is not None

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._body, self._at)
        if match:
            self._at = match.end()


_BREAKS = re.compile(r"\A\r?\n|\r?\n\Z")


def _trimmed(value: str) -> str:
    """Without the line breaks that Qwen's template adds around a value."""
    return _BREAKS.sub("", value)


def tags_are_whole(body: str, mark: str) -> bool:
    """Whether a body of tags ends where the closing mark was found: nothing inside it is open, except the function
    itself.
    """
    opened = [match.start() for match in _FUNCTION.finditer(body)]
    ended = sum(1 for _ in _FUNCTION_END.finditer(body))
    if not opened or ended < len(opened) - 1 or body.count("<tool_call>") > body.count("</tool_call>"):
        return False
    last = body.rfind("</")
    done = last >= 0 and _DONE.match(body, last) is not None
    return done or (mark == "</function>" and "<parameter" not in body[opened[-1] :])
