"""The compared servers: how each is started, and which requests it gets."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from benchmarks.databases import Databases

HERE = Path(__file__).resolve().parent
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
OTHER = "-other"
"""The suffix of the names of another checkout's gateways."""


@dataclass(frozen=True)
class Server:
    """One server under test."""

    name: str
    port: int
    command: Sequence[str]
    path: str
    ready: str = "/healthz"
    env: dict[str, str] = field(default_factory=dict[str, str])
    load: tuple[str, ...] = ()
    """Options for the load generator."""
    chains: bool = False
    """It stores responses, so a conversation can be continued by previous_response_id."""
    tools: bool = False
    """It runs built-in tools itself."""
    database_pids: tuple[int, ...] = ()
    """Database processes that work for it, reported separately."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def start(self, folder: Path) -> processes.Running:
        """Start it with its files and its log in `folder`. Raises processes.NotReady."""
        log = folder / f"{self.name}.log"
        return processes.start(self.command, self.env, log=log, ready_url=f"http://127.0.0.1:{self.port}{self.ready}")


def upstream(models: Sequence[str]) -> Server:
    """The simulated Qwen server, which is also the server `direct`, and the search engine for the gateways' tool."""
    port = processes.free_port()
    command = [str(HERE / "bin/upstream"), "-port", str(port), "-models", ",".join(models)]
    return Server("direct", port, command, CHAT, load=("-strict",))


def nginx(upstream: Server, folder: Path) -> Server:
    """The reference: one nginx worker that passes everything on, unbuffered."""
    port = processes.free_port()
    template = (HERE / "nginx.conf").read_text()
    conf = folder / "nginx.conf"
    conf.write_text(template.replace("@PORT@", str(port)).replace("@UPSTREAM@", f"127.0.0.1:{upstream.port}"))
    return Server("nginx", port, ["nginx", "-p", str(folder), "-c", str(conf)], CHAT, load=("-strict",))


def gateway(
    kind: str, upstream: Server, folder: Path, database: Databases | None = None, checkout: Path | None = None
) -> Server:
    """This gateway, or that of another checkout: on SQLite, or on the given database; `nostore` gets store:false."""
    port, key = processes.free_port(), secrets.token_hex(24)
    name = kind + OTHER if checkout else kind
    env = {
        "PYTHONPATH": str(checkout or HERE.parent),
        "GATEWAY_PORT": str(port),
        "GATEWAY_ADMIN_KEY": key,
        "GATEWAY_DATABASE_URL": database.url if database else f"sqlite+aiosqlite:///{folder / name}.db",
        "GATEWAY_UPSTREAM_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
        "GATEWAY_UPSTREAM_DIALECT": "vllm",
        "GATEWAY_SEARXNG_URL": f"http://127.0.0.1:{upstream.port}",
    }
    program = [sys.executable, "-m", "app.cli"]
    if database:
        env["GATEWAY_REDIS_URL"] = database.redis_url
        subprocess.run([*program, "migrate"], env=processes.environment(env), cwd=folder, stdout=sys.stderr, check=True)  # noqa: S603 - our own program
    stored = kind != "nostore"
    return Server(
        name,
        port,
        [*program, "serve"],
        RESPONSES,
        env=env,
        load=("-strict", "-key", key, f"-store={str(stored).lower()}"),
        chains=stored,
        tools=True,
        database_pids=database.pids if database else (),
    )


def litellm(program: str, upstream: Server, folder: Path, models: Sequence[str]) -> Server:
    """LiteLLM's Responses bridge over Chat Completions: no database, no callbacks, every model named (its fastest
    configuration).
    """
    port, key = processes.free_port(), "sk-" + secrets.token_hex(24)
    bridge = {
        "api_base": f"http://127.0.0.1:{upstream.port}/v1",
        "api_key": "sk-none",
        "use_chat_completions_api": True,
    }
    served = [{"model_name": model, "litellm_params": {"model": f"hosted_vllm/{model}", **bridge}} for model in models]
    conf = folder / "litellm.yaml"  # JSON is YAML
    conf.write_text(
        json.dumps(
            {
                "model_list": served,
                "litellm_settings": {"num_retries": 0, "telemetry": False, "drop_params": True},
                "general_settings": {"master_key": key, "disable_spend_logs": True},
            }
        )
    )
    env = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": key,
    }
    command = [program, "--config", str(conf), "--host", "127.0.0.1", "--port", str(port)]
    return Server("litellm", port, command, RESPONSES, ready="/health/liveliness", env=env, load=("-key", key))
