"""Turns to store."""

from __future__ import annotations

from uuid import uuid4

from app.stores.ports.responses import ResponseRecord

PROJECT = "project-a"
LIFE = 1000
"""Seconds a test's record lives."""


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
