"""The examples of the README and of docs/examples.md, run as they are printed, and the README's Chinese twin."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs import examples
from tests.docs.examples import ROOT
from tests.support.gateway import running_gateway
from tests.support.processes import guard, release
from tests.support.upstream import ScriptedUpstream

README = examples.page("README.md")
PAGE = examples.page("docs/examples.md")
TWIN = examples.page("README.zh.md")

_ANY_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


EXAMPLES = examples.blocks(PAGE, "example")
PRINTED = examples.blocks(PAGE, "prints")

CURL_SHOWS = {
    "basic": '"status":"completed"',
    "stream": "event: response.completed\n",
    "tools": "1267650600228229401496703205376",
    "multi-turn": "Your name is Ada.",
    "background": '"status":"completed"',
    "resume": "event: response.completed\n",
    "functions": "get_weather returned: 22 degrees, sunny",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Generator[Mapping[str, str]]:
    """What a reader has exported after the first start: the demo model answers."""
    with running_gateway(tmp_path_factory.mktemp("readme"), "demo:", upstream_dialect="demo") as gateway:
        yield examples.exported(gateway)


RUNNERS: Mapping[str, Callable[[str, Mapping[str, str]], subprocess.CompletedProcess[str]]] = {
    "curl": examples.bash,
    "python": examples.python,
    "node": examples.node,
}


def test_every_topic_has_its_example_in_every_language() -> None:
    assert set(EXAMPLES) == {f"{topic} {language}" for topic in CURL_SHOWS for language in RUNNERS}
    assert set(PRINTED) == set(CURL_SHOWS)


def test_the_readme_shows_some_of_them() -> None:
    shown, printed = examples.blocks(README, "example"), examples.blocks(README, "prints")
    assert set(shown) >= {"basic curl", "basic python", "stream python"}
    assert {name: EXAMPLES[name] for name in shown} == shown
    assert {name: PRINTED[name] for name in printed} == printed


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_does_what_the_page_says(name: str, environment: Mapping[str, str]) -> None:
    topic, language = name.rsplit(" ", 1)
    if language == "curl" and not shutil.which("curl", path=environment["PATH"]):
        pytest.skip("there is no curl on this machine to run the README's curl examples with")

    finished = RUNNERS[language](EXAMPLES[name], environment)

    assert finished.returncode == 0, finished.stderr
    if language == "curl":
        assert CURL_SHOWS[topic] in finished.stdout
    else:
        assert finished.stdout == PRINTED[topic]


def test_the_first_start_prints_what_the_page_says(tmp_path: Path) -> None:
    """Address and key, as a start without an admin key prints them, are all that the examples need."""
    with _first_start(tmp_path, GATEWAY_UPSTREAM_DIALECT="demo") as welcome:
        key = re.search(r"^  key +(sk-\S+)$", welcome, re.MULTILINE)
        base_url = re.search(r"^  base URL +(http://127\.0\.0\.1:\d+/v1)$", welcome, re.MULTILINE)
        assert key is not None
        assert base_url is not None

        finished = examples.python(
            EXAMPLES["basic python"], {**os.environ, "OPENAI_BASE_URL": base_url[1], "OPENAI_API_KEY": key[1]}
        )

        assert finished.stdout == PRINTED["basic"], finished.stderr


@pytest.mark.skipif(
    shutil.which("curl") is None, reason="there is no curl on this machine to run the printed command with"
)
@pytest.mark.parametrize("dialect", ["demo", "vllm"])
def test_the_printed_curl_is_ready(dialect: str, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """It names a model that the upstream has, whichever upstream that is."""
    address = {} if dialect == "demo" else {"GATEWAY_UPSTREAM_BASE_URL": upstream.url}
    with _first_start(tmp_path, GATEWAY_UPSTREAM_DIALECT=dialect, **address) as welcome:
        command = re.search(r"^  curl .*?'$", welcome, re.DOTALL | re.MULTILINE)
        assert command is not None

        finished = examples.bash(command[0], os.environ)

    assert '"status":"completed"' in finished.stdout, finished.stderr


@contextmanager
def _first_start(directory: Path, **chosen: str) -> Generator[str]:
    """A gateway with nothing configured but its upstream and port, and what it printed until it served."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    settings = {"GATEWAY_PORT": str(port), "PYTHONPATH": str(ROOT), **chosen}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve"],
        cwd=directory,
        env=inherited | settings,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        guard(process)
        assert process.stderr is not None
        printed: list[str] = []
        for line in process.stderr:
            printed.append(line)
            if "lists the models" in line:  # the welcome's last line; the server serves by then
                break
        try:
            yield "".join(printed)
        finally:
            process.terminate()
            release(process)


def test_the_configuration_file_is_valid(tmp_path: Path) -> None:
    block = re.search(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert block is not None
    file = tmp_path / "gateway.toml"
    file.write_text(block[1], encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}

    finished = subprocess.run(
        [sys.executable, "-m", "app.cli", "validate"],
        cwd=ROOT,
        env=inherited | {"GATEWAY_CONFIG": str(file)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr


def test_the_chinese_twin_has_the_same_code() -> None:
    assert [_without_comments(block) for block in _ANY_BLOCK.findall(TWIN)] == [
        _without_comments(block) for block in _ANY_BLOCK.findall(README)
    ]


def test_the_chinese_twin_has_the_same_sections() -> None:
    assert _headings(TWIN) == _headings(README)


def _without_comments(block: str) -> str:
    """Shell comments are prose, so they are translated."""
    return re.sub(r" +# .*$", "", block, flags=re.MULTILINE)


def _headings(page: str) -> list[int]:
    return [len(line.split(" ")[0]) for line in _ANY_BLOCK.sub("", page).splitlines() if line.startswith("#")]
