"""Where code runs according to the settings, and how strongly it is confined there."""

from __future__ import annotations

import asyncio

from app.settings import Settings
from app.tools.ports.tool import Missing
from app.tools.sandbox.client import Sandbox, SandboxUnavailable
from app.tools.sandbox.service import LocalService, RemoteService
from sandbox import machine
from sandbox.protocol import BACKENDS, BackendName, Confinement

_DETAILS_SECONDS = 15.0


def sandbox_of(settings: Settings) -> Sandbox | Missing:
    """Where code runs, according to the settings; nothing is started yet."""
    where, token = settings.sandbox, settings.sandbox_token
    if where.startswith(("http://", "https://", "unix:")):
        if token is None:
            return Missing("GATEWAY_SANDBOX_TOKEN", "Set it to the token of the sandbox service at GATEWAY_SANDBOX.")
        return Sandbox(RemoteService(where, token.get_secret_value()))
    names: dict[str, tuple[BackendName, ...]] = {"auto": BACKENDS, **{name: (name,) for name in BACKENDS}}
    if where not in names:
        reason = "Code execution is disabled" if where == "off" else f"`{where}` is not a sandbox"
        possible = ", ".join(f"`{name}`" for name in names)
        return Missing("GATEWAY_SANDBOX", f"{reason}: set GATEWAY_SANDBOX to {possible} or a service's URL.")
    missing = [f"{name}: {reason}" for name in names[where] if (reason := machine.obstacle(name)) is not None]
    if len(missing) == len(names[where]):
        return Missing(
            "GATEWAY_SANDBOX",
            f"No sandbox can work on this machine ({'; '.join(missing)}); set GATEWAY_SANDBOX to a service's URL.",
        )
    backend: BackendName | None = None if where == "auto" else names[where][0]
    return Sandbox(LocalService(backend, settings.limits.tool_seconds), machine.installed_packages())


async def confinement_in(sandbox: Sandbox) -> Confinement | str:
    """How code is confined there, or why it cannot be run. A service owned by this gateway is started for that."""
    try:
        async with asyncio.timeout(_DETAILS_SECONDS):
            health = await sandbox.health()
    except TimeoutError:
        return "The sandbox service did not answer in time."
    except SandboxUnavailable as error:
        return str(error)
    except OSError as error:
        return f"The sandbox service does not start: {error.strerror}."
    return health.confinement or f"It is {health.backend}; this older service reports no details."
