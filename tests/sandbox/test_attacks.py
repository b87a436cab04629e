"""What hostile code tries, against every back end that holds here."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Generator

import pytest

from app.tools.sandbox.client import NotThere
from sandbox.limits import MEBIBYTE
from sandbox.protocol import file_id
from tests.sandbox.attacks import CALLS, World, escaped
from tests.sandbox.conftest import Services
from tests.sandbox.running import SECRET, Box, RunningSandbox, state


@pytest.fixture
def world() -> Generator[World]:
    """The surroundings of the services."""
    made = World()
    yield made
    made.close()


async def test_every_attack_is_contained(service_of_anyone: RunningSandbox, world: World) -> None:
    box = await Box(service_of_anyone).open()
    await box.run(world.facts(service_of_anyone) + CALLS)

    assert await escaped(box) == {}
    assert world.canary.read_text() == "untouched"
    with pytest.raises(BlockingIOError):
        world.tcp.accept()
    await box.close()


async def test_modes_and_times_of_files_outside_stay(service: RunningSandbox, world: World) -> None:
    box = await Box(service).open()
    before = world.canary.stat()
    for attack in (
        "os.chmod(CANARY, 0o700)",
        "os.chown(CANARY, 0, 0)",
        "os.utime(CANARY)",
        "os.truncate(CANARY, 0)",
        "os.unlink(CANARY)",
    ):
        await box.run(f"import os\n{world.facts(service)}{attack}")

    assert world.canary.stat() == before
    await box.close()


async def test_environment_holds_no_secrets(service: RunningSandbox) -> None:
    box = await Box(service).open()

    result = await box.run(
        "import os; print(dict(os.environ), open('/proc/self/environ').read() if os.path.exists('/proc/self') else '')"
    )

    assert "LANG" in result.logs or "PermissionError" in result.logs
    assert SECRET not in result.logs
    await box.close()


async def test_threads_are_limited_and_allowed(service: RunningSandbox) -> None:
    box = await Box(service).open()
    code = """
import threading
done = threading.Event()
started = 0
try:
    for _ in range(400):
        threading.Thread(target=done.wait, daemon=True).start()
        started += 1
except RuntimeError:
    pass
done.set()
print(0 < started < 400)
"""
    assert (await box.run(code)).logs == "True\n"
    await box.close()


async def test_endless_loop_is_stopped_and_variables_stay(service: RunningSandbox) -> None:
    box = await Box(service).open()
    await box.run("kept = 41")

    result = await box.run("while True: pass", seconds=0.3)

    assert result.timed_out
    assert not result.state_lost
    assert "Stopped after 0.3 s" in result.logs
    assert (await box.run("kept + 1")).logs == "42\n"
    await box.close()


async def test_loop_that_will_not_stop_is_ended(service: RunningSandbox) -> None:
    box = await Box(service).open()
    stubborn = "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"

    result = await box.run(stubborn, seconds=0.2)

    assert result.timed_out
    assert result.state_lost
    assert "Python process was lost" in result.logs
    assert (await box.run("1 + 1")).logs.endswith("2\n")
    await box.close()


async def test_a_gigabyte_of_output_leaves_the_service_small(service: RunningSandbox) -> None:
    box = await Box(service).open()
    await box.run("1")
    before = service.memory()

    result = await box.run("print('begin')\nfor _ in range(1024): print('x' * (1 << 20))\nprint('end')", seconds=20)

    assert result.logs.startswith("begin\nxxx")
    assert result.logs.endswith("xxx\nend\n")
    assert "bytes left out" in result.logs
    assert len(result.logs) < 70_000
    assert service.memory() - before < 8 * MEBIBYTE
    await box.close()


async def test_disk_is_limited_also_for_deleted_and_hidden_files(service_of_anyone: RunningSandbox) -> None:
    box = await Box(service_of_anyone).open()
    fill = """
import os
kept, written = [], 0
try:
    for number in range(64):
        name = f'/mnt/data/.hidden{number}'
        file = open(name, 'wb')
        os.unlink(name)
        kept.append(file)
        for _ in range(16):
            written += file.write(b'x' * (1 << 20))
            file.flush()
except OSError as error:
    print(error.strerror)
