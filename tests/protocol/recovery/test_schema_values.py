"""Values without quotes take the type that the function's schema gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.recovery.schema_values import Properties, python_literal

STRING: Any = {"type": "string"}
INTEGER: Any = {"type": "integer"}
NUMBER: Any = {"type": "number"}
BOOLEAN: Any = {"type": "boolean"}
NULL: Any = {"type": "null"}
ARRAY: Any = {"type": "array", "items": STRING}
OBJECT: Any = {"type": "object"}


def typed(schema: object, text: str, **more: object) -> object:
    properties = Properties(json.dumps({"type": "object", "properties": {"a": schema}, **more}).encode())
    return json.loads(bytes(properties.typed("a", text)))


@pytest.mark.parametrize(
    "text",
    ["94103", "true", "null", '{"debug": true}', "['a']", '"quoted"', "", " spaced ", "1e5", "a\nb\t\\", "答", "None"],
)
def test_a_string_stays_the_text_it_is(text: str) -> None:
    assert typed(STRING, text) == text
    assert typed({"type": "string", "description": "d"}, text) == text


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (BOOLEAN, "True", True),
        (BOOLEAN, " false\n", False),
        (INTEGER, "5", 5),
        (INTEGER, "+5", 5),
        (INTEGER, "007", 7),
        (INTEGER, "5.0", 5),
        (INTEGER, "-12345678901234567890123", -12345678901234567890123),
        (NUMBER, "5", 5),
        (NUMBER, "1.50", 1.5),
        (NUMBER, ".5", 0.5),
        (NULL, "None", None),
        (ARRAY, '["a"]', ["a"]),
        (ARRAY, "['a', \"b\"]", ["a", "b"]),
        (ARRAY, "('a',)", ["a"]),
        (ARRAY, '["a\nb"]', ["a\nb"]),
        (ARRAY, '"[\\"a\\"]"', ["a"]),
        (OBJECT, "{'a': True, 'b': None, 'c': -1}", {"a": True, "b": None, "c": -1}),
        (OBJECT, '{"a": 1}\n', {"a": 1}),
        ({"properties": {}}, "{'a': 1}", {"a": 1}),
        ({"items": INTEGER}, "[1]", [1]),
    ],
)
def test_a_type_is_kept(schema: object, text: str, value: object) -> None:
    assert typed(schema, text) == value
    assert type(typed(schema, text)) is type(value)


@pytest.mark.parametrize(
    ("root", "value"),
    [
        ({"properties": {"a": STRING}}, "5"),
        ({"allOf": [{"properties": {"b": STRING}}, {"properties": {"a": INTEGER}}]}, 5),
        ({"anyOf": [{"properties": {"a": STRING}}]}, "5"),
        ({"properties": {"b": STRING}, "oneOf": [{"properties": {"a": STRING}}]}, "5"),
        ({"$defs": {"one": {"properties": {"a": STRING}}}, "allOf": [{"$ref": "#/$defs/one"}]}, "5"),
        ({"additionalProperties": STRING}, "5"),
        ({"properties": {"b": INTEGER}, "additionalProperties": STRING}, "5"),
        ({"additionalProperties": True}, 5),
        ({}, 5),
    ],
)
def test_the_type_may_be_told_anywhere_at_the_root(root: dict[str, Any], value: object) -> None:
    assert json.loads(bytes(Properties(json.dumps(root).encode()).typed("a", "5"))) == value


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"anyOf": [STRING, NULL]}, "null", None),
        ({"anyOf": [STRING, NULL]}, "true", "true"),
        ({"anyOf": [STRING, NULL]}, "", ""),
        ({"anyOf": [INTEGER, NULL]}, "", None),
        ({"oneOf": [INTEGER, NULL]}, "3", 3),
        ({"allOf": [STRING]}, "3", "3"),
        ({"type": ["string", "null"]}, "None", None),
        ({"type": ["string", "null"]}, "12", "12"),
        ({"type": ["string", "integer"]}, "12", 12),
        ({"type": ["string", "integer"]}, "twelve", "twelve"),
        ({"type": "string", "nullable": True}, "null", None),
        ({"anyOf": [ARRAY, STRING]}, "['a']", ["a"]),
        ({"anyOf": [ARRAY, STRING]}, "a", "a"),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"enum": [1, 2]}, "1", 1),
        ({"enum": ["celsius"]}, '"celsius"', "celsius"),
        ({"type": "string", "enum": ["true"]}, "true", "true"),
        ({"const": None}, "null", None),
        ({"anyOf": [{"anyOf": [INTEGER]}, NULL]}, "3", 3),
    ],
)
def test_alternatives(schema: object, text: str, value: object) -> None:
    assert typed(schema, text) == value


def test_references_are_followed() -> None:
    definitions = {
        "Zip": STRING,
        "Loop": {"$ref": "#/$defs/Loop"},
        "Deep": {"anyOf": [{"$ref": "#/$defs/Deep"}, INTEGER]},
        "a/b": BOOLEAN,
    }
    assert typed({"$ref": "#/$defs/Zip"}, "94103", **{"$defs": definitions}) == "94103"
    assert typed({"$ref": "#/$defs/a~1b"}, "True", **{"$defs": definitions}) is True
    assert typed({"$ref": "#/$defs/Loop"}, "1", **{"$defs": definitions}) == 1
    assert typed({"$ref": "#/$defs/Deep"}, "1", **{"$defs": definitions}) == 1
    assert typed({"$ref": "#/nowhere"}, "1") == 1
    assert typed({"$ref": "https://example.com/schema"}, "x") == "x"


@pytest.mark.parametrize(
    ("text", "value"),
    [("94103", 94103), ('{"a": 1}', {"a": 1}), ("true", True), ("True", "True"), ("Rome", "Rome"), ("NaN", "NaN")],
)
@pytest.mark.parametrize("schema", [{}, True, {"description": "d"}])
def test_without_a_type_it_is_json_or_a_string(schema: object, text: str, value: object) -> None:
    assert typed(schema, text) == value
    assert json.loads(bytes(Properties(b"{}").typed("a", text))) == value
    assert json.loads(bytes(Properties(b"no JSON").typed("a", text))) == value


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (INTEGER, "five", "five"),
        (INTEGER, "5.5", 5.5),
        (BOOLEAN, "yes", "yes"),
        (ARRAY, "a, b", "a, b"),
        (NUMBER, "inf", "inf"),
    ],
)
def test_what_is_of_another_type_is_lost_in_no_case(schema: object, text: str, value: object) -> None:
    assert typed(schema, text) == value


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        1,
        "string",
        {"type": 1},
        {"type": [1, None]},
        {"anyOf": 1},
        {"anyOf": [1]},
        {"enum": 1},
        {"$ref": 1},
        {"type": "odd"},
    ],
)
def test_an_odd_schema_says_nothing(schema: object) -> None:
    assert typed(schema, "12") == 12


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_literals_of_python(value: object) -> None:
    assert python_literal(repr(value)) == value


@pytest.mark.parametrize(
    "text", ["f()", "a", "1; 2", "", "{1}", "b'x'", "1j", "x = 1", "[" * 500, "-" * 100_000, "{**{}}", "a" * 70_000]
)
def test_what_is_no_literal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        python_literal(text)
