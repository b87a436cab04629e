"""Structured outputs: is a schema usable, does an answer match it, and where in a chatty answer is the JSON.

Schemas and answers come from outside, so the work is bounded: nothing is fetched, and what a check may cost is estimated before it
is made, since a few lines of references can stand for billions of subschemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

import msgspec

from app.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from jsonschema_rs import Validator as CompiledSchema

_Json: TypeAlias = "dict[str, _Json] | list[_Json] | str | float | bool | None"

_LARGEST_SCHEMA = 256 * 1024
_HEAVIEST_SCHEMA = 200_000
_MOST_WORK = 100_000_000
"""Weight of the schema times size of the answer; about two seconds."""
_MOST_WORK_EXPLAINED = 100_000
"""The same where the violation is described, which builds an object for every alternative that failed; about one second."""
_BACKTRACK_LIMIT = 10_000
_BACKTRACKING = re.compile(r"\(\?<?[=!]|\\[1-9]|\\k")
_BACKTRACKING_WEIGHT = 10_000
"""A pattern with look-around or back-references can cost that many type checks before it is given up."""
_CHARACTERS_PER_VALUE = 64
_LONGEST_MESSAGE = 300
_LARGEST_PATTERN = 1024 * 1024
"""Bytes of a compiled pattern."""
_CACHED_SCHEMAS = 64

_OBJECT = re.compile(r'\{\s*["}]')
"""Where a JSON object begins; braces in prose do not look so."""
_MOST_SKETCHES = 100
_scanner = json.JSONDecoder()
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)```", re.DOTALL | re.IGNORECASE)


class Validator:
    """Checks schemas and answers. Compiled schemas are kept for as long as they are in use."""

    def __init__(self) -> None:
        self._compile = lru_cache(_CACHED_SCHEMAS)(_compile)

    def check_schema(self, schema: bytes) -> None:
        """Raise InvalidRequest unless `schema` is a JSON Schema that can be checked against within bounds.

        References must have the form `#` or `#/…`, as in the original API's structured outputs.
        """
        self._compile(schema)

    def violation(self, text: str, schema: bytes | None) -> str | None:
        """The first thing wrong with an answer, in a sentence for the model and the client; None when it is right.

        Without a schema any JSON object is right. Raises InvalidRequest for a schema that `check_schema` would refuse.
        """
        try:
            value: _Json = msgspec.json.decode(text)
        except ValueError as error:
            return f"The text is not valid JSON ({error})."
        except RecursionError:
            return "The JSON is nested too deeply."
        if schema is None:
            return None if isinstance(value, dict) else "The JSON is not an object."
        return _mismatch(self._compile(schema), value, _values(text))


def extract_json(text: str) -> str | None:
    """The one JSON value in an answer: the whole of it, or what a Markdown fence or surrounding prose enclose; None if there is none."""
    text = text.strip()
    candidates = [text]
    if fenced := _FENCED.search(text):
        candidates.append(fenced[1].strip())
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if starts:
        candidates.append(text[min(starts) : max(text.rfind("}"), text.rfind("]")) + 1])
    found = next((candidate for candidate in candidates if _is_json(candidate)), None)
    if found is not None:
        return found
    objects = _objects(text)
    return objects[0] if objects and all(one == objects[0] for one in objects) else None


def last_object(text: str) -> str | None:
    """The JSON object that a text comes to, which may hold others before it: sketches and drafts, in a model's thinking."""
    end = text.rfind("}") + 1
    if _OBJECT.search(text, end):
        return None
    sketches = 0
    start = _OBJECT.search(text)
    while start is not None and sketches < _MOST_SKETCHES:
        found = _read_object(text, start.start())
        if found is not None and start.start() + len(found) == end:
            return found
        sketches += found is None
        start = _OBJECT.search(text, start.start() + len(found or "{"))
    return None


def _objects(text: str) -> Sequence[str]:
    """The JSON objects in a text, outermost ones only; none when one of them is broken, since what is inside it was not meant alone."""
    objects: list[str] = []
    start = _OBJECT.search(text)
    while start is not None:
        found = _read_object(text, start.start())
        if found is None:
            return ()
        objects.append(found)
        start = _OBJECT.search(text, start.start() + len(found))
    return objects


def _read_object(text: str, start: int) -> str | None:
    try:
        return text[start : _scanner.raw_decode(text, start)[1]]
    except (ValueError, RecursionError):
        return None


class _Schema(msgspec.Struct, frozen=True):
    compiled: CompiledSchema
    weight: int
    recursive: bool


