"""Frames: one write each, and templates that cannot drift from the typed events."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.stream.projection import parse_frame
from app.protocol.wire import events as e
from app.protocol.wire.sse import DONE, HEARTBEAT, DeltaFrames, frame

SAMPLES: tuple[e.TextualDelta, ...] = (
    e.TextDelta(sequence_number=0, item_id="msg_1", output_index=1, content_index=2, delta=""),
    e.RefusalDelta(sequence_number=0, item_id="msg_1", output_index=1, content_index=2, delta=""),
    e.ReasoningTextDelta(sequence_number=0, item_id="rs_1", output_index=0, delta=""),
    e.SummaryTextDelta(sequence_number=0, item_id="rs_1", output_index=0, delta=""),
    e.ArgumentsDelta(sequence_number=0, item_id="fc_1", output_index=3, delta=""),
    e.CustomInputDelta(sequence_number=0, item_id="ctc_1", output_index=3, delta=""),
)


def test_a_frame_is_an_event_line_a_data_line_and_a_blank_one() -> None:
    event = e.ArgumentsDone(sequence_number=7, item_id="fc_1", output_index=0, arguments='{"a":\n1}')
    assert frame(event) == (
        b"event: response.function_call_arguments.done\n"
        b'data: {"type":"response.function_call_arguments.done","sequence_number":7,'
        b'"item_id":"fc_1","output_index":0,"arguments":"{\\"a\\":\\n1}"}\n\n'
    )


def test_an_error_event_carries_its_fields_flat_and_nested() -> None:
    event = e.ErrorEvent(
        sequence_number=3, code="c", message="m", param=None, error=e.NestedError("server_error", "c", "m", None)
    )
    assert frame(event) == (
        b'event: error\ndata: {"type":"error","sequence_number":3,"code":"c","message":"m","param":null,'
        b'"error":{"type":"server_error","code":"c","message":"m","param":null}}\n\n'
    )


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
@given(number=st.integers(0, 2**40), text=st.text(max_size=20))
def test_a_template_writes_what_the_typed_event_encodes_to(sample: e.TextualDelta, number: int, text: str) -> None:
    event = msgspec.structs.replace(sample, sequence_number=number, delta=text)
    assert DeltaFrames(sample).frame(number, text) == frame(event)


@pytest.mark.parametrize("silent", [HEARTBEAT, DONE])
def test_heartbeat_and_marker_are_whole_frames_and_no_events(silent: bytes) -> None:
    assert silent.endswith(b"\n\n")
    assert b"\n" not in silent[:-2]
    assert parse_frame(silent) is None


@given(st.text(st.sampled_from('a\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029北\\"\x00'), max_size=12))
def test_no_text_ends_the_line(text: str) -> None:
    """Not even where Python's `splitlines` sees an end."""
    delta = e.TextDelta(sequence_number=7, item_id="msg_1", output_index=1, content_index=2, delta=text)
    made = frame(delta)

    assert made.decode().splitlines() == [*made.decode().split("\n")[:2], ""]
    assert DeltaFrames(msgspec.structs.replace(delta, sequence_number=0, delta="")).frame(7, text) == made
    assert parse_frame(made) == delta