print(written >> 20)
"""
    result = await box.run(fill)

    if "more files than there is room for" not in result.logs:  # said where files are only watched
        assert result.logs.startswith("No space left on device\n")
        assert int(result.logs.split()[-1]) < 33
    assert (await box.run("1")).logs.endswith("1\n")
    await box.close()


async def test_links_lead_nowhere_through_the_file_api(service: RunningSandbox) -> None:
    box = await Box(service).open()
    link = (
        "import os; os.symlink('/etc/passwd', 'leak.txt'); os.symlink('/etc', 'etc'); os.makedirs('sub'); "
        "os.symlink('/etc', 'sub/etc')"
    )
    assert (await box.run(link)).files == ()

    assert await box.sandbox.files(box.owner, box.id) == []
    for path in ("leak.txt", "etc/passwd", "sub/etc/passwd", "../../etc/passwd", "sub/../leak.txt"):
        with pytest.raises(NotThere):
            await anext(box.sandbox.content(box.owner, box.id, file_id(box.id, f"/mnt/data/{path}")))
    await box.close()


async def test_uploads_never_write_through_links(service: RunningSandbox, world: World) -> None:
    box = await Box(service).open()
    await box.run(f"import os; os.symlink({str(world.canary)!r}, 'data.csv')")

    await box.sandbox.put(box.owner, box.id, "data.csv", b"1,2")

    assert world.canary.read_text() == "untouched"
    assert (await box.run("print(open('data.csv').read(), os.path.islink('data.csv'))")).logs == "1,2 False\n"
    await box.close()


async def test_other_sessions_files_are_out_of_reach(service_of_anyone: RunningSandbox) -> None:
    victim, attacker = await Box(service_of_anyone).open(), await Box(service_of_anyone).open()
    await victim.run("open('secret.txt', 'w').write('mine')")
    search = f"""
import os
seen = []
for place in ('/mnt', '/mnt/data', '/tmp', *(os.getcwd() + up for up in ('/..', '/../..', '/../../{victim.id}/data'))):
    try:
        seen += os.listdir(place)
    except OSError:
        pass
for guess in ('../../{victim.id}/data/secret.txt', os.getcwd().replace({attacker.id!r}, {victim.id!r}) + '/secret.txt'):
    try:
        seen.append(open(guess).read())
    except OSError:
        pass
print([name for name in seen if name in ('secret.txt', 'mine', {victim.id!r})])
"""
    result = await attacker.run(search)

    assert result.logs == "[]\n"
    await victim.close()
    await attacker.close()


async def test_between_two_runs_everything_stands_still(service: RunningSandbox) -> None:
    box = await Box(service).open()
    before = set(service.descendants())
    await box.run(
        "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()"
    )

    started = set(service.descendants()) - before

    assert started
    for pid in started:
        await _until_stopped(pid)
    await box.close()


async def _until_stopped(pid: int) -> None:
    async with asyncio.timeout(10):
        while state(pid) != "T":  # noqa: ASYNC110 - the kernel stops one thread after the other, and tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
@pytest.mark.parametrize("code", ["b814000000cd80c3", "b8270000400f05c3"], ids=["i386", "x32"])
async def test_calls_of_another_instruction_set_end_the_process(service: RunningSandbox, code: str) -> None:
    """`getpid`, which is harmless, and as i386 or x32 not to be had."""
    box = await Box(service).open()

    result = await box.run(f"{CALLS}\nprint(machine_code('{code}'))")

    assert result.state_lost
    assert "Python process was lost" in result.logs
    await box.close()


@pytest.mark.parametrize("name", ["landlock-rights", "landlock-rights of nobody"])
async def test_each_session_has_a_user_of_its_own_where_the_service_can_choose(services: Services, name: str) -> None:
    boxes = [await Box(services(name)).open() for _ in range(2)]

    users = [
        (await box.run("import os; print(os.getuid(), os.getgid(), os.stat('.').st_uid)")).logs.split() for box in boxes
    ]

    assert all(len(set(user)) == 1 and user[0] not in ("0", "65534") for user in users)
    assert users[0] != users[1]
    for box in boxes:
        await box.close()


async def test_names_of_sessions_and_files_are_not_to_be_found(service_of_anyone: RunningSandbox) -> None:
    victim, attacker = await Box(service_of_anyone, "other").open(), await Box(service_of_anyone).open()
    await victim.run("open('merger-plan.csv', 'w').write('x' * 77)")
    search = f"""
import os
seen, root = [], os.getcwd()
while root != '/':
    root = os.path.dirname(root)
    for name in ({victim.id!r}, '{victim.id}/data/merger-plan.csv', 'data/merger-plan.csv'):
        seen += [name] * os.path.exists(f'{{root}}/{{name}}')
    try:
        seen += [name for name in os.listdir(root) if 'sandbox-' in name or len(name) == 32]
    except OSError:
        pass
for pid in range(1, 40000):
    for link in ('cwd', 'exe', 'root', 'fd/3'):
        try:
            where = os.readlink(f'/proc/{{pid}}/{{link}}')
            seen += [where] * (pid != os.getpid())
        except OSError:
            pass
print(seen)
"""
    assert (await attacker.run(search, seconds=20)).logs == "[]\n"
    await victim.close()
    await attacker.close()
