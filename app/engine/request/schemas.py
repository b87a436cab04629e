"""Compiles JSON Schemas from clients within limits of size, time and memory.

Nothing is fetched. The cost of compiling is estimated first: a few lines of references can stand for billions of
subschemas, and a few characters of a pattern for a large automaton. A schema that passes blocks the interpreter for at
most 0.2 s, once per schema.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

import msgspec

from app.protocol.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from jsonschema_rs import FancyRegexOptions
    from jsonschema_rs import Validator as Compiled

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | bool | None"

_LARGEST_SCHEMA = 256 * 1024
_HEAVIEST_SCHEMA = 200_000
_BACKTRACK_LIMIT = 10_000
_BACKTRACKING = re.compile(r"\(\?<?[=!]|\\[1-9]|\\k")
_BACKTRACKING_WEIGHT = 10_000
"""A pattern with look-around or back-references can cost that many type checks before matching is aborted."""
_BYTES_PER_WEIGHT = 100
"""Of a compiled pattern: the larger it is, the longer matching a text may take."""
_LARGEST_PATTERN = 1024 * 1024
"""Maximum bytes of a compiled pattern."""
_LARGEST_PATTERNS = 8 * 1024 * 1024
"""Maximum bytes of all compiled patterns of a schema; a MiB takes about 20 ms to compile."""
_SMALLEST_PATTERN = 512
_LARGEST_STATES = 256 * 1024
"""Additional bytes that one pattern may take during matching."""
_SHORT = 8 * 1024
_LONGEST_MESSAGE = 300
_BYTES_PER_BYTE = 40
"""Memory of a compiled schema per byte of its text, without its patterns."""


class CompiledSchema(msgspec.Struct, frozen=True):
    """A schema that answers can be validated against."""

    compiled: Compiled
    weight: int
    """The number of values in the schema with all references expanded; a pattern counts as many."""
    recursive: bool
    size: int
    """Approximate memory in bytes."""


def is_cheap(schema: bytes) -> bool:
    """Whether compiling it costs no more than starting a thread would: it is short and has no patterns."""
    return len(schema) <= _SHORT and b"attern" not in schema


def compile_schema(schema: bytes) -> CompiledSchema:
    """Compile `schema`. Raises InvalidRequest unless it is a JSON Schema that can be validated against within the
    limits.

    References must have the form `#` or `#/…`, as in the original API's structured outputs.
    """
    root = _parse(schema)
    scale = _Scale(root)
    try:
        weight = scale.weigh(root)
    except RecursionError as error:
        raise _invalid("it is nested too deeply") from error
    if weight > _HEAVIEST_SCHEMA:
        raise _invalid("it is too complex")
    patterns = _size_of(scale.patterns)
    weight += patterns // _BYTES_PER_WEIGHT
    return CompiledSchema(_build(root), weight, scale.recursive, len(schema) * _BYTES_PER_BYTE + patterns)


def _parse(schema: bytes) -> dict[str, Json]:
    if len(schema) > _LARGEST_SCHEMA:
        raise _invalid(f"it is longer than {_LARGEST_SCHEMA} bytes")
    try:
        root: Json = msgspec.json.decode(schema)
    except ValueError as error:
        raise _invalid(f"it is not valid JSON ({error})") from error
    except RecursionError as error:
        raise _invalid("it is nested too deeply") from error
    if not isinstance(root, dict):
        raise _invalid("it must be a JSON object")
    return root


def _build(root: dict[str, Json]) -> Compiled:
    import jsonschema_rs  # noqa: PLC0415 - only structured outputs need it

    options = _regex_options(_LARGEST_PATTERN)
    try:
        # `format` stays an annotation, JSON Schema's default: asserting it would refuse date-times without a zone,
        # which clients expect.
        return jsonschema_rs.validator_for(root, offline=True, validate_formats=False, pattern_options=options)
    except jsonschema_rs.ValidationError as error:
        raise _invalid(located(error.message, error.instance_path)) from error
    except ValueError as error:  # nested beyond the validator's limit
        raise _invalid(str(error)) from error


def _regex_options(size: int) -> FancyRegexOptions:
    import jsonschema_rs  # noqa: PLC0415 - only structured outputs need it

    return jsonschema_rs.FancyRegexOptions(
        backtrack_limit=_BACKTRACK_LIMIT, size_limit=size, dfa_size_limit=_LARGEST_STATES
    )


def _size_of(patterns: Iterable[str]) -> int:
    """Approximate bytes of the compiled patterns. Raises InvalidRequest if that is too much."""
    total = 0
    for pattern in patterns:
        total += _pattern_size(pattern, _LARGEST_PATTERNS - total)
    return total


def _pattern_size(pattern: str, left: int) -> int:
    """The smallest power of two that is enough for it. The cost of each attempt is bounded by its size."""
    parts = 1 + len(_BACKTRACKING.findall(pattern))  # each is compiled separately, with the same limit
    size = _SMALLEST_PATTERN
    while size <= _LARGEST_PATTERN:
        if size * parts > left:
            raise _invalid("its patterns are too large in total; use 'maxLength' instead of long repetitions")
        if _fits(pattern, size):
            return size * parts
        size *= 2
    return _LARGEST_PATTERN  # compiling the schema reports what is wrong with it


def _fits(pattern: str, size: int) -> bool:
    import jsonschema_rs  # noqa: PLC0415 - only structured outputs need it

    try:
        jsonschema_rs.validator_for({"pattern": pattern}, offline=True, pattern_options=_regex_options(size))
    except ValueError:
        return False
    return True


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid schema for response_format: {reason}.", param="text.format.schema", code="invalid_json_schema"
    )


class _Scale:
    """Weighs a schema: the number of its values with all references expanded."""

    def __init__(self, root: dict[str, Json]) -> None:
        self.recursive = False
        self._root = root
        self._base = "id" if "draft-04" in str(root.get("$schema")) else "$id"
        self._weights: dict[int, int] = {}
        """By identity of the node; 0 while it is being weighed."""
        self.patterns: dict[str, None] = {}
        """All patterns, each once."""

    def weigh(self, node: Json) -> int:
        """The weight; a recursive reference counts as 1. Raises InvalidRequest for references of another form."""
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
            weight += self._reference(node) + self._note_patterns(node)
        self._weights[id(node)] = weight
        return weight

    def _note_patterns(self, node: dict[str, Json]) -> int:
        found = list(_patterns(node))
        self.patterns |= dict.fromkeys(found)
        return sum(_BACKTRACKING_WEIGHT for pattern in found if _BACKTRACKING.search(pattern))

    def _reference(self, node: dict[str, Json]) -> int:
        if node is not self._root and isinstance(node.get(self._base), str):
            raise _invalid(f"{self._base} is only supported at the top")
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if isinstance(node.get(keyword), str):
                raise _invalid(f"{keyword} is not supported")
        reference = node.get("$ref")
        return self.weigh(self._resolve(reference)) if isinstance(reference, str) else 0

    def _resolve(self, reference: str) -> Json:
        """The target of a local JSON pointer (RFC 6901, 6)."""
        if reference != "#" and not reference.startswith("#/"):
            raise _invalid(f"$ref {reference!r} is not supported; only references into the schema itself (#/…) are")
        target: Json = self._root
        for part in unquote(reference).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise _invalid(f"$ref {reference!r} points to nothing")
        return target


def _patterns(node: dict[str, Json]) -> Iterator[str]:
    pattern, by_name = node.get("pattern"), node.get("patternProperties")
    if isinstance(pattern, str):
        yield pattern
    if isinstance(by_name, dict):
        yield from by_name


class SchemaCache:
    """The most recently used compiled schemas, within a memory limit."""

    def __init__(self, most: int) -> None:
        """`most`: the limit in bytes."""
        self._most = most
        self._size = 0
        self._kept: OrderedDict[bytes, CompiledSchema] = OrderedDict()

    def get(self, schema: bytes) -> CompiledSchema | None:
        """The compiled schema, if cached."""
        found = self._kept.get(schema)
        if found is not None:
            self._kept.move_to_end(schema)
        return found

    def put(self, schema: bytes, compiled: CompiledSchema) -> None:
        """Cache it; the least recently used schemas are evicted."""
        if schema in self._kept:
            return
        self._kept[schema] = compiled
        self._size += compiled.size
        while self._size > self._most and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1].size


def located(message: str, path: Sequence[str | int]) -> str:
    """The validator's message, shortened, and the place in the value that it applies to."""
    short = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"
    return f"{short} at /{'/'.join(str(step) for step in path)}" if path else short
