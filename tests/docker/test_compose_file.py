"""What can be said of compose file and image without an engine: containers are locked down and watched, and no secret is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = (ROOT / "deploy" / "example.env").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SETTINGS = {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}

# What either generation of compose refuses, or reads differently.
ONLY_NEW = {"name", "include", "version", "configs", "develop", "models"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "pid", "ipc", "network_mode", "devices"} & service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_watched_or_runs_once(name: str) -> None:
    service = SERVICES[name]

    assert service["healthcheck"]["test"] if service["restart"] == "unless-stopped" else service["restart"] == "no"


def test_the_schema_is_current_before_the_gateway_starts() -> None:
    assert SERVICES["migrate"]["command"] == ["responses-gateway", "migrate"]
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["gateway"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_only_the_gateway_can_be_reached_and_only_from_this_machine() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"gateway"}
    assert SERVICES["gateway"]["ports"] == ["${PUBLISH_ADDRESS:-127.0.0.1:8000}:8000"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if service["networks"] != ["inside"]} == {"gateway", "searxng"}


def test_no_secret_is_written() -> None:
    environment = [item for service in SERVICES.values() for item in service.get("environment", {}).items()]
    secrets = {name: value for name, value in environment if re.search("KEY|PASSWORD|SECRET", name)}

    assert secrets.keys() >= {"PGPASSWORD", "POSTGRES_PASSWORD", "GATEWAY_ADMIN_KEY", "GATEWAY_UPSTREAM_API_KEY", "DASHSCOPE_API_KEY"}
    assert {name: value for name, value in secrets.items() if value is not None and not value.startswith("${POSTGRES_PASSWORD:?")} == {}
    assert re.findall(r"^#?\w*(?:KEY|PASSWORD|SECRET)=(.+)$", EXAMPLE, re.MULTILINE) == []


def test_settings_exist() -> None:
    """An unknown `GATEWAY_…` variable would keep the gateway from starting."""
    passed_on = {name for service in SERVICES.values() for name in service.get("environment", {}) if name.startswith("GATEWAY_")}

    assert sorted(passed_on - SETTINGS) == []
    assert sorted(set(re.findall(r"GATEWAY_\w+", DOCKERFILE)) - SETTINGS) == []
    assert sorted(set(re.findall(r"GATEWAY_\w+", EXAMPLE)) - passed_on) == []


def test_both_generations_of_compose_read_it() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")

    assert not ONLY_NEW & COMPOSE.keys()
    assert not re.search(r"start_interval|additional_contexts|env_file|required:", text)


def test_the_image_is_not_root_and_holds_what_the_lock_says() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert re.findall(r"install --require-hashes --requirement \S+", DOCKERFILE) == [
        "install --require-hashes --requirement /build/run.lock"
    ]
