"""Sealed thinking opens for its owner, its model and nobody else."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.conversation.sealing import Sealer

SEALER = Sealer(b"k" * 32)
RECORDED = "gwr1.RN2K6jFz7JKSTgCCMQdi3wir9o-y_nWeQPJHxzmk8RJiIv9xroQZ2WNQPaHiZnBysZgPfXYINH7v"
URL_SAFE = set(string.ascii_letters + string.digits + "-_.")


def seal(text: str) -> str:
    return SEALER.seal(text, project_id="p", model="m")


def open_(blob: str, *, sealer: Sealer = SEALER, project_id: str = "p", model: str = "m") -> str | None:
    return sealer.open(blob, project_id=project_id, model=model)


BLOB = seal("why")


@given(st.text(max_size=2000))
def test_what_was_sealed_opens(text: str) -> None:
    blob = seal(text)
    assert open_(blob) == text
    assert blob.startswith("gwr1.")
    assert set(blob) <= URL_SAFE


def test_a_blob_can_be_read_for_as_long_as_its_version_is_known() -> None:
    """A blob from an earlier release; clients keep them for days."""
    assert open_(RECORDED) == "because " * 80


def test_another_replica_with_the_same_secret_opens_it() -> None:
    assert open_(seal("why"), sealer=Sealer(b"k" * 32)) == "why"


def test_nobody_else_opens_it() -> None:
    blob = seal("why")
    assert open_(blob, sealer=Sealer(b"x" * 32)) is None
    assert open_(blob, project_id="other") is None
    assert open_(blob, model="other") is None


def test_project_and_model_cannot_be_shifted_into_each_other() -> None:
    blob = SEALER.seal("why", project_id="a", model="b,c")
    assert open_(blob, project_id="a,b", model="c") is None


@pytest.mark.parametrize("text", ["why", "why? " * 500])
def test_no_character_can_be_altered(text: str) -> None:
    blob = seal(text)
    for at in range(len(blob)):
        altered = blob[:at] + ("A" if blob[at] != "A" else "B") + blob[at + 1 :]
        assert open_(altered) is None, at


@pytest.mark.parametrize(
    "blob",
    [
        "",
        "gwr1.",
        "gwr1.AAAA",
        BLOB[:-4],
        BLOB + "AAAA",
        BLOB + "=",
        BLOB + "\n",
        BLOB[:20] + " " + BLOB[20:],
        BLOB.removeprefix("gwr1."),
        BLOB.replace("gwr1.", "gwr2."),
        "gwr1." + "é" * 60,
    ],
    ids=[
        "empty",
        "prefix",
        "short",
        "cut",
        "longer",
        "padded",
        "newline",
        "space",
        "no prefix",
        "other version",
        "not ascii",
    ],
)
def test_what_is_no_blob_of_ours_is_refused(blob: str) -> None:
    assert open_(blob) is None


def test_the_same_text_is_never_sealed_the_same_way() -> None:
    assert len({seal("why") for _ in range(100)}) == 100


def test_long_texts_are_compressed() -> None:
    text = "I think therefore I am. " * 1000
    assert len(seal(text)) < len(text) / 10
    assert open_(seal(text)) == text


def test_incompressible_texts_of_the_greatest_length_open() -> None:
    text = "".join(random.Random(1).choices(string.printable, k=1024 * 1024))  # noqa: S311 - test data
    assert open_(seal(text)) == text


def test_of_a_text_that_is_too_long_the_end_is_kept() -> None:
    opened = open_(seal("答" * 400_000 + "end"))
    assert opened is not None
    assert opened == "答" * ((1024 * 1024 - 3) // 3) + "end"
