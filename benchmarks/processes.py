"""Server processes: start and stop them, and read their resource usage from /proc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_READY_WITHIN = 90.0
_STOPPED_WITHIN = 10.0


class NotReady(Exception):
    """A server exited, or did not answer in time; the message has the end of its log."""


@dataclass(frozen=True)
class Running:
    """A started server. `ready_after` is the time from its start to its first answer, in seconds."""

    process: subprocess.Popen[bytes]
    ready_after: float

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        """Terminate it; kill what is left of its process tree if it does not exit."""
        pids = tree(self.pid)
        self.process.terminate()
        try:
            self.process.wait(_STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            for pid in pids:
                _kill(pid)
            self.process.wait()


def start(command: Sequence[str], env: Mapping[str, str], *, log: Path, ready_url: str) -> Running:
    """Start a server without any local configuration, and wait until `ready_url` answers 200. Raises NotReady."""
    begin = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - the commands are this program's own
            command, env=environment(env), cwd=log.parent, stdout=output, stderr=output, start_new_session=True
        )
    while not _answers(ready_url):
        if process.poll() is not None or time.monotonic() - begin > _READY_WITHIN:
            Running(process, 0).stop()
            raise NotReady(
                f"{command[0]} is not ready:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            )
        time.sleep(0.01)
    return Running(process, time.monotonic() - begin)


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` added to this process's without proxies, and without settings that would change a gateway."""
    unwanted = ("GATEWAY_", "DASHSCOPE_", "LITELLM")
    return {
        k: v for k, v in os.environ.items() if not k.startswith(unwanted) and not k.lower().endswith("_proxy")
    } | dict(env)


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children = _families()
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def children(pid: int) -> list[int]:
    """The running child processes."""
    return _families().get(pid, [])


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of the process trees, including children that have ended."""
    return sum(_cpu_of(pid) for root in roots for pid in tree(root))


def memory_mib(root: int) -> float:
    """Proportional set size of a process tree: pages that several processes share are divided among them."""
    kib = 0
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def _families() -> dict[int, list[int]]:
    """The children of every process."""
    families: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            families.setdefault(int(fields[1]), []).append(int(entry.name))
    return families


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; none if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_of(pid: int) -> float:
    """CPU time of one process and of its children that have ended.

    /proc counts in ticks of 10 ms; the process's own CPU clock (see clock_getcpuclockid(3)) is the same figure in
    nanoseconds.
    """
    fields = _stat(pid)
    if not fields:
        return 0
    ended_children = (int(fields[13]) + int(fields[14])) / _TICKS
    try:
        return time.clock_gettime((~pid << 3) | 2) + ended_children
    except OSError:  # it has just ended: its time is now counted in its parent
        return 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - always http on loopback
            return response.status == 200  # noqa: PLR2004 - HTTP's OK
    except (urllib.error.URLError, OSError):
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
