"""Sessions: state, files, owners, how long they live and how they recover."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

import pytest

from app.tools.sandbox.client import NotThere, SandboxRefused, SandboxUnavailable
from sandbox.limits import MEBIBYTE
from tests.sandbox.running import Box, RunningSandbox, until_gone


@pytest.fixture
async def box(any_service: RunningSandbox) -> AsyncGenerator[Box]:
    """A session of its own."""
    made = await Box(any_service).open()
    yield made
    try:
        await made.close()
    except NotThere:
        return


@pytest.mark.parametrize(
    ("code", "logs"),
    [
        ("1 + 1", "2\n"),
        ("x = 3", ""),
        ("print('a'); 'b'", "a\n'b'\n"),
        ("import sys; print('a'); print('b', file=sys.stderr); print('c')", "a\nb\nc\n"),
        ("import os; os.write(1, b'raw\\n'); None", "raw\n"),
        ("print('中文 \\ud800')", "中文 \\ud800\n"),
        ("raise SystemExit(1)", ""),
        ("", ""),
        ("class A:\n    pass\nimport pickle\ntype(pickle.loads(pickle.dumps(A()))).__name__", "'A'\n"),
    ],
)
async def test_code_runs_as_in_a_notebook(box: Box, code: str, logs: str) -> None:
    assert (await box.run(code)).logs == logs


async def test_exceptions_are_tracebacks_of_the_code_alone(box: Box) -> None:
    await box.run("def broken():\n    return 1 / 0")

    logs = (await box.run("broken()")).logs

    assert logs.splitlines()[0] == "Traceback (most recent call last):"
    assert '  File "<cell 2>", line 1, in <module>' in logs
    assert '  File "<cell 1>", line 2, in broken\n    return 1 / 0' in logs
    assert logs.endswith("ZeroDivisionError: division by zero\n")
    assert "main.py" not in logs


@pytest.mark.parametrize(
    "code", ["def f(:", "input()", "class E(Exception):\n    def __str__(self): raise self\nraise E"]
)
async def test_odd_errors_are_output_too(box: Box, code: str) -> None:
    assert "Error" in (await box.run(code)).logs or code.startswith("class")
    assert (await box.run("1")).logs == "1\n"


async def test_data_packages_work_and_plots_become_files(box: Box) -> None:
    code = """
