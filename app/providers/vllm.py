"""vLLM. Separates thinking only if started with `--reasoning-parser`, and calls with `--enable-auto-tool-choice`."""

from __future__ import annotations

from app.providers.chat.encode import COMMON_SAMPLING, Dialect, think_by_template
from app.providers.chat.provider import provider_spec

PROVIDER = provider_spec(
    Dialect(
        name="vllm",
        think=think_by_template,
        reasoning_field="reasoning",  # versions 0.16 to 0.20 drop `reasoning_content` from the history
        sampling={**COMMON_SAMPLING, "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"},
        strict_tools=True,
        identifiers=frozenset({"user"}),
        tokenizer="of messages",
    )
)
