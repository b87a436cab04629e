"""Generates instances of JSON schemas from what the user said: how the demo model fills in arguments and structured
answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.providers.demo import pattern as _demo_pattern

Schema = Mapping[str, Any]

_DEEP = 5
"""From this depth on, the end of a recursive schema is preferred."""
_DEEPEST = 64
_MOST_SCHEMAS = 10_000
"""Visited for one instance; references can make a short schema very large."""
_LONGEST = 100_000
"""Characters of a string, and elements of an array."""
_JUDGED = 16
"""Longer words are not tested with a client's pattern, which may take exponential time."""
_WHOLE_TEXT = ("query", "question", "text", "prompt", "message", "content", "input")
_QUOTED = re.compile(r"[\"“「『]([^\"”」』]+)[\"”」』]")
_NAMED = re.compile(r"(?<=[a-z0-9,;:]\s)(?!I\b)[A-Z][\w'-]*(?:\s[A-Z][\w'-]*)*")
_PLACED = re.compile(r"\b(?:in|for|at|near|from|to|of|about)\s+([^\s,.;:!?]+)")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_FORMATS = {
    "date": "2025-01-01",
    "date-time": "2025-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1M",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def instance(schema: Schema, text: str, *, mark: str = "") -> Any:
    """A value that `schema` accepts: required properties only, words and numbers from `text`; free strings begin with
    `mark`.

    Not supported: `not`, `if`, `contains`, `patternProperties`, `dependent…`, and patterns with look-around. Raises
    ValueError for invalid schemas, and for schemas whose smallest instance is unreasonably large.
    """
    try:
        return _Writer(schema, text, mark).value(schema, "", 0)
    except (AttributeError, LookupError, TypeError, RecursionError) as error:
        # The schema is a client's and has not been validated; anything wrong with it raises one of these.
        raise ValueError(f"not a usable JSON schema: {error}") from error


class _Writer:
    def __init__(self, root: Schema, text: str, mark: str) -> None:
        self._root = root
        self._text = text
        self._mark = mark
        self._left = _MOST_SCHEMAS
        self._phrases = _QUOTED.findall(text) or _NAMED.findall(text) or _PLACED.findall(text) or [text]
        self._numbers = [float(found) for found in _NUMBER.findall(text)]

    def value(self, schema: Schema | bool, name: str, depth: int) -> Any:  # noqa: FBT001 - `true` is a schema
        """An instance of `schema`, which belongs to the property `name`."""
        rules = self._resolved(schema, depth)
        if max(rules.get("minLength", 0), rules.get("minItems", 0)) > _LONGEST:
            raise ValueError("it has no instance of a reasonable size")
        if "const" in rules:
            return rules["const"]
        if "enum" in rules:
            return self._choice(rules["enum"])
        writers: Mapping[str, Callable[[], Any]] = {
            "object": lambda: self._object(rules, depth),
            "array": lambda: self._array(rules, name, depth),
            "integer": lambda: int(self._number(rules, step=1)),
            "number": lambda: _plain(self._number(rules, step=0)),
            "boolean": lambda: True,
            "null": lambda: None,
        }
        return writers.get(_type(rules, depth), lambda: self._string(rules, name))()

    def _resolved(self, schema: Schema | bool, depth: int) -> Schema:  # noqa: FBT001 - `true` is a schema
        """The schema with its references and combinations resolved."""
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            raise ValueError("it has no instance of a reasonable size")
        if isinstance(schema, bool):
            return {}
        rules = dict(schema)
        if "$ref" in rules:
            rules = _merged(self._resolved(self._at(rules.pop("$ref")), depth + 1), rules)
        for part in rules.pop("allOf", ()):
            rules = _merged(self._resolved(part, depth + 1), rules)
        for combination in ("anyOf", "oneOf"):
            branches: Sequence[Schema] = rules.pop(combination, ())
            if branches:
                rules = _merged(self._resolved(_branch(branches, depth), depth + 1), rules)
        return rules

    def _at(self, pointer: str) -> Schema:
        """The target of a local JSON pointer."""
        found: Any = self._root
        for token in pointer.removeprefix("#").split("/")[1:]:
            found = found[token.replace("~1", "/").replace("~0", "~")]
        return found

    def _choice(self, values: Sequence[Any]) -> Any:
        said = self._text.casefold()
        return next((value for value in values if isinstance(value, str) and value.casefold() in said), values[0])

    def _object(self, rules: Schema, depth: int) -> dict[str, Any]:
        properties: Mapping[str, Schema] = rules.get("properties", {})
        return {name: self.value(properties.get(name, {}), name, depth + 1) for name in rules.get("required", ())}

    def _array(self, rules: Schema, name: str, depth: int) -> list[Any]:
        first: Sequence[Schema] = rules.get("prefixItems", ())
        least = rules.get("minItems", 0)
        wanted = max(least, len(first), int(depth < _DEEP))
        rest: Schema | bool = rules.get("items", {})
        if rest is False:
            wanted = len(first)
        schemas = [*first, *[rest] * wanted][: min(wanted, rules.get("maxItems", wanted))]
        written = [self.value(schema, name, depth + 1) for schema in schemas]
        return self._distinct(written, rest) if rules.get("uniqueItems") else written

    def _distinct(self, values: list[Any], schema: Schema | bool) -> list[Any]:  # noqa: FBT001 - `true` is a schema
        """Make equal values distinct: with the enum's other values, or by counting on."""
        others: list[Any] = list(self._resolved(schema, 0).get("enum", ()))
        seen: list[Any] = []
        for value in values:
            candidates = (value, *others, *(_varied(value, number) for number in range(2, len(values) + 2)))
            seen.append(next((candidate for candidate in candidates if candidate not in seen), value))
        return seen

    def _number(self, rules: Schema, *, step: float) -> float:
        low = max(rules.get("minimum", -math.inf), _beyond(rules, "exclusiveMinimum", -math.inf, step))
        high = min(rules.get("maximum", math.inf), _beyond(rules, "exclusiveMaximum", math.inf, -step))
        step = rules.get("multipleOf", step)
        for position, number in enumerate(self._numbers):
            if low <= number <= high and (not step or number % step == 0):
                return self._numbers.pop(position)
        start = low if low > 0 or high < low else min(max(low, 1), high)
        if not step:
            return start
        above = math.ceil(start / step) * step
        return above if above <= high else math.floor(high / step) * step

    def _string(self, rules: Schema, name: str) -> str:
        if "format" in rules and rules["format"] in _FORMATS:
            return _FORMATS[rules["format"]]
        least: int = rules.get("minLength", 0)
        most: int | None = rules.get("maxLength")
        if "pattern" in rules:
            return self._patterned(rules["pattern"], least)
        said = self._text if any(word in name.casefold() for word in _WHOLE_TEXT) else self._phrase()
        return (self._mark + said).ljust(least, ".")[:most]

    def _patterned(self, pattern: str, least: int) -> str:
        fitting = (
            word
            for word in (*self._phrases, *self._text.split())
            if least <= len(word) <= _JUDGED and _found(pattern, word)
        )
        return next(fitting, None) or _demo_pattern.write(pattern, shortest=least) or self._phrase()

    def _phrase(self) -> str:
        """The next thing the user named; the last one repeats."""
        return self._phrases.pop(0) if len(self._phrases) > 1 else self._phrases[0]


def _varied(value: Any, number: int) -> Any:
    match value:
        case str():
            return f"{value} {number}"
        case bool():
            return number == 2  # noqa: PLR2004 - counting begins with two, and there are two booleans
        case int() | float():
            return value + number
        case _:
            return value


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


def _found(pattern: str, word: str) -> bool:
    try:
        return re.search(pattern, word) is not None
    except re.error:
        return False


def _type(rules: Schema, depth: int) -> str:
    declared = rules.get("type")
    if isinstance(declared, str):
        return declared
    if isinstance(declared, list):
        names: list[str] = [*declared]
        return (
            "null" if "null" in names and depth >= _DEEP else next((name for name in names if name != "null"), "null")
        )
    signs = {
        "object": ("properties", "required"),
        "array": ("items", "prefixItems", "minItems"),
        "number": ("minimum", "maximum"),
    }
    return next((kind for kind, keys in signs.items() if any(key in rules for key in keys)), "string")


def _branch(branches: Sequence[Schema], depth: int) -> Schema:
    """The first alternative with content; deep inside, the one that ends a recursion."""
    ends = [branch for branch in branches if branch.get("type") == "null"]
    if depth >= _DEEP:
        return ends[0] if ends else branches[-1]
    return next((branch for branch in branches if branch not in ends), branches[0])


def _merged(first: Schema, second: Schema) -> dict[str, Any]:
    """Both schemas' rules combined."""
    both = {**first, **second}
    if "properties" in first and "properties" in second:
        both["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        both["required"] = list(dict.fromkeys([*first["required"], *second["required"]]))
    return both


def _beyond(rules: Schema, key: str, missing: float, step: float) -> float:
    """The first value on the right side of an exclusive bound."""
    if key not in rules or isinstance(rules[key], bool):
        return missing
    bound: float = rules[key]
    return bound + (step or math.copysign(max(abs(bound), 1) / 1024, missing) * -1)
