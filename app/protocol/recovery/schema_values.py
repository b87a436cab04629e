"""Converts values that a model wrote without quotes to JSON of the types in the function's schema. Pure.

Tags (`<parameter=zip>94103</parameter>`) and Python text have no JSON types. If a schema allows several types, the
narrowest one that fits wins and `string` comes last, as in vLLM's and SGLang's parsers; if it allows only `string`, the
text stays as it is.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from app.protocol.recovery.arguments import FREE_TEXT, escape_controls

Schema = dict[str, Any]

_KINDS = ("null", "boolean", "integer", "number", "object", "array", "string")
"""JSON types, in the order in which they are tried."""
_MOST_STEPS = 16
"""Maximum depth to which references and alternatives are followed; schemas may be recursive."""
_LONGEST_LITERAL = 65_536
"""Maximum characters, since Python's parser takes time and memory; longer values are parsed as JSON only."""
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d{1,400}")

_encode = msgspec.json.encode


class Properties:
    """The parameters of one function, from its JSON schema. An unreadable schema defines no parameters."""

    def __init__(self, parameters: bytes) -> None:
        try:
            root: object = msgspec.json.decode(parameters)
        except (msgspec.DecodeError, RecursionError):
            root = None
        self._root: Schema = cast("Schema", root) if isinstance(root, dict) else {}
        self._properties: Schema = {}
        for one in _alternatives(self._root, self._root):
            self._properties |= _members(one.get("properties"))
        self._others = _followed(self._root, self._root).get("additionalProperties")
        self.names = list(self._properties)
        """In the schema's order."""
        self.takes_text = parameters == bytes(FREE_TEXT)
        """Whether it is a custom tool, whose input is free text."""

    def typed(self, name: str, text: str) -> msgspec.Raw:
        """The parameter's value as JSON."""
        schema: object = self._properties.get(name, self._others)
        if not isinstance(schema, dict):
            return _untyped(text)
        found = list(_alternatives(cast("Schema", schema), self._root))
        for literal in (value for one in found for value in _literals(one)):
            if text.strip() in (literal, _json_text(literal), f"'{literal}'"):
                return msgspec.Raw(_json_text(literal).encode())
        kinds = {kind for one in found for kind in _kinds(one)}
        if "string" in kinds and not text.strip():
            kinds = {"string"}
        for kind in _KINDS:
            if kind in kinds and (value := _READERS[kind](text)) is not None:
                return msgspec.Raw(value.encode())
        return _untyped(text)


def python_literal(text: str) -> object:
    """The value of a Python literal. Raises ValueError, also for values that JSON does not have."""
    if len(text) > _LONGEST_LITERAL:
        raise ValueError("too long for a literal")
    (node,) = parse_python(text.strip())
    return json_like(node)


def parse_python(text: str) -> list[ast.expr]:
    """Python expressions, one per line; nothing is run. Raises ValueError."""
    if len(text) > _LONGEST_LITERAL:
        raise ValueError("too long for Python")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in a model's strings
            statements = ast.parse(text).body
    except (SyntaxError, MemoryError, RecursionError) as error:  # the latter two: the parser's own limits
        raise ValueError("no Python") from error
    expressions = [statement.value for statement in statements if isinstance(statement, ast.Expr)]
    if not expressions or len(expressions) < len(statements):
        raise ValueError("more than expressions")
    return expressions


_NAMED = {"true": True, "false": False, "null": None}


def json_like(node: ast.expr) -> object:
    """The value of a literal, which may contain JSON's `true`, `false` and `null`. Raises ValueError."""
    try:
        return _value(node)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name) if name in _NAMED:
            return _NAMED[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if not isinstance(
            value, bool
        ):
            return -value
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case _:
            raise ValueError("no literal that JSON knows")


def _key(node: ast.expr | None) -> str:
    match node:
        case ast.Constant(value=str() as key):
            return key
        case _:
            raise ValueError("a key that is no string")


def dump(value: object) -> str:
    """The value as JSON text. Raises ValueError for values that JSON cannot express."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _untyped(text: str) -> msgspec.Raw:
    """The text itself if it is JSON, otherwise as a JSON string."""
    found = _json(text)
    return msgspec.Raw((_json_text(text) if found is None else found).encode())


def _json_text(value: object) -> str:
    return _encode(value).decode() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(text: str) -> str | None:
    """The text without surrounding white space, if it is JSON."""
    body = text.strip()
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return body


def _null(text: str) -> str | None:
    return "null" if text.strip().lower() in ("null", "none", "") else None


def _boolean(text: str) -> str | None:
    word = text.strip().lower()
    return word if word in ("true", "false") else None


def _integer(text: str) -> str | None:
    body = text.strip().strip("\"'")
    if _INTEGER.fullmatch(body):
        return str(int(body))
    if _NUMBER.fullmatch(body) and (number := float(body)).is_integer():
        return str(int(number))
    return None


def _number(text: str) -> str | None:
    body = text.strip().strip("\"'")
    if _NUMBER.fullmatch(body):
        return body
    try:
        return dump(float(body))
    except ValueError:  # not a number, or one that JSON cannot express
        return None


def _container(openings: tuple[str, ...], kind: type) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        body = text.strip()
        if body.startswith('"'):  # JSON inside a JSON string
            inner = _json(body)
            body = msgspec.json.decode(inner, type=str).strip() if inner is not None else body
        if not body.startswith(openings):
            return None
        found = _json(escape_controls(body))
        return found if found is not None else _from_python(body, kind)

    return read


def _from_python(text: str, kind: type) -> str | None:
    try:
        value = python_literal(text)
        return dump(value) if isinstance(value, kind) else None
    except ValueError:
        return None


_READERS: dict[str, Callable[[str], str | None]] = {
    "null": _null,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "object": _container(("{",), dict),
    "array": _container(("[", "("), list),
    "string": _json_text,
}


def _alternatives(schema: object, root: Schema, steps: int = _MOST_STEPS) -> Iterator[Schema]:
    """The schema with references resolved, and the alternatives of its `anyOf`, `oneOf` and `allOf`."""
    if not isinstance(schema, dict) or not steps:
        return
    found = _followed(cast("Schema", schema), root)
    yield found
    for keyword in ("anyOf", "oneOf", "allOf"):
        for one in _elements(found.get(keyword)):
            yield from _alternatives(one, root, steps - 1)


def _followed(schema: Schema, root: Schema) -> Schema:
    """The target of the schema's `$ref` inside its root, or the schema itself."""
    for _ in range(_MOST_STEPS):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            break
        target: object = root
        for part in reference.split("/")[1:]:
            target = _members(target).get(part.replace("~1", "/").replace("~0", "~"))
        schema = {**_members(target), **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _literals(schema: Schema) -> list[object]:
    literals = list(_elements(schema.get("enum")))
    return [*literals, schema["const"]] if "const" in schema else literals


def _kinds(schema: Schema) -> Iterator[str]:
    named = schema.get("type")
    if isinstance(named, str):
        yield named
    yield from (one for one in _elements(named) if isinstance(one, str))
    if schema.get("nullable") is True:
        yield "null"
    if named is None and "properties" in schema:
        yield "object"
    if named is None and "items" in schema:
        yield "array"


def _members(value: object) -> Schema:
    return cast("Schema", value) if isinstance(value, dict) else {}


def _elements(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
