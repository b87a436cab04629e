"""The bodies of calls that a model wrote into its text: what stands between the marks, to names and arguments. Pure.

Every reader raises ValueError when anything of the body belongs to no call: what is no call must be given back as it was written.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence

import msgspec

from app.protocol.arguments import BRACKETS_AND_STRINGS, CLOSING_BRACKETS, STRING, escape_controls, read_object
from app.protocol.schema_values import Properties, dump, json_like, parse_python, python_literal

SchemaOf = Callable[[str], Properties | None]
"""The parameters of a function that a body names; for one that is not known it says nothing."""

_NAMES = ("name", "function", "tool_name", "tool")
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_BESIDE = frozenset({"type", "id", "index", "call_id"})
"""What else servers and clients write beside a name and its arguments."""
_LISTS = ("tool_calls", "function_calls", "calls")
_DEEPEST = 8
"""How deep calls may be wrapped."""
_MOST_MISSING = 4
"""Closing brackets that are added at the end."""
_MOST_CALLS = 256
_BETWEEN = re.compile(r"[\s,;}\]]*")
_FENCED = re.compile(r"```[a-z_]*[ \t]*\n(.*?)(?:\n[ \t]*```|```)?", re.DOTALL)
_NAMED = re.compile(r"([\w.-]+)\s*(\{.*)", re.DOTALL)
"""A name with the arguments behind it."""


class Written(msgspec.Struct, frozen=True):
    """A call as it was found."""

    name: str
    arguments: str
    """One JSON object."""


def read_calls(body: str, schema_of: SchemaOf, *, whole: bool) -> list[Written]:
    """The calls of a body, whichever way it is written. Raises ValueError.

    `whole`: the model was done writing, so that what is missing at the end was forgotten; else it was cut off.
    """
    body = unfenced(body.strip())
    if body.startswith(FUNCTION_MARKS):
        return read_tags(body, schema_of, whole=whole)
    if body.startswith(("{", "[")):
        try:
            return read_json(body, schema_of, whole=whole)
        except ValueError:
            if not body.startswith("["):
                raise
    named = _NAMED.fullmatch(body)
    if named and (arguments := read_object(named[2])) is not None:
        return [Written(named[1], arguments)]
    return read_python(body, schema_of)


def unfenced(text: str) -> str:
    """Without the Markdown fence around it, if there is one."""
    fenced = _FENCED.fullmatch(text)
    return fenced[1].strip() if fenced else text


def ends_in_string(text: str) -> bool:
    """The JSON text ends inside a string, so that a mark there is part of it."""
    marks = BRACKETS_AND_STRINGS.findall(text)
    return bool(marks) and marks[-1][0] == '"' and not STRING.fullmatch(marks[-1])


def read_json(body: str, schema_of: SchemaOf, *, whole: bool) -> list[Written]:
    """JSON objects, or lists of them, one after another; arguments are kept as written. Raises ValueError."""
    calls: list[Written] = []
    while body:
        if body.startswith("{{"):  # as in a template whose braces were not resolved
            body = body[1:]
        value, body = _split_json(body, whole=whole)
        calls += _from_json(value, schema_of, _DEEPEST)
        body = body[_after(_BETWEEN, body, 0) :]
    return calls


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _split_json(body: str, *, whole: bool) -> tuple[str, str]:
    """The first JSON value, and what follows it. Raises ValueError."""
    try:
        end = _SCANNER.raw_decode(body)[1]
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except ValueError:
        if not whole:
            raise
        return _completed(body), ""
    return escape_controls(body[:end]), body[end:]


_SCANNER = json.JSONDecoder(strict=False)


def _completed(body: str) -> str:
    """The value with the closing brackets that are missing. Raises ValueError."""
    pieces: list[str] = []
    open_marks: list[str] = []
    at = missing = 0
    for match in BRACKETS_AND_STRINGS.finditer(body):
        mark = match[0]
        if mark in CLOSING_BRACKETS:
            open_marks.append(CLOSING_BRACKETS[mark])
        elif mark[0] != '"' and mark in open_marks[-_MOST_MISSING - 1 :]:
            forgotten = _pop_to(open_marks, mark)
            pieces += (body[at : match.start()], forgotten)
            at, missing = match.start(), missing + len(forgotten)
            if missing > _MOST_MISSING:
                raise ValueError("cut off")
    pieces += (body[at:], *reversed(open_marks))
    missing += len(open_marks)
    if not missing:
        return dump(python_literal(body))  # quoted as in Python
    if missing > _MOST_MISSING or not any(f'"{key}"' in body for key in _ARGUMENTS):
        raise ValueError("cut off")
    return escape_controls("".join(pieces))


def _pop_to(open_marks: list[str], mark: str) -> str:
    """Close what is open up to `mark`; what was forgotten before it."""
    forgotten = ""
    while (one := open_marks.pop()) != mark:
        forgotten += one
    return forgotten


def _from_json(value: str | msgspec.Raw, schema_of: SchemaOf, depth: int) -> Iterator[Written]:
    text = value if isinstance(value, str) else bytes(value).decode()
    if not depth:
        raise ValueError("wrapped too deep")
    try:
        if text.startswith("["):
            for element in msgspec.json.decode(text, type=list[msgspec.Raw]):
                yield from _from_json(element, schema_of, depth - 1)
        else:
            yield from _from_object(msgspec.json.decode(text, type=dict[str, msgspec.Raw]), schema_of, depth)
    except (RecursionError, UnicodeEncodeError) as error:
        raise ValueError("nothing that can be read") from error


def _from_object(members: dict[str, msgspec.Raw], schema_of: SchemaOf, depth: int) -> Iterator[Written]:
    for key in _LISTS:
        if key in members:
            yield from _from_json(members[key], schema_of, depth - 1)
            return
    name_key = next((key for key in _NAMES if key in members), None)
    if name_key is None:
        raise ValueError("a call without a name")
    given = members.pop(name_key)
    if bytes(given).startswith(b"{"):  # OpenAI's wrapper
        if depth == 1:
            raise ValueError("wrapped too deep")
        yield from _from_object({**members, **msgspec.json.decode(given, type=dict[str, msgspec.Raw])}, schema_of, depth - 1)
        return
    name = msgspec.json.decode(given, type=str).strip()
    schema = schema_of(name)
    beside = {key: value for key, value in members.items() if key not in _BESIDE}
    yield Written(name, _arguments(beside, takes_text=schema is not None and schema.takes_text))


def _arguments(members: dict[str, msgspec.Raw], *, takes_text: bool) -> str:
    key = next((key for key in _ARGUMENTS if key in members), None)
    if takes_text and key is not None:
        return bytes(members[key]).decode()  # whose writer knows the ways in which it comes
    found = read_object(bytes(members[key]).decode()) if key is not None else None
    if key in _ARGUMENTS[:2] and found is None:
        raise ValueError("arguments that are no object")
    # Without one of these keys, what stands beside the name is meant.
    return msgspec.json.encode(members).decode() if found is None else found


def read_python(body: str, schema_of: SchemaOf) -> list[Written]:
    """`f(city="Rome")`, or a list of such. Raises ValueError."""
    nodes = [one for node in parse_python(body) for one in (node.elts if isinstance(node, ast.List | ast.Tuple) else [node])]
    if not 0 < len(nodes) <= _MOST_CALLS:
        raise ValueError("no call, or more than anybody makes")
    lines = body.encode().split(b"\n")
    return [_from_python(node, lines, schema_of) for node in nodes]


def _from_python(node: ast.expr, source: Sequence[bytes], schema_of: SchemaOf) -> Written:
    if not isinstance(node, ast.Call):
        raise ValueError("no call")
    name = _dotted(node.func)
    schema = schema_of(name)
    if schema is None:
        raise ValueError("an unknown function")
    names = schema.names
    if len(node.args) > len(names):
        raise ValueError("more arguments than parameters")
    given = [*zip(names, node.args, strict=False), *((word.arg, word.value) for word in node.keywords)]
    arguments: dict[str, msgspec.Raw] = {}
    for key, value in given:
        if key is None:  # **more
            raise ValueError("no literal")
        arguments[key] = _python_value(key, value, source, schema)
    return Written(name, msgspec.json.encode(arguments).decode())


def _dotted(node: ast.expr) -> str:
    """The name that is called. Raises ValueError."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ValueError("no name")
    return ".".join([node.id, *reversed(parts)])


