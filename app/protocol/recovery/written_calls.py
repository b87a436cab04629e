"""Parses the bodies of calls that a model wrote into its text (the text between the marks) to names and arguments.
Pure.

Every reader raises ValueError if any part of the body does not belong to a call: what is not a call must be returned as
written.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Iterator, Sequence

import msgspec

from app.protocol.recovery.arguments import BRACKETS_AND_STRINGS, CLOSING_BRACKETS, STRING, escape_controls, read_object
from app.protocol.recovery.schema_values import Properties, dump, json_like, parse_python, python_literal
from app.protocol.recovery.written_tags import FUNCTION_MARKS, SchemaOf, Written, read_tags

_NAMES = ("name", "function", "tool_name", "tool")
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_BESIDE = frozenset({"type", "id", "index", "call_id"})
"""Other members that servers and clients write beside a name and its arguments."""
_LISTS = ("tool_calls", "function_calls", "calls")
_DEEPEST = 8
"""Maximum depth of wrapped calls."""
_MOST_MISSING = 4
"""Maximum closing brackets added at the end."""
_MOST_CALLS = 256
_BETWEEN = string.whitespace + ",;}]"
"""Characters allowed between two calls."""
_FENCED = re.compile(r"```[a-z_]*[ \t]*\n(.*?)(?:\n[ \t]*```|```)?", re.DOTALL)
_NAMED = re.compile(r"([\w.-]+)\s*(\{.*)", re.DOTALL)
"""A name followed by the arguments."""


def read_calls(body: str, schema_of: SchemaOf, *, whole: bool) -> list[Written]:
    """The calls of a body in any form. Raises ValueError.

    `whole`: the model had finished, so whatever is missing at the end was omitted; otherwise it was cut off.
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
    """Whether the JSON text ends inside a string, so that a mark there is part of it."""
    marks = BRACKETS_AND_STRINGS.findall(text)
    return bool(marks) and marks[-1][0] == '"' and not STRING.fullmatch(marks[-1])


def read_json(body: str, schema_of: SchemaOf, *, whole: bool) -> list[Written]:
    """Consecutive JSON objects, or lists of them; arguments are kept as written. Raises ValueError."""
    calls: list[Written] = []
    while body:
        if body.startswith("{{"):  # from a template with unresolved braces
            body = body[1:]
        value, body = _split_json(body, whole=whole)
        calls += _from_json(value, schema_of, _DEEPEST)
        body = body.lstrip(_BETWEEN)
    return calls


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
    """The value with missing closing brackets added. Raises ValueError."""
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
        return dump(python_literal(body))  # Python quotes
    if missing > _MOST_MISSING or not any(f'"{key}"' in body for key in _ARGUMENTS):
        raise ValueError("cut off")
    return escape_controls("".join(pieces))


def _pop_to(open_marks: list[str], mark: str) -> str:
    """Close the open brackets up to `mark`; returns those missing before it."""
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
        yield from _from_object(
            {**members, **msgspec.json.decode(given, type=dict[str, msgspec.Raw])}, schema_of, depth - 1
        )
        return
    name = msgspec.json.decode(given, type=str).strip()
    schema = schema_of(name)
    beside = {key: value for key, value in members.items() if key not in _BESIDE}
    yield Written(name, _arguments(beside, takes_text=schema is not None and schema.takes_text))


def _arguments(members: dict[str, msgspec.Raw], *, takes_text: bool) -> str:
    key = next((key for key in _ARGUMENTS if key in members), None)
    if takes_text and key is not None:
        return bytes(members[key]).decode()  # its writer handles the possible forms
    found = read_object(bytes(members[key]).decode()) if key is not None else None
    if key in _ARGUMENTS[:2] and found is None:
        raise ValueError("arguments that are no object")
    # Without one of these keys, the members beside the name are the arguments.
    return msgspec.json.encode(members).decode() if found is None else found


def read_python(body: str, schema_of: SchemaOf) -> list[Written]:
    """`f(city="Rome")`, or a list of such calls. Raises ValueError."""
    nodes = [
        one for node in parse_python(body) for one in (node.elts if isinstance(node, ast.List | ast.Tuple) else [node])
    ]
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
    """The called name. Raises ValueError."""
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
    """The source text of a value on one line; "" if it spans several."""
    if node.lineno != node.end_lineno:
        return ""
    return source[node.lineno - 1][node.col_offset : node.end_col_offset].decode()
