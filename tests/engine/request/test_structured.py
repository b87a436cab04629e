"""Schemas are judged, answers are checked against them, and neither can make the gateway fetch or hang."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from app.engine.request.schemas import SchemaCache, compile_schema
from app.engine.request.structured import Validator, extract_json, last_object
from app.protocol.wire.errors import InvalidRequest

VALIDATOR = Validator()
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
        },
        "required": ["name"],
        "additionalProperties": False,
        "$defs": {"tag": {"enum": ["a", "b"]}},
    }
).encode()
TREE = json.dumps(
    {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["value"],
    }
).encode()


def refused(schema: object) -> str:
    """The reason for which the schema is refused."""
    with pytest.raises(InvalidRequest) as raised:
        compile_schema(json.dumps(schema).encode())
    assert (raised.value.param, raised.value.code, raised.value.status) == (
        "text.format.schema",
        "invalid_json_schema",
        400,
    )
    return raised.value.message


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def laughs(levels: int) -> dict[str, object]:
    """A few lines that stand for 2 ** levels subschemas."""
    definitions = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/l0", "$defs": {**definitions, f"l{levels}": {"type": "object"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": "https://example.com/x",
            "definitions": {"a": {}},
            "$ref": "#/definitions/a",
        },
        {"anyOf": [{"type": "string"}, {"$ref": "#/anyOf/0"}]},
        {
            "$defs": {"a/b": {"type": "string"}, "c%": {"type": "null"}},
            "anyOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/$defs/c%25"}],
        },
        {"pattern": r"^(?!\.)[a-z.]+$"},
        nested(60),
        laughs(8),
    ],
)
def test_usable_schemas_are_accepted(schema: object) -> None:
    compile_schema(json.dumps(schema).encode())


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ([], "must be a JSON object"),
        (True, "must be a JSON object"),
        ({"type": "strin"}, "at /type"),
        ({"properties": {"a": {"pattern": "("}}}, "at /properties/a/pattern"),
        ({"required": "name"}, "at /required"),
        ({"$ref": "#/$defs/missing"}, "points to nothing"),
        ({"anyOf": [{"$ref": "#/anyOf/7"}]}, "points to nothing"),
        ({"$ref": "other.json"}, "not supported"),
        ({"properties": {"a": {"$ref": "file:///etc/hostname"}}}, "not supported"),
        ({"$ref": "#anchor", "$defs": {"a": {"$anchor": "anchor"}}}, "not supported"),
        ({"$dynamicRef": "#a"}, "not supported"),
        ({"$defs": {"a": {"$id": "https://example.com/a"}}}, "only supported at the top"),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "definitions": {"a": {"id": "b"}}},
            "only supported at the top",
        ),
        ({"$schema": "https://example.com/unknown"}, "https://example.com/unknown"),
        (nested(300), "ecursion"),
        ({"description": "x" * 300_000}, "longer than"),
        (laughs(40), "too complex"),
    ],
)
def test_unusable_schemas_are_refused_with_the_reason(schema: object, reason: str) -> None:
    assert reason in refused(schema)


@pytest.mark.parametrize(
    ("schema", "reason"), [(b'{"type":', "not valid JSON"), (b'{"not":' * 20_000 + b"{}" + b"}" * 20_000, "too deeply")]
)
def test_a_schema_that_cannot_be_read_is_refused(schema: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        compile_schema(schema)


def test_a_chain_of_references_may_be_long_but_not_endless() -> None:
    def chain(links: int) -> dict[str, object]:
        definitions = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(links)}
        return {"$ref": "#/$defs/0", "$defs": {**definitions, str(links): {"type": "object"}}}

    compile_schema(json.dumps(chain(50)).encode())
    assert "too deeply" in refused(chain(5000))


def of_patterns(pattern: str, count: int) -> dict[str, object]:
    """A schema with that many patterns, all of them different."""
    return {
        "type": "object",
        "properties": {f"p{n}": {"type": "string", "pattern": f"{pattern}{n}$"} for n in range(count)},
    }


LARGE: list[dict[str, object]] = [
    of_patterns("^.{700}", 250),
    of_patterns("(?:[^a]{2}){100}", 300),
    of_patterns("(?:(?:a|b|c|d){100}){100}", 100),
    {"pattern": "(?=.{700})" * 5_000},
    {"pattern": "(?!.{700})a" * 50},
    {"patternProperties": {f"^.{{500}}{n}": {} for n in range(100)}},
    {"anyOf": [{"items": {"pattern": f"\\p{{L}}{{60}}{n}"}} for n in range(100)]},
]
USUAL = [
    ("^[a-z]{1,50}", 500),
    ("^.{1,255}", 15),
    (r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d).{8,}", 10),
    (r"^[\w.+-]+@[\w-]+\.[\w.]+", 1000),
    ("^.*", 500),
]


@pytest.mark.parametrize("schema", LARGE)
def test_patterns_may_not_be_large_all_together(schema: object) -> None:
    assert "its patterns are too large" in refused(schema)


@pytest.mark.parametrize(("pattern", "count"), USUAL)
def test_patterns_as_people_write_them_are_accepted(pattern: str, count: int) -> None:
    compile_schema(json.dumps(of_patterns(pattern, count)).encode())


def test_one_pattern_in_many_places_is_compiled_once() -> None:
    compile_schema(json.dumps({"properties": {f"p{n}": {"pattern": "^.{1,255}$"} for n in range(1000)}}).encode())


async def test_a_schema_that_takes_long_does_not_stop_the_others() -> None:
    """It is compiled in a thread: the loop turns while it is."""
    schema = json.dumps(of_patterns("^[a-z]{1,50}", 500)).encode()
    turns = 0
    async with asyncio.TaskGroup() as tasks:
        checked = tasks.create_task(Validator().check_schema(schema))
        while not checked.done():
            await asyncio.sleep(0)
            turns += 1
    assert turns > 2


async def test_what_is_refused_is_refused_from_a_thread_too() -> None:
    with pytest.raises(InvalidRequest, match="patterns are too large"):
        await Validator().check_schema(json.dumps(of_patterns("^.{700}", 250)).encode())


def test_the_memory_of_compiled_schemas_is_bounded() -> None:
    schemas = [json.dumps({"title": str(n), "pattern": f"^.{{255}}{n}"}).encode() for n in range(4)]
    compiled = [compile_schema(schema) for schema in schemas]
    assert all(one.size > 256 * 1024 for one in compiled)
    cache = SchemaCache(sum(one.size for one in compiled[:3]))
    for schema, one in zip(schemas[:3], compiled[:3], strict=True):
        cache.put(schema, one)
    assert cache.get(schemas[0]) is compiled[0]
    cache.put(schemas[3], compiled[3])
    assert [cache.get(schema) is not None for schema in schemas] == [True, False, True, True], (
        "the one not used for longest is gone"
    )


@pytest.mark.parametrize("keyword", ["$ref", "$schema", "$id", "$dynamicRef"])
def test_nothing_is_ever_fetched(keyword: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        schema = json.dumps(
            {keyword: f"http://127.0.0.1:{server.getsockname()[1]}/schema.json", "type": "object"}
        ).encode()
        if keyword == "$id":  # only a name
            assert VALIDATOR.violation("{}", schema) is None
        else:
            with pytest.raises(InvalidRequest):
                compile_schema(schema)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("text", ['{"name": "Ada"}', ' {"name": "Ada", "tags": ["a", "b"]}\n'])
def test_an_answer_that_matches_has_no_violation(text: str) -> None:
    assert VALIDATOR.violation(text, PERSON) is None


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ("{}", 'The JSON does not match the schema: "name" is a required property.'),
        (
            '{"name": "Ada", "tags": ["a", "c"]}',
            'The JSON does not match the schema: "c" is not one of "a" or "b" at /tags/1.',
        ),
        (
            '{"name": "Ada", "age": 1}',
            "The JSON does not match the schema: Additional properties are not allowed ('age' was unexpected).",
        ),
        ('{"name": "Ad', "The text is not valid JSON (Input data was truncated)."),
        ("Sure! {}", "The text is not valid JSON (JSON is malformed: invalid character (byte 0))."),
        ("[" * 100_000, "The JSON is nested too deeply."),
        ("[]", 'The JSON does not match the schema: [] is not of type "object".'),
    ],
)
def test_a_violation_is_told_in_a_sentence(text: str, violation: str) -> None:
    assert VALIDATOR.violation(text, PERSON) == violation


def test_the_sentence_stays_short() -> None:
    violation = VALIDATOR.violation(json.dumps({"name": "x" * 10_000}), PERSON)
    assert violation is not None
    assert len(violation) < 400
    assert violation.endswith("… at /name.")


def test_without_a_schema_any_object_is_right() -> None:
    assert VALIDATOR.violation('{"a": [1]}', None) is None
    assert VALIDATOR.violation("[1]", None) == "The JSON is not an object."
    assert VALIDATOR.violation("a", None) is not None


def test_formats_are_annotations() -> None:
    schema = b'{"$schema":"http://json-schema.org/draft-07/schema#","type":"string","format":"date-time"}'
    assert VALIDATOR.violation('"2026-01-01T10:00:00"', schema) is None


def test_recursive_schemas_are_checked_to_the_bottom() -> None:
    tree = '{"value": 1, "children": [{"value": 2, "children": [{"value": %s}]}]}'
    assert VALIDATOR.violation(tree % "3", TREE) is None
    assert VALIDATOR.violation(tree % '"three"', TREE) == "The JSON does not match the schema."


@pytest.mark.parametrize(
    "schema",
    [
        b'{"$ref":"#"}',
        b'{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}',
        b'{"$defs":{"a":{"not":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}',
    ],
)
def test_a_schema_that_only_refers_to_itself_ends(schema: bytes) -> None:
    assert VALIDATOR.violation("{}", schema) in {None, "The JSON does not match the schema."}


def test_alternatives_inside_alternatives_end() -> None:
    """Described naively, each level doubles the errors: 2 ** 60."""
    branch = {"properties": {"a": {"$ref": "#"}}, "required": ["z"]}
    schema = json.dumps({"anyOf": [branch, {**branch, "minProperties": 2}]}).encode()
    assert VALIDATOR.violation('{"a":' * 60 + "{}" + "}" * 60, schema) == "The JSON does not match the schema."


def test_a_check_that_would_take_too_long_is_not_made() -> None:
    definitions = laughs(12)["$defs"]
    schema = json.dumps({"items": {"$ref": "#/$defs/l0"}, "$defs": definitions}).encode()
    assert VALIDATOR.violation("[{}, {}]", schema) is None
    assert (
        VALIDATOR.violation("[" + "{}," * 50_000 + "{}]", schema)
        == "The JSON is too large to be checked against its schema."
    )


def test_a_pattern_that_backtracks_for_ever_is_given_up() -> None:
    schema = b'{"type":"string","pattern":"^(?=a)(a|aa|b)*(?=c)$"}'
    assert VALIDATOR.violation('"' + "a" * 5000 + '"', schema) is not None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('\n {"a": 1}\n', '{"a": 1}'),
        ("42", "42"),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('```\n"just text"\n```', '"just text"'),
        ('Here you {are}:\n```JSON\n{"a": "```"}\n```\nAnything else?', '{"a": "```"}'),
        ('Sure: {"a": [1]} - done.', '{"a": [1]}'),
        ('The list is [1, {"a": 2}].', '[1, {"a": 2}]'),
        ('{"a": 1} or {"a": 2}', None),
        ('{"a": 1}\n{"a": 1}', '{"a": 1}'),
        ('{"a": 1}}', '{"a": 1}'),
        ('See [1] and {this}: {"a": 1}', '{"a": 1}'),
        ('So: {"a": {"b": 1}', None),
        ('```json\n{"a": 1}\n```\nor\n```json\n{"a": 2}\n```', None),
        ('{"a": 1', None),
        ("no JSON", None),
        ("} {", None),
        ("", None),
        ("[" * 100_000, None),
    ],
)
def test_the_one_json_value_is_taken_out_of_its_wrapping(text: str, found: str | None) -> None:
    assert extract_json(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Perhaps {"a": 1}? No: {"a": 2}.', '{"a": 2}'),
        ('{one} of [1, 2]: {"a": {"b": []}}', '{"a": {"b": []}}'),
        ('The form is {"a": <int>, "b": {...}}, so {"a": {"c": 1}, "b": {}}', '{"a": {"c": 1}, "b": {}}'),
        ('{"a": <int>} ' * 100 + '{"a": 1}', None),
        ("{}", "{}"),
        ('{"a": 1} then {"a": ', None),
        ("no JSON {here}", None),
        ('{"a":' * 100_000, None),
        ("", None),
    ],
)
def test_the_last_object_of_a_train_of_thought_is_its_result(text: str, found: str | None) -> None:
    assert last_object(text) == found
