"""llama.cpp's server. Calls and thinking require it to be started with `--jinja`."""

from __future__ import annotations

from app.providers.chat.encode import COMMON_SAMPLING, Dialect, think_by_template
from app.providers.chat.provider import provider_spec

PROVIDER = provider_spec(
    Dialect(
        name="llamacpp",
        think=think_by_template,
        reasoning_field="reasoning_content",
        sampling={**COMMON_SAMPLING, "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"},
        forced_calls=frozenset({"required"}),  # a named function silently becomes "auto"
        tokenizer="of text",
    )
)
