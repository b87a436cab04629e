"""What hostile code tries, as code; each must end with an exception. The battery runs them against every back end."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from tests.sandbox.running import Box, RunningSandbox

CALLS = """
import ctypes, errno, fcntl, os, socket, struct, subprocess, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def connect(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        s.connect(address)
        s.send(b"x")

def number(x86_64, aarch64, *arguments):
    here = x86_64 if os.uname().machine == "x86_64" else aarch64
    if libc.syscall(*map(ctypes.c_long, (here, *arguments))) < 0:
        raise OSError(ctypes.get_errno(), "syscall")

def control(command, argument):
    with socket.socketpair()[0] as mine:
        fcntl.fcntl(mine, command, argument)

def device(command, argument):
    with socket.socketpair()[0] as mine:
        fcntl.ioctl(mine, command, struct.pack("i", argument))

def machine_code(code):
    import mmap
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex(code))
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()

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
    "sends packets to a socket by its name": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', "
    "ABSTRACT)",
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
    "has the service signalled by a file": "control(8, SERVICE)",
    "has a thread of the service signalled": "control(15, struct.pack('ii', 0, SERVICE))",
    "has the service's group signalled": "control(15, struct.pack('ii', 2, os.getpgid(SERVICE)))",
    "has itself signalled and chooses the signal": "control(10, 9)",
    "asks for signals": "fcntl.fcntl(socket.socketpair()[0], fcntl.F_SETFL, 0o20000)",
    "has the service signalled by a device": "device(0x8901, SERVICE)",
    "has the service signalled by a socket": "device(0x8902, SERVICE)",
    "asks a device for signals": "device(0x5452, 1)",
    "is told of what happens in a directory": "fcntl.fcntl(os.open('/mnt/data', os.O_RDONLY), fcntl.F_NOTIFY, 2)",
    "makes others wait for its file": "kept = open('/mnt/data/leased', 'w'); fcntl.fcntl(kept, 1024, 1)",
    "enlarges a pipe": "fcntl.fcntl(os.pipe()[0], 1031, 1 << 20)",
    "makes a pipe of notifications": "os.pipe2(0o200)",
    "watches": "call('inotify_init1', 0)",
    "watches a directory": "number(254, 27, 0, id(CANARY), 0x300)",
    "watches a file system": "number(300, 262, 0, 0)",
    "empties what it may only read": "os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "empties it in passing": "os.open(os.__file__, os.O_RDONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)",
    "opens without reading or writing": "os.open(os.__file__, 3)",
    "empties without reading or writing": "os.open(os.__file__, 3 | os.O_TRUNC)",
    "opens by the newer call": "how = struct.pack('QQQ', os.O_RDONLY | os.O_TRUNC, 0, 0); number(437, 437, -100, "
    "id(how), 24)",
    "lists mounts": "number(458, 458, 0, 0, 0, 0)",
    "asks the kernel to work for it": "number(425, 425, 8, 0)",
    "has others' memory given back": "number(448, 448, 0, 0)",
    "compares itself with the service": "number(312, 272, os.getpid(), SERVICE, 2, 0, 0)",
    "holds the service": "os.pidfd_open(SERVICE)",
    "holds whom it talks to": "socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)",
    "writes the service's memory": "number(311, 271, SERVICE, 0, 0, 0, 0, 0)",
    "makes the service nicer": "os.setpriority(os.PRIO_PROCESS, SERVICE, 10)",
    "takes the service's processors": "os.sched_setaffinity(SERVICE, {0})",
    "makes the service wait for the disk": "number(251, 30, 1, SERVICE, 3 << 13)",
    "signals a thread of the service": "number(234, 131, SERVICE, SERVICE, 0)",
    "signals another's thread": "number(200, 130, SERVICE, 0)",
    "signals with a value": "number(129, 138, SERVICE, 10, 0)",
    "signals everybody": "os.kill(-1, 0)",
    "signals its group": "os.killpg(0, 0)",
    "removes a queue of messages": "number(241, 181, id(b'x'))",
    "removes shared memory": "number(31, 195, 0, 0, 0)",
    "makes a filter of its own": "number(317, 277, 1, 8, 0)",
    "handles page faults": "number(323, 282, 0)",
    "counts events of the machine": "number(298, 241, 0, 0, -1, -1, 0)",
    "names a file by its handle": "number(303, 264, -100, id(b'/'), 0, 0, 0)",
    "opens a file system": "number(430, 430, id(b'tmpfs'), 0)",
    "looks where the service is": "os.readlink(f'/proc/{SERVICE}/cwd')",
    "looks what the service has open": "os.readlink(f'/proc/{SERVICE}/fd/0')",
    "looks at the service's memory map": "open(f'/proc/{SERVICE}/maps').read()",
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


async def escaped(box: Box) -> dict[str, str]:
    """Try all of them; the box knows the facts and the calls. What succeeded, with what it printed."""
    found: dict[str, str] = {}
    for what, attack in ATTACKS.items():
        indented = "\n    ".join(attack.split("; "))
        result = await box.run(
            f"try:\n    {indented}\nexcept BaseException as e:\n    kept = e = None\nelse:\n    print('ESCAPED')"
        )
        if result.logs or result.state_lost:
            found[what] = result.logs
    return found