import numpy as np, pandas as pd, matplotlib.pyplot as plt
frame = pd.DataFrame({'年': [2024, 2025], '值': np.array([1.5, 2.5])})
plt.plot(frame['年'], frame['值']); plt.title('中文标题'); plt.show()
plt.figure(); plt.bar([1, 2], [3, 4])
frame.to_csv('out.csv', index=False)
frame['值'].sum()
"""
    result = await box.run(code)

    assert result.logs == "np.float64(4.0)\n"
    assert sorted(file.path for file in result.files) == [
        "/mnt/data/out.csv",
        "/mnt/data/plot-1.png",
        "/mnt/data/plot-2.png",
    ]
    plot = next(file for file in result.files if file.path.endswith("plot-1.png"))
    content = await _content(box, plot.id)
    assert content.startswith(b"\x89PNG")
    assert len(content) == plot.bytes


async def test_only_new_and_changed_files_are_told(box: Box) -> None:
    await box.sandbox.put(box.owner, box.id, "given.txt", b"given")
    await box.run("open('kept.txt', 'w').write('x')")

    result = await box.run(
        "open('given.txt', 'a').write('!'); open('new.txt', 'w').write('y'); open('.hidden', 'w').write('z')"
    )

    assert {file.path for file in result.files} == {"/mnt/data/given.txt", "/mnt/data/new.txt"}


async def test_files_go_in_and_out(box: Box) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"0123456789abcdef" * 1024

    put = await box.sandbox.put(box.owner, box.id, "数据 1.bin", pieces())

    assert (put.path, put.bytes, put.source) == ("/mnt/data/数据 1.bin", 1 << 20, "user")
    assert (await box.run("import os; os.path.getsize('/mnt/data/数据 1.bin')")).logs == "1048576\n"
    assert await box.sandbox.file(box.owner, box.id, put.id) == put
    assert len(await _content(box, put.id)) == 1 << 20
    await box.sandbox.remove(box.owner, box.id, put.id)
    assert await box.sandbox.files(box.owner, box.id) == []


@pytest.mark.parametrize("name", ["a/b.txt", "..", ".hidden", "new\nline", "x" * 300])
async def test_names_that_are_no_names_are_refused(box: Box, name: str) -> None:
    with pytest.raises((SandboxRefused, SandboxUnavailable)):
        await box.sandbox.put(box.owner, box.id, name, b"x")

    assert await box.sandbox.files(box.owner, box.id) == []


async def test_an_upload_beyond_the_disk_is_refused_and_nothing_stays(box: Box) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MEBIBYTE)

    with pytest.raises((SandboxRefused, SandboxUnavailable)):
        await box.sandbox.put(box.owner, box.id, "big.bin", endless())

    assert await box.sandbox.files(box.owner, box.id) == []
    assert (await box.sandbox.put(box.owner, box.id, "small.txt", b"x")).bytes == 1


async def test_another_owner_sees_nothing(any_service: RunningSandbox, box: Box) -> None:
    made = (await box.run("open('mine.txt', 'w').write('x')")).files[0]
    thief = Box(any_service, "project-b")
    thief.id = box.id

    assert box.id not in [session.id for session in await thief.sandbox.sessions(thief.owner)]
    for attempt in (
        lambda: thief.run("1"),
        thief.open,
        thief.close,
        lambda: thief.sandbox.session(thief.owner, box.id),
        lambda: thief.sandbox.files(thief.owner, box.id),
        lambda: thief.sandbox.file(thief.owner, box.id, made.id),
        lambda: _content(thief, made.id),
        lambda: thief.sandbox.put(thief.owner, box.id, "x", b"x"),
        lambda: thief.sandbox.remove(thief.owner, box.id, made.id),
    ):
        with pytest.raises(NotThere):
            await attempt()
    assert (await box.run("open('mine.txt').read()")).logs == "'x'\n"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os._exit(3)", "ended by itself (exit code 3)"),
        ("import ctypes; ctypes.string_at(0)", "crashed (SIGSEGV)"),
        ("import os; os.kill(os.getpid(), 9)", "was killed"),
        ("import os; os.closerange(0, 100)", "ended by itself"),
    ],
)
async def test_a_dead_interpreter_is_replaced_and_files_stay(box: Box, code: str, why: str) -> None:
    await box.run("x = 1; open('kept.txt', 'w').write('kept')")

    died = await box.run(f"print('before', flush=True)\n{code}")
    after = await box.run("print(open('kept.txt').read()); x")

    assert died.logs.startswith("before\n")
    assert why in died.logs or "was killed" in died.logs
    assert died.state_lost
    assert after.logs.startswith("[The Python process was restarted: variables of earlier code are gone.]\nkept\n")
    assert "NameError" in after.logs


async def test_an_interpreter_killed_from_outside_is_replaced(any_service: RunningSandbox, box: Box) -> None:
    before = set(any_service.descendants())
    await box.run("x = 1")
    for pid in set(any_service.descendants()) - before:
        with suppress(ProcessLookupError):  # it ends with the one that started it
            os.kill(pid, signal.SIGKILL)

    result = await box.run("'x' in globals()")

    assert result.state_lost
    assert "Python process" in result.logs
    assert (await box.run("2")).logs.endswith("2\n")


async def test_cpu_time_is_limited(services_cpu: RunningSandbox) -> None:
    box = await Box(services_cpu).open()

    result = await box.run("while True: pass", seconds=15)

    assert "It used up its CPU time." in result.logs
    assert not result.timed_out
    assert (await box.run("1")).logs.endswith("1\n")
    await box.close()


async def test_hanging_up_ends_the_run(box: Box) -> None:
    await box.run("1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await box.run("open('running', 'w')\nwhile True: pass", seconds=20)

    async with asyncio.timeout(10):
        assert "2\n" in (await box.run("1 + 1")).logs


async def test_runs_in_one_session_wait_for_each_other(box: Box) -> None:
    await box.run("x = 0")
    results = await asyncio.gather(*(box.run("y = x\nfor _ in range(10000): pass\nx = y + 1\nx") for _ in range(8)))

    assert sorted(result.logs for result in results) == [f"{number}\n" for number in range(1, 9)]


async def test_an_unused_session_expires(any_service: RunningSandbox) -> None:
    short = await Box(any_service).open(idle_seconds=0.2)

    async with asyncio.timeout(20):
        while short.id in [session.id for session in await short.sandbox.sessions(short.owner)]:  # noqa: ASYNC110 - looking does not use it
            await asyncio.sleep(0.05)

    with pytest.raises(NotThere):
        await short.run("1")


async def test_a_full_house_makes_room_at_the_expense_of_who_has_most(any_service: RunningSandbox) -> None:
    modest = await Box(any_service, "modest").open()
    greedy = [await Box(any_service, "greedy").open() for _ in range(5)]

    assert [session.id for session in await modest.sandbox.sessions("modest")] == [modest.id]
    left = [session.id for session in await modest.sandbox.sessions("greedy")]
    assert left == [box.id for box in reversed(greedy[-3:])]
    await modest.close()
    for box in greedy[-3:]:
        await box.close()


async def test_a_session_that_two_open_at_once_in_a_full_house_is_one(any_service: RunningSandbox) -> None:
    others = [await Box(any_service, "greedy").open() for _ in range(4)]
    box = Box(any_service)

    async with asyncio.TaskGroup() as group:
        opened = [group.create_task(box.open()) for _ in range(3)]

    assert len(opened) == 3
    left = [session.id for session in await box.sandbox.sessions("greedy")]
    assert left == [other.id for other in reversed(others[1:])]
    await box.close()
    for other in others[1:]:
        await other.close()


@pytest.mark.parametrize("wanted", [{"memory_bytes": 1 << 50}, {"memory_bytes": 0}, {"idle_seconds": 1e9}])
async def test_more_than_the_service_gives_is_refused(any_service: RunningSandbox, wanted: dict[str, float]) -> None:
    with pytest.raises(SandboxRefused, match="limited to"):
        await Box(any_service).open(**wanted)


async def test_a_closed_session_leaves_no_process(any_service: RunningSandbox) -> None:
    before = set(any_service.descendants())
    box = await Box(any_service).open()
    await box.run("1")
    started = set(any_service.descendants()) - before

    await box.close()

    assert started
    await until_gone(started)


async def test_closing_does_not_wait_for_code_that_runs(any_service: RunningSandbox) -> None:
    box = await Box(any_service).open()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(box.run("open('begun', 'w').close()\nwhile True: pass", 15))
        async with asyncio.timeout(10):
            while not await box.sandbox.files(box.owner, box.id):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
            await box.close()

    assert running.result().state_lost


async def _content(box: Box, file_id: str) -> bytes:
    async with aclosing(box.sandbox.content(box.owner, box.id, file_id)) as chunks:
        return b"".join([chunk async for chunk in chunks])
