"""Items to the JSON that is stored, as they came, and back: every item read has an id, and nothing else changes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.conversation import records
from app.engine.conversation.context import Context
from app.engine.conversation.exchanges import Exchanges
from app.engine.conversation.items import Item
from app.engine.conversation.transcript import Transcript
from app.protocol.messages import Assistant
from app.protocol.wire import ids, stored_input
from app.protocol.wire.requests import parse_item
from tests.engine.scripted import admitted

RID = ids.response_id(1, bytes(10))


def items(*raws: bytes) -> list[Item]:
    return [Item(msgspec.Raw(raw), parse_item(msgspec.Raw(raw), ""), "") for raw in raws]


def stored(*raws: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """The items as they are read again, and the ids of the client's own making."""
    array, foreign = records.input_array(items(*raws))
    return [json.loads(bytes(raw)) for raw in stored_input.identified(array, RID)], list(foreign)


def test_an_item_without_an_id_gets_one_that_says_where_it_is() -> None:
    array, foreign = stored(
        b'{"role":"user","content":"a"}', b'{"type":"function_call_output","call_id":"c","output":"x"}'
    )
    assert [ids.locate(item["id"]) for item in array] == [
        ids.ItemLocation(RID, output=False, position=i) for i in range(2)
    ]
    assert [item["id"].split("_")[0] for item in array] == ["msg", "fco"]
    assert foreign == []


@pytest.mark.parametrize(
    "raw",
    [
        b'{"role":"user","content":"a"}',
        b' { "role" : "user", "content":"a" } ',
        b'{"id":null,"role":"user","content":"a"}',
        b'{"role":"user","content":"a", "id": null}',
        b'{"role":"user","content":"say \\"id\\""}',
        b'{"role":"user","content":"a","metadata":{"id":"x"}}',
        b'{"role":"user","content":"a","\\u0069d":null}',
        b'{"id":"","role":"user","content":"a"}',
        b'{"role":"user","content":"a","number":1.50,"large":123456789012345678901234567890}',
        b"{}",
    ],
)
def test_the_rest_of_the_item_stays(raw: bytes) -> None:
    ((item,), _) = stored(raw)
    assert item == {**json.loads(bytes(raw)), "id": ids.item_id("msg", RID, 0, output=False)}


def test_ids_of_the_client_stay_and_those_of_its_own_making_are_noted() -> None:
    ours = ids.item_id("msg", RID, 3, output=True)
    array, foreign = stored(
        b'{"id":"msg_codex","role":"user","content":"a"}', b'{"id":"%b","role":"user","content":"a"}' % ours.encode()
    )
    assert [item["id"] for item in array] == ["msg_codex", ours]
    assert foreign == ["msg_codex"]


def test_bytes_are_kept_as_they_were_sent() -> None:
    raw = b'{"id":"x", "role":"user",  "content":"\\u00e9 1.0"}'
    array, _ = records.input_array(items(raw, b'{"role":"user"}', raw))
    assert array == b'[%b,{"role":"user"},%b]' % (raw, raw)
    assert stored_input.identified(array, RID)[::2] == (msgspec.Raw(raw), msgspec.Raw(raw))


def test_a_string_is_stored_as_the_message_it_is() -> None:
    array, _ = records.input_array(admitted(input="hi").items)
    (item,) = (json.loads(bytes(raw)) for raw in stored_input.identified(array, RID))
    assert item["content"] == [{"type": "input_text", "text": "hi"}]
    assert item["id"].startswith("msg_")


def test_the_output_is_read_as_the_input_it_becomes() -> None:
    message = b'{"type":"message","role":"assistant","content":[{"type":"output_text","text":"a"}]}'
    body = b'{"id":"r","output":[%s],"x":1}' % message
    transcript = Transcript(Context(), lambda name, _namespace: name, lambda _blob: None)
    records.continue_with(body, Exchanges(), transcript)
    assert transcript.messages == [Assistant("a")]


@given(
    items=st.lists(
        st.sampled_from([None, "msg_client", *(ids.item_id("msg", RID, place, output=False) for place in range(3))])
    )
)
def test_rows_of_before_are_read_as_they_were_and_new_ones_the_same(items: list[str | None]) -> None:
    """An earlier release wrote the id of its place into each item that had none."""
    came = [{"role": "user"} | ({} if item is None else {"id": item}) for item in items]
    earlier = [{"id": ids.item_id("msg", RID, place, output=False), **item} for place, item in enumerate(came)]
    new, old = (stored_input.identified(json.dumps(array).encode(), RID) for array in (came, earlier))
    assert [json.loads(bytes(raw)) for raw in new] == [json.loads(bytes(raw)) for raw in old] == earlier


def test_an_input_without_items_is_an_empty_array() -> None:
    """All of them may have been left out, as the chain holds them already."""
    assert records.input_array([]) == (b"[]", [])
