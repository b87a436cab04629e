"""How settings are written in the environment and in the file, and what a mistake is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.settings import ConfigurationError, load

SECRET = "sk-0123456789-abcdefghij"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "DASHSCOPE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _mistakes() -> str:
    with pytest.raises(ConfigurationError) as refused:
        load()
    return str(refused.value)


@pytest.mark.parametrize("written", ["wiki.corp, 127.0.0.1/32,", '["wiki.corp", "127.0.0.1/32"]'])
def test_a_list_has_commas_or_is_json(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("GATEWAY_FETCH_ALLOW", written)

    assert load().fetch_allow == ("wiki.corp", "127.0.0.1/32")


@pytest.mark.parametrize(
    ("variable", "written", "name", "read"),
    [
        ("GATEWAY_SEARCH_PROVIDERS", "tavily", "search_providers", ("tavily",)),
        ("GATEWAY_LENIENT_USER_AGENTS", "codex*", "lenient_user_agents", ("codex*",)),
        ("GATEWAY_CORS_ORIGINS", "*", "cors_origins", ("*",)),
        (
            "GATEWAY_ALIASES",
            "fast=qwen3.5-flash, good = qwen3.7-plus",
            "aliases",
            {"fast": "qwen3.5-flash", "good": "qwen3.7-plus"},
        ),
        ("GATEWAY_ALIASES", '{"a,b": "c=d"}', "aliases", {"a,b": "c=d"}),
        ("GATEWAY_SEARCH_BASE_URLS", "tavily=http://proxy/?a=b", "search_base_urls", {"tavily": "http://proxy/?a=b"}),
        ("GATEWAY_ROOT_PATH", "/a/llm/", "root_path", "/a/llm"),
        ("GATEWAY_ROOT_PATH", "/", "root_path", ""),
    ],
)
def test_what_is_written_as_text_is_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, written: str, name: str, read: object
) -> None:
    monkeypatch.setenv("GATEWAY_TAVILY_API_KEY", SECRET)
    monkeypatch.setenv(variable, written)

    assert getattr(load(), name) == read


def test_the_file_has_lists_as_text_too(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        'fetch_allow = "wiki.corp"\naliases = "fast=qwen3.5-flash"\n'
        '[[upstreams]]\nbase_url = "http://127.0.0.1:1/v1"\nmodels = "qwen3-8b, qwen3-32b"\n'
    )
    settings = load()

    assert settings.fetch_allow == ("wiki.corp",)
    assert settings.aliases == {"fast": "qwen3.5-flash"}
    assert settings.upstreams[0].models == ("qwen3-8b", "qwen3-32b")


@pytest.mark.parametrize(
    ("variable", "written", "form"),
    [
        ("GATEWAY_ALIASES", "fast", "`name=value, other=value`"),
        ("GATEWAY_ALIASES", "fast:qwen3.5-flash", "`name=value, other=value`"),
        ("GATEWAY_ALIASES", "fast=", "`name=value, other=value`"),
        ("GATEWAY_ALIASES", '{"": "qwen3.5-flash"}', "`alias=model`"),
        ("GATEWAY_ALIASES", "a=b,b=qwen3.5-flash", "`b`, which is itself an alias"),
        ("GATEWAY_FETCH_ALLOW", "10", "`one, two`"),
        ("GATEWAY_FETCH_ALLOW", "http://wiki.corp", "`wiki.corp`, `10.1.2.3` or `10.1.0.0/16`"),
        ("GATEWAY_FETCH_ALLOW", "10.1.2.3/8", "`10.1.0.0/16`"),
        ("GATEWAY_FETCH_ALLOW", "*.corp", "`wiki.corp`"),
        ("GATEWAY_FETCH_ALLOW", "wiki.corp:8080", "`wiki.corp`"),
        ("GATEWAY_SEARCH_PROVIDERS", "bing", "'tavily'"),
        ("GATEWAY_MODELS", "qwen3-8b", "JSON object"),
        ("GATEWAY_UPSTREAMS", "http://127.0.0.1:8001/v1", "JSON list of objects"),
        ("GATEWAY_LIMITS", "many", "JSON object"),
        ("GATEWAY_ROOT_PATH", "llm", "`/llm`"),
        ("GATEWAY_ROOT_PATH", "/a/../b", "`/llm`"),
        ("GATEWAY_ROOT_PATH", "https://example.com/llm", "`/llm`"),
    ],
)
def test_a_mistake_is_told_the_allowed_form(
    monkeypatch: pytest.MonkeyPatch, variable: str, written: str, form: str
) -> None:
    monkeypatch.setenv(variable, written)
    mistakes = _mistakes()

    assert form in mistakes
    assert mistakes.startswith(variable.removeprefix("GATEWAY_").lower())


def test_all_mistakes_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ALIASES", "fast")
    monkeypatch.setenv("GATEWAY_FETCH_ALLOW", "http://wiki.corp")
    monkeypatch.setenv("GATEWAY_PORT", "eighty")

    assert [line.partition(":")[0] for line in sorted(_mistakes().splitlines())] == ["aliases", "fetch_allow", "port"]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str) -> None:
    (tmp_path / "secret").write_bytes(f"{SECRET}{end}".encode())
    for variable in ("GATEWAY_ADMIN_KEY", "GATEWAY_SANDBOX_TOKEN", "DASHSCOPE_API_KEY"):
        monkeypatch.setenv(f"{variable}_FILE", str(tmp_path / "secret"))
    settings = load()

    for key in (settings.admin_key, settings.sandbox_token, settings.dashscope_api_key):
        assert key is not None
        assert key.get_secret_value() == SECRET


def test_the_database_url_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql+asyncpg://gateway:secret@db/gateway\n")
    monkeypatch.setenv("GATEWAY_DATABASE_URL_FILE", "url")

    assert load().database_url == "postgresql+asyncpg://gateway:secret@db/gateway"


def test_an_upstreams_key_can_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    upstream = '[[upstreams]]\nbase_url = "http://127.0.0.1:1/v1"\napi_key_file = "key"\n'
    (tmp_path / "gateway.toml").write_text(upstream)
    key = load().upstreams[0].api_key
    (tmp_path / "gateway.toml").write_text(f'{upstream}api_key = "{SECRET}"\n')

    assert key is not None
    assert key.get_secret_value() == SECRET
    assert "set one of them" in _mistakes()


def test_a_secrets_file_wins_over_the_configuration_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('sandbox_token = "old"\n')
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.setenv("GATEWAY_SANDBOX_TOKEN_FILE", "secret")
    token = load().sandbox_token

    assert token is not None
    assert token.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "one line"),
        (b"\n", "one line"),
        (b"one\ntwo\n", "one line"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a\0b", "one line"),
    ],
)
def test_an_unusable_secrets_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("GATEWAY_ADMIN_KEY_FILE", str(path))
    mistakes = _mistakes()

    assert mistakes.startswith(f"GATEWAY_ADMIN_KEY_FILE: {path}")
    assert reason in mistakes


def test_a_secret_and_its_file_contradict_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", SECRET)
    monkeypatch.setenv("GATEWAY_ADMIN_KEY_FILE", "secret")

    assert _mistakes() == "GATEWAY_ADMIN_KEY_FILE: GATEWAY_ADMIN_KEY is also set; set only one of them"


def test_only_secrets_have_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT_FILE", "port")

    assert _mistakes() == "GATEWAY_PORT_FILE: only secrets can be read from files; use GATEWAY_PORT"
