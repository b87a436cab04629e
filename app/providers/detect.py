"""Detects an upstream's dialect from its address and its model list."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from app.providers.base import UpstreamModel
from app.settings import Dialect

_OLLAMA_PORT = 11434
_OWNERS: dict[str, Dialect] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp", "library": "ollama"}
"""`owned_by` as set by these servers; "library" is the namespace of Ollama's own models."""


def dialect_of(base_url: str, models: Sequence[UpstreamModel]) -> Dialect:
    """The vendor's dialect by its host, a server's by the `owned_by` of its models; otherwise plain OpenAI."""
    address = urlsplit(base_url)
    if f".{address.hostname or ''}".endswith(".aliyuncs.com"):
        return "dashscope"
    for model in models:
        if model.owned_by in _OWNERS:
            return _OWNERS[model.owned_by]
    return "ollama" if address.port == _OLLAMA_PORT else "openai"
