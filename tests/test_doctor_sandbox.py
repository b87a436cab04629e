"""What `doctor` says of the sandbox."""

from __future__ import annotations

import pytest

from app import doctor
from app.settings import Settings


async def sandbox_finding(**settings: object) -> doctor.Finding:
    found = await doctor.examine(Settings.model_validate({"discover": False, **settings}))
    return next(finding for finding in found if finding.subject == "sandbox")


async def test_the_strength_of_the_back_end_is_named() -> None:
    finding = await sandbox_finding()

    assert finding.ok
    assert finding.message.startswith(("bubblewrap: ", "landlock: ", "wasi: "))
    for part in ("user id", "signals", "disk"):
        assert part in finding.message


@pytest.mark.parametrize(
    ("settings", "ok", "said"),
    [
        ({"sandbox": "off"}, True, "Code execution is disabled"),
        (
            {"sandbox": "http://127.0.0.1:9", "sandbox_token": "t" * 20},
            False,
            "does not answer. Change GATEWAY_SANDBOX",
        ),
        ({"sandbox": "http://127.0.0.1:9"}, False, "the token of the sandbox service"),
    ],
)
async def test_what_keeps_code_from_running_is_named(settings: dict[str, object], ok: bool, said: str) -> None:
    finding = await sandbox_finding(**settings)

    assert finding.ok is ok
    assert said in finding.message
