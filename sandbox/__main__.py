"""`python -m sandbox`: the sandbox service.

Standalone, it is configured by `SANDBOX_` variables. With `--child` it is configured by a line of JSON on standard
input (which keeps the token out of command line and environment), reports on standard output whether it started, and
ends when standard input closes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType

import msgspec
import uvicorn

from sandbox import probe
from sandbox.config import ConfigurationError, from_environment
from sandbox.limits import MEBIBYTE, Limits
from sandbox.protocol import Config, StartReport
from sandbox.service import application
from sandbox.sessions import Sessions
from sandbox.stage import Stage
from sandbox.strength import strength
from sandbox.turns import Turns

_log = logging.getLogger("sandbox")
_LEAST_RUNS = 4
_FILE_THREADS = 32
"""For scanning and removing files: a session with very many files must not block those of other sessions."""
_FIRST_TO_DIE = "500"
"""When memory runs out, the kernel kills sandboxes first; their processes inherit this."""


def main() -> int:
    """The exit code."""
    os.umask(0o022)  # the umask may have been restrictive; the users of sessions must be able to read their files
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    child = "--child" in sys.argv[1:]
    try:
        config = msgspec.json.decode(_first_line(), type=Config) if child else from_environment(os.environ)
    except (ConfigurationError, msgspec.MsgspecError) as error:
        return _refuse(str(error), child=child)
    os.environ.pop("SANDBOX_TOKEN", None)
    signal.signal(signal.SIGTERM, _end)  # the server re-raises the signal after it has shut down
    with suppress(OSError):  # a container may not allow it
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_DIE, encoding="ascii")
    try:
        stage = Stage(Path(config.volumes) if config.volumes else None)
    except (OSError, ValueError) as error:
        return _refuse(
            f"SANDBOX_VOLUMES: {error}" if config.volumes else f"cannot set up a directory for files: {error}",
            child=child,
        )
    try:
        asyncio.run(_serve(config, stage, child=child))
    except probe.NoBackend as error:
        return _refuse(str(error), child=child)
    except KeyboardInterrupt:
        return 0
    finally:
        stage.close()
    return 0


async def _serve(config: Config, stage: Stage, *, child: bool) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_FILE_THREADS))
    places = min(config.sessions, stage.room or config.sessions)
    if places < config.sessions:
        _log.warning("there are file systems for only %d sessions, not %d", places, config.sessions)
    limits = _with_disk(config.limits, stage.share(places))
    name, workplace = await probe.choose(config.backend, stage, limits)
    confinement = strength(name, workplace.backend, stage, limits.disk_bytes)
    turns = Turns(min(config.runs or max(_LEAST_RUNS, 2 * len(os.sched_getaffinity(0))), max(1, places - 1)))
    sessions = Sessions(msgspec.structs.replace(workplace, turns=turns), limits, places)
    listener = _listen(config.listen)
    server = uvicorn.Server(
        uvicorn.Config(
            application(sessions, confinement, config.token),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
        )
    )
    _log.info("code is confined by %s (%s); listening on %s", name, confinement.summary, config.listen)
    if child:
        _say(StartReport(backend=name))
        asyncio.get_running_loop().add_reader(0, lambda: _end_with_parent(server))
    await server.serve(sockets=[listener])


def _with_disk(limits: Limits, share: int) -> Limits:
    if share >= limits.disk_bytes:
        return limits
    _log.warning(
        "there is room for only %d MiB of files per session, not %d", share // MEBIBYTE, limits.disk_bytes // MEBIBYTE
    )
    return msgspec.structs.replace(limits, disk_bytes=share)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _end_with_parent(server: uvicorn.Server) -> None:
    if not os.read(0, 1024):
        asyncio.get_running_loop().remove_reader(0)
        server.should_exit = True


def _listen(address: str) -> socket.socket:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        path.unlink(missing_ok=True)  # left by a service that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o666)  # its directory controls who can connect, and the token who can do anything
    else:
        host, _, port = address.rpartition(":")
        listener = socket.create_server(
            (host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    listener.listen(128)
    return listener


def _first_line() -> bytes:
    """Without `sys.stdin`, which would read ahead."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"\n", b""):
        line += byte
    return bytes(line)


def _say(report: StartReport) -> None:
    os.write(1, msgspec.json.encode(report) + b"\n")


def _refuse(reason: str, *, child: bool) -> int:
    if child:
        _say(StartReport(refused=reason))
    _log.error("%s", reason)
    return 1


if __name__ == "__main__":
    sys.exit(main())