def _python_value(key: str, node: ast.expr, source: Sequence[bytes], schema: Properties) -> msgspec.Raw:
    value = json_like(node)
    if isinstance(value, str):
        return schema.typed(key, value) if key in schema.names else msgspec.Raw(dump(value).encode())
    if key in schema.names:
        return schema.typed(key, _as_written(node, source) or dump(value))
    return msgspec.Raw(dump(value).encode())


def _as_written(node: ast.expr, source: Sequence[bytes]) -> str:
    """The text of a value on one line; "" for one on several."""
    if node.lineno != node.end_lineno:
        return ""
    return source[node.lineno - 1][node.col_offset : node.end_col_offset].decode()


FUNCTION_MARKS = ("<function=", "<function name=")

# Possessive and bounded: a body is the model's, and what matches in two ways is tried in all of them.
_FUNCTION = re.compile(r"<function(?:=| name=)\s{0,200}+[\"']?+([^>\"'/\n]{0,200}+)[\"']?+\s{0,200}+/?>")
_PARAMETER = re.compile(r"<parameter(?:=| name=)\s{0,200}+[\"']?+(?P<key>[^>\"'\n]{0,200}+)[\"']?+\s{0,200}+>")
_PARAMETER_END = re.compile(r"</parameter(?:=[^>\n]{0,200}+)?+>")
_FUNCTION_END = re.compile(r"</function(?:=[^>\n]{0,200}+)?+>")
_TAG = re.compile(
    rf"(?P<parameter>{_PARAMETER.pattern})|(?P<parameter_end>{_PARAMETER_END.pattern})"
    rf"|(?P<function>(?:<tool_call>\s{{0,200}}+)?+<function(?:=| name=)[^>\n]{{0,400}}+>)|(?P<function_end>{_FUNCTION_END.pattern})"
)
_STRAY = re.compile(rf"(?:\s|{_PARAMETER_END.pattern})*")
_AFTER_FUNCTION = re.compile(rf"(?:\s|{_FUNCTION_END.pattern}|</?tool_call>)*")
_OPENS_FUNCTION = re.compile(rf"\s*(?:$|\{{|<parameter(?:=| name=)|{_FUNCTION_END.pattern})")
_ENDS_FUNCTION = re.compile(rf"\s*(?:$|{_FUNCTION_END.pattern}|</?tool_call>|<function(?:=| name=))")
_AFTER_VALUE = re.compile(rf"\s*(?:<parameter(?:=| name=)|{_PARAMETER_END.pattern})|{_ENDS_FUNCTION.pattern}")
_DONE = re.compile(rf"(?:{_PARAMETER_END.pattern}|{_FUNCTION_END.pattern})\s*\Z")


