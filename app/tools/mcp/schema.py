"""The schemas of a server's tools, converted to JSON Schema objects that every upstream accepts.

Servers use drafts 3 and 4, type names of their own language, nulls for omitted values and `[]` for an empty map. What
can be read of such a schema is kept; a constraint that cannot is dropped, since the server validates the arguments
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote

import msgspec

_ONE = frozenset({"items", "contains", "propertyNames", "not", "if", "then", "else"}) | frozenset(
    {"additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"}
)
_SEVERAL = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_VALUES = frozenset({"default", "const", "enum", "example", "examples"})
_LOCATION = frozenset(
    {"$schema", "$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef", "$vocabulary"}
)
"""They would make parsers look elsewhere, some on the network."""
_TEXTS = frozenset({"title", "description", "format", "pattern", "$comment", "contentEncoding", "contentMediaType"})
_COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"}
)
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_TYPES = {
    **{name: name for name in ("object", "array", "string", "number", "integer", "boolean", "null")},
    **dict.fromkeys(("str", "text", "date", "datetime", "uuid", "uri", "file"), "string"),
    **dict.fromkeys(("int", "int32", "int64", "long"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    **dict.fromkeys(("dict", "map", "struct"), "object"),
    **dict.fromkeys(("list", "tuple", "set"), "array"),
    "bool": "boolean",
    "none": "null",
}
_ANY = frozenset({"any", "mixed", ""})
_MOST_HOPS = 8

Schema = dict[str, Any]


def as_object(given: object) -> Schema | None:
    """The schema of a tool's arguments; None if it is invalid, or matches nothing.

    Raises RecursionError if it is nested too deeply.
    """
    if isinstance(given, str):
        given = _decoded(given)
    if given is None or given is True:
        given = {}
    if not isinstance(given, dict):
        return None
    root = _mended(cast("Schema", given))
    _cut_references(root, root)
    root = _resolved(root)
    root["type"] = "object"
    return root if _is_schema(root) else None


def _decoded(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False


def _mended(schema: Schema) -> Schema:
    mended: Schema = {}
    for name, value in schema.items():
        if (value is None and name not in _VALUES) or name in _LOCATION or (name == "id" and isinstance(value, str)):
            continue
        kept = _keyword(name, value)
        if kept is not _DROPPED:
            mended[name] = kept
    _modernise(mended, schema)
    return mended


_DROPPED = object()


def _keyword(name: str, value: Any) -> Any:
    for names, mend in _KEYWORDS.items():
        if name in names:
            return mend(value)
    return value


def _subschema(value: Any) -> Any:
    """The value in place of a schema; an invalid one matches anything."""
    if isinstance(value, dict):
        return _mended(cast("Schema", value))
    if isinstance(value, list):  # the tuples of earlier drafts, see `_modernise`
        return [_subschema(one) for one in cast("list[Any]", value)]
    if isinstance(value, str) and value.lower() in _TYPES:  # `"city": "string"`
        return {"type": _TYPES[value.lower()]}
    return value if isinstance(value, bool) else {}


def _several(value: Any) -> Any:
    found = [_subschema(one) for one in cast("list[Any]", value)] if isinstance(value, list) else []
    return found or _DROPPED


def _named(value: Any) -> Any:
    if not isinstance(value, dict):
        return value or {}  # `[]`, as written by PHP; anything else makes the schema invalid
    return {name: _subschema(one) for name, one in cast("Schema", value).items()}


def _type(value: Any) -> Any:
    if isinstance(value, list):
        found = [_type(one) for one in cast("list[Any]", value)]
        return _DROPPED if _DROPPED in found or not found else list(dict.fromkeys(found))
    if not isinstance(value, str):
        return _DROPPED  # a union of schemas in draft 3
    return _DROPPED if value.lower() in _ANY else _TYPES.get(value.lower(), value)


def _required(value: Any) -> Any:
    if not isinstance(value, list):
        return _DROPPED
    return list(dict.fromkeys(one for one in cast("list[Any]", value) if isinstance(one, str)))


def _if(fits: Callable[[Any], bool]) -> Callable[[Any], Any]:
    return lambda value: value if fits(value) else _DROPPED


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)  # or a boolean: draft 4 has them as bounds, see `_modernise`


_KEYWORDS: dict[frozenset[str], Callable[[Any], Any]] = {
    _ONE: _subschema,
    _SEVERAL: _several,
    _NAMED: _named,
    frozenset({"type"}): _type,
    frozenset({"required"}): _required,
    frozenset({"enum"}): _if(lambda value: isinstance(value, list) and bool(cast("list[Any]", value))),
    frozenset({"examples"}): _if(lambda value: isinstance(value, list)),
    frozenset({"dependencies", "dependentRequired"}): _if(lambda value: isinstance(value, dict)),
    frozenset({"$ref"}): _if(lambda value: isinstance(value, str)),
    _TEXTS: _if(lambda value: isinstance(value, str)),
    _COUNTS: _if(lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0),
    _NUMBERS: _if(_is_number),
}


def _modernise(mended: Schema, schema: Schema) -> None:
    """Convert from drafts 3 and 4, in place."""
    _modernise_bounds(mended)
    _modernise_items(mended)
    given: Any = schema.get("properties")
    properties = cast("Schema", given) if isinstance(given, dict) else {}
    demanded = [
        name
        for name, one in properties.items()
        if isinstance(one, dict) and cast("Schema", one).get("required") is True
    ]
    if demanded:
        mended["required"] = list(dict.fromkeys([*mended.get("required", []), *demanded]))


def _modernise_bounds(mended: Schema) -> None:
    """`exclusiveMinimum` was a flag beside `minimum`."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(mended.get(bound), bool):
            del mended[bound]
        if isinstance(mended.get(exclusive), bool):
            strict = mended.pop(exclusive)
            if strict and bound in mended:
                mended[exclusive] = mended.pop(bound)


