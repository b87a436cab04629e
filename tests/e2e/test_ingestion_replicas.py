"""Two gateways ingest the files of the same vector stores, on both databases."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import cast

import pytest

from tests.support.embeddings import serving_embeddings
from tests.support.gateway import running_gateway
from tests.support.upstream import ScriptedUpstream

WHALES = b"# Whales\n\nThe blue whale is the largest animal that has ever lived. It eats krill."


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """A database of this test only."""
    return cast("str", request.getfixturevalue(request.param))


async def test_a_process_that_was_stopped_does_not_undo_what_another_has_done(
    upstream: ScriptedUpstream, shared_url: str, tmp_path: Path
) -> None:
    shared = {"database_url": shared_url, "files_dir": str(tmp_path / "files")}
    (tmp_path / "other").mkdir()
    with (
        serving_embeddings() as held,
        serving_embeddings() as quick,
        running_gateway(tmp_path, upstream.url, **shared, **held.settings) as first,
    ):
        quick.open.set()
        async with first.client() as client:
            file = (await client.files.create(file=("whales.md", WHALES), purpose="assistants")).id
            store = (await client.vector_stores.create()).id
            await client.vector_stores.files.create(store, file_id=file, attributes={"version": 1})
        assert await asyncio.to_thread(held.asked.wait, 30)
        first.process.send_signal(signal.SIGSTOP)
        try:
            with running_gateway(tmp_path / "other", upstream.url, **shared, **quick.settings) as second:
                async with second.client() as client:
                    files = client.vector_stores.files
                    await files.update(file, vector_store_id=store, attributes={"version": 2})
                    done = await files.poll(file, vector_store_id=store)
                    assert (done.status, done.last_error) == ("completed", None)
                    held.open.set()
                    first.process.send_signal(signal.SIGCONT)
                    assert "while it was being ingested" in await first.logged("while it was being ingested")
                    found = (await client.vector_stores.search(store, query="whale")).data
                    assert [hit.attributes for hit in found] == [{"version": 2}]
        finally:
            first.process.send_signal(signal.SIGCONT)
