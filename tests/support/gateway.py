"""The real gateway as a separate process, and the official client for it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
import msgspec
import openai

from tests.support.processes import PATIENCE, guard, release

ADMIN_KEY = "test-key-4f9a1c7e2b8d6053"

_ROOT = Path(__file__).parents[2]
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For loopback: reading the system's certificates takes longer than most requests."""


class Gateway(msgspec.Struct, frozen=True):
    """A running gateway."""

    process: subprocess.Popen[bytes]
    base_url: str
    """Without `/v1`."""
    log_file: Path
    key: str = ADMIN_KEY

    def sync_client(self) -> openai.OpenAI:
        """The official client: it validates responses, and errors are raised without retries."""
        return openai.OpenAI(
            base_url=f"{self.base_url}/v1", api_key=self.key, max_retries=0, _strict_response_validation=True
        )

    def client(self) -> openai.AsyncOpenAI:
        """The same, asynchronous."""
        return openai.AsyncOpenAI(
            base_url=f"{self.base_url}/v1", api_key=self.key, max_retries=0, _strict_response_validation=True
        )

    def http(self) -> httpx.AsyncClient:
        """A plain client with the key, for what the official one cannot send or hides."""
        return httpx.AsyncClient(
            base_url=self.base_url, headers={"authorization": f"Bearer {self.key}"}, timeout=PATIENCE, verify=_NO_TLS
        )

    def memory(self, kind: Literal["VmRSS", "VmHWM"] = "VmRSS") -> int:
        """Bytes, now (VmRSS) or at most until now (VmHWM)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))

    def log(self, start: int = 0) -> str:
        """The gateway's log from byte `start` on.

        Request lines are written shortly after the responses: see `logged`.
        """
        return self.log_file.read_bytes()[start:].decode(errors="replace")

    async def logged(self, pattern: str, start: int = 0, *, times: int = 1) -> str:
        """The log from byte `start` on, once `pattern` occurs so many times; as it is if that does not happen."""
        for _ in range(int(PATIENCE / 0.02)):
            if len(re.findall(pattern, self.log(start))) >= times:
                break
            await asyncio.sleep(0.02)
        return self.log(start)


@contextmanager
def running_gateway(directory: Path, upstream_url: str, **settings: str) -> Generator[Gateway]:
    """Serve from `directory`, which contains database and log, while the block runs.

    Settings are named as in the environment, without the prefix: `retention_days="1"`. Used again with the same
    directory, the gateway finds its data.
    """
    port = _free_port()
    log_file = directory / "gateway.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve"],
            cwd=directory,
            env=_environment(directory, upstream_url, port, settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    guard(process)
    gateway = Gateway(process, f"http://127.0.0.1:{port}", log_file)
    try:
        _wait_until_healthy(gateway)
        yield gateway
    finally:
        _stop(gateway)
        release(process)


def _environment(directory: Path, upstream_url: str, port: int, settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_") and k != "DASHSCOPE_API_KEY"}
    chosen = {
        "host": "127.0.0.1",
        "port": str(port),
        "database_url": f"sqlite+aiosqlite:///{directory / 'gateway.db'}",
        "upstream_base_url": upstream_url,
        "upstream_dialect": "vllm",
        "admin_key": ADMIN_KEY,
        **settings,
    }
    # It runs in its own directory, but the code of this tree is tested, installed or not.
    return inherited | {"PYTHONPATH": str(_ROOT)} | {f"GATEWAY_{name.upper()}": value for name, value in chosen.items()}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_until_healthy(gateway: Gateway) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if gateway.process.poll() is not None:
            break
        try:
            if httpx.get(f"{gateway.base_url}/healthz").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.02)  # polling interval; nothing depends on its length
    raise AssertionError(f"the gateway did not start:\n{gateway.log()}")


def _stop(gateway: Gateway) -> None:
    """Ask it to stop, as an init system would; a test may have killed it already."""
    if gateway.process.poll() is not None:
        return
    gateway.process.send_signal(signal.SIGTERM)
    try:
        gateway.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        gateway.process.kill()
        gateway.process.wait()
        raise AssertionError(f"the gateway did not stop within {PATIENCE} s:\n{gateway.log()}") from None
