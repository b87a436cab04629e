"""Ollama's OpenAI-compatible endpoint.

It silently truncates the beginning of long contexts; `OLLAMA_CONTEXT_LENGTH` sets the limit.
"""

from __future__ import annotations

from typing import Any

from app.providers.base import Effort, Thinking
from app.providers.chat.encode import Dialect
from app.providers.chat.provider import provider_spec
from app.providers.facts import ModelFacts, effort_of

_LEVELS: dict[Effort, str] = {"minimal": "low", "low": "low", "high": "high", "xhigh": "high", "max": "high"}
"""Older versions refuse any other level; for Qwen they are all the same."""


def _think(thinking: Thinking, facts: ModelFacts) -> dict[str, Any]:
    match thinking.enabled:
        case None:
            return {}
        case False:
            return {"reasoning_effort": "none"}
        case True:
            return {"reasoning_effort": _LEVELS.get(effort_of(thinking, facts) or "medium", "medium")}


PROVIDER = provider_spec(
    Dialect(
        name="ollama",
        think=_think,
        reasoning_field="reasoning",
        forced_calls=frozenset(),
    )
)