def read_tags(body: str, schema_of: SchemaOf, *, whole: bool) -> list[Written]:
    """`<function=…>` elements one after another. Raises ValueError.

    Models forget closing tags, double them, and write files that hold such tags themselves. So a closing tag counts when what
    follows is what may follow it; and a value is first read with the tags inside it balanced.
    """
    try:
        return _Tags(body, schema_of, nests=True, whole=whole).read()
    except ValueError:
        return _Tags(body, schema_of, nests=False, whole=whole).read()


class _Tags:
    """One reading of a body in tags."""

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
        """JSON where parameters should be."""
        end = self._body.find("</function>", self._at)
        text = self._body[self._at : end if end >= 0 else len(self._body)]
        arguments = read_object(text)
        if arguments is None or (end < 0 and not self._whole):
            raise ValueError("arguments that are no object")
        self._at += len(text) + (len("</function>") if end >= 0 else 0)
        return arguments

    def _free_text(self) -> str:
        """Of a custom tool, up to the end of the function that nothing follows."""
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
        """Where to go on, when the value ends at this tag."""
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
        """Whether the element is a call, and not spoken of in a value."""
        opened = _FUNCTION.match(self._body, self._body.index("<function", tag.start()))
        if opened is None or not _OPENS_FUNCTION.match(self._body, tag.end()):
            return False
        return self._schema_of(opened[1].strip()) is not None

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._at = _after(pattern, self._body, self._at)


_BREAKS = re.compile(r"\A\r?\n|\r?\n\Z")


def _trimmed(value: str) -> str:
    """Without the line breaks that Qwen's template puts around a value."""
    return _BREAKS.sub("", value)


def tags_are_whole(body: str, mark: str) -> bool:
    """Whether a body in tags ends where the closing mark was found: nothing inside it is open any more, the function itself apart."""
    opened = [match.start() for match in _FUNCTION.finditer(body)]
    ended = sum(1 for _ in _FUNCTION_END.finditer(body))
    if not opened or ended < len(opened) - 1 or body.count("<tool_call>") > body.count("</tool_call>"):
        return False
    last = body.rfind("</")
    done = last >= 0 and _DONE.match(body, last) is not None
    return done or (mark == "</function>" and "<parameter" not in body[opened[-1] :])
