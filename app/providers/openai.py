"""Any other server with OpenAI's Chat Completions, and OpenAI itself: nothing is sent that is not in OpenAI's own reference."""

from __future__ import annotations

from typing import Any

from app.providers._openai_chat import provider_spec
from app.providers._openai_chat_encode import COMMON_SAMPLING, Dialect
from app.providers.base import Thinking
from app.providers.facts import ModelFacts


def _think(thinking: Thinking, facts: ModelFacts) -> dict[str, Any]:
    del facts
    effort = "none" if thinking.enabled is False else thinking.effort
    return {} if effort is None else {"reasoning_effort": effort}


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
