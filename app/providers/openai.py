"""Any other server with OpenAI's Chat Completions, and OpenAI itself: only parameters in OpenAI's own reference are
sent.
"""

from __future__ import annotations

from typing import Any

from app.providers.base import Thinking
from app.providers.chat.encode import COMMON_SAMPLING, Dialect
from app.providers.chat.provider import provider_spec
from app.providers.facts import ModelFacts, effort_of


def _think(thinking: Thinking, facts: ModelFacts) -> dict[str, Any]:
    """There is no switch, only an effort: thinking without an effort is sent as the middle one, otherwise it would
    depend on the model.
    """
    match thinking.enabled:
        case None:
            return {}
        case False:
            return {"reasoning_effort": "none"}
        case True:
            return {"reasoning_effort": effort_of(thinking, facts) or facts.nearest_effort("medium")}


PROVIDER = provider_spec(
    Dialect(
        name="openai",
        think=_think,
        reasoning_field=None,
        sampling={**COMMON_SAMPLING, "max_output_tokens": "max_completion_tokens"},
        formats_while_thinking=True,
        files="always",
        strict_tools=True,
        identifiers=frozenset({"user", "prompt_cache_key"}),
    )
)
