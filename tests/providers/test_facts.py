"""Facts about models, and the guess of a server's dialect."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.base import Effort, UpstreamModel
from app.providers.detect import dialect_of
from app.providers.facts import ModelFacts, budget_for, call_prices, facts, facts_with, fits, price_list
from app.settings import ModelFacts as Overrides

DOCUMENTED = (
    "qwen3.7-max",
    "qwen3.7-plus",
    "qwen3.6-plus",
    "qwen3.5-plus",
    "qwen3.5-flash",
    "qwen3.6-flash",
    "qwen-plus",
    "qwen-flash",
    "qwen3-coder-plus",
    "qwen3-coder-flash",
)


@pytest.mark.parametrize("model", DOCUMENTED)
def test_documented_models_are_described(model: str) -> None:
    known = facts(model)

    assert known.context_window == 1_000_000
    assert known.max_output_tokens is not None
    assert known.thinking is not None
    assert known.tiers
    bounds = [tier.up_to for tier in known.tiers]
    assert bounds[-1] is None
    assert bounds[:-1] == sorted(bound for bound in bounds if bound is not None)


def test_prices_are_dated() -> None:
    assert (price_list().currency, price_list().as_of.year) == ("USD", 2026)


EVERY_TOOL = {"web_search", "web_extractor", "code_interpreter", "web_search_image", "image_search"}


@pytest.mark.parametrize(
    ("model", "missing"),
    [
        ("qwen3.8-max", set[str]()),
        ("qwen3.7-plus-2026-05-01", set[str]()),
        ("qwen3.7-flash", set[str]()),
        ("qwen3.6-flash", set[str]()),
        ("qwen3.5-397b-a17b", set[str]()),
        ("qwen3.7-max", {"image_search"}),
        ("qwen3-max", {"image_search", "web_extractor"}),
        ("qwen-plus", EVERY_TOOL),
        ("qwen3-coder-plus", EVERY_TOOL),
        ("qwen3-8b", EVERY_TOOL),
        ("qwen3.5-ocr", EVERY_TOOL),
        ("qwen3.8-omni-flash", EVERY_TOOL),
        ("somebody-elses", EVERY_TOOL),
    ],
)
def test_the_vendors_own_tools(model: str, missing: set[str]) -> None:
    assert EVERY_TOOL - set(facts(model).native_tools) == missing


def test_an_operator_states_what_the_vendor_has() -> None:
    lookup = facts_with(
        {"qwen-plus": Overrides(native_tools=("web_search",)), "qwen3.8-max": Overrides(native_tools=())}
    )

    assert (lookup("qwen-plus").native_tools, lookup("qwen3.8-max").native_tools) == (("web_search",), ())


def test_prices_of_the_vendors_calls() -> None:
    prices = call_prices()

    assert (prices.currency, prices.as_of.year) == ("CNY", 2026)
    assert prices.per_call.keys() == EVERY_TOOL
    assert prices.per_call["web_search"] * 1000 == 4


@pytest.mark.parametrize(
    ("model", "thinking", "images"),
    [
        ("qwen3.7-plus", "on", True),
        ("qwen3.7-max", "on", False),
        ("qwen-plus", "off", False),
        ("qwen-plus-2025-07-28", "off", False),
        ("qwen-plus-latest", "off", False),
        ("qwen-plus-2025-12-01-us", "off", False),
        ("qwen3-max-preview", "off", False),
        ("qwen3.5-flash-2026-02-23", "on", True),
        ("qwen3-coder-plus", "never", False),
        ("Qwen/Qwen3-8B", "on", False),
        ("QWEN/QWEN3-8B-AWQ", "on", False),
        ("qwen3:8b", "on", False),
        ("hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M", "on", False),
        ("/models/Qwen3-8B-Q4_K_M.gguf", "on", False),
        ("Qwen3-235B-A22B-Thinking-2507", "always", False),
        ("qwen3:30b-a3b-thinking-2507", "always", False),
        ("Qwen3-30B-A3B-Instruct-2507", "never", False),
        ("Qwen3-Coder-30B-A3B-Instruct", "never", False),
        ("Qwen3-Next-80B-A3B-Instruct", "never", False),
        ("Qwen3-VL-8B-Instruct", "never", True),
        ("Qwen3-VL-8B-Thinking", "always", True),
        ("qwen3-vl-plus", "off", True),
        ("Qwen3.5-27B", "on", True),
        ("Qwen3.5-0.8B", "off", True),
        ("Qwen3.6-27B", "on", True),
        ("QwQ-32B", "always", False),
        ("Qwen2.5-7B-Instruct", "never", False),
        ("Qwen2.5-VL-7B-Instruct", "never", True),
        ("qwen2.5vl:7b", "never", True),
        ("Qwen3.5-0.8B.Q4_K_M.gguf", "off", True),
        ("qwen3_8b", "on", False),
        ("qwen3", "on", False),
        ("qwq:32b", "always", False),
        ("qwen-vl-max", "never", True),
        ("qwen-vl", "never", True),
        ("qwen-vllm", None, None),
        ("qwen-maximal", None, None),
        ("qwen3guard-8b", None, None),
        ("qwen3.55-plus", None, None),
        ("qwen3-8b-instructed", "on", False),
        ("somebody-elses", None, None),
    ],
)
def test_names_as_servers_use_them(model: str, thinking: str | None, images: bool | None) -> None:
    assert (facts(model).thinking, facts(model).images) == (thinking, images)


PATTERNS: list[str] = [
    family["pattern"]
    for family in tomllib.loads(files("app.providers").joinpath("models.toml").read_text())["families"]
]
LETTERS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=6)
WORDS = st.lists(st.sampled_from(["8b", "a3b", "2507", "awq", "max", "q4_k_m"]), max_size=3)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(words=WORDS, letters=LETTERS, inside=st.sampled_from(["", ".5", "-30b-a3b", ".5-30b"]))
def test_a_pattern_ends_at_a_hyphen_or_with_the_name(pattern: str, words: list[str], letters: str, inside: str) -> None:
    more = "".join(f"-{word}" for word in words)
    stem = pattern.removesuffix("*").replace("*", inside)

    assert fits(pattern, stem)
    assert fits(pattern, stem + more)
    assert not fits(pattern, stem + letters)
    assert not fits(pattern, stem + letters + more)
    if "*" in pattern:
        assert fits(pattern, pattern.replace("*", inside) + more)
        assert not fits(pattern, pattern.replace("*", letters) + more)


def test_every_family_is_reached() -> None:
    named = [pattern.replace("*", "") for pattern in PATTERNS]

    assert [facts(name) for name in named].count(ModelFacts()) == 0
    assert len({*PATTERNS}) == len(PATTERNS)


def test_the_operator_knows_better() -> None:
    lookup = facts_with(
        {
            "qwen-plus": Overrides.model_validate({"thinking": "never", "context_window": 8192}),
            "mine": Overrides.model_validate({"images": False}),
        }
    )

    assert (lookup("qwen-plus").thinking, lookup("qwen-plus").context_window) == ("never", 8192)
    assert lookup("qwen-plus").max_output_tokens == facts("qwen-plus").max_output_tokens
    assert lookup("mine").images is False
    assert lookup("qwen-flash") == facts("qwen-flash")


@pytest.mark.parametrize(
    ("effort", "budget"),
    [
        ("none", None),
        ("minimal", 1024),
        ("low", 4096),
        ("medium", 16_384),
        ("high", 32_768),
        ("xhigh", 38_912),
        ("max", 38_912),
    ],
)
def test_budgets(effort: Effort, budget: int | None) -> None:
    assert budget_for(facts("qwen-plus"), effort) == budget


def test_no_budget_where_none_is_taken() -> None:
    assert budget_for(facts("qwen3.8-max"), "high") is None
    assert budget_for(ModelFacts(), "high") is None


@pytest.mark.parametrize(
    ("taken", "asked", "said"),
    [
        (("low", "high"), "minimal", "low"),
        (("low", "high"), "medium", "high"),
        (("low", "high"), "max", "high"),
        ((), "max", "max"),
    ],
)
def test_the_nearest_effort(taken: tuple[Effort, ...], asked: Effort, said: Effort) -> None:
    assert ModelFacts(efforts=taken).nearest_effort(asked) == said


@pytest.mark.parametrize(
    ("base_url", "owner", "dialect"),
    [
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "system", "dashscope"),
        ("https://ws-1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1", None, "dashscope"),
        ("http://127.0.0.1:8000/v1", "vllm", "vllm"),
        ("http://127.0.0.1:8000/v1", "sglang", "sglang"),
        ("http://127.0.0.1:8000/v1", "llamacpp", "llamacpp"),
        ("http://127.0.0.1:8000/v1", "library", "ollama"),
        ("http://[::1]:11434/v1", None, "ollama"),
        ("http://127.0.0.1:11434/v1", "vllm", "vllm"),
        ("https://api.example.com/v1", "somebody", "openai"),
        ("https://notaliyuncs.com/v1", None, "openai"),
    ],
)
def test_dialects_are_recognised(base_url: str, owner: str | None, dialect: str) -> None:
    models = [] if owner is None else [UpstreamModel("base"), UpstreamModel("m", owned_by=owner)]

    assert dialect_of(base_url, models) == dialect
