"""Alibaba Cloud Model Studio (DashScope, Bailian), the vendor's own service, through its OpenAI-compatible mode.

Always streamed: open-weight models refuse to think without streaming, and unstreamed calls are cut off after 300
seconds.
"""

from __future__ import annotations

from typing import Any

from app.providers.base import Thinking
from app.providers.chat.encode import COMMON_SAMPLING, Dialect, Format
from app.providers.chat.provider import provider_spec
from app.providers.facts import ModelFacts, budget_for


def _think(thinking: Thinking, facts: ModelFacts) -> dict[str, Any]:
    if thinking.enabled is False:
        return {"enable_thinking": False}
    sent: dict[str, Any] = {"preserve_thinking": True} if facts.preserves_thinking else {}
    return sent | {"enable_thinking": True} | _depth(thinking, facts) if thinking.enabled else sent


def _depth(thinking: Thinking, facts: ModelFacts) -> dict[str, Any]:
    """Effort or budget, never both: the vendor forbids the combination."""
    if thinking.effort is not None and facts.efforts:
        return {"reasoning_effort": facts.nearest_effort(thinking.effort)}
    budget = thinking.budget or (budget_for(facts, thinking.effort) if thinking.effort else None)
    if budget is None:
        return {}
    # A budget above the model's maximum is refused.
    return {"thinking_budget": min(budget, facts.thinking_budget_max or budget)}


def _formats(facts: ModelFacts) -> frozenset[Format]:
    return frozenset({"json_object", "json_schema"}) if facts.json_schema else frozenset({"json_object"})


_SAMPLING = {name: wire for name, wire in COMMON_SAMPLING.items() if name != "frequency_penalty"} | {
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
}

PROVIDER = provider_spec(
    Dialect(
        name="dashscope",
        think=_think,
        reasoning_field="reasoning_content",
        separates_thinking=True,
        sampling=_SAMPLING,
        whole_answers=False,
        forced_calls=frozenset({"named"}),  # "required" is refused by many models
        forced_calls_while_thinking=False,
        formats=_formats,
        files="by_model",
        file_urls=True,
        quota_passes=True,
        image_urls=True,
    )
)
