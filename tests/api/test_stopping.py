"""What a server that stops has no more time for."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
from starlette.types import Message, Scope

from app.api.responses.create import CreateResponse, Policy
from app.api.responses.streaming import Heartbeats
from app.engine.accounts.access import Access
from app.engine.metrics import Metrics
from app.engine.responses import Responses
from app.engine.runs.supervisor import Runs
from app.stores.ports.keys import KeyStore
from app.telemetry.request import RequestSummary, current
from app.telemetry.table import table


class SlowKeys:
    """A database that does not answer."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def find(self, digest: bytes) -> None:
        del digest
        self.asked.set()
        await asyncio.Future[None]()


async def test_a_request_that_is_cut_off_is_told_and_counted() -> None:
    keys, metrics = SlowKeys(), Metrics(table())
    access = Access(cast("KeyStore", keys), admin_key=None, required=True)
    nobody = cast("Responses", None)
    policy = Policy(body_bytes=1000, done_marker=False, lenient_user_agents=())
    create = CreateResponse(nobody, access, Runs(1), metrics, Heartbeats(1), policy)
    scope: Scope = {"type": "http", "headers": [(b"authorization", b"Bearer sk-1")], "state": {"request_id": "req_1"}}
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    summary = RequestSummary("req_1", "POST")
    current.set(summary)
    serving = asyncio.get_running_loop().create_task(create(scope, receive, send))
    await keys.asked.wait()
    serving.cancel()
    await serving

    assert sent[0]["status"] == summary.status == 503
    assert msgspec.json.decode(sent[1]["body"])["error"]["code"] == "server_is_stopping"
    assert b'route="/v1/responses",status="503"' in metrics.render()
