"""The passage index, on both databases: what is found, what is not, and who may see it."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from sqlalchemy import text as sql

from app.db.engine import Database
from app.db.tables import passages as passages_table
from app.knowledge.passages import SqlPassages
from app.knowledge.ports.jobs import JobLost
from app.knowledge.ports.passages import Passage, Vectors
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.filters import parse_filter
from tests.knowledge.indexes import add, find, index_of, taken, vectors

NORTH, EAST, UP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
MEANING, WORDS = (1.0, 0.0), (0.0, 1.0)


@pytest.fixture
def index(database: Database) -> SqlPassages:
    """On each database in turn."""
    return index_of(database)


async def _texts(index: SqlPassages, text: str, **options: object) -> list[str]:
    return [hit.text for hit in await find(index, text, **options)]  # type: ignore[arg-type]


async def test_the_nearest_by_meaning_come_first(index: SqlPassages) -> None:
    await add(index, "vs_a", "file_1", [("up there", NORTH), ("between", (1, 0.5, 0)), ("right there", EAST)])
    assert await _texts(index, "nothing of that", weights=MEANING) == ["up there", "between", "right there"]
    assert await _texts(index, "nothing of that", vector=EAST, weights=MEANING, limit=2) == ["right there", "between"]


async def test_exact_words_numbers_and_chinese_of_any_length_are_found(index: SqlPassages) -> None:
    texts = (
        "Set the valve XJ-9000/B to two bar.",
        "ERR_4711: the disk is full",
        "系统支持全文检索和向量检索。",
        "请打开闸门。",
        "門を閉める",
        "第123号文件",
        "une école",
        "something else 9001 4712",
    )
    for number, text in enumerate(texts):
        await add(index, "vs_a", f"file_{number}", [(text, UP)])
    for query, found in {
        "XJ-9000": texts[0],
        "xj9000b": texts[0],
        "what does ERR_4711 mean": texts[1],
        "全文检索": texts[2],
        "检索": texts[2],
        "闸": texts[3],
        "門": texts[4],
        "１２３号": texts[5],
        "ÉCOLE": texts[6],
    }.items():
        assert await _texts(index, query, weights=WORDS) == [found], query


async def test_rare_words_count_more_than_common_ones(index: SqlPassages) -> None:
    for number in range(8):
        await add(index, "vs_a", f"file_{number}", [(f"the pump number {number}", UP)])
    await add(index, "vs_a", "file_rare", [("gasket", UP)])
    assert (await _texts(index, "the pump gasket", weights=WORDS))[0] == "gasket"


async def test_being_found_both_ways_is_best_and_scores_are_between_0_and_1(index: SqlPassages) -> None:
    await add(index, "vs_a", "file_1", [("pump", NORTH)])
    await add(index, "vs_a", "file_2", [("valve", (1, 0.1, 0))])
    await add(index, "vs_a", "file_3", [("pump pipe", EAST)])
    hits = await find(index, "pump", NORTH)
    assert [hit.text for hit in hits] == ["pump", "pump pipe", "valve"]
    assert hits[0].score == pytest.approx(1)
    assert all(0 < hit.score <= 1 for hit in hits)
    assert [hit.text for hit in await find(index, "pump", NORTH, threshold=0.99)] == ["pump"]


async def test_weights_decide_between_meaning_and_words(index: SqlPassages) -> None:
    await add(index, "vs_a", "file_1", [("about nothing", NORTH)])
    await add(index, "vs_a", "file_2", [("the pump", EAST)])
    assert (await _texts(index, "pump", weights=(1, 0.01)))[0] == "about nothing"
    assert (await _texts(index, "pump", weights=(0.01, 1)))[0] == "the pump"


async def test_a_passage_that_repeats_a_better_neighbour_is_left_out(index: SqlPassages) -> None:
    first = "The pump has to be emptied before winter. Then close the valve."
    second = "Then close the valve. Store it in a dry place. Never paint it at all."
    await add(index, "vs_a", "file_1", [(first, NORTH), (f"{first[30:]} {second}", (1, 0.2, 0)), (second, (1, 0.3, 0))])
    assert await _texts(index, "pump", weights=MEANING) == [first, second]


async def test_a_filter_is_applied_before_the_limit(index: SqlPassages) -> None:
    for number in range(80):
        await add(index, "vs_a", f"file_{number}", [("pump", NORTH)], {"year": 2020})
    await add(index, "vs_a", "file_wanted", [("pump far away", EAST)], {"year": 2024})
    filters = parse_filter(msgspec.Raw(b'{"type":"gt","key":"year","value":2020}'), "filters")
    for weights in (MEANING, WORDS):
        assert await _texts(index, "pump", limit=1, filters=filters, weights=weights) == ["pump far away"]


async def test_stores_are_apart_and_can_be_searched_together(index: SqlPassages) -> None:
    await add(index, "vs_a", "file_1", [("our pump", NORTH)])
    await add(index, "vs_b", "file_1", [("their pump", NORTH)])
    assert await _texts(index, "pump") == ["our pump"]
    assert {hit.vector_store_id for hit in await find(index, "pump", stores=("vs_a", "vs_b"))} == {"vs_a", "vs_b"}
    assert await _texts(index, "pump", stores=("vs_unknown",)) == []


async def test_replacing_a_file_leaves_nothing_of_the_old_one(index: SqlPassages, database: Database) -> None:
    await add(index, "vs_a", "file_1", [("old words", NORTH), ("more old words", EAST)], {"v": 1})
    await find(index, "old")
    await add(index, "vs_a", "file_1", [("new words", NORTH)], {"v": 2})
    hits = await find(index, "old words new")
    assert [(hit.text, hit.attributes) for hit in hits] == [("new words", {"v": 2})]
    assert [passage.text for passage in await index.passages("vs_a", "file_1")] == ["new words"]
    assert len(await database.fetch(passages_table.select())) == 1


async def test_a_file_that_fails_on_the_way_leaves_the_earlier_one(index: SqlPassages, database: Database) -> None:
    await add(index, "vs_a", "file_1", [("old words", NORTH)])

    async def broken() -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        yield [Passage(n, f"new {n}") for n in range(200)], vectors(*[NORTH] * 200)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await index.replace(await taken(index, "vs_a", "file_1"), "a.txt", broken())
    assert await _texts(index, "new words") == ["old words"]
    await add(index, "vs_a", "file_1", [("final words", NORTH)])
    assert await _texts(index, "new words") == ["final words"]
    assert len(await database.fetch(passages_table.select())) == 1


async def test_removing_files_leaves_nothing(index: SqlPassages, database: Database) -> None:
    await add(index, "vs_a", "file_1", [(f"secret {n}", NORTH) for n in range(150)])
    await add(index, "vs_a", "file_2", [("kept", EAST)])
    await index.remove(await taken(index, "vs_a", "file_1"))
    assert await _texts(index, "secret kept") == ["kept"]
    assert await index.passages("vs_a", "file_1") == []
    await index.remove(await taken(index, "vs_a", "file_2"))
    assert await _texts(index, "secret kept") == []
    assert len(await database.fetch(passages_table.select())) == 0
    await add(index, "vs_a", "file_3", [("again", NORTH)])
    assert await _texts(index, "again") == ["again"]


async def test_a_worker_that_has_lost_its_job_changes_nothing(index: SqlPassages, database: Database) -> None:
    late = await taken(index, "vs_a", "file_1", {"v": 1})
    await add(index, "vs_a", "file_1", [("new words", NORTH)], {"v": 2})

    async def batches() -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        yield [Passage(0, "old words")], vectors(NORTH)

    with pytest.raises(JobLost):
        await index.remove(late)
    with pytest.raises(JobLost):
        await index.replace(late, "a.txt", batches())
    assert [(hit.text, hit.attributes) for hit in await find(index, "words")] == [("new words", {"v": 2})]
    assert len(await database.fetch(passages_table.select())) == 1


@pytest.mark.parametrize("pieces", [1, 200], ids=["before its draft", "after its draft"])
async def test_a_worker_that_loses_its_job_on_the_way_changes_nothing(
    index: SqlPassages, database: Database, pieces: int
) -> None:
    """It sleeps while the next one does the whole job, and wakes up in the middle of its own."""
    late = await taken(index, "vs_a", "file_1", {"v": 1})

    async def batches() -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        yield [Passage(n, "old words") for n in range(pieces)], vectors(*[NORTH] * pieces)
        await add(index, "vs_a", "file_1", [("new words", NORTH)], {"v": 2})
        yield [Passage(pieces, "more old words")], vectors(NORTH)

    with pytest.raises(JobLost):
        await index.replace(late, "a.txt", batches())
    assert [(hit.text, hit.attributes) for hit in await find(index, "words")] == [("new words", {"v": 2})]
    assert len(await database.fetch(passages_table.select())) == 1


async def test_a_worker_that_wakes_up_does_not_disturb_the_next_one(index: SqlPassages) -> None:
    late = await taken(index, "vs_a", "file_1")
    mine = await taken(index, "vs_a", "file_1", {"v": 2})

    async def none() -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        for nothing in ():
            yield nothing

    async def batches() -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        yield [Passage(n, f"new words {n}") for n in range(200)], vectors(*[NORTH] * 200)
        with pytest.raises(JobLost):
            await index.replace(late, "a.txt", none())
        yield [Passage(200, "last words")], vectors(NORTH)

    await index.replace(mine, "a.txt", batches())
    assert len(await index.passages("vs_a", "file_1")) == 201


async def test_attributes_can_be_changed(index: SqlPassages) -> None:
    await add(index, "vs_a", "file_1", [("pump", NORTH)], {"team": "a"})
    await index.describe("vs_a", "file_1", {"team": "b", "open": True, "size": 1.5})
    hits = await find(index, "pump")
    assert hits[0].attributes == {"team": "b", "open": True, "size": 1.5}


async def test_another_process_sees_what_this_one_changes(database: Database, database_url: str) -> None:
    ours, other = index_of(database), Database(database_url)
    theirs = index_of(other)
    await add(ours, "vs_a", "file_1", [("one", NORTH)])
    assert await _texts(theirs, "x", weights=MEANING) == ["one"]
    await add(ours, "vs_a", "file_2", [("two", NORTH)])
    await ours.remove(await taken(ours, "vs_a", "file_1"))
    assert await _texts(theirs, "x", weights=MEANING) == ["two"]
    await other.aclose()


async def test_vectors_of_another_model_are_refused(index: SqlPassages) -> None:
    await add(index, "vs_a", "file_1", [("pump", NORTH)], model="earlier-model")
    assert await index.models(["vs_a", "vs_b"]) == {"vs_a": "earlier-model"}
    with pytest.raises(InvalidRequest, match=r"'earlier-model'.*'test-model'"):
        await find(index, "pump")
    with pytest.raises(InvalidRequest, match="'earlier-model'"):
        await add(index, "vs_a", "file_2", [("pump", NORTH)])


async def test_models_of_any_length_live_beside_each_other(index: SqlPassages) -> None:
    for length in (2, 384, 1024, 4096):
        store = f"vs_{length}"
        await add(
            index, store, "file_1", [("far", [0.0] * (length - 1) + [1.0]), ("near", [1.0] + [0.0] * (length - 1))]
        )
        assert await _texts(index, "x", vector=[1.0] + [0.01] * (length - 1), stores=(store,), limit=1) == ["near"]


async def test_large_files_come_in_order_and_whole(index: SqlPassages) -> None:
    texts = [f"passage number {n}" for n in range(300)]
    await add(
        index, "vs_a", "file_1", [(text, (math.cos(n / 200), math.sin(n / 200), 0)) for n, text in enumerate(texts)]
    )
    assert [passage.text for passage in await index.passages("vs_a", "file_1")] == texts
    assert [passage.position for passage in await index.passages("vs_a", "file_1")] == list(range(300))
    assert await _texts(index, "x", vector=(math.cos(1.25), math.sin(1.25), 0), limit=1, weights=MEANING) == [
        "passage number 250"
    ]


async def test_whatever_is_asked_is_no_syntax(index: SqlPassages) -> None:
    await add(index, "vs_a", "file_1", [("pump", NORTH)])
    for query in (
        "",
        "!!! ??",
        '" OR "',
        "a:* & (b",
        "'; DROP TABLE passages",
        "\0",
        "\ue0001",
        "NEAR(a b)",
        "\ud800",
        "的" * 5000,
    ):
        assert await _texts(index, query) == ["pump"], query


async def test_what_is_put_together_is_taken_apart(index: SqlPassages, database: Database) -> None:
    """Whatever a text holds can be kept, found and removed."""
    odd = "a\u0301 ﬁ ① 𠀀𠀁 👩‍👩‍👧 ไทย ''\\ \" & | ! :* "
    await add(index, "vs_a", "file_1", [(odd, NORTH), ("pump", EAST)])
    assert await _texts(index, "𠀀𠀁", weights=WORDS) == [odd]
    await index.remove(await taken(index, "vs_a", "file_1"))
    assert await _texts(index, odd) == []
    if database.embedded:
        check = sql("INSERT INTO passage_index_words (passage_index_words) VALUES ('integrity-check')")
        async with database.transaction() as connection:
            await connection.execute(check)
            assert (
                await connection.execute(
                    sql("SELECT count(*) FROM passage_index_words WHERE passage_index_words MATCH 'pump'")
                )
            ).scalar() == 0


async def test_rounding_in_memory_does_not_change_the_order(sqlite_url: str) -> None:
    """SQLite compares bytes first; what it gives has to be what comparing all numbers gives."""
    database = Database(sqlite_url)
    index = index_of(database)
    numbers = random.Random(5)  # noqa: S311 - the same vectors in every run
    rows = [[1 + numbers.gauss(0, 0.3) for _ in range(64)] for _ in range(3000)]

    async def batches() -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        yield [Passage(n, f"passage {n}") for n in range(len(rows))], vectors(*rows)

    await index.replace(await taken(index, "vs_a", "file_1"), "a.txt", batches())
    question = [1 + numbers.gauss(0, 0.3) for _ in range(64)]
    likeness = [sum(a * b for a, b in zip(row, question, strict=True)) / math.hypot(*row) for row in rows]
    best = sorted(range(len(rows)), key=lambda n: -likeness[n])[:10]
    assert [hit.position for hit in await find(index, "", question, weights=MEANING)] == best
    await database.aclose()
