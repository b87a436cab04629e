"""The response as the fold of its events, at any moment."""

from __future__ import annotations

import pytest

from app.protocol import deltas as d
from app.protocol.stream.projection import fold, parse_frame
from app.protocol.wire import events as e
from app.protocol.wire.sse import frame
from tests.protocol.assembling import assemble

MADE = assemble([d.Reasoning("Hm"), d.Text("Hi"), d.TokenUsage(1, 2, 3), d.TurnFinished("stop")])
EVENTS = [event for f in MADE.frames if (event := parse_frame(f))]


def test_before_the_first_event_there_is_no_response() -> None:
    assert fold([]) is None


def test_before_the_end_the_response_holds_the_items_that_are_done() -> None:
    for count in range(1, len(EVENTS)):
        response = fold(EVENTS[:count])
        assert response is not None
        assert response.status == "in_progress"
        done = sum(isinstance(event, e.ItemDone) for event in EVENTS[:count])
        assert response.output == MADE.response.output[:done]


def test_a_background_response_is_queued_until_it_is_in_progress() -> None:
    made = assemble([d.Text("Hi"), d.TurnFinished("stop")], background=True)
    events = [event for f in made.frames if (event := parse_frame(f))]
    snapshots = [fold(events[:count]) for count in range(1, 5)]
    assert [snapshot.status for snapshot in snapshots if snapshot] == ["queued", "queued", "in_progress", "in_progress"]
    assert fold(events) == made.response


def test_at_the_end_it_is_the_finished_response() -> None:
    assert fold(EVENTS) == MADE.response


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event.sequence_number))
def test_a_frame_parses_to_the_event_it_was_written_from(event: e.Event) -> None:
    assert parse_frame(frame(event)) == event


@pytest.mark.parametrize("data", [b"{", b"{}", b'{"type":"response.unknown"}', b'{"type":"error"}'])
def test_a_frame_of_something_else_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever msgspec says about it
        parse_frame(b"event: x\ndata: " + data + b"\n\n")
