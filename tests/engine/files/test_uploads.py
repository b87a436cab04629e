"""Uploaded files: what is kept, for how long, and who sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.db.engine import Database
from app.engine.files.uploads import NewFile, safe_name
from app.knowledge.ports.files import FileRecord
from app.knowledge.records_files import SqlFileRecords
from app.protocol.wire.errors import InvalidRequest, NotFound, PayloadTooLarge
from app.protocol.wire.paging import Page
from tests.engine.library import PROJECT, READ_BYTES, Library, build, pieces


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    return build(database, tmp_path / "files")


def _contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in (directory / "files").rglob("*") if path.is_file()]


async def test_a_file_is_read_as_it_was_uploaded(library: Library) -> None:
    content = bytes(range(256)) * 100
    made = await library.upload(content, "a/b\\c.bin", purpose="assistants")

    assert (made.filename, made.size, made.purpose, made.expires_at) == ("c.bin", len(content), "assistants", None)
    assert await library.files.get(PROJECT, made.id) == made
    assert (await library.files.read(PROJECT, made.id)).content == content
    assert (await library.stores.read(PROJECT, made.id)).filename == "c.bin"


async def test_another_project_sees_nothing(library: Library) -> None:
    made = await library.upload(b"secret")
    for act in (library.files.get, library.files.read, library.files.content, library.files.delete):
        with pytest.raises(NotFound, match=made.id):
            await act("project-b", made.id)
    assert await library.files.list("project-b", None, Page(10)) == ([], False)
    assert (await library.files.read(PROJECT, made.id)).content == b"secret"


async def test_the_same_content_is_kept_once_until_its_last_file_goes(library: Library, tmp_path: Path) -> None:
    first, second = await library.upload(b"same"), await library.upload(b"same", project="project-b")
    assert _contents(tmp_path) == [b"same"]

    await library.files.delete(PROJECT, first.id)
    assert (await library.files.read("project-b", second.id)).content == b"same"
    await library.files.delete("project-b", second.id)
    assert _contents(tmp_path) == []
    with pytest.raises(NotFound):
        await library.files.delete(PROJECT, first.id)


async def test_content_survives_deleting_and_uploading_at_once(library: Library) -> None:
    for _ in range(5):
        old = await library.upload(b"same")
        new, _ = await asyncio.gather(library.upload(b"same"), library.files.delete(PROJECT, old.id))
        assert (await library.files.read(PROJECT, new.id)).content == b"same"
        await library.files.delete(PROJECT, new.id)


async def test_too_large_an_upload_leaves_nothing(library: Library, tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLarge, match="1000000 bytes"):
        await library.upload(bytes(1_000_001))
    assert _contents(tmp_path) == []
    assert (await library.upload(bytes(1_000_000))).size == 1_000_000


async def test_an_unknown_purpose_is_refused_and_the_upload_dropped(library: Library, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="'homework' is not one of") as refused:
        await library.upload(b"x", purpose="homework")
    assert refused.value.param == "purpose"
    assert _contents(tmp_path) == []


async def test_a_file_too_large_for_tools_is_refused_by_size(library: Library) -> None:
    made = await library.upload(bytes(READ_BYTES + 1))
    with pytest.raises(InvalidRequest, match="too large"):
        await library.files.read(PROJECT, made.id)


async def test_missing_content_is_said(library: Library, tmp_path: Path) -> None:
    made = await library.upload(b"x")
    for path in (tmp_path / "files").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(NotFound, match="missing"):
        await library.files.read(PROJECT, made.id)


async def test_pages_in_both_directions(library: Library) -> None:
    made = [(await library.upload(b"x", purpose="vision" if number == 3 else "user_data")).id for number in range(5)]

    async def page(purpose: str | None = None, **query: object) -> tuple[list[str], bool]:
        found, more = await library.files.list(PROJECT, purpose, Page(**{"limit": 2, **query}))  # type: ignore[arg-type]
        return [record.id for record in found], more

    assert await page() == ([made[4], made[3]], True)
    assert await page(after=made[3]) == ([made[2], made[1]], True)
    assert await page(after=made[1]) == ([made[0]], False)
    assert await page(order="asc", after=made[0]) == ([made[1], made[2]], True)
    assert await page(order="asc", before=made[3]) == ([made[1], made[2]], True)
    assert await page(before=made[1]) == ([made[3], made[2]], True)
    assert await page("vision") == ([made[3]], False)
    await library.files.delete(PROJECT, made[3])
    assert await page(after=made[3]) == ([made[2], made[1]], True)  # a cursor outlives its object


async def test_expired_files_are_not_there_and_are_purged_bit_by_bit(library: Library, tmp_path: Path) -> None:
    for number in range(3):
        await library.files.create(
            PROJECT, await library.files.take(pieces(b"%d" % number)), NewFile("a", "user_data", 3600)
        )
    batch = await library.upload(b"batch", purpose="batch")
    assert batch.expires_at == batch.created_at + 30 * 86_400
    kept = await library.upload(b"kept")
    library.clock.now += 3601

    assert [record.id for record in (await library.files.list(PROJECT, None, Page(10)))[0]] == [kept.id, batch.id]
    now = int(library.clock())
    assert [await library.files.purge(now, 2) for _ in range(3)] == [2, 1, 0]
    assert sorted(_contents(tmp_path)) == [b"batch", b"kept"]


async def test_a_file_whose_maker_died_is_never_seen_and_goes(
    library: Library, database: Database, tmp_path: Path
) -> None:
    staged = await library.files.take(pieces(b"half"))
    now = int(library.clock())
    unseen = FileRecord(
        id="file-1",
        project_id=PROJECT,
        created_at=now,
        expires_at=None,
        filename="a",
        purpose="vision",
        size=4,
        digest=staged.digest,
    )
    await SqlFileRecords(database).reserve(unseen)

    with pytest.raises(NotFound):
        await library.files.get(PROJECT, "file-1")
    assert await library.files.purge(now + 60, 10) == 0
    assert await library.files.purge(now + 3601, 10) == 1
    await library.files.drop(staged)
    assert _contents(tmp_path) == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\数据.csv", "数据.csv"),
        ("a\x00b\r\nc.txt", "abc.txt"),
        ("exe\u202etxt.pdf", "exetxt.pdf"),
        ("", "file"),
        ("..", "file"),
        ("dir/", "file"),
        ("x" * 300 + ".pdf", "x" * 251 + ".pdf"),
        ("数" * 100 + ".docx", "数" * 83 + ".docx"),
        ("y" * 300, "y" * 255),
        ("\ud800.txt", "?.txt"),
    ],
)
def test_names_become_safe(sent: str, kept: str) -> None:
    assert safe_name(sent) == kept
