"""What hostile code tries, against every back end that holds here."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from app.sandbox.limits import MEBIBYTE
from app.sandbox.protocol import file_id
from app.tools._sandbox import NotThere
from tests.sandbox.running import SECRET, Box, RunningSandbox, state

CALLS = """
import ctypes, errno, os, socket, subprocess, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def connect(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        s.connect(address)
        s.send(b"x")

def spawn(start):
    child = start()
    if child == 0:
        os._exit(0)
    if child < 0:
        raise OSError(ctypes.get_errno(), "fork")
"""

ATTACKS = {
    "reads the shadow file": "open('/etc/shadow').read()",
    "reads a file of the service's user": "open(CANARY).read()",
    "writes a file of the service's user": "open(CANARY, 'r+').write('x')",
    "lists root's home": "os.listdir('/root')",
    "writes to the system": "open('/usr/lib/x', 'w')",
    "writes to the interpreter": "open(os.__file__, 'a')",
    "writes to a package": "import numpy; open(numpy.__file__, 'a')",
    "writes to another temporary directory": "open('/var/tmp/x', 'w')",
    "opens a disk": "open('/dev/vda', 'rb')",
    "opens the memory": "open('/dev/mem', 'rb')",
    "makes a device": "os.mknod('dev', 0o600 | 0o020000, os.makedev(1, 1))",
    "makes a pipe": "os.mkfifo('pipe')",
    "links a file outside": "os.link(CANARY, 'linked')",
    "reads the service's environment": "open(f'/proc/{SERVICE}/environ', 'rb').read()",
    "reads the parent's environment": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "signals the service": "os.kill(SERVICE, 0)",
    "limits the service": "import resource; resource.prlimit(SERVICE, resource.RLIMIT_NOFILE, (5, 5))",
    "traces a process": "call('ptrace', 0, 0, 0, 0)",
    "reads another process's memory": "call('process_vm_readv', SERVICE, None, 0, None, 0, 0)",
    "connects by TCP": "connect(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', PORT))",
    "connects by IPv6": "connect(socket.AF_INET6, socket.SOCK_STREAM, ('::1', PORT))",
    "sends UDP": "connect(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', PORT))",
    "asks the metadata address": "connect(socket.AF_INET, socket.SOCK_STREAM, ('169.254.169.254', 80))",
    "looks up a name": "socket.getaddrinfo('example.com', 80)",
    "connects to the service's socket": "connect(socket.AF_UNIX, socket.SOCK_STREAM, SOCKET)",
    "connects to an abstract socket": "connect(socket.AF_UNIX, socket.SOCK_STREAM, ABSTRACT)",
    "sends packets to a socket by its name": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', ABSTRACT)",
    "listens": "socket.create_server(('127.0.0.1', 0))",
    "forks": "spawn(os.fork)",
    "forks as libc does": "spawn(libc.fork)",
    "clones": "spawn(lambda: libc.syscall(56, 17, 0, 0, 0, 0) if os.uname().machine == 'x86_64' else libc.fork())",
    "runs a program": "subprocess.run(['/bin/true'])",
    "becomes a program": "os.execv('/bin/true', ['true'])",
    "spawns a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "mounts": "call('mount', b'none', b'/mnt/data', b'tmpfs', 0, None)",
    "unmounts": "call('umount2', b'/mnt/data', 2)",
    "makes a user namespace": "call('unshare', 0x10000000)",
    "enters a namespace": "call('setns', 0, 0)",
    "changes its root": "os.chroot('/mnt/data')",
    "leaves its session": "os.setsid()",
    "becomes root": "os.setuid(0)",
    "opens a file by its handle": "call('open_by_handle_at', 0, None, 0)",
    "loads a kernel program": "call('syscall', 321, 0, None, 0)",
    "keeps keys": "call('syscall', 250, 0, 0, 0, 0, 0)",
    "makes hidden memory": "os.memfd_create('x')",
    "makes shared memory": "call('shmget', 0, 1 << 20, 0o1600)",
    "survives its parent": "call('prctl', 1, 0, 0, 0, 0)",
    "raises its limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "reboots": "call('reboot', 0)",
    "sets the clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "takes 10 GB": "bytearray(10 << 30)",
    "maps 10 GB": "import mmap; mmap.mmap(-1, 10 << 30)",
    "takes 10 GB bit by bit": "kept = [bytearray(1 << 24) for _ in range(640)]",
    "starts 400 processes": "[spawn(os.fork) for _ in range(400)]",
    "opens a thousand files": "kept = [open('/dev/zero') for _ in range(1000)]",
}


class World:
    """What there is to reach: a file that everybody may read and write, and sockets that wait."""

    def __init__(self) -> None:
        self.canary = Path(tempfile.mkstemp(prefix="canary-")[1])
        self.canary.write_text("untouched")
        self.canary.chmod(0o666)
        os.utime(self.canary, (1, 1))
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.tcp.settimeout(0)
        self.abstract = f"\0{self.canary.name}"
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.abstract)
        self.unix.listen()

    def facts(self, service: RunningSandbox) -> str:
        """What an attacker of this service may know."""
        known = (str(self.canary), self.tcp.getsockname()[1], service.process.pid, str(service.socket), self.abstract)
        return f"CANARY, PORT, SERVICE, SOCKET, ABSTRACT = {known!r}\n"

    def close(self) -> None:
        """Remove it."""
        self.canary.unlink()
        self.tcp.close()
        self.unix.close()


@pytest.fixture
def world() -> Generator[World]:
    """The surroundings of the services."""
    made = World()
    yield made
    made.close()


async def test_every_attack_is_contained(service_of_anyone: RunningSandbox, world: World) -> None:
    box = await Box(service_of_anyone).open()
    await box.run(world.facts(service_of_anyone) + CALLS)
    escaped: dict[str, str] = {}
    for what, attack in ATTACKS.items():
        indented = "\n    ".join(attack.split("; "))
        result = await box.run(f"try:\n    {indented}\nexcept BaseException as e:\n    kept = e = None\nelse:\n    print('ESCAPED')")
        if result.logs or result.state_lost:
            escaped[what] = result.logs

    assert not escaped
    assert world.canary.read_text() == "untouched"
    with pytest.raises(BlockingIOError):
        world.tcp.accept()
    await box.close()


async def test_modes_and_times_of_files_outside_stay(service: RunningSandbox, world: World) -> None:
    box = await Box(service).open()
    before = world.canary.stat()
    for attack in ("os.chmod(CANARY, 0o700)", "os.chown(CANARY, 0, 0)", "os.utime(CANARY)", "os.truncate(CANARY, 0)", "os.unlink(CANARY)"):
        await box.run(f"import os\n{world.facts(service)}{attack}")

    assert world.canary.stat() == before
    await box.close()


async def test_environment_holds_no_secrets(service: RunningSandbox) -> None:
    box = await Box(service).open()

    result = await box.run("import os; print(dict(os.environ), open('/proc/self/environ').read() if os.path.exists('/proc/self') else '')")

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
    link = "import os; os.symlink('/etc/passwd', 'leak.txt'); os.symlink('/etc', 'etc'); os.makedirs('sub'); os.symlink('/etc', 'sub/etc')"
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
for place in ('/mnt', '/mnt/data', '/tmp', os.getcwd() + '/..', os.getcwd() + '/../..', os.getcwd() + '/../../{victim.id}/data'):
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
    await box.run("import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()")

    started = set(service.descendants()) - before

    assert started
    for pid in started:
        await _until_stopped(pid)
    await box.close()


async def _until_stopped(pid: int) -> None:
    async with asyncio.timeout(10):
        while state(pid) != "T":  # noqa: ASYNC110 - the kernel stops one thread after the other, and tells nobody
            await asyncio.sleep(0.01)
