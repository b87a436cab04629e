"""What is known about models: `models.toml` as frozen records. A model nobody described is unknown, not incapable."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

from app.providers.base import Effort, Thinking
from app.settings import ModelFacts as Overrides
from app.settings import NativeTool

_EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SEPARATOR = re.compile(r"[:_@]|\.(?=[a-z])")
"""What stands in the place of a hyphen in names of files and tags."""
_WORDS = r"[\d.]*(?:-.*)?"
"""For which `*` stands in a pattern."""
_SNAPSHOT = re.compile(r"(-(\d{4}-\d{2}-\d{2}|latest|preview|us))+$")


class PriceTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Prices of a million tokens for requests with at most `up_to` input tokens; None: no upper bound, or no price of its own."""

    up_to: int | None = None
    input: float
    output: float
    thinking_output: float | None = None
    """Of the whole output when the model thought."""
    cached_input: float | None = None
    cache_write: float | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model. None: not known. Each field is explained in `models.toml`."""

    context_window: int | None = None
    max_output_tokens: int | None = None
    thinking: Literal["on", "off", "never", "always"] | None = None
    thinking_budget_max: int | None = None
    efforts: tuple[Effort, ...] = ()
    images: bool | None = None
    video: bool = False
    files: bool = False
    preserves_thinking: bool = False
    json_schema: bool = False
    native_tools: tuple[NativeTool, ...] = ()
    tiers: tuple[PriceTier, ...] = ()

    @property
    def thinks(self) -> bool | None:
        """Whether the model thinks when nothing is asked."""
        return None if self.thinking is None else self.thinking in {"on", "always"}

    @property
    def can_think(self) -> bool | None:
        """Whether it can be told to."""
        return None if self.thinking is None else self.thinking != "never"

    @property
    def can_stop_thinking(self) -> bool:
        """Whether it can be told not to; of a model that is not known, nobody says that it cannot."""
        return self.thinking != "always"

    def with_overrides(self, overrides: Overrides) -> ModelFacts:
        """These facts, but for those the operator states."""
        return msgspec.structs.replace(self, **overrides.model_dump(exclude_none=True))

    def nearest_effort(self, effort: Effort) -> Effort:
        """The weakest effort the family takes that is no weaker than `effort`, or its strongest; `effort` itself where none are listed."""
        if not self.efforts:
            return effort
        wanted = _EFFORTS.index(effort)
        strong_enough: list[Effort] = [taken for taken in self.efforts if _EFFORTS.index(taken) >= wanted]
        return strong_enough[0] if strong_enough else self.efforts[-1]


class PriceList(msgspec.Struct, frozen=True):
    """When and in which currency the tiers were true."""

    as_of: datetime.date
    currency: str


class CallPrices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the vendor charges for calls of its own tools, and when and in which currency that was true."""

    as_of: datetime.date
    currency: str
    per_call: dict[NativeTool, float]


class _Family(ModelFacts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pattern: str


class _Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    budgets: dict[Effort, int]
    prices: PriceList
    native_calls: CallPrices
    models: dict[str, ModelFacts]
    families: tuple[_Family, ...]


FactsLookup = Callable[[str], ModelFacts]


@cache
def _catalogue() -> _Catalogue:
    text = files("app.providers").joinpath("models.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Catalogue)


def price_list() -> PriceList:
    """What the prices of `ModelFacts.tiers` refer to."""
    return _catalogue().prices


def call_prices() -> CallPrices:
    """Of the tools in `ModelFacts.native_tools`."""
    return _catalogue().native_calls


@lru_cache(maxsize=1024)
def facts(model: str) -> ModelFacts:
    """The facts by exact name, else of the model a snapshot is of, else of the family; all None for a model nobody described.

    Takes names as servers use them: `qwen-plus-2025-07-28`, `Qwen/Qwen3-8B-AWQ`, `qwen3:8b`, `/models/Qwen3-8B.gguf`.
    """
    name = _SEPARATOR.sub("-", model.rsplit("/", 1)[-1].lower().removesuffix(".gguf"))
    catalogue = _catalogue()
    for known in (name, _SNAPSHOT.sub("", name)):
        if known in catalogue.models:
            return catalogue.models[known]
    family = next((family for family in catalogue.families if fits(family.pattern, name)), None)
    return ModelFacts() if family is None else ModelFacts(**_described(family))


def fits(pattern: str, name: str) -> bool:
    """Whether a family's pattern fits the name of a model. It ends at a hyphen or with the name: `qwen-vl` does not fit `qwen-vllm`."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", _WORDS) + "(?:-.*)?", name) is not None


def _described(family: _Family) -> dict[str, Any]:
    return {name: getattr(family, name) for name in ModelFacts.__struct_fields__}


def facts_with(overrides: Mapping[str, Overrides]) -> FactsLookup:
    """`facts`, with what the operator states about single models (exact names) put over it."""

    def lookup(model: str) -> ModelFacts:
        stated = overrides.get(model)
        return facts(model) if stated is None else facts(model).with_overrides(stated)

    return lookup


def effort_of(thinking: Thinking, model: ModelFacts) -> Effort | None:
    """The effort asked for, by name or as a budget, as the family takes it; None where neither is said."""
    if thinking.effort is None and thinking.budget is None:
        return None
    enough: list[Effort] = [effort for effort, tokens in _catalogue().budgets.items() if tokens >= (thinking.budget or 0)]
    return model.nearest_effort(thinking.effort or (enough[0] if enough else "max"))


def budget_for(model: ModelFacts, effort: Effort) -> int | None:
    """Tokens of thinking for an effort; None where the family takes no budget, or none has to be named."""
    if model.thinking_budget_max is None or effort == "none":
        return None
    return min(_catalogue().budgets.get(effort, model.thinking_budget_max), model.thinking_budget_max)