def _compile(schema: bytes) -> _Schema:
    root = _parse(schema)
    scale = _Scale(root)
    try:
        weight = scale.weigh(root)
    except RecursionError as error:
        raise _invalid("it is nested too deeply") from error
    if weight > _HEAVIEST_SCHEMA:
        raise _invalid("it is too complex")
    return _Schema(_build(root), weight, scale.recursive)


def _parse(schema: bytes) -> dict[str, _Json]:
    if len(schema) > _LARGEST_SCHEMA:
        raise _invalid(f"it is longer than {_LARGEST_SCHEMA} bytes")
    try:
        root: _Json = msgspec.json.decode(schema)
    except ValueError as error:
        raise _invalid(f"it is not valid JSON ({error})") from error
    except RecursionError as error:
        raise _invalid("it is nested too deeply") from error
    if not isinstance(root, dict):
        raise _invalid("it must be a JSON object")
    return root


def _build(root: dict[str, _Json]) -> CompiledSchema:
    import jsonschema_rs  # noqa: PLC0415 - only structured outputs need it

    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT, size_limit=_LARGEST_PATTERN)
    try:
        # Formats stay annotations, as JSON Schema has it: they refuse date-times without a zone, for example, which clients expect.
        return jsonschema_rs.validator_for(root, offline=True, validate_formats=False, pattern_options=patterns)
    except jsonschema_rs.ValidationError as error:
        raise _invalid(_located(error.message, error.instance_path)) from error
    except ValueError as error:  # nested beyond the validator's limit
        raise _invalid(str(error)) from error


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid schema for response_format: {reason}.", param="text.format.schema", code="invalid_json_schema")


class _Scale:
    """Weighs a schema: how many values it has when every reference is written out."""

    def __init__(self, root: dict[str, _Json]) -> None:
        self.recursive = False
        self._root = root
        self._base = "id" if "draft-04" in str(root.get("$schema")) else "$id"
        self._weights: dict[int, int] = {}
        """By the identity of the node; 0 while it is being weighed."""

    def weigh(self, node: _Json) -> int:
        """The weight; a reference back into what is being weighed counts as 1. Raises InvalidRequest for a reference of another form."""
        if not isinstance(node, dict | list):
            return 1
        known = self._weights.get(id(node))
        if known is not None:
            self.recursive |= known == 0
            return known or 1
        self._weights[id(node)] = 0
        weight = 1
        for child in node.values() if isinstance(node, dict) else node:
            weight += self.weigh(child)
        if isinstance(node, dict):
            weight += self._reference(node) + _pattern_weight(node)
        self._weights[id(node)] = weight
        return weight

    def _reference(self, node: dict[str, _Json]) -> int:
        if node is not self._root and isinstance(node.get(self._base), str):
            raise _invalid(f"{self._base} is only supported at the top")
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if isinstance(node.get(keyword), str):
                raise _invalid(f"{keyword} is not supported")
        reference = node.get("$ref")
        return self.weigh(self._resolve(reference)) if isinstance(reference, str) else 0

    def _resolve(self, reference: str) -> _Json:
        """What a local JSON pointer (RFC 6901, 6) points to."""
        if reference != "#" and not reference.startswith("#/"):
            raise _invalid(f"$ref {reference!r} is not supported; only references into the schema itself (#/…) are")
        target: _Json = self._root
        for part in unquote(reference).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise _invalid(f"$ref {reference!r} points to nothing")
        return target


def _pattern_weight(node: dict[str, _Json]) -> int:
    pattern, by_name = node.get("pattern"), node.get("patternProperties")
    patterns = [pattern] if isinstance(pattern, str) else []
    patterns += by_name if isinstance(by_name, dict) else ()
    return sum(_BACKTRACKING_WEIGHT for pattern in patterns if _BACKTRACKING.search(pattern))


def _values(text: str) -> int:
    """No fewer than the values in this JSON text; long strings count as several."""
    return 1 + text.count(",") + text.count("[") + text.count("{") + len(text) // _CHARACTERS_PER_VALUE


def _mismatch(schema: _Schema, value: _Json, values: int) -> str | None:
    import jsonschema_rs  # noqa: PLC0415 - only structured outputs need it

    work = schema.weight * values
    if work > _MOST_WORK:
        return "The JSON is too large to be checked against its schema."
    if schema.compiled.is_valid(value):
        return None
    if work <= _MOST_WORK_EXPLAINED and not schema.recursive:
        try:
            schema.compiled.validate(value)
        except jsonschema_rs.ValidationError as error:
            return f"The JSON does not match the schema: {_located(error.message, error.instance_path)}."
    return "The JSON does not match the schema."


def _located(message: str, path: Sequence[str | int]) -> str:
    short = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"
    return f"{short} at /{'/'.join(str(step) for step in path)}" if path else short


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (ValueError, RecursionError):  # prose, or nested beyond what can be read
        return False
    return True
