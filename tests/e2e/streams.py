"""What several end-to-end tests need: the model's name, and streams taken apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.judge import judge
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]

MODEL = "qwen3-8b"


class Frames:
    """The frames of an answer that is still arriving."""

    def __init__(self, answer: httpx.Response) -> None:
        self._chunks: AsyncIterator[bytes] = answer.aiter_raw()
        self._held = b""

    async def take(self) -> bytes:
        """The next frame."""
        while b"\n\n" not in self._held:
            self._held += await anext(self._chunks)
        frame, _, self._held = self._held.partition(b"\n\n")
        return frame + b"\n\n"

    async def until(self, event: str) -> bytes:
        """Everything up to and including the next event of this type."""
        taken = b""
        while True:
            frame = await self.take()
            taken += frame
            if frame.startswith(b"event: %b\n" % event.encode()):
                return taken

    async def rest(self) -> bytes:
        """Everything that is still to come."""
        return self._held + b"".join([chunk async for chunk in self._chunks])


def split(stream: bytes) -> list[bytes]:
    """The frames of a whole stream."""
    return [frame + b"\n\n" for frame in stream.split(b"\n\n")[:-1]]


def id_in(frames: bytes) -> str:
    """The response's id, from its first frame."""
    return frames.split(b'"id":"')[1].split(b'"')[0].decode()


def final(stream: bytes) -> Json:
    """The response at the end of a stream that holds against the judge."""
    response: Json = judge(stream).events[-1]["response"]
    return response


async def replay(http: httpx.AsyncClient, response_id: str, **query: int) -> bytes:
    """The events of a stored or live response, to their end."""
    answer = await http.get(f"/v1/responses/{response_id}", params={"stream": "true", **query})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer.content


def sent(upstream: ScriptedUpstream) -> list[Json]:
    """The messages of the newest upstream request."""
    messages: list[Json] = upstream.requests[-1].body["messages"]
    return messages
