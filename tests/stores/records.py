"""Turns and runs to store."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from app.stores.ports.responses import ResponseRecord
from app.stores.ports.runs import StoredRun

PROJECT = "project-a"
LIFE = 1000
"""Seconds a test's record lives."""
LEASE = 60.0
OVER = -1.0
"""A lease that is over when it begins: no test waits for one."""


def turn(
    said: str, *, after: ResponseRecord | None = None, at: int = 0, project: str = PROJECT, items: tuple[str, ...] = ()
) -> ResponseRecord:
    """A turn whose input and output are easy to find again."""
    return ResponseRecord(
        id=str(uuid4()),
        project_id=project,
        previous_id=after.id if after else None,
        created_at=at,
        expires_at=at + LIFE,
        status="completed",
        model="qwen",
        response=f'{{"id":"r","output":[{{"answer":"{said}"}}]}}'.encode(),
        input=f'[{{"id":"msg_{said}","question":"{said}"}}]'.encode(),
        cuts=b"\x01\x00\xff",
        foreign_item_ids=items,
    )


def run(*, at: int = 0, lane: int = 0, project: str = PROJECT, after: str | None = None) -> StoredRun:
    """A run to be stored."""
    return StoredRun(
        id=str(uuid4()),
        project_id=project,
        previous_id=after,
        created_at=at,
        lane=lane,
        streamed=True,
        request=b'{"input":"\x00\xff"}',
        seed=b'{"id":"r"}',
    )


def record_of(run: StoredRun, said: str = "done") -> ResponseRecord:
    """What the run ends with."""
    return msgspec.structs.replace(turn(said), id=run.id, project_id=run.project_id, previous_id=run.previous_id)
