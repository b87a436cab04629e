"""Structured outputs: validates answers against their schemas, and extracts JSON from surrounding text.

Answers are untrusted, so the work is bounded: the cost of a check is estimated beforehand.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence

import msgspec

from app.engine.request.schemas import CompiledSchema, Json, SchemaCache, compile_schema, is_cheap, located

_MOST_WORK = 10_000_000
"""Weight of the schema times size of the answer; about 0.2 s."""
_MOST_WORK_EXPLAINED = 20_000
"""Such a product if the violation is described, which builds an object for every failed alternative."""
_CHARACTERS_PER_VALUE = 64
_CACHE_BYTES = 32 * 1024 * 1024
_AT_ONCE = 2
"""Schemas compiled in parallel, in threads."""

_OBJECT = re.compile(r'\{\s*["}]')
"""The beginning of a JSON object; braces in prose look different."""
_MOST_SKETCHES = 100
_scanner = json.JSONDecoder()
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)```", re.DOTALL | re.IGNORECASE)


class Validator:
    """Checks schemas and answers. The most recently used compiled schemas are cached."""

    def __init__(self) -> None:
        self._cache = SchemaCache(_CACHE_BYTES)
        self._threads = asyncio.Semaphore(_AT_ONCE)

    async def check_schema(self, schema: bytes) -> None:
        """Raise InvalidRequest unless answers can be validated against `schema` (see `compile_schema`)."""
        if self._cache.get(schema) is not None:
            return
        if is_cheap(schema):
            self._compiled(schema)
            return
        async with self._threads:
            if self._cache.get(schema) is None:
                self._cache.put(schema, await asyncio.to_thread(compile_schema, schema))

    def violation(self, text: str, schema: bytes | None) -> str | None:
        """The first violation in an answer, as a sentence for the model and the client; None if it is valid.

        Without a schema any JSON object is valid. Raises InvalidRequest for a schema that `check_schema` would refuse.
        """
        try:
            value: Json = msgspec.json.decode(text)
        except ValueError as error:
            return f"The text is not valid JSON ({error})."
        except RecursionError:
            return "The JSON is nested too deeply."
        if schema is None:
            return None if isinstance(value, dict) else "The JSON is not an object."
        return _mismatch(self._compiled(schema), value, _values(text))

    def _compiled(self, schema: bytes) -> CompiledSchema:
        found = self._cache.get(schema)
        if found is None:
            found = compile_schema(schema)
            self._cache.put(schema, found)
        return found


def extract_json(text: str) -> str | None:
    """The one JSON value in an answer: the whole answer, or the value inside a Markdown fence or prose.

    None if there is none.
    """
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
    """The final JSON object of a text, which may contain earlier ones: drafts, in a model's thinking."""
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
    """The outermost JSON objects in a text.

    None if one of them is malformed, since objects inside it were not meant on their own.
    """
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


def _values(text: str) -> int:
    """An upper bound for the number of values in this JSON text; long strings count as several."""
    return 1 + text.count(",") + text.count("[") + text.count("{") + len(text) // _CHARACTERS_PER_VALUE


def _mismatch(schema: CompiledSchema, value: Json, values: int) -> str | None:
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
            return f"The JSON does not match the schema: {located(error.message, error.instance_path)}."
    return "The JSON does not match the schema."


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (ValueError, RecursionError):  # prose, or nested too deeply
        return False
    return True
