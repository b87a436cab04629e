"""A working request body for every operation that takes JSON; ids are placeholders for the caller's objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FILE_ID = "file-0123456789abcdef01234567"


def examples(model: str) -> Mapping[str, Mapping[str, Any]]:
    """By operation; `model` is an available model."""
    return {
        "create_response": {"model": model, "input": "Say hello in one sentence.", "stream": False},
        "count_input_tokens": {"model": model, "input": "Say hello in one sentence."},
        "create_conversation": {
            "items": [{"role": "user", "content": "My name is Ada."}],
            "metadata": {"topic": "demo"},
        },
        "update_conversation": {"metadata": {"topic": "names"}},
        "create_conversation_items": {"items": [{"role": "user", "content": "I like short answers."}]},
        "create_vector_store": {
            "name": "Manuals",
            "metadata": {"team": "support"},
            "expires_after": {"anchor": "last_active_at", "days": 7},
        },
        "update_vector_store": {"name": "Manuals, 2nd edition"},
        "search_vector_store": {"query": "How is the filter cleaned?", "max_num_results": 5},
        "add_vector_store_file": {"file_id": FILE_ID, "attributes": {"language": "en", "year": 2026}},
        "update_vector_store_file": {"attributes": {"language": "de"}},
        "create_file_batch": {"file_ids": [FILE_ID]},
        "create_container": {
            "name": "Analysis",
            "memory_limit": "1g",
            "expires_after": {"anchor": "last_active_at", "minutes": 20},
        },
        "add_container_file": {"file_id": FILE_ID},
    }