def _modernise_items(mended: Schema) -> None:
    """`items` was a list for arrays with a schema for each place."""
    if isinstance(mended.get("items"), list):
        mended["prefixItems"] = mended.pop("items")
        if not mended["prefixItems"]:
            del mended["prefixItems"]
        if "additionalItems" in mended:
            mended["items"] = mended.pop("additionalItems")


def _cut_references(node: Any, root: Schema) -> None:
    """Replace references to missing targets, or to other documents, by schemas that match anything."""
    if isinstance(node, list):
        for one in cast("list[Any]", node):
            _cut_references(one, root)
    elif isinstance(node, dict):
        schema = cast("Schema", node)
        target: Any = schema.get("$ref")
        if isinstance(target, str) and target != "#" and _found(target, root) is None:
            del schema["$ref"]
        for name, one in schema.items():
            if name not in _VALUES:
                _cut_references(one, root)


def _found(pointer: str, root: Schema) -> Schema | None:
    if not pointer.startswith("#/"):
        return None
    place: Any = root
    for escaped in pointer[2:].split("/"):
        part = unquote(escaped).replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and part.isdecimal() and len(part) < _MOST_HOPS:
            place = dict(enumerate(cast("list[Any]", place))).get(int(part))
        else:
            place = cast("Schema", place).get(part) if isinstance(place, dict) else None
    return cast("Schema", place) if isinstance(place, dict) else None


def _resolved(root: Schema) -> Schema:
    """Resolve a reference at the top level: upstreams look for `properties` there."""
    for _ in range(_MOST_HOPS):
        target = root.pop("$ref", None)
        if target is None:
            break
        root = {**(_found(target, root) or {}), **root}
    return root


def _is_schema(schema: Schema) -> bool:
    """Upstreams refuse a whole request for one invalid schema.

    (`$schema` must be removed: the library would fetch it.)
    """
    import jsonschema_rs  # noqa: PLC0415 - only needed by requests with an MCP server

    try:
        return jsonschema_rs.meta.is_valid(schema)
    except (ValueError, RecursionError):
        return False
