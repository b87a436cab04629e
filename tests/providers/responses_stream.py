"""Streams of the Responses dialect as the vendor frames them, for the tests of its decoder and of its provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.protocol.deltas import TurnFinished

Json = dict[str, Any]

CREATED: Json = {"type": "response.created", "response": {"status": "queued", "model": "", "output": []}}
STARTED: Json = {"type": "response.in_progress", "response": {"status": "in_progress", "output": []}}
COMPLETED: Json = {"type": "response.completed", "response": {"status": "completed", "output": []}}
STOPPED = TurnFinished("stop")
FAILED: Json = {
    "type": "response.failed",
    "response": {"status": "failed", "error": {"code": "InvalidParameter", "message": "Unsupported model: '__nope__'"}},
}


def frames(*events: Mapping[str, Any], status: int = 200) -> bytes:
    """Events as the vendor frames them: no blank after a colon, an id, a comment, no end marker."""
    written = [
        f"id:{number}\nevent:{event.get('type', 'error')}\n:HTTP_STATUS/{status}\n"
        f"data:{json.dumps({'sequence_number': number - 1, **event}, ensure_ascii=False)}\n\n"
        for number, event in enumerate(events, start=1)
    ]
    return "".join(written).encode()


def text(piece: str) -> Json:
    return {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": piece,
        "logprobs": [],
    }
