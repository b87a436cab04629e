"""Known facts about models: `models.toml` as frozen records. A model without an entry is unknown, not incapable."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

from app.providers.base import Effort, NativeConditions, Thinking, TokenFacts
from app.settings import ModelFacts as Overrides
from app.settings import NativeTool

_EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SEPARATOR = re.compile(r"[:_@]|\.(?=[a-z])")
"""What replaces a hyphen in file names and tags."""
_WORDS = r"[\d.]*(?:-.*)?"
"""What `*` stands for in a pattern."""
_SNAPSHOT = re.compile(r"(-(\d{4}-\d{2}-\d{2}|latest|preview|us))+$")


class PriceTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Prices per million tokens for requests with at most `up_to` input tokens.

    None: no upper bound, or no separate price.
    """

    up_to: int | None = None
    input: float
    output: float
    thinking_output: float | None = None
    """For the whole output if the model thought."""
    cached_input: float | None = None
    cache_write: float | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model. None: unknown. The fields are explained in `models.toml`."""

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
    tokens: TokenFacts | None = None

    @property
    def thinks(self) -> bool | None:
        """Whether the model thinks by default."""
        return None if self.thinking is None else self.thinking in {"on", "always"}

    @property
    def can_think(self) -> bool | None:
        """Whether thinking can be requested."""
        return None if self.thinking is None else self.thinking != "never"

    @property
    def can_stop_thinking(self) -> bool:
        """Whether thinking can be turned off; assumed for unknown models."""
        return self.thinking != "always"

    def with_overrides(self, overrides: Overrides) -> ModelFacts:
        """These facts, except for those that the operator overrides."""
        return msgspec.structs.replace(self, **overrides.model_dump(exclude_none=True))

    def nearest_effort(self, effort: Effort) -> Effort:
        """The weakest effort of the family that is no weaker than `effort`, or its strongest.

        `effort` itself if none are listed.
        """
        if not self.efforts:
            return effort
        wanted = _EFFORTS.index(effort)
        strong_enough: list[Effort] = [taken for taken in self.efforts if _EFFORTS.index(taken) >= wanted]
        return strong_enough[0] if strong_enough else self.efforts[-1]


class PriceList(msgspec.Struct, frozen=True):
    """The date and currency of the tiers."""

    as_of: datetime.date
    currency: str


class CallPrices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The vendor's prices for calls of its own tools, with their date and currency."""

    as_of: datetime.date
    currency: str
    per_call: dict[NativeTool, float]


class _Family(ModelFacts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pattern: str


class _Tokens(TokenFacts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pattern: str


class _Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    budgets: dict[Effort, int]
    prices: PriceList
    native_calls: CallPrices
    native_conditions: dict[NativeTool, NativeConditions]
    models: dict[str, ModelFacts]
    families: tuple[_Family, ...]
    tokens: tuple[_Tokens, ...]


FactsLookup = Callable[[str], ModelFacts]


@cache
def _catalogue() -> _Catalogue:
    text = files("app.providers").joinpath("models.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Catalogue)


def price_list() -> PriceList:
    """The date and currency of the prices in `ModelFacts.tiers`."""
    return _catalogue().prices


def call_prices() -> CallPrices:
    """For the tools in `ModelFacts.native_tools`."""
    return _catalogue().native_calls


def native_conditions() -> Mapping[NativeTool, NativeConditions]:
    """For the tools in `ModelFacts.native_tools`; the vendor runs the others under any."""
    return _catalogue().native_conditions


@lru_cache(maxsize=1024)
def facts(model: str) -> ModelFacts:
    """The facts by exact name, otherwise of the model of a snapshot, otherwise of the family; all None for a model
    without an entry.

    Accepts names as servers use them: `qwen-plus-2025-07-28`, `Qwen/Qwen3-8B-AWQ`, `qwen3:8b`, `/models/Qwen3-8B.gguf`.
    """
    name = _SEPARATOR.sub("-", model.rsplit("/", 1)[-1].lower().removesuffix(".gguf"))
    return msgspec.structs.replace(_facts(name), tokens=_tokens(name))


def _facts(name: str) -> ModelFacts:
    catalogue = _catalogue()
    for known in (name, _SNAPSHOT.sub("", name)):
        if known in catalogue.models:
            return catalogue.models[known]
    family = next((family for family in catalogue.families if fits(family.pattern, name)), None)
    return ModelFacts() if family is None else ModelFacts(**_described(family))


def _tokens(name: str) -> TokenFacts | None:
    return next((tokens for tokens in _catalogue().tokens if fits(tokens.pattern, name)), None)


def fits(pattern: str, name: str) -> bool:
    """Whether a family's pattern matches the model's name, up to a hyphen or its end:

    `qwen-vl` does not match `qwen-vllm`.
    """
    return re.fullmatch(re.escape(pattern).replace(r"\*", _WORDS) + "(?:-.*)?", name) is not None


def _described(family: _Family) -> dict[str, Any]:
    return {name: getattr(family, name) for name in ModelFacts.__struct_fields__}


def facts_with(overrides: Mapping[str, Overrides]) -> FactsLookup:
    """`facts`, overridden by what the operator sets for single models (exact names)."""

    def lookup(model: str) -> ModelFacts:
        stated = overrides.get(model)
        return facts(model) if stated is None else facts(model).with_overrides(stated)

    return lookup


def effort_of(thinking: Thinking, model: ModelFacts) -> Effort | None:
    """The requested effort, by name or as a budget, as an effort of the family; None if neither was given."""
    if thinking.effort is None and thinking.budget is None:
        return None
    enough: list[Effort] = [
        effort for effort, tokens in _catalogue().budgets.items() if tokens >= (thinking.budget or 0)
    ]
    return model.nearest_effort(thinking.effort or (enough[0] if enough else "max"))


def budget_for(model: ModelFacts, effort: Effort) -> int | None:
    """Thinking tokens for an effort; None if the family takes no budget, or none needs to be sent."""
    if model.thinking_budget_max is None or effort == "none":
        return None
    return min(_catalogue().budgets.get(effort, model.thinking_budget_max), model.thinking_budget_max)
