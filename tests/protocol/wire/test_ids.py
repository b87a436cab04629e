"""Identifiers say what they are and where their object is."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.wire import ids

NOW_MS = 0x0199_AABB_CCDD
ID = ids.response_id(NOW_MS, bytes(range(10)))
RESPONSE_IDS = st.builds(ids.response_id, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
POSITIONS = st.integers(0, 2**32 - 1)


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_response_id_is_a_canonical_uuid_of_version_7(now_ms: int, random: bytes) -> None:
    text = ids.response_id(now_ms, random)
    parsed = uuid.UUID(text)
    assert (str(parsed), parsed.version, parsed.variant, parsed.int >> 80) == (text, 7, uuid.RFC_4122, now_ms)


def test_every_random_bit_that_has_a_place_counts() -> None:
    bits = {ids.response_id(NOW_MS, (1 << bit).to_bytes(10)) for bit in range(80)}
    assert len(bits) == 74 + 1  # 74 places (RFC 9562), and the id of those bits that have none


def test_ids_sort_by_time() -> None:
    made = [ids.response_id(NOW_MS + step, bytes([255 - step] * 10)) for step in range(200)]
    assert made == sorted(made)


@pytest.mark.parametrize(
    ("now_ms", "random"), [(2**48, bytes(10)), (-1, bytes(10)), (NOW_MS, bytes(9)), (NOW_MS, bytes(11))]
)
def test_a_response_id_refuses_what_does_not_fit(now_ms: int, random: bytes) -> None:
    with pytest.raises(ValueError, match="48 bits"):
        ids.response_id(now_ms, random)


@pytest.mark.parametrize("prefix", ["", "resp_"])
@pytest.mark.parametrize("hyphens", [True, False])
@pytest.mark.parametrize("capitals", [True, False])
def test_every_way_to_write_a_response_id_is_understood(*, prefix: str, hyphens: bool, capitals: bool) -> None:
    written = ID if hyphens else ID.replace("-", "")
    assert ids.normalize_response_id(prefix + (written.upper() if capitals else written)) == ID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resp_",
        "resp_123",
        ID + "0",
        ID[:-1],
        f" {ID}",
        f"{ID}\n",
        f"msg_{ID}",
        f"resp_resp_{ID}",
        ID.replace("-", "", 1),
        "g" + ID[1:],
    ],
)
def test_what_is_no_response_id_is_refused(text: str) -> None:
    assert ids.normalize_response_id(text) is None


@given(response_id=RESPONSE_IDS, position=POSITIONS, output=st.booleans())
def test_an_item_id_says_where_the_item_is(*, response_id: str, position: int, output: bool) -> None:
    made = ids.item_id("msg", response_id, position, output=output)
    assert len(made) == len("msg_") + 48
    assert ids.locate(made) == ids.ItemLocation(response_id, output=output, position=position)


def test_item_ids_differ_by_direction_and_position() -> None:
    made = {ids.item_id("fc", ID, position, output=output) for position in range(100) for output in (True, False)}
    assert len(made) == 200


@pytest.mark.parametrize(
    "text",
    [
        "",
        "msg_1",
        f"msg_{ID}",
        f"msg_{ID.replace('-', '')}",
        "msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b",  # the original API's
        "msg_019981b3c2d47a5f8e1b0c2d3e4f5a6b7c8d9e0f1a2b3c4d",  # the right shape, not our checksum
        ids.item_id("msg", ID, 1, output=True).removeprefix("msg_"),
        ids.item_id("msg", ID, 1, output=True).upper(),
        ids.item_id("msg", ID, 1, output=True) + "\n",
        ids.item_id("msg", "00000000-0000-4000-8000-000000000000", 1, output=True),  # another version of UUID
    ],
)
def test_an_id_of_another_maker_is_not_located(text: str) -> None:
    assert ids.locate(text) is None


@pytest.mark.parametrize("position", [-1, 2**32])
def test_an_item_id_refuses_a_position_without_a_place(position: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        ids.item_id("msg", ID, position, output=True)


@pytest.mark.parametrize(
    ("item_type", "prefix"),
    [
        ("message", "msg"),
        ("function_call", "fc"),
        ("function_call_output", "fco"),
        ("reasoning", "rs"),
        ("compaction", "cmp"),
        ("x:new", "item"),
    ],
)
def test_items_are_recognised_by_their_prefix(item_type: str, prefix: str) -> None:
    assert ids.item_prefix(item_type) == prefix
    assert ids.locate(ids.item_id(ids.item_prefix(item_type), ID, 7, output=False)) is not None


@given(st.lists(st.tuples(RESPONSE_IDS, st.integers(0, 2**16 - 1)), unique=True, max_size=20))
def test_call_ids_are_unique_and_short(calls: list[tuple[str, int]]) -> None:
    made = {ids.call_id(response_id, position) for response_id, position in calls}
    # Those of responses 49 days apart to the millisecond, with all random bits alike, are the only ones that could
    # meet.
    assert len(made) == len({(response_id.replace("-", "")[4:], position) for response_id, position in calls})
    assert all(len(text) == len("call_") + 32 for text in made)
