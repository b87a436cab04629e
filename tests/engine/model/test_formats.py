"""What is believed of an upstream that says it enforces a format."""

from __future__ import annotations

import msgspec

from app.engine.model.formats import Formats
from app.providers.base import JsonObject, JsonSchema

SCHEMA = JsonSchema("n", msgspec.Raw(b"{}"))
OTHER = JsonSchema("o", msgspec.Raw(b'{"type":"object"}'))


def test_a_promise_is_believed_when_it_was_kept_for_that_upstream_model_and_kind_of_format() -> None:
    formats = Formats()
    assert not formats.believed("u", "m", SCHEMA)
    formats.note("u", "m", SCHEMA, kept=True)
    assert formats.believed("u", "m", OTHER)
    assert not formats.believed("u", "m", JsonObject())
    assert not formats.believed("u", "n", SCHEMA)
    assert not formats.believed("v", "m", SCHEMA)


def test_a_broken_promise_is_not_believed_again() -> None:
    formats = Formats()
    formats.note("u", "m", SCHEMA, kept=True)
    formats.note("u", "m", SCHEMA, kept=False)
    formats.note("u", "m", SCHEMA, kept=True)
    assert not formats.believed("u", "m", SCHEMA)
    formats.note("u", "m", JsonObject(), kept=False)
    formats.note("u", "m", JsonObject(), kept=True)
    assert not formats.believed("u", "m", JsonObject())
