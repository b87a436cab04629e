"""The built-in model, the passages and both indexes together: in a small library the right file comes first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest_asyncio

from app.db.engine import Database
from app.knowledge.chunking import passages
from app.knowledge.embed_local import LocalEmbedder
from app.knowledge.passages import SqlPassages
from app.knowledge.ports.passages import Hit, Passage, Search, Vectors
from app.knowledge.relevance import FITTING
from tests.knowledge.indexes import index_of, taken

LIBRARY = {
    "leave.md": "# Annual leave\n\nEvery employee has 28 days of paid holiday a year. Requests go to the team lead two "
    "weeks before. Unused days expire at the end of March of the next year.",
    "expenses.md": "# Travel costs\n\nTrain tickets in second class and hotels up to 120 euros a night are paid back. "
    "Hand in the receipts within a month, form TC-17.",
    "pump.md": "# Water pump WP-3300\n\nBefore the first start, fill the housing with water and open the outlet valve. "
    "Error E-417 means that the pump runs dry.",
    "boiler.md": "# Boiler HB-2100\n\nCheck the pressure every month; it has to be between 1 and 1.5 bar. "
    "Error E-471 means that the flame went out.",
    "security.md": (
        "# Passwords\n\nA password has at least 14 characters. Report lost laptops to the help desk at once, phone "
        "5500."
    ),
    "请假.md": "# 请假制度\n\n员工每年享有十五天带薪年假。病假超过三天需要提供医院证明。请假申请须提前三个工作日提交。",
    "报销.md": "# 差旅报销\n\n出差乘坐高铁二等座可以报销，住宿标准为每晚四百元以内。发票须在三十天内提交财务部。",
    "空调.md": (
        "# 空调 KT-88 使用说明\n\n滤网每两个月清洗一次。显示故障代码 F07 时，说明室外机温度过高，应停机冷却半小时。"
    ),
    "数据库.md": "# 数据库备份\n\n数据库每天凌晨两点自动备份，保留三十天。恢复数据之前必须先停止写入服务。",
    "食堂.md": "# 食堂\n\n食堂在一楼，午餐时间是十一点半到一点。素食窗口在最左边。",
}

QUESTIONS = [
    ("How many vacation days do I get?", "leave.md"),
    ("Can I get money back for a hotel?", "expenses.md"),
    ("my notebook was stolen", "security.md"),
    ("how to put the pump into operation", "pump.md"),
    ("E-417", "pump.md"),
    ("What is error E-471?", "boiler.md"),
    ("form TC-17", "expenses.md"),
    ("生病了需要什么手续", "请假.md"),
    ("坐火车的费用公司给吗", "报销.md or expenses.md"),
    ("怎么恢复丢失的数据", "数据库.md"),
    ("在哪里吃饭", "食堂.md"),
    ("F07", "空调.md"),
    ("KT88 滤网", "空调.md"),
    ("备份", "数据库.md"),
]


NOT_THERE = ["When was Mozart born?", "How do bees make honey?", "铁矿石怎样炼成钢", "唐朝的首都在哪里", "谁发明了电话"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedded() -> dict[str, tuple[Sequence[Passage], Vectors]]:
    """The library's passages with their vectors, which are made once for both databases."""
    embedder = LocalEmbedder()
    cut = {name: passages(text, 800, 400) for name, text in LIBRARY.items()}
    return {name: (found, await embedder.passages([passage.text for passage in found])) for name, found in cut.items()}


@pytest_asyncio.fixture
async def index(database: Database, embedded: dict[str, tuple[Sequence[Passage], Vectors]]) -> SqlPassages:
    found = index_of(database)

    async def one(name: str) -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        yield embedded[name]

    for name in LIBRARY:
        await found.replace(await taken(found, "vs_a", f"file_{name}"), name, one(name))
    return found


async def asking(index: SqlPassages, question: str, threshold: float = 0.0) -> Sequence[Hit]:
    vector = await LocalEmbedder().query(question)
    return await index.search(
        Search(vector_store_ids=("vs_a",), text=question, vector=vector, limit=3, score_threshold=threshold)
    )


async def test_the_right_file_comes_first(index: SqlPassages) -> None:
    wrong: list[str] = []
    for question, expected in QUESTIONS:
        found = await asking(index, question)
        if found[0].filename not in expected.split(" or ") or not found[0].fits:
            wrong.append(f"{question}: {found} instead of {expected}")
    assert not wrong


async def test_what_nothing_answers_is_said_to_fit_hardly(index: SqlPassages) -> None:
    found = [hit for question in NOT_THERE for hit in await asking(index, question)]
    assert len(found) == 3 * len(NOT_THERE)
    assert not any(hit.fits for hit in found)
    assert all(hit.score < FITTING for hit in found)


async def test_a_threshold_leaves_what_fits(index: SqlPassages) -> None:
    found = await asking(index, "What is error E-471?", 0.5)
    assert found[0].filename == "boiler.md"
    assert len(found) < 3
    assert all(hit.score >= 0.5 for hit in found)
    assert await asking(index, NOT_THERE[0], 0.5) == []
