"""What stays of a run: its record, and its context for the next turn."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.engine.conversation import records
from app.engine.conversation.context import Context
from app.engine.conversation.exchanges import Exchanges, encode
from app.engine.conversation.history import History, Recent
from app.engine.conversation.items import Item
from app.engine.hosted.sessions import Hosted
from app.engine.model.preparation import Prepared
from app.engine.request.admission import Admitted
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.replay import encode_cuts
from app.protocol.wire import ids
from app.stores.ports.responses import ResponseRecord


class Identity(msgspec.Struct, frozen=True):
    """Which run it is. Times are Unix seconds."""

    id: str
    """Of the response, without prefix."""
    project_id: str
    previous_id: str | None
    """Of the response that it continues."""
    created_at: int
    expires_at: int


def identity(run_id: str, project_id: str, admitted: Admitted, created_at: int, retention_seconds: int) -> Identity:
    """The identity of the run of a request."""
    named = admitted.request.previous_response_id
    previous_id = ids.normalize_response_id(named) if named else None
    return Identity(run_id, project_id, previous_id, created_at, created_at + retention_seconds)


def record(
    run: Identity, built: Assembler, items: Sequence[Item], hosted: Hosted | None, *, streamed: bool
) -> ResponseRecord:
    """The record of an ended run with these input items."""
    response = built.response
    if response is None:
        raise RuntimeError("the run has not ended")
    stored, foreign = records.input_array(items)
    return ResponseRecord(
        id=run.id,
        project_id=run.project_id,
        previous_id=run.previous_id,
        created_at=run.created_at,
        expires_at=run.expires_at,
        status=response.status,
        model=response.model,
        response=built.body,
        input=stored,
        cuts=encode_cuts(built.cuts) if streamed else None,
        exchanges=encode(hosted.exchanges) if hosted is not None else None,
        foreign_item_ids=foreign,
    )


def remember(history: History, run: Identity, prepared: Prepared, built: Assembler, hosted: Hosted | None) -> None:
    """Cache the context after a stored response that can be continued."""
    if built.response is None or built.response.status not in ("completed", "incomplete"):
        return
    if prepared.transcript.uploads:  # any process may delete a file, which the cache must not show then
        return
    body, turns = built.body, prepared.context.turns | {run.id}
    exchanges = hosted.exchanges if hosted is not None else Exchanges()
    # all that `make` may keep in memory
    view, transcript, prefix = prepared.view, prepared.transcript, prepared.context.prefix
    expires_at = run.expires_at

    def make() -> Context:
        records.continue_with(body, exchanges, transcript)
        return view.settle(transcript, turns, prefix, expires_at)

    size = len(prefix) + transcript.weight + exchanges.weight + len(body)
    history.remember(view, run.id, Recent(turns, expires_at, size, make), after=run.previous_id)
